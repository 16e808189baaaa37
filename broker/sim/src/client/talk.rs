//! Publishes, commands, and what comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::frame::Opcode;
use protocol::v1::MessageType;
use serde_json::{Value, json};

use super::past::put_data;
use super::wire::Frame;
use super::{Client, Command, Parting, Phase, Role, Stage};
use crate::leases::LEASE;
use crate::model::{Arrival, MessageId, Options, Position, Violation};
use crate::payload::{self, Kind};

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
        if self.role == Role::V1 && self.speaks_of_tokens(stage) {
            return;
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
                    if self.parting == Parting::None {
                        self.command(stage);
                    }
                }
            }
            Role::Poster if stage.rng.percent(stage.params.publish_percent) => {
                for _ in 0..stage.rng.range(1, stage.params.burst_max.min(6)) {
                    if self.parting == Parting::None {
                        self.post(stage);
                    }
                }
            }
            // Nobody looks at it.
            Role::Events(_) if stage.rng.percent(2) => self.wire.put(&[b'x'; 70]),
            Role::Slowloris if stage.rng.percent(20) => self.wire.put(b"x"),
            _ => {}
        }
    }

    fn publish(&mut self, topic: usize, kind: Kind, stage: &mut Stage<'_>) -> (MessageId, Vec<u8>) {
        let len = length(stage);
        let id = match stage.model.rule(topic).may_refuse() {
            true => stage.model.publish_with(self.index, topic, kind, len, Options::default()),
            false => stage.model.publish(self.index, topic, kind, len),
        };
        stage.coverage.published += 1;
        (id, payload::build(id, kind, stage.model.length(id)))
    }

    fn command(&mut self, stage: &mut Stage<'_>) {
        if stage.params.requests && stage.rng.percent(60) {
            return self.call(stage);
        }
        if stage.params.leases.is_some() && self.visitor.knows_its_name() && stage.rng.percent(50) {
            return self.hold(stage);
        }
        if stage.params.presence.is_some() && stage.rng.percent(60) {
            return self.visit(stage);
        }
        match stage.rng.below(23) {
            20 | 21 => self.ask_history(stage),
            22 => self.store_snapshot(stage),
            0..=4 => self.subscribe(stage),
            5..=7 if !self.filters.is_empty() => {
                let mut filters = vec![stage.rng.pick(&self.filters)];
                if stage.rng.one_in(4) {
                    let more = stage.rng.pick(&self.filters);
                    if !filters.contains(&more) {
                        filters.push(more);
                    }
                }
                self.filters.retain(|filter| !filters.contains(filter));
                self.unsubscribe(filters, stage);
            }
            8..=15 => self.publish_command(stage),
            16 => {
                let id = self.remember(Command::Ping);
                self.say(&json!({"type": "ping", "id": id}), None, stage);
            }
            17 => {
                let id = self.remember(Command::Connect);
                let visible = json!({"type": "connect", "id": id, "ping": "message"});
                let plain = json!({"type": "connect", "id": id});
                self.say(if stage.rng.one_in(2) { &visible } else { &plain }, None, stage);
            }
            18 => {
                let id = self.remember(Command::Bad("not-subscribed"));
                self.say(&json!({"type": "unsubscribe", "id": id, "topic": "never/asked/for"}), None, stage);
            }
            _ => {
                let (code, command) = stage.rng.pick(&[
                    ("unsupported", r#"{"type":"connect","token":"t","id":"#),
                    ("bad-command", r#"{"type":"subscribe","topic":"a","since":{"epoch":"1"},"id":"#),
                    ("bad-command", r#"{"type":"subscribe","topic":"a/+","last":2,"id":"#),
                    ("forbidden", r#"{"type":"publish","topic":"$sys/x","data":1,"id":"#),
                    ("bad-topic", r#"{"type":"subscribe","topic":"a/#/b","id":"#),
                    ("bad-command", r#"{"type":"subscribe","id":"#),
                ]);
                // Where there are tokens, this is a bad one, of which others than this client say what comes of it.
                if code == "unsupported" && (self.standing.is_some() || stage.params.has_users()) {
                    return;
                }
                let id = self.remember(Command::Bad(code));
                self.wire.put_message(true, format!("{command}{id}}}").as_bytes(), None, stage.rng);
            }
        }
    }

    fn unsubscribe(&mut self, filters: Vec<String>, stage: &mut Stage<'_>) {
        let id = self.remember(Command::Unsubscribe(filters.clone()));
        stage.model.unsubscribing(self.stream.expect("a /ws client"));
        self.leave_by_unsubscribing(&filters, stage);
        stage.trace.say(|| format!("{} unsubscribes {filters:?}, {id}", self.name()));
        let text = match &filters[..] {
            [one] if stage.rng.one_in(2) => json!({"type": "unsubscribe", "id": id, "topic": one}),
            _ => json!({"type": "unsubscribe", "id": id, "topics": filters}),
        };
        self.say(&text, None, stage);
    }

    fn publish_command(&mut self, stage: &mut Stage<'_>) {
        let topic = stage.rng.below(stage.params.topics.len());
        let granted = self.may_publish(topic, stage);
        if granted != Some(true) || stage.model.rule(topic).may_refuse() || stage.rng.one_in(3) {
            return self.publish_conditionally(topic, stage);
        }
        let kind = stage.rng.pick(&[Kind::Text, Kind::Binary, Kind::Json]);
        let (id, payload) = self.publish(topic, kind, stage);
        let mut text = json!({"type": "publish", "topic": stage.params.topics[topic]});
        put_data(&mut text, kind, payload);
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
    pub(super) fn is_ending(&self, filter: &String) -> bool {
        self.commands
            .values()
            .any(|command| matches!(command, Command::Unsubscribe(filters) if filters.contains(filter)))
    }

    pub(super) fn remember(&mut self, command: Command) -> u64 {
        let id = self.next_command;
        self.next_command += 1;
        self.commands.insert(id, command);
        id
    }

    pub(super) fn say(&mut self, text: &Value, publishes: Option<MessageId>, stage: &mut Stage<'_>) {
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
        if self.is_listening() {
            return self.hear_events(stage);
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
        if matches!(frame.opcode, Opcode::Text | Opcode::Binary) {
            self.check_open()?;
        }
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
                self.arrived(
                    &Arrival { topic: topic.as_deref(), offset: None, kind, payload: &frame.payload, tags: None },
                    stage,
                )
            }
            Opcode::Continuation => {
                Err(Violation::new("what the broker sends are frames", format!("{}: a continuation", self.name())))
            }
        }
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
        if value.get("id").is_none() && value["topic"].as_str().is_some_and(|topic| topic.starts_with('$')) {
            let is_of_lease = value["topic"].as_str().is_some_and(|topic| topic.starts_with(LEASE));
            return if is_of_lease { self.hear_panel(&value, stage) } else { self.hear_presence(&value, stage) };
        }
        if kind == "message" {
            return self.hear_message(&value, &wrong, stage);
        }
        if message == MessageType::Request {
            return self.hear_request(&value, stage);
        }
        if self.hear_unasked(message, &value, &wrong, stage)? {
            return Ok(());
        }
        if value.get("id").is_none() && value["code"] == "not-found" && self.replied_without_id() {
            stage.coverage.calls_not_found += 1;
            return Ok(());
        }
        let Some(id) = value["id"].as_u64() else { return Err(wrong("an answer to nothing")) };
        let Some(command) = self.commands.remove(&id) else { return Err(wrong("a second answer")) };
        stage.trace.say(|| format!("{} heard {}", self.name(), String::from_utf8_lossy(text)));
        if self.hear_judged(id, &command, &value, stage)? {
            return Ok(());
        }
        let stream = self.stream.expect("a /ws client");
        let code = value["code"].as_str().unwrap_or("");
        if let (Some(carried_out), false) = (command.command_type(), message == MessageType::Error) {
            stage.coverage.commands[carried_out as usize] += 1;
        }
        match (command, kind) {
            (Command::Ping, "pong") | (Command::Connect, "ok") => {}
            (Command::Call(call), "ok" | "error") => self.hear_call(&call, &value, stage)?,
            (Command::Hold(hold), "ok" | "error") => self.hear_hold(&hold, &value, stage)?,
            (Command::Will(will), "ok" | "error") => self.hear_will(will, &value, stage)?,
            (Command::Visit(visit), "ok" | "error") => self.hear_visit(&visit, &value, stage)?,
            (Command::Publish(id), "ok" | "error") => {
                if !self.hear_published(id, &value, stage)? {
                    return Err(wrong("no place"));
                }
            }
            (Command::History(page), "ok" | "error") => {
                if !self.hear_history(&page, &value, stage)? {
                    return Err(wrong("no page"));
                }
            }
            (Command::Snapshot(id), "ok" | "error") => self.hear_stored(id, &value, stage)?,
            (Command::Subscribe(filters), "ok") => {
                if !self.hear_confirmed(&filters, &value, stage)? {
                    return Err(wrong("other topics"));
                }
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
                stage.model.unsubscribe_answered(stream);
                stage.model.unsubscribed(stream, &filters);
                self.left_by_unsubscribing(&filters, stage);
            }
            (Command::Unsubscribe(filters), "error") if code == "busy" || code == "not-subscribed" => {
                stage.model.unsubscribe_answered(stream);
                // Those that there are stay.
                let there = filters.iter().filter(|filter| stage.model.asked_for(stream, filter));
                self.filters.extend(there.cloned());
            }
            (Command::Bad(due), "error") if code == due => {}
            (command, _) => return Err(wrong(&format!("as the answer to {command:?}"))),
        }
        Ok(())
    }
}

/// What a message carries.
pub(super) fn payload_of(value: &Value) -> Option<(Kind, Vec<u8>)> {
    match (&value["data"], value["encoding"].as_str()) {
        (Value::String(text), None) => Some((Kind::Text, text.clone().into_bytes())),
        (Value::String(text), Some("base64")) => Some((Kind::Binary, STANDARD.decode(text).ok()?)),
        (Value::Null, _) | (_, Some(_)) => None,
        (value, None) => Some((Kind::Json, value.to_string().into_bytes())),
    }
}

pub(super) fn position(value: &Value) -> Option<Position> {
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
