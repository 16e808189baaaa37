//! The wire protocols, and what a connection can do in each of them.

#[cfg(doc)]
use super::Adapter;
use super::nchan;

/// A wire protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Ringyard's raw endpoints.
    Raw,
    /// `ringyard.v1`.
    V1,
    /// NATS over WebSocket.
    Nats,
    /// MQTT 3.1.1 over WebSocket.
    Mqtt,
    /// Nchan in nginx.
    Nchan,
    /// Every message goes to all clients.
    Plain,
    /// Ringyard's server-sent events, with raw publishers.
    Sse,
}

impl Protocol {
    /// As options and outcomes write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::V1 => "v1",
            Self::Nats => "nats",
            Self::Mqtt => "mqtt",
            Self::Nchan => "nchan",
            Self::Plain => "plain",
            Self::Sse => "sse",
        }
    }

    /// What it can do.
    #[must_use]
    pub fn abilities(self) -> Abilities {
        // One topic per connection, named by its URL; nothing but payloads comes back.
        let bare = Abilities {
            subscriptions_max: 1,
            publications_max: 1,
            both: true,
            churn: false,
            discard: true,
            echoes: true,
            history: false,
            state: false,
        };
        match self {
            Self::Raw => Abilities { history: true, ..bare },
            Self::Plain => bare,
            // Ids grow with offsets.
            Self::Sse => Abilities { both: false, discard: false, ..bare },
            Self::Nchan => Abilities { subscriptions_max: nchan::MULTIPLEXED_MAX, ..bare },
            // Topics are named in commands, and messages come with what differs from client to client.
            Self::V1 | Self::Nats | Self::Mqtt => Abilities {
                subscriptions_max: u32::MAX,
                publications_max: u32::MAX,
                churn: true,
                discard: false,
                history: self == Self::V1,
                state: self == Self::V1,
                ..bare
            },
        }
    }
}

/// What a protocol can do. A run that needs more is refused before it begins, with a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// Topics one connection may subscribe to.
    pub subscriptions_max: u32,
    /// Topics one connection may publish on.
    pub publications_max: u32,
    /// One connection can do both.
    pub both: bool,
    /// [`Adapter::subscribe`] and [`Adapter::unsubscribe`] exist.
    pub churn: bool,
    /// [`Adapter::wire_len`] is exact, so that clients may count bytes without looking at them.
    pub discard: bool,
    /// A client receives what it publishes itself.
    pub echoes: bool,
    /// A subscription can begin after a position ([`Adapter::request_with`], [`Adapter::greet_with`]).
    pub history: bool,
    /// Messages can have a key and be retained, and the end of state is announced.
    pub state: bool,
}
