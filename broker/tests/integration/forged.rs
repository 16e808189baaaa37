//! The forged tokens of `tests/tokens` against a real broker: each is refused in the same words, in a header and in `connect`, and
//! only the counters tell the causes apart. A token that is good but for its end is closed with a code of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::access::{Guarded, connected, post_as, token};
use crate::broker::Broker;
use crate::http::{Answer, Http, request};
use crate::secrets::refused_by_cause;
use crate::upgrade::UPGRADE;
use crate::ws::open_v1;

const V1: &str = "Sec-WebSocket-Protocol: ringyard.v1\r\n";

/// The configuration of a name in `settings`.
fn configuration(folder: &Path, vectors: &Value, name: &str) -> String {
    let settings = &vectors["settings"][name];
    let mut text = format!("[auth]\nleeway = '{}s'\nalgorithms = {}\n", vectors["leeway_s"], settings["algorithms"]);
    let mut file = |key: &str, name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        text += &format!("{key} = {path:?}\n");
    };
    if settings["secret"] == true {
        file("hs-secret-file", "secret", vectors["secret"].as_str().unwrap());
    }
    if settings["jwks"] == true {
        file("keys-file", "jwks.json", &vectors["jwks"].to_string());
    }
    if settings["pem"] == true {
        file("keys-file", "keys.pem", vectors["pem"].as_str().unwrap());
    }
    for (key, name) in [
        ("issuer", "issuer"),
        ("audience", "audience"),
        ("typ", "typ"),
        ("user-claim", "user_claim"),
        ("topics-claim", "topics_claim"),
    ] {
        if let Some(value) = settings[name].as_str() {
            text += &format!("{key} = {value:?}\n");
        }
    }
    if let Some(seconds) = settings["max_age_s"].as_u64() {
        text += &format!("max-age = '{seconds}s'\n");
    }
    let path = folder.join("ringyard.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The answer to a handshake at `/ws` with this token in its header.
async fn by_header(server: SocketAddr, token: &str) -> Answer {
    let mut http = Http::open(server).await;
    let head = format!("GET /ws HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {token}\r\n{UPGRADE}{V1}\r\n");
    http.send(head).await.answer().await
}

/// The answer to `connect` with this token, and the close frame behind it.
async fn by_connect(server: SocketAddr, token: &str) -> (Value, (u16, String)) {
    let mut client = open_v1(server).await;
    let answer = client.command(json!({"type": "connect", "id": 1, "token": token})).await;
    (answer, client.close_frame().await)
}

/// Different answers, each with the names of the tokens that got it.
type Answers = BTreeMap<String, Vec<String>>;

#[tokio::test]
async fn every_forged_token_is_refused_in_the_same_words() {
    let vectors: Value = serde_json::from_str(include_str!("../tokens/vectors.json")).unwrap();
    let tokens = vectors["tokens"].as_array().unwrap();
    let (mut answers, mut closes): (Answers, Answers) = Default::default();
    let mut tried = 0;
    for settings in vectors["settings"].as_object().unwrap().keys() {
        let folder = tempfile::tempdir().unwrap();
        let config = configuration(folder.path(), &vectors, settings);
        let broker = Broker::start(&["--config", &config, "--max-head", "64k"]);
        let mut expected = BTreeMap::new();
        for vector in tokens.iter().filter(|vector| vector["settings"] == *settings && vector["expected"] != "ok") {
            let [name, token, cause] = ["name", "token", "expected"].map(|member| vector[member].as_str().unwrap());
            let mut times = 1;
            let (answer, close) = by_connect(broker.address, token).await;
            // The broker's clock may be beyond the end of those that were not yet valid.
            let has_ended = cause == "expired" || (cause == "not-yet" && close.0 == 4401);
            assert_eq!(close.0, if has_ended { 4401 } else { 4400 }, "{name}: {answer} {close:?}");
            answers.entry(answer.to_string()).or_default().push(name.to_owned());
            closes.entry(format!("{close:?}")).or_default().push(name.to_owned());
            if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
                let answer = by_header(broker.address, token).await;
                assert_eq!(answer.status, 401, "{name}: {answer:?}");
                let said = format!("{} {}", answer.head, String::from_utf8_lossy(&answer.body));
                answers.entry(said).or_default().push(name.to_owned());
                times = 2;
            }
            *expected.entry(if has_ended { "expired" } else { cause }.to_owned()).or_default() += times;
            tried += times;
        }
        assert_eq!(refused_by_cause(&broker).await, expected, "{settings}");
    }
    assert_eq!(answers.len(), 2, "one answer to `connect` and one to a header: {answers:?}");
    assert_eq!(closes.len(), 2, "of a token that has ended, and of all others: {closes:?}");
    assert!(tried > 350, "{tried}");
}

/// A token of about so many characters, with a good signature.
fn long(characters: usize) -> String {
    token("7", 600, json!({"filling": "a".repeat(characters / 4 * 3)}))
}

#[tokio::test]
async fn a_token_of_a_megabyte_is_refused_without_harm() {
    let allow = "[[allow]]\nprincipal = 'user'\npublish = ['chat/+']\n";
    let guarded = Guarded::with("", allow, &["--max-head", "1m", "--max-message", "2m"]);
    let server = guarded.address();
    let witness = &mut connected(server, &token("8", 600, json!({}))).await;
    let (fits, megabyte, beyond) = (long(1_000_000), long(1 << 20), long(3 << 20));
    assert!(fits.len() >= 1_000_000 && megabyte.len() >= 1 << 20);
    let short = "nonsense";
    let (answer, close) = by_connect(server, &megabyte).await;
    assert_eq!((answer, close), by_connect(server, short).await, "answered as any other");
    let by_header_of = async |token: &str| {
        let answer = by_header(server, token).await;
        (answer.status, answer.head, answer.body)
    };
    assert_eq!(by_header_of(&fits).await, by_header_of(short).await);
    assert_eq!(post_as(server, "chat/7", Some(&fits)).await.status, 401);
    assert_eq!(refused_by_cause(&guarded.broker).await["too-long"], 3);
    // Beyond the limits of heads and messages nobody looks for a token.
    assert_eq!(by_header(server, &megabyte).await.status, 431);
    let mut client = open_v1(server).await;
    client.send(json!({"type": "connect", "id": 1, "token": beyond}).to_string()).await;
    assert_eq!(client.close_code().await, 1009);
    assert_eq!(witness.command(json!({"type": "ping", "id": 1})).await["type"], "pong");
    assert_eq!(post_as(server, "chat/7", Some(&token("9", 600, json!({})))).await.status, 200);
    assert_eq!(request(guarded.broker.admin, "GET /healthz HTTP/1.1", b"").await.status, 200);
}
