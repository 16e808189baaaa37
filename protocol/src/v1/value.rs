//! One JSON value as a payload: the body of a POST gets the same verdict, and becomes the same bytes, as `data` of a
//! `publish` command. What counts as JSON is decided here for both ([`Reader`]); the rules are section 2 of
//! `RINGYARD-V1.md`.
//!
//! A [`Values`] keeps its buffers from one value to the next, unless the value was longer than [`KEPT_LEN_MAX`] bytes.
//! Time and transient memory are linear in the text: up to 28 bytes a byte while a value of nothing but brackets is read.

use std::{fmt, mem};

use simd_json::{Buffers, Node, Tape};

use super::PayloadKind;
use super::flat::{self, Piece};
use super::json::{self, TooDeep};
use super::precheck::{self, Flaw};

/// Texts up to this length, in bytes, leave the buffers as they are.
pub(super) const KEPT_LEN_MAX: usize = 64 * 1024;

/// Reads JSON text in place; its buffers are reused. Flat objects are read by [`flat`], all else by simd-json.
pub(super) struct Reader {
    pieces: Vec<Piece>,
    buffers: Buffers,
    /// Empty between texts.
    tape: Tape<'static>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { pieces: Vec::new(), buffers: Buffers::default(), tape: Tape(Vec::new()) }
    }

    /// Gives the nodes of one value to `and_then`. Overwrites the text, into which strings point.
    pub(super) fn read<'a, T>(
        &mut self,
        text: &'a mut [u8],
        and_then: impl FnOnce(&[Node<'a>]) -> T,
    ) -> Result<T, Flaw> {
        let text_len = text.len();
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = match flat::scan(text, &mut self.pieces) {
            Ok(()) => simdutf8::basic::from_utf8(text).map_err(|_| Flaw::NotJson).map(|text: &'a str| {
                tape.0.extend(self.pieces.iter().map(|piece| piece.node(text)));
            }),
            Err(flat_len) => precheck::check(&text[flat_len..])
                .and_then(|()| simd_json::fill_tape(text, &mut self.buffers, &mut tape).map_err(|_| Flaw::NotJson)),
        };
        let result = parsed.map(|()| and_then(&tape.0));
        if text_len > KEPT_LEN_MAX {
            self.buffers = Buffers::default();
        } else {
            self.tape = tape.reset();
        }
        result
    }
}

/// Why a text is no payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueError {
    /// It is not one JSON value (RFC 8259), or has a number beyond the range of a double.
    NotJson,
    /// A string escapes half a surrogate pair.
    HalfPair,
    /// It nests deeper than [`DEPTH_MAX`](super::DEPTH_MAX) levels.
    TooDeep,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "The body is not one JSON value.",
            Self::HalfPair => "A string of the body escapes half a surrogate pair.",
            Self::TooDeep => "The body nests deeper than 64 levels.",
        })
    }
}

impl std::error::Error for ValueError {}

/// Reads values that come alone, not in a command.
pub struct Values {
    reader: Reader,
}

impl Default for Values {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl Values {
    /// With buffers still small.
    #[must_use]
    pub fn new() -> Self {
        Self { reader: Reader::new() }
    }

    /// Appends to `out` what is published for the value: the characters of a string, as text; of another value its
    /// compact JSON text. Overwrites `text`.
    ///
    /// # Errors
    /// It is not a value that may be published; then what was appended is of no use.
    pub fn payload(&mut self, text: &mut [u8], out: &mut Vec<u8>) -> Result<PayloadKind, ValueError> {
        let written = self.reader.read(text, |nodes| match nodes {
            [Node::String(text)] => {
                out.extend_from_slice(text.as_bytes());
                Ok(PayloadKind::Text)
            }
            value => json::put_value(out, value).map(|()| PayloadKind::Json),
        });
        match written {
            Ok(kind) => kind.map_err(|TooDeep| ValueError::TooDeep),
            Err(Flaw::HalfPair) => Err(ValueError::HalfPair),
            Err(Flaw::NotJson) => Err(ValueError::NotJson),
        }
    }
}
