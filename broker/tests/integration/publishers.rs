//! Who may publish: `--publish-key` and `--client-publish`, over HTTP, on raw WebSockets and on `/ws`.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use crate::broker::{Broker, command};
use crate::http::{Answer, Http, await_stat, request};
use crate::shutdown::{exit, signal};
use crate::ws::{Ws, open, try_open};

const OLD: &str = "old-key-0123456789abcdef";
const NEW: &str = "new-key-0123456789abcdef";
const V1: (&str, &str) = ("sec-websocket-protocol", "ringyard.v1");

/// A file with keys, gone with its folder.
struct KeyFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl KeyFile {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("publish-keys");
        std::fs::write(&path, text).expect("a file");
        Self { _folder: folder, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("text")
    }
}

/// Publishes over HTTP with this `Authorization`, if it is not empty.
async fn publish(broker: &Broker, authorization: &str) -> Answer {
    let line = if authorization.is_empty() { String::new() } else { format!("\r\nAuthorization: {authorization}") };
    request(broker.address, &format!("POST /pub/t HTTP/1.1{line}"), b"x").await
}

/// Opens a WebSocket with this key, if it is not empty; else the refusal's status, text and scheme.
async fn socket(broker: &Broker, path: &str, key: &str) -> Result<Ws, (u16, String, bool)> {
    let bearer = format!("Bearer {key}");
    let mut fields = if path == "/ws" { vec![V1] } else { Vec::new() };
    if !key.is_empty() {
        fields.push(("authorization", &bearer));
    }
    match try_open(broker.address, path, &fields).await {
        Ok(socket) => Ok(socket),
        Err(Error::Http(answer)) => {
            let body = answer.body().as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
            let asks = answer.headers().get("www-authenticate").is_some_and(|scheme| scheme == "Bearer");
            Err((answer.status().as_u16(), body.unwrap_or_default(), asks))
        }
        Err(other) => panic!("{path}: {other}"),
    }
}

/// The status that `path` is answered, 101 included.
async fn status(broker: &Broker, path: &str, key: &str) -> u16 {
    socket(broker, path, key).await.map_or_else(|(status, ..)| status, |_| 101)
}

/// What a publish on `/ws` is answered: `ok`, or the error's code.
async fn command_answer(broker: &Broker, key: &str) -> String {
    let mut client = socket(broker, "/ws", key).await.expect("a connection");
    let answer = client.command(json!({"type": "publish", "id": 7, "topic": "t", "data": "x"})).await;
    let said = if answer["type"] == "ok" { &answer["type"] } else { &answer["code"] };
    said.as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn clients_that_only_subscribe() {
    let broker = Broker::start(&["--client-publish", "off"]);
    let refused = publish(&broker, "").await;
    assert_eq!(refused.status, 403);
    assert!(refused.json()["detail"].as_str().expect("a sentence").contains("--client-publish off"), "{refused:?}");
    for path in ["/pub/t", "/bus/t"] {
        let (status, text, _) = socket(&broker, path, "").await.err().expect("a refusal");
        assert!(status == 403 && text.contains("--client-publish off") && text.contains("/sub"), "{status} {text}");
    }
    let mut reader = open(broker.address, "/sub/t").await;
    let mut client = socket(&broker, "/ws", "").await.expect("a connection");
    client.subscribe(&["t"]).await;
    for ack in [true, false] {
        let answer = client.command(json!({"type": "publish", "id": 2, "topic": "t", "data": "x", "ack": ack})).await;
        assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &"forbidden".into()), "{answer}");
        assert!(answer["reason"].as_str().expect("a reason").contains("--client-publish off"), "{answer}");
    }
    // The connection goes on, and nothing was published.
    assert_eq!(client.command(json!({"type": "ping", "id": 3})).await["type"], "pong");
    await_stat(&broker, "refused_publish", |refused| refused == 3).await;
    await_stat(&broker, "commands_forbidden", |refused| refused == 2).await;
    await_stat(&broker, "messages_in", |published| published == 0).await;
    // As for every subscriber: sending ends the connection.
    reader.send("x").await;
    assert_eq!(reader.close_code().await, 1008);
}

#[tokio::test]
async fn a_key_guards_what_is_there_to_publish() {
    let keys = KeyFile::new(&format!("# being replaced\n{OLD}\n\n{NEW}\n"));
    let broker = Broker::start(&["--publish-key", keys.path()]);
    let mut reader = open(broker.address, "/sub/t").await;
    let anonymous = publish(&broker, "").await;
    assert_eq!(anonymous.status, 401);
    assert!(anonymous.head.contains("\r\nwww-authenticate: bearer\r\n"), "{}", anonymous.head);
    for authorization in ["Bearer wrong-key-0123456789", "Bearer", "Bearer ", "Basic b2xkOmtleQ==", OLD] {
        assert_eq!(publish(&broker, authorization).await.status, 401, "{authorization}");
    }
    for key in [OLD, NEW] {
        assert_eq!(publish(&broker, &format!("bearer {key}")).await.status, 200);
        assert_eq!(reader.text().await, "x");
        let mut publisher = socket(&broker, "/pub/t", key).await.expect("a key lets in");
        publisher.send("by socket").await;
        assert_eq!(reader.text().await, "by socket");
    }
    let (code, text, asks) = socket(&broker, "/pub/t", "").await.err().expect("a refusal");
    assert!(code == 401 && asks && text.contains("--publish-key"), "{code} {text}");
    // What clients do besides stays as --client-publish says: on.
    assert_eq!((status(&broker, "/bus/t", "").await, command_answer(&broker, "").await.as_str()), (101, "ok"));
    for path in ["/pub/t", "/bus/t", "/ws"] {
        assert_eq!(status(&broker, path, "wrong-key-0123456789").await, 401, "{path}");
    }
    assert_eq!(status(&broker, "/sub/t", "wrong-key-0123456789").await, 101, "reading asks for no key");
}

#[tokio::test]
async fn with_both_options_only_keys_publish() {
    let keys = KeyFile::new(NEW);
    let broker = Broker::start(&["--publish-key", keys.path(), "--client-publish", "off"]);
    assert_eq!(
        (publish(&broker, "").await.status, publish(&broker, &format!("Bearer {NEW}")).await.status),
        (401, 200)
    );
    for (path, without) in [("/pub/t", 401), ("/bus/t", 403), ("/sub/t", 101), ("/ws", 101)] {
        assert_eq!((status(&broker, path, "").await, status(&broker, path, NEW).await), (without, 101), "{path}");
    }
    assert_eq!(
        (command_answer(&broker, "").await.as_str(), command_answer(&broker, NEW).await.as_str()),
        ("forbidden", "ok")
    );
}

/// Handshakes that reach the control plane, because their connection carried HTTP before, are judged alike.
#[tokio::test]
async fn a_kept_connection_is_judged_as_a_new_one() {
    let keys = KeyFile::new(NEW);
    let broker = Broker::start(&["--publish-key", keys.path(), "--client-publish", "off"]);
    let handshake = |path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{more}\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    };
    let key = format!("Authorization: Bearer {NEW}\r\n");
    for (path, more, expected) in
        [("/pub/t", "", 401), ("/bus/t", "", 403), ("/pub/t", &*key, 101), ("/bus/t", &*key, 101)]
    {
        let mut http = Http::open(broker.address).await;
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
        http.send(handshake(path, more)).await;
        let answer = http.answer().await;
        assert_eq!(answer.status, expected, "{path} {more}");
        assert_eq!(answer.head.contains("www-authenticate: bearer"), expected == 401, "{}", answer.head);
    }
    // On /ws the right goes with the connection.
    for (more, kind) in [("", "forbidden"), (&*key, "\"ok\"")] {
        let mut http = Http::open(broker.address).await;
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
        http.send(handshake("/ws", &format!("Sec-WebSocket-Protocol: ringyard.v1\r\n{more}"))).await;
        assert_eq!(http.answer().await.status, 101);
        let text = br#"{"type":"publish","id":1,"topic":"t","data":"x"}"#;
        // A masked text frame whose mask is zero.
        http.send([&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0][..], text].concat()).await;
        let (mut stream, mut read) = http.into_parts();
        while !String::from_utf8_lossy(&read).contains('}') {
            let more = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut read);
            assert!(tokio::time::timeout(crate::http::PATIENCE, more).await.expect("in time").expect("an answer") > 0);
        }
        assert!(String::from_utf8_lossy(&read).contains(kind), "{}", read.escape_ascii());
    }
}

/// A refused body is not waited for, and the connection goes on.
#[tokio::test]
async fn a_refused_publish_leaves_its_connection() {
    let keys = KeyFile::new(NEW);
    let broker = Broker::start(&["--publish-key", keys.path()]);
    let mut http = Http::open(broker.address).await;
    for (key, expected) in [("", 401), (NEW, 200)] {
        let head = format!("POST /pub/t HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n");
        http.send(format!("{head}Content-Length: 5\r\n\r\nhello")).await;
        assert_eq!(http.answer().await.status, expected);
    }
}

/// Everything that a broker with these arguments says, started and ended.
async fn said(arguments: &[&str]) -> String {
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut stderr = child.stderr.take().expect("piped");
    let mut broker = Broker::of(child);
    let _ = publish(&broker, &format!("Bearer {NEW}")).await;
    signal(&broker, "INT");
    exit(&mut broker).await;
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("text");
    text
}

#[tokio::test]
async fn the_start_says_who_may_publish_and_never_a_key() {
    let keys = KeyFile::new(NEW);
    let everywhere = ["--listen", "127.0.0.1:0", "--log-level", "info"];
    let with_key = said(&[&everywhere[..], &["--publish-key", keys.path()]].concat()).await;
    assert!(!with_key.contains(NEW), "{with_key}");
    let exposed = ["--listen", "0.0.0.0:0", "--allow-anonymous"];
    for (options, part) in [
        (&[][..], "may publish and subscribe"),
        (&["--publish-key", keys.path()], "publish on /bus and /ws"),
        (&["--publish-key", keys.path(), "--client-publish", "off"], "only holders of a key of --publish-key"),
        (&["--client-publish", "off"], "nobody may publish"),
    ] {
        let text = said(&[&exposed[..], options].concat()).await;
        assert!(text.contains(part) && !text.contains("no authentication"), "{options:?}: {text}");
    }
}

#[test]
fn a_file_without_keys_is_a_sentence_and_no_broker() {
    for (text, part) in [("", "has no key"), ("too-short", "publish-keys:1: "), ("0123456789 abcdef", "a space")] {
        let keys = KeyFile::new(text);
        let ended = command(&["--publish-key", keys.path()]).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(part) && said.contains("--publish-key"), "{said}");
        assert!(text.is_empty() || !said.contains(text), "{said}");
    }
    let shown = command(&["--publish-key", "/run/keys", "config", "show"]).output().expect("the binary runs");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("publish-key = \"/run/keys\""));
}
