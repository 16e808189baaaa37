//! Every adapter against the server that it was written for: nats-server, mosquitto and nginx with Nchan from Debian, and
//! a broadcaster on tokio-tungstenite. (The broker's own tests cover Ringyard.)
//!
//! Covered: connecting, one topic and many, payloads from the shortest to longer than a read, clients that publish and
//! subscribe, subscriptions that come and go, signs of life, closing.

mod peers;

use loadgen::adapter::{Adapter, Duty, Names, Protocol, Topics};
use loadgen::stamp::{Payloads, Sizes, Stamp};

use peers::{Client, Server, broadcaster};

/// Both borders of every form of a frame's length, and what does not fit into a read.
const ALL_SIZES: [u32; 10] = [24, 100, 125, 126, 127, 300, 4_000, 65_535, 65_536, 200_000];
/// mosquitto 2.0.11 reads 4 KiB of a WebSocket every 100 ms unless something else wakes it.
const SMALL_SIZES: [u32; 6] = [24, 100, 125, 126, 127, 300];

const NONE: Topics = Topics { first: 0, step: 0, count: 0 };

fn topic(number: u32) -> Topics {
    Topics { first: number, step: 0, count: 1 }
}

fn subscribes(subscribes: Topics) -> Duty {
    Duty { subscribes, publishes: NONE }
}

fn publishes(publishes: Topics) -> Duty {
    Duty { subscribes: NONE, publishes }
}

fn adapter(protocol: Protocol, url: &str, topics: u32, sizes: Sizes) -> Adapter {
    let names = Names { prefix: "load/gen".to_owned(), count: topics };
    Adapter::new(protocol, url, None, &names, Payloads::new(sizes)).unwrap()
}

fn stamp(stream: u32, seq: u64) -> Stamp {
    Stamp { stream, seq, sent_ns: 1_800_000_000_000_000_000 + seq }
}

/// Publishes messages of one stream in bursts, each of which all who receive it must have before the next.
fn publish(publisher: &mut Client, stream: u32, topic: u32, messages: u64, receivers: &mut [Client]) {
    const BURST: u64 = 20;
    let before: Vec<usize> = receivers.iter().map(|client| client.seen.messages.len()).collect();
    for begin in (0..messages).step_by(BURST as usize) {
        let end = messages.min(begin + BURST);
        publisher.send(|adapter, out| (begin..end).for_each(|seq| adapter.publish(topic, stamp(stream, seq), out)));
        for (client, before) in receivers.iter_mut().zip(&before) {
            client.wait("message", |client| client.seen.messages.len() == before + end as usize);
        }
        publisher.pump();
    }
    for (client, before) in receivers.iter().zip(before) {
        let expected: Vec<Stamp> = (0..messages).map(|seq| stamp(stream, seq)).collect();
        assert_eq!(client.seen.messages[before..], expected, "in their order");
    }
}

fn nothing_wrong(clients: &[Client]) {
    for client in clients {
        assert!(client.seen.wrong.is_empty() && client.seen.closed.is_none(), "{:?}", client.seen);
    }
}

/// What every protocol can do.
fn one_topic(protocol: Protocol, url: &str, sizes: &[u32]) {
    let adapter = adapter(protocol, url, 1, Sizes::Mixed(sizes.to_vec()));
    let mut receivers: Vec<Client> = (0..3).map(|_| Client::open(&adapter, subscribes(topic(0))).unwrap()).collect();
    let before: Vec<u64> = receivers.iter().map(|client| client.received).collect();
    let mut publisher = Client::open(&adapter, publishes(topic(0))).unwrap();
    publish(&mut publisher, 0, 0, 150, &mut receivers);
    if adapter.abilities().discard {
        let bytes: u64 = (0..150).map(|seq| adapter.wire_len(0, stamp(0, seq)).unwrap()).sum();
        for (client, before) in receivers.iter().zip(before) {
            assert_eq!(client.received - before, bytes, "bytes can be counted instead of looked at");
        }
    }

    // Signs of life that nobody asked for; then everything goes on.
    receivers[0].send(Adapter::heartbeat);
    publisher.send(Adapter::heartbeat);
    receivers[0].pump();
    publish(&mut publisher, 1, 0, 10, &mut receivers);

    // A client of a chat room hears itself.
    let both = Client::open(&adapter, Duty { subscribes: topic(0), publishes: topic(0) }).unwrap();
    assert!(adapter.abilities().both && adapter.abilities().echoes);
    let mut chat = [both];
    publish(&mut publisher, 2, 0, 5, &mut chat);
    chat[0].send(|adapter, out| (5..10).for_each(|seq| adapter.publish(0, stamp(2, seq), out)));
    for client in &mut chat {
        client.wait("own messages", |client| client.seen.messages.len() == 10);
    }
    for client in &mut receivers {
        client.wait("the chat", |client| client.seen.messages.len() == 150 + 10 + 10);
    }

    nothing_wrong(&receivers);
    nothing_wrong(&chat);
    assert!(publisher.seen.messages.is_empty(), "who only publishes receives nothing");
    nothing_wrong(&[publisher]);

    // The end, from this side: the server answers the close, or at least hangs up.
    let mut client = receivers.remove(0);
    client.send(Adapter::goodbye);
    while client.seen.closed.is_none() && !client.ended {
        client.pump();
    }
    assert!(client.seen.wrong.is_empty(), "{:?}", client.seen);
}

/// Several topics over one connection.
fn many_topics(protocol: Protocol, url: &str, each: u32) {
    let topics = each + 20;
    // All but 5 to 24.
    let adapter = adapter(protocol, url, topics, Sizes::Range(24, 500));
    assert!(each <= adapter.abilities().subscriptions_max);
    let duty = subscribes(Topics { first: 25, step: 1, count: each });
    let mut receivers = [Client::open(&adapter, duty).unwrap()];
    for number in [25, 26, topics - 1, 0, 4] {
        let mut publisher = Client::open(&adapter, publishes(topic(number))).unwrap();
        publish(&mut publisher, number, number, 5, &mut receivers);
        publish(&mut publisher, number + topics, number, 30, &mut receivers);
    }
    // Not among them: only the last message is to come.
    let mut publisher = Client::open(&adapter, publishes(topic(14))).unwrap();
    publisher.send(|adapter, out| adapter.publish(14, stamp(14, 0), out));
    publisher.pump();
    let mut publisher = Client::open(&adapter, publishes(topic(30))).unwrap();
    publish(&mut publisher, 30, 30, 1, &mut receivers);
    nothing_wrong(&receivers);
}

/// Subscriptions that come and go.
fn churn(protocol: Protocol, url: &str) {
    let adapter = adapter(protocol, url, 5, Sizes::Fixed(100));
    assert!(adapter.abilities().churn);
    let mut receivers = [Client::open(&adapter, subscribes(topic(1))).unwrap()];
    let all = Topics { first: 0, step: 1, count: 5 };
    let mut publisher = Client::open(&adapter, publishes(all)).unwrap();
    for round in 0..3 {
        receivers[0].send(|adapter, out| adapter.subscribe(3, out));
        receivers[0].wait("subscription", |client| client.seen.ready == 2 + 2 * round);
        publish(&mut publisher, 3 + 5 * round as u32, 3, 10, &mut receivers);
        receivers[0].send(|adapter, out| adapter.unsubscribe(3, out));
        receivers[0].wait("end of the subscription", |client| client.seen.ready == 3 + 2 * round);
        publisher.send(|adapter, out| adapter.publish(3, stamp(3, 10), out));
        publish(&mut publisher, 1 + 5 * round as u32, 1, 10, &mut receivers);
    }
    nothing_wrong(&receivers);
}

#[test]
fn nats() {
    let Some(server) = Server::nats() else { return };
    one_topic(Protocol::Nats, &server.url, &ALL_SIZES);
    many_topics(Protocol::Nats, &server.url, 1000);
    churn(Protocol::Nats, &server.url);

    // nats-server takes payloads of a megabyte.
    let adapter = adapter(Protocol::Nats, &server.url, 1, Sizes::Fixed((1 << 20) + 1));
    let mut publisher = Client::open(&adapter, publishes(topic(0))).unwrap();
    // It hangs up when it has seen the length; what it said before that can be read all the same.
    let _ = publisher.try_send(|adapter, out| adapter.publish(0, stamp(0, 0), out));
    publisher.wait("refusal", |client| !client.seen.wrong.is_empty());
    assert_eq!(publisher.seen.wrong, ["broken: Maximum Payload Violation"]);
}

#[test]
fn mosquitto() {
    let Some(server) = Server::mosquitto() else { return };
    one_topic(Protocol::Mqtt, &server.url, &SMALL_SIZES);
    many_topics(Protocol::Mqtt, &server.url, 1000);
    churn(Protocol::Mqtt, &server.url);
}

#[test]
fn nchan() {
    let Some(server) = Server::nchan() else { return };
    one_topic(Protocol::Nchan, &server.url, &ALL_SIZES);
    many_topics(Protocol::Nchan, &server.url, 255);

    let adapter = adapter(Protocol::Nchan, &format!("{}/nowhere", server.url), 1, Sizes::Fixed(24));
    let refused = Client::open(&adapter, subscribes(topic(0))).err().unwrap();
    assert_eq!(refused.status, 404);
    assert!(refused.text.starts_with("HTTP/1.1 404 Not Found"), "{}", refused.text);
}

#[test]
fn plain() {
    one_topic(Protocol::Plain, &broadcaster(), &ALL_SIZES);
}
