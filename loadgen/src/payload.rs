//! What a message carries: its sequence number, when it was sent, and a filler that depends on the number.
//!
//! `seq: u64 BE, sent: u64 BE (ns, CLOCK_MONOTONIC), filler`. The filler of message `seq` is the window of
//! one fixed table that starts at `seq mod 251`: checking it is one comparison of slices, no arithmetic per byte.

/// Length of number and time, in bytes.
pub const STAMP_LEN: usize = 16;
/// A prime, so that the filler lines up with no power of two.
const PERIOD: usize = 251;

/// Number and time of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Dense from 0.
    pub seq: u64,
    /// When it was sent, or scheduled to be; nanoseconds.
    pub sent_ns: u64,
}

impl Stamp {
    /// Reads the first [`STAMP_LEN`] bytes of a payload.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn read(payload: &[u8]) -> Self {
        let word = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
        Self { seq: word(0), sent_ns: word(8) }
    }
}

/// The table that fillers are windows of.
#[derive(Debug)]
pub struct Filler {
    table: Vec<u8>,
    payload_len: usize,
}

impl Filler {
    /// For messages of `payload_len` bytes.
    #[must_use]
    pub fn new(payload_len: usize) -> Self {
        let table = (0..payload_len + PERIOD).map(|i| (i % PERIOD) as u8).collect();
        Self { table, payload_len }
    }

    /// Bytes of every message.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// The filler of message `seq` from position `at`, `len` bytes; empty beyond the message's end.
    #[must_use]
    pub fn window(&self, seq: u64, at: usize, len: usize) -> &[u8] {
        let from = (seq % PERIOD as u64) as usize + at;
        self.table.get(from..from + len).unwrap_or(&[])
    }

    /// Appends a message's payload.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        out.extend_from_slice(&stamp.seq.to_be_bytes());
        out.extend_from_slice(&stamp.sent_ns.to_be_bytes());
        out.extend_from_slice(self.window(stamp.seq, 0, self.payload_len - STAMP_LEN));
    }
}
