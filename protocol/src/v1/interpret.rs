//! Members become a command: which members each command has, and the rules between them.
//!
//! Not here: what a topic or the broker makes of the command. Strings of it point into the frame; lists and payloads that
//! are not plain strings go to the parser's scratch. Nothing allocates but errors.

use simd_json::Node;

use super::command::{Command, CommandError, Scratch, Topics};
use super::json::{self, TooDeep};
use super::members::{A_POSITION, Fault, Members, missing, wrong_type};
use super::names::Member;
use super::options::{
    Expected, HISTORY_LIMIT_DEFAULT, HISTORY_LIMIT_MAX, HistoryQuery, IDEMPOTENCY_KEY_LEN_MAX, KEY_LEN_MAX,
    PublishOptions, THROTTLE_MAX_MS,
};
use super::position::{POSITIONS_MAX, PositionList, Start, position};
use super::{CommandType, Id, PayloadKind};
use crate::topic::{TopicError, check_filter, check_name, is_wildcard};

/// The members of `publish`.
const PUBLISH: [Member; 11] = [
    Member::Topic,
    Member::Data,
    Member::Encoding,
    Member::Ack,
    Member::Key,
    Member::Retain,
    Member::Removed,
    Member::Ttl,
    Member::IdempotencyKey,
    Member::IfOffset,
    Member::Lease,
];

/// Turns a parsed frame into a command.
pub(super) fn interpret<'a>(
    nodes: &[Node<'a>],
    topic_len_max: usize,
    scratch: &'a mut Scratch,
) -> Result<Command<'a>, CommandError> {
    let mut members = Members::default();
    let read = members.read(nodes);
    // Read before anything is complained about, so that the complaint can carry it.
    let id = members.id();
    let known = id.as_ref().ok().copied().flatten();
    read.and(id).and_then(|id| members.command(id, topic_len_max, scratch)).map_err(|fault| fault.of(known))
}

impl<'a> Members<'_, 'a> {
    fn command(&self, id: Option<Id>, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        let name = self.string(Member::Type)?.ok_or_else(|| missing(Member::Type))?;
        let known = CommandType::named(name).ok_or_else(|| Fault::command("There is no command of this type."))?;
        match known {
            CommandType::Connect => self.connect(id, topic_len_max, scratch),
            CommandType::Disconnect => {
                self.only(&[])?;
                Ok(Command::Disconnect { id })
            }
            CommandType::Subscribe => self.subscribe(id, topic_len_max, scratch),
            CommandType::Unsubscribe => {
                self.only(&[Member::Topic, Member::Topics])?;
                self.filters(topic_len_max, scratch)?;
                Ok(Command::Unsubscribe { id, topics: scratch.topics() })
            }
            CommandType::Publish => self.publish(id, topic_len_max, scratch),
            CommandType::History => self.history(id, topic_len_max),
            CommandType::Snapshot => self.snapshot(id, topic_len_max, scratch),
            CommandType::Request => self.request(id, topic_len_max, scratch),
            CommandType::Respond => self.respond(id, topic_len_max),
            CommandType::Reply => self.reply(id, scratch),
            CommandType::Enter => self.enter(id, topic_len_max, scratch),
            CommandType::Update => self.update(id, topic_len_max, scratch),
            CommandType::Leave => self.leave(id, topic_len_max),
            CommandType::Members => self.members(id, topic_len_max),
            CommandType::Lease => self.lease(id, topic_len_max),
            CommandType::Will => self.set_will(id, topic_len_max, scratch),
            CommandType::Ping => {
                self.only(&[])?;
                Ok(Command::Ping { id })
            }
            CommandType::Pong => {
                self.only(&[])?;
                Ok(Command::Pong)
            }
        }
    }

    fn subscribe(&self, id: Option<Id>, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Topics, Member::Since, Member::Last, Member::State, Member::Throttle])?;
        self.filters(topic_len_max, scratch)?;
        if let Some(since) = self.get(Member::Since) {
            self.since(since, &mut scratch.positions)?;
        }
        let scratch: &'a Scratch = scratch;
        let topics = scratch.topics();
        let start = match (self.get(Member::Since), self.count(Member::Last)?) {
            (None, None) => Start::Now,
            (None, Some(last)) => last_of(topics, last)?,
            (Some(_), Some(_)) => return Err(both(Member::Since, Member::Last)),
            (Some(_), None) => {
                let positions = scratch.positions.positions();
                if !positions.are_of(topics) {
                    return Err(Fault::command("\"since\" has a position of a topic that the command does not name."));
                }
                Start::Since(positions)
            }
        };
        let state = self.flag(Member::State)?.unwrap_or(true);
        Ok(Command::Subscribe { id, topics, start, state, throttle_ms: self.throttle()? })
    }

    fn throttle(&self) -> Result<u32, Fault> {
        let Some(value) = self.get(Member::Throttle) else { return Ok(0) };
        let throttle = json::whole(value).and_then(|ms| u32::try_from(ms).ok()).filter(|&ms| ms <= THROTTLE_MAX_MS);
        throttle.ok_or_else(|| wrong_type(Member::Throttle, "an integer from 0 to 5000"))
    }

    /// Collects `topic` or `topics`.
    fn filters(&self, topic_len_max: usize, scratch: &mut Scratch) -> Result<(), Fault> {
        let mut rest = match (self.get(Member::Topic), self.get(Member::Topics)) {
            (Some(_), Some(_)) => return Err(both(Member::Topic, Member::Topics)),
            (None, None) => return Err(missing(Member::Topic)),
            (Some(topic @ [Node::String(_)]), None) => topic,
            (Some(_), None) => return Err(wrong_type(Member::Topic, "a string")),
            (None, Some([Node::Array { len: 1.., .. }, topics @ ..])) => topics,
            (None, Some(_)) => {
                return Err(wrong_type(Member::Topics, "an array of strings, at least one"));
            }
        };
        while let Some((node, after)) = rest.split_first() {
            let Node::String(filter) = node else {
                return Err(wrong_type(Member::Topics, "an array of strings, at least one"));
            };
            check_filter(filter, topic_len_max)?;
            scratch.push_topic(filter);
            rest = after;
        }
        Ok(())
    }

    /// Collects the positions of `since`: one, of the command's one topic, or several by topic.
    fn since(&self, since: &[Node<'a>], list: &mut PositionList) -> Result<(), Fault> {
        let named = json::members(since).and_then(|mut members| match members.next() {
            Some(("positions", by_topic)) if members.len() == 0 => Some(by_topic),
            _ => None,
        });
        let Some(by_topic) = named else {
            let position = position(since).ok_or_else(|| wrong_type(Member::Since, A_POSITION))?;
            let Some(topic) = self.string(Member::Topic)? else {
                return Err(Fault::command("\"since\" needs \"positions\" where the command has \"topics\"."));
            };
            list.push(topic, position);
            return Ok(());
        };
        let by_topic = json::members(by_topic).filter(|members| members.len() <= POSITIONS_MAX);
        let by_topic =
            by_topic.ok_or_else(|| Fault::command("\"positions\" must be an object of up to 128 members."))?;
        for (topic, value) in by_topic {
            let malformed = || Fault::command(format!("A member of \"positions\" must be {A_POSITION}."));
            list.push(topic, position(value).ok_or_else(malformed)?);
        }
        if !list.sort() {
            return Err(Fault::command("\"positions\" has a topic twice."));
        }
        Ok(())
    }

    fn publish(&self, id: Option<Id>, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        self.only(&PUBLISH)?;
        let topic = self.string(Member::Topic)?.ok_or_else(|| missing(Member::Topic))?;
        let ack = match self.flag(Member::Ack)? {
            None => id.is_some(),
            Some(true) if id.is_none() => return Err(Fault::command("\"ack\" needs an \"id\".")),
            Some(ack) => ack,
        };
        check_name(topic, topic_len_max)?;
        let options = self.options()?;
        let (kind, data) = self.published(&options, &mut scratch.data)?;
        Ok(Command::Publish { id, topic, kind, data, ack, options })
    }

    /// The payload of a publish: a removal needs none.
    pub(super) fn published(
        &self,
        options: &PublishOptions<'_>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<(PayloadKind, &'a [u8]), Fault> {
        match (self.get(Member::Data), self.get(Member::Encoding)) {
            (None, None) if options.removed => Ok((PayloadKind::Json, &b"null"[..])),
            _ => self.payload(scratch),
        }
    }

    pub(super) fn options(&self) -> Result<PublishOptions<'a>, Fault> {
        let key = self.string(Member::Key)?;
        if key.is_some_and(|key| key.len() > KEY_LEN_MAX) {
            return Err(wrong_type(Member::Key, "a string of up to 255 bytes"));
        }
        let idempotency_key = self.string(Member::IdempotencyKey)?;
        if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > IDEMPOTENCY_KEY_LEN_MAX) {
            return Err(wrong_type(Member::IdempotencyKey, "a string of 1 to 64 bytes"));
        }
        let if_offset = match self.get(Member::IfOffset) {
            None => None,
            Some([Node::String("absent")]) => Some(Expected::Absent),
            Some(value) => match json::whole(value) {
                // Offsets begin at 1: as in a position, 0 says that there is none.
                Some(0) => Some(Expected::Absent),
                Some(offset) => Some(Expected::Offset(offset)),
                None => return Err(wrong_type(Member::IfOffset, "an integer from 0 to 2^53-1 or \"absent\"")),
            },
        };
        Ok(PublishOptions {
            key: key.filter(|key| !key.is_empty()),
            retain: self.flag(Member::Retain)?.unwrap_or(false),
            removed: self.flag(Member::Removed)?.unwrap_or(false),
            ttl_ms: self.count(Member::Ttl)?,
            idempotency_key,
            if_offset,
            lease: self.count(Member::Lease)?,
        })
    }

    fn history(&self, id: Option<Id>, topic_len_max: usize) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Since, Member::Before, Member::Limit, Member::Reverse])?;
        let topic = self.string(Member::Topic)?.ok_or_else(|| missing(Member::Topic))?;
        match check_name(topic, topic_len_max) {
            Ok(()) | Err(TopicError::Reserved) => {}
            Err(error) => return Err(error.into()),
        }
        let (since, before) = (self.position(Member::Since)?, self.position(Member::Before)?);
        if since.is_some() && before.is_some() {
            return Err(both(Member::Since, Member::Before));
        }
        let limit = self.count(Member::Limit)?.unwrap_or(HISTORY_LIMIT_DEFAULT.into());
        let limit = u32::try_from(limit).ok().filter(|&limit| limit <= HISTORY_LIMIT_MAX);
        let limit = limit.ok_or_else(|| wrong_type(Member::Limit, "an integer from 1 to 1000"))?;
        let reverse = self.flag(Member::Reverse)?.unwrap_or(false);
        Ok(Command::History { id, topic, query: HistoryQuery { since, before, limit, reverse } })
    }

    fn snapshot(&self, id: Option<Id>, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::UpTo, Member::Data, Member::Encoding, Member::Lease])?;
        let topic = self.string(Member::Topic)?.ok_or_else(|| missing(Member::Topic))?;
        check_name(topic, topic_len_max)?;
        let up_to = self.position(Member::UpTo)?.ok_or_else(|| missing(Member::UpTo))?;
        let lease = self.count(Member::Lease)?;
        let (kind, data) = self.payload(&mut scratch.data)?;
        Ok(Command::Snapshot { id, topic, up_to, kind, data, lease })
    }

    /// What `data` and `encoding` say is to be published; written to `scratch` unless it is a plain string.
    pub(super) fn payload(&self, scratch: &'a mut Vec<u8>) -> Result<(PayloadKind, &'a [u8]), Fault> {
        let data = self.get(Member::Data).ok_or_else(|| missing(Member::Data))?;
        match (self.string(Member::Encoding)?, data) {
            (None, [Node::String(text)]) => Ok((PayloadKind::Text, text.as_bytes())),
            (None, value) => match json::put_value(scratch, value) {
                Ok(()) => Ok((PayloadKind::Json, scratch)),
                Err(TooDeep) => Err(Fault::command("\"data\" nests deeper than 64 levels.")),
            },
            (Some("base64"), [Node::String(text)]) => {
                if json::decode_base64(text, scratch) {
                    Ok((PayloadKind::Binary, scratch))
                } else {
                    Err(Fault::command("\"data\" is not base64 with its padding."))
                }
            }
            (Some("base64"), _) => Err(wrong_type(Member::Data, "a string when \"encoding\" is given")),
            (Some(_), _) => Err(Fault::command("\"encoding\" can only be \"base64\".")),
        }
    }
}

/// The newest `last` messages of each of these topics. No topic remembers as many as fit 32 bits.
fn last_of(topics: Topics<'_>, last: u64) -> Result<Start<'static>, Fault> {
    if topics.iter().any(is_wildcard) {
        return Err(Fault::command("\"last\" needs topics without wildcards."));
    }
    Ok(Start::Last(u32::try_from(last).unwrap_or(u32::MAX)))
}

pub(super) fn both(one: Member, other: Member) -> Fault {
    Fault::command(format!("The command has both \"{}\" and \"{}\".", one.as_str(), other.as_str()))
}
