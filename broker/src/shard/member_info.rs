//! What others learn of a client that enters a topic: what it says of itself or, where the topic's rule says
//! `presence-info = "token"` and there is access control, what its token says of it.
//!
//! The rule is looked up here, on the connection's shard, which has the token. Cost: the topic's rule, and no copy of what is in
//! a token.

use std::sync::Arc;

use protocol::v1::{CommandError, ErrorCode, Id};
use ring::{ConnId, Driver};

use crate::shard::Shard;
use crate::shard::members::OFF;
use crate::topics::rules::PresenceInfo;

/// The longest text of what is said of a member, in bytes.
const INFO_BYTES_MAX: usize = 1024;

impl<D: Driver> Shard<D> {
    /// What is said of a client that enters a topic, of which its command says `own`.
    ///
    /// # Errors
    /// It must not say it itself, or it is too long.
    pub(super) fn member_info(
        &mut self,
        id: ConnId,
        command: Option<Id>,
        topic: &str,
        own: Option<&[u8]>,
    ) -> Result<Option<Arc<[u8]>>, CommandError> {
        let Some(presence) = self.presence_of(topic) else {
            // The sequencer would say the same, but the session would count the topic as entered.
            return Err(CommandError { id: command, code: ErrorCode::Unsupported, reason: OFF.into() });
        };
        if self.shared.authority.is_on() && presence.info == PresenceInfo::Token {
            if own.is_some() {
                let reason =
                    "the topic's rule says presence-info = \"token\": the claim `info` of a client's token says it";
                return Err(self.forbidden(command, reason.to_owned()));
            }
            let of_token = self.identities.principal(id).and_then(|principal| principal.member_info());
            check_length(command, of_token.as_deref(), "the claim info of the token")?;
            return Ok(of_token);
        }
        check_length(command, own, "info")?;
        Ok(own.map(Arc::from))
    }
}

fn check_length(command: Option<Id>, info: Option<&[u8]>, what: &str) -> Result<(), CommandError> {
    let len = info.map_or(0, <[u8]>::len);
    if len <= INFO_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("{what} has {len} bytes; at most {INFO_BYTES_MAX} are allowed");
    Err(CommandError { id: command, code: ErrorCode::TooBig, reason: reason.into() })
}
