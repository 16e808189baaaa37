//! Tokens that wait for keys, on simulated connections: what they hold is charged, and nobody waits for ever. There is no thread
//! that fetches: the test says what it would.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::access::authority::Authority;
use crate::access::authority::tests::tables;
use crate::access::key_fetch::WAIT_MS_MAX;
use crate::config::auth::Located;

const MS: u64 = 1_000_000;

/// A broker that knows no key of ES256 yet, the set that has it, and a token by it that may publish to `chat/7`.
fn waiting() -> (Stage, String, String) {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/tokens/vectors.json")).expect("JSON");
    let token = vectors["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "PyJWT: good ES256");
    let token = token.expect("a vector")["token"].as_str().unwrap().to_owned();
    let (mut tables, _folder) = tables();
    let auth = tables.auth.as_mut().expect("a table");
    let value = "http://127.0.0.1:1/jwks".to_owned();
    auth.keys_url = Some(Located { value, source: "a.toml:3".to_owned() });
    auth.algorithms.push("ES256".to_owned());
    let authority = Authority::new(&tables, &Arc::default(), 1 << 20).expect("an authority");
    let shared = SharedState::new(1, 1, Epoch(1)).within(64 << 20).authorized_by(Arc::new(authority));
    let now_s = vectors["now_s"].as_u64().unwrap();
    shared.wall_clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(now_s), 0);
    let stage = Stage::of(shared, 64 << 20, Limits::default());
    (stage, vectors["jwks"].to_string(), token)
}

/// A handshake, a publish in two parts and a `connect` with a will, all with this token, and something behind each of them.
fn begin(stage: &mut Stage, token: &str) -> [ClientId; 3] {
    let handshake = stage.world.connect(0);
    let head = format!(
        "GET /pub/chat/7 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stage.write(handshake, head.as_bytes());
    stage.write(handshake, &frame(TEXT, b"behind it"));
    let post = stage.world.connect(0);
    let head = format!(
        "POST /pub/chat/7 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 4\r\n\r\nha"
    );
    stage.write(post, head.as_bytes());
    stage.write(post, b"lf");
    let connect = stage.open("/ws");
    let will = json!({"topic": "chat/7", "data": "x".repeat(1000), "key": "k", "retain": true, "ttl": 5});
    let command = json!({"type": "connect", "id": 1, "token": token, "session": "none", "will": will});
    stage.write(connect, &frame(TEXT, command.to_string().as_bytes()));
    stage.write(connect, &frame(TEXT, json!({"type": "ping", "id": 2}).to_string().as_bytes()));
    stage.turns(8);
    [handshake, post, connect]
}

fn read(stage: &Stage, client: ClientId) -> String {
    String::from_utf8_lossy(&stage.world.client_read(client, 1 << 16)).into_owned()
}

#[test]
fn who_waits_goes_on_when_the_key_is_there() {
    let (mut stage, keys, token) = waiting();
    let before = stage.shared.budget.held(Held::Input);
    let [handshake, post, connect] = begin(&mut stage, &token);
    assert!(stage.shared.budget.held(Held::Input) > before + 2000, "what they brought is charged");
    for client in [handshake, post, connect] {
        assert_eq!(read(&stage, client), "", "not judged yet");
    }
    stage.shared.authority.take_fetched(keys.as_bytes()).expect("keys");
    stage.turns(4);
    assert_eq!(read(&stage, handshake), "", "not before the fetch is over");
    stage.shared.authority.key_fetch().end();
    stage.world.advance(10 * MS);
    stage.turns(12);
    assert!(read(&stage, handshake).starts_with("HTTP/1.1 101"));
    assert!(read(&stage, post).starts_with("HTTP/1.1 200"));
    let answers = read(&stage, connect);
    assert!(answers.contains("\"session\":\"") && answers.contains("pong"), "{answers}");
    assert_eq!(stage.shared.budget.held(Held::Input), before);
    // What each had brought was published.
    let published: u64 = stage.shared.stats.iter().map(|stats| stats.messages_in.get()).sum();
    assert_eq!(published, 2);
}

#[test]
fn nobody_waits_for_ever() {
    let (mut stage, _, token) = waiting();
    let clients = begin(&mut stage, &token);
    stage.world.advance((WAIT_MS_MAX - 100) * MS);
    stage.turns(4);
    assert!(clients.iter().all(|&client| read(&stage, client).is_empty()));
    stage.world.advance(200 * MS);
    stage.turns(12);
    let [handshake, post, connect] = clients;
    assert!(read(&stage, handshake).starts_with("HTTP/1.1 401"));
    assert!(read(&stage, post).starts_with("HTTP/1.1 401"));
    assert!(read(&stage, connect).contains("bad-token"));
}

/// A client that leaves, and a broker that ends, wait for nothing.
#[test]
fn a_client_that_waits_may_leave() {
    let (mut stage, keys, token) = waiting();
    for client in begin(&mut stage, &token) {
        stage.world.client_reset(client);
    }
    stage.turns(12);
    stage.shared.authority.take_fetched(keys.as_bytes()).expect("keys");
    stage.shared.authority.key_fetch().end();
    stage.world.advance(10 * MS);
    stage.turns(12);
    assert_eq!((stage.shared.budget.held(Held::Input), stage.shared.admission.open()), (0, 0));
}
