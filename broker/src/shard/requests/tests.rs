//! Publishes over HTTP that a shard answers, on the simulated network.

use std::sync::Arc;
use std::time::Duration;

use ring::sim::{ClientId, Faults, SimDriver, World};

use crate::capacity::budget::Held;
use crate::config::limits::Limits;
use crate::ids::{Epoch, ShardId};
use crate::shard::shared::SharedState;
use crate::shard::{Shard, ShardSetup};
use crate::topics::registry::Congestion;

/// One shard with some clients.
struct Stage {
    world: World,
    shard: Shard<SimDriver>,
    shared: Arc<SharedState>,
}

impl Stage {
    fn new(capacity: u32, budget_bytes: u64, limits: Limits) -> Self {
        let world = World::new(1, Faults::default());
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)).within(budget_bytes));
        let setup = ShardSetup { id: ShardId(0), shared: Arc::clone(&shared), limits: Arc::new(limits) };
        let shard = Shard::new(world.driver(capacity, 32, 4096), setup);
        Self { world, shard, shared }
    }

    fn usual() -> Self {
        Self::new(256, 1 << 30, Limits::default())
    }

    fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            assert!(self.shard.step().unwrap());
            self.shard.audit().check().unwrap();
        }
    }

    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 250 {
            self.world.advance(250_000_000);
            self.turns(2);
        }
    }

    /// Writes all of `bytes`, some turns after each part that the socket takes.
    fn write(&mut self, client: ClientId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = self.world.client_write(client, bytes);
            bytes = &bytes[written..];
            self.turns(4);
        }
    }

    fn ask(&mut self, bytes: &[u8]) -> ClientId {
        let client = self.world.connect(0);
        self.turns(2);
        self.write(client, bytes);
        client
    }

    fn heard(&mut self, client: ClientId) -> String {
        self.turns(8);
        String::from_utf8(self.world.client_read(client, 1 << 20)).expect("text")
    }

    /// The statuses of the answers that came.
    fn statuses(&mut self, client: ClientId) -> Vec<String> {
        self.heard(client).split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
    }
}

fn post(topic: &str, body_len: usize, body: &str) -> Vec<u8> {
    format!("POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {body_len}\r\n\r\n{body}").into_bytes()
}

#[test]
fn requests_are_answered_alike_wherever_they_are_cut() {
    let json =
        "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[1";
    let bytes = [&post("a%2Fb", 4, "text")[..], json.as_bytes(), &post("a", 0, ""), &post("$sys", 1, "x")].concat();
    let mut stage = Stage::usual();
    let client = stage.ask(&bytes);
    let whole = stage.heard(client);
    assert_eq!(whole.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{whole}");
    assert!(whole.contains("HTTP/1.1 400 ") && whole.contains("HTTP/1.1 403 "), "{whole}");
    // A refusal by the head is the control plane's while its body has not come.
    let last = bytes.len() - 1;
    for cut in 1..last {
        let mut stage = Stage::usual();
        let client = stage.ask(&bytes[..cut]);
        stage.write(client, &bytes[cut..]);
        assert_eq!(stage.heard(client), whole, "cut at {cut}");
        assert_eq!(stage.shared.handovers.depth(), 0, "cut at {cut}");
        assert_eq!(stage.shared.budget.held(Held::Http) + stage.shared.budget.held(Held::Assemblies), 0);
    }
    let mut stage = Stage::usual();
    let client = stage.ask(&bytes[..last]);
    assert_eq!(stage.statuses(client), ["200", "400", "200"]);
    let handover = stage.shared.handovers.try_next().expect("the last request");
    assert!(handover.read.as_ref().starts_with(b"POST /pub/$sys "), "{handover:?}");
}

#[test]
fn what_is_something_else_is_handed_over_behind_the_answers() {
    let mut stage = Stage::usual();
    let get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /pub";
    let client = stage.ask(&[&post("a", 1, "x"), &post("b", 1, "x")[..], get].concat());
    assert_eq!(stage.statuses(client), ["200", "200"]);
    let handover = stage.shared.handovers.try_next().expect("the socket");
    assert_eq!(handover.read.as_ref(), get);
    assert_eq!(stage.shared.admission.http(), 0);
}

#[test]
fn what_waits_for_the_control_plane_is_bounded() {
    const BUDGET: u64 = 4 << 20;
    let mut stage = Stage::new(64, BUDGET, Limits::default());
    let batch =
        [&b"POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"[..], &[b' '; 30_000]].concat();
    let clients: Vec<_> = (0..40).map(|_| stage.ask(&batch)).collect();
    let refused = clients.into_iter().filter(|&client| stage.heard(client).starts_with("HTTP/1.1 503 ")).count();
    let waiting = stage.shared.handovers.depth();
    assert_eq!(refused + waiting, 40);
    assert!((10..30).contains(&waiting), "{waiting} wait");
    let (held, share) = (stage.shared.budget.held(Held::Http), stage.shared.budget.share(Held::Http));
    assert!(held <= share + share / 2, "{held} bytes wait, the share is {share}");
    // Probes are short.
    stage.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(stage.shared.handovers.depth(), waiting + 1);
}

#[test]
fn a_publish_waits_for_its_topic_and_not_for_ever() {
    let mut stage = Stage::usual();
    let congestion = Congestion::of(stage.shared.registry.resolve("slow"));
    let client = stage.ask(&[&post("slow", 1, "x")[..], &post("fast", 1, "x")].concat());
    let other = stage.ask(&post("fast", 1, "x"));
    assert_eq!(stage.statuses(other), ["200"], "others go on");
    stage.pass(Duration::from_secs(4));
    assert!(stage.statuses(client).is_empty());
    stage.pass(Duration::from_secs(2));
    assert_eq!(stage.statuses(client), ["503", "200"], "and what came behind it");
    stage.write(client, &post("slow", 1, "x"));
    stage.pass(Duration::from_secs(4));
    drop(congestion);
    stage.pass(Duration::from_secs(1));
    assert_eq!(stage.statuses(client), ["200"]);
    assert_eq!(stage.shared.stats[0].sequenced.get(), 3);
}

#[test]
fn a_body_has_to_come_at_some_rate() {
    let mut stage = Stage::usual();
    let client = stage.ask(&post("a", 100_000, "x"));
    for _ in 0..12 {
        stage.write(client, &[b'x'; 1000]);
        stage.pass(Duration::from_secs(1));
        assert!(stage.statuses(client).is_empty());
    }
    stage.pass(Duration::from_secs(7));
    assert_eq!(stage.statuses(client), ["408"]);
    assert!(stage.world.client_eof(client));
}

#[test]
fn of_many_bodies_the_largest_go() {
    let limits = Limits { message_bytes_max: 64 << 10, ..Limits::default() };
    let mut stage = Stage::new(256, 1 << 20, limits);
    let long = "x".repeat(60 << 10);
    let large: Vec<_> = (0..6).map(|_| stage.ask(&post("a", 64 << 10, &long))).collect();
    let small = stage.ask(&post("a", 2000, &"x".repeat(1000)));
    stage.write(small, &[b'x'; 1000]);
    assert_eq!(stage.statuses(small), ["200"]);
    let gone = large.iter().filter(|&&client| stage.statuses(client) == ["503"]).count();
    assert!((1..6).contains(&gone), "{gone}");
    let held = stage.shared.budget.held(Held::Assemblies);
    assert!(held <= stage.shared.budget.share(Held::Assemblies), "{held}");
}

#[test]
fn answers_that_are_not_read_stop_what_is_asked() {
    let limits = Limits { outbox_bytes_max: 4 << 10, ..Limits::default() };
    let mut stage = Stage::new(256, 1 << 30, limits);
    stage.world.set_socket_buffer(2000);
    let client = stage.world.connect(0);
    stage.turns(2);
    let many = post("a", 1, "x").repeat(1000);
    let mut written = 0;
    for _ in 0..3000 {
        written += stage.world.client_write(client, &many[written..]);
        stage.turns(1);
    }
    let answered = stage.shared.stats[0].sequenced.get();
    assert!((10..40).contains(&answered), "{answered} were published");
    assert!(stage.shared.budget.used() < 100 << 10, "{} are kept", stage.shared.budget.used());
    let mut read = Vec::new();
    for _ in 0..4_000 {
        written += stage.world.client_write(client, &many[written..]);
        stage.turns(1);
        read.extend(stage.world.client_read(client, 1 << 20));
    }
    assert_eq!(read.windows(12).filter(|text| text == b"HTTP/1.1 200").count(), 1000);
}

#[test]
fn places_are_few_and_newcomers_get_slots() {
    // Two places; slots are few from the fourteenth connection on.
    let mut stage = Stage::new(16, 1 << 30, Limits::default());
    let kept: Vec<_> = (0..2).map(|_| stage.ask(&post("a", 1, "x"))).collect();
    stage.ask(&post("a", 1, "x"));
    assert_eq!(stage.shared.handovers.depth(), 1, "the third is handed over");
    assert_eq!(stage.shared.admission.http(), 2);
    for &client in &kept {
        assert_eq!(stage.statuses(client), ["200"]);
    }
    for _ in 0..11 {
        stage.ask(b"GET /ws HTTP/1.1\r\n");
    }
    assert_eq!(stage.shared.admission.http(), 2);
    stage.ask(b"GET /ws HTTP/1.1\r\n");
    assert!(stage.world.client_eof(kept[0]) && !stage.world.client_eof(kept[1]), "the first makes room");
    assert_eq!(stage.shared.stats[0].closed_http_idle.get(), 1);
}
