//! The members of a command and the rules for them. Nothing is parsed and ignored: what a command does not
//! know, has twice or in the wrong type is an error that names it and carries the command's id.
//!
//! Values are slices of simd-json's tape; strings point into the frame. Nothing allocates but errors.

use std::borrow::Cow;

use simd_json::{Node, StaticNode};

use super::command::{Command, CommandError, Scratch};
use super::json::{self, TooDeep};
use super::{CommandType, ErrorCode, Id, PayloadKind};
use crate::topic::{TopicError, check_filter, check_name};

/// An error before it is known whose it is.
struct Fault {
    code: ErrorCode,
    reason: Cow<'static, str>,
}

impl Fault {
    fn new(code: ErrorCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }

    fn command(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadCommand, reason)
    }

    fn of(self, id: Option<Id>) -> CommandError {
        CommandError { id, code: self.code, reason: self.reason }
    }
}

impl From<TopicError> for Fault {
    fn from(error: TopicError) -> Self {
        let code = match error {
            TopicError::Reserved => ErrorCode::Forbidden,
            _ => ErrorCode::BadTopic,
        };
        Self::new(code, error.to_string())
    }
}

/// The members commands have, in the order of [`MEMBER_NAMES`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Type,
    Id,
    Topic,
    Topics,
    Data,
    Encoding,
    Ack,
    Token,
}

impl Member {
    /// The inverse of [`MEMBER_NAMES`].
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "type" => Self::Type,
            "id" => Self::Id,
            "topic" => Self::Topic,
            "topics" => Self::Topics,
            "data" => Self::Data,
            "encoding" => Self::Encoding,
            "ack" => Self::Ack,
            "token" => Self::Token,
            _ => return None,
        })
    }
}

const MEMBER_NAMES: [&str; 8] = ["type", "id", "topic", "topics", "data", "encoding", "ack", "token"];

/// The members of one command; a value is the nodes it takes up on the tape.
#[derive(Default)]
struct Members<'t, 'a> {
    values: [Option<&'t [Node<'a>]>; MEMBER_NAMES.len()],
}

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

impl<'t, 'a> Members<'t, 'a> {
    /// Notes where each member is. Goes on to the end also when one is wrong.
    fn read(&mut self, nodes: &'t [Node<'a>]) -> Result<(), Fault> {
        let Some((Node::Object { len, .. }, mut rest)) = nodes.split_first() else {
            return Err(Fault::command("A command is a JSON object."));
        };
        let mut result = Ok(());
        for _ in 0..*len {
            let Some((Node::String(name), after)) = rest.split_first() else {
                unreachable!("an object's members begin with a name");
            };
            let value = json::value(after);
            rest = &after[value.len()..];
            match Member::named(name).map(|known| &mut self.values[known as usize]) {
                Some(place @ None) => *place = Some(value),
                Some(Some(_)) => {
                    result = result.and(Err(Fault::command(format!("The member \"{name}\" comes twice."))));
                }
                None => result = result.and(Err(Fault::command("The command has an unknown member."))),
            }
        }
        result
    }

    fn get(&self, member: Member) -> Option<&'t [Node<'a>]> {
        self.values[member as usize]
    }

    fn string(&self, member: Member) -> Result<Option<&'a str>, Fault> {
        match self.get(member) {
            None => Ok(None),
            Some([Node::String(text)]) => Ok(Some(text)),
            Some(_) => Err(wrong_type(member, "a string")),
        }
    }

    fn id(&self) -> Result<Option<Id>, Fault> {
        let id = match self.get(Member::Id) {
            None => return Ok(None),
            Some([Node::String(text)]) => Id::text(text),
            Some([Node::Static(StaticNode::U64(number))]) => Id::number(*number),
            Some([Node::Static(StaticNode::I64(number))]) => u64::try_from(*number).ok().and_then(Id::number),
            Some(_) => None,
        };
        id.map(Some).ok_or_else(|| wrong_type(Member::Id, "an integer from 0 to 2^53-1 or a string of up to 64 bytes"))
    }

    /// Is there nothing but `type`, `id` and these?
    fn only(&self, allowed: &[Member]) -> Result<(), Fault> {
        let expected = |i: usize| [Member::Type, Member::Id].iter().chain(allowed).any(|&member| member as usize == i);
        match (0..MEMBER_NAMES.len()).find(|&i| self.values[i].is_some() && !expected(i)) {
            None => Ok(()),
            Some(i) => Err(Fault::command(format!("This command has no member \"{}\".", MEMBER_NAMES[i]))),
        }
    }

    fn command(&self, id: Option<Id>, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        let name = self.string(Member::Type)?.ok_or_else(|| missing("type"))?;
        let known = CommandType::named(name).ok_or_else(|| Fault::command("There is no command of this type."))?;
        match known {
            CommandType::Connect => {
                self.only(&[Member::Token])?;
                if self.string(Member::Token)?.is_some() {
                    return Err(Fault::new(ErrorCode::Unsupported, "This broker takes no tokens."));
                }
                Ok(Command::Connect { id })
            }
            CommandType::Subscribe => {
                self.filters(topic_len_max, scratch)?;
                Ok(Command::Subscribe { id, topics: scratch.topics() })
            }
            CommandType::Unsubscribe => {
                self.filters(topic_len_max, scratch)?;
                Ok(Command::Unsubscribe { id, topics: scratch.topics() })
            }
            CommandType::Publish => self.publish(id, topic_len_max, scratch),
            CommandType::Ping => {
                self.only(&[])?;
                Ok(Command::Ping { id })
            }
        }
    }

    /// Collects `topic` or `topics`.
    fn filters(&self, topic_len_max: usize, scratch: &mut Scratch) -> Result<(), Fault> {
        self.only(&[Member::Topic, Member::Topics])?;
        let mut rest = match (self.get(Member::Topic), self.get(Member::Topics)) {
            (Some(_), Some(_)) => {
                return Err(Fault::command("The command has both \"topic\" and \"topics\"."));
            }
            (None, None) => return Err(missing("topic")),
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

    fn publish(&self, id: Option<Id>, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Data, Member::Encoding, Member::Ack])?;
        let topic = self.string(Member::Topic)?.ok_or_else(|| missing("topic"))?;
        let ack = match self.get(Member::Ack) {
            None => id.is_some(),
            Some([Node::Static(StaticNode::Bool(true))]) if id.is_none() => {
                return Err(Fault::command("\"ack\" needs an \"id\"."));
            }
            Some([Node::Static(StaticNode::Bool(ack))]) => *ack,
            Some(_) => return Err(wrong_type(Member::Ack, "true or false")),
        };
        check_name(topic, topic_len_max)?;
        let (kind, data) = self.payload(&mut scratch.data)?;
        Ok(Command::Publish { id, topic, kind, data, ack })
    }

    /// What `data` and `encoding` say is to be published; written to `scratch` unless it is a plain string.
    fn payload(&self, scratch: &'a mut Vec<u8>) -> Result<(PayloadKind, &'a [u8]), Fault> {
        let data = self.get(Member::Data).ok_or_else(|| missing("data"))?;
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

fn wrong_type(member: Member, expected: &str) -> Fault {
    Fault::command(format!("\"{}\" must be {expected}.", MEMBER_NAMES[member as usize]))
}

fn missing(name: &str) -> Fault {
    Fault::command(format!("The command has no \"{name}\"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_by_its_name() {
        for (at, name) in MEMBER_NAMES.into_iter().enumerate() {
            assert_eq!(Member::named(name).map(|member| member as usize), Some(at));
        }
        assert!(Member::named("Type").is_none());
    }
}
