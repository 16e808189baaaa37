//! Leases: a client takes them, waits for them, renews them, gives them back or lets them run out, and tries what it may not.

use std::collections::BTreeMap;

use protocol::v1::CommandType;
use serde_json::{Value, json};

use super::panel::View;
use super::{Client, Command, Stage};
use crate::leases::{TTL_MS, WAIT_MS_MAX};
use crate::model::{Ask, Got, LeaseId, MessageId, Violation};

const MS: u64 = 1_000_000;

/// A command about leases that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) enum Hold {
    /// About the lease of a topic, and for how many milliseconds it lasts if it is granted.
    Lease(LeaseId, usize, Ask),
    Watch(String),
    Unwatch(String),
}

/// Where a client is with leases.
#[derive(Default, Debug)]
pub(super) struct Leasing {
    /// The numbers of the leases that it has, as far as it knows, by topic.
    held: BTreeMap<usize, u64>,
    pub(super) views: BTreeMap<String, View>,
}

impl Hold {
    pub(super) fn command_type(&self) -> CommandType {
        match self {
            Self::Lease(..) => CommandType::Lease,
            Self::Watch(_) => CommandType::Subscribe,
            Self::Unwatch(_) => CommandType::Unsubscribe,
        }
    }
}

impl Client {
    // ---- out

    /// Does something about leases or its will.
    pub(super) fn hold(&mut self, stage: &mut Stage<'_>) {
        let leases = stage.params.leases.as_ref().expect("a run with leases");
        let own: Vec<usize> = self.leasing.held.keys().copied().collect();
        let any = own.is_empty() || stage.rng.one_in(3);
        let topic = stage.rng.pick(if any { &leases.topics } else { &own });
        let held = self.leasing.held.get(&topic).copied();
        match (stage.rng.below(20), held) {
            (0..=5, None) | (0, Some(_)) => self.take_lease(topic, stage),
            (1 | 2, Some(number)) => self.renew_lease(topic, number, stage),
            (3, Some(number)) => self.release_lease(topic, number, stage),
            // By a number that is another's, or nobody's any more.
            (6 | 7, None) if stage.rng.one_in(3) => {
                let number = self.some_number(topic, stage);
                match stage.rng.one_in(2) {
                    true => self.renew_lease(topic, number, stage),
                    false => self.release_lease(topic, number, stage),
                }
            }
            (4..=10, Some(_)) | (8, None) => self.publish_conditionally(topic, stage),
            (11..=13, _) => self.change_will(stage),
            (14, _) => self.ask_badly(topic, stage),
            _ => self.watch_lease(topic, stage),
        }
    }

    fn take_lease(&mut self, topic: usize, stage: &mut Stage<'_>) {
        let ttl_ms = self.ttl(stage);
        let wait_ms = stage.rng.pick(&[0, 0, 0, 100, 700, WAIT_MS_MAX, WAIT_MS_MAX]);
        let ask = Ask::Take { ttl: ttl_ms * MS, wait: wait_ms * MS };
        let mut text = json!({});
        if wait_ms > 0 || stage.rng.one_in(4) {
            text["wait"] = wait_ms.into();
        }
        self.say_lease(topic, ask, text, Some(ttl_ms), stage);
        // Once this is answered, it is certain that the client waits.
        if wait_ms > 0 && stage.rng.one_in(2) {
            self.say_lease(topic, Ask::Take { ttl: ttl_ms * MS, wait: 0 }, json!({"wait": 0}), Some(ttl_ms), stage);
        }
    }

    fn renew_lease(&mut self, topic: usize, number: u64, stage: &mut Stage<'_>) {
        let ttl_ms = self.ttl(stage);
        self.say_lease(topic, Ask::Renew { number, ttl: ttl_ms * MS }, json!({"lease": number}), Some(ttl_ms), stage);
    }

    fn release_lease(&mut self, topic: usize, number: u64, stage: &mut Stage<'_>) {
        self.say_lease(topic, Ask::Release { number }, json!({"lease": number, "end": true}), None, stage);
    }

    fn ttl(&self, stage: &mut Stage<'_>) -> u64 {
        let leases = stage.params.leases.as_ref().expect("a run with leases");
        stage.rng.pick(&leases.ttls_ms)
    }

    fn say_lease(&mut self, topic: usize, ask: Ask, mut text: Value, ttl_ms: Option<u64>, stage: &mut Stage<'_>) {
        let model = &mut *stage.model;
        let lease = model.leases.asking(self.index, topic, ask, &mut model.presence);
        text["type"] = "lease".into();
        text["topic"] = stage.params.topics[topic].as_str().into();
        // A renewal without `ttl` is for as long as before.
        if let Some(ttl_ms) = ttl_ms
            && (ttl_ms != TTL_MS || text.get("lease").is_some() || stage.rng.one_in(2))
        {
            text["ttl"] = ttl_ms.into();
        }
        text["id"] = self.remember(Command::Hold(Hold::Lease(lease, topic, ask))).into();
        self.tell(&text, stage);
    }

    /// A number that there is, or was, perhaps.
    fn some_number(&self, topic: usize, stage: &mut Stage<'_>) -> u64 {
        let known: Vec<u64> = stage.model.leases.numbers(topic).rev().take(3).collect();
        if known.is_empty() || stage.rng.one_in(6) { 1 + stage.rng.below(9) as u64 } else { stage.rng.pick(&known) }
    }

    /// Under which number it publishes on a topic.
    pub(super) fn lease_to_bring(&self, topic: usize, stage: &mut Stage<'_>) -> Option<u64> {
        stage.params.leases.as_ref().filter(|leases| leases.topics.contains(&topic))?;
        match self.leasing.held.get(&topic) {
            Some(number) if !stage.rng.one_in(12) => Some(*number),
            _ if stage.rng.one_in(2) => Some(self.some_number(topic, stage)),
            _ => None,
        }
    }

    /// A topic whose lease it has, as far as it knows.
    pub(super) fn leased_topic(&self) -> Option<usize> {
        self.leasing.held.keys().next().copied()
    }

    /// Something is about to be published.
    pub(super) fn note_leased(&self, id: MessageId, topic: usize, number: Option<u64>, stage: &mut Stage<'_>) {
        if stage.params.leases.as_ref().is_some_and(|leases| leases.topics.contains(&topic)) {
            let model = &mut *stage.model;
            let is_exclusive = model.rule(topic).exclusive;
            model.leases.publishing(id, (topic, is_exclusive), number, &mut model.presence);
        }
    }

    /// It was, or refused for want of the lease.
    pub(super) fn note_answered(&self, id: MessageId, refused: bool, stage: &mut Stage<'_>) {
        let model = &mut *stage.model;
        if stage.params.leases.is_some() {
            let is_exclusive = model.rule(model.topic_of(id)).exclusive;
            stage.coverage.leases_published += u64::from(is_exclusive && !refused);
            model.leases.publish_answered(id, self.index, refused, &mut model.presence);
        }
    }

    fn ask_badly(&mut self, topic: usize, stage: &mut Stage<'_>) {
        let id = self.remember(Command::Bad("bad-command"));
        let mut text = json!({"type": "lease", "id": id, "topic": stage.params.topics[topic]});
        match stage.rng.below(5) {
            0 => text["ttl"] = 999.into(),
            1 => text["wait"] = 60_001.into(),
            2 => text["end"] = true.into(),
            3 => text["lease"] = json!(-1),
            _ => text = json!({"type": "will", "id": id, "will": {"topic": "t", "data": 1, "delay": 60_001}}),
        }
        self.tell(&text, stage);
    }

    // ---- in

    /// A command about leases was answered.
    pub(super) fn hear_hold(&mut self, hold: &Hold, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let code = value["code"].as_str().unwrap_or("ok");
        match (hold, code) {
            (Hold::Lease(lease, topic, ask), _) => return self.hear_lease((*lease, *topic, *ask), code, value, stage),
            (Hold::Watch(topic), "ok") if value["topics"][0]["topic"] == **topic => {
                self.leasing.views.get_mut(topic).expect("asked for").is_confirmed = true;
            }
            (Hold::Watch(topic), "limit") | (Hold::Unwatch(topic), "ok") => drop(self.leasing.views.remove(topic)),
            (Hold::Unwatch(topic), "busy") => self.leasing.views.get_mut(topic).expect("it is there").is_ending = false,
            _ => {
                let evidence = format!("{}: {value} to {hold:?}", self.name());
                return Err(Violation::new("what is asked about leases gets its answer", evidence));
            }
        }
        Ok(())
    }

    fn hear_lease(
        &mut self,
        (lease, topic, ask): (LeaseId, usize, Ask),
        code: &str,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let name = self.name();
        let wrong =
            || Violation::new("what is asked about leases gets its answer", format!("{name}: {value} to {ask:?}"));
        let (model, coverage) = (&mut *stage.model, &mut *stage.coverage);
        let got = match (code, ask) {
            ("ok", Ask::Release { .. }) if value.get("lease").is_none() => Got::Released,
            ("ok", Ask::Take { ttl, .. } | Ask::Renew { ttl, .. }) if value["ttl"] == ttl / MS => {
                Got::Granted(value["lease"].as_u64().ok_or_else(wrong)?)
            }
            ("held", Ask::Take { .. }) => {
                value["ttl"].as_u64().ok_or_else(wrong)?;
                Got::Held(value["by"].as_str().ok_or_else(wrong)?.to_owned())
            }
            ("not-found", _) => Got::NotFound,
            ("limit", Ask::Take { .. }) if stage.params.is_short() => Got::Refused,
            ("limit", _) if stage.params.limits.subscriptions_max <= 4 => Got::Refused,
            _ => return Err(wrong()),
        };
        match &got {
            Got::Granted(number) => {
                let before = self.leasing.held.insert(topic, *number);
                coverage.leases_granted += u64::from(before != Some(*number));
                coverage.leases_renewed += u64::from(matches!(ask, Ask::Renew { .. }));
                coverage.leases_resumed += u64::from(before.is_none() && model.leases.is_known(topic, *number));
            }
            Got::Released => coverage.leases_released += 1,
            Got::Held(_) => coverage.leases_held += 1,
            Got::NotFound => coverage.leases_not_found += 1,
            Got::Refused => {}
        }
        if let (Got::Released | Got::NotFound, Ask::Release { number } | Ask::Renew { number, .. }) = (&got, ask)
            && self.leasing.held.get(&topic) == Some(&number)
        {
            self.leasing.held.remove(&topic);
        }
        model.leases.answered(lease, got, &mut model.presence)
    }

    /// It has a lease no more.
    pub(super) fn hear_lost(&mut self, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        stage.trace.say(|| format!("{} heard {value}", self.name()));
        let topic = stage.params.topics.iter().position(|topic| value["topic"] == **topic);
        let (Some(topic), Some(number), Some(reason)) = (topic, value["lease"].as_u64(), value["reason"].as_str())
        else {
            return Err(Violation::new("what the broker says is ringyard.v1", format!("{}: {value}", self.name())));
        };
        if self.leasing.held.get(&topic) == Some(&number) {
            self.leasing.held.remove(&topic);
        }
        match reason {
            "expired" => stage.coverage.leases_expired += 1,
            _ => stage.coverage.leases_taken += 1,
        }
        let model = &mut *stage.model;
        model.leases.lost(self.index, (topic, number), reason, &mut model.presence)
    }

    /// All is quiet: it still has the leases that it knows of.
    pub(crate) fn check_held(&self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = stage.model.presence.mark();
        let model = &*stage.model;
        self.leasing.held.iter().try_for_each(|(&topic, &number)| {
            model.leases.check_holder(self.index, (topic, number), now, &model.presence)
        })
    }
}
