//! What clients get: messages, state, and what is said about them.

use super::{Arrival, MessageId, Model, Position, StreamId, Violation, stream};
use crate::payload::{self, Kind};

impl Model {
    /// A message came. Returns its number, unless it was empty.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn received(&mut self, stream: StreamId, arrival: &Arrival<'_>) -> Result<Option<MessageId>, Violation> {
        let now = self.tick();
        let id = self.identify(arrival)?;
        if let Some(id) = id {
            self.check_arrival(id, arrival)?;
        }
        let topic = match (id, arrival.topic) {
            (Some(id), named) => {
                let topic = self.messages[id as usize].topic;
                if named.is_some_and(|named| named != self.topics[topic]) {
                    let evidence = format!("{} came as one of {named:?}", self.describe(id));
                    return Err(Violation::new("a message keeps its topic", evidence));
                }
                topic
            }
            (None, Some(named)) => match self.topics.iter().position(|topic| topic == named) {
                Some(topic) => topic,
                None => return Err(Violation::new("a message keeps its topic", format!("{named:?} is none"))),
            },
            // Nobody can tell where an empty message among several topics belongs, nor then when a batch of which topic came.
            (None, None) => {
                self.streams[stream].timed.prompt = false;
                return Ok(None);
            }
        };
        if let (Some(tags), Some(offset)) = (arrival.tags.filter(|tags| tags.state || tags.up_to), arrival.offset) {
            return self.shown(stream, topic, id, offset, tags.up_to);
        }
        self.check_time(stream, topic, id.map(|id| self.times_of(id)))?;
        let Self { streams, topics, messages, published, orders, .. } = self;
        let known = stream::Known { topics, messages, published };
        streams[stream].received(topic, id, arrival, &known, orders)?;
        if let Some(id) = id {
            let message = &mut self.messages[id as usize];
            message.accepted = true;
            message.noticed.get_or_insert(now);
            if let Some(place) = self.orders.place_of(id) {
                self.placed(id, place);
            }
        }
        Ok(id)
    }

    /// State came.
    fn shown(
        &mut self,
        stream: StreamId,
        topic: usize,
        id: Option<MessageId>,
        offset: u64,
        up_to: bool,
    ) -> Result<Option<MessageId>, Violation> {
        let Some(number) = id else { return Ok(None) };
        let epoch = self.streams[stream].shown(topic, number, offset, up_to, &self.topics)?;
        if up_to {
            return self.check_snapshot(number, topic, offset, epoch).map(|()| id);
        }
        self.orders.offset(number, offset, || format!("~{number}~, shown as state"))?;
        if let Some(epoch) = epoch {
            let place = Position { epoch, offset };
            self.orders.place(topic, place, number, || format!("~{number}~, shown as state"))?;
            self.placed(number, place);
        }
        Ok(id)
    }

    /// All of a subscription's state came.
    ///
    /// # Errors
    /// None was due.
    pub fn state_ended(&mut self, stream: StreamId, filter: &str, offset: Option<u64>) -> Result<(), Violation> {
        let now = self.tick();
        self.streams[stream].state_ended(filter, offset, now, &self.topics)
    }

    /// Some messages will not come, for this reason.
    ///
    /// # Errors
    /// They were not missing.
    pub fn gap(&mut self, stream: StreamId, topic: &str, range: (u64, u64), reason: &str) -> Result<(), Violation> {
        let (from, to) = range;
        match (reason, self.topics.iter().position(|known| known == topic)) {
            ("slow-consumer", Some(index)) => self.streams[stream].skipped(index, topic, from, to),
            ("evicted", Some(_)) => self.streams[stream].gap(topic, from, to, &self.topics),
            _ => Err(Violation::new("a gap is what is missing", format!("{topic:?}, {range:?}: {reason}"))),
        }
    }

    fn identify(&self, arrival: &Arrival<'_>) -> Result<Option<MessageId>, Violation> {
        let property = "a payload arrives as it was sent";
        if arrival.payload.is_empty() {
            return Ok(None);
        }
        let start = || arrival.payload[..arrival.payload.len().min(40)].escape_ascii().to_string();
        let Some(id) = payload::number(arrival.payload) else {
            return Err(Violation::new(property, format!("{} bytes, {}", arrival.payload.len(), start())));
        };
        let Some(message) = self.messages.get(id as usize) else {
            return Err(Violation::new(property, format!("message ~{id}~ was never made: {}", start())));
        };
        let kept_kind = message.kind == arrival.kind
            || (message.kind == Kind::Json && arrival.kind == Kind::Text && arrival.offset.is_none());
        if !kept_kind {
            let evidence = format!("{} came as {:?}", self.describe(id), arrival.kind);
            return Err(Violation::new("text stays text, binary stays binary", evidence));
        }
        if payload::build(id, message.kind, message.len) != arrival.payload {
            let evidence = format!("{} came as {} bytes, {}", self.describe(id), arrival.payload.len(), start());
            return Err(Violation::new(property, evidence));
        }
        Ok(Some(id))
    }
}
