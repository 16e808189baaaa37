//! Keys of an address that are replaced from one moment to the next: the first tokens of a new key wait until the broker has
//! fetched it, wherever they come, and none of them is refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::access::{connected, offered, post_as};
use crate::broker::Broker;
use crate::events::Stream;
use crate::http::{Answer, Http, request};
use crate::rotation::{ALLOW, Crowd, Signer, only_these_go_on};
use crate::upgrade::UPGRADE;
use crate::ws::{open_v1, try_open};

/// What the server of keys says and does.
#[derive(Default)]
pub(crate) struct Provider {
    keys: Mutex<Vec<Value>>,
    /// How long it takes for an answer, in milliseconds.
    delay_ms: AtomicU64,
    requests: AtomicU64,
}

impl Provider {
    pub(crate) fn start(keys: &[Value]) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(Self { keys: Mutex::new(keys.to_vec()), ..Self::default() });
        let answering = Arc::clone(&provider);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), Vec::new());
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                answering.requests.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(answering.delay_ms.load(Ordering::SeqCst)));
                let body = json!({"keys": *answering.keys.lock().unwrap()}).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[head, body].concat().into_bytes());
            }
        });
        (provider, address)
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A broker that has fetched the first of two keys, and what signs with both.
struct Stage {
    provider: Arc<Provider>,
    broker: Broker,
    signers: Vec<Signer>,
    keys: Vec<Value>,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn start() -> Self {
        let (signers, keys): (Vec<_>, Vec<_>) = ["first", "second"].map(Signer::es256).into_iter().unzip();
        let (provider, address) = Provider::start(&keys[..1]);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ringyard.toml");
        let text = format!("[auth]\nkeys-url = 'http://{address}/jwks'\nalgorithms = ['ES256']\n{ALLOW}");
        std::fs::write(&config, text).unwrap();
        let broker = Broker::start(&["--config", config.to_str().unwrap()]);
        Self { provider, broker, signers, keys, _folder: folder }
    }

    /// The second key takes the place of the first, and the provider takes its time to say so.
    fn rotate(&self, delay: Duration) {
        *self.provider.keys.lock().unwrap() = self.keys[1..].to_vec();
        self.provider.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// A token of one of the two that the broker has not seen.
    fn token(&self, signer: usize, number: u64) -> String {
        self.signers[signer].token(number)
    }
}

/// A batch, which the control plane answers.
async fn post_batch(server: SocketAddr, token: &str) -> Answer {
    let head = format!("POST /pub HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json");
    request(server, &head, br#"{"messages": [{"topic": "chat/7", "data": 1}]}"#).await
}

/// A handshake on a connection that was used before: the control plane judges it.
async fn upgrade_later(server: SocketAddr, token: &str) -> u16 {
    let mut client = Http::open(server).await;
    assert_eq!(client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.answer().await.status, 200);
    let head = format!("GET /sub/chat/7 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{UPGRADE}\r\n");
    client.send(head).await.answer().await.status
}

async fn with_header(server: SocketAddr, token: &str) {
    let bearer = format!("Bearer {token}");
    try_open(server, "/sub/chat/7", &[("authorization", &bearer)]).await.expect("a handshake with a good token");
}

/// A stream of events.
async fn with_events(server: SocketAddr, token: &str) {
    let mut stream = Stream::open(server, "/sub/chat/6", &format!("Authorization: Bearer {token}\r\n")).await;
    assert_eq!(stream.position().await["ids"], true);
}

/// A poll, which the control plane answers.
async fn poll(server: SocketAddr, token: &str) -> u16 {
    request(server, &format!("GET /sub/chat/7?wait=0s HTTP/1.1\r\nAuthorization: Bearer {token}"), b"").await.status
}

/// As a page at a raw endpoint. It hears itself.
async fn as_a_page(server: SocketAddr, token: &str) {
    let mut client = offered(server, "/bus/chat/8", token).await;
    client.send("said").await;
    assert_eq!(client.text().await, "said");
}

/// `connect` with all that it can have, and a command behind it that was sent at once.
async fn with_connect(server: SocketAddr, token: &str) {
    let mut client = open_v1(server).await;
    let will = json!({"topic": "chat/9", "data": {"left": true}, "key": "k", "retain": true, "ttl": 60000, "delay": 0});
    client.send(json!({"type": "connect", "id": "c", "token": token, "session": true, "will": will}).to_string()).await;
    client.send(json!({"type": "subscribe", "id": "s", "topic": "chat/9", "state": false}).to_string()).await;
    let mut answers = [client.json().await, client.json().await];
    answers.sort_by_key(|answer| answer["id"].to_string());
    let [begun, subscribed] = answers;
    assert_eq!((&begun["type"], &begun["id"]), (&json!("ok"), &json!("c")), "{begun}");
    assert!(begun["session"].is_string() && begun["member"] != "", "{begun}");
    assert_eq!((&subscribed["type"], &subscribed["id"]), (&json!("ok"), &json!("s")), "{subscribed}");
    let mut witness = connected(server, token).await;
    witness.subscribe(&["chat/9"]).await;
    drop(client);
    assert_eq!(witness.json().await["data"], json!({"left": true}), "its will");
}

#[tokio::test]
async fn the_first_tokens_of_a_new_key_wait_until_it_is_there() {
    let stage = Stage::start();
    let server = stage.broker.address;
    let mut open = connected(server, &stage.token(0, 7)).await;
    assert_eq!(stage.provider.requests(), 1, "the start has fetched them");
    stage.rotate(Duration::from_millis(300));
    // The same user with a token of the new key, and a command behind it.
    open.send(json!({"type": "connect", "id": "r", "token": stage.token(1, 7)}).to_string()).await;
    open.send(json!({"type": "publish", "id": "p", "topic": "chat/7", "data": 1, "ack": true}).to_string()).await;
    let tokens: Vec<_> = (10..18).map(|number| stage.token(1, number)).collect();
    let begin = Instant::now();
    let (posted, batch, upgraded, (), (), (), (), polled) = tokio::join!(
        post_as(server, "chat/7", Some(&tokens[0])),
        post_batch(server, &tokens[1]),
        upgrade_later(server, &tokens[2]),
        with_header(server, &tokens[3]),
        as_a_page(server, &tokens[4]),
        with_connect(server, &tokens[5]),
        with_events(server, &tokens[6]),
        poll(server, &tokens[7]),
    );
    let statuses = (posted.status, batch.status, upgraded, polled);
    assert_eq!(statuses, (200, 200, 101, 200), "{posted:?} {batch:?}");
    let (renewed, published) = (open.json().await, open.json().await);
    assert_eq!((&renewed["type"], &renewed["id"]), (&json!("ok"), &json!("r")), "{renewed}");
    assert_eq!((&published["type"], &published["id"]), (&json!("ok"), &json!("p")), "{published}");
    assert!(begin.elapsed() >= Duration::from_millis(300), "they waited");
    assert_eq!(stage.provider.requests(), 2, "one request for all of them");
    // Now within the cool-down, nobody waits for a key that is in no set.
    let (other, _) = Signer::es256("third");
    let begin = Instant::now();
    assert_eq!(post_as(server, "chat/7", Some(&other.token(1))).await.status, 401);
    let mut refused = offered(server, "/sub/chat/7", &other.token(2)).await;
    assert_eq!(refused.close_code().await, 4400);
    let mut refused = open_v1(server).await;
    refused.send(json!({"type": "connect", "token": other.token(3)}).to_string()).await;
    assert_eq!((refused.json().await["code"].as_str(), refused.close_code().await), (Some("bad-token"), 4400));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(stage.provider.requests(), 2);
}

#[tokio::test]
async fn keys_are_replaced_under_load_and_no_good_token_is_refused() {
    let mut stage = Stage::start();
    let crowd = Crowd::start(stage.broker.address, std::mem::take(&mut stage.signers));
    crowd.go_on().await;
    *stage.provider.keys.lock().unwrap() = stage.keys.clone();
    stage.provider.delay_ms.store(100, Ordering::SeqCst);
    crowd.use_at_once(1);
    crowd.go_on().await;
    crowd.go_on().await;
    assert_eq!(stage.provider.requests(), 2);
    only_these_go_on(crowd.end().await, &[0, 1]).await;
}

/// A provider that does not answer holds nobody up for long.
#[tokio::test]
async fn a_token_does_not_wait_for_ever() {
    let stage = Stage::start();
    let server = stage.broker.address;
    stage.rotate(Duration::from_secs(8));
    let begin = Instant::now();
    let mut client = open_v1(server).await;
    client.send(json!({"type": "connect", "token": stage.token(1, 1)}).to_string()).await;
    let posted = post_as(server, "chat/7", Some(&stage.token(1, 2))).await;
    assert_eq!(posted.status, 401);
    assert_eq!((client.json().await["code"].as_str(), client.close_code().await), (Some("bad-token"), 4400));
    let waited = begin.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    // When the answer has come after all, its keys are in force.
    while post_as(server, "chat/7", Some(&stage.token(1, 3))).await.status != 200 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stage.provider.requests(), 2);
}
