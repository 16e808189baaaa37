//! A hash over everything that happens, in order: two runs of a seed must agree.

/// See the file's head. FxHash's step, which is enough to tell two runs apart.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    hash: u64,
    /// Tell what happens on standard error.
    verbose: bool,
    /// In milliseconds, for people.
    now_ms: u64,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self { hash: 0, verbose, now_ms: 0 }
    }

    pub(crate) fn event(&mut self, who: u64, what: u64) {
        self.mix(who);
        self.mix(what);
    }

    pub(crate) fn bytes(&mut self, who: usize, bytes: &[u8]) {
        self.event(who as u64, bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// A line for people, made only when somebody reads it.
    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("{:>7} {}", self.now_ms, line());
        }
    }

    /// It is so late, in milliseconds.
    pub(crate) fn clock(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    pub(crate) fn value(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}
