//! One topic, for operators: `GET /api/topics/{topic}` shows what goes on in it, and `DELETE /api/topics/{topic}/messages`
//! purges it. `{topic}` is one percent-encoded segment.
//!
//! A purge is only on the operators' own listener, which pages of other origins and other machines do not reach.
//!
//! Cost: showing is linear in names and in the topic's subscribers, in slices; it is under the same lock as the list of
//! topics. A purge is a message to the topic's sequencer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State as Extracted};
use protocol::head::percent_decode;
use protocol::topic::{TopicError, check_name};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use crate::http::QUEUE_PAUSE;
use crate::http::app::App;
use crate::http::caller::may_know_members;
use crate::http::error::HttpError;
use crate::http::inspect::{self, Present, SlowSubscription, State, Window};
use crate::http::topics::{Selection, find, kind_name};
use crate::ids::Epoch;
use crate::publishing::problem::Code;
use crate::shard::shared::{ControlMessage, LeaseState, SharedState};
use crate::topics::rules::{History, Retain, Rule};

/// How long a purge may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One topic.
#[derive(Serialize, Debug)]
pub(crate) struct Details {
    topic: String,
    /// `None`: it has members, and nobody has subscribed or published to it yet.
    epoch: Option<String>,
    /// Of its last message; 0 before the first.
    offset: u64,
    /// Subscriptions in force that match it.
    subscribers: u32,
    /// The kind of its history: what its rule said when the topic began.
    history: &'static str,
    rule: RuleValues,
    window: Option<Window>,
    /// Keys that have a value.
    keys: u64,
    retained: Option<Retained>,
    snapshot: Option<Snapshot>,
    lease: Option<Lease>,
    state: State,
    /// Messages that subscriptions to this very topic have not been sent yet, in bytes, on all shards.
    waiting_bytes: u64,
    /// Those of them that are furthest behind.
    slowest: Vec<SlowSubscription>,
    /// Who is there; `None`: its rule does not let clients be present, and nobody is.
    presence: Option<Present>,
}

#[derive(Serialize, Debug)]
struct Retained {
    offset: u64,
}

#[derive(Serialize, Debug)]
struct Snapshot {
    up_to: u64,
}

/// Who has its lease.
#[derive(Serialize, Debug)]
struct Lease {
    /// `None`: not for who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    lease: u64,
    /// Milliseconds since 1970.
    until: u64,
}

impl Lease {
    fn of(state: LeaseState, may_know: bool) -> Self {
        Self { by: may_know.then(|| state.by.to_string()), lease: state.number, until: state.until_ms }
    }
}

/// The rule that applies, with every value that has a meaning. Durations are milliseconds.
#[derive(PartialEq, Eq, Serialize, Debug)]
struct RuleValues {
    /// Its filter; `None`: no table matches, these are the defaults.
    r#match: Option<String>,
    history: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_messages: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history_ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tombstone_ttl: Option<u64>,
    retain: &'static str,
    stamp: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_members: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_info: Option<&'static str>,
    /// Whether it takes messages only under its lease.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exclusive: bool,
}

/// The answer to a purge.
#[derive(Serialize, Debug)]
pub(crate) struct Purged {
    topic: String,
    epoch: String,
}

/// What goes on in one topic.
pub(crate) async fn show(Extracted(app): Extracted<App>, request: Request) -> Result<Json<Details>, HttpError> {
    let name = name_in(&request, "", app.limits().topic_bytes_max)?;
    let Ok(_turn) = app.listing().try_lock() else {
        return Err(HttpError::unavailable("Topics are being looked at: try again in a second."));
    };
    let selection = Selection { filter: name.clone(), after: None, most: 1 };
    let (_, mut found) = find(&app, selection).await?;
    let found = found.pop().ok_or_else(|| unknown(&name))?;
    let state = inspect::topics(&app, &Arc::from([found.id])).await?.pop().unwrap_or_default();
    let sequencer = app.shared().registry.find(&name).map(|topic| topic.sequencer).ok_or_else(|| unknown(&name))?;
    let present = inspect::present(&app, sequencer, found.id).await?;
    let may_know = may_know_members(&app, &request);
    let present = if may_know { present } else { present.counted() };
    if state.position.is_none() && present.is_empty() && state.lease.is_none() {
        return Err(unknown(&name));
    }
    let slowest = inspect::slowest(&app, found.id).await?;
    let rules = app.shared().rules.current();
    let rule = rules.get(rules.rule_of(&name));
    let remembered = state.remembered;
    Ok(Json(Details {
        epoch: state.position.map(|(epoch, _)| hex(epoch)),
        offset: state.position.map_or(0, |(_, next)| next.0 - 1),
        subscribers: found.subscribers,
        history: kind_name(found.history),
        rule: RuleValues::of(rule),
        window: Window::of(&remembered),
        keys: remembered.keys,
        retained: remembered.retained.map(|offset| Retained { offset: offset.0 }),
        snapshot: remembered.snapshot.map(|offset| Snapshot { up_to: offset.0 }),
        lease: state.lease.map(|lease| Lease::of(lease, may_know)),
        state: State::of(&remembered),
        waiting_bytes: state.waiting_bytes,
        slowest,
        presence: Some(present).filter(|present| rule.presence.is_some() || !present.is_empty()),
        topic: name,
    }))
}

/// Forgets what a topic remembers, and begins another epoch.
pub(crate) async fn purge(Extracted(app): Extracted<App>, request: Request) -> Result<Json<Purged>, HttpError> {
    let name = name_in(&request, "/messages", app.limits().topic_bytes_max)?;
    let deadline = Instant::now() + PATIENCE;
    let late = || HttpError::unavailable("The topic's sequencer has too much to do, or is shutting down: try again.");
    let answered = loop {
        if app.is_stopping() {
            return Err(app.shared().admission.draining().into());
        }
        match send(app.shared(), &name) {
            Send::Sent(answered) => break answered,
            Send::Unknown => return Err(unknown(&name)),
            Send::MustWait if Instant::now() >= deadline => return Err(late()),
            Send::MustWait => sleep(QUEUE_PAUSE).await,
        }
    };
    let answer = timeout_at(deadline, answered).await.ok().and_then(Result::ok).ok_or_else(late)?;
    let epoch = hex(answer.ok_or_else(|| unknown(&name))?);
    info!(event = "purged", topic = name, epoch, "a topic was purged by an operator");
    Ok(Json(Purged { topic: name, epoch }))
}

/// What became of the order to purge a topic.
enum Send {
    Sent(oneshot::Receiver<Option<Epoch>>),
    /// No such topic is registered.
    Unknown,
    /// The sequencer's queue is full.
    MustWait,
}

/// Orders a purge. The topic's reference is taken and given away without waiting in between.
fn send(shared: &SharedState, name: &str) -> Send {
    let Some(topic) = shared.registry.find(name) else { return Send::Unknown };
    let (answer, answered) = oneshot::channel();
    let sequencer = topic.sequencer;
    match shared.send_control(sequencer, ControlMessage::Purge { topic, answer }) {
        Ok(()) => Send::Sent(answered),
        Err(_) => Send::MustWait,
    }
}

/// The topic in a request's path, which ends with `tail`.
pub(crate) fn name_in(request: &Request, tail: &str, topic_bytes_max: usize) -> Result<String, HttpError> {
    let path = request.uri().path();
    let segment = path.strip_prefix("/api/topics/").and_then(|rest| rest.strip_suffix(tail));
    let segment = segment.expect("the route has them");
    let name = percent_decode(segment).ok_or_else(|| HttpError::bad("The topic is not percent-encoded UTF-8."))?;
    check_name(&name, topic_bytes_max).map_err(|error| HttpError::bad(why_not(error)).coded(Code::BadTopic))?;
    Ok(name.into_owned())
}

/// Why nothing is known of a topic with such a name, as a sentence.
fn why_not(error: TopicError) -> String {
    match error {
        TopicError::Reserved => {
            "Topics that begin with '$' are the broker's own: they are neither shown here nor purged.".to_owned()
        }
        other => other.to_string(),
    }
}

/// The answer of a topic that is not there.
pub(crate) fn unknown(name: &str) -> HttpError {
    HttpError::new(
        404_u16,
        format_args!("There is no topic {name:?}: nobody uses it, and nothing of it is remembered."),
    )
}

fn hex(epoch: Epoch) -> String {
    format!("{:016x}", epoch.0)
}

impl RuleValues {
    fn of(rule: &Rule) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (messages, bytes, tombstone_ttl) = match rule.history {
            History::None => (None, None, None),
            History::Window { messages_max, bytes_max } => (Some(messages_max), Some(bytes_max), None),
            History::Keyed { keys_max, bytes_max, tombstone_ttl } => {
                (Some(keys_max), Some(bytes_max), Some(millis(tombstone_ttl)))
            }
        };
        Self {
            r#match: Some(rule.filter.clone()).filter(|filter| !filter.is_empty()),
            history: kind_name(rule.history.kind()),
            history_messages: messages,
            history_bytes: bytes,
            history_ttl: messages.map(|_| millis(rule.history_ttl)),
            tombstone_ttl,
            retain: match rule.retain {
                Retain::Flag => "flag",
                Retain::Always => "always",
                Retain::Never => "never",
            },
            stamp: if rule.stamps_time { &["time"] } else { &[] },
            presence_members: rule.presence.map(|presence| presence.members_max),
            presence_info: rule.presence.map(|presence| presence.info.name()),
            exclusive: rule.is_exclusive,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::topics::rules::HistoryKind;

    #[test]
    fn a_rule_has_the_values_that_mean_something() {
        let json = |kind| serde_json::to_value(RuleValues::of(&Rule::of_kind(kind))).expect("JSON");
        assert_eq!(
            json(HistoryKind::Window),
            json!({ "match": null, "history": "window", "history_messages": 256, "history_bytes": 256 << 10,
                    "history_ttl": 120_000, "retain": "flag", "stamp": [] })
        );
        assert_eq!(
            json(HistoryKind::Keyed),
            json!({ "match": null, "history": "keyed", "history_messages": 10_000, "history_bytes": 4 << 20,
                    "history_ttl": 0, "tombstone_ttl": 600_000, "retain": "flag", "stamp": [] })
        );
        let none = Rule {
            filter: "a/+".to_owned(),
            stamps_time: true,
            is_exclusive: true,
            ..Rule::of_kind(HistoryKind::None)
        };
        let none = serde_json::to_value(RuleValues::of(&none)).expect("JSON");
        assert_eq!(
            none,
            json!({ "match": "a/+", "history": "none", "retain": "flag", "stamp": ["time"], "exclusive": true })
        );
    }
}
