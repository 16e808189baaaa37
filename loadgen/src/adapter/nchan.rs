//! Nchan in nginx: WebSocket locations for subscribers and publishers (Nchan's README: "Subscriber Endpoints",
//! "Publisher Endpoints", "Channel Multiplexing").
//!
//! Subscribers receive bare payloads as text. A publisher's location answers every message with information about the
//! channel; these answers are ignored. The usual paths need this in `nginx.conf`:
//!
//! ```nginx
//! location = /sub {
//!     nchan_subscriber websocket;
//!     nchan_channel_id $arg_id;
//!     nchan_channel_id_split_delimiter ",";    # several topics per client
//!     nchan_subscriber_first_message newest;   # nothing from before the subscription
//! }
//! location = /pub {
//!     nchan_publisher websocket;
//!     nchan_channel_id $arg_id;
//! }
//! location = /bus {                            # clients that do both
//!     nchan_pubsub websocket;
//!     nchan_channel_id $arg_id;
//!     nchan_subscriber_first_message newest;
//! }
//! nchan_max_channel_id_length 4096;            # many topics per client: all their names, with commas
//! ```
//!
//! For slow subscribers Nchan silently drops what is beyond `nchan_message_buffer_length`: it must be large enough for the
//! messages under way.
//!
//! A path given by the user replaces these. In it `{topic}` stands for the topic's name, or for all names of a client,
//! separated by commas; a segment `/sub` becomes `/pub` for publishers unless they have a URL of their own, and `/bus`
//! for clients that do both. Names are `prefix_7`, so that a location like `~ /sub/(\w+)$` takes them too.

use anyhow::{Result, ensure};

use super::names::{Called, percent_encoded};
use super::raw::Bare;
use super::url::{TOPIC, Url, Urls};
use super::{Duty, Names};
use crate::stamp::Payloads;

/// Channels of one multiplexed subscriber.
pub(super) const MULTIPLEXED_MAX: u32 = 255;

/// Nchan's locations.
#[derive(Debug)]
pub(super) struct Nchan {
    /// Percent-encoded.
    names: Called,
    pub(super) urls: Urls,
}

impl Nchan {
    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        ensure!(
            !names.prefix.is_empty() && !names.prefix.contains(','),
            "the topic {:?} cannot be used: Nchan takes commas for several channels",
            names.prefix
        );
        let usual = ["/sub", "/pub", "/bus"].map(|path| format!("{path}?id={TOPIC}"));
        let urls = Urls::new(url, publish, names.count, &usual)?;
        Ok(Self { names: Called::new(names, '_').quoted(percent_encoded), urls })
    }

    pub(super) fn path(&self, duty: &Duty) -> String {
        let topics = if duty.subscribes.count > 0 { duty.subscribes } else { duty.publishes };
        let mut names = String::new();
        for topic in topics.iter(self.names.count()) {
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(&self.names.name(topic));
        }
        self.urls.of(duty).path.replace(TOPIC, &names)
    }

    pub(super) fn content<'a>(&self, duty: &'a Duty, payloads: &'a Payloads) -> Bare<'a> {
        Bare { payloads, duty, topics: self.names.count() }
    }
}

#[cfg(test)]
mod tests {
    use protocol::frame::Opcode;

    use super::*;
    use crate::adapter::testing::{Event, frame, seen_everyhow};
    use crate::adapter::{Adapter, Protocol, Topics};
    use crate::stamp::Sizes;

    fn adapter(url: &str, prefix: &str, count: u32) -> Result<Adapter> {
        let names = Names { prefix: prefix.to_owned(), count };
        Adapter::new(Protocol::Nchan, url, None, &names, Payloads::new(Sizes::Fixed(24)))
    }

    fn path(adapter: &Adapter, subscribes: Topics, publishes: Topics) -> String {
        let mut request = Vec::new();
        adapter.request(&Duty { subscribes, publishes }, &mut request);
        let request = String::from_utf8(request).unwrap();
        request.strip_prefix("GET ").unwrap().split_once(" HTTP/1.1\r\n").unwrap().0.to_owned()
    }

    #[test]
    fn paths() {
        let none = Topics::default();
        let three = Topics { first: 10, step: 1, count: 3 };
        let one = Topics { first: 5, step: 0, count: 1 };
        let bare = adapter("ws://127.0.0.1:9", "a b", 12).unwrap();
        assert_eq!(path(&bare, three, none), "/sub?id=a%20b_10,a%20b_11,a%20b_0");
        assert_eq!(path(&bare, none, one), "/pub?id=a%20b_5");
        assert_eq!(path(&bare, one, one), "/bus?id=a%20b_5");
        let named = adapter("ws://127.0.0.1:9/x/sub/{topic}", "a", 12).unwrap();
        assert_eq!(path(&named, three, none), "/x/sub/a_10,a_11,a_0");
        assert_eq!(path(&named, none, one), "/x/pub/a_5");
        assert!(adapter("ws://127.0.0.1:9/sub", "a", 12).is_err());
        assert!(adapter("ws://127.0.0.1:9", "a,b", 1).is_err());
    }

    #[test]
    fn answers_to_publishers_are_passed_over() {
        let adapter = adapter("ws://127.0.0.1:9", "a", 1).unwrap();
        let answer = "queued messages: 1\r\nlast requested: 0 sec. ago\r\nactive subscribers: 1";
        let stream = frame(Opcode::Text, answer.as_bytes()).repeat(3);
        let publishes = Duty { publishes: Topics { count: 1, ..Topics::default() }, ..Duty::default() };
        assert_eq!(seen_everyhow(&adapter, &publishes, &stream), []);
        let subscribes = Duty { subscribes: Topics { count: 1, ..Topics::default() }, ..Duty::default() };
        assert_eq!(seen_everyhow(&adapter, &subscribes, &stream), [Event::Foreign, Event::Foreign, Event::Foreign]);
    }
}
