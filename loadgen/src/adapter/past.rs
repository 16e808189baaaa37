//! What a topic's history adds to a protocol: where subscriptions begin, what comes beside a payload, and what a run asks
//! for (protocol/RINGYARD-V1.md, sections 2 to 4).
//!
//! Not responsible for whether any of it is true (`history`), nor whether policies are kept (`worker`).

use std::borrow::Cow;

pub use protocol::v1::Position;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::token::TokenBy;

/// What a run makes use of beside plain messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uses {
    /// Connections know their positions, and come back with them.
    pub positions: bool,
    /// Message `n` of a stream has the key `n mod keys`. 0: messages have no key.
    pub keys: u32,
    /// Messages are retained.
    pub retain: bool,
    /// Clients subscribe to one filter that matches all topics.
    pub filter: bool,
    /// Subscriptions ask for so many milliseconds between two deliveries.
    pub throttle_ms: Option<u32>,
    /// Connections log in, and their tokens stand there.
    pub token_by: Option<TokenBy>,
}

impl Uses {
    /// The key of a message.
    #[must_use]
    pub fn key(self, seq: u64) -> Option<u32> {
        (self.keys > 0).then(|| (seq % u64::from(self.keys)) as u32)
    }
}

/// What becomes of a subscriber that is too far behind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum SlowConsumer {
    /// It is closed.
    #[default]
    Disconnect,
    /// It goes on with newer messages, after a gap that is announced.
    Skip,
    /// It gets the newest message of each key.
    Latest,
}

impl SlowConsumer {
    /// As a topic rule writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::Skip => "skip",
            Self::Latest => "latest",
        }
    }

    /// Of an answer, which leaves out `disconnect`. Nothing if it is none of those.
    fn read(said: Option<&str>) -> Option<Self> {
        match said {
            None => Some(Self::Disconnect),
            Some(said) => [Self::Skip, Self::Latest].into_iter().find(|policy| policy.name() == said),
        }
    }
}

/// What comes beside a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Envelope {
    /// Its place in the topic; 0: not said.
    pub offset: u64,
    /// The offset of the message before it, where it is said.
    pub prev: Option<u64>,
    /// Its key, as a number.
    pub key: Option<u32>,
    /// It is state, which a subscription begins with, and no part of the sequence.
    pub state: bool,
}

/// Where the subscription of a topic begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begin {
    /// The position before the first message to come.
    pub after: Position,
    /// Whether everything after the client's own position is there, where the answer says so.
    pub recovered: Option<bool>,
    /// The oldest offset that the topic still has, where the answer says so.
    pub available_from: Option<u64>,
    /// The topic remembers the newest message of each key.
    pub keyed: bool,
    /// What becomes of the subscriber if it is too far behind.
    pub slow_consumer: SlowConsumer,
    /// The least time between two deliveries, in milliseconds; 0: none.
    pub throttle_ms: u64,
}

impl Begin {
    /// Of an answer that says nothing else.
    #[must_use]
    pub fn at(after: Position) -> Self {
        Self {
            after,
            recovered: None,
            available_from: None,
            keyed: false,
            slow_consumer: SlowConsumer::Disconnect,
            throttle_ms: 0,
        }
    }
}

/// The first message of a raw connection with a position.
#[derive(Deserialize)]
struct SaidPosition<'m> {
    #[serde(borrow)]
    epoch: Cow<'m, str>,
    offset: u64,
}

/// Reads the first message of a raw connection that asked for its position.
pub(super) fn read_position(message: &[u8]) -> Option<Position> {
    let said: SaidPosition<'_> = serde_json::from_slice(message).ok()?;
    Some(Position { epoch: epoch(&said.epoch)?, offset: said.offset })
}

/// 16 hexadecimal digits in lower case.
fn epoch(text: &str) -> Option<u64> {
    let canonical = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(text, 16).ok().filter(|_| canonical)
}

/// Reads what stands behind a payload of text, from its quotation mark on: with members that this protocol does not know
/// yet, which a client must ignore. Nothing if the payload was no text, or this is no JSON.
pub(super) fn read_tail(tail: &[u8]) -> Option<Envelope> {
    if let Some(envelope) = usual_tail(tail) {
        return Some(envelope);
    }
    #[derive(Deserialize)]
    struct Rest<'m> {
        encoding: Option<IgnoredAny>,
        prev: Option<u64>,
        #[serde(borrow)]
        key: Option<Cow<'m, str>>,
        #[serde(default)]
        state: bool,
    }
    if !tail.starts_with(b"\"") {
        return None;
    }
    let object = [br#"{"data":""#, tail].concat();
    let rest: Rest<'_> = serde_json::from_slice(&object).ok()?;
    let key = match &rest.key {
        Some(key) => Some(key.parse().ok()?),
        None => None,
    };
    rest.encoding.is_none().then_some(Envelope { offset: 0, prev: rest.prev, key, state: rest.state })
}

/// `","key":"17","state":true}` and parts of it, as the broker writes them.
fn usual_tail(tail: &[u8]) -> Option<Envelope> {
    let mut rest = tail.strip_prefix(b"\"")?;
    let mut key = None;
    if let Some(behind) = rest.strip_prefix(br#","key":""#) {
        let len = behind.iter().position(|byte| !byte.is_ascii_digit())?;
        let digits = std::str::from_utf8(&behind[..len]).ok()?;
        key = Some(digits.parse().ok()?);
        rest = behind[len..].strip_prefix(b"\"")?;
    }
    let state = rest.strip_prefix(br#","state":true"#);
    let end = state.unwrap_or(rest);
    (end == b"}").then_some(Envelope { offset: 0, prev: None, key, state: state.is_some() })
}

/// The members of section 4 that matter here.
#[derive(Deserialize)]
pub(super) struct Said<'m> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'m, str>,
    pub(super) topic: Option<Cow<'m, str>>,
    pub(super) data: Option<serde_json::Value>,
    pub(super) encoding: Option<Cow<'m, str>>,
    pub(super) code: Option<Cow<'m, str>>,
    pub(super) reason: Option<Cow<'m, str>>,
    pub(super) from: Option<u64>,
    pub(super) to: Option<u64>,
    #[serde(borrow)]
    pub(super) topics: Option<Vec<Begun<'m>>>,
    epoch: Option<Cow<'m, str>>,
    offset: Option<u64>,
    prev: Option<u64>,
    key: Option<Cow<'m, str>>,
    #[serde(default)]
    state: bool,
}

/// One topic of the answer to `subscribe`.
#[derive(Deserialize)]
pub(super) struct Begun<'m> {
    #[serde(borrow)]
    pub(super) topic: Cow<'m, str>,
    epoch: Option<Cow<'m, str>>,
    offset: Option<u64>,
    recovered: Option<bool>,
    available: Option<Available>,
    history: Option<Cow<'m, str>>,
    slow_consumer: Option<Cow<'m, str>>,
    #[serde(default)]
    throttle: u64,
}

#[derive(Deserialize)]
struct Available {
    from: u64,
}

impl Begun<'_> {
    /// Nothing for a filter with wildcards, which spans many topics.
    ///
    /// # Errors
    /// It names a policy that this program does not know, so that it could not say what may be missing.
    pub(super) fn begin(&self) -> Result<Option<Begin>, String> {
        let said = self.slow_consumer.as_deref();
        let slow_consumer = SlowConsumer::read(said)
            .ok_or_else(|| format!("an unknown slow_consumer: {:?}", said.unwrap_or_default()))?;
        let after = || Some(Position { epoch: epoch(self.epoch.as_ref()?)?, offset: self.offset?.checked_sub(1)? });
        Ok(after().map(|after| Begin {
            after,
            recovered: self.recovered,
            available_from: self.available.as_ref().map(|available| available.from),
            keyed: self.history.as_deref() == Some("keyed"),
            slow_consumer,
            throttle_ms: self.throttle,
        }))
    }
}

impl Said<'_> {
    pub(super) fn envelope(&self) -> Envelope {
        Envelope {
            offset: self.offset.unwrap_or(0),
            prev: self.prev,
            key: self.key.as_ref().and_then(|key| key.parse().ok()),
            state: self.state,
        }
    }

    /// Of a `reset`.
    pub(super) fn position(&self) -> Option<Position> {
        Some(Position { epoch: epoch(self.epoch.as_ref()?)?, offset: self.offset? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_as_the_broker_writes_them_and_others() {
        let plain = Envelope::default();
        let state = Envelope { key: Some(17), state: true, ..plain };
        for (tail, envelope) in [
            (r#""}"#, plain),
            (r#"","key":"17","state":true}"#, state),
            (r#"", "state": true, "new": [1], "key": "17"}"#, state),
            (r#"","key":"5"}"#, Envelope { key: Some(5), ..plain }),
            (r#"","state":true}"#, Envelope { state: true, ..plain }),
            (r#"","state":true,"prev":9}"#, Envelope { state: true, prev: Some(9), ..plain }),
        ] {
            assert_eq!(read_tail(tail.as_bytes()), Some(envelope), "{tail}");
        }
        for tail in ["", "}", r#"""#, r#""}x"#, r#"","key":"x"}"#, r#"","encoding":"base64"}"#, r#"","key":"1""#] {
            assert_eq!(read_tail(tail.as_bytes()), None, "{tail}");
        }
    }

    #[test]
    fn positions() {
        let position = Position { epoch: 0x18b3_f0a2_c4d5_e6f7, offset: 12 };
        assert_eq!(read_position(br#"{"epoch":"18b3f0a2c4d5e6f7","offset":12}"#), Some(position));
        for text in
            [r#"{"epoch":"18B3F0A2C4D5E6F7","offset":12}"#, r#"{"epoch":"7","offset":1}"#, r#"{"offset":1}"#, "{}"]
        {
            assert_eq!(read_position(text.as_bytes()), None, "{text}");
        }
        let said: Said<'_> = serde_json::from_str(
            r#"{"type":"ok","id":0,"topics":[{"topic":"a","epoch":"000000000000000a","offset":4,"recovered":false,
                "available":{"from":3,"to":9},"history":"keyed","slow_consumer":"latest","throttle":100},
                {"topic":"a/+"},{"topic":"b","epoch":"000000000000000a","offset":1},{"topic":"c","slow_consumer":"x"}]}"#,
        )
        .unwrap();
        let topics = said.topics.unwrap();
        let begin = topics[0].begin().unwrap().unwrap();
        assert_eq!((begin.after, begin.recovered), (Position { epoch: 10, offset: 3 }, Some(false)));
        assert_eq!((begin.available_from, begin.keyed), (Some(3), true));
        assert_eq!((begin.slow_consumer, begin.throttle_ms), (SlowConsumer::Latest, 100));
        assert_eq!(topics[1].begin(), Ok(None));
        assert_eq!(topics[2].begin(), Ok(Some(Begin::at(Position { epoch: 10, offset: 0 }))));
        assert!(topics[3].begin().unwrap_err().contains("\"x\""));
    }
}
