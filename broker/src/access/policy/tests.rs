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
    ("handshakes a second", |case| case.is("handshake") && case.accept_rate_is_used_up, 503, Some(Refused::AcceptRate)),
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

/// What a policy is asked about, and what it counts in.
#[derive(Default)]
struct State {
    limits: Limits,
    refused: RefusedValues,
    keys: PublishKeys,
    addresses: Arc<Addresses>,
    admission: Admission,
}

impl State {
    fn policy(&self, is_draining: bool) -> Policy<'_> {
        let Self { limits, refused, keys, addresses, admission } = self;
        Policy { limits, refused, keys, addresses, admission, is_draining, now: NOW }
    }
}

/// Brings everything into the state of the case, asks, and checks that a request leaves no trace if it is rejected.
fn decide(case: &Case) -> Result<(), Rejection> {
    let limits = Limits { client_publish: case.clients_may_publish, ..limits() };
    let admission = Admission::new(if case.is_full { 1 } else { 2 }, std::num::NonZeroU32::new(2));
    admission.enter(if case.accept_rate_is_used_up { NOW } else { 0 }).expect("the first one");
    if case.accept_rate_is_used_up {
        admission.leave();
        admission.enter(NOW).expect("two at once");
    }
    let state = State { limits, admission, ..State::default() };
    let State { limits, refused, addresses, admission, .. } = &state;
    let policy = state.policy(case.is_draining);
    let full = case.address_is_full.then(|| policy.admit_connection(Some(CLIENT)).expect("the first one"));
    let before = (admission.open(), addresses.len());

    let mut rate_limiter = RateLimiter::default();
    while case.rate_is_used_up && rate_limiter.take(NOW, limits.publish_rate_max.expect("a rate")) {}
    let shares = ClientShares::default();
    let names_left = NamesLeft { names: 100, bytes: 1 << 20, bytes_max: 1 << 20 };
    if case.share_is_used_up {
        assert!(shares.take(None, NOW, limits, 100, names_left));
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
    let state = State { limits, ..State::default() };
    let policy = state.policy(false);
    assert_eq!(policy.admit_connection(None), Ok(AddressSlot::TRUSTED));
    assert_eq!(policy.admit_connection(Some([10, 1, 2, 3].into())), Ok(AddressSlot::TRUSTED));
    assert_eq!(policy.admit_connection(Some([127, 0, 0, 1].into())), Ok(AddressSlot::UNCOUNTED));
    let first = policy.admit_connection(Some(CLIENT)).expect("the first one");
    assert_eq!(policy.admit_connection(Some(CLIENT)), Err(Rejection::Address));
    state.addresses.release(first);
}
