//! A publish over HTTP gets the same answer from the shard that accepted its connection and from the control plane: each
//! request here is sent with `Content-Length`, which the shard answers, and in chunks, which it hands over. What differs is
//! the date, and the offset of what was published twice.

use std::io::Write;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::broker::Broker;
use crate::http::{Answer, Http, await_stat, request, stat};
use crate::shutdown::{exit, signal};
use crate::ws::open;

const KEY: &str = "a-key-to-publish-with";

/// A request without what says how long its body is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    target: &'a str,
    /// Whole lines.
    fields: &'a str,
    body: &'a [u8],
    status: u16,
}

pub(crate) const fn case<'a>(target: &'a str, fields: &'a str, body: &'a [u8], status: u16) -> Case<'a> {
    Case { target, fields, body, status }
}

impl Case<'_> {
    fn head(&self, length: &str) -> Vec<u8> {
        let Self { target, fields, .. } = self;
        let host = if fields.contains("Host:") { "" } else { "Host: localhost\r\n" };
        format!("POST {target} HTTP/1.1\r\n{host}{fields}{length}\r\n").into_bytes()
    }

    fn with_length(&self) -> Vec<u8> {
        let length = format!("Content-Length: {}\r\n", self.body.len());
        [self.head(&length), self.body.to_vec()].concat()
    }

    fn chunked(&self) -> Vec<u8> {
        let mut bytes = self.head("Transfer-Encoding: chunked\r\n");
        for chunk in self.body.chunks(7) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    }
}

/// Status line and fields without the date, sorted, and the body; of a published message without its offset.
fn comparable(answer: &Answer) -> (String, Vec<String>, Value) {
    let mut lines = answer.head.lines();
    let status = lines.next().expect("a status line").split(' ').nth(1).expect("a status").to_owned();
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let is_published = answer.status == 200;
    if is_published {
        body["offset"] = Value::Null;
    }
    // The offset's digits are part of the length.
    let differs = |line: &&str| line.starts_with("date: ") || is_published && line.starts_with("content-length: ");
    let mut fields: Vec<_> = lines.filter(|line| !line.is_empty() && !differs(line)).map(str::to_owned).collect();
    assert!(answer.head.contains("\r\ndate: "), "{}", answer.head);
    fields.sort();
    (status, fields, body)
}

async fn ask(server: SocketAddr, bytes: &[u8], is_split: bool) -> Answer {
    let mut http = Http::open(server).await;
    http.stream.set_nodelay(true).expect("a socket");
    if is_split {
        for byte in bytes.chunks(1) {
            http.send(byte).await;
        }
    } else {
        http.send(bytes).await;
    }
    http.answer().await
}

/// Sends each case every way, and compares.
pub(crate) async fn compare(broker: &Broker, cases: &[Case<'_>]) {
    for case in cases {
        let before = stat(broker, "handed_over").await;
        let whole = ask(broker.address, &case.with_length(), false).await;
        assert_eq!(whole.status, case.status, "{case:?}: {whole:?}");
        assert_eq!(stat(broker, "handed_over").await, before, "{case:?} was answered by the shard");
        let split = ask(broker.address, &case.with_length(), true).await;
        let chunked = ask(broker.address, &case.chunked(), false).await;
        await_stat(broker, "handed_over", |now| now > before).await;
        assert_eq!(comparable(&whole), comparable(&split), "{case:?}, byte by byte");
        assert_eq!(comparable(&whole), comparable(&chunked), "{case:?}, in chunks");
    }
}

#[tokio::test]
async fn both_answer_alike() {
    let broker = Broker::start(&["--max-message", "1000", "--allow-origin", "https://app.example"]);
    let long = vec![b'x'; 1000];
    let grows = format!("[{}1]", "1e9,".repeat(240));
    const JSON: &str = "Content-Type: application/json\r\n";
    let cases = [
        case("/pub/a", "", b"text", 200),
        case("/pub/a", "", b"", 200),
        case("/pub/a", "", b"\xff", 200),
        case("/pub/a", "", &long, 200),
        case("/pub/a%2Fb%20c", "Content-Type: text/plain\r\n", b"text", 200),
        case("/pub//a//", "Connection: keep-alive\r\nContent-Type: a/b\r\n", b"text", 200),
        case("/pub/r%C3%A4um", "Content-Type: application/x-www-form-urlencoded\r\n", b"a=b", 200),
        case("/pub/a\"b{c}|^\\", "", b"text", 200),
        case("/pub/a", JSON, b" {\"a\": [1, 1e3]} ", 200),
        case("/pub/a", "Content-Type: text/plain\r\nContent-Type: application/json\r\n", b"[1", 200),
        case("/pub/a", "Origin: https://app.example\r\n", b"text", 200),
        case("/pub/a", "Origin: http://localhost\r\n", b"text", 200),
        case("/pub/a", "Host: 127.0.0.1:1\r\nAuthorization: Bearer unasked\r\n", b"text", 200),
        case("/pub/a?key=k+1&retain=1&ttl=10s&other=%zz", "", b"text", 200),
        case("/pub/a?retain=1&removed=1", JSON, b"null", 200),
        case("/pub/a", "Idempotency-Key: \"\"\r\n", b"text", 400),
        case("/pub/a?ttl=0s", "", b"text", 400),
        case("/pub/a?key=%ff", "", b"text", 400),
        case("/pub/a?key=a&key=b", "", b"text", 400),
        case("/pub/never?if_offset=5", "", b"text", 409),
        case("/pub/a?removed=1", "", b"text", 501),
        case("/pub/a?lease=1", "", b"text", 200),
        case("/pub/a?lease=0", "", b"text", 400),
        case("/pub/a", JSON, b"[1", 400),
        case("/pub/a", JSON, b"", 400),
        case("/pub/a", JSON, b"\"\xff\"", 400),
        case("/pub/a", "Content-Type: application/ld+json; a=b\r\nOrigin: https://app.example\r\n", b"1e400", 400),
        case("/pub/a", JSON, grows.as_bytes(), 413),
        case("/pub/a/%23", "", b"text", 400),
        case("/pub/%2B", "Origin: http://localhost\r\n", b"text", 400),
        case("/pub/a/../b", "", b"text", 400),
        case("/pub/%ff", "", b"text", 400),
        case("/pub/a%", "", b"text", 400),
        case("/pub/$sys/load", "", b"text", 403),
        case("/pub/a", "Origin: https://evil.example\r\n", b"text", 403),
        case("/pub/a", "Origin: null\r\n", b"text", 403),
        case("/pub/a", "Host: elsewhere.example\r\n", b"text", 421),
    ];
    compare(&broker, &cases).await;
}

#[tokio::test]
async fn both_ask_for_a_key() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "{KEY}").expect("room");
    let broker = Broker::start(&["--publish-key", file.path().to_str().expect("text")]);
    let right = format!("Authorization: Bearer {KEY}\r\n");
    let two = right.repeat(2);
    let cases = [
        case("/pub/a", &right, b"text", 200),
        case("/pub/a", "", b"text", 401),
        case("/pub/a", "Authorization: Basic abc\r\n", b"text", 401),
        case("/pub/a", "authorization: bearer another-key-than-that\r\n", b"text", 401),
        case("/pub/a", &two, b"text", 401),
    ];
    compare(&broker, &cases).await;
    let closed = Broker::start(&["--client-publish", "off"]);
    compare(&closed, &[case("/pub/a", "Origin: http://localhost\r\n", b"text", 403)]).await;
}

/// The third of these is one topic too many, for who sends it in whichever way.
#[tokio::test]
async fn both_count_new_topics() {
    let broker = Broker::start(&["--max-topics-per-connection", "2"]);
    for target in ["/pub/a", "/pub/b"] {
        assert_eq!(ask(broker.address, &case(target, "", b"x", 200).with_length(), false).await.status, 200);
    }
    compare(&broker, &[case("/pub/c", "", b"x", 429), case("/pub/a", "", b"x", 200)]).await;
}

/// What the shard does not answer, and what it cannot refuse before all of it has come, gets the control plane's answer.
#[tokio::test]
async fn everything_else_is_handed_over_in_its_turn() {
    let broker = Broker::start(&["--max-message", "1000"]);
    let long = case("/pub/a", "", &[b'x'; 1001], 413);
    assert_eq!(comparable(&ask(broker.address, &long.with_length(), false).await).0, "413");
    assert_eq!(ask(broker.address, &long.chunked(), false).await.status, 413);
    let post = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n";
    for (others, status) in [
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
        (format!("{post}Content-Encoding: gzip\r\n\r\ntext"), 415),
        (format!("{post}Expect: 100-continue\r\n\r\n"), 100),
        (format!("{post}Connection: close\r\n\r\ntext"), 200),
        ("POST /pub/a HTTP/1.0\r\nHost: localhost\r\nContent-Length: 4\r\n\r\ntext".to_owned(), 200),
        ("POST /pub/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
        ("POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned(), 415),
    ] {
        let mut http = Http::open(broker.address).await;
        http.send(format!("{post}\r\ntext{post}\r\nmore{others}")).await;
        for _ in 0..2 {
            assert_eq!(http.answer().await.status, 200, "{others}");
        }
        assert_eq!(http.answer().await.status, status, "{others}");
    }
}

/// Request smuggling: who believed one of two lengths could be made to read a hidden request (RFC 9112 §11.2).
#[tokio::test]
async fn two_lengths_are_refused_wherever_they_come() {
    let broker = Broker::start(&[]);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n";
    for second in ["Content-Length: 4", "Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 4, 4"] {
        let bad = match second.contains(',') {
            true => format!("POST /pub/a HTTP/1.1\r\nHost: localhost\r\n{second}\r\n\r\ntext{hidden}"),
            false => format!("{post}{second}\r\n\r\ntext{hidden}"),
        };
        for before in ["", &format!("{post}\r\ntext"), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
            let mut http = Http::open(broker.address).await;
            http.send(format!("{before}{bad}")).await;
            if !before.is_empty() {
                assert_eq!(http.answer().await.status, 200, "{before}");
            }
            let answer = http.answer().await;
            assert_eq!(answer.status, 400, "{before:?} {second}: {answer:?}");
            assert!(http.ended().await, "{before:?} {second}: nothing behind it is read");
        }
    }
}

/// Bodies that do not come, or end early, and heads that do not end.
#[tokio::test]
async fn both_run_out_of_patience_alike() {
    let broker = Broker::start(&["--message-timeout", "1s", "--handshake-timeout", "1s"]);
    let ways = ["Content-Length: 9\r\n\r\nte", "Transfer-Encoding: chunked\r\n\r\n9\r\nte"];
    for (ends, status) in [(false, 408), (true, 400)] {
        let mut answers = Vec::new();
        for way in ways {
            let mut http = Http::open(broker.address).await;
            http.send(format!("POST /pub/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n{way}")).await;
            if ends {
                http.stream.shutdown().await.expect("a socket");
            }
            let answer = http.answer().await;
            assert_eq!(answer.status, status, "{way}: {answer:?}");
            assert!(answer.head.contains("\r\nconnection: close\r\n"), "{answer:?}");
            assert!(http.ended().await, "{way}");
            answers.push(comparable(&answer));
        }
        assert_eq!(answers[0], answers[1]);
    }
    // Behind a request that either has answered.
    let mut late = Vec::new();
    for first in [
        "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut http = Http::open(broker.address).await;
        http.send(format!("{first}POST /pub/a HTTP/1.1\r\nHost: loc")).await;
        assert_eq!(http.answer().await.status, 200);
        let answer = http.answer().await;
        assert!(http.ended().await);
        late.push((answer.status, answer.head, answer.body));
    }
    assert_eq!(late[0].0, 408);
    assert_eq!(late[0], late[1]);
    assert_eq!(stat(&broker, "messages_in").await, 1);
}

/// A connection without a request is closed without a word; one with a request half sent has its time.
#[tokio::test]
async fn an_idle_connection_ends() {
    let broker = Broker::start(&["--http-idle-timeout", "1s"]);
    let mut http = Http::open(broker.address).await;
    http.send(case("/pub/a", "", b"x", 200).with_length()).await;
    assert_eq!(http.answer().await.status, 200);
    assert!(http.ended().await);
    await_stat(&broker, "closed_http_idle", |closed| closed == 1).await;
    drop(http);
    await_stat(&broker, "connections", |open| open == 0).await;
    assert_eq!(request(broker.admin, "GET /api/stats HTTP/1.1", b"").await.json()["http_connections"], 0);
}

/// What was accepted is answered; a connection without a request ends; a newcomer's publish is refused.
#[tokio::test]
async fn a_shutdown_answers_what_was_accepted() {
    let mut broker = Broker::start(&["--shards", "1"]);
    let mut subscriber = open(broker.address, "/sub/last").await;
    let mut idle = Http::open(broker.address).await;
    idle.send(case("/pub/a", "", b"x", 200).with_length()).await;
    assert_eq!(idle.answer().await.status, 200);
    let mut half = Http::open(broker.address).await;
    half.send("POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nte").await;
    let mut last = Http::open(broker.address).await;
    last.send(case("/pub/last", "", b"last", 200).with_length()).await;
    assert_eq!(subscriber.text().await, "last");
    await_stat(&broker, "connections", |open| open == 4).await;
    signal(&broker, "TERM");
    assert_eq!(last.answer().await.status, 200);
    assert!(last.ended().await && idle.ended().await);
    let refused = half.answer().await;
    assert_eq!((refused.status, refused.head.contains("retry-after: ")), (503, true), "{refused:?}");
    assert!(half.ended().await);
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}
