//! Who gets in: the rules for connections and requests, in their order, for both planes. The first that objects wins.
//!
//! | moment | rule | concerns | answer |
//! | --- | --- | --- | --- |
//! | accepted | begins with a PROXY header | trusted proxies, with `--proxy-protocol` | closed |
//! | its client is known ([`Policy::admit_connection`]) | connections of the address | all connections but trusted proxies' | 429 |
//! | a head comes | memory to keep it, time; then whether it is well-formed (`protocol::head`) | all requests | 503, 408; 4xx, 501 |
//! | handed to the control plane (`http/places.rs`) | HTTP connections of the address, of all | HTTP connections | 429, 503 |
//! | its head is complete ([`Policy::decide`]) | host | all requests | 421 |
//! | | origin | what changes something, and handshakes | 403 |
//! | | key | publishing: needs one, or brings a wrong one | 401 |
//! | | clients may publish | publishing without a key, with `--client-publish off` | 403 |
//! | | port has WebSockets | handshakes | 404 |
//! | | publish rate | publishes | 429 |
//! | | broker stays | handshakes, publishes | 503 |
//! | | room for the topic | handshakes of one topic, publishes | 503 |
//! | | new topics of the client | publishes | 429 |
//! | | connections of the address | handshakes through trusted proxies | 429 |
//! | | slots of the shard | handshakes that it answers itself | 503 |
//! | | connections of all shards | handshakes | 503 |
//! | | handshakes a second | handshakes | 503 |
//!
//! A request for a stream of events counts as a handshake.
//!
//! A publish is judged twice: with its head as a request that changes something, and once its body is there. A shard
//! judges the handshake that a connection begins with, and single publishes in their usual form; the control plane
//! everything else.
//!
//! Who may publish, by `--publish-key` and `--client-publish` (a `publish` command on `/ws` that may not is answered
//! with the error `forbidden`: `shard/actions.rs`):
//!
//! | | `POST /pub`, `/pub` | `/bus` | `publish` on `/ws` |
//! | --- | --- | --- | --- |
//! | neither option | everybody | everybody | everybody |
//! | `--client-publish off` | nobody (403) | nobody (403) | nobody |
//! | `--publish-key` | with a key (401) | everybody | everybody |
//! | both | with a key (401) | with a key (403) | with a key |
//!
//! Anyone who brings a wrong key to one of these gets 401, whatever is open to others: it is not who it says.
//!
//! Not responsible for what answers look like ([`Rejection`]), nor for handlers' own errors. Facts that belong to other
//! modules are arguments. Cost: no allocation unless it rejects; two atomic operations per handshake; a lock where an
//! address is counted.

use std::net::IpAddr;
use std::sync::Arc;

use ring::Nanos;

use crate::access::address::{self, AddressLease, AddressSlot, Addresses, Client, TooMany};
use crate::access::admission::Admission;
use crate::access::keys::{Credential, PublishKeys};
use crate::access::quota::{ClientShares, Name, NamesFull, NamesLeft};
use crate::access::rate::RateLimiter;
use crate::access::rejection::Rejection;
use crate::access::{host, origin};
use crate::config::limits::Limits;
use crate::observe::counters::Refused;
use crate::observe::refused::RefusedValues;

/// What the rules compare facts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy<'a> {
    /// The configured ones.
    pub(crate) limits: &'a Limits,
    /// What was refused, for the log.
    pub(crate) refused: &'a RefusedValues,
    /// Keys to publish with.
    pub(crate) keys: &'a PublishKeys,
    /// Connections by address.
    pub(crate) addresses: &'a Arc<Addresses>,
    /// WebSockets of all shards.
    pub(crate) admission: &'a Admission,
    /// Whether the broker is on its way out.
    pub(crate) is_draining: bool,
    /// On the monotonic clock.
    pub(crate) now: Nanos,
}

/// What is known of a request.
#[derive(Debug)]
pub(crate) struct RequestFacts<'a> {
    /// The host that it is addressed to, with its port if one was given. `None`: judged before, or it names none, which
    /// only HTTP/1.0 may do; no browser speaks that.
    pub(crate) host: Option<&'a str>,
    /// The origin of the page that sent it, if one did. `None`, too, if it was judged before.
    pub(crate) origin: Option<&'a str>,
    /// Whether it leads to messages that are published.
    pub(crate) publishing: Publishing,
    /// What it is about.
    pub(crate) kind: Kind<'a>,
}

/// Whether a request leads to messages that are published, and with what right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Publishing {
    /// It does not.
    None,
    /// It is there for nothing else: `POST /pub`, or a WebSocket at `/pub`.
    Only(Credential),
    /// It is there to publish and to subscribe: `/bus`.
    Both(Credential),
    /// It may, by commands that are judged one by one: `/ws`.
    ByCommand(Credential),
}

/// What a request is about.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    /// It reads something. A foreign page may ask, since its browser shows it no answer that does not name it.
    Read,
    /// It may change something, or asks whether it may (a preflight).
    Change,
    /// A WebSocket handshake.
    Handshake(HandshakeFacts),
    /// A message is there to be published.
    Publish(PublishFacts<'a>),
}

/// What is known of a handshake.
#[derive(Debug)]
pub(crate) struct HandshakeFacts {
    /// Whether the port has this WebSocket.
    pub(crate) is_public: bool,
    /// Whether there is room for the topic that it names, if it names one.
    pub(crate) topic: Result<Name, NamesFull>,
    /// For whom a trusted proxy speaks. `None`: for itself, or the connection comes from no trusted proxy.
    pub(crate) forwarded: Option<IpAddr>,
    /// Whether the shard that answers it has a slot for it.
    pub(crate) has_slot: bool,
}

/// What is known of a message that came over HTTP.
#[derive(Debug)]
pub(crate) struct PublishFacts<'a> {
    /// Of its connection.
    pub(crate) rate_limiter: &'a mut RateLimiter,
    /// Whether there is room for its topic.
    pub(crate) topic: Result<Name, NamesFull>,
    /// What its topic's name takes, in bytes.
    pub(crate) name_bytes: u64,
    /// For how many more names there is room.
    pub(crate) names_left: NamesLeft,
    /// Who publishes, if that is known.
    pub(crate) client: Option<Client>,
    /// What clients began so far.
    pub(crate) shares: &'a ClientShares,
}

impl Policy<'_> {
    /// Judges a connection once it is known whose it is; `None`: a trusted proxy's that speaks for itself, or says later
    /// for whom. Its slot is given back to the [`Addresses`].
    ///
    /// # Errors
    /// The client has too many.
    pub(crate) fn admit_connection(&self, client: Option<IpAddr>) -> Result<AddressSlot, Rejection> {
        match client {
            Some(ip) if !address::is_trusted(ip, &self.limits.trusted_proxies) => self.count(ip),
            _ => Ok(AddressSlot::TRUSTED),
        }
    }

    /// What a request says about its right to publish. `bearer` finds the key that it brings, and is asked only if there
    /// are keys.
    pub(crate) fn credential<'b>(&self, bearer: impl FnOnce() -> Option<&'b [u8]>) -> Credential {
        if self.keys.are_needed() { self.keys.judge(bearer()) } else { Credential::Unneeded }
    }

    /// Judges a request. A handshake that is admitted counts in the [`Admission`] until [`Admission::leave`]; if its client
    /// was counted only now, the lease holds its place.
    ///
    /// # Errors
    /// The first rule, in the order of the file's head, that objects.
    pub(crate) fn decide(&self, request: RequestFacts<'_>) -> Result<Option<AddressLease>, Rejection> {
        let RequestFacts { host, origin, publishing, mut kind } = request;
        if let Some(host) = host.filter(|host| !host::allowed(host, &self.limits.hosts)) {
            self.refused.note(Refused::Host, host);
            return Err(Rejection::Host(host.to_owned()));
        }
        if !matches!(kind, Kind::Read) && !origin::allowed(origin, host.unwrap_or_default(), &self.limits.origins) {
            self.refused.note(Refused::Origin, origin.unwrap_or_default());
            return Err(Rejection::Origin);
        }
        self.check_publishing(publishing)?;
        if matches!(kind, Kind::Handshake(HandshakeFacts { is_public: false, .. })) {
            return Err(Rejection::NoWebSockets);
        }
        if let (Kind::Publish(publish), Some(rate_max)) = (&mut kind, self.limits.publish_rate_max)
            && !publish.rate_limiter.take(self.now, rate_max)
        {
            return Err(Rejection::PublishRate);
        }
        let topic = match &kind {
            Kind::Read | Kind::Change => return Ok(None),
            Kind::Handshake(HandshakeFacts { topic, .. }) | Kind::Publish(PublishFacts { topic, .. }) => *topic,
        };
        if self.is_draining {
            return Err(self.admission.draining());
        }
        let name = topic.map_err(Rejection::Topics)?;
        if let Kind::Publish(PublishFacts { shares, client, name_bytes, names_left, .. }) = kind
            && name == Name::New
            && !shares.take(client, self.now, self.limits, name_bytes, names_left)
        {
            return Err(Rejection::NewTopics);
        }
        let Kind::Handshake(HandshakeFacts { forwarded, has_slot, .. }) = kind else { return Ok(None) };
        let slot = forwarded.map(|ip| self.count(ip)).transpose()?;
        let lease = slot.map(|slot| AddressLease::new(self.addresses, slot));
        if !has_slot {
            return Err(self.admission.full());
        }
        self.admission.enter(self.now)?;
        Ok(lease)
    }

    /// Whether the key that a request brings, or its lack of one, lets it publish.
    fn check_publishing(&self, publishing: Publishing) -> Result<(), Rejection> {
        let clients_may = self.limits.client_publish;
        match publishing {
            Publishing::Only(Credential::Wrong)
            | Publishing::Both(Credential::Wrong)
            | Publishing::ByCommand(Credential::Wrong) => Err(Rejection::WrongKey),
            Publishing::Only(Credential::Missing) => Err(Rejection::NoKey),
            Publishing::Only(Credential::Unneeded) if !clients_may => Err(Rejection::ReadOnly),
            Publishing::Both(Credential::Unneeded | Credential::Missing) if !clients_may => Err(Rejection::ReadOnly),
            _ => Ok(()),
        }
    }

    fn count(&self, ip: IpAddr) -> Result<AddressSlot, Rejection> {
        let slot = self.addresses.admit(ip, self.limits.connections_per_address_max);
        slot.map_err(|TooMany| Rejection::Address)
    }
}

#[cfg(test)]
mod tests;
