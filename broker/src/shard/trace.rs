//! What goes on with single connections, written down for operators: the client's messages, what it is answered, what it is
//! sent, and its end.
//!
//! Bounds: `TRACES_MAX` traces of a shard at a time, each of one connection, with [`LINES_MAX`] lines; a line has the
//! beginning of a text. Text with tokens or with secrets of sessions is left out. Cost: a test per message and send while
//! nothing is traced.
//!
//! Not responsible for how long a trace lasts: it ends when its reader is gone (`http/trace.rs`).

use protocol::frame::{MessageKind, Opcode};
use ring::{ConnId, Nanos};
use tokio::sync::mpsc;

use crate::observe::counters::Reason;

/// Traces of a shard at a time.
const TRACES_MAX: usize = 4;
/// Lines of a trace.
pub const LINES_MAX: usize = 1000;
/// Of a text, so many bytes are written down.
const SHOWN_BYTES_MAX: usize = 512;
/// Of a longer text nothing is: it would have to be searched for what must not be shown.
const SEARCHED_BYTES_MAX: usize = 16 << 10;
/// Members of commands and answers whose values are for nobody else.
const SECRETS: [&[u8]; 2] = [b"\"token\"", b"\"session\""];

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceLine {
    /// Since the trace began, in nanoseconds.
    pub at: Nanos,
    /// What.
    pub what: Traced,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Traced {
    /// A message of the client: a command, or on a raw connection what it publishes.
    Received {
        /// Its length in bytes.
        bytes: u64,
        /// Its beginning; `None`: it is no text, or not to be shown.
        text: Option<String>,
    },
    /// A frame of the connection's own was queued: an answer, or an answer to a ping.
    Answered {
        /// Its length in bytes.
        bytes: u64,
        /// As of [`Traced::Received`].
        text: Option<String>,
    },
    /// A send is complete, with messages and whatever waited.
    Sent {
        /// Its length in bytes.
        bytes: u64,
    },
    /// The connection ends.
    Ended(Reason),
}

/// What became of the wish to trace a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceBegun {
    /// It is traced.
    Yes,
    /// There is no such connection.
    Gone,
    /// Too many others are.
    Full,
}

/// See the file's head.
#[derive(Default, Debug)]
pub(super) struct Traces(Vec<Trace>);

#[derive(Debug)]
struct Trace {
    conn: ConnId,
    began: Nanos,
    lines: mpsc::Sender<TraceLine>,
    /// How many there may still be.
    left: usize,
}

impl Traces {
    /// Whether anything is traced.
    pub(super) fn are_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Traces a connection from now on, in place of an earlier trace of it.
    pub(super) fn begin(&mut self, conn: ConnId, now: Nanos, lines: mpsc::Sender<TraceLine>) -> TraceBegun {
        self.0.retain(|trace| trace.conn != conn && !trace.lines.is_closed());
        if self.0.len() >= TRACES_MAX {
            return TraceBegun::Full;
        }
        self.0.push(Trace { conn, began: now, lines, left: LINES_MAX });
        TraceBegun::Yes
    }

    /// A message came.
    pub(super) fn received(&mut self, conn: ConnId, now: Nanos, kind: MessageKind, message: &[u8]) {
        let bytes = message.len() as u64;
        self.note(conn, now, || Traced::Received { bytes, text: shown(kind == MessageKind::Text, message) });
    }

    /// A frame was queued.
    pub(super) fn answered(&mut self, conn: ConnId, now: Nanos, opcode: Opcode, payload: &[u8]) {
        let bytes = payload.len() as u64;
        self.note(conn, now, || Traced::Answered { bytes, text: shown(opcode == Opcode::Text, payload) });
    }

    /// A send is complete.
    pub(super) fn sent(&mut self, conn: ConnId, now: Nanos, bytes: usize) {
        self.note(conn, now, || Traced::Sent { bytes: bytes as u64 });
    }

    /// A connection ends, and its trace with it.
    pub(super) fn ended(&mut self, conn: ConnId, now: Nanos, reason: Reason) {
        self.note(conn, now, || Traced::Ended(reason));
        self.0.retain(|trace| trace.conn != conn);
    }

    /// Writes a line if the connection is traced. A trace ends with its last line, or when nobody reads it.
    fn note(&mut self, conn: ConnId, now: Nanos, what: impl FnOnce() -> Traced) {
        let Some(at) = self.0.iter().position(|trace| trace.conn == conn) else { return };
        let trace = &mut self.0[at];
        let line = TraceLine { at: now.saturating_sub(trace.began), what: what() };
        trace.left -= 1;
        if trace.lines.try_send(line).is_err() || trace.left == 0 {
            self.0.swap_remove(at);
        }
    }
}

/// What is written down of a text.
fn shown(is_text: bool, bytes: &[u8]) -> Option<String> {
    let has = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    let may_have_secrets = || has_escaped_letter(bytes) || SECRETS.iter().any(|secret| has(secret));
    if !is_text || bytes.len() > SEARCHED_BYTES_MAX || may_have_secrets() {
        return None;
    }
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned())
}

/// Whether a text in JSON may have one of [`SECRETS`] in another spelling: `"tok\u0065n"` is the same name. Nobody has to escape a
/// letter (RFC 8259 §7), so hardly any other text has one.
fn has_escaped_letter(bytes: &[u8]) -> bool {
    bytes.windows(5).any(|window| window.starts_with(b"\\u00") && matches!(window[4], b'4'..=b'7'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ConnId = ConnId { slot: 1, generation: 0 };
    const B: ConnId = ConnId { slot: 2, generation: 0 };

    fn text(of: &str) -> Option<String> {
        shown(true, of.as_bytes())
    }

    #[test]
    fn a_trace_has_what_happens_to_its_connection_and_ends_with_it() {
        let (sender, mut lines) = mpsc::channel(LINES_MAX);
        let mut traces = Traces::default();
        assert!(!traces.are_on());
        assert_eq!(traces.begin(A, 100, sender), TraceBegun::Yes);
        traces.received(B, 110, MessageKind::Text, b"of another");
        traces.received(A, 120, MessageKind::Text, b"{}");
        traces.answered(A, 130, Opcode::Pong, b"12345678");
        traces.sent(A, 140, 9);
        traces.ended(A, 150, Reason::Slow);
        assert!(!traces.are_on());
        let mut next = || lines.try_recv().map(|TraceLine { at, what }| (at, what)).ok();
        assert_eq!(next(), Some((20, Traced::Received { bytes: 2, text: text("{}") })));
        assert_eq!(next(), Some((30, Traced::Answered { bytes: 8, text: None })));
        assert_eq!((next(), next()), (Some((40, Traced::Sent { bytes: 9 })), Some((50, Traced::Ended(Reason::Slow)))));
        assert_eq!(next(), None);
    }

    #[test]
    fn traces_are_bounded_in_lines_and_number() {
        let mut traces = Traces::default();
        let mut readers = Vec::new();
        let mut begin = |traces: &mut Traces, slot| {
            let (sender, lines) = mpsc::channel(LINES_MAX);
            readers.push(lines);
            traces.begin(ConnId { slot, generation: 0 }, 0, sender)
        };
        for slot in 0..TRACES_MAX as u32 {
            assert_eq!(begin(&mut traces, slot), TraceBegun::Yes);
        }
        assert_eq!(begin(&mut traces, 99), TraceBegun::Full);
        assert_eq!(begin(&mut traces, 1), TraceBegun::Yes, "in place of its own");
        for _ in 0..LINES_MAX + 5 {
            traces.sent(A, 1, 1);
        }
        assert_eq!((traces.0.len(), readers.last().map(mpsc::Receiver::len)), (TRACES_MAX - 1, Some(LINES_MAX)));
        readers.clear();
        let (sender, _lines) = mpsc::channel(LINES_MAX);
        assert_eq!(traces.begin(A, 0, sender), TraceBegun::Yes);
        assert_eq!(traces.0.len(), 1, "those without a reader went");
    }

    #[test]
    fn secrets_and_long_texts_are_left_out() {
        assert_eq!(text(r#"{"type":"connect","token":"x"}"#), None);
        assert_eq!(text(r#"{"type":"ok","session":"x"}"#), None);
        assert_eq!(text(r#"{"type":"connect","tok\u0065n":"x"}"#), None);
        assert_eq!(text(r#"{"type":"connect","\u0073ession":"x"}"#), None);
        let line_end = r#"{"type":"publish","topic":"a","data":"x\u000a\u00e4"}"#;
        assert_eq!(text(line_end).as_deref(), Some(line_end));
        assert_eq!(text(&"x".repeat(SEARCHED_BYTES_MAX + 1)), None);
        assert_eq!(text(&"x".repeat(SEARCHED_BYTES_MAX)), text(&"x".repeat(SHOWN_BYTES_MAX)));
        assert_eq!((shown(false, b"x"), text("")), (None, Some(String::new())));
    }
}
