//! What simd-json 0.17 takes for JSON though it is not, looked for before it runs:
//!
//! - half a surrogate pair in an escape (`"\ud83d"`, RFC 8259 §8.2), which it reads as NUL or as part of
//!   another character. Browsers send such when a program cuts a string in the middle of an emoji;
//! - whatever stands behind a long number (`1234567890123456789x`), which it ignores;
//! - NUL behind a number or literal.
//!
//! Everything else is left to the parser. One pass: strings, which are most of a command, in vectorised
//! steps, the rest byte by byte.

use super::json::plain_len;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flaw {
    /// An escaped surrogate without its other half.
    HalfPair,
    /// A number that does not end where a value ends, or NUL.
    NotJson,
}

/// Looks for what the parser would overlook.
pub(super) fn check(text: &[u8]) -> Result<(), Flaw> {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Ok(()),
            [b'"', string @ ..] => behind_string(string)?,
            [b'-' | b'0'..=b'9', ..] => behind_number(rest)?,
            [0, ..] => return Err(Flaw::NotJson),
            [_, after @ ..] => after,
        }
    }
}

/// What follows the string whose text is at the front; nothing if it does not end.
fn behind_string(text: &[u8]) -> Result<&[u8], Flaw> {
    let mut rest = text;
    loop {
        rest = &rest[plain_len(rest)..];
        rest = match rest {
            [b'"', after @ ..] => return Ok(after),
            [] | [_] => return Ok(&[]),
            [0..0x20, after @ ..] => after,
            [_, b'u', high @ ..] if is_unit(high, b"89ab") => match high {
                [_, _, _, _, b'\\', b'u', low @ ..] if is_unit(low, b"cdef") => low,
                _ => return Err(Flaw::HalfPair),
            },
            [_, b'u', low @ ..] if is_unit(low, b"cdef") => return Err(Flaw::HalfPair),
            [_, _, after @ ..] => after,
        };
    }
}

/// Does the text begin with the digits of a surrogate whose second digit is one of these?
fn is_unit(digits: &[u8], second: &[u8; 4]) -> bool {
    matches!(digits, [b'd' | b'D', digit, ..] if second.contains(&digit.to_ascii_lowercase()))
}

/// What follows the number at the front (RFC 8259 §6), which must be the end of a value.
fn behind_number(text: &[u8]) -> Result<&[u8], Flaw> {
    let mut rest = behind_digits(text.strip_prefix(b"-").unwrap_or(text));
    if let [b'.', fraction @ ..] = rest {
        rest = behind_digits(fraction);
    }
    if let [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] = rest {
        rest = behind_digits(exponent);
    }
    match rest {
        [] | [b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n', ..] => Ok(rest),
        _ => Err(Flaw::NotJson),
    }
}

fn behind_digits(text: &[u8]) -> &[u8] {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    &text[digits..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates() {
        let paired = [
            "",
            "\\\\ud83d",
            "\\ud83d\\ude00",
            "\\uD83D\\uDE00x",
            "\\ud7ff\\ue000",
            "\\u",
            "ud83d",
            "\\n\\ud83d\\ude00\\n",
            "\\\"\\ud83d\\ude00",
        ];
        let halves = [
            "\\ud83d",
            "\\ud83dx",
            "\\ud83d\\n",
            "\\ud83d\\u0041",
            "\\ud83d\\ud83d",
            "\\ude00",
            "\\ude00\\ud83d",
            "\\\\\\ud83d",
            "\\ud83d\\uffff",
            "\\ud83d\\ude00\\ude00",
            "\\\"\\ud8",
        ];
        let far = " ".repeat(100);
        for (texts, expected) in [(&paired[..], Ok(())), (&halves[..], Err(Flaw::HalfPair))] {
            for text in texts {
                assert_eq!(check(format!("[1,\"{text}\"]").as_bytes()), expected, "{text}");
                assert_eq!(check(format!("\"{far}{text}\"").as_bytes()), expected, "{text} far off");
            }
        }
    }

    #[test]
    fn ends_of_values() {
        for text in ["0", "[-1.5e+3,2E9]", "{\"a\":1 ,\"b\":12345678901234567890}", "1\r", "\"1x\"", "\"\\"] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
        for text in ["1x", "[1234567890123456789x]", "123456789012345678-5", "1.5.5", "1e5e5", "1\0", "true\0"] {
            assert_eq!(check(text.as_bytes()), Err(Flaw::NotJson), "{text}");
        }
    }
}
