//! Messages that come to a client.

use serde_json::Value;

use super::talk::payload_of;
use super::{Client, Stage};
use crate::model::{Arrival, Tags, Violation};

impl Client {
    pub(super) fn arrived(&mut self, arrival: &Arrival<'_>, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let Some(stream) = self.stream else {
            return Err(Violation::new("only subscribers of a topic get its messages", self.name()));
        };
        let id = stage.model.received(stream, arrival)?;
        stage.trace.say(|| {
            format!("{} got ~{id:?}~ at {:?} of {:?}, {:?}", self.name(), arrival.offset, arrival.topic, arrival.tags)
        });
        if let Some(id) = id {
            self.check_delivered(id, stage)?;
            self.hear_of_will(id, stage);
        }
        stage.coverage.delivered += 1;
        stage.coverage.delivered_empty += u64::from(id.is_none());
        stage.coverage.delivered_huge += u64::from(arrival.payload.len() > 64 << 10);
        if let Some(topic) = arrival.topic {
            stage.coverage.overlapping += u64::from(stage.model.covering(stream, topic) > 1);
            stage.coverage.epochs += u64::from(arrival.offset == Some(1));
        }
        Ok(())
    }

    pub(super) fn hear_message(
        &mut self,
        value: &Value,
        wrong: &impl Fn(&str) -> Violation,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let topic = value["topic"].as_str().ok_or_else(|| wrong("no topic"))?;
        let up_to = value["up_to"].as_u64();
        let offset = value["offset"].as_u64().or(up_to).ok_or_else(|| wrong("no offset"))?;
        let (kind, payload) = payload_of(value).ok_or_else(|| wrong("no data"))?;
        let tags = Tags {
            key: value["key"].as_str(),
            removed: value["removed"] == true,
            state: value["state"] == true,
            up_to: up_to.is_some(),
        };
        stage.coverage.shown += u64::from(tags.state);
        stage.coverage.shown_removed += u64::from(tags.state && tags.removed);
        stage.coverage.shown_snapshots += u64::from(tags.up_to);
        let arrival = Arrival { topic: Some(topic), offset: Some(offset), kind, payload: &payload, tags: Some(tags) };
        self.arrived(&arrival, stage)
    }
}
