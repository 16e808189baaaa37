//! Where a chunked body ends (RFC 9112 §7.1). The bytes are counted, not decoded: the code that passes them on needs
//! to know where the next request begins, and that every other reader sees the same end. Lines end in CR LF only.
//!
//! Linear in the bytes; keeps a few words.

use super::Refusal;

/// Chunk extensions and trailer fields of one body, in bytes, at most.
const EXTRA_BYTES_MAX: u32 = 8 << 10;

/// The place in a chunked body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunks {
    at: At,
    /// Bytes of extensions and trailer fields so far.
    extra: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// In a chunk's size, of which so many digits have come.
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind the size, before the line's end.
    Extension {
        size: u64,
    },
    /// After the CR of that line.
    SizeLf {
        size: u64,
    },
    /// In a chunk's data, of which so much is left.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the beginning of a trailer line.
    LineStart,
    /// In a trailer line.
    Line,
    LineLf,
    /// After the CR of the empty line.
    EndLf,
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::Size { size: 0, digits: 0 }, extra: 0 }
    }
}

impl Chunks {
    /// Goes over more of the body. Returns how many of the bytes belong to it.
    ///
    /// # Errors
    /// This is not the chunked coding.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut passed = 0;
        while passed < bytes.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - passed);
                let left = left - step as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
                passed += step;
            } else {
                self.at = self.step(bytes[passed]).ok_or_else(malformed)?;
                passed += 1;
            }
        }
        Ok(passed)
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.at == At::End
    }

    fn step(&mut self, byte: u8) -> Option<At> {
        if matches!(self.at, At::Extension { .. } | At::Line) {
            self.extra += 1;
            if self.extra > EXTRA_BYTES_MAX {
                return None;
            }
        }
        Some(match (self.at, byte) {
            (At::Size { size, digits: digits @ ..15 }, digit) if digit.is_ascii_hexdigit() => {
                let value = char::from(digit).to_digit(16)?;
                At::Size { size: size << 4 | u64::from(value), digits: digits + 1 }
            }
            (At::Size { size, digits: 1.. }, b'\r') => At::SizeLf { size },
            (At::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => At::Extension { size },
            (At::Extension { size }, b'\r') => At::SizeLf { size },
            (At::Extension { size }, byte) if byte != b'\n' => At::Extension { size },
            (At::SizeLf { size: 0 }, b'\n') => At::LineStart,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { size: 0, digits: 0 },
            (At::LineStart, b'\r') => At::EndLf,
            (At::LineStart | At::Line, byte) if byte != b'\r' && byte != b'\n' => At::Line,
            (At::Line, b'\r') => At::LineLf,
            (At::LineLf, b'\n') => At::LineStart,
            (At::EndLf, b'\n') => At::End,
            _ => return None,
        })
    }
}

fn malformed() -> Refusal {
    Refusal::new(400, "The request body is not in the chunked coding, or its extensions or trailers are too long.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"4\r\nwiki\r\n0A;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";

    #[test]
    fn the_end_is_found_however_the_bytes_are_cut() {
        let all = [BODY, b"GET / HTTP/1.1\r\n"].concat();
        for cut in 0..=all.len() {
            let mut chunks = Chunks::default();
            let first = chunks.pass(&all[..cut]).expect("chunks");
            let second = chunks.pass(&all[first..]).expect("chunks");
            assert_eq!(first + second, BODY.len(), "cut at {cut}");
            assert!(chunks.is_over());
        }
        let mut chunks = Chunks::default();
        assert_eq!(chunks.pass(&BODY[..BODY.len() - 1]), Ok(BODY.len() - 1));
        assert!(!chunks.is_over());
    }

    #[test]
    fn what_another_reader_could_take_for_something_else_is_refused() {
        let long = format!("1;{}\r\n", "x".repeat(9000));
        let cases: [&[u8]; 12] = [
            b"\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b"1\n",
            b"1\rx",
            b"1;a\nb",
            b"1\r\nab",
            b"1\r\na\n",
            b"0\r\n\n",
            b"1000000000000000\r\n",
        ];
        for bytes in cases.into_iter().chain([long.as_bytes()]) {
            let refused = Chunks::default().pass(bytes).expect_err("not chunked");
            assert_eq!(refused.status, 400, "{}", bytes.escape_ascii());
        }
    }
}
