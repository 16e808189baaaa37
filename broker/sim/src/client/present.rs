//! What a client does about sessions and presence: it asks for a session, or for one that there was, enters, updates and leaves,
//! asks who is there, watches, and ends its session on purpose. A client says `connect` first, and nothing else of this before
//! that was answered.

use std::collections::BTreeMap;

use protocol::v1::CommandType;
use serde_json::{Value, json};

use super::members::Question;
use super::watch::View;
use super::{Client, Command, Parting, Stage};
use crate::access::{Token, USERS, time_of_day};
use crate::model::{Act, At, DeedId, SessionId, Violation, WillId};
use crate::presence::{COUNT, PRESENCE};

/// A command about presence that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) enum Visit {
    Connect(Opening),
    /// And whether it is an `update`.
    Enter(DeedId, usize, bool),
    Leave(DeedId),
    Members(Question),
    Watch(String),
    Unwatch(String),
    Disconnect,
    /// About a topic where nobody can be present, with how the command is called.
    Elsewhere,
}

/// A `connect`.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    asked: At,
    user: Option<usize>,
    resumes: Option<SessionId>,
    /// It has to be given a session.
    wants_session: bool,
    will: Option<WillId>,
}

/// Where a client is with this.
#[derive(Default, Debug)]
pub(super) struct Visitor {
    /// It has said `connect`.
    asks: bool,
    /// And was answered: it has a name.
    is_known: bool,
    /// It has a session that it may not ask for again.
    is_attached: bool,
    /// The user of the token that it brought, which is in force even if the rest of its `connect` is refused.
    user: Option<usize>,
    pub(super) views: BTreeMap<String, View>,
}

impl Visitor {
    pub(super) fn knows_its_name(&self) -> bool {
        self.is_known
    }
}

impl Visit {
    pub(super) fn command_type(&self) -> CommandType {
        match self {
            Self::Connect(_) => CommandType::Connect,
            Self::Enter(_, _, false) => CommandType::Enter,
            Self::Enter(_, _, true) => CommandType::Update,
            Self::Leave(_) => CommandType::Leave,
            Self::Members(_) | Self::Elsewhere => CommandType::Members,
            Self::Watch(_) => CommandType::Subscribe,
            Self::Unwatch(_) => CommandType::Unsubscribe,
            Self::Disconnect => CommandType::Disconnect,
        }
    }
}

impl Client {
    // ---- out

    /// Does something about presence.
    pub(super) fn visit(&mut self, stage: &mut Stage<'_>) {
        if !self.visitor.is_known {
            if !self.visitor.asks {
                self.ask_for_session(stage);
            }
            return;
        }
        let presence = stage.params.presence.as_ref().expect("a run with presence");
        let (topic, _) = stage.rng.pick(&presence.topics);
        let name = stage.params.topics[topic].clone();
        match stage.rng.below(20) {
            0..=4 => self.enter_topic(topic, false, stage),
            5..=7 => self.enter_topic(topic, true, stage),
            8 | 9 => {
                let deed = stage.model.presence.doing(self.index, topic, Act::Leave);
                let id = self.remember(Command::Visit(Visit::Leave(deed)));
                self.tell(&json!({"type": "leave", "id": id, "topic": name}), stage);
            }
            10 | 11 => self.ask_members(topic, stage),
            12 => {
                let say = stage.rng.pick(&["enter", "members"]);
                if let Some(index) = (0..stage.params.topics.len()).find(|index| presence.members_max(*index).is_none())
                {
                    let id = self.remember(Command::Visit(Visit::Elsewhere));
                    self.tell(&json!({"type": say, "id": id, "topic": stage.params.topics[index]}), stage);
                }
            }
            13 => {
                let id = self.remember(Command::Bad("too-big"));
                let info = "x".repeat(1023);
                self.tell(&json!({"type": "enter", "id": id, "topic": name, "info": info}), stage);
            }
            14 if self.visitor.is_attached => {
                let id = self.remember(Command::Bad("bad-command"));
                self.tell(&json!({"type": "connect", "id": id, "session": true}), stage);
            }
            15 if stage.rng.one_in(6) => self.disconnect(stage),
            _ => self.watch(&name, stage),
        }
    }

    pub(super) fn tell(&mut self, text: &Value, stage: &mut Stage<'_>) {
        stage.trace.say(|| format!("{} says {text}", self.name()));
        self.say(text, None, stage);
    }

    fn ask_for_session(&mut self, stage: &mut Stage<'_>) {
        let presence = &stage.model.presence;
        let sessions: Vec<_> = presence.secrets().map(|(id, secret)| (id, secret.to_owned())).collect();
        let wanted = match stage.rng.below(8) {
            0 => None,
            1..=3 => Some((None, json!(true))),
            4 => {
                let unknown = stage.rng.pick(&["", "nobody's", "AAAAAAAAAAAAAAAAAAAAAAAA", "_____________________w-A"]);
                Some((None, json!(unknown)))
            }
            _ if sessions.is_empty() => Some((None, json!(true))),
            5 => {
                let (id, secret) = stage.rng.pick(&sessions);
                Some((Some(id), json!(secret)))
            }
            _ => {
                let recent = &sessions[sessions.len().saturating_sub(4)..];
                let (id, secret) = stage.rng.pick(recent);
                Some((Some(id), json!(secret)))
            }
        };
        self.connect_as(wanted, stage);
    }

    /// Asks for a session that is over.
    pub(crate) fn return_late(&mut self, session: SessionId, stage: &mut Stage<'_>) -> bool {
        if !self.is_well() || self.role != super::Role::V1 || self.visitor.asks {
            return false;
        }
        let secret = stage.model.presence.secret(session).expect("one that was resumed").to_owned();
        self.connect_as(Some((Some(session), json!(secret))), stage);
        true
    }

    fn connect_as(&mut self, wanted: Option<(Option<SessionId>, Value)>, stage: &mut Stage<'_>) {
        self.visitor.asks = true;
        let (resumes, session) = wanted.map_or((None, None), |(resumes, session)| (resumes, Some(session)));
        let has_users = stage.params.presence.as_ref().is_some_and(|presence| presence.has_users);
        let users = [None, Some(0), Some(1), Some(2), Some(0)];
        let mut user = if has_users { stage.rng.pick(&users) } else { None };
        if let Some(session) = resumes.filter(|_| !stage.rng.one_in(5)) {
            user = stage.model.presence.user_of(session);
        }
        let brings_token = user.is_some();
        let user = self.visitor.user.or(user);
        self.visitor.user = user;
        let asked = stage.model.presence.connecting(self.index, self.shard, resumes);
        let wants_session = session.is_some();
        self.visitor.is_attached = wants_session;
        let mut text = json!({"type": "connect"});
        let (message, will) = self.bring_will(&mut text, stage).unzip();
        let opening = Opening { asked, user, resumes, wants_session, will };
        text["id"] = self.remember(Command::Visit(Visit::Connect(opening))).into();
        if let Some(session) = session {
            text["session"] = session;
        }
        if let Some(user) = user.filter(|_| brings_token) {
            text["token"] = Token::lasting(user, time_of_day(stage.world.now())).text.into();
        }
        if stage.rng.one_in(4) {
            text["ping"] = "message".into();
        }
        stage.trace.say(|| format!("{} says {text}", self.name()));
        self.say(&text, message, stage);
    }

    fn enter_topic(&mut self, topic: usize, is_update: bool, stage: &mut Stage<'_>) {
        let says = is_update || !stage.rng.one_in(4);
        let act = if is_update { Act::Update } else { Act::Enter(says) };
        let deed = stage.model.presence.doing(self.index, topic, act);
        let id = self.remember(Command::Visit(Visit::Enter(deed, topic, is_update)));
        let say = if is_update { "update" } else { "enter" };
        let mut text = json!({"type": say, "id": id, "topic": stage.params.topics[topic]});
        if says {
            text["info"] = json!({"said": deed, "more": "x".repeat(stage.rng.pick(&[0, 3, 900]))});
        }
        self.tell(&text, stage);
    }

    /// Begins or ends to watch a topic.
    fn watch(&mut self, name: &str, stage: &mut Stage<'_>) {
        let topic = format!("{}{name}", stage.rng.pick(&[PRESENCE, PRESENCE, COUNT]));
        match self.visitor.views.get(&topic) {
            Some(view) if !view.is_confirmed || view.is_ending => {}
            Some(_) if stage.rng.one_in(12) => {
                let id = self.remember(Command::Visit(Visit::Unwatch(topic.clone())));
                self.tell(&json!({"type": "unsubscribe", "id": id, "topic": topic}), stage);
                self.visitor.views.get_mut(&topic).expect("found above").is_ending = true;
            }
            Some(_) => {}
            None => {
                let id = self.remember(Command::Visit(Visit::Watch(topic.clone())));
                self.tell(&json!({"type": "subscribe", "id": id, "topic": topic}), stage);
                self.visitor.views.insert(topic, View::default());
            }
        }
    }

    fn disconnect(&mut self, stage: &mut Stage<'_>) {
        stage.model.presence.disconnecting(self.index);
        stage.model.wills.disconnecting(self.index);
        let id = self.remember(Command::Visit(Visit::Disconnect));
        self.tell(&json!({"type": "disconnect", "id": id}), stage);
        self.parting = Parting::Close(1000);
        self.end_stream(stage);
    }

    /// An unsubscribe of these is about to be written: whoever is present there is so no longer.
    pub(super) fn leave_by_unsubscribing(&self, filters: &[String], stage: &mut Stage<'_>) {
        let Some(presence) = &stage.params.presence else { return };
        if stage.model.presence.session_of(self.index).is_none() {
            return;
        }
        for &(topic, _) in presence.topics.iter().filter(|(topic, _)| filters.contains(&stage.params.topics[*topic])) {
            stage.model.presence.doing(self.index, topic, Act::Unsubscribe);
        }
    }

    /// It was answered.
    pub(super) fn left_by_unsubscribing(&self, filters: &[String], stage: &mut Stage<'_>) {
        let Some(presence) = &stage.params.presence else { return };
        for &(topic, _) in presence.topics.iter().filter(|(topic, _)| filters.contains(&stage.params.topics[*topic])) {
            stage.model.presence.unsubscribed(self.index, topic);
        }
    }

    // ---- in

    /// A command about presence was answered.
    pub(super) fn hear_visit(&mut self, visit: &Visit, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let code = value["code"].as_str().unwrap_or("ok");
        if let Visit::Connect(Opening { will: Some(will), .. }) = visit {
            self.hear_will(*will, value, stage)?;
        }
        let name = self.name();
        let wrong =
            || Violation::new("what is asked about presence gets its answer", format!("{name}: {value} to {visit:?}"));
        match (visit, code) {
            (Visit::Connect(opening), "ok") => return self.hear_opened(opening, value, stage),
            (Visit::Connect(opening), "limit") if stage.params.is_short() => {
                let Visitor { views, user, .. } = std::mem::take(&mut self.visitor);
                self.visitor = Visitor { views, user, ..Visitor::default() };
                if let Some(session) = opening.resumes {
                    stage.model.presence.withdrawn(self.index, session);
                }
            }
            (Visit::Enter(deed, ..) | Visit::Leave(deed), "ok") => {
                stage.coverage.entered += u64::from(matches!(visit, Visit::Enter(..)));
                stage.model.presence.done(*deed)?;
            }
            (Visit::Enter(deed, topic, _), "limit") => {
                let members_max = stage.params.members_max(*topic);
                let is_full = stage.model.presence.may_be_full(*topic, members_max);
                if !is_full && !stage.params.is_short() {
                    return Err(wrong());
                }
                stage.coverage.presence_full += u64::from(is_full);
                stage.model.presence.failed(*deed, false);
            }
            (Visit::Enter(deed, _, true) | Visit::Leave(deed), "not-found") => {
                stage.coverage.presence_not_found += 1;
                stage.model.presence.failed(*deed, true);
            }
            (Visit::Enter(deed, _, false), "not-found") if stage.model.presence.is_contested(self.index) => {
                stage.model.presence.failed(*deed, false);
            }
            (Visit::Members(question), "ok") => return self.hear_members(question, value, stage),
            (Visit::Elsewhere, "unsupported") => stage.coverage.presence_unsupported += 1,
            (Visit::Elsewhere, "limit") if stage.params.is_short() => {}
            (Visit::Members(_), "limit") if stage.params.is_short() => {}
            (Visit::Watch(topic), "ok") => {
                let view = self.visitor.views.get_mut(topic).ok_or_else(wrong)?;
                if value["topics"][0]["topic"] != **topic {
                    return Err(wrong());
                }
                view.is_confirmed = true;
            }
            (Visit::Watch(topic), "limit") => drop(self.visitor.views.remove(topic)),
            (Visit::Unwatch(topic), "ok") => drop(self.visitor.views.remove(topic)),
            (Visit::Unwatch(topic), "busy") => {
                self.visitor.views.get_mut(topic).ok_or_else(wrong)?.is_ending = false;
            }
            (Visit::Disconnect, "ok") => {
                stage.coverage.disconnected += 1;
                stage.model.presence.disconnected(self.index);
                stage.model.wills.disconnected(self.index);
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn hear_opened(&mut self, opening: &Opening, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let Opening { asked, user, resumes, wants_session, .. } = *opening;
        let bad = |what: &str| {
            Violation::new(
                "connect is answered with a name and a session",
                format!("client {}: {what}: {value}", self.index),
            )
        };
        self.visitor.is_known = true;
        let member = value["member"].as_str().ok_or_else(|| bad("no name"))?;
        if user.is_some_and(|user| USERS[user] != member) || (user.is_none() && USERS.contains(&member)) {
            return Err(bad("another's name"));
        }
        let (secret, resumed) = (value["session"].as_str(), value["resumed"] == true);
        let sessions = &mut stage.model.presence;
        if resumed {
            let session = resumes.ok_or_else(|| bad("it had none"))?;
            if secret != sessions.secret(session) {
                return Err(bad("another session"));
            }
            stage.coverage.sessions_resumed += 1;
            stage.coverage.sessions_moved += u64::from(sessions.moves(session, self.shard));
            return sessions.resumed(self.index, session, asked, (member, user));
        }
        let is_scarce = stage.params.presence.as_ref().is_some_and(|presence| presence.sessions_max.is_some());
        if secret.is_some() != wants_session && !(secret.is_none() && is_scarce) {
            return Err(bad("a session, or none"));
        }
        if let Some(session) = resumes {
            stage.coverage.sessions_lost += 1;
            sessions.not_resumed(self.index, session, asked, user);
        }
        stage.coverage.sessions_scarce += u64::from(wants_session && secret.is_none());
        stage.coverage.sessions_opened += u64::from(secret.is_some());
        sessions.opened(self.index, asked, member, user, secret).map(drop)
    }
}
