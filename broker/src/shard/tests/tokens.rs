//! Tokens on a shard, on simulated connections: what happens by the shard's clock, when rights change, and how little a storm
//! of logins holds up.

use std::time::{Duration, SystemTime};

use ring::Nanos;
use serde_json::{Value, json};

use super::*;
use crate::access::authority::Authority;
use crate::access::authority::tests::{SECRET, tables, token_by};
use crate::config::auth::AuthTable;

const SECOND: Nanos = 1_000_000_000;
/// The time of day when the clock of the simulation is 0, in seconds since 1970.
const EPOCH_S: u64 = 1_900_000_000;

/// A shard that asks for tokens. Every user may subscribe to `chat/+` and `user/{sub}/#`, and publish to `chat/+`.
fn guarded(limits: Limits) -> (Stage, tempfile::TempDir) {
    guarded_by(limits, |_| {})
}

/// The same; `change` sets keys of `[auth]`.
fn guarded_by(limits: Limits, change: impl FnOnce(&mut AuthTable)) -> (Stage, tempfile::TempDir) {
    let (mut tables, folder) = tables();
    let auth = tables.auth.as_mut().expect("a table");
    (auth.leeway, auth.grace) = (Duration::ZERO, Duration::from_secs(25));
    change(auth);
    let authority = Authority::new(&tables, &Arc::default(), 1 << 20).expect("an authority");
    let shared = SharedState::new(1, 1, Epoch(1)).within(64 << 20).authorized_by(Arc::new(authority));
    shared.wall_clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_S), 0);
    (Stage::of(shared, 64 << 20, limits), folder)
}

impl Stage {
    fn now_s(&self) -> u64 {
        EPOCH_S + self.world.now() / SECOND
    }

    /// A token that ends in so many seconds by the clock of the simulation.
    fn token(&self, user: &str, seconds: u64) -> String {
        let now = self.now_s();
        token_by(SECRET, &json!({"sub": user, "iat": now, "exp": now + seconds}))
    }

    /// A client of `/ws` with this token.
    fn connected(&mut self, token: &str) -> ClientId {
        let client = self.open("/ws");
        let answers = self.ask(client, &json!({"type": "connect", "id": 1, "token": token}));
        assert_eq!(answers.first().map(|answer| &answer["type"]), Some(&json!("ok")), "{answers:?}");
        client
    }

    /// Time passes, turn by turn.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.world.advance(SECOND);
            self.turns(2);
        }
    }
}

/// `exp` is a time of day, and only the clock that the shard was given decides about it.
#[test]
fn a_token_ends_by_the_clock_of_the_shard() {
    let limits = Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() };
    let (mut stage, _folder) = guarded(limits);
    let token = stage.token("ada", 200);
    let client = stage.connected(&token);
    stage.pass(138);
    assert_eq!(stage.read(client), Vec::<Value>::new(), "nothing until a minute before its end");
    stage.pass(4);
    let asked = stage.read(client);
    assert_eq!(asked[0]["type"], "refresh", "{asked:?}");
    let left = asked[0]["in"].as_u64().expect("milliseconds");
    assert!((58_000..=60_000).contains(&left), "{left}");
    stage.pass(80);
    assert_eq!(stage.close_code(client), None, "the grace is not over");
    stage.pass(6);
    assert_eq!(stage.close_code(client), Some(4401));
}

/// Its client would fetch one token after the other if it were asked at once.
#[test]
fn a_short_token_is_asked_for_again_when_half_of_its_time_has_passed() {
    let (mut stage, _folder) = guarded(Limits::default());
    let token = stage.token("ada", 10);
    let client = stage.connected(&token);
    stage.pass(4);
    assert_eq!(stage.read(client), Vec::<Value>::new());
    stage.pass(2);
    assert_eq!(stage.read(client)[0]["type"], "refresh");
}

#[test]
fn another_token_puts_the_end_off() {
    let limits = Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() };
    let (mut stage, _folder) = guarded(limits);
    let token = stage.token("ada", 100);
    let client = stage.connected(&token);
    stage.pass(50);
    let token = stage.token("ada", 100);
    let answers = stage.ask(client, &json!({"type": "connect", "id": 2, "token": token}));
    assert!(answers.iter().any(|answer| answer["id"] == 2 && answer["type"] == "ok"), "{answers:?}");
    stage.pass(90);
    assert_eq!(
        stage.ask(client, &json!({"type": "ping", "id": 3})).last().map(|pong| &pong["type"]),
        Some(&json!("pong"))
    );
    stage.pass(40);
    assert_eq!(stage.close_code(client), Some(4401));
}

/// Within the leeway a token is taken after its end. That puts nothing off: not when a client comes back with it, and not when it
/// sends it again.
#[test]
fn a_token_within_the_leeway_puts_no_end_off() {
    let limits = Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() };
    let (mut stage, _folder) = guarded_by(limits, |auth| auth.leeway = Duration::from_secs(30));
    let token = stage.token("ada", 10);
    let first = stage.connected(&token);
    stage.pass(22);
    let again = json!({"type": "connect", "id": 2, "token": token});
    assert!(stage.ask(first, &again).iter().any(|answer| answer["id"] == 2 && answer["type"] == "ok"));
    let second = stage.connected(&token);
    stage.pass(10);
    assert_eq!((stage.close_code(first), stage.close_code(second)), (None, None), "the grace is not over");
    stage.pass(4);
    assert_eq!((stage.close_code(first), stage.close_code(second)), (Some(4401), Some(4401)));
    // Behind the grace, for as long as it is taken.
    let third = stage.connected(&token);
    stage.pass(6);
    assert_eq!(stage.close_code(third), Some(4401));
}

/// A token without an end is as good later as now: sent again, it does not prolong the connection.
#[test]
fn a_token_without_an_end_holds_a_connection_for_the_greatest_age() {
    let limits = Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() };
    let (mut stage, _folder) = guarded_by(limits, |auth| auth.max_age = Some(Duration::from_secs(100)));
    let endless = token_by(SECRET, &json!({"sub": "ada", "iat": stage.now_s()}));
    let [client, other] = [stage.connected(&endless), stage.connected(&endless)];
    stage.pass(60);
    let asked = stage.read(client);
    assert_eq!(asked.iter().map(|message| &message["type"]).collect::<Vec<_>>(), ["refresh"]);
    let again = token_by(SECRET, &json!({"sub": "ada", "iat": stage.now_s()}));
    for token in [endless, again] {
        let answers = stage.ask(client, &json!({"type": "connect", "id": 2, "token": token}));
        assert_eq!(answers.iter().map(|answer| &answer["type"]).collect::<Vec<_>>(), ["ok"]);
    }
    let ends = stage.token("ada", 100);
    stage.ask(other, &json!({"type": "connect", "id": 2, "token": ends}));
    stage.pass(36);
    assert_eq!((stage.read(client), stage.close_code(client)), (Vec::new(), None));
    stage.pass(8);
    assert_eq!((stage.close_code(client), stage.close_code(other)), (Some(4401), None));
    stage.pass(84);
    assert_eq!(stage.close_code(other), Some(4401));
}

/// The token of a `connect` is in force even if its will is refused: what it does not grant ends.
#[test]
fn another_token_counts_whatever_becomes_of_its_will() {
    let (mut stage, _folder) = guarded(Limits::default());
    let now = stage.now_s();
    let admin = token_by(SECRET, &json!({"sub": "ada", "iat": now, "exp": now + 100, "role": "admin"}));
    let client = stage.connected(&admin);
    let answers = stage.ask(client, &json!({"type": "subscribe", "id": 2, "topics": ["news/1", "chat/1"]}));
    assert_eq!(answers[0]["type"], "ok", "{answers:?}");
    let token = stage.token("ada", 100);
    let will = json!({"topic": "news/1", "data": "gone"});
    let heard = stage.ask(client, &json!({"type": "connect", "id": 3, "token": token, "will": will}));
    assert_eq!((&heard[0]["id"], &heard[0]["code"]), (&json!(3), &json!("forbidden")), "{heard:?}");
    let ended: Vec<_> =
        heard.iter().chain(&stage.read(client)).filter(|message| message["type"] == "ended").cloned().collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!((&ended[0]["topic"], &ended[0]["code"]), (&json!("news/1"), &json!("forbidden")));
    let others = json!({"type": "connect", "id": 4, "token": stage.token("bob", 100)});
    let bytes = frame(TEXT, others.to_string().as_bytes());
    assert_eq!(stage.world.client_write(client, &bytes), bytes.len());
    stage.turns(8);
    assert_eq!(stage.close_code(client), Some(4403));
}

#[test]
fn who_says_nothing_is_closed_in_time() {
    let (mut stage, _folder) = guarded(Limits { auth_timeout: Duration::from_secs(3), ..Limits::default() });
    let client = stage.open("/ws");
    stage.pass(2);
    assert_eq!(stage.close_code(client), None);
    stage.pass(2);
    assert_eq!(stage.close_code(client), Some(4408));
}

/// A revoked user who still recovers gets nothing more.
#[test]
fn a_user_is_revoked_in_the_middle_of_a_recovery() {
    let limits = Limits { recovery_bytes_max: 16 << 20, ..Limits::default() };
    let (mut stage, _folder) = guarded(limits);
    let token = stage.token("ada", 1000);
    let publisher = stage.token("bob", 1000);
    let publisher = stage.connected(&publisher);
    let topics = ["chat/0", "chat/1", "chat/2", "chat/3"];
    let mut positions = json!({});
    for topic in topics {
        let first = stage.publish(publisher, topic, &[("data", json!("first"))]);
        positions[topic] = json!({"epoch": first["epoch"], "offset": 1});
        for _ in 0..25 {
            stage.publish(publisher, topic, &[("data", json!("x".repeat(9000)))]);
        }
    }
    stage.world.set_socket_buffer(4096);
    let reader = stage.connected(&token);
    let since = json!({"positions": positions});
    stage.command(reader, &json!({"type": "subscribe", "id": 2, "topics": topics, "since": since}));
    stage.turns(4);
    let now_ms = stage.now_s() * 1000;
    stage.shared.authority.revoke("ada", stage.now_s() + 1, now_ms).expect("room");
    stage.turns(8);
    let (mut read, mut idle) = (Vec::new(), 0);
    while idle < 8 {
        let part = stage.world.client_read(reader, 1 << 20);
        idle = if part.is_empty() { idle + 1 } else { 0 };
        read.extend(part);
        stage.turns(1);
    }
    let messages = read.windows(9).filter(|window| *window == b"\"message\"").count();
    assert!((1..60).contains(&messages), "{messages} of 100 messages came: more than the send that was under way");
    assert!(read.ends_with(b"this client may not stay any longer"), "the close frame is the last thing that comes");
}

/// The control plane judged its handshake, and then the shard saw the revocation before the socket.
#[test]
fn a_user_is_revoked_whose_socket_is_on_its_way_to_the_shard() {
    let (mut stage, _folder) = guarded(Limits::default());
    let (token, now_ms) = (stage.token("ada", 100), stage.now_s() * 1000);
    let principal = stage.shared.authority.identify(token.as_bytes(), now_ms).result.expect("a good token");
    stage.shared.authority.revoke("ada", stage.now_s() + 1, now_ms).expect("room");
    stage.turns(2);
    let client = stage.adopt(Purpose::V1Session, Entry::Known(principal));
    stage.turns(8);
    assert_eq!(stage.close_code(client), Some(4403));
}

/// Its token is over, and it may stay for the grace: whatever happens to others.
#[test]
fn a_revocation_leaves_others_their_grace() {
    let limits = Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() };
    let (mut stage, _folder) = guarded(limits);
    let token = stage.token("ada", 10);
    let client = stage.connected(&token);
    stage.pass(20);
    stage.shared.authority.revoke("bob", stage.now_s() + 1, stage.now_s() * 1000).expect("room");
    stage.pass(10);
    assert_eq!(stage.close_code(client), None, "the grace is not over");
    stage.pass(8);
    assert_eq!(stage.close_code(client), Some(4401));
}

/// Of a storm of logins a turn verifies only a few, and what is published meanwhile is delivered in between.
#[test]
fn a_storm_of_logins_does_not_hold_up_deliveries() {
    let (mut stage, _folder) = guarded(Limits::default());
    let token = stage.token("reader", 1000);
    let reader = stage.connected(&token);
    let answers = stage.ask(reader, &json!({"type": "subscribe", "id": 2, "topic": "chat/7"}));
    assert_eq!(answers[0]["type"], "ok");
    let publisher = stage.token("bob", 1000);
    let publisher = stage.connected(&publisher);
    let storm: Vec<ClientId> = (0..200).map(|_| stage.world.connect(0)).collect();
    for (n, &client) in storm.iter().enumerate() {
        let token = stage.token(&format!("u{n}"), 1000);
        let head = format!(
            "GET /sub/chat/8 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        assert_eq!(stage.world.client_write(client, head.as_bytes()), head.len());
    }
    let command = json!({"type": "publish", "topic": "chat/7", "data": "now"}).to_string();
    stage.world.client_write(publisher, &frame(TEXT, command.as_bytes()));
    let established = |stage: &Stage| stage.shared.stats[0].upgraded.get();
    let before = established(&stage);
    let mut delivered_at = None;
    for turn in 0..200 {
        let were = established(&stage);
        stage.turns(1);
        assert!(established(&stage) - were <= 64, "too many in one turn");
        if delivered_at.is_none() && stage.world.client_unread(reader) > 0 {
            delivered_at = Some(turn);
        }
        if established(&stage) - before == 200 {
            break;
        }
    }
    assert_eq!(established(&stage) - before, 200, "all of them get in");
    assert!(delivered_at.is_some_and(|turn| turn <= 8), "{delivered_at:?}");
}

/// Many who have just come say who they are, all at once. Who was here before waits for a few of them, not for all.
#[test]
fn first_commands_of_many_do_not_hold_up_who_was_here() {
    const STORM: usize = 400;
    let (mut stage, _folder) = guarded(Limits::default());
    let token = stage.token("bob", 1000);
    let [reader, publisher] = [stage.connected(&token), stage.connected(&token)];
    let subscribe = |id: usize| json!({"type": "subscribe", "id": id, "topic": "chat/7"});
    assert_eq!(stage.ask(reader, &subscribe(2))[0]["type"], "ok");
    for id in 2..5 {
        assert_eq!(stage.ask(publisher, &json!({"type": "ping", "id": id}))[0]["type"], "pong");
    }
    let storm: Vec<ClientId> = (0..STORM).map(|_| stage.open("/ws")).collect();
    for (n, &client) in storm.iter().enumerate() {
        for (id, seconds) in [1000, 2000].into_iter().enumerate() {
            let token = stage.token(&format!("u{n}"), seconds);
            let connect = json!({"type": "connect", "id": id, "token": token}).to_string();
            stage.world.client_write(client, &frame(TEXT, connect.as_bytes()));
        }
    }
    // What a turn receives is more than what it looks at: by now many of them wait.
    stage.turns(8);
    let command = json!({"type": "publish", "topic": "chat/7", "data": "now"}).to_string();
    stage.world.client_write(publisher, &frame(TEXT, command.as_bytes()));
    let answered = |stage: &Stage| storm.iter().filter(|&&client| stage.world.client_unread(client) > 0).count();
    let mut delivered_at = None;
    for turn in 0..200 {
        stage.turns(1);
        if delivered_at.is_none() && stage.world.client_unread(reader) > 0 {
            delivered_at = Some(turn);
        }
        if answered(&stage) == STORM {
            break;
        }
    }
    assert_eq!(answered(&stage), STORM, "all of them get their answers");
    assert!(delivered_at.is_some_and(|turn| turn <= 3), "{delivered_at:?}");
}
