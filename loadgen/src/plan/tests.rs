//! The plan's functions are each other's inverse, and leave nobody out.

use super::*;
use crate::options::Share;
use std::collections::BTreeSet;

fn plan(change: impl FnOnce(&mut Options)) -> Plan {
    let mut options = Options { url: "ws://127.0.0.1:1".into(), burst: 1, ..Options::default() };
    options.topic_prefix = "t".into();
    change(&mut options);
    Plan::new(options.completed(), &Machine { cores: 2, descriptors: 20_000, ..Machine::this() }).unwrap()
}

#[test]
fn every_client_and_publisher_is_somebodys() {
    let plan = plan(|options| {
        options.clients = Some(1001);
        options.topics = Some(7);
        options.workers = Some(3);
    });
    let all: Vec<_> = (0..3).flat_map(|worker| plan.roles_of(worker)).collect();
    assert_eq!(all.len(), 1008);
    assert_eq!(all.iter().filter(|role| matches!(role, Role::Publisher(_))).count(), 7);
    let streams: BTreeSet<_> = all.iter().flat_map(|role| plan.streams_of(*role)).collect();
    assert_eq!(streams, (0..7).collect());
}

#[test]
fn places_and_streams_are_each_others_inverse() {
    let plan = plan(|options| {
        options.clients = Some(40);
        options.topics = Some(10);
        options.scenario = crate::options::Scenario::Chat;
    });
    assert_eq!((plan.streams, plan.streams_per_topic()), (40, 4));
    for client in 0..40 {
        let topics = plan.duty(Role::Client(client)).subscribes;
        let heard: BTreeSet<_> = (0..plan.places(&topics)).map(|place| plan.stream_at(&topics, place)).collect();
        assert_eq!(heard, (0..4).map(|round| round * 10 + (client % 10) as u32).collect());
        for place in 0..plan.places(&topics) {
            assert_eq!(plan.place(&topics, plan.stream_at(&topics, place)), Some(place));
        }
        assert_eq!(plan.place(&topics, (client as u32 + 1) % 10), None);
    }
}

#[test]
fn a_sample_is_as_large_as_asked_and_on_every_topic() {
    for (clients, topics, share) in [(100_000, 1, 0.02), (100_000, 1000, 0.02), (1000, 10, 0.5)] {
        let plan = plan(|options| {
            options.clients = Some(clients);
            options.topics = Some(topics);
            options.verify = Some(Share(share));
            options.publishers = None;
        });
        let verifying: Vec<_> = (0..clients).filter(|client| plan.verifies(*client)).collect();
        let wanted = clients as f64 * share;
        assert!((verifying.len() as f64 - wanted).abs() <= wanted * 0.02 + 1.0, "{}", verifying.len());
        let heard: BTreeSet<_> = verifying.iter().map(|client| client % u64::from(topics)).collect();
        assert_eq!(heard.len(), topics as usize);
    }
}

#[test]
fn sources_differ_between_processes_and_hold_a_thousand_each() {
    let share = |index| Portion { index, of: 3 };
    assert_eq!(loopback(share(1), 0), Ipv4Addr::new(127, 1, 0, 1));
    assert_eq!(loopback(share(1), 999), Ipv4Addr::new(127, 1, 0, 1));
    assert_eq!(loopback(share(3), 1000), Ipv4Addr::new(127, 3, 0, 2));
    let sources: BTreeSet<_> = (0..2000).map(|group| loopback(share(1), group * 1000)).collect();
    assert_eq!(sources.len(), 2000);
}

#[test]
fn those_who_log_in_have_a_worker_of_their_own() {
    let plan = plan(|options| {
        options.clients = Some(11);
        options.topics = Some(3);
        options.workers = Some(2);
        options.access.logins = Some(7);
    });
    let roles: Vec<Vec<_>> = (0..plan.workers).map(|worker| plan.roles_of(worker).collect()).collect();
    assert_eq!(roles.iter().map(Vec::len).sum::<usize>(), 11 + 3 + 7);
    assert_eq!(roles[2], (11..18).map(Role::Client).collect::<Vec<_>>());
    assert!(plan.logs_in(2) && roles[2].iter().all(|role| plan.is_login(*role) && plan.is_held(*role)));
    assert!(roles[..2].concat().iter().all(|role| !plan.is_login(*role) && !plan.is_held(*role)));
    // To a topic of their own, whose streams are nobody's business.
    let request = |role: Role| {
        let mut out = Vec::new();
        plan.adapter_of(role).request(&plan.duty(role), &mut out);
        String::from_utf8(out).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!([request(roles[2][0]), request(roles[2][6])], ["/sub/t-logins", "/sub/t-logins"]);
    assert_eq!(request(Role::Client(4)), "/sub/t/1");
}
