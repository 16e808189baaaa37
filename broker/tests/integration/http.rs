//! HTTP over bare TCP: a request's bytes are what the test says.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::broker::Broker;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection that may carry several requests.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

impl Http {
    pub(crate) async fn open(server: SocketAddr) -> Self {
        Self::of(TcpStream::connect(server).await.unwrap())
    }

    /// On a stream whose answers so far were read.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("in time").unwrap();
        self
    }

    /// The next answer, which says how long its body is, or has none.
    pub(crate) async fn answer(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "closed without an answer: {}", self.read.escape_ascii());
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let len = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |len| len.trim().parse().unwrap());
        while self.read.len() < len {
            assert!(self.fill().await, "the body ended early");
        }
        Answer { status, head, body: self.read.drain(..len).collect() }
    }

    /// Whether the server closed the connection, everything before being read.
    pub(crate) async fn ended(&mut self) -> bool {
        self.read.is_empty() && !self.fill().await
    }

    async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("an answer in time");
        read.unwrap_or(0) > 0
    }

    /// What was read beyond the answers, and the stream.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.read)
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(server: SocketAddr, head: &str, body: &[u8]) -> Answer {
    let head = format!("{head}\r\nHost: {server}\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut http = Http::open(server).await;
    http.send([head.as_bytes(), body].concat()).await.answer().await
}

/// Publishes by HTTP; the offset.
pub(crate) async fn post(server: SocketAddr, topic: &str, body: &[u8]) -> u64 {
    let answer = request(server, &format!("POST /pub/{topic} HTTP/1.1"), body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["offset"].as_u64().expect("an offset")
}

/// The counters of `/api/stats`, summed over all shards.
pub(crate) async fn stats(broker: &Broker) -> Value {
    request(broker.admin, "GET /api/stats HTTP/1.1", b"").await.json()["totals"].clone()
}

/// One of them.
pub(crate) async fn stat(broker: &Broker, name: &str) -> u64 {
    let stats = stats(broker).await;
    stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
}

/// Waits until a counter has this value.
pub(crate) async fn await_stat(broker: &Broker, name: &str, wanted: impl Fn(u64) -> bool) {
    let mut last = 0;
    let reached = async {
        loop {
            last = stat(broker, name).await;
            if wanted(last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        panic!("{name} stays at {last}");
    }
}
