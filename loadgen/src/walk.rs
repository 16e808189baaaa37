//! Finds messages in a stream of server frames (RFC 6455, section 5.2), however the stream was cut.
//!
//! Nothing is copied while a read ends at a frame's end; a header, stamp or control frame that was cut is kept
//! until its rest arrives, the filler of a cut message is checked as it comes. Not responsible for order
//! and counting (`receive`).

use crate::payload::{Filler, STAMP_LEN, Stamp};

/// What a stream contained.
pub trait Visit {
    /// A whole message; `intact` unless its length or filler is wrong.
    fn message(&mut self, stamp: Stamp, intact: bool);
    /// A ping, to be answered with the same payload.
    fn ping(&mut self, payload: &[u8]);
    /// A close frame; 1005 when it carries no code.
    fn close(&mut self, code: u16);
    /// Bytes that are no frame of a server as this program expects it. Nothing behind them is looked at.
    fn broken(&mut self, why: &'static str);
}

/// Where one connection's stream stands.
#[derive(Debug, Default)]
pub struct Walker {
    /// Bytes of the current message still to come.
    rest: u64,
    /// How many bytes of its filler were seen.
    filler_at: usize,
    stamp: Stamp,
    intact: bool,
    broken: bool,
    /// The beginning of a frame that was cut before its stamp's or control payload's end.
    cut: Vec<u8>,
}

impl Walker {
    /// Walks the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8], filler: &Filler, visit: &mut impl Visit) {
        while !self.broken {
            if self.rest > 0 {
                let len = bytes.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
                let (part, after) = bytes.split_at(len);
                self.intact &= part == filler.window(self.stamp.seq, self.filler_at, len);
                self.filler_at += len;
                self.rest -= len as u64;
                bytes = after;
                if self.rest > 0 {
                    return;
                }
                visit.message(self.stamp, self.intact);
            }
            if bytes.is_empty() {
                return;
            }
            if self.cut.is_empty() {
                let need = prefix_len(bytes);
                if bytes.len() < need {
                    self.cut.extend_from_slice(bytes);
                    return;
                }
                let (prefix, after) = bytes.split_at(need);
                self.begin(prefix, filler, visit);
                bytes = after;
            } else {
                loop {
                    let need = prefix_len(&self.cut);
                    if self.cut.len() == need {
                        break;
                    }
                    let len = bytes.len().min(need - self.cut.len());
                    if len == 0 {
                        return;
                    }
                    self.cut.extend_from_slice(&bytes[..len]);
                    bytes = &bytes[len..];
                }
                let prefix = std::mem::take(&mut self.cut);
                self.begin(&prefix, filler, visit);
            }
        }
    }

    /// Begins the frame whose header, and stamp or control payload, is `prefix`.
    fn begin(&mut self, prefix: &[u8], filler: &Filler, visit: &mut impl Visit) {
        let (header, len) = header(prefix).expect("a whole header");
        let payload = &prefix[header..];
        match prefix[0] {
            _ if prefix[1] & 0x80 != 0 => self.fail("a masked frame", visit),
            0x81 | 0x82 if payload.len() == STAMP_LEN => {
                self.stamp = Stamp::read(payload);
                self.intact = len == filler.payload_len() as u64;
                self.filler_at = 0;
                self.rest = len - STAMP_LEN as u64;
                if self.rest == 0 {
                    visit.message(self.stamp, self.intact);
                }
            }
            0x81 | 0x82 => visit.message(Stamp::default(), false),
            0x88 => visit.close(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
            0x89 => visit.ping(payload),
            0x8a => {}
            _ => self.fail("a fragment, a reserved bit or an unknown opcode", visit),
        }
    }

    fn fail(&mut self, why: &'static str, visit: &mut impl Visit) {
        self.broken = true;
        visit.broken(why);
    }
}

/// Bytes of header, and of stamp or control payload, of the frame that begins with `bytes`; where that
/// cannot be told yet, how many bytes tell more.
fn prefix_len(bytes: &[u8]) -> usize {
    let Some((header, len)) = header(bytes) else {
        return match bytes.get(1) {
            None => 2,
            Some(126) => 4,
            Some(_) => 10,
        };
    };
    let wanted = if bytes[0] & 0x08 == 0 { STAMP_LEN } else { 125 };
    header + usize::try_from(len).unwrap_or(usize::MAX).min(wanted)
}

/// Length of the header and of the payload, or nothing when the header is not whole.
fn header(bytes: &[u8]) -> Option<(usize, u64)> {
    match *bytes.get(1)? {
        126 => Some((4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?)))),
        len @ 0..126 => Some((2, u64::from(len))),
        _ => Some((10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, PartialEq, Debug)]
    struct Seen {
        messages: Vec<(Stamp, bool)>,
        pings: Vec<Vec<u8>>,
        closes: Vec<u16>,
        broken: usize,
    }

    impl Visit for Seen {
        fn message(&mut self, stamp: Stamp, intact: bool) {
            self.messages.push((stamp, intact));
        }
        fn ping(&mut self, payload: &[u8]) {
            self.pings.push(payload.to_vec());
        }
        fn close(&mut self, code: u16) {
            self.closes.push(code);
        }
        fn broken(&mut self, _: &'static str) {
            self.broken += 1;
        }
    }

    fn frame(filler: &Filler, seq: u64) -> Vec<u8> {
        let mut payload = Vec::new();
        filler.write(Stamp { seq, sent_ns: seq * 7 }, &mut payload);
        let mut frame = vec![0x82];
        match payload.len() {
            len @ 0..126 => frame.push(len as u8),
            len @ 126..65536 => {
                frame.push(126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&payload);
        frame
    }

    #[test]
    fn a_stream_reads_the_same_whole_and_cut_anywhere() {
        for len in [16, 17, 125, 126, 128, 300, 70_000] {
            let filler = Filler::new(len);
            let mut stream = Vec::new();
            for seq in 0..3 {
                stream.extend(frame(&filler, seq));
                stream.extend([0x89, 3, b'a', b'b', b'c', 0x8a, 0]);
            }
            stream.extend([0x88, 2, 0x03, 0xe9]);
            let mut whole = Seen::default();
            Walker::default().feed(&stream, &filler, &mut whole);
            assert_eq!(whole.messages.len(), 3);
            assert!(whole.messages.iter().all(|(stamp, intact)| *intact && stamp.sent_ns == stamp.seq * 7));
            assert_eq!((whole.pings.len(), &whole.closes[..], whole.broken), (3, &[1001][..], 0));

            let step = (stream.len() / 300).max(1);
            for cut in (0..stream.len()).step_by(step) {
                let (mut walker, mut seen) = (Walker::default(), Seen::default());
                walker.feed(&stream[..cut], &filler, &mut seen);
                walker.feed(&stream[cut..], &filler, &mut seen);
                assert_eq!(seen, whole, "payload of {len}, cut at {cut}");
            }
            let (mut walker, mut seen) = (Walker::default(), Seen::default());
            stream.iter().for_each(|byte| walker.feed(&[*byte], &filler, &mut seen));
            assert_eq!(seen, whole, "payload of {len}, byte by byte");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let filler = Filler::new(128);
        let good = frame(&filler, 5);
        for at in 20..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let mut seen = Seen::default();
            Walker::default().feed(&bad, &filler, &mut seen);
            assert_eq!(seen.messages.len(), 1);
            assert!(!seen.messages[0].1, "byte {at}");
        }
        for head in [0x02, 0x80, 0xc2, 0x83, 0x8b] {
            let mut bad = good.clone();
            bad[0] = head;
            let mut seen = Seen::default();
            Walker::default().feed(&bad, &filler, &mut seen);
            assert_eq!((seen.messages.len(), seen.broken), (0, 1), "first byte {head:#x}");
        }
        let mut seen = Seen::default();
        Walker::default().feed(&frame(&Filler::new(64), 0), &filler, &mut seen);
        assert_eq!(seen.messages, [(Stamp::default(), false)], "another length");
    }
}
