//! The broker shows nobody a token or a key, good or bad, wherever it was sent: not in the log at its lowest level, in
//! `/metrics` or `/api`, nor in any answer. The log says why tokens are refused, in few lines.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;

use crate::access::{SECRET, connected, now_s, sha256_hex, token};
use crate::broker::Broker;
use crate::http::{Answer, Http, PATIENCE, request};
use crate::log::{json_lines, said, start};
use crate::shutdown::signal;
use crate::upgrade::UPGRADE;
use crate::ws::{Ws, open_v1};

const GOOD_KEY: &str = "rk_oneOfTheShopThatNobodyElseHas";
const EVENTS: &str = "Accept: text/event-stream\r\n";

/// Writes a configuration in which a token may stand wherever one can; its path.
fn configuration(folder: &Path) -> String {
    let secret = folder.join("hs");
    std::fs::write(&secret, SECRET).unwrap();
    let auth = "algorithms = ['HS256']\ncookie = 'session'\nquery-token = true\nexplain = true";
    let allow = "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\nrights = ['history']";
    let key = format!(
        "[[key]]\nname = 'shop'\nsha256 = '{}'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n\
         api = ['topics', 'connections', 'metrics', 'inspect']",
        sha256_hex(GOOD_KEY)
    );
    let path = folder.join("ringyard.toml");
    std::fs::write(&path, format!("[auth]\nhs-secret-file = {secret:?}\n{auth}\n{allow}\n{key}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Tokens and keys, of which two are good.
fn credentials() -> Vec<String> {
    let good = token("7", 600, json!({}));
    let (signed, signature) =
        token("8", 600, json!({})).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let forged = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    let not_yet = token("9", 600, json!({"nbf": now_s() + 600}));
    let expired = token("10", -600, json!({}));
    let others = ["nothing-of-the-kind-of-a-token", GOOD_KEY, "rk_oneThatIsInNoTable"];
    [good, forged, not_yet, expired].into_iter().chain(others.map(str::to_owned)).collect()
}

/// What must not be shown: each credential, the beginning, the claims and the signature of a token, and the secret.
fn secrets(credentials: &[String]) -> Vec<String> {
    let parts = credentials.iter().flat_map(|credential| credential.split('.').skip(1).map(str::to_owned));
    let bare = credentials.iter().filter_map(|credential| credential.strip_prefix("rk_").map(str::to_owned));
    let begins = credentials.iter().filter(|credential| credential.contains('.')).map(|token| token[..12].to_owned());
    let all = credentials.iter().cloned().chain(parts).chain(begins).chain(bare).chain([SECRET.to_owned()]);
    // The heads of answers are in lower case.
    all.map(|secret| secret.to_ascii_lowercase()).collect()
}

/// Everything that a broker has sent and written, and the request that each was for.
#[derive(Default)]
struct Output {
    texts: Vec<(String, String)>,
    /// WebSockets that are left open.
    open: Vec<Http>,
    statuses: std::collections::BTreeSet<u16>,
}

impl Output {
    fn note(&mut self, to: &str, text: impl AsRef<[u8]>) {
        self.texts.push((to.to_owned(), String::from_utf8_lossy(text.as_ref()).to_ascii_lowercase()));
    }

    fn answer(&mut self, to: &str, answer: &Answer) {
        self.statuses.insert(answer.status);
        self.note(to, &answer.head);
        self.note(to, &answer.body);
    }

    /// Fails if one of these, in lower case, is in anything.
    #[track_caller]
    fn has_none_of(&self, secrets: &[String]) {
        for secret in secrets {
            for (to, text) in &self.texts {
                assert!(!text.contains(secret), "{secret} is shown to {to}: {text}");
            }
        }
    }

    /// Asks on a connection of its own, as its first request or behind another one.
    async fn ask(&mut self, server: SocketAddr, is_behind: bool, line: &str, fields: &str, body: &str) {
        let mut http = Http::open(server).await;
        if is_behind {
            http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.answer().await;
        }
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        http.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n{body}")).await;
        let answer = http.answer().await;
        self.answer(&format!("{line} {fields}"), &answer);
        if answer.status == 101 {
            self.open.push(http);
        }
    }

    /// Everything that a session is sent up to the answer to a ping, or to its end.
    async fn session(&mut self, server: SocketAddr, command: &Value) {
        let mut client = open_v1(server).await;
        let ping = json!({"type": "ping", "id": "last"});
        for message in [command, &ping] {
            // It may have been closed meanwhile.
            let _ = client.stream.send(Message::text(message.to_string())).await;
        }
        let to = command.to_string();
        loop {
            match next(&mut client).await {
                Some(Message::Text(text)) => {
                    self.note(&to, text.as_str());
                    if text.contains("\"last\"") {
                        return;
                    }
                }
                Some(Message::Close(frame)) => {
                    return self.note(&to, frame.map_or_else(String::new, |it| it.reason.to_string()));
                }
                other => return assert!(other.is_none(), "{other:?}"),
            }
        }
    }

    /// Sends a credential in every place that takes one, and in some that do not.
    async fn try_everywhere(&mut self, server: SocketAddr, credential: &str) {
        let bearer = format!("Authorization: Bearer {credential}\r\n");
        let cookie = format!("Cookie: a=b; session={credential}\r\n");
        let offer = |own: &str| format!("Sec-WebSocket-Protocol: {own}, ringyard.token.{credential}\r\n");
        let v1 = "Sec-WebSocket-Protocol: ringyard.v1\r\n";
        let query = |path: &str| format!("GET {path}token={credential}");
        for is_behind in [false, true] {
            for fields in [&bearer, &cookie] {
                self.ask(server, is_behind, "POST /pub/chat/7", fields, "x").await;
                self.ask(server, is_behind, "POST /pub/news", fields, "x").await;
                self.ask(server, is_behind, "GET /sub/chat/7?wait=0s", fields, "").await;
                self.ask(server, is_behind, "GET /sub/chat/7", &format!("{fields}{EVENTS}"), "").await;
                for path in ["/sub/chat/7", "/bus/chat/7", "/sub/news"] {
                    self.ask(server, is_behind, &format!("GET {path}"), &format!("{fields}{UPGRADE}"), "").await;
                }
                self.ask(server, is_behind, "GET /ws", &format!("{fields}{v1}{UPGRADE}"), "").await;
            }
            let batch = (r#"{"messages": [{"topic": "chat/7", "data": 1}]}"#, "Content-Type: application/json\r\n");
            self.ask(server, is_behind, "POST /pub", &format!("{bearer}{}", batch.1), batch.0).await;
            for (path, own) in [("/sub/chat/7", "ringyard.raw"), ("/sub/news", "ringyard.raw"), ("/ws", "ringyard.v1")]
            {
                let fields = format!("{}{UPGRADE}", offer(own));
                self.ask(server, is_behind, &format!("GET {path}"), &fields, "").await;
                self.ask(server, is_behind, &format!("GET {path}"), &format!("{fields}{bearer}"), "").await;
            }
            self.ask(server, is_behind, "GET /ws", &format!("{}{UPGRADE}", offer("another")), "").await;
            self.ask(server, is_behind, &query("/sub/chat/7?wait=0s&"), "", "").await;
            self.ask(server, is_behind, &query("/sub/chat/7?"), EVENTS, "").await;
            self.ask(server, is_behind, &query("/sub/news?"), EVENTS, "").await;
            // Where none is taken.
            self.ask(server, is_behind, &query("/sub/a+b?"), EVENTS, "").await;
            self.ask(server, is_behind, &query("/sub/chat/7?last=x&"), EVENTS, "").await;
            for path in ["/sub/chat/7?", "/pub/chat/7?", "/ws?", "/nowhere?"] {
                self.ask(server, is_behind, &query(path), &format!("{v1}{UPGRADE}"), "").await;
                self.ask(server, is_behind, &query(path), "", "").await;
            }
        }
        for command in [
            json!({"type": "connect", "id": 1, "token": credential}),
            json!({"type": "connect", "id": 1, "token": [credential]}),
            json!({"type": "connect", "id": 1, "tokens": credential}),
            json!({"type": "ping", "id": 1, "token": credential}),
        ] {
            self.session(server, &command).await;
        }
    }

    /// Asks for everything that operators can, as nobody in particular and with this credential.
    async fn ask_as_operator(&mut self, server: SocketAddr, credential: &str) {
        let bearer = format!("Authorization: Bearer {credential}\r\n");
        let cookie = format!("Cookie: session={credential}\r\n");
        for fields in ["", &bearer, &cookie] {
            for path in
                ["/metrics", "/api/stats", "/api/connections", "/api/connections?user=7", "/api/connections?user=shop"]
            {
                self.ask(server, false, &format!("GET {path}"), fields, "").await;
            }
            self.ask(server, false, "GET /api/topics/chat/7/messages", fields, "").await;
            self.ask(server, false, "POST /api/users/nobody/revoke", fields, "{}").await;
        }
    }
}

async fn next(client: &mut Ws) -> Option<Message> {
    use futures_util::StreamExt;
    tokio::time::timeout(PATIENCE, client.stream.next()).await.expect("in time")?.ok()
}

#[tokio::test]
async fn no_token_and_no_key_is_shown_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path());
    let (broker, stderr) = start(&["--config", &config, "--log-level", "debug"]);
    let credentials = credentials();
    let mut output = Output::default();
    for credential in &credentials {
        output.try_everywhere(broker.address, credential).await;
    }
    let before = output.texts.len();
    for credential in &credentials {
        output.ask_as_operator(broker.admin, credential).await;
    }
    // It counts for a second.
    output.ask(broker.admin, false, "GET /api/topics", &format!("Authorization: Bearer {GOOD_KEY}\r\n"), "").await;
    let by_operators: String = output.texts[before..].iter().map(|(_, text)| text.as_str()).collect();
    for listed in ["\"user\":\"7\"", "\"user\":\"shop\"", "ringyard_auth_refused_total{cause=\"not-yet\"}"] {
        assert!(by_operators.contains(listed), "{listed}: {by_operators}");
    }
    let statuses: Vec<_> = output.statuses.iter().copied().collect();
    for status in [101, 200, 400, 401, 403, 404] {
        assert!(statuses.contains(&status), "{statuses:?}");
    }
    output.open.clear();
    let log = said(broker, stderr).await;
    assert!(log.contains("event=\"denied\"") && log.contains("DEBUG"), "{log}");
    output.note("the log", log);
    output.has_none_of(&secrets(&credentials));
}

/// Keys of `--publish-key`, which brokers without access control have.
#[tokio::test]
async fn no_publish_key_is_shown_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let [good, other, wrong] = ["GoodKeyOfThePublisher1", "AnotherKeyThatIsGood22", "WrongKeyOfSomebody3333"];
    std::fs::write(&file, format!("{good}\n{other}\n")).unwrap();
    let (broker, stderr) = start(&["--publish-key", file.to_str().unwrap(), "--log-level", "debug"]);
    let mut output = Output::default();
    for (key, is_behind) in [(good, false), (good, true), (wrong, false), (wrong, true)] {
        let bearer = format!("Authorization: Bearer {key}\r\n");
        output.ask(broker.address, is_behind, "POST /pub/a", &bearer, "x").await;
        for (path, protocol) in [("/pub/a", ""), ("/bus/a", ""), ("/ws", "Sec-WebSocket-Protocol: ringyard.v1\r\n")] {
            let fields = format!("{bearer}{protocol}{UPGRADE}");
            output.ask(broker.address, is_behind, &format!("GET {path}"), &fields, "").await;
        }
    }
    // A mistake in the file, which the log names by its line.
    std::fs::write(&file, format!("{good}\nShort{other}\u{7f}\n")).unwrap();
    signal(&broker, "HUP");
    output.ask(broker.admin, false, "GET /metrics", "", "").await;
    output.ask(broker.admin, false, "GET /api/connections", "", "").await;
    assert_eq!(output.statuses, [101, 200, 401].into());
    output.open.clear();
    let log = said(broker, stderr).await;
    assert!(log.contains("the keys that were in force stay"), "{log}");
    output.note("the log", log);
    output.has_none_of(&[good, other, wrong].map(str::to_ascii_lowercase));
}

/// Nor to an operator who looks on, however the client spells the member's name.
#[tokio::test]
async fn no_token_is_shown_in_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&["--config", &configuration(folder.path())]);
    let good = token("7", 600, json!({}));
    let mut client = connected(broker.address, &good).await;
    let listed = request(broker.admin, "GET /api/connections?user=7 HTTP/1.1", b"").await.json();
    let name = listed["connections"][0]["connection"].as_str().expect("it is listed");
    let mut trace = Http::open(broker.admin).await;
    let head = format!("GET /api/connections/{name}/trace HTTP/1.1\r\nHost: localhost\r\n");
    trace.send(format!("{head}Connection: close\r\nAuthorization: Bearer {GOOD_KEY}\r\n\r\n")).await;
    assert_eq!(trace.answer().await.status, 200);
    for member in ["token", "tok\\u0065n", "\\u0074oken"] {
        client.send(format!(r#"{{"type":"connect","id":1,"{member}":"{good}"}}"#)).await;
        assert_eq!(client.json().await["type"], "ok", "{member} is a name of the member");
    }
    client.close().await;
    let (mut stream, mut lines) = trace.into_parts();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut lines)).await.expect("in time").unwrap();
    let mut output = Output::default();
    output.note("the trace", lines);
    assert_eq!(output.texts[0].1.matches("\"received\"").count(), 3, "{:?}", output.texts);
    output.has_none_of(&secrets(&[good]));
}

/// Counters of refused tokens and keys by cause, those that are not 0.
pub(crate) async fn refused_by_cause(broker: &Broker) -> std::collections::BTreeMap<String, u64> {
    let metrics = String::from_utf8(request(broker.admin, "GET /metrics HTTP/1.1", b"").await.body).unwrap();
    let of = |line: &str| {
        let (cause, count) = line.strip_prefix("ringyard_auth_refused_total{cause=\"")?.split_once("\"} ")?;
        Some((cause.to_owned(), count.parse().expect("a number")))
    };
    metrics.lines().filter_map(of).filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn the_log_has_a_line_for_each_cause_and_not_for_each_token() {
    const TIMES: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path());
    let begun = Instant::now();
    let (broker, stderr) = start(&["--config", &config, "--log-level", "info", "--log-format", "json"]);
    // The cause, a part of what the line says of it, and what is refused for it.
    let bad = [
        ("malformed", "three parts", "nonsense".to_owned()),
        ("unknown-api-key", "no [[key]]", "rk_unknown".to_owned()),
        ("expired", "in the past", token("7", -600, json!({}))),
    ];
    for _ in 0..TIMES {
        for (_, _, token) in &bad {
            let head = format!("POST /pub/chat/7 HTTP/1.1\r\nAuthorization: Bearer {token}");
            assert_eq!(request(broker.address, &head, b"x").await.status, 401);
        }
    }
    let counted = refused_by_cause(&broker).await;
    assert!(counted.values().all(|count| *count == TIMES) && counted.len() == bad.len(), "{counted:?}");
    let lines = json_lines(&said(broker, stderr).await);
    let most = begun.elapsed().as_secs() as usize + 2;
    for (cause, why, _) in &bad {
        let of_cause: Vec<_> =
            lines.iter().filter(|line| line["event"] == "denied" && line["cause"] == *cause).collect();
        let sum: u64 = of_cause.iter().map(|line| line["count"].as_u64().expect("a number")).sum();
        assert_eq!(sum, TIMES, "{cause}: {lines:?}");
        assert!(of_cause.len() <= most, "{of_cause:?}");
        for line in of_cause {
            assert!(
                line["level"] == "INFO" && line["message"].as_str().is_some_and(|said| said.contains(why)),
                "{line}"
            );
        }
    }
}
