//! Commands of a `ringyard.v1` client become actions; answers are written.

use std::time::Duration;

use bytes::BytesMut;
use protocol::frame::{MessageKind, close_code};
use protocol::topic;
use protocol::v1::{
    Command, CommandError, ErrorCode, Id, Reply, Subscribed, Topics, Will, write_error, write_pong, write_subscribed,
};

use crate::config::limits::Limits;
use crate::message::options::{NOT_HOLDER, PublishOptions, Refusal};
use crate::session::calls::{Ask, CallAction};
use crate::session::v1::{EndCause, PendingSubscribe, Unsubscribing, V1Session};
use crate::session::{Action, Codec, Incoming, PublishData, Target};
use crate::topics::rules::{HistoryKind, Throttle};

impl V1Session {
    /// One command.
    pub(super) fn on_command<'a>(&mut self, message: Incoming<'a>, codec: Codec<'a, '_>) -> Action<'a> {
        let Incoming { kind: MessageKind::Text, data } = message else {
            return Action::violation(
                close_code::UNSUPPORTED,
                "ringyard.v1 is text frames; send binary data as base64",
            );
        };
        let Codec { parser, limits, is_identified, out } = codec;
        let command = parser.parse(data.bytes(), limits.topic_bytes_max);
        let action = command.and_then(|command| self.action_of(command, is_identified, limits, out));
        action.unwrap_or_else(|error| {
            write(&error, out);
            Action::Answer
        })
    }

    /// What a command asks for. What needs the shard is checked there.
    fn action_of<'a>(
        &mut self,
        command: Command<'a>,
        is_identified: bool,
        limits: &Limits,
        out: &mut BytesMut,
    ) -> Result<Action<'a>, CommandError> {
        match command {
            Command::Connect { id, token, pings, session, will } => {
                self.pings_by_message |= pings;
                if token.is_none() && !is_identified {
                    return Err(unauthorized(id));
                }
                check_will(id, will, limits)?;
                Ok(Action::Connect { id, token, session, will })
            }
            Command::Pong => Ok(Action::Answer),
            other if !is_identified => Err(unauthorized(other.id())),
            Command::Ping { id } => {
                write_pong(out, id.as_ref());
                Ok(Action::Answer)
            }
            Command::Subscribe { id, topics, start, state, throttle_ms } => {
                self.check_subscribe(id, topics, limits)?;
                let throttle = Throttle::at_least(Duration::from_millis(throttle_ms.into()));
                Ok(Action::Subscribe { id, filters: topics, start, state, throttle })
            }
            Command::Unsubscribe { id, topics } => self.unsubscribe(id, topics),
            Command::Publish { id, topic, kind, data, ack, options } => {
                check_publish(id, topic, data, limits)?;
                let (to, data) = (self.target(topic), PublishData::Copy(data));
                Ok(Action::Publish { to, kind, data, options: PublishOptions::of(options), id, ack })
            }
            Command::Disconnect { id } => Ok(Action::Disconnect { id }),
            Command::Enter { id, topic, info, is_update } => Ok(Action::Enter { id, topic, info, is_update }),
            Command::Leave { id, topic } => Ok(Action::Leave { id, topic }),
            Command::Members { id, topic, limit } => Ok(Action::Members { id, topic, limit }),
            Command::History { id, topic, query } => Ok(Action::History { id, topic, query }),
            Command::Snapshot { id, topic, up_to, kind, data, lease } => {
                check_publish(id, topic, data, limits)?;
                Ok(Action::Snapshot { id, topic, up_to, kind, data, lease })
            }
            Command::Lease { id, topic, asked } => Ok(Action::Lease { id, topic, asked }),
            Command::Will { id, will } => {
                check_will(id, will, limits)?;
                Ok(Action::Will { id, will })
            }
            Command::Request { id, topic, kind, data, timeout_ms, to } => {
                check_publish(id, topic, data, limits)?;
                Ok(Action::Call(CallAction::Request(Ask { id, topic, kind, data, timeout_ms, to })))
            }
            Command::Respond { id, filter, end } => Ok(Action::Call(CallAction::Respond { id, filter, end })),
            Command::Reply { id, reply, answer } => {
                if let Reply::Data { data, .. } = answer {
                    check_len(id, data, limits)?;
                }
                Ok(Action::Call(CallAction::Reply { id, reply, answer }))
            }
        }
    }

    /// All of a command's topics, or none.
    fn check_subscribe(&self, id: Option<Id>, filters: Topics<'_>, limits: &Limits) -> Result<(), CommandError> {
        let limit = limits.subscriptions_max;
        if self.subscriptions.len() + filters.iter().len() > limit {
            let reason = format!("a connection may have {limit} subscriptions; see --max-subscriptions");
            return Err(error(id, ErrorCode::Limit, reason));
        }
        let mut sorted: Vec<_> = filters.iter().collect();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let known = || filters.iter().find(|filter| self.subscriptions.find_filter(filter).is_some());
        if let Some(filter) = twice.or_else(known) {
            return Err(error(id, ErrorCode::AlreadySubscribed, format!("already subscribed to {filter:?}")));
        }
        Ok(())
    }

    /// All of a command's topics, or none.
    fn unsubscribe<'a>(&mut self, id: Option<Id>, filters: Topics<'a>) -> Result<Action<'a>, CommandError> {
        for filter in filters.iter() {
            match self.subscriptions.find_filter(filter) {
                None => return Err(error(id, ErrorCode::NotSubscribed, format!("not subscribed to {filter:?}"))),
                // In force or not: its command's answer names it.
                Some(key) if self.is_joining(key) => {
                    let reason = format!("the subscription to {filter:?} is not confirmed yet");
                    return Err(error(id, ErrorCode::Busy, reason));
                }
                Some(_) => {}
            }
        }
        let filters = filters.iter().map(str::to_owned).collect();
        self.unsubscribing = Some(Box::new(Unsubscribing { cause: EndCause::Command(id), filters }));
        // What the ending subscriptions hold for the others goes out first, and so does what waits for its time.
        Ok(Action::Unsubscribe { flush: self.subscriptions.overlapping() || self.subscriptions.throttled() })
    }

    fn target<'a>(&self, topic: &'a str) -> Target<'a> {
        match &self.last_publish {
            Some(last) if *last.name == *topic => Target::Known(last.clone()),
            _ => Target::Named(topic),
        }
    }

    /// Answers a subscribe command.
    pub(super) fn write_subscribed(&self, command: &PendingSubscribe, out: &mut BytesMut) {
        let topics = command.subs.iter().map(|(key, begun)| Subscribed {
            topic: &self.subscriptions.sub(*key).filter,
            position: begun.position,
            recovered: begun.recovered,
            available: begun.available.map(|(from, to)| (from.0, to.0)),
            history: begun.history.and_then(HistoryKind::name),
            slow_consumer: begun.slow_consumer.name(),
            throttle_ms: begun.throttle.millis(),
        });
        write_subscribed(out, command.id.as_ref(), topics);
    }
}

fn check_publish(id: Option<Id>, name: &str, data: &[u8], limits: &Limits) -> Result<(), CommandError> {
    if topic::is_reserved(name) {
        let reason = "topics that begin with '$' are the broker's own";
        return Err(error(id, ErrorCode::Forbidden, reason.to_owned()));
    }
    check_len(id, data, limits)
}

fn check_len(id: Option<Id>, data: &[u8], limits: &Limits) -> Result<(), CommandError> {
    // JSON is written anew, and may be longer than it came (`1e15`); base64 is decoded, and is shorter.
    let len_max = limits.message_bytes_max;
    if data.len() as u64 > len_max {
        let reason = format!("the message would be delivered with {} bytes; --max-message is {len_max}", data.len());
        return Err(error(id, ErrorCode::TooBig, reason));
    }
    Ok(())
}

/// A will is a publish to come.
fn check_will(id: Option<Id>, will: Option<Will<'_>>, limits: &Limits) -> Result<(), CommandError> {
    will.map_or(Ok(()), |will| check_publish(id, will.topic, will.data, limits))
}

/// Answers with an error.
pub(super) fn write(error: &CommandError, out: &mut BytesMut) {
    write_error(out, error.id.as_ref(), error.code, &error.reason, None);
}

/// Answers that a sequencer refused the command.
pub(super) fn write_refused(id: Option<&Id>, refusal: Refusal, out: &mut BytesMut) {
    match refusal {
        Refusal::Conflict { offset } => {
            let reason = format!("the offset is {offset}, not what the command expects");
            write_error(out, id, ErrorCode::Conflict, &reason, Some(offset));
        }
        Refusal::Unsupported(reason) => write_error(out, id, ErrorCode::Unsupported, reason, None),
        Refusal::Limit(reason) => write_error(out, id, ErrorCode::Limit, reason, None),
        Refusal::Forbidden(reason) => write_error(out, id, ErrorCode::Forbidden, reason, None),
        Refusal::NotFound(reason) => write_error(out, id, ErrorCode::NotFound, reason, None),
        Refusal::NotHolder => write_error(out, id, ErrorCode::NotHolder, NOT_HOLDER, None),
    }
}

/// The command comes before its client has said who it is.
fn unauthorized(id: Option<Id>) -> CommandError {
    let reason = "this broker needs a token: send connect with one first, or bring it with the handshake".to_owned();
    error(id, ErrorCode::Unauthorized, reason)
}

fn error(id: Option<Id>, code: ErrorCode, reason: String) -> CommandError {
    CommandError { id, code, reason: reason.into() }
}
