//! Leases and last wills: which members `lease`, `will` and the will of `connect` have, and what the broker says of leases.
//!
//! Not here: who holds what, and when a will is published (the broker). Times are milliseconds.

use bytes::BufMut;
use simd_json::Node;

use super::command::{Command, Scratch};
use super::interpret::both;
use super::json::{self, put_string};
use super::members::{Fault, Members, missing, wrong_type};
use super::message::{begin, begin_of_topic, put_number, put_reason};
use super::names::Member;
use super::options::PublishOptions;
use super::{Id, LeaseLostReason, MessageType, PayloadKind};
use crate::topic::check_name;

/// How long a lease lasts at least.
pub const LEASE_MIN_MS: u32 = 1000;

/// How long a lease lasts at most without being renewed.
pub const LEASE_MAX_MS: u32 = 600_000;

/// How long a lease lasts when its command does not say.
pub const LEASE_DEFAULT_MS: u32 = 10_000;

/// How long one command may wait for a lease.
pub const LEASE_WAIT_MAX_MS: u32 = 60_000;

/// How long a will may wait for its client to come back.
pub const WILL_DELAY_MAX_MS: u32 = 60_000;

/// What a `lease` command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseAsked {
    /// The lease.
    Take {
        /// For how long: [`LEASE_MIN_MS`] to [`LEASE_MAX_MS`].
        ttl_ms: u32,
        /// How long it waits if another client has it, up to [`LEASE_WAIT_MAX_MS`].
        wait_ms: u32,
    },
    /// To keep it.
    Renew {
        /// Its number.
        lease: u64,
        /// For how long from now on; `None`: for as long as before.
        ttl_ms: Option<u32>,
    },
    /// To give it back.
    Release {
        /// Its number.
        lease: u64,
    },
}

/// What is published when a client's connection ends without `disconnect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// A valid name.
    pub topic: &'a str,
    /// What `data` is.
    pub kind: PayloadKind,
    /// The payload.
    pub data: &'a [u8],
    /// Key, `ttl` and `retain`; nothing else.
    pub options: PublishOptions<'a>,
    /// How long it waits for the client to come back, up to [`WILL_DELAY_MAX_MS`].
    pub delay_ms: u32,
}

/// The members of a will.
const WILL: [Member; 7] =
    [Member::Topic, Member::Data, Member::Encoding, Member::Key, Member::Ttl, Member::Retain, Member::Delay];

impl<'a> Members<'_, 'a> {
    pub(super) fn lease(&self, id: Option<Id>, topic_len_max: usize) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Topic, Member::Ttl, Member::Wait, Member::Lease, Member::End])?;
        let topic = self.topic(topic_len_max)?;
        let (ttl_ms, wait_ms) = (self.lease_ttl()?, self.up_to(Member::Wait, LEASE_WAIT_MAX_MS)?);
        let asked = match (self.count(Member::Lease)?, self.ends()?) {
            (None, false) => {
                LeaseAsked::Take { ttl_ms: ttl_ms.unwrap_or(LEASE_DEFAULT_MS), wait_ms: wait_ms.unwrap_or(0) }
            }
            (Some(_), _) if wait_ms.is_some() => return Err(both(Member::Lease, Member::Wait)),
            (Some(lease), false) => LeaseAsked::Renew { lease, ttl_ms },
            (Some(_), true) if ttl_ms.is_some() => return Err(both(Member::End, Member::Ttl)),
            (Some(lease), true) => LeaseAsked::Release { lease },
            (None, true) => return Err(missing(Member::Lease)),
        };
        Ok(Command::Lease { id, topic, asked })
    }

    pub(super) fn set_will(
        &self,
        id: Option<Id>,
        topic_len_max: usize,
        scratch: &'a mut Scratch,
    ) -> Result<Command<'a>, Fault> {
        self.only(&[Member::Will, Member::End])?;
        let will = match (self.get(Member::Will), self.ends()?) {
            (Some(_), true) => return Err(both(Member::Will, Member::End)),
            (None, true) => None,
            (None, false) => return Err(missing(Member::Will)),
            (Some(will), false) => Some(will_of(will, topic_len_max, scratch)?),
        };
        Ok(Command::Will { id, will })
    }

    /// The will of `connect`, if it has one.
    pub(super) fn will(&self, topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Option<Will<'a>>, Fault> {
        self.get(Member::Will).map(|will| will_of(will, topic_len_max, scratch)).transpose()
    }

    fn lease_ttl(&self) -> Result<Option<u32>, Fault> {
        let Some(value) = self.get(Member::Ttl) else { return Ok(None) };
        let ttl = json::whole(value).and_then(|ms| u32::try_from(ms).ok());
        let ttl = ttl.filter(|ttl| (LEASE_MIN_MS..=LEASE_MAX_MS).contains(ttl));
        ttl.map(Some).ok_or_else(|| wrong_type(Member::Ttl, "an integer from 1000 to 600000"))
    }

    /// Milliseconds from 0.
    fn up_to(&self, member: Member, max: u32) -> Result<Option<u32>, Fault> {
        let Some(value) = self.get(member) else { return Ok(None) };
        let ms = json::whole(value).and_then(|ms| u32::try_from(ms).ok()).filter(|&ms| ms <= max);
        ms.map(Some).ok_or_else(|| wrong_type(member, &format!("an integer from 0 to {max}")))
    }

    /// Whether `end` is there, which can only be true.
    fn ends(&self) -> Result<bool, Fault> {
        match self.flag(Member::End)? {
            None => Ok(false),
            Some(true) => Ok(true),
            Some(false) => Err(wrong_type(Member::End, "true")),
        }
    }
}

fn will_of<'a>(will: &[Node<'a>], topic_len_max: usize, scratch: &'a mut Scratch) -> Result<Will<'a>, Fault> {
    if json::members(will).is_none() {
        return Err(wrong_type(Member::Will, "an object"));
    }
    let mut members = Members::default();
    members.read(will)?;
    members.all_are(|member| WILL.contains(&member), "A will")?;
    let topic = members.string(Member::Topic)?.ok_or_else(|| Fault::command("The will has no \"topic\"."))?;
    check_name(topic, topic_len_max)?;
    let delay_ms = members.up_to(Member::Delay, WILL_DELAY_MAX_MS)?.unwrap_or(0);
    let options = members.options()?;
    let (kind, data) = members.published(&options, &mut scratch.data)?;
    Ok(Will { topic, kind, data, options, delay_ms })
}

/// The client has the lease of a topic, by this number, for so many milliseconds from now on.
pub fn write_leased(out: &mut impl BufMut, id: Option<&Id>, lease: u64, ttl_ms: u64) {
    begin(out, MessageType::Ok, id);
    put_number(out, b",\"lease\":", lease);
    put_number(out, b",\"ttl\":", ttl_ms);
    out.put_u8(b'}');
}

/// The client does not get the lease: another one, `by`, has it for so many milliseconds from now on.
pub fn write_held(out: &mut impl BufMut, id: Option<&Id>, by: &str, ttl_ms: u64) {
    begin(out, MessageType::Error, id);
    out.put_slice(b",\"code\":\"held\",\"reason\":\"another client has the lease\",\"by\":");
    put_string(out, by.as_bytes());
    put_number(out, b",\"ttl\":", ttl_ms);
    out.put_u8(b'}');
}

/// The client has a lease no more that it had by this number.
pub fn write_lease_lost(out: &mut impl BufMut, topic: &str, lease: u64, reason: LeaseLostReason) {
    begin_of_topic(out, MessageType::LeaseLost, topic);
    put_number(out, b",\"lease\":", lease);
    put_reason(out, reason.as_str());
}
