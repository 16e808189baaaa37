//! Nchan in nginx: WebSocket locations for subscribers and publishers (Nchan's README: "Subscriber Endpoints",
//! "Publisher Endpoints", "Channel Multiplexing").
//!
//! Subscribers get payloads as they are, as text. A publisher's location answers every message with what it knows of
//! the channel; those answers are passed over. What the usual paths need in `nginx.conf`:
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
//! Nchan drops what is beyond `nchan_message_buffer_length` for subscribers that are behind, and tells nobody: give it
//! room for what may be under way.
//!
//! A path of the user's goes before these. In it `{topic}` stands for the topic's name, or for all names of a client
//! with commas between; a segment `/sub` becomes `/pub` for publishers unless they have a URL of their own, and `/bus`
//! for clients that do both. Names are `prefix_7`, so that a location like `~ /sub/(\w+)$` takes them too.

use anyhow::{Result, ensure};

use super::names::{Called, percent_encoded};
use super::raw::{Bare, Raw};
use super::url::{TOPIC, Url};
use super::{Abilities, Duty, Names};
use crate::stamp::Payloads;

/// Channels of one multiplexed subscriber.
const MULTIPLEXED_MAX: u32 = 255;

/// Nchan's locations.
#[derive(Debug)]
pub(super) struct Nchan {
    /// Percent-encoded.
    names: Called,
    subscribe: Url,
    publish: Url,
    both: Url,
}

impl Nchan {
    pub(super) const ABILITIES: Abilities = Abilities {
        subscriptions_max: MULTIPLEXED_MAX,
        publications_max: 1,
        both: true,
        churn: false,
        discard: true,
        echoes: true,
    };

    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        ensure!(
            !names.prefix.is_empty() && !names.prefix.contains(','),
            "the topic {:?} cannot be used: Nchan takes commas for several channels",
            names.prefix
        );
        let usual = ["/sub", "/pub", "/bus"].map(|path| format!("{path}?id={TOPIC}"));
        let [subscribe, publish, both] = Raw::paths(url, publish, names.count, usual)?;
        Ok(Self { names: Called::new(names, '_').quoted(percent_encoded), subscribe, publish, both })
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        match (duty.subscribes.count, duty.publishes.count) {
            (0, _) => &self.publish,
            (_, 0) => &self.subscribe,
            _ => &self.both,
        }
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
        self.url(duty).path.replace(TOPIC, &names)
    }

    pub(super) fn content<'a>(&self, duty: &'a Duty, payloads: &'a Payloads) -> Bare<'a> {
        Bare { payloads, duty, topics: self.names.count() }
    }
}
