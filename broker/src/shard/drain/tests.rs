//! Shutdown: who is closed when, and what they were sent before.

use std::sync::Arc;

use protocol::v1::PayloadKind;
use ring::sim::{Faults, SimDriver, World};
use tokio::sync::oneshot;

use crate::access::address::AddressLease;
use crate::capacity::budget::Held;
use crate::capacity::buffer::Buffer;
use crate::config::limits::Limits;
use crate::ids::{Epoch, Offset};
use crate::message::{Encoding, Message, Payload};
use crate::shard::ShardSetup;
use crate::shard::drain::*;
use crate::shard::handover::{Adopt, Purpose, Upgrade};
use crate::shard::shared::{ControlMessage, SharedState};
use crate::shard::transport::pause::Progress;

fn shard(world: &World) -> (Shard<SimDriver>, Arc<SharedState>) {
    shard_for(world, 4)
}

/// One for so many connections.
fn shard_for(world: &World, capacity: u32) -> (Shard<SimDriver>, Arc<SharedState>) {
    let shared = Arc::new(SharedState::new(1, 1, Epoch(1)));
    let setup = ShardSetup { id: ShardId(0), shared: Arc::clone(&shared), limits: Arc::new(Limits::default()) };
    (Shard::new(world.driver(capacity, 4, 64), setup), shared)
}

#[test]
fn paused_publishers_do_not_keep_a_shutdown_awake() {
    let (mut shard, _) = shard(&World::new(1, Faults::default()));
    shard.input.yield_turn(ConnId { slot: 0, generation: 0 }, Progress::Established);
    assert_eq!(shard.wait_until(), None, "there is somebody to resume");
    shard.begin_drain(Duration::ZERO, false);
    assert!(shard.wait_until().is_some(), "nobody is resumed any more");
}

#[test]
fn a_socket_adopted_when_all_were_closed_is_closed_as_well() {
    let world = World::new(1, Faults::default());
    let (mut shard, shared) = shard(&world);
    let _silent = world.connect(0);
    shard.step().unwrap();
    shared.send_control(ShardId(0), ControlMessage::Shutdown { window: Duration::ZERO, is_succeeded: false }).unwrap();
    while shard.drain.phase != Phase::Close {
        assert!(shard.step().unwrap());
    }
    let (late, socket) = world.socket();
    let adopt = Adopt {
        socket,
        upgrade: Upgrade {
            purpose: Purpose::Subscribe("t".to_owned()),
            accept: [b'='; 28],
            subprotocol: None,
            has_key: false,
            entry: crate::shard::handover::Entry::Anyone,
            start: protocol::head::RawStart::default(),
        }
        .into(),
        read: Buffer::new(shared.budget.of_plane(), Held::Http),
        lease: AddressLease::default(),
    };
    shared.admission.enter(0).unwrap();
    shared.send_control(ShardId(0), ControlMessage::Adopt(adopt)).unwrap();
    for _ in 0..5 {
        assert!(shard.step().unwrap());
    }
    let read = world.client_read(late, 256);
    let frames = read.windows(4).position(|four| four == b"\r\n\r\n").map(|end| &read[end + 4..]);
    assert_eq!(frames.and_then(|frames| frames.get(2..4)), Some(&1001_u16.to_be_bytes()[..]), "{read:?}");
}

/// Ten clients over ten seconds: about one a second, in no order of their coming, and then it ends.
#[test]
fn clients_are_closed_one_by_one_over_the_window_in_a_shuffled_order() {
    let world = World::new(1, Faults::default());
    let shared = Arc::new(SharedState::new(1, 1, Epoch(1)));
    let setup = ShardSetup { id: ShardId(0), shared: Arc::clone(&shared), limits: Arc::new(Limits::default()) };
    let mut shard = Shard::new(world.driver(64, 8, 512), setup);
    const HEAD: &[u8] = b"GET /sub/t HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let clients: Vec<_> = (0..10).map(|_| world.connect(0)).collect();
    clients.iter().for_each(|&client| assert_eq!(world.client_write(client, HEAD), HEAD.len()));
    for _ in 0..10 {
        shard.step().unwrap();
    }
    assert_eq!(shared.admission.open(), 10);
    clients.iter().for_each(|&client| drop(world.client_read(client, 4096)));
    shared
        .send_control(ShardId(0), ControlMessage::Shutdown { window: Duration::from_secs(10), is_succeeded: false })
        .unwrap();
    let mut closed = Vec::new();
    for half_second in 0..20 {
        for _ in 0..6 {
            shard.step().unwrap();
        }
        for (at, &client) in clients.iter().enumerate() {
            let read = world.client_read(client, 4096);
            if !read.is_empty() {
                assert_eq!(read.get(2..4), Some(&1001_u16.to_be_bytes()[..]), "{read:?}");
                closed.push(at);
            }
        }
        assert_eq!(closed.len(), half_second / 2 + 1, "after {half_second} half seconds");
        world.advance(500_000_000);
    }
    assert_eq!(closed.len(), 10);
    assert!(!closed.is_sorted(), "{closed:?}");
    clients.iter().for_each(|&client| world.client_close(client));
    let ended = (0..50).any(|_| !shard.step().unwrap());
    assert!(ended, "with nobody left it ends");
    let counted = shared.stats[0].snapshot();
    assert_eq!((counted.closed, counted.closed_shutdown), (10, 10));
}

/// What another shard accepted just before the drain, that shard being slower to look.
#[test]
fn nobody_goes_before_the_other_shards_have_marked_what_they_accepted() {
    nobody_goes_without_what_was_accepted_before(100, false);
}

/// More waits for a client that does not read than one send takes.
#[test]
fn nobody_goes_before_it_was_sent_what_waits() {
    nobody_goes_without_what_was_accepted_before(100_000, true);
}

/// `blocked`: the first half of the messages fills the client's socket.
fn nobody_goes_without_what_was_accepted_before(payload_bytes: usize, blocked: bool) {
    const MESSAGES: usize = 12;
    let world = World::new(1, Faults::default());
    world.set_socket_buffer(30_000);
    let shared = Arc::new(SharedState::new(2, 1, Epoch(1)));
    let limits = Arc::new(Limits::default());
    let shard = |id| {
        let setup = ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) };
        Shard::new(world.driver(64, 8, 512), setup)
    };
    let mut shards: Vec<Shard<SimDriver>> = vec![shard(ShardId(0)), shard(ShardId(1))];
    let (name, topic) = (0..)
        .map(|n: u32| (format!("t{n}"), shared.registry.resolve(&format!("t{n}"))))
        .find(|(_, topic)| topic.sequencer == ShardId(1))
        .expect("names are many");
    let client = world.connect(0);
    let head = format!(
        "GET /sub/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    world.client_write(client, head.as_bytes());
    let mut read = Vec::new();
    for _ in 0..10 {
        shards.iter_mut().for_each(|shard| assert!(shard.step().unwrap()));
        read.extend(world.client_read(client, 4096));
    }
    assert!(read.starts_with(b"HTTP/1.1 101 "), "{}", read.escape_ascii());
    read.clear();
    let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; payload_bytes], shared.budget.of_plane());
    let frame =
        Message::new(topic.key(), Offset(1), payload.clone(), 0).frame(Encoding::Raw, shared.budget.of_plane(), true);
    let publish = |_| {
        let (topic, payload, answer) = (topic.clone(), payload.clone(), oneshot::channel().0);
        let order = ControlMessage::Publish { topic, payload, options: None, answer };
        shared.send_control(ShardId(1), order).unwrap();
    };
    (0..MESSAGES / 2).for_each(publish);
    if blocked {
        for _ in 0..5 {
            shards.iter_mut().for_each(|shard| assert!(shard.step().unwrap()));
        }
    }
    (0..MESSAGES / 2).for_each(publish);
    for shard in ShardId::all(2) {
        shared
            .send_control(shard, ControlMessage::Shutdown { window: Duration::from_secs(10), is_succeeded: false })
            .unwrap();
    }
    for _ in 0..5 {
        shards[0].step().unwrap();
        world.advance(400_000_000);
    }
    assert_eq!(shared.stats[0].closed_shutdown.get(), 0, "closed before it has everything");
    for _ in 0..2000 {
        shards.iter_mut().for_each(|shard| drop(shard.step()));
        read.extend(world.client_read(client, 2000));
        world.advance(1_000_000);
    }
    let frames = frame.repeat(MESSAGES);
    assert!(read.starts_with(&frames), "{} bytes of {}", read.len(), frames.len());
    assert_eq!(read.get(frames.len() + 2..frames.len() + 4), Some(&1001_u16.to_be_bytes()[..]));
}

/// The kernel notified the process that leaves of a connection, and not this one, which accepts from the same listener.
#[test]
fn who_waits_unnoticed_is_found_once_the_other_process_has_stopped() {
    let world = World::new(1, Faults::default());
    let (mut shard, shared) = shard(&world);
    shard.step().unwrap();
    let _waits = world.connect_unnoticed(0);
    (0..5).for_each(|_| assert!(shard.step().unwrap()));
    assert_eq!(shared.stats[0].accepted.get(), 0);
    shared.send_control(ShardId(0), ControlMessage::AcceptAnew).unwrap();
    (0..5).for_each(|_| assert!(shard.step().unwrap()));
    assert_eq!(shared.stats[0].accepted.get(), 1);
    let _next = world.connect(0);
    (0..5).for_each(|_| assert!(shard.step().unwrap()));
    assert_eq!(shared.stats[0].accepted.get(), 2, "it goes on accepting");
}

/// What is counted has ended in the kernel, or was not under way: a table that is full.
#[test]
fn a_shard_has_stopped_accepting_when_its_accept_has_ended() {
    for clients in [0, 4] {
        let world = World::new(1, Faults::default());
        let (mut shard, shared) = shard(&world);
        let _clients: Vec<_> = (0..clients).map(|_| world.connect(0)).collect();
        (0..5).for_each(|_| assert!(shard.step().unwrap()));
        shard.begin_drain(Duration::from_secs(1), true);
        let stopped = || shared.stopped_accepting.load(Ordering::Acquire);
        assert_eq!(stopped(), usize::from(clients == 4), "{clients} clients");
        (0..5).for_each(|_| assert!(shard.step().unwrap()));
        assert_eq!(stopped(), 1, "{clients} clients");
        shard.begin_drain(Duration::ZERO, true);
        for _ in 0..5 {
            shard.step().unwrap();
        }
        assert_eq!(stopped(), 1, "{clients} clients: once");
    }
}

/// What an HTTP connection sent before it could know of the takeover is answered; one that sends nothing ends.
#[test]
fn a_request_that_is_on_its_way_when_another_takes_over_is_answered() {
    const REQUEST: &[u8] = b"POST /pub/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let world = World::new(1, Faults::default());
    let (mut shard, shared) = shard_for(&world, 64);
    let clients = [world.connect(0), world.connect(0)];
    for client in clients {
        world.client_write(client, REQUEST);
    }
    let mut turns = |turns| (0..turns).for_each(|_| assert!(shard.step().unwrap()));
    turns(10);
    clients.iter().for_each(|&client| assert!(world.client_read(client, 4096).starts_with(b"HTTP/1.1 200 ")));
    let [busy, idle] = clients;
    shared
        .send_control(ShardId(0), ControlMessage::Shutdown { window: Duration::from_secs(9), is_succeeded: true })
        .unwrap();
    turns(1);
    world.client_write(busy, REQUEST);
    turns(10);
    let answer = String::from_utf8(world.client_read(busy, 4096)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(world.client_eof(busy) && !world.client_eof(idle));
    world.advance(1_000_000_000);
    turns(10);
    assert!(world.client_eof(idle));
}

/// A publish over HTTP comes at any time before, in and behind a shutdown, cut anywhere, to a shard that is slower or faster
/// than its topic's sequencer: it is answered, with 200 if and only if it was published; 503 ends the connection, and says
/// when to try again. Before the shutdown, and while the window of a takeover lasts, it is 200.
#[test]
fn whenever_a_request_comes_it_is_answered_for_what_became_of_it() {
    for seed in 0..400 {
        a_request_is_answered_for_what_became_of_it(seed);
    }
}

fn a_request_is_answered_for_what_became_of_it(seed: u64) {
    const ROUND_MS: u64 = 5;
    /// Rounds in which every shard has had some turns.
    const SOME: usize = 8;
    let mut random = Random::new(seed);
    let world = World::new(seed, Faults::default());
    let shared = Arc::new(SharedState::new(2, seed, Epoch(1)));
    let limits = Arc::new(Limits::default());
    let shard = |id| {
        let setup = ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) };
        Some(Shard::new(world.driver(64, 8, 512), setup))
    };
    let mut shards: Vec<Option<Shard<SimDriver>>> = ShardId::all(2).map(shard).collect();
    let (is_succeeded, window_ms) = (random.below(2) == 0, [0, 100][random.below(2)]);
    let client = world.connect(0);
    let topic = random.below(8);
    let request = format!("POST /pub/t{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello");
    let (head, rest) = request.split_at(1 + random.below(request.len() - 1));
    let (begins, first) = (20 + random.below(20), 10 + random.below(50));
    let second = first + [0, random.below(20)][random.below(2)];
    let mut read = String::new();
    for round in 0..4000 {
        if round == begins {
            let window = Duration::from_millis(window_ms);
            for id in ShardId::all(2) {
                shared.send_control(id, ControlMessage::Shutdown { window, is_succeeded }).unwrap();
            }
        }
        for (_, piece) in [(first, head), (second, rest)].into_iter().filter(|(comes, _)| *comes == round) {
            world.client_write(client, piece.as_bytes());
        }
        for shard in &mut shards {
            if random.below(3) > 0 && shard.as_mut().is_some_and(|shard| !shard.step().unwrap()) {
                *shard = None;
            }
        }
        read += std::str::from_utf8(&world.client_read(client, 4096)).unwrap();
        if !read.is_empty() {
            world.client_close(client);
        }
        world.advance(ROUND_MS * 1_000_000);
    }
    let shutdown = format!("at {begins}, succeeded: {is_succeeded}, {window_ms} ms");
    let context = format!("seed {seed}: shutdown {shutdown}; pieces at {first} and {second}; {read:?}");
    assert!(shards.iter().all(Option::is_none), "it ends; {context}");
    let published = shared.stats.iter().map(|stats| stats.sequenced.get()).sum::<u64>();
    let is_served = read.starts_with("HTTP/1.1 200 ");
    assert_eq!(published, u64::from(is_served), "{context}");
    if !is_served {
        let refusal = read.to_ascii_lowercase();
        assert!(refusal.starts_with("http/1.1 503 ") && refusal.contains("\r\nretry-after: "), "{context}");
        assert!(refusal.contains("\r\nconnection: close\r\n"), "{context}");
    }
    let window = if is_succeeded { (window_ms / ROUND_MS) as usize } else { 0 };
    assert!(is_served || second + SOME >= begins + window, "{context}");
}
