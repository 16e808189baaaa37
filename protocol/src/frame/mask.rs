//! Masking (RFC 6455 §5.3): XOR with four bytes, over and over. Applied in place, eight bytes per step, which the
//! compiler turns into vector instructions over several steps; no unsafe, no alignment demanded.

/// Masks or unmasks `payload` in place. `phase` is the number of the frame's payload bytes that came
/// before (only its remainder by four matters).
pub fn unmask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    // Little-endian, so that the lowest byte is the first; a right turn brings the next one there.
    let key = u32::from_le_bytes(mask).rotate_right(8 * (phase % 4) as u32);
    let key = u64::from(key) << 32 | u64::from(key);

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
