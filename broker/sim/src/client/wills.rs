//! Wills: a client says what is to be published when its connection ends, says something else, or nothing any more.

use serde_json::{Value, json};

use super::past::put_data;
use super::{Client, Command, Stage, length};
use crate::model::{MessageId, Options, Violation, WillId};
use crate::payload::{self, Kind};

const MS: u64 = 1_000_000;
/// Each will is the only message of its publisher: nobody knows which of several are published.
const WILLS: usize = 1 << 41;

impl Client {
    /// A will for the client, as the broker gets it, with its message.
    fn draw_will(&mut self, stage: &mut Stage<'_>) -> (Value, MessageId, WillId) {
        let leases = stage.params.leases.as_ref().expect("a run with leases");
        let topic = match self.leased_topic() {
            Some(topic) if !stage.rng.one_in(4) => topic,
            _ if stage.rng.one_in(2) => stage.rng.pick(&leases.topics),
            _ => stage.rng.below(stage.params.topics.len()),
        };
        let delay_ms = stage.rng.pick(&leases.delays_ms);
        let is_keyed = stage.model.rule(topic).is_keyed();
        let key = (is_keyed && stage.rng.one_in(2)).then(|| format!("key {}", stage.rng.below(6)));
        let options = Options { key, retain: !is_keyed && stage.rng.one_in(6), ..Options::default() };
        let kind = stage.rng.pick(&[Kind::Text, Kind::Binary, Kind::Json]);
        let len = length(stage).max(1);
        let publisher = WILLS + stage.model.messages();
        let id = stage.model.publish_with(publisher, topic, kind, len, options.clone());
        let mut text = json!({"topic": stage.params.topics[topic]});
        put_data(&mut text, kind, payload::build(id, kind, len));
        if let Some(key) = options.key {
            text["key"] = key.into();
        }
        if options.retain {
            text["retain"] = true.into();
        }
        if delay_ms > 0 || stage.rng.one_in(4) {
            text["delay"] = delay_ms.into();
        }
        let model = &mut *stage.model;
        let will = model.wills.setting(self.index, Some((id, delay_ms * MS)), &mut model.presence);
        stage.trace.say(|| format!("{} wills ~{id}~ on {topic}, after {delay_ms} ms", self.name()));
        (text, id, will)
    }

    /// The will of a `connect`, sometimes.
    pub(super) fn bring_will(&mut self, text: &mut Value, stage: &mut Stage<'_>) -> Option<(MessageId, WillId)> {
        if stage.params.leases.is_none() || stage.rng.one_in(2) {
            return None;
        }
        let (will, message, id) = self.draw_will(stage);
        text["will"] = will;
        Some((message, id))
    }

    /// Sets a will, or takes it back.
    pub(super) fn change_will(&mut self, stage: &mut Stage<'_>) {
        if stage.rng.one_in(5) {
            let model = &mut *stage.model;
            let will = model.wills.setting(self.index, None, &mut model.presence);
            let id = self.remember(Command::Will(will));
            self.tell(&json!({"type": "will", "id": id, "end": true}), stage);
            return;
        }
        let (text, message, will) = self.draw_will(stage);
        let id = self.remember(Command::Will(will));
        self.say(&json!({"type": "will", "id": id, "will": text}), Some(message), stage);
    }

    /// That was answered.
    pub(super) fn hear_will(&mut self, will: WillId, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let model = &mut *stage.model;
        let fits = match value["code"].as_str().unwrap_or("ok") {
            "ok" => true,
            "limit" => stage.params.is_short(),
            "not-found" => model.presence.is_contested(self.index),
            _ => false,
        };
        if !fits {
            let evidence = format!("{}: {value}", self.name());
            return Err(Violation::new("a will is set", evidence));
        }
        let is_set = value["type"] == "ok";
        stage.coverage.wills_set += u64::from(is_set);
        model.wills.answered(will, !is_set, &mut model.presence);
        Ok(())
    }

    /// A message came that is somebody's will.
    pub(super) fn hear_of_will(&self, id: MessageId, stage: &mut Stage<'_>) {
        let model = &mut *stage.model;
        if let Some(delay) = model.wills.came(id, &mut model.presence) {
            stage.coverage.wills_published += 1;
            stage.coverage.wills_delayed += u64::from(delay > 0);
            stage.coverage.wills_of_holders += u64::from(model.rule(model.topic_of(id)).exclusive);
        }
    }
}
