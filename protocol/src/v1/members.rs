//! The members of a command, each of its type. Nothing is parsed and ignored: a member that nobody knows, that comes
//! twice or is of the wrong type is an error that names it.
//!
//! Not here: which members a command has (`interpret.rs`). Values are slices of simd-json's tape; strings point into the
//! frame. Nothing allocates but errors.

use std::borrow::Cow;

use simd_json::{Node, StaticNode};

use super::command::CommandError;
use super::names::Member;
use super::position::{Position, position};
use super::{ErrorCode, Id, json};
use crate::topic::TopicError;

/// An error before it is known whose it is.
pub(super) struct Fault {
    code: ErrorCode,
    reason: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(code: ErrorCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub(super) fn command(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadCommand, reason)
    }

    pub(super) fn of(self, id: Option<Id>) -> CommandError {
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

/// The members of one command; a value is the nodes it takes up on the tape.
pub(super) struct Members<'t, 'a> {
    values: [Option<&'t [Node<'a>]>; Member::ALL.len()],
}

impl Default for Members<'_, '_> {
    fn default() -> Self {
        Self { values: [None; Member::ALL.len()] }
    }
}

impl<'t, 'a> Members<'t, 'a> {
    /// Notes where each member is. Goes on to the end also when one is wrong.
    pub(super) fn read(&mut self, nodes: &'t [Node<'a>]) -> Result<(), Fault> {
        let members = json::members(nodes).ok_or_else(|| Fault::command("A command is a JSON object."))?;
        let mut result = Ok(());
        for (name, value) in members {
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

    /// Is there nothing but `type`, `id` and these?
    pub(super) fn only(&self, allowed: &[Member]) -> Result<(), Fault> {
        let expected = |member| [Member::Type, Member::Id].contains(&member) || allowed.contains(&member);
        self.all_are(expected, "This command")
    }

    /// Is there nothing but these? If there is, the complaint says that `what` has no such member.
    pub(super) fn all_are(&self, expected: impl Fn(Member) -> bool, what: &str) -> Result<(), Fault> {
        match Member::ALL.into_iter().find(|&member| self.get(member).is_some() && !expected(member)) {
            None => Ok(()),
            Some(member) => Err(Fault::command(format!("{what} has no member \"{}\".", member.as_str()))),
        }
    }

    pub(super) fn get(&self, member: Member) -> Option<&'t [Node<'a>]> {
        self.values[member as usize]
    }

    pub(super) fn string(&self, member: Member) -> Result<Option<&'a str>, Fault> {
        match self.get(member) {
            None => Ok(None),
            Some([Node::String(text)]) => Ok(Some(text)),
            Some(_) => Err(wrong_type(member, "a string")),
        }
    }

    pub(super) fn flag(&self, member: Member) -> Result<Option<bool>, Fault> {
        match self.get(member) {
            None => Ok(None),
            Some(&[Node::Static(StaticNode::Bool(flag))]) => Ok(Some(flag)),
            Some(_) => Err(wrong_type(member, "true or false")),
        }
    }

    /// An integer from 1.
    pub(super) fn count(&self, member: Member) -> Result<Option<u64>, Fault> {
        let Some(value) = self.get(member) else { return Ok(None) };
        let count = json::whole(value).filter(|&count| count > 0);
        count.map(Some).ok_or_else(|| wrong_type(member, "an integer from 1 to 2^53-1"))
    }

    pub(super) fn position(&self, member: Member) -> Result<Option<Position>, Fault> {
        let Some(value) = self.get(member) else { return Ok(None) };
        position(value).map(Some).ok_or_else(|| wrong_type(member, A_POSITION))
    }

    pub(super) fn id(&self) -> Result<Option<Id>, Fault> {
        let Some(value) = self.get(Member::Id) else { return Ok(None) };
        let id = match value {
            [Node::String(text)] => Id::text(text),
            value => json::whole(value).and_then(Id::number),
        };
        id.map(Some).ok_or_else(|| wrong_type(Member::Id, "an integer from 0 to 2^53-1 or a string of up to 64 bytes"))
    }
}

/// What a position must be.
pub(super) const A_POSITION: &str = "a position: an object of \"epoch\", a string of 16 hexadecimal digits in lower case, \
    and \"offset\", an integer from 0 to 2^53-1";

pub(super) fn wrong_type(member: Member, expected: &str) -> Fault {
    Fault::command(format!("\"{}\" must be {expected}.", member.as_str()))
}

pub(super) fn missing(member: Member) -> Fault {
    Fault::command(format!("The command has no \"{}\".", member.as_str()))
}
