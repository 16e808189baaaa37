//! Text that arrives in pieces: UTF-8 validation (RFC 3629, RFC 6455 §8.1) that fails at the first bad
//! byte, also where a code point is split between pieces. What is whole of a piece goes through `simdutf8`, in the
//! flavour that says only yes or no, which is up to twice as fast; only the at most three bytes of a code point cut
//! off at a piece's end are kept.

/// What of a code point has been seen. Invariant: `bytes[..len]` is empty or begins a code point that some
/// further bytes complete.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Utf8Carry {
    bytes: [u8; 4],
    len: u8,
}

/// The text is not UTF-8.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct BadUtf8;

impl Utf8Carry {
    /// Takes the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), BadUtf8> {
        let rest = self.complete(piece)?;
        let (whole, cut) = rest.split_at(rest.len() - cut_len(rest));
        simdutf8::basic::from_utf8(whole).map_err(|_| BadUtf8)?;
        match std::str::from_utf8(cut) {
            Err(error) if error.error_len().is_some() => Err(BadUtf8),
            _ => {
                // Something may be kept still if nothing came behind it; then nothing is cut off either.
                if !cut.is_empty() {
                    self.bytes[..cut.len()].copy_from_slice(cut);
                    self.len = cut.len() as u8;
                }
                Ok(())
            }
        }
    }

    /// May the text end here?
    pub(super) fn is_at_boundary(self) -> bool {
        self.len == 0
    }

    /// Completes the code point cut off earlier with the front of `piece` and returns what is left of it.
    fn complete<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], BadUtf8> {
        let mut rest = piece;
        while self.len > 0 {
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            self.bytes[usize::from(self.len)] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.bytes[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(BadUtf8),
                Err(_) => {}
            }
        }
        Ok(rest)
    }
}

/// How many bytes at the end begin a code point that, by its first byte, goes on behind them.
fn cut_len(text: &[u8]) -> usize {
    let is_first = |byte: &u8| !matches!(byte, 0x80..=0xbf);
    let Some(back) = text.iter().rev().take(3).position(is_first) else {
        return 0;
    };
    let len = match text[text.len() - 1 - back] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    if back + 1 < len { back + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `text` in pieces that end at `cuts`, then at its end.
    fn in_pieces(text: &[u8], cuts: &[usize]) -> Result<bool, BadUtf8> {
        let mut carry = Utf8Carry::default();
        let mut from = 0;
        for &cut in cuts.iter().chain([&text.len()]) {
            carry.feed(&text[from..cut])?;
            from = cut;
        }
        Ok(carry.is_at_boundary())
    }

    /// Text, or bytes that are nearly text.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let wrong = prop_oneof![Just(None), any::<(usize, u8)>().prop_map(Some)];
        ("\\PC{0,40}|[aä€😀]{0,30}", wrong).prop_map(|(text, wrong)| {
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = wrong
                && !bytes.is_empty()
            {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_split_agrees_with_the_standard_library(
            text in nearly_text(),
            mut cuts in proptest::collection::vec(any::<usize>(), 0..6),
        ) {
            cuts.iter_mut().for_each(|cut| *cut %= text.len() + 1);
            cuts.sort_unstable();
            let valid = in_pieces(&text, &cuts) == Ok(true);
            prop_assert_eq!(valid, std::str::from_utf8(&text).is_ok());
        }

        /// The byte that makes the text hopeless is refused when it comes, not later.
        #[test]
        fn the_first_bad_byte_is_refused(text in nearly_text()) {
            let mut carry = Utf8Carry::default();
            for end in 1..=text.len() {
                let hopeless = std::str::from_utf8(&text[..end])
                    .is_err_and(|error| error.error_len().is_some());
                prop_assert_eq!(carry.feed(&text[end - 1..end]).is_err(), hopeless);
                if hopeless {
                    break;
                }
            }
        }
    }

    /// RFC 3629 §3: overlong forms, surrogates, beyond U+10FFFF, at every split.
    #[test]
    fn forbidden_sequences() {
        let bad: [&[u8]; 6] =
            [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\x80"];
        for text in bad {
            for cut in 0..=text.len() {
                assert_eq!(in_pieces(text, &[cut]), Err(BadUtf8), "{text:x?} cut at {cut}");
            }
        }
    }
}
