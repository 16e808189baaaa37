//! Clients of server-sent events: their head, and a decoder of their stream that was written from the standards (RFC 9112 §7.1, HTML
//! standard 9.2.6) and knows nothing of how the broker encodes.
//!
//! A stream of one topic has ids: its messages are judged by their offsets, it may begin in the past, and it learns of gaps and purges.
//! Others are judged as raw subscribers are. What the wire does not say, as keys and that a message is a snapshot, is the model's to know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker::shard::handover;
use serde_json::Value;

use super::past::place;
use super::talk::position;
use super::{Client, Phase, Role, Stage};
use crate::model::{Arrival, Asked, Confirmed, Position, Remembers, Start, Tags, Violation};
use crate::payload::{self, Kind};

/// What a stream was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listening {
    /// Its topics and filters.
    pub(crate) filters: Vec<String>,
    pub(crate) start: Start,
    /// It wants the topic's state.
    state: bool,
    /// Its head names a place that is none.
    lost_place: bool,
}

/// How far its decoder is.
#[derive(Default, Debug)]
pub(crate) struct Decoder {
    /// Bytes of chunks, to be taken apart in lines.
    text: Vec<u8>,
    name: String,
    data: Option<Vec<u8>>,
    id: String,
    /// Why it is about to end, if a comment said so.
    why: Option<String>,
    /// The code of an event `expired`.
    expired: Option<u16>,
    has_position: bool,
    /// What comes is state.
    is_state: bool,
    retry_ms: Option<u64>,
}

/// One event.
#[derive(Debug)]
struct Event {
    name: String,
    data: Vec<u8>,
    id: String,
}

impl Listening {
    /// What some client wants.
    pub(crate) fn draw(filter: String, more: Vec<String>, lost_place: bool) -> Self {
        let mut filters = vec![filter];
        for filter in more {
            if !filters.contains(&filter) {
                filters.push(filter);
            }
        }
        Self { filters, start: Start::Now, state: false, lost_place }
    }

    /// The same as a request for it that was read, for one that begins where it is now.
    pub(crate) fn stream(&self) -> handover::Stream {
        handover::Stream {
            filters: self.filters.clone(),
            is_chunked: true,
            has_envelope: false,
            is_resumed: false,
            lost_place: self.lost_place,
            readable_for: None,
        }
    }

    /// The topic, if it is a single one.
    pub(super) fn topic(&self) -> Option<&String> {
        match &self.filters[..] {
            [topic] if !topic.contains(['+', '#']) => Some(topic),
            _ => None,
        }
    }
}

impl Client {
    /// Whether it is a stream of events.
    pub(super) fn is_listening(&self) -> bool {
        matches!(self.role, Role::Events(_))
    }

    /// Chooses where a stream of one topic begins, and says its head.
    pub(super) fn listening_head(&mut self, stage: &mut Stage<'_>) -> String {
        let Role::Events(mut listening) = self.role.clone() else { unreachable!("a stream") };
        let (mut query, mut id) = (String::new(), String::new());
        if let Some(topic) =
            listening.topic().and_then(|topic| stage.params.topics.iter().position(|other| other == topic))
        {
            listening.state = stage.rng.one_in(3);
            match stage.rng.below(6) {
                0 => {}
                1 => {
                    let count = stage.rng.pick(&[1_u64, 3, 1000]);
                    listening.start = Start::Last(count);
                    query = format!("last={count}");
                }
                draw => {
                    let at = place(topic, stage);
                    let text = format!("{:016x}:{}", at.epoch, at.offset);
                    listening.start = Start::Since(at);
                    if draw == 2 {
                        query = format!("since={text}");
                    } else {
                        (query, id) = (["", "last=2", "since=0000000000000001:1"][draw - 3].to_owned(), text);
                    }
                }
            }
        }
        // With `?since=` besides, the answer would say of neither whether it was recovered.
        if listening.lost_place && id.is_empty() && !matches!(listening.start, Start::Since(_)) {
            "what is this".clone_into(&mut id);
        } else {
            listening.lost_place = false;
        }
        let path = match &listening.filters[..] {
            [filter] => format!("/sub/{}?{query}", super::greet::escape(filter)),
            filters => {
                let parameters = filters.iter().map(|filter| format!("topic={}", super::greet::escape(filter)));
                format!("/sub?{}", parameters.collect::<Vec<_>>().join("&"))
            }
        };
        let path = if listening.state { format!("{path}&state=1") } else { path };
        let id = if id.is_empty() { id } else { format!("Last-Event-ID: {id}\r\n") };
        self.role = Role::Events(listening);
        format!(
            "GET {path} HTTP/1.1\r\nHost: broker.example\r\nAccept: text/event-stream\r\n{id}{}\r\n",
            self.door.forwarded
        )
    }

    /// Tells the model what a stream is about to ask for.
    pub(super) fn listen(&mut self, stage: &mut Stage<'_>) {
        let Role::Events(listening) = &self.role else { return };
        let stream = self.stream.expect("opened with the head");
        match listening.topic() {
            Some(topic) => {
                let Listening { start, state, .. } = *listening;
                let asked = Asked { filter: topic.clone(), start, state, ..Asked::default() };
                stage.model.asking(stream, &[asked]);
            }
            None => stage.model.subscribing(stream, &listening.filters),
        }
    }

    /// Takes whole chunks of what came, and what they say.
    pub(super) fn hear_events(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        while self.phase == Phase::Open {
            let name = self.name();
            let wrong = |what: &str| Violation::new("a stream is chunks of events", format!("{name}: {what}"));
            let input = &self.wire.input;
            let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else {
                return if input.len() > 16 { Err(wrong("no size of a chunk")) } else { Ok(()) };
            };
            let digits = std::str::from_utf8(&input[..end]).ok();
            let len = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
            let len = len.ok_or_else(|| wrong("the size of a chunk"))?;
            if input.len() < end + len + 4 {
                return Ok(());
            }
            let chunk: Vec<u8> = self.wire.input.drain(..end + len + 4).collect();
            if !chunk.ends_with(b"\r\n") {
                return Err(wrong("a chunk longer than its size"));
            }
            if len == 0 {
                return self.hear_last_chunk(stage);
            }
            self.decoder.text.extend_from_slice(&chunk[end + 2..end + 2 + len]);
            while let Some(event) = self.next_event(stage) {
                self.hear_event(event, stage)?;
            }
            if !self.decoder.text.is_empty() {
                return Err(wrong("a chunk that ends within an event"));
            }
        }
        if self.closed_with.is_some() && !self.wire.input.is_empty() {
            return Err(Violation::new("nothing comes behind the last chunk", self.name()));
        }
        Ok(())
    }

    /// Lines become events.
    fn next_event(&mut self, stage: &mut Stage<'_>) -> Option<Event> {
        let decoder = &mut self.decoder;
        while let Some(end) = decoder.text.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
            let line: Vec<u8> = decoder.text.drain(..=end).collect();
            if line.ends_with(b"\r") && decoder.text.first() == Some(&b'\n') {
                decoder.text.remove(0);
            }
            let line = &line[..end];
            if line.is_empty() {
                let name = std::mem::take(&mut decoder.name);
                let Some(data) = decoder.data.take() else { continue };
                let name = if name.is_empty() { "message".to_owned() } else { name };
                return Some(Event { name, data, id: decoder.id.clone() });
            }
            let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let text = || String::from_utf8_lossy(value).into_owned();
            match &line[..colon] {
                b"" if value.is_empty() => stage.coverage.pings += 1,
                b"" => decoder.why = Some(text()),
                b"event" => decoder.name = text(),
                b"id" => decoder.id = text(),
                b"retry" => decoder.retry_ms = text().parse().ok(),
                b"data" => match &mut decoder.data {
                    None => decoder.data = Some(value.to_vec()),
                    Some(data) => {
                        data.push(b'\n');
                        data.extend_from_slice(value);
                    }
                },
                _ => {}
            }
        }
        None
    }

    fn hear_event(&mut self, event: Event, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let evidence =
            format!("{}: {} {:?}", self.name(), event.name, event.data[..event.data.len().min(200)].escape_ascii());
        let wrong = |what: &str| {
            Violation::new("a stream says where it begins, and then its messages", format!("{what}: {evidence}"))
        };
        if event.name == "position" {
            if std::mem::replace(&mut self.decoder.has_position, true) {
                return Err(wrong("a second position"));
            }
            if !self.decoder.retry_ms.is_some_and(|retry_ms| (1000..=5000).contains(&retry_ms)) {
                return Err(wrong("when to come back"));
            }
            let value = serde_json::from_slice(&event.data).map_err(|_| wrong("no JSON"))?;
            return match self.hear_position(&value, &event.id, stage)? {
                true => Ok(()),
                false => Err(wrong("no position")),
            };
        }
        if !self.decoder.has_position {
            return Err(wrong("before the position"));
        }
        self.check_open()?;
        let Role::Events(listening) = &self.role else { unreachable!("a stream") };
        let topic = listening.topic().cloned();
        let place = place_of(&event.id);
        if place.is_some() != topic.is_some() {
            return Err(wrong("an id, or none"));
        }
        let stream = self.stream.expect("opened with the head");
        match &event.name[..] {
            "message" | "binary" => {
                let is_binary = event.name == "binary";
                let payload =
                    if is_binary { STANDARD.decode(&event.data).map_err(|_| wrong("no base64"))? } else { event.data };
                let sent = payload::number(&payload).and_then(|id| stage.model.unsaid(id));
                let is_json = sent.as_ref().is_some_and(|sent| sent.kind == Kind::Json) && topic.is_some();
                let kind = match (is_binary, is_json) {
                    (true, _) => Kind::Binary,
                    (false, true) => Kind::Json,
                    (false, false) => Kind::Text,
                };
                let is_snapshot = sent.as_ref().is_some_and(|sent| sent.is_snapshot);
                let tags = topic.is_some().then(|| Tags {
                    key: sent.as_ref().and_then(|sent| sent.key.as_deref()),
                    removed: sent.as_ref().is_some_and(|sent| sent.removed),
                    state: is_snapshot || self.decoder.is_state,
                    up_to: is_snapshot,
                });
                let offset = place.map(|place| place.offset);
                self.arrived(&Arrival { topic: topic.as_deref(), offset, kind, payload: &payload, tags }, stage)
            }
            "expired" => {
                let value: Value = serde_json::from_slice(&event.data).map_err(|_| wrong("no JSON"))?;
                self.decoder.expired = value["code"].as_u64().and_then(|code| u16::try_from(code).ok());
                Ok(())
            }
            "gap" | "reset" if topic.is_none() => Ok(()),
            "state-end" => {
                let value: Value = serde_json::from_slice(&event.data).map_err(|_| wrong("no JSON"))?;
                let offset = value["offset"].as_u64();
                if !std::mem::take(&mut self.decoder.is_state) || offset != place.map(|place| place.offset) {
                    return Err(wrong("no end of state is due, or elsewhere"));
                }
                let topic = topic.unwrap_or_default();
                stage.coverage.state_ends += 1;
                // That of other topics is said to streams alone.
                let index = stage.params.topics.iter().position(|other| *other == topic).expect("a topic of the run");
                match stage.model.rule(index).is_keyed() {
                    true => stage.model.state_ended(stream, &topic, offset),
                    false => Ok(()),
                }
            }
            "gap" => {
                let value: Value = serde_json::from_slice(&event.data).map_err(|_| wrong("no JSON"))?;
                let range = value["from"].as_u64().zip(value["to"].as_u64()).ok_or_else(|| wrong("no range"))?;
                let reason = value["reason"].as_str().unwrap_or_default();
                stage.coverage.skips_told += u64::from(reason == "slow-consumer");
                stage.model.gap(stream, value["topic"].as_str().unwrap_or_default(), range, reason)
            }
            "reset" => {
                let value: Value = serde_json::from_slice(&event.data).map_err(|_| wrong("no JSON"))?;
                let began = position(&value).filter(|began| Some(*began) == place && value["reason"] == "purged");
                stage.model.reset(stream, topic.as_deref().unwrap_or_default(), began.ok_or_else(|| wrong("no place"))?)
            }
            _ => Err(wrong("an unknown event")),
        }
    }

    /// The stream is in force. Returns false if the event is no position.
    fn hear_position(&mut self, value: &Value, id: &str, stage: &mut Stage<'_>) -> Result<bool, Violation> {
        let Role::Events(listening) = self.role.clone() else { unreachable!("a stream") };
        let stream = self.stream.expect("opened with the head");
        let recovered = value["recovered"].as_bool();
        if listening.lost_place && recovered != Some(false) || value["ids"] != listening.topic().is_some() {
            return Ok(false);
        }
        stage.coverage.streams_several += u64::from(listening.filters.len() > 1);
        let Some(topic) = listening.topic() else {
            let confirmed =
                listening.filters.iter().map(|filter| Confirmed { filter: filter.clone(), ..Confirmed::default() });
            return stage.model.confirmed(stream, &confirmed.collect::<Vec<_>>()).map(|()| true);
        };
        // While state is to come, the id is that of an empty topic.
        let fits = |at: &Position| {
            let id = place_of(id);
            id == Some(*at) || (listening.state && id == Some(Position { offset: 0, ..*at }))
        };
        let Some(at) = position(value).filter(fits) else { return Ok(false) };
        let recovered = recovered.filter(|_| matches!(listening.start, Start::Since(_)));
        stage.coverage.streams_recovered += u64::from(recovered == Some(true));
        let available = value["available"]["from"].as_u64().zip(value["available"]["to"].as_u64());
        let index = stage.params.topics.iter().position(|other| other == topic).expect("a topic of the run");
        let history = match stage.model.rule(index) {
            rule if rule.is_keyed() => Some(Remembers::Keyed),
            rule if rule.is_window() => Some(Remembers::Window),
            _ => None,
        };
        let recovers_keys = history == Some(Remembers::Keyed) && recovered == Some(true);
        self.decoder.is_state = listening.state || recovers_keys;
        let position = Some(Position { offset: at.offset + 1, ..at });
        let filter = topic.clone();
        let confirmed = Confirmed { filter, position, recovered, available, history, unread: false };
        stage.model.confirmed(stream, &[confirmed]).map(|()| true)
    }

    /// The stream ends. What it said before says why.
    fn hear_last_chunk(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        stage.coverage.streams_ended += 1;
        let code = match (&self.decoder.expired, &self.decoder.why) {
            (Some(code), _) => *code,
            (None, Some(_)) => 1013,
            (None, None) => 1001,
        };
        let reason = self.decoder.why.take().unwrap_or_default();
        self.hear_close(&[&code.to_be_bytes(), reason.as_bytes()].concat(), stage)
    }
}

/// What an id says.
fn place_of(id: &str) -> Option<Position> {
    let (epoch, offset) = id.split_once(':').filter(|(epoch, _)| epoch.len() == 16)?;
    Some(Position { epoch: u64::from_str_radix(epoch, 16).ok()?, offset: offset.parse().ok()? })
}
