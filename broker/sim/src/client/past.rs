//! What clients of `ringyard.v1` ask of the broker's memory: where subscriptions begin, options of publishes, pages of history,
//! snapshots. And what they hear of it.
//!
//! A client either *recovers*, with subscriptions of single topics that begin anywhere, or *mixes* filters and topics that
//! overlap, which begin where they are now.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::talk::{length, payload_of, position};
use super::{Client, Command, Stage};
use crate::model::{Asked, Confirmed, MessageId, Options, Page, Position, Remembers, Start, Violation};
use crate::params;
use crate::payload::{self, Kind};
use crate::rules::Slow;

const HIGHEST: u64 = (1 << 53) - 1;

impl Client {
    // ---- subscribing

    pub(super) fn subscribe(&mut self, stage: &mut Stage<'_>) {
        let count = if stage.rng.one_in(3) { stage.rng.range(2, 4) } else { 1 };
        let topics = &stage.params.topics;
        let mut filters: Vec<_> = (0..count)
            .map(|_| if self.recovers { stage.rng.pick(topics) } else { params::filter(topics, stage.rng) })
            .collect();
        filters.sort();
        filters.dedup();
        filters.retain(|filter| !self.filters.contains(filter) && !self.is_ending(filter));
        if filters.is_empty() {
            return;
        }
        let mut asked = if self.recovers { recovering(&filters, stage) } else { mixing(&filters, stage) };
        let throttles = stage.params.policies && stage.rng.one_in(4);
        let throttle_ms = if throttles { stage.rng.pick(&[1, 20, 33, 100, 240, 700, 5000]) } else { 0 };
        asked.iter_mut().for_each(|asked| asked.throttle_ms = throttle_ms);
        self.filters.extend_from_slice(&filters);
        let stream = self.stream.expect("a /ws client");
        stage.model.asking(stream, &asked);
        let id = self.remember(Command::Subscribe(filters.clone()));
        let mut text = match &filters[..] {
            [one] if stage.rng.one_in(2) => json!({"type": "subscribe", "id": id, "topic": one}),
            _ => json!({"type": "subscribe", "id": id, "topics": filters}),
        };
        if asked[0].throttle_ms > 0 {
            text["throttle"] = asked[0].throttle_ms.into();
        }
        if !asked[0].state {
            text["state"] = false.into();
        } else if stage.rng.one_in(3) {
            text["state"] = true.into();
        }
        if let Start::Last(count) = asked[0].start {
            text["last"] = count.into();
        }
        let since: serde_json::Map<_, _> = asked
            .iter()
            .filter_map(|asked| match asked.start {
                Start::Since(position) => Some((asked.filter.clone(), written(position))),
                _ => None,
            })
            .collect();
        if !since.is_empty() {
            text["since"] = match (&asked[..], text.get("topic").is_some()) {
                ([asked], true) if stage.rng.one_in(2) => since[&asked.filter].clone(),
                _ => json!({"positions": since}),
            };
        }
        stage.trace.say(|| format!("{} asks: {text}", self.name()));
        self.say(&text, None, stage);
    }

    pub(super) fn hear_confirmed(
        &mut self,
        filters: &[String],
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<bool, Violation> {
        let Some(topics) = value["topics"].as_array().filter(|topics| topics.len() == filters.len()) else {
            return Ok(false);
        };
        let mut confirmed = Vec::new();
        for (filter, topic) in filters.iter().zip(topics) {
            let position = position(topic);
            if topic["topic"] != **filter || position.is_none() != filter.contains(['+', '#']) {
                return Ok(false);
            }
            let history = match topic["history"].as_str() {
                None => None,
                Some("window") => Some(Remembers::Window),
                Some("keyed") => Some(Remembers::Keyed),
                Some(_) => return Ok(false),
            };
            if let Some(index) = stage.params.topics.iter().position(|topic| topic == filter) {
                let rule = stage.model.rule(index);
                let fits = match history {
                    None => rule.is_none(),
                    Some(Remembers::Window) => rule.is_window(),
                    Some(Remembers::Keyed) => rule.is_keyed(),
                };
                if !fits {
                    return Ok(false);
                }
            }
            let slow = match topic["slow_consumer"].as_str() {
                None => Slow::Disconnect,
                Some("skip") => Slow::Skip,
                Some("latest") => Slow::Latest,
                Some(_) => return Ok(false),
            };
            let throttle = topic["throttle"].as_u64().unwrap_or(0);
            let Some(policy) = stage.model.policy_asked(self.stream.expect("a /ws client"), filter) else {
                return Ok(false);
            };
            if (policy.slow, policy.throttle_ms) != (slow, throttle) {
                return Ok(false);
            }
            stage.coverage.latest += u64::from(slow == Slow::Latest);
            stage.coverage.throttled += u64::from(throttle > 0);
            let recovered = topic["recovered"].as_bool();
            let available = &topic["available"];
            let available = available["from"].as_u64().zip(available["to"].as_u64());
            stage.coverage.recovered += u64::from(recovered == Some(true));
            stage.coverage.not_recovered += u64::from(recovered == Some(false));
            stage.coverage.available += u64::from(available.is_some());
            let unread = !self.reads(filter, stage);
            confirmed.push(Confirmed { filter: filter.clone(), position, recovered, available, history, unread });
        }
        stage.model.confirmed(self.stream.expect("a /ws client"), &confirmed)?;
        Ok(true)
    }

    // ---- publishing

    /// Publishes with options that the broker may refuse; the answer says whether it did.
    pub(super) fn publish_conditionally(&mut self, topic: usize, stage: &mut Stage<'_>) {
        let mut options = options(topic, stage);
        options.lease = self.lease_to_bring(topic, stage);
        let kind = stage.rng.pick(&[Kind::Text, Kind::Binary, Kind::Json]);
        let len = length(stage).max(1);
        let id = stage.model.publish_with(self.index, topic, kind, len, options.clone());
        stage.coverage.published += 1;
        let mut text = json!({"type": "publish", "topic": stage.params.topics[topic]});
        put_data(&mut text, kind, payload::build(id, kind, len));
        for (flag, set) in [("retain", options.retain), ("removed", options.removed)] {
            if set || stage.rng.one_in(20) {
                text[flag] = set.into();
            }
        }
        if let Some(key) = options.key {
            text["key"] = key.into();
        }
        if let Some(ttl) = options.ttl_ms {
            text["ttl"] = ttl.into();
        }
        if let Some(key) = options.idempotency_key {
            text["idempotency_key"] = key.into();
        }
        if let Some(number) = options.lease {
            text["lease"] = number.into();
        }
        self.note_leased(id, topic, options.lease, stage);
        match options.if_offset {
            Some(0) if stage.rng.one_in(2) => text["if_offset"] = "absent".into(),
            Some(offset) => text["if_offset"] = offset.into(),
            None => {}
        }
        if self.may_publish(topic, stage) == Some(false) && stage.rng.one_in(3) {
            // Refused all the same, and told so.
            text["ack"] = false.into();
        }
        text["id"] = self.remember(Command::Publish(id)).into();
        stage.trace.say(|| format!("{} publishes ~{id}~ on {topic}: {:?}", self.name(), stage.model.options(id)));
        self.say(&text, Some(id), stage);
    }

    /// A publish was answered. Returns false if that is no answer to one.
    pub(super) fn hear_published(
        &mut self,
        id: MessageId,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<bool, Violation> {
        if value["type"] == "error" {
            let code = value["code"].as_str().unwrap_or_default();
            match code {
                "conflict" => stage.coverage.conflicts += 1,
                "limit" => stage.coverage.state_refused += 1,
                "not-holder" => stage.coverage.leases_kept_out += 1,
                _ => {}
            }
            if code == "not-holder" {
                self.note_answered(id, true, stage);
            }
            stage.model.refused_publish(id, code, value["offset"].as_u64())?;
            return Ok(true);
        }
        let Some(place) = position(value) else { return Ok(false) };
        if value["duplicate"] == true {
            stage.coverage.duplicates += 1;
            stage.model.duplicate(id, place)?;
            return Ok(true);
        }
        stage.coverage.acknowledged += 1;
        self.note_answered(id, false, stage);
        let options = stage.model.options(id);
        stage.coverage.compared += u64::from(options.if_offset.is_some());
        stage.coverage.removals += u64::from(options.removed);
        stage.coverage.retained += u64::from(options.retain);
        stage.model.acknowledged(id, place)?;
        Ok(true)
    }

    // ---- history and snapshots

    pub(super) fn ask_history(&mut self, stage: &mut Stage<'_>) {
        let topic = stage.rng.below(stage.params.topics.len());
        let mut page = Page { topic, limit: 100, ..Page::default() };
        let mut text = json!({"type": "history", "topic": stage.params.topics[topic]});
        if stage.rng.one_in(2) {
            page.limit = stage.rng.pick(&[1, 2, 5, 1000]);
            text["limit"] = page.limit.into();
        }
        match stage.rng.below(3) {
            0 => page.since = Some(place(topic, stage)),
            1 => page.before = Some(place(topic, stage)),
            _ => {}
        }
        for (name, position) in [("since", page.since), ("before", page.before)] {
            if let Some(position) = position {
                text[name] = written(position);
            }
        }
        if stage.rng.one_in(3) {
            page.reverse = true;
            text["reverse"] = true.into();
        }
        text["id"] = self.remember(Command::History(page)).into();
        stage.trace.say(|| format!("{} asks: {text}", self.name()));
        self.say(&text, None, stage);
    }

    pub(super) fn hear_history(
        &mut self,
        asked: &Page,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<bool, Violation> {
        if value["type"] == "error" {
            stage.coverage.history_unsupported += 1;
            return Ok(value["code"] == "unsupported" && stage.model.rule(asked.topic).is_none());
        }
        let (Some(head), Some(more), Some(messages)) =
            (position(value), value["more"].as_bool(), value["messages"].as_array())
        else {
            return Ok(false);
        };
        let mut found = Vec::new();
        for message in messages {
            let (Some(offset), Some((_, payload))) = (message["offset"].as_u64(), payload_of(message)) else {
                return Ok(false);
            };
            if message["topic"] != *stage.params.topics[asked.topic] || message["type"] != "message" {
                return Ok(false);
            }
            if let Some(id) = payload::number(&payload) {
                found.push((id, offset));
            } else if !payload.is_empty() {
                return Ok(false);
            }
        }
        stage.coverage.pages += 1;
        // Empty messages say nothing of themselves.
        if found.len() == messages.len() {
            stage.model.page(asked, head, value["recovered"].as_bool(), more, &found)?;
        }
        Ok(true)
    }

    pub(super) fn store_snapshot(&mut self, stage: &mut Stage<'_>) {
        let topic = stage.rng.below(stage.params.topics.len());
        let up_to = place(topic, stage);
        let kind = stage.rng.pick(&[Kind::Text, Kind::Binary, Kind::Json]);
        let len = length(stage).max(1);
        let id = stage.model.snapshot(topic, up_to, kind, len);
        let mut text = json!({"type": "snapshot", "topic": stage.params.topics[topic], "up_to": written(up_to)});
        put_data(&mut text, kind, payload::build(id, kind, len));
        text["id"] = self.remember(Command::Snapshot(id)).into();
        stage.trace.say(|| format!("{} stores ~{id}~ of {topic} up to {up_to:?}", self.name()));
        self.say(&text, Some(id), stage);
    }

    pub(super) fn hear_stored(&mut self, id: MessageId, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let refused = (value["type"] == "error").then(|| value["code"].as_str().unwrap_or_default());
        stage.coverage.snapshots += u64::from(refused.is_none());
        stage.model.snapshot_answered(id, refused.map(|code| (code, value["offset"].as_u64())))
    }
}

fn written(Position { epoch, offset }: Position) -> Value {
    json!({"epoch": format!("{epoch:016x}"), "offset": offset})
}

pub(super) fn put_data(text: &mut Value, kind: Kind, payload: Vec<u8>) {
    text["data"] = match kind {
        Kind::Text => String::from_utf8(payload).expect("text").into(),
        Kind::Binary => STANDARD.encode(payload).into(),
        Kind::Json => serde_json::from_slice(&payload).expect("JSON"),
    };
    if kind == Kind::Binary {
        text["encoding"] = "base64".into();
    }
}

/// Where a command of a client that recovers begins, topic by topic.
fn recovering(filters: &[String], stage: &mut Stage<'_>) -> Vec<Asked> {
    let state = !stage.rng.one_in(4);
    let start = stage.rng.below(5);
    let count = stage.rng.pick(&[1, 3, 1000]);
    let begin = |filter: &String| {
        let topic = stage.params.topics.iter().position(|topic| topic == filter).expect("a topic of the run");
        let start = match start {
            0 => Start::Now,
            1 => Start::Last(count),
            _ if stage.rng.one_in(8) => Start::Now,
            _ => Start::Since(place(topic, stage)),
        };
        Asked { filter: filter.clone(), start, state, ..Asked::default() }
    };
    filters.iter().map(begin).collect()
}

/// A client that mixes begins where it is now: with state only where it asks for nothing but filters.
fn mixing(filters: &[String], stage: &mut Stage<'_>) -> Vec<Asked> {
    let wild = filters.iter().all(|filter| filter.contains(['+', '#']));
    let state = wild && !stage.rng.one_in(4);
    let since = wild && stage.rng.one_in(8);
    let begin = |filter: &String| {
        let start = if since { Start::Since(Position { epoch: 1, offset: 0 }) } else { Start::Now };
        Asked { filter: filter.clone(), start, state, ..Asked::default() }
    };
    filters.iter().map(begin).collect()
}

/// A position that somebody might name: a true one mostly.
pub(super) fn place(topic: usize, stage: &mut Stage<'_>) -> Position {
    let rng = &mut *stage.rng;
    let left = stage.model.left(topic);
    let newest = stage.model.newest(topic, None);
    let recent = &left[left.len().saturating_sub(3)..];
    let known = if recent.is_empty() || rng.one_in(4) { newest } else { Some(rng.pick(recent)) };
    let Some(known) = known else { return Position { epoch: 7, offset: rng.below(3) as u64 } };
    match rng.below(12) {
        0 => Position { epoch: known.epoch ^ 1 << rng.below(64), ..known },
        1 => Position { offset: known.offset + rng.pick(&[1, 50, 100_000]), ..known },
        2 => Position { offset: 0, ..known },
        3 => Position { offset: HIGHEST, ..known },
        4..=6 => Position { offset: known.offset.saturating_sub(rng.range(1, 20) as u64), ..known },
        _ => known,
    }
}

/// What a publish asks for.
fn options(topic: usize, stage: &mut Stage<'_>) -> Options {
    let rule = stage.model.rule(topic);
    let rng = &mut *stage.rng;
    let keyed = rule.is_keyed();
    let key = (rng.percent(if keyed { 90 } else { 20 })).then(|| format!("key {}", rng.below(6)));
    let retain = if keyed { false } else { rng.one_in(3) };
    let removed = if keyed || retain { rng.one_in(4) } else { rng.one_in(40) };
    let ttl_ms = rng.one_in(5).then(|| rng.pick(&[1, 50, 3_000, 100_000]));
    let idempotency_key = rng.one_in(4).then(|| format!("publish {}", rng.below(12)));
    let newest = stage.model.newest(topic, key.as_deref()).map_or(0, |newest| newest.offset);
    let if_offset = rng.one_in(4).then(|| match rng.below(6) {
        0 => 0,
        1 => newest + 1,
        2 => newest.saturating_sub(1),
        _ => newest,
    });
    Options { key, retain, removed, ttl_ms, idempotency_key, if_offset, lease: None }
}
