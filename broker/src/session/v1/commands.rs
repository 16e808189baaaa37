//! Commands of a `ringyard.v1` client become actions; answers are written.

use bytes::BytesMut;
use protocol::frame::{MessageKind, close_code};
use protocol::topic;
use protocol::v1::{
    Command, CommandError, ErrorCode, Id, PublishOptions, Start, Subscribed, Topics, write_error, write_ok, write_pong,
    write_subscribed,
};

use crate::config::limits::Limits;
use crate::message::options::Refusal;
use crate::session::v1::{PendingSubscribe, Unsubscribing, V1Session};
use crate::session::{Action, Codec, Incoming, PublishData, Target};

impl V1Session {
    /// One command.
    pub(super) fn on_command<'a>(&mut self, message: Incoming<'a>, codec: Codec<'a, '_>) -> Action<'a> {
        let Incoming { kind: MessageKind::Text, data } = message else {
            return Action::violation(
                close_code::UNSUPPORTED,
                "ringyard.v1 is text frames; send binary data as base64",
            );
        };
        let Codec { parser, limits, out } = codec;
        let action = parser.parse(data.bytes(), limits.topic_bytes_max).and_then(|command| match command {
            Command::Connect { id } => {
                write_ok(out, id.as_ref());
                Ok(Action::Answer)
            }
            Command::Ping { id } => {
                write_pong(out, id.as_ref());
                Ok(Action::Answer)
            }
            // No topic has state yet: whether it is wanted makes no difference.
            Command::Subscribe { id, topics, start: Start::Now, state: _ } => self.subscribe(id, topics, limits),
            Command::Unsubscribe { id, topics } => self.unsubscribe(id, topics),
            Command::Publish { id, topic, kind, data, ack, options } if options == PublishOptions::default() => {
                check_publish(id, topic, data, limits)?;
                Ok(Action::Publish { to: self.target(topic), kind, data: PublishData::Copy(data), id, ack })
            }
            Command::Subscribe { id, .. } => Err(unsupported(id, "\"since\" and \"last\"")),
            Command::Publish { id, .. } => Err(unsupported(id, "options of a publish")),
            Command::History { id, .. } => Err(unsupported(id, "\"history\"")),
            Command::Snapshot { id, .. } => Err(unsupported(id, "\"snapshot\"")),
        });
        action.unwrap_or_else(|error| {
            write(&error, out);
            Action::Answer
        })
    }

    /// All of a command's topics, or none.
    fn subscribe<'a>(&self, id: Option<Id>, filters: Topics<'a>, limits: &Limits) -> Result<Action<'a>, CommandError> {
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
        Ok(Action::Subscribe { id, filters })
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
        self.unsubscribing = Some(Box::new(Unsubscribing { id, filters }));
        // What the ending subscriptions hold for the others goes out first.
        Ok(Action::Unsubscribe { flush: self.subscriptions.overlapping() })
    }

    fn target<'a>(&self, topic: &'a str) -> Target<'a> {
        match &self.last_publish {
            Some(last) if *last.name == *topic => Target::Known(last.clone()),
            _ => Target::Named(topic),
        }
    }

    /// Answers a subscribe command.
    pub(super) fn write_subscribed(&self, command: &PendingSubscribe, out: &mut BytesMut) {
        let subs = command.subs.iter().map(|&key| self.subscriptions.sub(key));
        let topics = subs.map(|sub| Subscribed { topic: &sub.filter, position: sub.position, ..Default::default() });
        write_subscribed(out, command.id.as_ref(), topics);
    }
}

fn check_publish(id: Option<Id>, name: &str, data: &[u8], limits: &Limits) -> Result<(), CommandError> {
    if topic::is_reserved(name) {
        let reason = "topics that begin with '$' are the broker's own";
        return Err(error(id, ErrorCode::Forbidden, reason.to_owned()));
    }
    // JSON is written anew, and may be longer than it came (`1e15`); base64 is decoded, and is shorter.
    let len_max = limits.message_bytes_max;
    if data.len() as u64 > len_max {
        let reason = format!("the message would be delivered with {} bytes; --max-message is {len_max}", data.len());
        return Err(error(id, ErrorCode::TooBig, reason));
    }
    Ok(())
}

/// Answers with an error.
pub(super) fn write(error: &CommandError, out: &mut BytesMut) {
    write_error(out, error.id.as_ref(), error.code, &error.reason, None);
}

fn unsupported(id: Option<Id>, what: &str) -> CommandError {
    error(id, ErrorCode::Unsupported, format!("this broker keeps no history of topics, which {what} would need"))
}

/// What a sequencer's refusal is to the client.
pub(super) fn refused(id: Id, refusal: Refusal) -> CommandError {
    let (code, reason) = match refusal {
        // Commands carry no `if_offset` yet.
        Refusal::Conflict { offset } => {
            (ErrorCode::BadCommand, format!("\"if_offset\" does not hold: the offset is {offset}."))
        }
        Refusal::Unsupported(reason) => (ErrorCode::Unsupported, reason.to_owned()),
        Refusal::Limit(reason) => (ErrorCode::Limit, reason.to_owned()),
    };
    error(Some(id), code, reason)
}

fn error(id: Option<Id>, code: ErrorCode, reason: String) -> CommandError {
    CommandError { id, code, reason: reason.into() }
}
