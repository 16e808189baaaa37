//! As whom the broker takes a client, where access control is on: what the client brings with its handshake and with `connect`,
//! and what that must be answered.
//!
//! Commands are carried out in their order, and `connect` is answered at once. So the answer to a command comes behind those to
//! every `connect` before it, and its client knows as whom it was judged. A token itself was judged somewhen between the moment
//! when it was written and the one when the answer came.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Client, Command, Phase, Role, Stage};
use crate::access::{Access, EPOCH_S, Rights, Token, USERS, Verdicts, time_of_day};
use crate::model::{Moment, TokenId, Violation};

const MILLIS: u64 = 1_000_000;

/// As whom a client's commands are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// It has to say who it is.
    Nobody,
    /// It need not.
    Anonymous,
    /// The user of a token.
    User(TokenId),
}

/// What a handshake brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Brings {
    /// No token.
    Nothing,
    /// One in `Authorization`.
    Header(TokenId),
    /// One as a sub-protocol, as pages do.
    Page(TokenId),
}

/// From one command on the client is somebody else, or has another token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) command: u64,
    pub(super) holder: Holder,
    pub(super) asked: Moment,
    pub(super) heard: Moment,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Standing {
    brings: Brings,
    pub(super) began: Moment,
    pub(super) changes: Vec<Change>,
    /// Each `connect` with a token that waits for its answer.
    pub(super) connects: BTreeMap<u64, (TokenId, Moment)>,
    /// It is refused: nothing else may come than a close frame with one of these codes.
    pub(super) closing: Vec<u16>,
    /// It may be refused: the close frame may come first.
    pub(super) may_close: Vec<u16>,
    /// It never says who it is.
    is_silent: bool,
    /// It was asked for another token.
    pub(super) is_asked: bool,
    pub(super) wants_token: bool,
    /// Rounds for which something has been overdue, and nothing came, although it reads.
    pub(super) quiet: u32,
}

/// What a handshake earns.
#[derive(Default, Debug)]
pub(super) struct Earned {
    /// Answers that refuse it.
    pub(super) statuses: Vec<u16>,
    /// It may be answered 101, as whose.
    pub(super) holder: Option<Holder>,
    /// It may be answered 101 and closed with one of these codes.
    pub(super) closing: Vec<u16>,
}

pub(super) const JUDGED: &str = "who may do what is decided by token and tables";

/// The time of the simulation at a time of day.
pub(super) fn nanos(ms: u64) -> u64 {
    ms.saturating_sub(EPOCH_S * 1000) * MILLIS
}

impl Change {
    /// Between which times the connection is asked for another token.
    pub(super) fn refresh(&self, token: &Token) -> (u64, u64) {
        let ends = nanos(token.claims.expires_ms);
        // A minute before its end, or when half of what was left has passed.
        let of = |judged: u64| {
            let left = ends.saturating_sub(judged);
            judged + left - (left / 2).min(60_000 * MILLIS)
        };
        (of(self.asked.time).saturating_sub(MILLIS), of(self.heard.time) + MILLIS)
    }

    /// Between which times the connection is closed if no other token comes.
    pub(super) fn end(&self, token: &Token, access: &Access) -> (u64, u64) {
        let [closed, taken] = [access.grace_ms, access.leeway_ms].map(|ms| nanos(token.claims.expires_ms + ms));
        // A token that came even later is good for as long as it is taken.
        let of = |judged: u64| if judged < closed { closed } else { closed.max(taken) };
        (of(self.asked.time), of(self.heard.time) + MILLIS)
    }
}

impl Standing {
    /// As whom it was taken last.
    pub(super) fn last(&self) -> Option<&Change> {
        self.changes.last()
    }

    /// As whom a command was carried out.
    pub(super) fn holder_at(&self, command: u64) -> Holder {
        self.change_at(command).map_or(Holder::Nobody, |change| change.holder)
    }

    pub(super) fn change_at(&self, command: u64) -> Option<&Change> {
        self.changes.iter().rev().find(|change| change.command < command)
    }
}

/// What a holder may do.
pub(super) fn rights(holder: Holder, stage: &Stage<'_>) -> Rights {
    let access = stage.params.access.as_ref().expect("access control is on");
    match holder {
        Holder::Nobody => Rights::default(),
        Holder::Anonymous => access.rights(None),
        Holder::User(token) => access.rights(Some(&stage.model.token(token).claims)),
    }
}

/// A token of somebody, with which a client presents itself.
pub(super) fn new_token(user: Option<usize>, stage: &mut Stage<'_>) -> TokenId {
    let leeway_ms = stage.params.access.as_ref().expect("access control is on").leeway_ms;
    let user = user.unwrap_or_else(|| stage.rng.below(USERS.len()));
    let token = Token::draw(stage.rng, user, leeway_ms, time_of_day(stage.world.now()));
    stage.model.issued(token)
}

impl Client {
    // ---- the handshake

    /// A client begins that may have to say who it is. Returns what that adds to its head, sub-protocols apart, and those.
    pub(super) fn present(&mut self, stage: &mut Stage<'_>) -> (String, Option<String>) {
        if stage.params.access.is_none() {
            return (String::new(), None);
        }
        let began = stage.model.moment_on(self.shard);
        let brings = match stage.rng.below(10) {
            0..=2 => Brings::Header(new_token(None, stage)),
            3..=5 => Brings::Page(new_token(None, stage)),
            6 | 7 if self.role != Role::V1 => Brings::Page(new_token(None, stage)),
            _ => Brings::Nothing,
        };
        self.begin_standing(brings, began, stage);
        let text = |token| &stage.model.token(token).text;
        match brings {
            Brings::Nothing => (String::new(), None),
            Brings::Header(token) => (format!("Authorization: Bearer {}\r\n", text(token)), None),
            Brings::Page(token) => (String::new(), Some(format!("ringyard.token.{}", text(token)))),
        }
    }

    pub(super) fn begin_standing(&mut self, brings: Brings, began: Moment, stage: &mut Stage<'_>) {
        let token = match brings {
            Brings::Nothing => None,
            Brings::Header(token) | Brings::Page(token) => Some(stage.model.token(token)),
        };
        stage.trace.say(|| {
            format!("{} brings {brings:?}: {:?}", self.name(), token.map(|token| (&token.claims, token.forged)))
        });
        self.standing = Some(Box::new(Standing {
            brings,
            began,
            changes: Vec::new(),
            connects: BTreeMap::new(),
            closing: Vec::new(),
            may_close: Vec::new(),
            is_silent: stage.rng.one_in(8),
            is_asked: false,
            wants_token: false,
            quiet: 0,
        }));
    }

    /// What its handshake earns, now that the answer came.
    pub(super) fn earned(&self, stage: &mut Stage<'_>) -> Option<Earned> {
        let standing = self.standing.as_ref()?;
        let required = stage.params.access.as_ref()?.required;
        let mut earned = Earned::default();
        let now = stage.model.moment();
        match standing.brings {
            Brings::Nothing if required && self.role == Role::V1 => earned.holder = Some(Holder::Nobody),
            Brings::Nothing if required => earned.statuses.push(401),
            Brings::Nothing if self.is_granted(Holder::Anonymous, stage) => earned.holder = Some(Holder::Anonymous),
            Brings::Nothing => earned.statuses.push(403),
            Brings::Header(token) | Brings::Page(token) => {
                let Verdicts { good, bad, expired } = stage.model.verdicts(token, standing.began, now);
                let is_granted = self.is_granted(Holder::User(token), stage);
                earned.holder = (good && is_granted).then_some(Holder::User(token));
                if matches!(standing.brings, Brings::Header(_)) {
                    earned.statuses.extend((bad || expired).then_some(401));
                    earned.statuses.extend((good && !is_granted).then_some(403));
                } else {
                    let codes = [(bad, 4400), (expired, 4401), (good && !is_granted, 4403)];
                    earned.closing.extend(codes.iter().filter(|(is_due, _)| *is_due).map(|(_, code)| *code));
                }
            }
        }
        Some(earned)
    }

    /// Whether its path is granted.
    fn is_granted(&self, holder: Holder, stage: &Stage<'_>) -> bool {
        self.role.is_within(&rights(holder, stage), &stage.params.topics)
    }

    /// Its handshake was answered 101. Returns whether it may have got through.
    pub(super) fn enter(&mut self, earned: Earned, stage: &mut Stage<'_>) -> bool {
        let heard = stage.model.moment();
        let standing = self.standing.as_mut().expect("access control is on");
        let Earned { holder, closing, .. } = earned;
        let Some(holder) = holder else {
            standing.closing = closing;
            return false;
        };
        standing.may_close = closing;
        standing.changes.push(Change { command: 0, holder, asked: standing.began, heard });
        true
    }

    /// Nothing of what it published may come.
    pub(super) fn deny_all(&self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.wire.messages().try_for_each(|id| stage.model.denied(id))
    }

    // ---- connect

    /// Says who it is, or who it is by now, perhaps. Returns whether it did.
    pub(super) fn speaks_of_tokens(&mut self, stage: &mut Stage<'_>) -> bool {
        let Some(standing) = &self.standing else { return false };
        if !standing.connects.is_empty() || !standing.closing.is_empty() || (self.phase == Phase::Head && !self.eager) {
            return false;
        }
        let holder = standing.last().map(|change| change.holder);
        let (is_asked, silent, brings) = (standing.wants_token, standing.is_silent, standing.brings);
        let speaks = match holder {
            // Its handshake is not answered yet.
            None => brings == Brings::Nothing && !silent && stage.rng.one_in(3),
            Some(Holder::Nobody) => !silent && stage.rng.one_in(4),
            Some(Holder::Anonymous) => stage.rng.one_in(60),
            Some(Holder::User(_)) => (is_asked && stage.rng.one_in(2)) || stage.rng.one_in(80),
        };
        if !speaks {
            return false;
        }
        let same = match holder {
            Some(Holder::User(token)) if !stage.rng.one_in(16) => Some(stage.model.token(token).claims.user),
            _ => None,
        };
        self.connect_with(new_token(same, stage), stage);
        true
    }

    fn connect_with(&mut self, token: TokenId, stage: &mut Stage<'_>) {
        let id = self.remember(Command::Token(token));
        let asked = stage.model.moment_on(self.shard);
        let standing = self.standing.as_mut().expect("access control is on");
        standing.connects.insert(id, (token, asked));
        standing.wants_token = false;
        let Token { claims, forged, text } = stage.model.token(token).clone();
        stage.trace.say(|| format!("{} connects as {token}, {claims:?}, forged {forged}, {id}", self.name()));
        let mut text = json!({"type": "connect", "id": id, "token": text});
        if stage.rng.one_in(4) {
            text["ping"] = "message".into();
        }
        self.say(&text, None, stage);
    }

    /// Whether what it publishes on a topic now is granted; `None`: that depends on what is under way.
    pub(super) fn may_publish(&self, topic: usize, stage: &Stage<'_>) -> Option<bool> {
        let Some(standing) = &self.standing else { return Some(true) };
        let change = standing.last().filter(|_| standing.connects.is_empty() && standing.may_close.is_empty())?;
        Some(rights(change.holder, stage).publishes(&stage.params.topics[topic]))
    }
}
