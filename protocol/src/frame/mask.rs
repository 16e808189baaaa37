//! Masking (RFC 6455 §5.3): XOR with four bytes, over and over. Applied in place, eight bytes per step, which the
//! compiler turns into vector instructions over several steps; no unsafe, and any alignment will do.

/// What a vector instruction takes.
const VECTOR_BYTES: usize = 16;
/// From this length on it pays to begin at a multiple of that: a payload hardly ever does, behind its header.
const LONG_BYTES: usize = 4096;

/// Masks or unmasks `payload` in place. `phase` is the number of the frame's payload bytes that came
/// before (only its remainder by four matters).
pub fn unmask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    if payload.len() < LONG_BYTES {
        apply(payload, key(mask, phase));
    } else {
        unmask_long(payload, mask, phase);
    }
}

/// Apart, so that short payloads are not burdened with it.
#[inline(never)]
fn unmask_long(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    let (front, rest) = payload.split_at_mut(payload.as_ptr().align_offset(VECTOR_BYTES).min(VECTOR_BYTES));
    apply(front, key(mask, phase));
    apply(rest, key(mask, phase % 4 + front.len()));
}

/// The mask from its byte `phase` on, twice. The lowest byte is the first.
fn key(mask: [u8; 4], phase: usize) -> u64 {
    let key = u64::from(u32::from_le_bytes(mask).rotate_right(8 * (phase % 4) as u32));
    key << 32 | key
}

#[inline(always)]
fn apply(payload: &mut [u8], key: u64) {
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ key).to_le_bytes();
    }
    // A word is a multiple of four, so the mask begins anew here.
    for (byte, key) in rest.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytewise(payload: &mut [u8], mask: [u8; 4], phase: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[(phase + i) % 4];
        }
    }

    /// RFC 6455 §5.7: the masked "Hello".
    #[test]
    fn the_standards_example() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }

    /// Wherever it begins and ends.
    #[test]
    fn a_long_payload_is_like_byte_by_byte() {
        let bytes: Vec<u8> = (0..LONG_BYTES + 100).map(|i| ((i * 7) >> 3) as u8).collect();
        for skip in 0..VECTOR_BYTES {
            for len in LONG_BYTES - 1..LONG_BYTES + 20 {
                let (mut fast, mut slow) = (bytes.clone(), bytes.clone());
                unmask(&mut fast[skip..skip + len], [1, 20, 100, 200], len);
                bytewise(&mut slow[skip..skip + len], [1, 20, 100, 200], len);
                assert_eq!(fast, slow);
            }
        }
    }

    proptest! {
        #[test]
        fn like_byte_by_byte(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            skip in 0usize..40,
            mask: [u8; 4],
            phase in 0usize..9,
        ) {
            let skip = skip.min(payload.len());
            let (mut fast, mut slow) = (payload.clone(), payload);
            unmask(&mut fast[skip..], mask, phase);
            bytewise(&mut slow[skip..], mask, phase);
            prop_assert_eq!(fast, slow);
        }
    }
}
