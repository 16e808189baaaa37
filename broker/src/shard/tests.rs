//! What a shard promises of memory while clients send more than it can work off, on the simulated network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use protocol::frame::{Opcode, close_code};
use protocol::head::RawStart;
use ring::ConnId;
use ring::sim::{ClientId, Faults, SimDriver, World};

use tokio::sync::oneshot;

use crate::access::address::AddressLease;
use crate::capacity::budget::{Charge, Held};
use crate::capacity::buffer::Buffer;
use crate::config::limits::Limits;
use crate::ids::{Epoch, ShardId};
use crate::observe::counters::Reason;
use crate::shard::handover::{Adopt, Entry, Purpose, Upgrade};
use crate::shard::shared::{ControlMessage, SharedState};
use crate::shard::{Shard, ShardSetup};

const BUDGET: u64 = 1 << 20;
const MESSAGE_MAX: u64 = 64 << 10;

mod calls;
mod for_keys;
mod leaving;
mod member_info;
mod operators;
mod presence;
mod purges;
mod replays;
mod secure;
mod streams;
mod throttles;
mod tokens;

/// One shard with some clients, and others that it may share topics with.
struct Stage {
    world: World,
    shard: Shard<SimDriver>,
    others: Vec<Shard<SimDriver>>,
    shared: Arc<SharedState>,
    budget_bytes: u64,
}

impl Stage {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self::within(BUDGET, limits)
    }

    fn within(budget_bytes: u64, limits: Limits) -> Self {
        Self::of(SharedState::new(1, 1, Epoch(1)).within(budget_bytes), budget_bytes, limits)
    }

    fn of(shared: SharedState, budget_bytes: u64, limits: Limits) -> Self {
        let world = World::new(1, Faults::default());
        let shared = Arc::new(shared);
        let limits = Limits { message_bytes_max: MESSAGE_MAX, ..limits };
        let limits = Arc::new(limits);
        let mut shards = ShardId::all(shared.inboxes.len() as u16).map(|id| {
            let setup = ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) };
            Shard::new(world.driver(512, 32, 4096), setup)
        });
        let shard = shards.next().expect("one at least");
        let others = shards.collect();
        Self { world, shard, others, shared, budget_bytes }
    }

    /// A client whose WebSocket at `path` is open.
    fn open(&mut self, path: &str) -> ClientId {
        self.open_at(0, path)
    }

    /// The same of this shard.
    fn open_at(&mut self, shard: usize, path: &str) -> ClientId {
        let client = self.ask_to_open(shard, path);
        self.turns(8);
        assert!(self.world.client_read(client, 4096).starts_with(b"HTTP/1.1 101"));
        client
    }

    /// A client that has asked this shard for a WebSocket.
    fn ask_to_open(&mut self, shard: usize, path: &str) -> ClientId {
        let client = self.world.connect(shard);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: ringyard.v1\r\n\r\n"
        );
        assert_eq!(self.world.client_write(client, head.as_bytes()), head.len());
        client
    }

    /// A client that the control plane has judged and admitted; its socket is on its way to the first shard.
    fn adopt(&mut self, purpose: Purpose, entry: Entry) -> ClientId {
        self.shared.admission.enter(self.world.now()).expect("room");
        let (client, socket) = self.world.socket();
        let (accept, start) = ([b'a'; 28], RawStart::default());
        let upgrade = Box::new(Upgrade { purpose, accept, subprotocol: None, has_key: false, entry, start });
        let read = Buffer::new(self.shared.budget.of_plane(), Held::Http);
        let adopt = Adopt { socket, upgrade, read, lease: AddressLease::default() };
        assert!(self.shared.send_control(ShardId(0), ControlMessage::Adopt(adopt)).is_ok());
        client
    }

    fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            assert!(self.shard.step().unwrap());
            self.shard.audit().check().unwrap();
            for other in &mut self.others {
                assert!(other.step().unwrap());
                other.audit().check().unwrap();
            }
            let used = self.shared.budget.used();
            assert!(used <= self.budget_bytes + MESSAGE_MAX, "{used} of {}", self.budget_bytes);
        }
    }

    /// Writes all of `bytes`, a turn after each part that the socket takes.
    fn write(&mut self, client: ClientId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = self.world.client_write(client, bytes);
            bytes = &bytes[written..];
            self.turns(1);
        }
    }

    /// The code of the close frame that the client was sent last, if that is the last thing it was sent.
    fn close_code(&self, client: ClientId) -> Option<u16> {
        let read = self.world.client_read(client, 1 << 20);
        let at = read.iter().rposition(|&byte| byte == 0x80 | Opcode::Close as u8)?;
        Some(u16::from_be_bytes([*read.get(at + 2)?, *read.get(at + 3)?]))
    }
}

/// A masked frame, whose key is 0.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => frame.extend([0x80 | 126, (len >> 8) as u8, len as u8]),
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const BINARY_UNFINISHED: u8 = 0x02;
const LAST_PIECE: u8 = 0x80;
const PING: u8 = 0x89;

#[test]
fn a_short_message_in_pieces_is_safe_among_many_long_ones() {
    let mut stage = Stage::new();
    let reader = stage.open("/sub/small");
    let small = stage.open("/pub/small");
    stage.write(small, &frame(BINARY_UNFINISHED, b"first"));
    let piece = frame(BINARY_UNFINISHED, &[b'x'; 30_000]);
    let large: Vec<_> = (0..30).map(|_| stage.open("/pub/large")).collect();
    for &client in &large {
        stage.write(client, &piece);
        let (held, share) = (stage.shared.budget.held(Held::Assemblies), stage.shared.budget.share(Held::Assemblies));
        assert!(held <= share + 40_000, "{held}");
    }
    let closed =
        large.iter().filter(|&&client| stage.close_code(client) == Some(close_code::TRY_AGAIN_LATER.into())).count();
    assert!((20..30).contains(&closed), "{closed}");
    stage.write(small, &frame(LAST_PIECE, b" last"));
    stage.turns(8);
    assert_eq!(stage.world.client_read(reader, 64), b"\x82\x0afirst last");
}

#[test]
fn of_pieces_those_go_whose_client_holds_most() {
    let mut stage = Stage::with(Limits { connections_per_address_max: NonZeroU32::new(1000), ..Limits::default() });
    let mut clients: BTreeMap<IpAddr, Vec<ClientId>> = BTreeMap::new();
    for _ in 0..100 {
        let client = stage.open("/pub/t");
        let ip = stage.world.client_address(client).ip();
        if !ip.is_loopback() {
            clients.entry(ip).or_default().push(client);
        }
    }
    let (&many, _) = clients.iter().max_by_key(|(_, clients)| clients.len()).unwrap();
    let attackers = clients.remove(&many).unwrap();
    let others: Vec<_> = clients.into_values().map(|clients| clients[0]).collect();
    assert!(attackers.len() >= 8 && !others.is_empty(), "{} attackers, {} others", attackers.len(), others.len());
    // The other begins before, and holds more than any connection of the attackers, but not more than all of them.
    let other = others[0];
    stage.write(other, &frame(BINARY_UNFINISHED, &[b'x'; 24_000]));
    for &client in &attackers {
        stage.write(client, &frame(BINARY_UNFINISHED, &[b'x'; 20_000]));
        stage.world.advance(1_000_000);
    }
    for &client in &attackers {
        let more = frame(0, &[b'x'; 1_000]);
        let _ = stage.world.client_write(client, &more);
        stage.turns(1);
    }
    let code = |client| stage.close_code(client);
    let closed = attackers.iter().filter(|&&client| code(client) == Some(close_code::TRY_AGAIN_LATER.into())).count();
    assert!(closed >= 2, "{closed}");
    assert_eq!(code(other), None);
}

#[test]
fn input_that_waits_has_a_bound_and_small_input_is_not_refused_for_it() {
    let mut stage = Stage::new();
    let greedy: Vec<_> = (0..200).map(|_| stage.open("/sub/t")).collect();
    let small: Vec<_> = (0..10).map(|_| stage.open("/sub/t")).collect();
    let flood = frame(PING, b"").repeat(10_000);
    let pings = frame(PING, b"small").repeat(20);
    for round in 0..20 {
        for &client in &greedy {
            let _ = stage.world.client_write(client, &flood);
        }
        if round == 10 {
            for &client in &small {
                assert_eq!(stage.world.client_write(client, &pings), pings.len());
            }
        }
        stage.turns(1);
    }
    for _ in 0..200 {
        for &client in &greedy {
            let _ = stage.world.client_read(client, 1 << 20);
        }
        stage.turns(4);
    }
    for client in small {
        assert_eq!(stage.world.client_read(client, 4096), b"\x8a\x05small".repeat(20));
    }
}

/// Publishers wait because memory is full; many of them have sent much. Another one's message is short, and comes in pieces.
#[test]
fn a_short_message_is_safe_among_much_input_that_waits() {
    (17_000..40_000).step_by(1_000).for_each(a_short_message_is_safe_with_room_for);
}

fn a_short_message_is_safe_with_room_for(bytes: u64) {
    let mut stage = Stage::new();
    let reader = stage.open("/sub/small");
    let small = stage.open("/pub/small");
    let large: Vec<_> = (0..30).map(|_| stage.open("/pub/large")).collect();
    let account = Arc::clone(stage.shared.budget.of_plane());
    let others = Charge::new(&account, Held::Http, BUDGET - bytes);
    stage.turns(1);
    for (large, first) in large.chunks(15).zip([BINARY_UNFINISHED, LAST_PIECE]) {
        for &client in large {
            let _ = stage.world.client_write(client, &frame(BINARY, &[b'x'; 7_000]));
            stage.turns(1);
        }
        stage.write(small, &frame(first, &[b's'; 2_000]));
    }
    let closed = large.iter().filter(|&&client| stage.close_code(client).is_some()).count();
    assert!(closed > 0, "with room for {bytes} bytes nobody had to go");
    drop(others);
    stage.turns(200);
    assert_eq!(stage.close_code(small), None, "with room for {bytes} bytes");
    assert_eq!(stage.world.client_read(reader, 1 << 20).len(), 4_000 + 4);
}

/// Others have all the memory that there is; what waits of this shard's input is not the reason.
#[test]
fn nobody_is_closed_for_input_where_little_of_it_waits() {
    let mut stage = Stage::new();
    let (reader, publisher) = (stage.open("/sub/t"), stage.open("/pub/t"));
    let account = Arc::clone(stage.shared.budget.of_plane());
    let others = Charge::new(&account, Held::Http, BUDGET);
    stage.turns(1);
    stage.write(publisher, &frame(BINARY_UNFINISHED, &[b's'; 5_000]));
    stage.write(publisher, &frame(LAST_PIECE, &[b's'; 5_000]));
    stage.turns(8);
    assert_eq!(stage.close_code(publisher), None);
    drop(others);
    stage.turns(200);
    assert_eq!(stage.world.client_read(reader, 1 << 20).len(), 10_000 + 4);
}

#[test]
fn pings_whose_answers_are_not_read_share_one() {
    let mut stage = Stage::new();
    stage.world.set_socket_buffer(16 << 10);
    let client = stage.open("/sub/t");
    for number in 0..4_000_u32 {
        let payload = format!("{number:0125}");
        stage.write(client, &frame(PING, payload.as_bytes()));
        assert!(stage.shared.budget.held(Held::Outboxes) <= 64 << 10);
    }
    let mut read = Vec::new();
    for _ in 0..100 {
        read.extend(stage.world.client_read(client, 1 << 20));
        stage.turns(2);
    }
    assert!(read.len() < 4_000 * 127 / 2, "{} bytes of answers", read.len());
    assert!(read.ends_with(format!("{:0125}", 3_999).as_bytes()), "the last ping is answered");
}

/// Messages that so many filters match that a turn does not append them to all logs. One subscription ends meanwhile, and
/// another that came behind them goes on: nothing is missing between the two.
#[test]
fn a_subscription_that_ends_hands_over_without_a_gap() {
    let topic = ["a"; LEVELS].join("/");
    hands_over_to(&topic, &topic);
    hands_over_to(&topic, "a/#");
}

/// Levels of the topic that many filters match.
const LEVELS: usize = 12;

fn hands_over_to(topic: &str, second: &str) {
    let filters: Vec<String> = (1..2600_u32)
        .map(|bits| (0..LEVELS).map(|at| if bits >> at & 1 == 1 { "+" } else { "a" }).collect::<Vec<_>>().join("/"))
        .collect();
    let mut stage = Stage::within(64 << 20, Limits::default());
    for filters in filters.chunks(200) {
        let crowd = stage.open("/ws");
        let command = serde_json::json!({ "type": "subscribe", "topics": filters }).to_string();
        stage.write(crowd, &frame(TEXT, command.as_bytes()));
        stage.turns(4);
    }
    let publisher = stage.open(&format!("/pub/{topic}"));
    let client = stage.open("/ws");
    let command = |stage: &mut Stage, text: String| stage.write(client, &frame(TEXT, text.as_bytes()));
    let publish = |stage: &Stage, messages: usize| {
        let bytes = frame(TEXT, b"x").repeat(messages);
        assert_eq!(stage.world.client_write(publisher, &bytes), bytes.len());
    };
    command(&mut stage, r##"{"type":"subscribe","topics":["#"]}"##.to_owned());
    stage.turns(4);
    publish(&stage, 5);
    command(&mut stage, format!(r#"{{"type":"subscribe","topics":["{second}"]}}"#));
    let mut read = String::new();
    while read.matches(r#""type":"ok""#).count() < 2 {
        stage.turns(1);
        read += &String::from_utf8_lossy(&stage.world.client_read(client, 1 << 20));
    }
    command(&mut stage, r##"{"type":"unsubscribe","topics":["#"]}"##.to_owned());
    publish(&stage, 5);
    stage.turns(60);
    read += &String::from_utf8_lossy(&stage.world.client_read(client, 1 << 20));
    let offsets: Vec<u64> = read
        .split(r#""type":"message""#)
        .skip(1)
        .map(|message| {
            let offset = message.split(r#""offset":"#).nth(1).expect("an offset");
            offset.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
        })
        .collect();
    assert_eq!(offsets, (1..=10).collect::<Vec<_>>(), "{read}");
}

/// Operators are answered once all addresses are known, and a connection that ends meanwhile has none.
#[test]
fn peers_are_found_and_those_that_are_gone_are_not_waited_for() {
    let mut stage = Stage::new();
    let clients = [stage.open("/sub/a"), stage.open("/sub/b"), stage.open("/sub/c")];
    let ids = stage.shard.conns.ids();
    let ask = |stage: &Stage, conns: &[ConnId]| {
        let (answer, answered) = oneshot::channel();
        let order = ControlMessage::Peers { conns: conns.to_vec(), answer };
        stage.shared.send_control(ShardId(0), order).unwrap();
        answered
    };
    let mut answered = ask(&stage, &ids);
    let mut nobody = ask(&stage, &[]);
    stage.turns(4);
    let mut expected: Vec<_> = clients.iter().map(|&client| Some(stage.world.client_address(client))).collect();
    let mut found = answered.try_recv().unwrap();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!((found, nobody.try_recv()), (expected, Ok(Vec::new())));
    // One is gone before it is asked for, another before the driver has answered.
    stage.shard.abort(ids[0], Reason::Reset);
    stage.turns(4);
    let mut answered = ask(&stage, &ids);
    stage.shard.take_mail();
    stage.shard.abort(ids[1], Reason::Reset);
    stage.turns(4);
    let found = answered.try_recv().unwrap();
    assert!(found[0].is_none() && found[2].is_some(), "{found:?}");
}
