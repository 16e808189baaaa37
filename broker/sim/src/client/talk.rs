//! Publishes, commands, and what comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::frame::Opcode;
use protocol::v1::{CommandType, MessageType};
use serde_json::{Value, json};

use super::wire::Frame;
use super::{Client, Command, Parting, Phase, Role, Stage};
use crate::model::{Arrival, Confirmed, MessageId, Position, Violation};
use crate::params;
use crate::payload::{self, Kind};

/// The front of a snapshot, up to its id.
const SNAPSHOT: &str =
    r#"{"type":"snapshot","topic":"a","up_to":{"epoch":"0123456789abcdef","offset":1},"data":1,"id":"#;

/// A client with this much to write says nothing new.
const WAITING_MAX: usize = 8 << 10;

impl Client {
    // ---- out

    /// Says something new, now and then.
    pub(super) fn speak(&mut self, stage: &mut Stage<'_>) {
        let may = self.phase == Phase::Open || (self.phase == Phase::Head && self.eager);
        if !may || self.parting != Parting::None || self.wire.waiting() > WAITING_MAX {
            return;
        }
        if self.wants_upgrade() && stage.rng.one_in(200) {
            let payload = [b'p'; 125];
            let len = stage.rng.below(126);
            self.wire.put_frame(Opcode::Ping, &payload[..len], stage.rng);
        }
        match self.role {
            Role::Publisher(topic) | Role::Bus(topic) if stage.rng.percent(stage.params.publish_percent) => {
                for _ in 0..stage.rng.range(1, stage.params.burst_max) {
                    let kind = stage.rng.pick(&[Kind::Text, Kind::Binary]);
                    let (id, payload) = self.publish(topic, kind, stage);
                    self.wire.put_message(kind == Kind::Text, &payload, Some(id), stage.rng);
                }
            }
            Role::V1 if stage.rng.percent(20) => {
                for _ in 0..stage.rng.range(1, stage.params.burst_max.min(6)) {
                    self.command(stage);
                }
            }
            Role::Poster if stage.rng.percent(stage.params.publish_percent) => {
                for _ in 0..stage.rng.range(1, stage.params.burst_max.min(6)) {
                    if self.parting == Parting::None {
                        self.post(stage);
                    }
                }
            }
            Role::Slowloris if stage.rng.percent(20) => self.wire.put(b"x"),
            _ => {}
        }
    }

    fn publish(&mut self, topic: usize, kind: Kind, stage: &mut Stage<'_>) -> (MessageId, Vec<u8>) {
        let len = length(stage);
        let id = stage.model.publish(self.index, topic, kind, len);
        stage.coverage.published += 1;
        (id, payload::build(id, kind, stage.model.length(id)))
    }

    fn command(&mut self, stage: &mut Stage<'_>) {
        let topics = &stage.params.topics;
        match stage.rng.below(20) {
            0..=4 => {
                let count = if stage.rng.one_in(3) { stage.rng.range(2, 4) } else { 1 };
                let mut filters: Vec<_> = (0..count).map(|_| params::filter(topics, stage.rng)).collect();
                filters.sort();
                filters.dedup();
                filters.retain(|filter| !self.filters.contains(filter) && !self.is_ending(filter));
                if filters.is_empty() {
                    return;
                }
                self.filters.extend_from_slice(&filters);
                let stream = self.stream.expect("a /ws client");
                stage.model.subscribing(stream, &filters);
                self.send_topics("subscribe", Command::Subscribe(filters), stage);
            }
            5..=7 if !self.filters.is_empty() => {
                let mut filters = vec![stage.rng.pick(&self.filters)];
                if stage.rng.one_in(4) {
                    let more = stage.rng.pick(&self.filters);
                    if !filters.contains(&more) {
                        filters.push(more);
                    }
                }
                self.filters.retain(|filter| !filters.contains(filter));
                self.send_topics("unsubscribe", Command::Unsubscribe(filters), stage);
            }
            8..=15 => self.publish_command(stage),
            16 => {
                let id = self.remember(Command::Ping);
                self.say(&json!({"type": "ping", "id": id}), None, stage);
            }
            17 => {
                let id = self.remember(Command::Connect);
                self.say(&json!({"type": "connect", "id": id}), None, stage);
            }
            18 => {
                let id = self.remember(Command::Bad("not-subscribed"));
                self.say(&json!({"type": "unsubscribe", "id": id, "topic": "never/asked/for"}), None, stage);
            }
            _ if stage.rng.one_in(3) => {
                let (kind, command) = stage.rng.pick(&[
                    (CommandType::History, r#"{"type":"history","topic":"a","limit":2,"id":"#),
                    (CommandType::Snapshot, SNAPSHOT),
                    (CommandType::Subscribe, r#"{"type":"subscribe","topic":"never/asked/for","last":1,"id":"#),
                    (CommandType::Publish, r#"{"type":"publish","topic":"a","data":1,"retain":true,"id":"#),
                ]);
                let id = self.remember(Command::Unsupported(kind));
                self.wire.put_message(true, format!("{command}{id}}}").as_bytes(), None, stage.rng);
            }
            _ => {
                let (code, command) = stage.rng.pick(&[
                    ("forbidden", r#"{"type":"publish","topic":"$sys/x","data":1,"id":"#),
                    ("bad-topic", r#"{"type":"subscribe","topic":"a/#/b","id":"#),
                    ("bad-command", r#"{"type":"subscribe","id":"#),
                ]);
                let id = self.remember(Command::Bad(code));
                self.wire.put_message(true, format!("{command}{id}}}").as_bytes(), None, stage.rng);
            }
        }
    }

    fn send_topics(&mut self, kind: &str, command: Command, stage: &mut Stage<'_>) {
        let (Command::Subscribe(filters) | Command::Unsubscribe(filters)) = &command else { return };
        let filters = filters.clone();
        let id = self.remember(command);
        stage.trace.say(|| format!("{} asks: {kind} {filters:?}, {id}", self.name()));
        let text = match &filters[..] {
            [one] if stage.rng.one_in(2) => json!({"type": kind, "id": id, "topic": one}),
            _ => json!({"type": kind, "id": id, "topics": filters}),
        };
        self.say(&text, None, stage);
    }

    fn publish_command(&mut self, stage: &mut Stage<'_>) {
        let topic = stage.rng.below(stage.params.topics.len());
        let kind = stage.rng.pick(&[Kind::Text, Kind::Binary, Kind::Json]);
        let (id, payload) = self.publish(topic, kind, stage);
        let mut text = json!({"type": "publish", "topic": stage.params.topics[topic]});
        text["data"] = match kind {
            Kind::Text => String::from_utf8(payload).expect("text").into(),
            Kind::Binary => STANDARD.encode(payload).into(),
            Kind::Json => serde_json::from_slice(&payload).expect("JSON"),
        };
        if kind == Kind::Binary {
            text["encoding"] = "base64".into();
        }
        match stage.rng.below(4) {
            0 => {}
            1 => {
                text["ack"] = false.into();
                text["id"] = "of no interest".into();
            }
            _ => text["id"] = self.remember(Command::Publish(id)).into(),
        }
        self.say(&text, Some(id), stage);
    }

    /// Whether an unsubscribe of `filter` waits for its answer.
    fn is_ending(&self, filter: &String) -> bool {
        self.commands
            .values()
            .any(|command| matches!(command, Command::Unsubscribe(filters) if filters.contains(filter)))
    }

    fn remember(&mut self, command: Command) -> u64 {
        let id = self.next_command;
        self.next_command += 1;
        self.commands.insert(id, command);
        id
    }

    fn say(&mut self, text: &Value, publishes: Option<MessageId>, stage: &mut Stage<'_>) {
        self.wire.put_message(true, text.to_string().as_bytes(), publishes, stage.rng);
    }

    // ---- in

    /// Takes whatever is whole of what came.
    pub(super) fn hear(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        if self.role == Role::Poster {
            return self.hear_answers(stage);
        }
        if self.phase == Phase::Head && !self.hear_head(stage)? {
            return Ok(());
        }
        while self.phase == Phase::Open {
            let frame = self.wire.next_frame().map_err(|what| {
                Violation::new("what the broker sends are frames", format!("{}: {what}", self.name()))
            })?;
            let Some(frame) = frame else { return Ok(()) };
            self.hear_frame(&frame, stage)?;
        }
        if self.closed_with.is_some() && !self.wire.input.is_empty() {
            let evidence = format!("{}: {}", self.name(), self.wire.input.escape_ascii());
            return Err(Violation::new("nothing comes behind a close frame", evidence));
        }
        Ok(())
    }

    fn hear_frame(&mut self, frame: &Frame, stage: &mut Stage<'_>) -> Result<(), Violation> {
        match frame.opcode {
            Opcode::Ping => {
                if self.answers_pings {
                    stage.coverage.pings += 1;
                    self.wire.put_frame(Opcode::Pong, &frame.payload, stage.rng);
                }
                Ok(())
            }
            Opcode::Pong => Ok(()),
            Opcode::Close => self.hear_close(&frame.payload, stage),
            Opcode::Text if self.role == Role::V1 => self.hear_v1(&frame.payload, stage),
            Opcode::Text | Opcode::Binary => {
                let kind = if frame.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
                let topic = match &self.role {
                    Role::Subscriber(filter) if !filter.contains(['+', '#']) => Some(filter.clone()),
                    Role::Bus(topic) => Some(stage.params.topics[*topic].clone()),
                    _ => None,
                };
                self.arrived(&Arrival { topic: topic.as_deref(), offset: None, kind, payload: &frame.payload }, stage)
            }
            Opcode::Continuation => {
                Err(Violation::new("what the broker sends are frames", format!("{}: a continuation", self.name())))
            }
        }
    }

    fn arrived(&mut self, arrival: &Arrival<'_>, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let Some(stream) = self.stream else {
            return Err(Violation::new("only subscribers of a topic get its messages", self.name()));
        };
        let id = stage.model.received(stream, arrival)?;
        stage.trace.say(|| format!("{} got ~{id:?}~ at {:?} of {:?}", self.name(), arrival.offset, arrival.topic));
        stage.coverage.delivered += 1;
        stage.coverage.delivered_empty += u64::from(id.is_none());
        stage.coverage.delivered_huge += u64::from(arrival.payload.len() > 64 << 10);
        if let Some(topic) = arrival.topic {
            stage.coverage.overlapping += u64::from(stage.model.covering(stream, topic) > 1);
            stage.coverage.epochs += u64::from(arrival.offset == Some(1));
        }
        Ok(())
    }

    fn hear_v1(&mut self, text: &[u8], stage: &mut Stage<'_>) -> Result<(), Violation> {
        let name = self.index;
        let wrong = |what: &str| {
            let start = text[..text.len().min(300)].escape_ascii();
            Violation::new("what the broker says is ringyard.v1", format!("client {name}: {what}: {start}"))
        };
        let value: Value = serde_json::from_slice(text).map_err(|error| wrong(&error.to_string()))?;
        let kind = value["type"].as_str().ok_or_else(|| wrong("no type"))?;
        let message = MessageType::named(kind).ok_or_else(|| wrong("an unknown type"))?;
        stage.coverage.messages[message as usize] += 1;
        if kind == "message" {
            let topic = value["topic"].as_str().ok_or_else(|| wrong("no topic"))?;
            let offset = value["offset"].as_u64().ok_or_else(|| wrong("no offset"))?;
            let (kind, payload) = match (&value["data"], value["encoding"].as_str()) {
                (Value::String(text), None) => (Kind::Text, text.clone().into_bytes()),
                (Value::String(text), Some("base64")) => {
                    (Kind::Binary, STANDARD.decode(text).map_err(|error| wrong(&error.to_string()))?)
                }
                (Value::Null, _) | (_, Some(_)) => return Err(wrong("no data")),
                (value, None) => (Kind::Json, value.to_string().into_bytes()),
            };
            return self.arrived(&Arrival { topic: Some(topic), offset: Some(offset), kind, payload: &payload }, stage);
        }
        let Some(id) = value["id"].as_u64() else { return Err(wrong("an answer to nothing")) };
        let Some(command) = self.commands.remove(&id) else { return Err(wrong("a second answer")) };
        stage.trace.say(|| format!("{} heard {}", self.name(), String::from_utf8_lossy(text)));
        let stream = self.stream.expect("a /ws client");
        let code = value["code"].as_str().unwrap_or("");
        if let (Some(carried_out), false) = (command.command_type(), message == MessageType::Error) {
            stage.coverage.commands[carried_out as usize] += 1;
        }
        match (command, kind) {
            (Command::Ping, "pong") | (Command::Connect, "ok") => {}
            (Command::Publish(id), "ok") => {
                let place = position(&value).ok_or_else(|| wrong("no place"))?;
                stage.coverage.acknowledged += 1;
                stage.model.acknowledged(id, place)?;
            }
            (Command::Subscribe(filters), "ok") => {
                let topics = value["topics"].as_array().ok_or_else(|| wrong("no topics"))?;
                let mut confirmed = Vec::new();
                for (filter, topic) in filters.iter().zip(topics) {
                    let position = position(topic);
                    let fits = topic["topic"] == **filter && position.is_none() == filter.contains(['+', '#']);
                    if !fits || topics.len() != filters.len() {
                        return Err(wrong("other topics"));
                    }
                    confirmed.push(Confirmed { filter: filter.clone(), position });
                }
                stage.model.confirmed(stream, &confirmed)?;
            }
            (Command::Subscribe(filters), "error") if code == "limit" => {
                stage.coverage.subscriptions_limit += 1;
                self.filters.retain(|filter| !filters.contains(filter));
                stage.model.refused(stream, &filters);
            }
            (Command::Subscribe(filters), "error") if code == "already-subscribed" => {
                // Only after an unsubscribe that failed.
                stage.model.refused(stream, &filters);
            }
            (Command::Unsubscribe(filters), "ok") => {
                stage.coverage.unsubscribed += 1;
                let topics = &stage.params.topics;
                let overlaps = |topic: &&String| {
                    filters.iter().any(|filter| crate::model::matches(filter, topic))
                        && stage.model.covering(stream, topic) > 1
                };
                stage.coverage.unsubscribed_overlapping += u64::from(topics.iter().find(overlaps).is_some());
                stage.model.unsubscribed(stream, &filters);
            }
            (Command::Unsubscribe(filters), "error") if code == "busy" || code == "not-subscribed" => {
                // Those that there are stay.
                let there = filters.iter().filter(|filter| stage.model.asked_for(stream, filter));
                self.filters.extend(there.cloned());
            }
            (Command::Unsupported(command), "error") if code == "unsupported" => {
                stage.coverage.commands[command as usize] += 1;
            }
            (Command::Bad(due), "error") if code == due => {}
            (command, _) => return Err(wrong(&format!("as the answer to {command:?}"))),
        }
        Ok(())
    }
}

fn position(value: &Value) -> Option<Position> {
    let epoch = u64::from_str_radix(value["epoch"].as_str()?, 16).ok()?;
    Some(Position { epoch, offset: value["offset"].as_u64()? })
}

/// How long a message is to be.
pub(crate) fn length(stage: &mut Stage<'_>) -> usize {
    let (rng, params) = (&mut *stage.rng, stage.params);
    if params.huge_one_in > 0 && rng.one_in(params.huge_one_in) {
        return rng.range(65_530, 90_000);
    }
    match rng.below(10) {
        0 => 0,
        1 => rng.range(120, 130),
        _ => rng.range(1, params.payload_bytes_max),
    }
}
