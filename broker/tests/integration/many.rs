//! `POST /pub`: batches, and lines that are published while results of earlier ones come back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::http::{Answer, Http, PATIENCE, request, stat};
use crate::shutdown::{exit, signal};
use crate::ws::{open, open_v1};

/// A stream of items and their results, both in chunks.
pub(crate) struct Lines {
    http: Http,
    /// Of the answer: not taken out of its chunks yet.
    read: Vec<u8>,
    /// Taken out of them.
    body: Vec<u8>,
    /// Whether the last chunk came.
    is_over: bool,
}

impl Lines {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        let mut http = Http::open(server).await;
        let head = "POST /pub HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let answer = http.send(head).await.answer().await;
        assert!(answer.head.contains("\r\ncontent-type: application/x-ndjson\r\n"), "{}", answer.head);
        assert_eq!(answer.status, 200, "at once, before the first line");
        let (stream, read) = http.into_parts();
        Self { http: Http::of(stream), read, body: Vec::new(), is_over: false }
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.http.send(format!("{:x}\r\n{line}\n\r\n", line.len() + 1)).await;
    }

    async fn end(&mut self) {
        self.http.send("0\r\n\r\n").await;
    }

    /// The next result; `None`: the answer is over.
    pub(crate) async fn result(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.body.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.body.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a JSON value per line"));
            }
            if self.is_over {
                assert!(self.body.is_empty(), "the answer ends with a line");
                return None;
            }
            while !self.take_chunk() {
                let read =
                    timeout(PATIENCE, self.http.stream.read_buf(&mut self.read)).await.expect("in time").unwrap();
                assert!(read > 0, "the answer ended early");
            }
        }
    }

    /// Takes a chunk off what was read, if it is whole.
    fn take_chunk(&mut self) -> bool {
        let Some(end) = self.read.windows(2).position(|bytes| bytes == b"\r\n") else { return false };
        let len = std::str::from_utf8(&self.read[..end]).expect("a length");
        let len = usize::from_str_radix(len, 16).expect("a length");
        if self.read.len() < end + 2 + len + 2 {
            return false;
        }
        self.body.extend_from_slice(&self.read[end + 2..end + 2 + len]);
        self.read.drain(..end + 2 + len + 2);
        self.is_over = len == 0;
        true
    }
}

async fn post_batch(server: SocketAddr, messages: Value) -> Answer {
    let body = json!({ "messages": messages }).to_string();
    request(server, "POST /pub HTTP/1.1\r\nContent-Type: application/json", body.as_bytes()).await
}

#[tokio::test]
async fn a_batch_reaches_subscribers_of_every_kind() {
    let broker = Broker::start(&[]);
    let mut raw = open(broker.address, "/sub/a").await;
    let mut session = open_v1(broker.address).await;
    session.command(json!({ "type": "subscribe", "id": 1, "topics": ["a", "b"] })).await;
    let items: Vec<_> = (0..500).map(|n| json!({ "topics": ["a", "b"], "data": { "n": n } })).collect();
    let answer = post_batch(broker.address, items.into()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().expect("a list").clone();
    assert_eq!(results.len(), 500);
    let (mut of_a, mut of_b) = (0, 0);
    for (n, result) in results.iter().enumerate() {
        let offset = n as u64 + 1;
        assert_eq!(result["results"][0]["offset"], offset, "{result}");
        assert_eq!(result["results"][1]["topic"], "b");
        assert_eq!(raw.text().await, format!("{{\"n\":{n}}}"));
    }
    while of_a < 500 || of_b < 500 {
        let message = session.json().await;
        let count = if message["topic"] == "a" { &mut of_a } else { &mut of_b };
        assert_eq!(message["data"]["n"], *count, "{message}");
        *count += 1;
    }
    assert_eq!(stat(&broker, "messages_in").await, 1000);
}

#[tokio::test]
async fn lines_are_published_while_results_come_back() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/a").await;
    let mut lines = Lines::open(broker.address).await;
    for n in 1..=20 {
        lines.send(&json!({ "topic": "a", "data": format!("text {n}") }).to_string()).await;
        let result = lines.result().await.expect("a result");
        assert_eq!((&result["offset"], &result["subscribers"]), (&n.into(), &1.into()), "{result}");
        assert_eq!(subscriber.text().await, format!("text {n}"));
    }
    lines.send("no item").await;
    assert_eq!(lines.result().await.expect("a result")["code"], "bad-json");
    lines.send(r#"{"topic":"a","data":"after it"}"#).await;
    assert_eq!(lines.result().await.expect("a result")["offset"], 21);
    lines.end().await;
    assert_eq!(lines.result().await, None);
    // The connection goes on.
    lines.http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(lines.http.answer().await.status, 200);
}

/// A client that takes no results holds up its own lines and nobody else's.
#[tokio::test]
async fn a_client_that_reads_no_results_is_not_read_from() {
    let broker = Broker::start(&["--ping-timeout", "60s"]);
    let mut lines = Lines::open(broker.address).await;
    let line = "{\"topic\":\"a\",\"data\":1}\n".repeat(2000);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let mut sent = 0;
    let full = async {
        loop {
            lines.http.send(&chunk).await;
            sent += 2000;
        }
    };
    // What the sockets hold, on both ways, and no more.
    assert!(timeout(Duration::from_secs(3), full).await.is_err());
    let published = stat(&broker, "messages_in").await;
    assert!(published < 1_000_000 && sent < 2_000_000, "{published} of {sent}");
    let begun = Instant::now();
    assert_eq!(post_batch(broker.address, json!([{ "topic": "b", "data": 1 }])).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2));
    for n in 1..=published {
        assert_eq!(lines.result().await.expect("a result")["offset"], n);
    }
}

#[tokio::test]
async fn a_drain_ends_a_stream_with_a_last_line() {
    let mut broker = Broker::start(&["--drain-window", "100ms"]);
    let mut lines = Lines::open(broker.address).await;
    lines.send(r#"{"topic":"a","data":"x"}"#).await;
    assert_eq!(lines.result().await.expect("a result")["offset"], 1);
    signal(&broker, "TERM");
    let last = lines.result().await.expect("a last line");
    assert_eq!((&last["code"], &last["status"]), (&"draining".into(), &503.into()), "{last}");
    assert_eq!(lines.result().await, None);
    drop(lines);
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

#[tokio::test]
async fn keys_are_asked_for_before_a_batch_is_read() {
    let broker = Broker::start(&["--client-publish", "off"]);
    let answer = post_batch(broker.address, json!([{ "topic": "a", "data": "x" }])).await;
    assert_eq!((answer.status, &answer.json()["code"]), (403, &"forbidden".into()));
    let answer = request(broker.address, "POST /pub HTTP/1.1\r\nContent-Type: application/x-ndjson", b"{}\n").await;
    assert_eq!((answer.status, &answer.json()["code"]), (403, &"forbidden".into()));
}
