//! `GET /api/topics/{topic}/messages?last=N`: the last messages that a topic remembers, for operators who look for what went
//! wrong. `{topic}` is one percent-encoded segment. Every such look is logged.
//!
//! Cost: that of the command `history`, on the topic's sequencer. Not responsible for who may look ([`inspector`]).

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use protocol::v1::{Position, write_history};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use crate::http::QUEUE_PAUSE;
use crate::http::app::App;
use crate::http::caller::inspector;
use crate::http::error::HttpError;
use crate::http::topic::{name_in, unknown};
use crate::ids::{Epoch, Offset};
use crate::message::options::Refusal;
use crate::sequencer::history::recall::Page;
use crate::shard::shared::ControlMessage;

/// Messages that are shown unless the request says how many, and at most.
const SHOWN_DEFAULT: u32 = 20;
const SHOWN_MAX: u32 = 100;
/// How long the topic's sequencer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sequencer answers.
type Answer = Result<(Epoch, Offset, Page), Refusal>;

/// The handler. The answer is that of the command `history`, newest first.
pub(crate) async fn show(State(app): State<App>, request: Request) -> Result<Response, HttpError> {
    let by = inspector(&app, &request)?;
    let topic = name_in(&request, "/messages", app.limits().topic_bytes_max)?;
    let limit = limit_in(request.uri().query().unwrap_or_default())?;
    info!(event = "inspected", topic, by, "an operator looks at messages of a topic");
    let (epoch, next, page) = newest(&app, &topic, limit).await?.map_err(HttpError::from)?;
    let position = Position { epoch: epoch.0, offset: next.0 - 1 };
    let mut out = BytesMut::new();
    let messages = page.messages.iter().map(|message| message.parts(false));
    write_history(&mut out, None, position, page.recovered, messages, page.more);
    Ok(([(header::CONTENT_TYPE, "application/json")], out.freeze()).into_response())
}

/// Asks the topic's sequencer. The topic's reference is taken and given away without waiting in between.
async fn newest(app: &App, name: &str, limit: u32) -> Result<Answer, HttpError> {
    let deadline = Instant::now() + PATIENCE;
    let late = || HttpError::unavailable("The topic's sequencer has too much to do, or is shutting down: try again.");
    let answered = loop {
        if let Some(answered) = ask(app, name, limit)? {
            break answered;
        }
        if Instant::now() >= deadline {
            return Err(late());
        }
        sleep(QUEUE_PAUSE).await;
    };
    timeout_at(deadline, answered).await.ok().and_then(Result::ok).ok_or_else(late)
}

/// The answer's way; `None`: the sequencer's queue is full.
fn ask(app: &App, name: &str, limit: u32) -> Result<Option<oneshot::Receiver<Answer>>, HttpError> {
    let topic = app.shared().registry.find(name).ok_or_else(|| unknown(name))?;
    let (answer, answered) = oneshot::channel();
    let sequencer = topic.sequencer;
    let sent = app.shared().send_control(sequencer, ControlMessage::Newest { topic, limit, answer });
    Ok(sent.is_ok().then_some(answered))
}

/// How many messages are asked for.
fn limit_in(query: &str) -> Result<u32, HttpError> {
    if query.is_empty() {
        return Ok(SHOWN_DEFAULT);
    }
    let last = query.strip_prefix("last=").and_then(|last| last.parse().ok());
    last.filter(|last| (1..=SHOWN_MAX).contains(last))
        .ok_or_else(|| HttpError::bad(format_args!("The query is last=N, a number from 1 to {SHOWN_MAX}, or nothing.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_asked_for() {
        let limit = |query| limit_in(query).map_err(|error| error.status());
        assert_eq!((limit(""), limit("last=1"), limit("last=100")), (Ok(20), Ok(1), Ok(100)));
        for bad in ["last=0", "last=101", "last=", "last=x", "first=1", "last=1&last=2"] {
            assert_eq!(limit(bad), Err(400), "{bad}");
        }
    }
}
