//! Commands about who is there: `connect`, `enter`, `update`, `leave`, `members`.
//!
//! Not here: sessions and members themselves (the broker).

use simd_json::Node;
use simd_json::StaticNode;

use super::Id;
use super::command::{Command, Scratch, SessionAsked};
use super::json::{self, TooDeep};
use super::members::{Fault, Members, missing, wrong_type};
use super::names::Member;
use super::options::{MEMBERS_LIMIT_DEFAULT, MEMBERS_LIMIT_MAX, SESSION_LEN_MAX};
use crate::topic::check_name;

impl<'a> Members<'_, 'a> {
    pub(super) fn connect(
        &self,
        id: Option<Id>,
        topic_len_max: usize,
        scratch: &'a mut Scratch,
    ) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Token, Member::Ping, Member::Session, Member::Will])?;
        let token = self.string(Member::Token)?;
        let pings = match self.string(Member::Ping)? {
            None => false,
            Some("message") => true,
            Some(_) => return Err(Fault::command("\"ping\" can only be \"message\".")),
        };
        let session = match self.get(Member::Session) {
            None => None,
            Some(&[Node::Static(StaticNode::Bool(true))]) => Some(SessionAsked::New),
            Some([Node::String(session)]) if session.len() <= SESSION_LEN_MAX => Some(SessionAsked::Resumed(session)),
            Some(_) => return Err(wrong_type(Member::Session, "true or a string of up to 64 bytes")),
        };
        let will = self.will(topic_len_max, scratch)?;
        Ok(Command::Connect { id, token, pings, session, will })
    }

    pub(super) fn enter(
        &self,
        id: Option<Id>,
        topic_len_max: usize,
        scratch: &'a mut Scratch,
    ) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Info])?;
        let topic = self.topic(topic_len_max)?;
        let info = if self.get(Member::Info).is_some() { Some(self.info(scratch)?) } else { None };
        Ok(Command::Enter { id, topic, info, is_update: false })
    }

    pub(super) fn update(
        &self,
        id: Option<Id>,
        topic_len_max: usize,
        scratch: &'a mut Scratch,
    ) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Info])?;
        let topic = self.topic(topic_len_max)?;
        Ok(Command::Enter { id, topic, info: Some(self.info(scratch)?), is_update: true })
    }

    pub(super) fn leave(&self, id: Option<Id>, topic_len_max: usize) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic])?;
        Ok(Command::Leave { id, topic: self.topic(topic_len_max)? })
    }

    pub(super) fn members(&self, id: Option<Id>, topic_len_max: usize) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Limit])?;
        let topic = self.topic(topic_len_max)?;
        let limit = self.count(Member::Limit)?.unwrap_or(MEMBERS_LIMIT_DEFAULT.into());
        let limit = u32::try_from(limit).ok().filter(|&limit| limit <= MEMBERS_LIMIT_MAX);
        let limit = limit.ok_or_else(|| wrong_type(Member::Limit, "an integer from 1 to 1000"))?;
        Ok(Command::Members { id, topic, limit })
    }

    pub(super) fn topic(&self, topic_len_max: usize) -> Result<&'a str, Fault> {
        let topic = self.string(Member::Topic)?.ok_or_else(|| missing(Member::Topic))?;
        check_name(topic, topic_len_max)?;
        Ok(topic)
    }

    /// The text of the value of `info`, without white space.
    fn info(&self, scratch: &'a mut Scratch) -> Result<&'a [u8], Fault> {
        let info = self.get(Member::Info).ok_or_else(|| missing(Member::Info))?;
        match json::put_value(&mut scratch.data, info) {
            Ok(()) => Ok(&scratch.data),
            Err(TooDeep) => Err(Fault::command("\"info\" nests deeper than 64 levels.")),
        }
    }
}
