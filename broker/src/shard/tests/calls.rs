//! Requests and replies on shards, on simulated connections: who is asked, what each failure says, and that nothing stays.

use std::time::Duration;

use ring::Nanos;
use serde_json::{Value, json};

use super::*;
use crate::access::authority::Authority;
use crate::access::authority::tests::{SECRET, tables, token_by};
use crate::config::auth::{AllowTable, GrantLists, Who};

const MS: Nanos = 1_000_000;

impl Stage {
    /// Two shards.
    fn pair(limits: Limits) -> Self {
        Self::of(SharedState::new(2, 1, Epoch(1)), u64::MAX >> 2, limits)
    }

    /// A client of `/ws` on a shard.
    fn on(&mut self, shard: usize) -> ClientId {
        self.open_at(shard, "/ws")
    }

    /// A client on a shard that responds to a filter.
    fn responder(&mut self, shard: usize, filter: &str) -> ClientId {
        let client = self.on(shard);
        assert_eq!(self.ask(client, &json!({"type": "respond", "id": 1, "topic": filter})), [ok(1)]);
        client
    }

    fn request(&mut self, client: ClientId, id: u64, topic: &str) {
        self.command(client, &json!({"type": "request", "id": id, "topic": topic, "data": id, "timeout": 1000}));
    }

    /// The numbers under which a responder got requests.
    fn got(&mut self, client: ClientId) -> Vec<u64> {
        let read = self.read(client);
        read.iter().map(|message| message["reply"].as_u64().unwrap_or_else(|| panic!("{message}"))).collect()
    }

    fn wait(&mut self, ms: u64) {
        self.world.advance(ms * MS);
        self.turns(4);
    }

    fn held(&self) -> [u64; 2] {
        [Held::Subscriptions, Held::Messages].map(|held| self.shared.budget.held(held))
    }

    fn outcomes(&self) -> [u64; 8] {
        let mut sums = [0; 8];
        for stats in &self.shared.stats {
            let stats = stats.snapshot();
            let counts = [
                stats.requests_answered,
                stats.requests_responder_error,
                stats.requests_no_responder,
                stats.requests_busy,
                stats.requests_responder_lost,
                stats.requests_timeout,
                stats.requests_abandoned,
                stats.requests_waiting,
            ];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

fn ok(id: u64) -> Value {
    json!({"type": "ok", "id": id})
}

fn codes(answers: &[Value]) -> Vec<(u64, &str)> {
    answers.iter().map(|answer| (answer["id"].as_u64().unwrap_or(0), answer["code"].as_str().unwrap_or("ok"))).collect()
}

#[test]
fn a_request_is_answered_across_shards() {
    let mut stage = Stage::pair(Limits::default());
    let (responder, asker) = (stage.responder(1, "points/+"), stage.on(0));
    let idle = stage.held();
    stage.command(
        asker,
        &json!({"type": "request", "id": 7, "topic": "points/3", "data": {"to": "left"}, "timeout": 500}),
    );
    let asked = stage.read(responder);
    let timeout = asked[0]["timeout"].as_u64().expect("milliseconds");
    assert!((400..=500).contains(&timeout), "{timeout}");
    let expected =
        json!({"type": "request", "topic": "points/3", "data": {"to": "left"}, "reply": 0, "timeout": timeout});
    assert_eq!(asked, [expected]);
    assert!(stage.held()[0] > idle[0], "what waits is charged");
    let answered =
        stage.ask(responder, &json!({"type": "reply", "id": 2, "reply": 0, "data": "AA==", "encoding": "base64"}));
    assert_eq!(answered, [ok(2)]);
    assert_eq!(stage.read(asker), [json!({"type": "ok", "id": 7, "data": "AA==", "encoding": "base64"})]);
    assert_eq!(stage.held(), idle);
    // An answer with an error, without an id; and what nobody waits for.
    stage.request(asker, 8, "points/4");
    assert_eq!(stage.got(responder), [1]);
    let error = json!({"code": "stuck", "reason": "no power"});
    assert_eq!(stage.ask(responder, &json!({"type": "reply", "reply": 1, "error": error})), Vec::<Value>::new());
    let answer = &stage.read(asker)[0];
    assert_eq!((&answer["code"], &answer["error"]), (&json!("responder-error"), &error));
    for number in [0, 1, 2] {
        let again = stage.ask(responder, &json!({"type": "reply", "id": 3, "reply": number, "data": 1}));
        assert_eq!(codes(&again), [(3, "not-found")]);
    }
    assert_eq!(stage.outcomes(), [1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn nobody_serves_it_before_and_after() {
    let mut stage = Stage::pair(Limits::default());
    let (asker, responder) = (stage.on(0), stage.on(1));
    let fails = |stage: &mut Stage, code| {
        let answers = stage.ask(asker, &json!({"type": "request", "id": 1, "topic": "a/b", "data": 1}));
        assert_eq!(codes(&answers), [(1, code)]);
    };
    fails(&mut stage, "no-responder");
    assert_eq!(stage.ask(responder, &json!({"type": "respond", "id": 1, "topic": "a/#"})), [ok(1)]);
    assert_eq!(stage.ask(responder, &json!({"type": "respond", "id": 2, "topic": "a/#"})), [ok(2)], "again");
    let other = stage.ask(asker, &json!({"type": "request", "id": 2, "topic": "b", "data": 1}));
    assert_eq!(codes(&other), [(2, "no-responder")]);
    let to = stage.ask(asker, &json!({"type": "request", "id": 3, "topic": "a", "data": 1, "to": "ada"}));
    assert_eq!(codes(&to), [(3, "no-responder")], "it is nobody in particular");
    assert_eq!(stage.ask(responder, &json!({"type": "respond", "id": 3, "topic": "a/#", "end": true})), [ok(3)]);
    fails(&mut stage, "no-responder");
    let twice = stage.ask(responder, &json!({"type": "respond", "id": 4, "topic": "a/#", "end": true}));
    assert_eq!(codes(&twice), [(4, "not-found")]);
    assert_eq!(stage.outcomes(), [0, 0, 4, 0, 0, 0, 0, 0]);
}

#[test]
fn what_was_asked_may_be_answered_after_the_end_of_the_registration() {
    let mut stage = Stage::pair(Limits::default());
    let (responder, asker) = (stage.responder(1, "a"), stage.on(0));
    stage.request(asker, 1, "a");
    assert_eq!(stage.got(responder), [0]);
    stage.ask(responder, &json!({"type": "respond", "id": 2, "topic": "a", "end": true}));
    stage.command(responder, &json!({"type": "reply", "reply": 0, "data": 1}));
    assert_eq!(codes(&stage.read(asker)), [(1, "ok")]);
    stage.ask(responder, &json!({"type": "respond", "id": 3, "topic": "a"}));
    stage.request(asker, 2, "a");
    assert_eq!(stage.got(responder), [1], "a number is given once");
}

/// It is chosen for a filter whose end the asking shard does not know yet, and serves the topic by another one.
#[test]
fn who_serves_a_topic_twice_may_end_one_of_the_two() {
    let mut stage = Stage::pair(Limits::default());
    let client = stage.responder(0, "a/#");
    assert_eq!(stage.ask(client, &json!({"type": "respond", "id": 2, "topic": "a/b"})), [ok(2)]);
    let end = frame(TEXT, json!({"type": "respond", "topic": "a/b", "end": true}).to_string().as_bytes());
    let ask = frame(TEXT, json!({"type": "request", "id": 3, "topic": "a/b", "data": 1}).to_string().as_bytes());
    stage.write(client, &[end, ask].concat());
    let read = stage.read(client);
    assert!(read.iter().any(|message| message["type"] == "request"), "{read:?}");
}

#[test]
fn the_responder_is_lost() {
    let mut stage = Stage::pair(Limits::default());
    let (responder, asker) = (stage.responder(1, "a"), stage.on(0));
    let idle = stage.held();
    stage.request(asker, 1, "a");
    assert_eq!(stage.got(responder), [0]);
    stage.world.client_reset(responder);
    stage.turns(4);
    assert_eq!(codes(&stage.read(asker)), [(1, "responder-lost")]);
    stage.request(asker, 2, "a");
    assert_eq!(codes(&stage.read(asker)), [(2, "no-responder")]);
    assert!(stage.held()[0] < idle[0], "{:?} of {idle:?}", stage.held());
}

/// At the deadline both sides forget it.
#[test]
fn an_answer_that_comes_late_is_for_nobody() {
    let mut stage = Stage::pair(Limits::default());
    let (responder, asker) = (stage.responder(1, "a"), stage.on(0));
    let idle = stage.held();
    stage.request(asker, 1, "a");
    assert_eq!(stage.got(responder), [0]);
    stage.wait(900);
    assert_eq!(stage.read(asker), Vec::<Value>::new());
    stage.wait(101);
    assert_eq!(codes(&stage.read(asker)), [(1, "timeout")]);
    let late = stage.ask(responder, &json!({"type": "reply", "id": 9, "reply": 0, "data": 1}));
    assert_eq!(codes(&late), [(9, "not-found")]);
    assert_eq!((stage.read(asker), stage.held()), (Vec::new(), idle));
}

#[test]
fn who_asks_and_goes_leaves_nothing() {
    let mut stage = Stage::pair(Limits::default());
    let (responder, asker) = (stage.responder(1, "a"), stage.on(0));
    stage.request(asker, 1, "a");
    assert_eq!(stage.got(responder), [0]);
    stage.world.client_reset(asker);
    stage.turns(4);
    assert_eq!(stage.outcomes(), [0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(stage.ask(responder, &json!({"type": "reply", "id": 2, "reply": 0, "data": 1})), [ok(2)]);
    stage.wait(1);
}

#[test]
fn sixteen_wait_for_one_responder_and_the_next_is_asked() {
    let mut stage = Stage::pair(Limits::default());
    let (first, second) = (stage.responder(0, "a"), stage.responder(1, "#"));
    let asker = stage.on(0);
    for id in 0..32 {
        stage.request(asker, id, "a");
    }
    assert_eq!((stage.got(first).len(), stage.got(second).len()), (16, 16));
    stage.request(asker, 32, "a");
    assert_eq!(codes(&stage.read(asker)), [(32, "busy")]);
    stage.command(second, &json!({"type": "reply", "reply": 15, "data": 1}));
    stage.request(asker, 33, "a");
    assert_eq!(codes(&stage.read(asker)), [(31, "ok")]);
    assert_eq!(stage.got(second), [16]);
}

#[test]
fn a_connection_waits_for_so_many_answers_and_no_more() {
    let mut stage = Stage::pair(Limits { requests_max: 3, ..Limits::default() });
    let (responder, asker) = (stage.responder(1, "a"), stage.on(0));
    for id in 0..4 {
        stage.request(asker, id, "a");
    }
    assert_eq!(codes(&stage.read(asker)), [(3, "busy")]);
    stage.command(responder, &json!({"type": "reply", "reply": 1, "data": 1}));
    assert_eq!(codes(&stage.read(asker)), [(1, "ok")]);
    stage.request(asker, 4, "a");
    let other = stage.on(0);
    stage.request(other, 1, "a");
    assert_eq!(stage.got(responder), [0, 1, 2, 3, 4], "others are not concerned");
}

/// Its first request takes up the socket, and nothing is read.
#[test]
fn a_responder_that_does_not_read_is_passed_over() {
    let mut stage = Stage::pair(Limits { ping_timeout: Duration::from_secs(60), ..Limits::default() });
    let (other, asker) = (stage.responder(0, "#"), stage.on(0));
    stage.world.set_socket_buffer(1000);
    let blocked = stage.responder(1, "a");
    let data = "x".repeat(30_000);
    stage.command(asker, &json!({"type": "request", "id": 1, "topic": "a", "data": data, "timeout": 20_000}));
    stage.turns(8);
    stage.wait(500);
    stage.request(asker, 2, "a");
    stage.turns(8);
    assert_eq!(stage.got(other), Vec::<u64>::new(), "half a second is no reason");
    stage.wait(600);
    stage.request(asker, 3, "a");
    assert_eq!(stage.got(other), [0]);
    stage.world.client_reset(other);
    stage.turns(8);
    stage.request(asker, 4, "a");
    stage.turns(8);
    let mut answers = stage.read(asker);
    answers.retain(|answer| answer["id"] != 2);
    assert_eq!(codes(&answers), [(3, "responder-lost"), (4, "busy")]);
    assert_eq!(stage.close_code(blocked), None);
}

/// Everybody is asked in turn, by each shard for itself.
#[test]
fn turns_are_fair() {
    let mut stage = Stage::pair(Limits::default());
    let responders = [0, 1, 1, 0, 1].map(|shard| stage.responder(shard, "a"));
    let askers = [stage.on(0), stage.on(1)];
    for round in 0..15 {
        for asker in askers {
            stage.request(asker, round, "a");
        }
    }
    assert_eq!(responders.map(|responder| stage.got(responder).len()), [6; 5]);
}

#[test]
fn without_the_right_to_publish_nobody_asks_or_responds() {
    let mut stage = Stage::pair(Limits { client_publish: false, ..Limits::default() });
    let client = stage.on(0);
    for command in ["request", "respond"] {
        let mut command = json!({"type": command, "id": 1, "topic": "a"});
        if command["type"] == "request" {
            command["data"] = 1.into();
        }
        assert_eq!(codes(&stage.ask(client, &command)), [(1, "forbidden")], "{command}");
    }
}

#[test]
fn members_are_known_by_their_tokens_and_asked_by_name() {
    let (mut tables, _folder) = tables();
    let list = |filter: &str| vec![filter.to_owned()];
    let rights = list("request");
    let grants = GrantLists { subscribe: list("chat/#"), respond: list("chat/+"), rights, ..GrantLists::default() };
    tables.allows.push(AllowTable { source: "a.toml:30".to_owned(), principal: Who::User, grants });
    let authority = Authority::new(&tables, &Arc::default(), 1 << 20).expect("an authority");
    let shared = SharedState::new(2, 1, Epoch(1)).authorized_by(Arc::new(authority));
    shared.wall_clock.set(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000), 0);
    let mut stage = Stage::of(shared, u64::MAX >> 2, Limits::default());
    let connect = |user: &str| {
        let token = token_by(SECRET, &json!({"sub": user, "iat": 1_900_000_000, "exp": 1_900_003_600}));
        json!({"type": "connect", "id": 1, "token": token})
    };
    let clients = [("ada", 0), ("bob", 1), ("eve", 0)].map(|(user, shard)| {
        let client = stage.on(shard);
        assert_eq!(codes(&stage.ask(client, &connect(user))), [(1, "ok")]);
        client
    });
    let [ada, bob, eve] = clients;
    for responder in [ada, bob] {
        assert_eq!(stage.ask(responder, &json!({"type": "respond", "id": 2, "topic": "chat/7"})), [ok(2)]);
    }
    let answers = stage.ask(ada, &json!({"type": "respond", "id": 3, "topic": "chat/#"}));
    assert_eq!(codes(&answers), [(3, "forbidden")]);
    let answers = stage.ask(eve, &json!({"type": "request", "id": 3, "topic": "user/eve/1", "data": 1}));
    assert_eq!(codes(&answers), [(3, "forbidden")], "there is no right to ask there");
    for _ in 0..2 {
        stage.command(eve, &json!({"type": "request", "id": 4, "topic": "chat/7", "data": 1, "to": "bob"}));
        let asked = stage.read(bob).remove(0);
        assert_eq!(asked["from"], "eve");
        stage.command(bob, &json!({"type": "reply", "reply": asked["reply"], "data": 2}));
        assert_eq!(stage.read(eve), [json!({"type": "ok", "id": 4, "data": 2, "from": "bob"})]);
    }
    // Rules change: nothing grants it any more.
    tables.allows.pop();
    stage.shared.authority.reload(Some(&tables)).expect("good tables");
    stage.turns(600);
    let ended = json!({"type": "ended", "topic": "chat/7", "code": "forbidden", "respond": true});
    assert_eq!(stage.read(bob), [ended]);
    assert_eq!(stage.shared.stats[1].snapshot().responders, 0);
}
