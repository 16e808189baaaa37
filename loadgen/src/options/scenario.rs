//! The scenarios, and the options that each of them sets unless they were given.

use clap::ValueEnum;

use super::{Options, Payload, Rate, Share};
use crate::adapter::Protocol;
use crate::stamp::{STREAMS_MAX, Sizes};
use crate::threshold::Threshold;

/// What the clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Scenario {
    /// All subscribe to one topic, one publisher
    #[default]
    FanOut,
    /// A tenth as many topics as clients, one publisher each where the protocol needs it; 1,000 messages per second
    ManyTopics,
    /// Rooms of ten; everyone publishes, once in ten seconds
    Chat,
    /// A thousand publishers on one topic, ten readers; 10,000 messages per second
    Telemetry,
    /// Nobody publishes
    Idle,
    /// All connect at once; nobody publishes
    ConnectStorm,
    /// Ten messages per second; three times, all disconnect and come back
    ReconnectStorm,
    /// A tenth of the clients never reads; 100 messages per second
    SlowConsumers,
    /// Each second a tenth of the subscriptions is ended and begun again; 10 messages per second
    Churn,
    /// Payloads of 64 bytes to 64 KiB; 20 messages per second
    MixedSizes,
    /// Each second a tenth of the clients is dropped, comes back and gets what it missed; 100 messages per second on ten
    /// topics
    Recovery,
    /// Newcomers get the newest message of each of 1,000 keys (or, with --retain, of 1,000 topics) after publishing ended
    KeyedState,
    /// 5,000 clients whose topic is conflated; 500 messages per second over 50 keys
    Conflate,
    /// 10,000 others log in at once while 100 messages per second reach those that are there (needs tokens)
    LoginStorm,
    /// Pairs of a connection that asks and one that answers, one call at a time; also nats://HOST:PORT
    RequestReply,
    /// 1,000 members enter a topic within a second, before 1,000 watchers who learn of each; judged
    PresenceCrowd,
}

impl Scenario {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().expect("none is hidden").get_name().to_owned()
    }
}

impl Options {
    /// Sets the options that were not given: by the scenario, or else by default.
    #[must_use]
    pub fn completed(mut self) -> Self {
        fn or<T>(place: &mut Option<T>, value: T) {
            place.get_or_insert(value);
        }
        let clients = self.clients.unwrap_or(1000);
        let per_second = |rate| Rate::PerSecond(rate);
        let paced = self.outstanding.is_none();
        let rate = |place: &mut Option<Rate>, rate| {
            if paced {
                or(place, per_second(rate));
            }
        };
        match self.scenario {
            Scenario::FanOut => {}
            Scenario::ManyTopics => {
                or(&mut self.topics, (clients / 10).clamp(1, 100_000) as u32);
                rate(&mut self.rate, 1000.0);
            }
            Scenario::Chat => {
                or(&mut self.topics, (clients / 10).clamp(1, u64::from(STREAMS_MAX)) as u32);
                self.everyone_publishes = true;
                rate(&mut self.rate, (clients as f64 / 10.0).max(1.0));
            }
            Scenario::Telemetry => {
                or(&mut self.clients, 10);
                or(&mut self.publishers, 1000);
                rate(&mut self.rate, 10_000.0);
            }
            Scenario::Idle | Scenario::ConnectStorm => self.idle = true,
            Scenario::ReconnectStorm => {
                or(&mut self.storms, 3);
                rate(&mut self.rate, 10.0);
            }
            Scenario::SlowConsumers => {
                or(&mut self.slow_share, 0.1);
                rate(&mut self.rate, 100.0);
            }
            Scenario::Churn => {
                or(&mut self.churn, (clients as f64 / 10.0).max(1.0));
                rate(&mut self.rate, 10.0);
            }
            Scenario::MixedSizes => {
                or(&mut self.payload, Payload(Sizes::Mixed(vec![64, 256, 1024, 4096, 16_384, 65_536])));
                rate(&mut self.rate, 20.0);
            }
            Scenario::Recovery | Scenario::KeyedState => self.complete_history(clients, paced),
            Scenario::Conflate => self.complete_conflation(paced),
            Scenario::LoginStorm => self.complete_logins(paced),
            Scenario::RequestReply => or(&mut self.clients, 1),
            Scenario::PresenceCrowd => {}
        }
        self.complete_rest();
        self
    }

    /// What no scenario sets.
    fn complete_rest(&mut self) {
        fn or<T>(place: &mut Option<T>, value: T) {
            place.get_or_insert(value);
        }
        if self.scenario == Scenario::ConnectStorm {
            or(&mut self.ramp, Rate::Max);
            self.concurrency = self.concurrency.max(8192);
        }
        or(&mut self.clients, 1000);
        or(&mut self.topics, 1);
        or(&mut self.topics_per_client, 1);
        or(&mut self.payload, Payload(Sizes::Fixed(128)));
        or(&mut self.rate, Rate::Max);
        or(&mut self.outstanding, 1);
        or(&mut self.slow_rate, 0);
        or(&mut self.protocol, Protocol::Raw);
    }

    /// The same for the scenario in which others log in.
    fn complete_logins(&mut self, paced: bool) {
        self.protocol.get_or_insert(Protocol::V1);
        self.access.logins.get_or_insert(10_000);
        if paced {
            self.rate.get_or_insert(Rate::PerSecond(100.0));
        }
        // One ring dials them all: more at once would be more than listeners keep, and be dialled again a second later.
        self.concurrency = self.concurrency.max(4096);
        if !self.fail_if.iter().any(Threshold::is_about_logins) {
            self.fail_if.push(Threshold::login_ratio());
        }
    }

    /// The same for the scenario about topics whose subscribers are conflated.
    fn complete_conflation(&mut self, paced: bool) {
        self.protocol.get_or_insert(Protocol::V1);
        let clients = *self.clients.get_or_insert(5000);
        self.keys.get_or_insert(50);
        self.slow_rate.get_or_insert(1000);
        if paced {
            self.rate.get_or_insert(Rate::PerSecond(500.0));
        }
        // All of them would be 2.5 million messages a second to look at.
        self.verify.get_or_insert(Share((500.0 / clients as f64).min(1.0)));
    }

    /// The same for scenarios about what topics remember.
    fn complete_history(&mut self, clients: u64, paced: bool) {
        self.protocol.get_or_insert(Protocol::V1);
        let per_second = if self.scenario == Scenario::Recovery {
            self.topics.get_or_insert((clients / 10).clamp(1, 10) as u32);
            let drops = if self.behind.is_none() { (clients as f64 / 10.0).max(1.0) } else { 0.0 };
            self.drops.get_or_insert(drops);
            100.0
        } else if self.retain {
            let topics = *self.topics.get_or_insert(1000);
            self.topics_per_client.get_or_insert(topics);
            1000.0
        } else {
            self.keys.get_or_insert(1000);
            1000.0
        };
        if paced {
            self.rate.get_or_insert(Rate::PerSecond(per_second));
        }
    }
}
