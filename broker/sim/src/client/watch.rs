//! What watchers of presence and of counts get: state, then changes, and what they know by them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Client, Stage};
use crate::model::{Counted, DeedId, Shown, Viewed, Violation};
use crate::presence::{COUNT, PRESENCE};

/// What a client knows by a subscription.
#[derive(Default, Debug)]
pub(super) struct View {
    pub(super) is_confirmed: bool,
    pub(super) is_ending: bool,
    /// All of its state came.
    is_whole: bool,
    /// Offset of the last message.
    last: u64,
    members: BTreeMap<String, Shown>,
    /// How often each was removed.
    removals: BTreeMap<String, usize>,
    /// Subscribers and members, as a count says.
    count: Option<(u64, u64)>,
}

/// What deed said what a member says of itself, if it says anything. `None`: no client says this.
pub(super) fn said_in(value: &Value) -> Option<Option<DeedId>> {
    match value.get("info") {
        None => Some(None),
        Some(info) => info["said"].as_u64().map(|deed| Some(deed as DeedId)),
    }
}

impl Client {
    fn misled(&self, what: &str, value: &Value) -> Violation {
        Violation::new("a watcher learns who is there", format!("{}: {what}: {value}", self.name()))
    }

    /// Something came of a topic that says who is present, or how many.
    pub(super) fn hear_presence(&mut self, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        stage.trace.say(|| format!("{} learns {value}", self.name()));
        let name = value["topic"].as_str().unwrap_or_default().to_owned();
        let Some(mut view) = self.visitor.views.remove(&name).filter(|view| view.is_confirmed) else {
            return Err(self.misled("unasked", value));
        };
        let topic = |prefix| {
            name.strip_prefix(prefix).and_then(|of: &str| stage.params.topics.iter().position(|topic| topic == of))
        };
        let heard = match (value["type"].as_str(), topic(PRESENCE), topic(COUNT)) {
            (Some("state-end"), Some(topic), _) => {
                view.is_whole = true;
                let members_max = stage.params.members_max(topic);
                match view.members.len() > members_max {
                    true => Err(self.misled("more are shown than may be listed", value)),
                    false => Ok(()),
                }
            }
            (Some("message"), Some(topic), _) => self.hear_member(topic, &mut view, value, stage),
            (Some("message"), _, Some(_)) => {
                let data = &value["data"];
                view.count = data["subscribers"].as_u64().zip(data["members"].as_u64());
                stage.coverage.counts += 1;
                if view.count.is_some() { Ok(()) } else { Err(self.misled("no count", value)) }
            }
            _ => Err(self.misled("unasked", value)),
        };
        self.visitor.views.insert(name, view);
        heard
    }

    fn hear_member(
        &mut self,
        topic: usize,
        view: &mut View,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let (Some(member), Some(offset)) = (value["key"].as_str(), value["offset"].as_u64()) else {
            return Err(self.misled("no key, or no offset", value));
        };
        if offset <= view.last || (value["state"] == true && view.is_whole) {
            return Err(self.misled("out of order", value));
        }
        view.last = offset;
        let model = &mut stage.model.presence;
        let before = view.members.get(member).copied();
        let after = before.and_then(|before| before.said);
        let (sessions_max, entries) = model.entries(topic, member);
        if value["removed"] == true {
            stage.coverage.departures += 1;
            let removals = view.removals.entry(member.to_owned()).or_default();
            *removals += 1;
            if *removals > entries {
                return Err(self.misled("it was removed more often than it came", value));
            }
            model.departed(self.index, topic, member, after, value.to_string());
            view.members.remove(member);
            return Ok(());
        }
        let data = &value["data"];
        let (Some(connections), Some(since), Some(said)) =
            (data["connections"].as_u64(), data["since"].as_u64(), said_in(data))
        else {
            return Err(self.misled("not as it is said", value));
        };
        if connections < 1 || connections > sessions_max as u64 {
            return Err(self.misled(&format!("of {sessions_max} connections"), value));
        }
        if let Some(said) = said {
            model.check_said(topic, member, said)?;
            if after.is_some_and(|after| after != said && model.is_older(said, after)) {
                return Err(self.misled(&format!("it had said {after:?} after that"), value));
            }
        }
        if let Some(before) = before
            && (before.since != since || (said.is_none() && before.said.is_some()))
        {
            model.departed(self.index, topic, member, after, value.to_string());
        }
        stage.coverage.arrivals += u64::from(before.is_none());
        stage.coverage.shared_members += u64::from(connections > 1);
        view.members.insert(member.to_owned(), Shown { said, connections, since });
        Ok(())
    }

    /// With how many subscriptions it counts for a topic, as long as its connection is there.
    pub(crate) fn subscribers(&self, topic: &str, stage: &Stage<'_>) -> u64 {
        let stream = self.stream.filter(|_| self.phase != super::Phase::Over);
        stream.map_or(0, |stream| stage.model.covering(stream, topic) as u64)
    }

    /// All is quiet: what it knows is what is true. `subscribers`: how many a topic has, at least and at most.
    pub(crate) fn check_views(
        &self,
        subscribers: &impl Fn(usize) -> (u64, u64),
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        for (name, view) in self.visitor.views.iter().filter(|(_, view)| view.is_confirmed) {
            let position = |of: &str| stage.params.topics.iter().position(|topic| topic == of);
            if let Some(topic) = name.strip_prefix(PRESENCE).and_then(position) {
                if !view.is_whole {
                    return Err(self.misled("its state did not end", &Value::from(name.as_str())));
                }
                let members_max = stage.params.members_max(topic);
                stage.coverage.views += 1;
                let members = &view.members;
                stage.model.presence.check_view(&Viewed { watcher: self.index, topic, members_max, members })?;
            } else if let Some(topic) = name.strip_prefix(COUNT).and_then(position) {
                let between = subscribers(topic);
                match view.count {
                    Some((subscribers, members)) => {
                        stage.coverage.views_of_counts += 1;
                        stage.model.presence.check_count(Counted { topic, subscribers, members, between })?;
                    }
                    None if stage.params.is_short() => {}
                    None => return Err(self.misled("no count came", &Value::from(name.as_str()))),
                }
            }
        }
        Ok(())
    }
}
