//! Any server that sends every message to all connections of the same URL, the sender included.
//!
//! There is one topic only. The acceptance of the upgrade counts as the subscription. A client that only publishes also
//! receives everything, and ignores it.

use anyhow::{Result, ensure};

use super::raw::Bare;
use super::url::{TOPIC, Url};
use super::{Duty, Names};
use crate::stamp::Payloads;

/// A broadcasting server.
#[derive(Debug)]
pub(super) struct Plain {
    subscribe: Url,
    publish: Url,
}

impl Plain {
    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        ensure!(names.count == 1, "a plain server has one topic, not {}: everybody gets everything", names.count);
        ensure!(!url.names_topic(), "a plain server has no topics: {TOPIC} in the path has nothing to stand for");
        Ok(Self { subscribe: url.clone(), publish: publish.unwrap_or(url).clone() })
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        if duty.subscribes.count == 0 { &self.publish } else { &self.subscribe }
    }

    pub(super) fn content<'a>(&self, duty: &'a Duty, payloads: &'a Payloads) -> Bare<'a> {
        Bare { payloads, duty, topics: 1 }
    }
}

#[cfg(test)]
mod tests {
    use protocol::frame::Opcode;

    use super::*;
    use crate::adapter::testing::{Event, adapter, frame, seen_everyhow};
    use crate::adapter::{Adapter, Protocol, Topics};
    use crate::stamp::{Sizes, Stamp};

    #[test]
    fn those_who_only_publish_pass_over_what_comes() {
        let adapter = adapter(Protocol::Plain, Sizes::Fixed(40));
        let stamp = Stamp { stream: 7, seq: 1, sent_ns: 2 };
        let mut payload = Vec::new();
        Payloads::new(Sizes::Fixed(40)).write(stamp, &mut payload);
        let stream = [frame(Opcode::Text, &payload), frame(Opcode::Ping, b"")].concat();
        let topics = Topics { first: 0, step: 0, count: 1 };
        let pong = [Event::Ping, Event::Reply(Opcode::Pong, vec![])];
        let both = Duty { subscribes: topics, publishes: topics };
        assert_eq!(seen_everyhow(&adapter, &both, &stream), [&[Event::Message(stamp, true)], &pong[..]].concat());
        let publishes = Duty { subscribes: Topics::default(), publishes: topics };
        assert_eq!(seen_everyhow(&adapter, &publishes, &stream), pong);
    }

    #[test]
    fn one_topic_only() {
        let new = |url: &str, count| {
            let names = Names { prefix: "a".to_owned(), count };
            Adapter::new(Protocol::Plain, url, None, &names, Payloads::new(Sizes::Fixed(24)))
        };
        assert!(new("ws://127.0.0.1:9/x", 1).is_ok());
        assert!(new("ws://127.0.0.1:9/x", 2).is_err());
        assert!(new("ws://127.0.0.1:9/{topic}", 1).is_err());
    }
}
