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
//! A publish is judged twice: with its head as a request that changes something, and once its body is there. A shard
//! judges the handshake that a connection begins with; the control plane everything else.
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
//! Whoever brings a wrong key to one of these gets 401, whatever is open to others: it is not who it says.
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
    /// Whether the port has WebSockets.
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
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const NOW: Nanos = 1_000_000_000_000;
    const HOST: &str = "broker.example";
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    /// A request and the state that it meets.
    #[derive(Clone, Debug)]
    struct Case {
        host: Option<&'static str>,
        origin: Option<&'static str>,
        kind: &'static str,
        publishing: Publishing,
        clients_may_publish: bool,
        is_public: bool,
        rate_is_used_up: bool,
        is_draining: bool,
        topic: Result<Name, NamesFull>,
        share_is_used_up: bool,
        is_forwarded: bool,
        address_is_full: bool,
        has_slot: bool,
        is_full: bool,
        accept_rate_is_used_up: bool,
    }

    impl Case {
        fn is(&self, kind: &str) -> bool {
            self.kind == kind
        }

        fn names_a_topic(&self) -> bool {
            self.is("handshake") || self.is("publish")
        }
    }

    /// A rule, when it objects, and with what.
    type Rule = (&'static str, fn(&Case) -> bool, u16, Option<Refused>);

    /// The table in the file's head.
    const RULES: [Rule; 13] = [
        ("host", |case| case.host == Some("evil.example"), 421, Some(Refused::Host)),
        (
            "origin",
            |case| match case.origin {
                None | Some("https://app.example") => false,
                Some(own) => !case.is("read") && (own == "http://evil.example" || case.host != Some(HOST)),
            },
            403,
            Some(Refused::Origin),
        ),
        (
            "key",
            |case| match case.publishing {
                Publishing::None => false,
                Publishing::Only(credential) => [Credential::Missing, Credential::Wrong].contains(&credential),
                Publishing::Both(credential) | Publishing::ByCommand(credential) => credential == Credential::Wrong,
            },
            401,
            Some(Refused::Publish),
        ),
        (
            "clients may publish",
            |case| match case.publishing {
                Publishing::Only(credential) | Publishing::Both(credential) => {
                    !case.clients_may_publish && credential != Credential::Valid
                }
                Publishing::None | Publishing::ByCommand(_) => false,
            },
            403,
            Some(Refused::Publish),
        ),
        ("port has WebSockets", |case| case.is("handshake") && !case.is_public, 404, Some(Refused::Request)),
        ("publish rate", |case| case.is("publish") && case.rate_is_used_up, 429, None),
        ("broker stays", |case| case.names_a_topic() && case.is_draining, 503, Some(Refused::Draining)),
        ("room for the topic", |case| case.names_a_topic() && case.topic.is_err(), 503, Some(Refused::Topics)),
        (
            "new topics of the client",
            |case| case.is("publish") && case.topic == Ok(Name::New) && case.share_is_used_up,
            429,
            Some(Refused::Topics),
        ),
        (
            "connections of the address",
            |case| case.is("handshake") && case.is_forwarded && case.address_is_full,
            429,
            Some(Refused::Address),
        ),
        ("slots of the shard", |case| case.is("handshake") && !case.has_slot, 503, Some(Refused::Connections)),
        ("connections of all shards", |case| case.is("handshake") && case.is_full, 503, Some(Refused::Connections)),
        (
            "handshakes a second",
            |case| case.is("handshake") && case.accept_rate_is_used_up,
            503,
            Some(Refused::AcceptRate),
        ),
    ];

    fn cases() -> impl Strategy<Value = Case> {
        let kind = (
            select(vec![None, Some(HOST), Some("evil.example")]),
            select(vec![None, Some("http://broker.example"), Some("https://app.example"), Some("http://evil.example")]),
            select(vec!["read", "change", "handshake", "handshake", "publish", "publish"]),
        );
        // A rule that objects often would hide those behind it.
        let seldom = || prop::bool::weighted(0.2);
        let often = || prop::bool::weighted(0.8);
        let topic = select(vec![Ok(Name::Known), Ok(Name::New), Ok(Name::New), Err(NamesFull::Topics)]);
        let credential = select(vec![
            Credential::Unneeded,
            Credential::Valid,
            Credential::Valid,
            Credential::Valid,
            Credential::Missing,
            Credential::Wrong,
        ]);
        let ways = [Publishing::Only, Publishing::Both, Publishing::ByCommand, |_| Publishing::None];
        let publishing = (select(ways.to_vec()), credential).prop_map(|(way, credential)| way(credential));
        let right = (publishing, any::<bool>());
        let publish = (seldom(), seldom(), topic, any::<bool>());
        let handshake = (often(), any::<bool>(), seldom(), often(), seldom(), seldom());
        (kind, right, publish, handshake).prop_map(|((host, origin, kind), right, publish, handshake)| {
            let (publishing, clients_may_publish) = right;
            let (rate_is_used_up, is_draining, topic, share_is_used_up) = publish;
            let (is_public, is_forwarded, address_is_full, has_slot, is_full, accept_rate_is_used_up) = handshake;
            Case {
                host,
                origin,
                kind,
                publishing,
                clients_may_publish,
                is_public,
                rate_is_used_up,
                is_draining,
                topic,
                share_is_used_up,
                is_forwarded,
                address_is_full,
                has_slot,
                is_full,
                accept_rate_is_used_up,
            }
        })
    }

    fn limits() -> Limits {
        Limits {
            hosts: vec![HOST.to_owned()],
            origins: vec!["https://app.example".to_owned()],
            publish_rate_max: std::num::NonZeroU32::new(1),
            topics_per_connection_max: 1,
            connections_per_address_max: std::num::NonZeroU32::new(1),
            ..Limits::default()
        }
    }

    /// Brings everything into the state of the case, asks, and checks that a request leaves no trace if it is rejected.
    fn decide(case: &Case) -> Result<(), Rejection> {
        let limits = Limits { client_publish: case.clients_may_publish, ..limits() };
        let (refused, keys, addresses) = (RefusedValues::default(), PublishKeys::default(), Arc::default());
        let admission = Admission::new(if case.is_full { 1 } else { 2 }, std::num::NonZeroU32::new(2));
        admission.enter(if case.accept_rate_is_used_up { NOW } else { 0 }).expect("the first one");
        if case.accept_rate_is_used_up {
            admission.leave();
            admission.enter(NOW).expect("two at once");
        }
        let policy = Policy {
            limits: &limits,
            refused: &refused,
            keys: &keys,
            addresses: &addresses,
            admission: &admission,
            is_draining: case.is_draining,
            now: NOW,
        };
        let full = case.address_is_full.then(|| policy.admit_connection(Some(CLIENT)).expect("the first one"));
        let before = (admission.open(), addresses.len());

        let mut rate_limiter = RateLimiter::default();
        while case.rate_is_used_up && rate_limiter.take(NOW, limits.publish_rate_max.expect("a rate")) {}
        let shares = ClientShares::default();
        let names_left = NamesLeft { names: 100, bytes: 1 << 20, bytes_max: 1 << 20 };
        if case.share_is_used_up {
            assert!(shares.take(None, NOW, &limits, 100, names_left));
        }
        let kind = match case.kind {
            "read" => Kind::Read,
            "change" => Kind::Change,
            "handshake" => Kind::Handshake(HandshakeFacts {
                is_public: case.is_public,
                topic: case.topic,
                forwarded: case.is_forwarded.then_some(CLIENT),
                has_slot: case.has_slot,
            }),
            _ => Kind::Publish(PublishFacts {
                rate_limiter: &mut rate_limiter,
                topic: case.topic,
                name_bytes: 100,
                names_left,
                client: None,
                shares: &shares,
            }),
        };
        let decision =
            policy.decide(RequestFacts { host: case.host, origin: case.origin, publishing: case.publishing, kind });
        let is_new = decision.is_ok() && case.is("handshake");
        let shown = [Refused::Host, Refused::Origin].map(|cause| refused.take(cause).is_some());
        let objects = [Rejection::Host("evil.example".to_owned()), Rejection::Origin];
        assert_eq!(shown, objects.map(|rejection| decision.as_ref().err() == Some(&rejection)));
        assert_eq!(admission.open(), before.0 + u64::from(is_new));
        assert_eq!(addresses.len(), before.1 + usize::from(is_new && case.is_forwarded));
        full.into_iter().for_each(|slot| addresses.release(slot));
        decision.map(|lease| assert_eq!(lease.is_some(), is_new && case.is_forwarded))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        /// Whatever else is wrong, the first rule of the table that objects gives the answer.
        #[test]
        fn the_first_rule_that_objects_wins(case in cases()) {
            let expected = RULES.iter().find(|(_, objects, ..)| objects(&case));
            match (decide(&case), expected) {
                (Ok(()), None) => {}
                (Err(rejection), Some((rule, _, status, cause))) => {
                    prop_assert_eq!((rejection.answer().status, rejection.cause()), (*status, *cause), "{}", rule);
                }
                (decision, expected) => {
                    prop_assert!(false, "{decision:?}, but expected: {:?}", expected.map(|(rule, ..)| rule));
                }
            }
        }
    }

    /// Each rule, where nothing before or behind it objects.
    #[test]
    fn every_rule_objects_to_what_it_concerns() {
        let good = Case {
            host: Some(HOST),
            origin: None,
            kind: "handshake",
            publishing: Publishing::None,
            clients_may_publish: true,
            is_public: true,
            rate_is_used_up: false,
            is_draining: false,
            topic: Ok(Name::New),
            share_is_used_up: false,
            is_forwarded: true,
            address_is_full: false,
            has_slot: true,
            is_full: false,
            accept_rate_is_used_up: false,
        };
        assert_eq!(decide(&good), Ok(()));
        let publish = Case { kind: "publish", ..good.clone() };
        assert_eq!(decide(&publish), Ok(()));
        let wrong = [
            Case { host: Some("evil.example"), ..good.clone() },
            Case { origin: Some("http://evil.example"), ..good.clone() },
            Case { publishing: Publishing::Only(Credential::Missing), ..publish.clone() },
            Case { publishing: Publishing::Both(Credential::Missing), clients_may_publish: false, ..good.clone() },
            Case { is_public: false, ..good.clone() },
            Case { rate_is_used_up: true, ..publish.clone() },
            Case { is_draining: true, ..good.clone() },
            Case { topic: Err(NamesFull::Memory), ..good.clone() },
            Case { share_is_used_up: true, ..publish },
            Case { address_is_full: true, ..good.clone() },
            Case { has_slot: false, ..good.clone() },
            Case { is_full: true, ..good.clone() },
            Case { accept_rate_is_used_up: true, ..good },
        ];
        for (case, (rule, objects, status, cause)) in wrong.iter().zip(RULES) {
            assert!(objects(case), "{rule}");
            let rejection = decide(case).expect_err(rule);
            assert_eq!((rejection.answer().status, rejection.cause()), (status, cause), "{rule}");
        }
    }

    /// The second table in the file's head.
    #[test]
    fn who_may_publish() {
        use Credential::{Missing, Unneeded, Valid, Wrong};
        let case = |publishing, clients_may_publish| Case {
            host: Some(HOST),
            origin: None,
            kind: "change",
            publishing,
            clients_may_publish,
            is_public: true,
            rate_is_used_up: false,
            is_draining: false,
            topic: Ok(Name::New),
            share_is_used_up: false,
            is_forwarded: false,
            address_is_full: false,
            has_slot: true,
            is_full: false,
            accept_rate_is_used_up: false,
        };
        // Clients may publish; the credential; what /pub, /bus and /ws are answered, 0 being no rejection.
        let table = [
            (true, Unneeded, [0, 0, 0]),
            (false, Unneeded, [403, 403, 0]),
            (true, Missing, [401, 0, 0]),
            (false, Missing, [401, 403, 0]),
            (true, Wrong, [401, 401, 401]),
            (false, Wrong, [401, 401, 401]),
            (true, Valid, [0, 0, 0]),
            (false, Valid, [0, 0, 0]),
        ];
        for (clients_may, credential, expected) in table {
            let ways = [Publishing::Only(credential), Publishing::Both(credential), Publishing::ByCommand(credential)];
            let answers = ways.map(|way| decide(&case(way, clients_may)).map_or_else(|no| no.answer().status, |()| 0));
            assert_eq!(answers, expected, "{clients_may} {credential:?}");
        }
    }

    #[test]
    fn trusted_proxies_and_loopback_do_not_count_as_connections() {
        let limits = Limits { trusted_proxies: vec!["10.0.0.0/8".parse().expect("a network")], ..limits() };
        let (refused, keys) = (RefusedValues::default(), PublishKeys::default());
        let (addresses, admission) = (Arc::default(), Admission::default());
        let policy = Policy {
            limits: &limits,
            refused: &refused,
            keys: &keys,
            addresses: &addresses,
            admission: &admission,
            is_draining: false,
            now: NOW,
        };
        assert_eq!(policy.admit_connection(None), Ok(AddressSlot::TRUSTED));
        assert_eq!(policy.admit_connection(Some([10, 1, 2, 3].into())), Ok(AddressSlot::TRUSTED));
        assert_eq!(policy.admit_connection(Some([127, 0, 0, 1].into())), Ok(AddressSlot::UNCOUNTED));
        let first = policy.admit_connection(Some(CLIENT)).expect("the first one");
        assert_eq!(policy.admit_connection(Some(CLIENT)), Err(Rejection::Address));
        addresses.release(first);
    }
}
