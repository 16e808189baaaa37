//! The payload of a message: its stream, its number in the stream, when it was due, and a filler that depends on stream
//! and number.
//!
//! `stream (4 digits) | seq (8) | sent (11) | check (1) | filler`, digits of 6 bits, ASCII throughout, so that the same
//! payload can be a text frame, a JSON string without escapes, or bytes. The filler is a window of one fixed table, so that
//! checking it is one comparison of slices.
//!
//! A *stream* is one publisher's messages on one topic, numbered densely from 0. Stream `s` of a run with `T` topics
//! goes to topic `s mod T`.

use std::sync::Arc;

use fastrand::Rng;

/// Length of a stamp, in bytes; the least a payload can be.
pub const STAMP_LEN: usize = 24;
/// Streams are numbered below this.
pub const STREAMS_MAX: u32 = 1 << 24;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
/// The table repeats after this many bytes: a prime, so that windows never align with powers of two.
const PERIOD: usize = 251;

/// Stream, number and time of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Below [`STREAMS_MAX`].
    pub stream: u32,
    /// Dense from 0 within the stream.
    pub seq: u64,
    /// When it was sent, or should have been: nanoseconds since 1970 (the run's clock).
    pub sent_ns: u64,
}

impl Stamp {
    /// The first [`STAMP_LEN`] bytes of a payload.
    #[must_use]
    pub fn digits(self) -> [u8; STAMP_LEN] {
        let mut out = [0; STAMP_LEN];
        put(&mut out[..4], u64::from(self.stream));
        put(&mut out[4..12], self.seq);
        put(&mut out[12..23], self.sent_ns);
        out[23] = DIGITS[check(&out[..23])];
        out
    }

    /// Reads the first [`STAMP_LEN`] bytes of a payload; nothing when they are no stamp.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..STAMP_LEN)?;
        let stamp = Self { stream: get(&bytes[..4])? as u32, seq: get(&bytes[4..12])?, sent_ns: get(&bytes[12..23])? };
        (value(bytes[23])? as usize == check(&bytes[..23])).then_some(stamp)
    }
}

fn put(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(value & 63) as usize];
        value >>= 6;
    }
}

fn get(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |number, byte| Some(number << 6 | u64::from(value(*byte)?)))
}

fn value(digit: u8) -> Option<u8> {
    const NONE: u8 = 255;
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut at = 0;
        while at < 64 {
            values[DIGITS[at] as usize] = at as u8;
            at += 1;
        }
        values
    };
    let value = VALUES[usize::from(digit)];
    (value != NONE).then_some(value)
}

/// A check digit: it differs when a digit is damaged or two neighbours are exchanged.
fn check(digits: &[u8]) -> usize {
    let sum = digits.iter().fold(0_usize, |sum, byte| {
        let value = value(*byte).map_or(64, usize::from);
        sum.wrapping_mul(3).wrapping_add(value)
    });
    sum & 63
}

/// The length of each message: a function of stream and number, so that the receiver can check it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// All alike, in bytes.
    Fixed(u32),
    /// Drawn from these with equal probability.
    Mixed(Vec<u32>),
    /// Drawn from a range with equal probability, both ends included.
    Range(u32, u32),
}

impl Sizes {
    /// Bytes of message `seq` of `stream`.
    #[must_use]
    pub fn of(&self, stream: u32, seq: u64) -> u32 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Mixed(sizes) => sizes[random(stream, seq).usize(..sizes.len())],
            Self::Range(least, most) => random(stream, seq).u32(*least..=*most),
        }
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> u32 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Mixed(sizes) => sizes.iter().copied().max().unwrap_or(0),
            Self::Range(_, most) => *most,
        }
    }

    /// The shortest.
    #[must_use]
    pub fn min(&self) -> u32 {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Mixed(sizes) => sizes.iter().copied().min().unwrap_or(0),
            Self::Range(least, _) => *least,
        }
    }
}

/// A generator seeded by the message, so that publisher and receiver draw the same numbers.
pub(crate) fn random(stream: u32, seq: u64) -> Rng {
    Rng::with_seed(seq ^ u64::from(stream).rotate_left(40))
}

/// Writes and checks payloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Payloads {
    sizes: Arc<Sizes>,
    /// Fillers are windows of this.
    table: Arc<[u8]>,
}

impl Payloads {
    /// # Panics
    /// If a size is below [`STAMP_LEN`].
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        assert!(sizes.min() as usize >= STAMP_LEN, "a payload has room for its stamp");
        let table =
            (0..sizes.max() as usize + PERIOD).map(|at| DIGITS[(at % PERIOD * 7 + at % PERIOD / 64) % 64]).collect();
        Self { sizes: Arc::new(sizes), table }
    }

    /// How long each message is.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Appends a message's payload.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let len = self.sizes.of(stamp.stream, stamp.seq) as usize;
        out.extend_from_slice(&stamp.digits());
        out.extend_from_slice(self.filler(stamp, 0, len - STAMP_LEN).expect("inside the table"));
    }

    /// The filler of a message from position `at`, `len` bytes; nothing beyond the longest message's end.
    #[must_use]
    pub fn filler(&self, stamp: Stamp, at: usize, len: usize) -> Option<&[u8]> {
        let from = ((stamp.seq + u64::from(stamp.stream)) % PERIOD as u64) as usize + at;
        self.table.get(from..from + len)
    }

    /// Checks a whole payload: its stamp, and whether length and filler are what was published.
    #[must_use]
    pub fn check(&self, payload: &[u8]) -> Option<(Stamp, bool)> {
        let stamp = Stamp::read(payload)?;
        let intact = payload.len() == self.sizes.of(stamp.stream, stamp.seq) as usize
            && self.filler(stamp, 0, payload.len() - STAMP_LEN) == Some(&payload[STAMP_LEN..]);
        Some((stamp, intact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_damage_is_seen() {
        let stamp = Stamp { stream: STREAMS_MAX - 1, seq: (1 << 48) - 1, sent_ns: 1_800_000_000_123_456_789 };
        let digits = stamp.digits();
        assert_eq!(Stamp::read(&digits), Some(stamp));
        assert_eq!(Stamp::read(&digits[..23]), None);
        for at in 0..STAMP_LEN {
            let mut damaged = digits;
            for digit in DIGITS.iter().filter(|digit| **digit != digits[at]) {
                damaged[at] = *digit;
                assert_eq!(Stamp::read(&damaged), None, "digit {at}");
            }
        }
    }

    #[test]
    fn payloads_are_what_their_stamp_says() {
        for sizes in [Sizes::Fixed(24), Sizes::Fixed(128), Sizes::Mixed(vec![30, 500, 70_000]), Sizes::Range(24, 90)] {
            let payloads = Payloads::new(sizes.clone());
            for seq in 0..600 {
                let stamp = Stamp { stream: 3, seq, sent_ns: 5 };
                let mut payload = Vec::new();
                payloads.write(stamp, &mut payload);
                assert_eq!(payloads.check(&payload), Some((stamp, true)), "{sizes:?} {seq}");
                assert!(payload.iter().all(|byte| DIGITS.contains(byte)));
                if payload.len() > STAMP_LEN {
                    *payload.last_mut().unwrap() ^= 1;
                    assert_eq!(payloads.check(&payload), Some((stamp, false)));
                }
                assert!(!payloads.check(&payload[..payload.len() - 1]).is_some_and(|(_, intact)| intact));
            }
        }
    }

    #[test]
    fn mixed_sizes_all_occur() {
        let sizes = Sizes::Mixed(vec![30, 500, 70_000]);
        let mut seen: Vec<_> = (0..100).map(|seq| sizes.of(0, seq)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [30, 500, 70_000]);
    }
}
