//! When a message was published, in its text: found in any stream of bytes, whatever it is framed in, and wherever reads cut it.

/// What a stamp begins with. It occurs nowhere else, and no framing changes it.
const MARK: &[u8] = b"@@";
const DIGITS: usize = 16;
const LEN: usize = MARK.len() + DIGITS;

/// A text of `len` bytes, or as long as a stamp if that is longer, which ends with its stamp.
pub(super) fn stamped(len: usize, micros: u64) -> String {
    let mut text = "x".repeat(len.saturating_sub(LEN));
    text.push_str(&format!("@@{micros:0DIGITS$}"));
    text
}

/// Finds stamps in a stream. Keeps less than a stamp's length of what came.
#[derive(Default, Debug)]
pub(super) struct Stamps(Vec<u8>);

impl Stamps {
    /// Takes the next bytes; `found` gets the stamps that they complete.
    pub(super) fn take(&mut self, bytes: &[u8], mut found: impl FnMut(u64)) {
        self.0.extend_from_slice(bytes);
        let mut done = 0;
        while let Some(at) = self.0[done..].windows(MARK.len()).position(|part| part == MARK).map(|at| done + at) {
            let Some(digits) = self.0.get(at + MARK.len()..at + LEN) else {
                self.0.drain(..at);
                return;
            };
            let number = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            number.into_iter().for_each(&mut found);
            done = at + LEN;
        }
        let kept = self.0.len().saturating_sub(MARK.len() - 1).max(done);
        self.0.drain(..kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_wherever_the_stream_is_cut() {
        let texts: Vec<_> = [1, 22, 9_999_999_999_999_999].map(|micros| stamped(40, micros)).into();
        assert!(texts.iter().all(|text| text.len() == 40));
        let stream = format!("{{\"data\":\"{}\"}}\ndata: {}\n\n@{}@", texts[0], texts[1], texts[2]);
        for cut in 1..stream.len() {
            let mut stamps = Stamps::default();
            let mut found = Vec::new();
            for part in stream.as_bytes().chunks(cut) {
                stamps.take(part, |micros| found.push(micros));
            }
            assert_eq!(found, [1, 22, 9_999_999_999_999_999], "in parts of {cut} bytes");
            assert!(stamps.0.len() < LEN);
        }
    }

    #[test]
    fn a_text_is_never_shorter_than_its_stamp() {
        assert_eq!(stamped(3, 7), "@@0000000000000007");
    }
}
