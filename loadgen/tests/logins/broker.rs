//! A small broker for `ringyard.v1` that wants a token of each connection, wherever it stands.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{self, HeaderValue};

use crate::mini::v1;

pub(super) const SECRET: &str = "a secret of thirty-two bytes ...";

/// What it has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Logins by user.
    pub(super) users: BTreeMap<String, u64>,
    /// Logins by where the token stood.
    pub(super) places: BTreeMap<&'static str, u64>,
    /// The claim `topics` of the last token.
    pub(super) topics: Value,
}

type Outbox = mpsc::UnboundedSender<Message>;

pub(super) struct Broker {
    /// Messages published and subscribers, by topic.
    topics: Mutex<HashMap<String, (u64, Vec<Outbox>)>>,
    pub(super) seen: Mutex<Seen>,
    /// How long it does nothing else when a user logs in for the first time.
    delay: Duration,
}

/// Starts it on a thread of its own.
pub(super) fn broker(delay: Duration) -> (SocketAddr, Arc<Broker>) {
    let broker = Arc::new(Broker { topics: Mutex::default(), seen: Mutex::default(), delay });
    let (report, reported) = std::sync::mpsc::channel();
    let shared = Arc::clone(&broker);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            report.send(listener.local_addr().unwrap()).unwrap();
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&shared)));
                }
            }
        });
    });
    (reported.recv().unwrap(), broker)
}

async fn serve(stream: TcpStream, broker: Arc<Broker>) {
    let logged_in = AtomicBool::new(false);
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let field = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let bearer = field("Authorization").strip_prefix("Bearer ").map(|token| ("header", token));
        let offered = field("Sec-WebSocket-Protocol").split_once(", ringyard.token.");
        if let Some((place, token)) = bearer.or(offered.map(|(_, token)| ("subprotocol", token))) {
            if !broker.log_in(token, place) {
                return Err(http::Response::builder().status(401).body(None).unwrap());
            }
            logged_in.store(true, Ordering::Relaxed);
        }
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("ringyard.v1"));
        Ok(response)
    };
    let on_command = |command: &Value, outbox: &Outbox| {
        let text = |name: &str| command[name].as_str().unwrap_or_default().to_owned();
        let answer = match command["type"].as_str().unwrap() {
            "connect" if broker.log_in(&text("token"), "connect") => {
                logged_in.store(true, Ordering::Relaxed);
                json!({ "type": "ok", "id": command["id"] })
            }
            "connect" => json!({ "type": "error", "id": command["id"], "code": "bad-token", "reason": "no" }),
            _ if !logged_in.load(Ordering::Relaxed) => {
                json!({ "type": "error", "id": command["id"], "code": "unauthorized", "reason": "no token" })
            }
            "subscribe" => {
                let mut topics = broker.topics.lock().unwrap();
                for topic in command["topics"].as_array().unwrap() {
                    topics.entry(topic.as_str().unwrap().to_owned()).or_default().1.push(outbox.clone());
                }
                json!({ "type": "ok", "id": command["id"] })
            }
            _ => return broker.publish(&text("topic"), &text("data")),
        };
        outbox.send(Message::text(answer.to_string())).unwrap();
    };
    v1::serve_chosen(stream, choose, on_command).await;
}

impl Broker {
    fn log_in(&self, token: &str, place: &'static str) -> bool {
        let Some((signed, tag)) = token.rsplit_once('.') else { return false };
        let Ok(tag) = URL_SAFE_NO_PAD.decode(tag) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        if hmac::verify(&key, signed.as_bytes(), &tag).is_err() {
            return false;
        }
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let mut seen = self.seen.lock().unwrap();
        *seen.places.entry(place).or_default() += 1;
        seen.topics = claims["topics"].clone();
        let logins = seen.users.entry(claims["sub"].as_str().unwrap().to_owned()).or_default();
        *logins += 1;
        if *logins == 1 {
            std::thread::sleep(self.delay);
        }
        true
    }

    fn publish(&self, name: &str, data: &str) {
        let mut topics = self.topics.lock().unwrap();
        let (count, subscribers) = topics.entry(name.to_owned()).or_default();
        *count += 1;
        let text = format!(r#"{{"type":"message","topic":"{name}","offset":{count},"data":"{data}"}}"#);
        subscribers.retain(|subscriber| subscriber.send(Message::text(text.clone())).is_ok());
    }
}
