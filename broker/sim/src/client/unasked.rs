//! What a client of `ringyard.v1` hears that answers no command: the end of state, gaps, purges, pings, what access control
//! says, and that the broker shuts down.

use protocol::v1::{CommandType, MessageType};
use serde_json::{Value, json};

use super::talk::position;
use super::{Client, Stage};
use crate::model::Violation;

/// The latest time at which a client is asked to come back, in milliseconds.
const RETRY_MS_MAX: u64 = 5000;

impl Client {
    /// Something came. Returns whether it was one of these.
    pub(super) fn hear_unasked(
        &mut self,
        message: MessageType,
        value: &Value,
        wrong: &impl Fn(&str) -> Violation,
        stage: &mut Stage<'_>,
    ) -> Result<bool, Violation> {
        match message {
            MessageType::Refresh => return self.hear_refresh(value, stage).map(|()| true),
            MessageType::Goaway => {
                let is_due = value["retry"].as_u64().is_some_and(|retry_ms| retry_ms <= RETRY_MS_MAX);
                if !is_due || std::mem::replace(&mut self.told_to_go, true) {
                    return Err(wrong("unasked"));
                }
                return Ok(true);
            }
            MessageType::LeaseLost => return self.hear_lost(value, stage).map(|()| true),
            MessageType::Ended => return self.hear_ended(value, stage).map(|()| true),
            MessageType::Ping => {
                if self.answers_pings {
                    stage.coverage.commands[CommandType::Pong as usize] += 1;
                    self.say(&json!({"type": "pong"}), None, stage);
                }
                return Ok(true);
            }
            _ => {}
        }
        let (Some(stream), Some(topic), None) = (self.stream, value["topic"].as_str(), value.get("id")) else {
            return Ok(false);
        };
        stage.trace.say(|| format!("{} heard {value}", self.name()));
        match (message, value["from"].as_u64(), value["to"].as_u64()) {
            (MessageType::StateEnd, None, None) => {
                stage.coverage.state_ends += 1;
                stage.model.state_ended(stream, topic, value["offset"].as_u64())?;
            }
            (MessageType::Gap, Some(from), Some(to)) => {
                let reason = value["reason"].as_str().unwrap_or_default();
                stage.coverage.skips_told += u64::from(reason == "slow-consumer");
                stage.model.gap(stream, topic, (from, to), reason)?;
            }
            (MessageType::Reset, None, None) => {
                let place = position(value).filter(|_| value["reason"] == "purged");
                stage.model.reset(stream, topic, place.ok_or_else(|| wrong("no place"))?)?;
            }
            _ => return Err(wrong("unasked")),
        }
        Ok(true)
    }
}
