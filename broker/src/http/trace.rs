//! `GET /api/connections/{connection}/trace`: what goes on with one connection from now on, line by line as it happens (NDJSON), for
//! a minute at most. Every trace is logged.
//!
//! Bounds: those of [`shard::trace`](crate::shard::trace). A reader that is too slow loses the rest. Not responsible for who may
//! look ([`inspector`]).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::http::app::App;
use crate::http::caller::inspector;
use crate::http::error::HttpError;
use crate::http::shards::{ask, connection_of, within_patience};
use crate::http::written::{Pieces, Written};
use crate::shard::shared::ControlMessage;
use crate::shard::trace::{LINES_MAX, TraceBegun, TraceLine, Traced};

/// How long a trace lasts.
const LASTS: Duration = Duration::from_secs(60);

/// A line.
#[derive(PartialEq, Eq, Default, Serialize, Debug)]
struct Line {
    /// Microseconds since the trace began.
    at_us: u64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Why the connection ends, as `/metrics` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// The handler.
pub(crate) async fn show(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let by = inspector(&app, &request)?;
    let path = request.uri().path();
    let name = path.strip_prefix("/api/connections/").and_then(|rest| rest.strip_suffix("/trace")).unwrap_or_default();
    let unknown = || HttpError::new(404_u16, format_args!("There is no connection {name:?}."));
    let known = connection_of(name).filter(|(shard, _)| shard.0 < app.shards());
    let (shard, conn) = known.ok_or_else(unknown)?;
    let (sender, lines) = mpsc::channel(LINES_MAX);
    let order = |answer| ControlMessage::Trace { conn, lines: sender, answer };
    match within_patience(ask(&app, shard, order)).await? {
        TraceBegun::Yes => {}
        TraceBegun::Gone => return Err(unknown()),
        TraceBegun::Full => {
            return Err(HttpError::unavailable("Too many connections of that shard are traced already."));
        }
    }
    info!(event = "traced", connection = name, by, "an operator traces a connection");
    let body = Written::by(|pieces| write(lines, pieces));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
}

/// Writes lines until the trace ends, or its time is over.
async fn write(mut lines: mpsc::Receiver<TraceLine>, pieces: Pieces) {
    let until = Instant::now() + LASTS;
    // The head of the answer goes out with it.
    let mut next = Some(Line { event: "begun", ..Line::default() });
    while let Some(line) = next {
        let mut text = serde_json::to_vec(&line).expect("numbers and texts are JSON");
        text.push(b'\n');
        if pieces.send(Bytes::from(text)).await.is_err() {
            return;
        }
        next = timeout_at(until, lines.recv()).await.ok().flatten().map(Line::from);
    }
}

impl From<TraceLine> for Line {
    fn from(TraceLine { at, what }: TraceLine) -> Self {
        let (event, bytes, text, reason) = match what {
            Traced::Received { bytes, text } => ("received", Some(bytes), text, None),
            Traced::Answered { bytes, text } => ("answered", Some(bytes), text, None),
            Traced::Sent { bytes } => ("sent", Some(bytes), None, None),
            Traced::Ended(reason) => ("ended", None, None, Some(reason.label())),
        };
        Self { at_us: at / 1000, event, bytes, text, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::counters::Reason;

    #[tokio::test(start_paused = true)]
    async fn lines_are_written_until_the_time_is_over() {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let text = Some("{}".to_owned());
        let received = TraceLine { at: 1_500_000, what: Traced::Received { bytes: 2, text } };
        let ended = TraceLine { at: 2_000_000, what: Traced::Ended(Reason::Slow) };
        for line in [received, ended] {
            sender.try_send(line).expect("there is room");
        }
        let mut body = Written::by(|pieces| write(lines, pieces));
        let mut seen = Vec::new();
        // Somebody goes on tracing: it ends all the same.
        while let Some(piece) = body.next().await {
            seen.push(String::from_utf8(piece.to_vec()).expect("text"));
        }
        let expected = [
            "{\"at_us\":0,\"event\":\"begun\"}\n",
            "{\"at_us\":1500,\"event\":\"received\",\"bytes\":2,\"text\":\"{}\"}\n",
            "{\"at_us\":2000,\"event\":\"ended\",\"reason\":\"slow\"}\n",
        ];
        assert_eq!(seen, expected);
        drop(sender);
    }
}
