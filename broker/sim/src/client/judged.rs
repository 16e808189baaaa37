//! What a client hears where access control is on: refusals, requests for another token, subscriptions that end, and the close
//! codes 4400, 4401, 4403 and 4408; each only where it is earned, and where it is earned, it comes.

use serde_json::Value;

use super::standing::{Change, Holder, JUDGED, nanos, rights};
use super::{Client, Command, Phase, Role, Stage, wire::Pace};
use crate::access::Access;
use crate::model::{MessageId, Moment, TokenId, Violation};

const MILLIS: u64 = 1_000_000;
/// Rounds without a byte after which what is due has come, if nothing holds up shard and network.
const QUIET_MAX: u32 = 60;
/// How late something may be when everything has come to rest.
const LATE: u64 = 500 * MILLIS;

impl Client {
    fn misjudged(&self, what: &str, value: &Value) -> Violation {
        Violation::new(JUDGED, format!("{}: {what}: {value}, {:?}", self.name(), self.standing))
    }

    /// Nothing comes behind a refusal but the close frame.
    pub(super) fn check_open(&self) -> Result<(), Violation> {
        match &self.standing {
            Some(standing) if !standing.closing.is_empty() => {
                Err(Violation::new("who is refused gets nothing but a close frame", self.name()))
            }
            _ => Ok(()),
        }
    }

    // ---- answers

    /// A command was answered. Returns whether there is nothing more to be said about that.
    pub(super) fn hear_judged(
        &mut self,
        id: u64,
        command: &Command,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<bool, Violation> {
        let Some(standing) = &mut self.standing else { return Ok(false) };
        standing.may_close.clear();
        if let Command::Token(token) = command {
            return self.hear_connected(id, *token, value, stage).map(|()| true);
        }
        let holder = standing.holder_at(id);
        self.judged_as = Some(holder);
        let code = value["code"].as_str().unwrap_or_default();
        let is_misread = matches!(command, Command::Bad("bad-command" | "bad-topic" | "forbidden"));
        if holder == Holder::Nobody {
            return match (is_misread, code) {
                (true, _) => Ok(false),
                (false, "unauthorized") => self.undo(command, stage).map(|()| true),
                (false, _) => Err(self.misjudged("carried out for nobody", value)),
            };
        }
        let granted = self.is_command_granted(command, holder, stage);
        if let (Command::Publish(published), "ok") = (command, value["type"].as_str().unwrap_or_default()) {
            self.check_entitled(self.change_at(id), *published, stage)?;
        }
        // A command that breaks a limit, or names a topic twice, may be answered with that.
        let is_other = matches!(command, Command::Subscribe(_)) && matches!(code, "limit" | "already-subscribed");
        match (granted, code) {
            (_, "unauthorized" | "bad-token") => Err(self.misjudged("it has a token", value)),
            (Some(true), "forbidden") => Err(self.misjudged("this is granted", value)),
            (Some(false), "forbidden") => {
                stage.coverage.forbidden += 1;
                self.undo(command, stage).map(|()| true)
            }
            (Some(false), _) if !is_other => Err(self.misjudged("this is not granted", value)),
            _ => Ok(false),
        }
    }

    /// Whether a command is granted; `None`: it needs no grant.
    fn is_command_granted(&self, command: &Command, holder: Holder, stage: &Stage<'_>) -> Option<bool> {
        let (rights, topics) = (rights(holder, stage), &stage.params.topics);
        let publishes = |id: MessageId| rights.publishes(&topics[stage.model.topic_of(id)]);
        Some(match command {
            Command::Subscribe(filters) => filters.iter().all(|filter| {
                let of_old = stage.model.asks_for_last(self.stream.expect("a /ws client"), filter);
                if of_old { rights.reads(filter) } else { rights.subscribes(filter) }
            }),
            Command::Publish(id) | Command::Snapshot(id) => publishes(*id),
            Command::History(page) => rights.reads(&topics[page.topic]),
            // Nobody asks another, is present, or has a lease where access control is simulated.
            Command::Call(_)
            | Command::Visit(_)
            | Command::Hold(_)
            | Command::Will(_)
            | Command::Unsubscribe(_)
            | Command::Ping
            | Command::Connect
            | Command::Token(_)
            | Command::Bad(_) => return None,
        })
    }

    /// A command was not carried out.
    fn undo(&mut self, command: &Command, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let stream = self.stream.expect("a /ws client");
        match command {
            Command::Publish(id) | Command::Snapshot(id) => stage.model.denied(*id)?,
            Command::Subscribe(filters) => {
                self.filters.retain(|filter| !filters.contains(filter));
                stage.model.refused(stream, filters);
            }
            Command::Unsubscribe(filters) => {
                stage.model.unsubscribe_answered(stream);
                let there = filters.iter().filter(|filter| stage.model.asked_for(stream, filter));
                self.filters.extend(there.cloned());
            }
            _ => {}
        }
        Ok(())
    }

    fn hear_connected(
        &mut self,
        id: u64,
        token: TokenId,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let heard = stage.model.moment();
        let standing = self.standing.as_mut().expect("access control is on");
        let (_, asked) = standing.connects.remove(&id).expect("it was remembered with its command");
        let before = standing.holder_at(id);
        let verdicts = stage.model.verdicts(token, asked, heard);
        let user = |token: TokenId| stage.model.token(token).claims.user;
        let is_other = matches!(before, Holder::User(before) if user(before) != user(token));
        match (value["type"].as_str(), value["code"].as_str()) {
            (Some("ok"), _) if verdicts.good && !is_other => {
                stage.coverage.tokens += 1;
                standing.changes.push(Change { command: id, holder: Holder::User(token), asked, heard });
                standing.is_asked = false;
            }
            (Some("error"), Some("bad-token")) if verdicts.bad || verdicts.expired => {
                stage.coverage.bad_tokens += 1;
                if before == Holder::Nobody {
                    standing.closing.extend(verdicts.bad.then_some(4400));
                    standing.closing.extend(verdicts.expired.then_some(4401));
                }
            }
            (Some("error"), Some("forbidden")) if verdicts.good && is_other => standing.closing.push(4403),
            _ => return Err(self.misjudged(&format!("{verdicts:?}, before {before:?}, token {token}"), value)),
        }
        Ok(())
    }

    /// Whether a subscription that was just confirmed may have what was published before.
    pub(super) fn reads(&self, filter: &str, stage: &Stage<'_>) -> bool {
        self.judged_as.is_none_or(|holder| rights(holder, stage).reads(filter))
    }

    // ---- unasked

    /// The broker asks for another token.
    pub(super) fn hear_refresh(&mut self, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = stage.world.now();
        let change = self.standing.as_ref().filter(|standing| !standing.is_asked).and_then(|standing| standing.last());
        let Some(&Change { holder: Holder::User(token), .. }) = change else {
            return Err(self.misjudged("refresh unasked", value));
        };
        let change = change.expect("found above");
        let token = stage.model.token(token);
        let ((due, _), ends) = (change.refresh(token), nanos(token.claims.expires_ms));
        // It says how long it was when it was sent, and may be heard later.
        let (most, least) = (ends.max(change.heard.time).saturating_sub(due), ends.saturating_sub(now));
        let left = value["in"].as_u64().unwrap_or(u64::MAX);
        if now < due || left > most / MILLIS + 1 || left + 1 < least / MILLIS {
            return Err(self.misjudged(&format!("refresh at {now}, due at {due}, ends at {ends}"), value));
        }
        stage.coverage.refreshes += 1;
        let answers = !stage.rng.one_in(5);
        let standing = self.standing.as_mut().expect("found above");
        (standing.is_asked, standing.wants_token) = (true, answers);
        Ok(())
    }

    /// A subscription ends because nothing grants it any more.
    pub(super) fn hear_ended(&mut self, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let (Some(stream), Some(filter)) = (self.stream, value["topic"].as_str()) else {
            return Err(self.misjudged("ended without a topic", value));
        };
        let holder = self.standing.as_ref().and_then(|standing| standing.last()).map(|change| change.holder);
        let is_granted = holder.is_none_or(|holder| rights(holder, stage).subscribes(filter));
        if is_granted || !stage.model.has(stream, filter) || value["code"] != "forbidden" {
            return Err(self.misjudged("ended, which it should not have been", value));
        }
        self.filters.retain(|other| other != filter);
        stage.model.unsubscribed(stream, &[filter.to_owned()]);
        Ok(())
    }

    /// Something came that was published.
    pub(super) fn check_delivered(&self, id: MessageId, stage: &Stage<'_>) -> Result<(), Violation> {
        self.check_entitled(self.standing.as_ref().and_then(|standing| standing.last()), id, stage)
    }

    fn change_at(&self, command: u64) -> Option<&Change> {
        self.standing.as_ref().and_then(|standing| standing.change_at(command))
    }

    /// Something was published for this client, or came to it, as whom it was then.
    fn check_entitled(&self, change: Option<&Change>, id: MessageId, stage: &Stage<'_>) -> Result<(), Violation> {
        let Some(change) = change else { return Ok(()) };
        let Holder::User(token) = change.holder else { return Ok(()) };
        let (_, until) = change.end(stage.model.token(token), access(stage));
        stage.model.check_entitled((token, until), self.shard, id)
    }

    // ---- the end

    /// The broker closed for a reason of access control. Returns whether the code is one of those.
    pub(super) fn hear_access_closed(&mut self, code: u16, stage: &mut Stage<'_>) -> Result<bool, Violation> {
        let Some(standing) = self.standing.as_ref().filter(|_| (4400..4409).contains(&code)) else { return Ok(false) };
        let now = stage.model.moment();
        let is_refused = standing.closing.contains(&code);
        let is_earned = is_refused || standing.may_close.contains(&code) || self.may_be_closed(code, now, stage);
        if !is_earned || (!is_refused && !standing.closing.is_empty()) {
            let evidence = format!("{} was closed with {code} at {now:?}, {standing:?}", self.name());
            return Err(Violation::new("a close names its cause", evidence));
        }
        match code {
            4400 => stage.coverage.close_4400 += 1,
            4401 => stage.coverage.close_4401 += 1,
            4403 => stage.coverage.close_4403 += 1,
            _ => stage.coverage.close_4408 += 1,
        }
        if standing.changes.is_empty() && self.role != Role::V1 {
            self.deny_all(stage)?;
        }
        Ok(true)
    }

    fn may_be_closed(&self, code: u16, now: Moment, stage: &Stage<'_>) -> bool {
        let Some(standing) = &self.standing else { return false };
        let Some(change) = standing.last() else { return false };
        match (code, change.holder) {
            (4401, Holder::User(token)) => now.time >= change.end(stage.model.token(token), access(stage)).0,
            (4403, Holder::User(token)) => {
                stage.model.is_revoked(token, now.tick) || stage.model.may_be_closed(token, self.shard, standing.began)
            }
            (4408, Holder::Nobody) => now.time >= standing.began.time + auth_timeout(stage),
            _ => false,
        }
    }

    /// What should have happened to an open connection by now, and did not.
    pub(crate) fn check_standing(&self, stage: &Stage<'_>) -> Result<(), Violation> {
        let Some(standing) = self.standing.as_ref().filter(|_| self.is_well()) else { return Ok(()) };
        let overdue = if standing.closing.is_empty() { self.overdue(LATE, stage) } else { Some("refused") };
        if let Some(what) = overdue {
            let evidence = format!("{}: {what} at {}, {standing:?}", self.name(), stage.world.now());
            return Err(Violation::new("who may not stay is closed, and who is to bring a token asked", evidence));
        }
        let (Some(stream), Some(change)) = (self.stream, standing.last()) else { return Ok(()) };
        let rights = rights(change.holder, stage);
        match stage.model.confirmed_filters(stream).find(|filter| !rights.subscribes(filter)) {
            Some(filter) => {
                let evidence = format!("{} still has {filter:?}, {standing:?}", self.name());
                Err(Violation::new("a subscription that nothing grants ends", evidence))
            }
            None => Ok(()),
        }
    }

    fn overdue(&self, late: u64, stage: &Stage<'_>) -> Option<&'static str> {
        let standing = self.standing.as_ref().filter(|standing| standing.connects.is_empty())?;
        let (change, now) = (standing.last()?, stage.world.now());
        match change.holder {
            Holder::Nobody => (now > change.heard.time + auth_timeout(stage) + late).then_some("said nothing in time"),
            Holder::Anonymous => None,
            Holder::User(token) => {
                let (asked, end) =
                    (change.refresh(stage.model.token(token)), change.end(stage.model.token(token), access(stage)));
                let unasked = self.role == Role::V1 && !standing.is_asked;
                if now > end.1 + late {
                    Some("its token is over")
                } else if unasked && now > asked.1 + late {
                    Some("not asked for a token")
                } else if stage.model.is_revoked(token, u64::MAX) {
                    Some("its token was revoked")
                } else if stage.model.must_be_closed(token, self.shard, change.heard) {
                    Some("an operator closed its user")
                } else {
                    None
                }
            }
        }
    }

    /// Looks every round whether something is long overdue, where nothing holds up shard and network.
    pub(super) fn watch_standing(&mut self, came: usize, stage: &Stage<'_>) -> Result<(), Violation> {
        let reads = self.wire.reads == Pace::Fast && self.phase == Phase::Open;
        let is_quiet = reads && came == 0 && stage.params.stall == 0 && self.overdue(0, stage).is_some();
        let Some(standing) = &mut self.standing else { return Ok(()) };
        standing.quiet = if is_quiet { standing.quiet + 1 } else { 0 };
        if standing.quiet > QUIET_MAX { self.check_standing(stage) } else { Ok(()) }
    }
}

fn access<'a>(stage: &Stage<'a>) -> &'a Access {
    stage.params.access.as_ref().expect("access control is on")
}

/// How long a connection may stay without a token, in nanoseconds.
fn auth_timeout(stage: &Stage<'_>) -> u64 {
    stage.params.limits.auth_timeout.as_nanos() as u64
}
