//! Server-sent events and long polls over real sockets. Streams are read by the rules of their standards, not by anything of the broker's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access::{Guarded, token};
use crate::broker::Broker;
use crate::history::{rules, without_history};
use crate::http::{Answer, Http, PATIENCE, await_stat, post, request, stat};
use crate::shutdown::{exit, signal};
use crate::ws::{open, open_v1};

/// What an `EventSource` dispatches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: String,
    /// The last event id then.
    pub(crate) id: String,
}

impl Event {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An open stream.
pub(crate) struct Stream {
    stream: TcpStream,
    pub(crate) head: String,
    is_chunked: bool,
    /// Not yet taken apart: of chunks, then of lines.
    raw: Vec<u8>,
    body: Vec<u8>,
    pub(crate) last_id: String,
    pub(crate) comments: usize,
    pub(crate) retry_ms: u64,
    /// The last chunk came.
    pub(crate) is_whole: bool,
}

impl Stream {
    /// Asks for `target` with these header lines; the answer has to be a stream.
    pub(crate) async fn open(server: SocketAddr, target: &str, fields: &str) -> Self {
        let mut http = Http::open(server).await;
        http.send(ask_for(target, fields)).await;
        let answer = http.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Self::of(http, answer)
    }

    pub(crate) fn of(http: Http, answer: Answer) -> Self {
        assert!(answer.head.contains("content-type: text/event-stream\r\n"), "{}", answer.head);
        let (stream, raw) = http.into_parts();
        let is_chunked = answer.head.contains("transfer-encoding: chunked\r\n");
        let (body, last_id) = (Vec::new(), String::new());
        Self { stream, head: answer.head, is_chunked, raw, body, last_id, comments: 0, retry_ms: 0, is_whole: false }
    }

    /// The next event. `None`: the stream ended.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            self.unchunk();
            while let Some(end) = self.body.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.body.drain(..end + 2).collect();
                if let Some(event) = self.read(std::str::from_utf8(&block).expect("UTF-8")) {
                    return Some(event);
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.raw)).await.expect("an event in time");
            if read.unwrap_or(0) == 0 {
                assert!(self.body.is_empty(), "half an event: {}", self.body.escape_ascii());
                return None;
            }
        }
    }

    /// The same; it is there.
    pub(crate) async fn event(&mut self) -> Event {
        self.next().await.expect("an event")
    }

    /// The first event, which is the position.
    pub(crate) async fn position(&mut self) -> Value {
        let first = self.event().await;
        assert_eq!(first.kind, "position", "{first:?}");
        assert!((1000..=5000).contains(&self.retry_ms), "{}", self.retry_ms);
        first.json()
    }

    /// The data of so many messages.
    pub(crate) async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let event = self.event().await;
            assert_eq!(event.kind, "message", "{event:?}");
            texts.push(event.data);
        }
        texts
    }

    fn unchunk(&mut self) {
        if !self.is_chunked {
            self.body.append(&mut self.raw);
            return;
        }
        while let Some(end) = self.raw.windows(2).position(|pair| pair == b"\r\n") {
            let len = std::str::from_utf8(&self.raw[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
            let len = len.unwrap_or_else(|| panic!("a chunk's size: {}", self.raw[..end].escape_ascii()));
            if self.raw.len() < end + 2 + len + 2 {
                return;
            }
            let chunk: Vec<u8> = self.raw.drain(..end + 2 + len + 2).collect();
            assert!(chunk.ends_with(b"\r\n") && !self.is_whole);
            self.body.extend_from_slice(&chunk[end + 2..end + 2 + len]);
            self.is_whole = len == 0;
        }
    }

    fn read(&mut self, block: &str) -> Option<Event> {
        let (mut kind, mut data) = ("message".to_owned(), None);
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if !line.is_empty() => self.comments += 1,
                "event" => kind = value.to_owned(),
                "data" => {
                    data = Some(data.map_or_else(|| value.to_owned(), |before: String| format!("{before}\n{value}")))
                }
                "id" => self.last_id = value.to_owned(),
                "retry" => self.retry_ms = value.parse().expect("milliseconds"),
                _ => {}
            }
        }
        data.map(|data| Event { kind, data, id: self.last_id.clone() })
    }
}

fn ask_for(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n")
}

async fn get(server: SocketAddr, target: &str) -> Answer {
    request(server, &format!("GET {target} HTTP/1.1"), b"").await
}

/// The answer to one that is no stream.
async fn refused(server: SocketAddr, target: &str, fields: &str) -> u16 {
    let mut http = Http::open(server).await;
    http.send(ask_for(target, fields)).await.answer().await.status
}

#[tokio::test]
async fn a_stream_says_its_position_and_then_every_message() {
    let broker = Broker::start(&[]);
    let mut stream = Stream::open(broker.address, "/sub/a", "").await;
    for field in ["cache-control: no-store", "x-accel-buffering: no", "vary: origin", "connection: close"] {
        assert!(stream.head.contains(&format!("\r\n{field}\r\n")), "{field}: {}", stream.head);
    }
    let position = stream.position().await;
    assert_eq!((&position["offset"], &position["ids"], position.get("recovered")), (&0.into(), &true.into(), None));
    let epoch = position["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(stream.last_id, format!("{epoch}:0"));
    post(broker.address, "a", "Grüße\r\n\r und \nmehr\n".as_bytes()).await;
    open(broker.address, "/pub/a").await.send(b"\xff\x00".to_vec()).await;
    open_v1(broker.address).await.command(json!({"type": "publish", "id": 1, "topic": "a", "data": {"x": 1}})).await;
    let event = |kind: &str, data: &str, offset| Event {
        kind: kind.into(),
        data: data.into(),
        id: format!("{epoch}:{offset}"),
    };
    assert_eq!(stream.event().await, event("message", "Grüße\n\n und \nmehr\n", 1));
    assert_eq!(stream.event().await, event("binary", "/wA=", 2));
    assert_eq!(stream.event().await, event("message", "{\"x\":1}", 3));
    assert_eq!(stat(&broker, "event_streams").await, 1);
    drop(stream);
    await_stat(&broker, "event_streams", |streams| streams == 0).await;
    await_stat(&broker, "subscriptions", |subscriptions| subscriptions == 0).await;
}

#[tokio::test]
async fn who_comes_back_with_its_last_id_loses_nothing() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut stream = Stream::open(broker.address, "/sub/a", "").await;
    stream.position().await;
    let mut next = 0;
    for round in 0..20 {
        for n in next..next + 7 {
            post(broker.address, "a", n.to_string().as_bytes()).await;
        }
        let before: Vec<String> = (next..next + 3).map(|n| n.to_string()).collect();
        assert_eq!(stream.texts(3).await, before, "round {round}");
        let id = stream.last_id.clone();
        // What the page's address says of an older place does not matter.
        let target = if round % 2 == 0 { "/sub/a" } else { "/sub/a?last=1" };
        stream = Stream::open(broker.address, target, &format!("Last-Event-ID: {id}\r\n")).await;
        let position = stream.position().await;
        assert_eq!(position["recovered"], true, "{position}");
        assert_eq!(stream.last_id, id);
        let after: Vec<String> = (next + 3..next + 7).map(|n| n.to_string()).collect();
        assert_eq!(stream.texts(4).await, after, "round {round}");
        next += 7;
    }
}

#[tokio::test]
async fn who_cannot_be_given_all_is_told() {
    let broker = Broker::start(&[]);
    for n in 1..=5 {
        post(broker.address, "a", n.to_string().as_bytes()).await;
    }
    for (target, id, expected) in [
        ("/sub/a", "rubbish", vec![]),
        ("/sub/a", "00000000000000ff:3", vec![]),
        ("/sub/a?last=2", "rubbish", vec!["4", "5"]),
        ("/sub/+", "00000000000000ff:3", vec![]),
    ] {
        let mut stream = Stream::open(broker.address, target, &format!("Last-Event-ID: {id}\r\n")).await;
        let position = stream.position().await;
        assert_eq!(position["recovered"], false, "{target} {id}: {position}");
        assert_eq!(stream.texts(expected.len()).await, expected, "{target} {id}");
        post(broker.address, "b", b"elsewhere").await;
    }
    let mut stream = Stream::open(broker.address, "/sub/a?since=00000000000000ff:1", "").await;
    let position = stream.position().await;
    assert_eq!(position["available"], json!({"from": 1, "to": 5}), "{position}");
}

#[tokio::test]
async fn several_topics_and_filters_in_one_stream() {
    let broker = Broker::start(&["--shards", "2"]);
    let target = "/sub?topic=a&topic=b/%23&topic=b/c";
    let mut stream = Stream::open(broker.address, target, "").await;
    assert_eq!(stream.position().await, json!({"ids": false}));
    for (topic, text) in [("a", "1"), ("b/c", "2"), ("x", "none"), ("b/d", "3"), ("a", "4")] {
        post(broker.address, topic, text.as_bytes()).await;
    }
    let mut texts = stream.texts(4).await;
    texts.sort();
    assert_eq!(texts, ["1", "2", "3", "4"], "each once, although two match b/c");
    assert_eq!(stream.last_id, "");
}

#[tokio::test]
async fn state_comes_before_its_end_and_again_if_it_was_cut() {
    let file = rules("events-state", "[[topic]]\nmatch = 'k/#'\nhistory = 'keyed'\n");
    let broker = Broker::start(&["--config", &file]);
    let mut client = open_v1(broker.address).await;
    for (key, data) in [("x", 1), ("y", 2), ("x", 3)] {
        let publish = json!({"type": "publish", "id": 1, "topic": "k/1", "key": key, "data": data});
        assert_eq!(client.command(publish).await["type"], "ok");
    }
    let mut stream = Stream::open(broker.address, "/sub/k/1?state=1", "").await;
    assert_eq!(stream.position().await["offset"], 3);
    assert!(stream.last_id.ends_with(":0"), "{}", stream.last_id);
    let first = stream.last_id.clone();
    assert_eq!(stream.texts(2).await, ["2", "3"]);
    let end = stream.event().await;
    assert_eq!((&end.kind[..], end.json()["offset"].as_u64()), ("state-end", Some(3)));
    assert!(end.id.ends_with(":3"), "{end:?}");
    // Cut before the state, between two keys, and behind it.
    for (offset, keys) in [(0, vec!["2", "3"]), (2, vec!["3"]), (3, vec![])] {
        let id = first.replace(":0", &format!(":{offset}"));
        let mut stream = Stream::open(broker.address, "/sub/k/1?state=1", &format!("Last-Event-ID: {id}\r\n")).await;
        stream.position().await;
        assert_eq!(stream.texts(keys.len()).await, keys, "behind {id}");
        assert_eq!(stream.event().await.kind, "state-end");
    }
    let publish = json!({"type": "publish", "id": 1, "topic": "r", "data": "now", "retain": true});
    client.command(publish).await;
    let mut stream = Stream::open(broker.address, "/sub/r?state=1", "").await;
    stream.position().await;
    assert!(stream.last_id.ends_with(":0"), "{}", stream.last_id);
    assert_eq!(stream.texts(1).await, ["now"]);
    let end = stream.event().await;
    assert!(end.kind == "state-end" && end.id.ends_with(":1"), "{end:?}");
}

#[tokio::test]
async fn a_purge_begins_another_epoch() {
    let broker = Broker::start(&[]);
    let mut stream = Stream::open(broker.address, "/sub/a", "").await;
    stream.position().await;
    post(broker.address, "a", b"old").await;
    assert_eq!(stream.texts(1).await, ["old"]);
    let old = stream.last_id.clone();
    assert_eq!(request(broker.admin, "DELETE /api/topics/a/messages HTTP/1.1", b"").await.status, 200);
    let reset = stream.event().await;
    assert_eq!((&reset.kind[..], &reset.json()["reason"]), ("reset", &"purged".into()));
    assert!(reset.id.ends_with(":0") && reset.id[..16] != old[..16], "{reset:?}");
    post(broker.address, "a", b"new").await;
    let new = stream.event().await;
    assert_eq!(new.id, reset.id.replace(":0", ":1"));
}

#[tokio::test]
async fn what_cannot_be_a_stream_is_refused() {
    let broker = Broker::start(&[]);
    for target in [
        "/sub",
        "/sub/",
        "/sub?topic=",
        "/sub?topic=a&topic=a",
        "/sub/a?last=0",
        "/sub/a?since=x",
        "/sub/%2B?last=1",
        "/sub/a%ff",
        "/sub/../a",
    ] {
        assert_eq!(refused(broker.address, target, "").await, 400, "{target}");
    }
    assert_eq!(refused(broker.address, "/sub/a", "Origin: https://evil.example\r\n").await, 403);
    assert_eq!(refused(broker.address, "/sub/a", "X: y\r\n").await, 200);
    // An old client gets the same without chunks.
    let mut http = Http::open(broker.address).await;
    http.send("GET /sub/a HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n").await;
    let answer = http.answer().await;
    let mut stream = Stream::of(http, answer);
    assert!(!stream.is_chunked);
    stream.position().await;
    post(broker.address, "a", b"x").await;
    assert_eq!(stream.texts(1).await, ["x"]);
    // What comes behind the request is not looked at.
    let mut http = Http::open(broker.address).await;
    http.send(ask_for("/sub/a", "") + "GET / HTTP/1.1\r\n\r\nrubbish\0\u{1}").await;
    let answer = http.answer().await;
    let mut stream = Stream::of(http, answer);
    stream.position().await;
    for _ in 0..100 {
        tokio::io::AsyncWriteExt::write_all(&mut stream.stream, &[0x81; 4096]).await.expect("it is read");
    }
    post(broker.address, "a", b"y").await;
    assert_eq!(stream.texts(1).await, ["y"]);
    let head = request(broker.address, "HEAD /sub/a HTTP/1.1\r\nAccept: text/event-stream", b"").await;
    assert!(head.status == 200 && head.head.contains("content-type: text/event-stream"), "{head:?}");
}

#[tokio::test]
async fn on_a_connection_that_served_other_requests_and_for_foreign_pages() {
    let broker = Broker::start(&["--allow-origin", "https://app.example"]);
    let page = "Origin: https://app.example\r\n";
    for before in [
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /pub/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx",
        "",
    ] {
        let mut http = Http::open(broker.address).await;
        if !before.is_empty() {
            assert_eq!(http.send(before).await.answer().await.status, 200);
        }
        http.send(ask_for("/sub/a", page)).await;
        let answer = http.answer().await;
        assert!(answer.head.contains("access-control-allow-origin: https://app.example\r\n"), "{}", answer.head);
        let mut stream = Stream::of(http, answer);
        stream.position().await;
        post(broker.address, "a", b"x").await;
        assert_eq!(stream.texts(1).await, ["x"], "behind {before:?}");
    }
}

#[tokio::test]
async fn a_token_is_needed_and_its_end_is_an_event() {
    let guarded = Guarded::start("query-token = true\ncookie = 'session'\ngrace = '0s'\nleeway = '0s'", "");
    let server = guarded.address();
    let may = json!({"topics": {"subscribe": ["a"]}});
    let good = token("ada", 60, may.clone());
    assert_eq!(refused(server, "/sub/a", "").await, 401);
    assert_eq!(refused(server, "/sub/a", "Authorization: Bearer x\r\n").await, 401);
    assert_eq!(refused(server, "/sub/a?token=x", "").await, 401, "before the stream begins, also for pages");
    assert_eq!(refused(server, "/sub/a", "Cookie: session=x\r\n").await, 401);
    assert_eq!(refused(server, "/sub/b", &format!("Authorization: Bearer {good}\r\n")).await, 403);
    assert_eq!(refused(server, &format!("/sub?topic=a&topic=b&token={good}"), "").await, 403);
    for (target, fields) in [
        ("/sub/a".to_owned(), format!("Authorization: Bearer {good}\r\n")),
        (format!("/sub/a?token={good}"), String::new()),
        ("/sub/a".to_owned(), format!("Cookie: session={good}\r\n")),
    ] {
        Stream::open(server, &target, &fields).await.position().await;
    }
    let short = token("ada", 2, may);
    let mut stream = Stream::open(server, &format!("/sub/a?token={short}"), "").await;
    stream.position().await;
    let last = stream.event().await;
    assert_eq!((&last.kind[..], &last.json()["code"]), ("expired", &4401.into()));
    assert_eq!(stream.next().await, None);
    assert!(stream.is_whole, "the last chunk comes");
}

/// A stream that takes nothing for a while goes on as its topic's rule says, and what it does not get it learns of where it can know.
#[tokio::test]
async fn a_slow_stream_is_treated_as_its_topic_says() {
    for policy in ["skip", "latest"] {
        let table = format!("[[topic]]\nmatch = 's'\nslow-consumer = '{policy}'\nmax-lag = '256k'\n");
        let file = rules(&format!("events-{policy}"), &table);
        let broker = Broker::start(&["--config", &file]);
        let mut stream = Stream::open(broker.address, "/sub/s", "").await;
        assert_eq!(stream.position().await["slow_consumer"], policy);
        let mut publisher = open_v1(broker.address).await;
        let padding = "x".repeat(8 << 10);
        for n in 1..=4000 {
            let last = n == 4000;
            let data = if last { "last".to_owned() } else { format!("{n} {padding}") };
            let command = json!({"type": "publish", "id": n, "topic": "s", "data": data, "ack": last || n % 100 == 0});
            if last || n % 100 == 0 {
                assert_eq!(publisher.command(command).await["offset"], n);
            } else {
                publisher.send(command.to_string()).await;
            }
        }
        let (mut next, mut missing) = (1, 0);
        loop {
            let event = stream.event().await;
            if event.kind == "gap" {
                let gap = event.json();
                assert_eq!((policy, &gap["from"]), ("skip", &next.into()), "{gap}");
                let to = gap["to"].as_u64().expect("an offset");
                missing += to + 1 - next;
                next = to + 1;
                continue;
            }
            let offset: u64 = event.id.split_once(':').expect("an id").1.parse().expect("an offset");
            assert!(
                if policy == "skip" { offset == next } else { offset >= next },
                "{policy}: {offset}, {next} was next"
            );
            missing += offset - next;
            next = offset + 1;
            if event.data == "last" {
                break;
            }
        }
        assert_eq!(next, 4001, "{policy}");
        assert!(missing > 0, "{policy}: it was not slow");
    }
}

#[tokio::test]
async fn a_shutdown_ends_streams_cleanly() {
    let mut broker = Broker::start(&[]);
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = Stream::open(broker.address, "/sub/a", "").await;
        stream.position().await;
        streams.push(stream);
    }
    post(broker.address, "a", b"last").await;
    signal(&broker, "TERM");
    for mut stream in streams {
        assert_eq!(stream.texts(1).await, ["last"]);
        assert_eq!(stream.next().await, None);
        assert!(stream.is_whole);
    }
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

#[tokio::test]
async fn quiet_streams_are_sent_comments() {
    let broker = Broker::start(&["--ping-interval", "1s", "--ping-timeout", "3s"]);
    let mut stream = Stream::open(broker.address, "/sub/a", "").await;
    stream.position().await;
    let begun = Instant::now();
    while stream.comments < 3 {
        let event = timeout(Duration::from_millis(100), stream.next()).await;
        assert!(event.is_err(), "{event:?}");
        assert!(begun.elapsed() < PATIENCE, "no comments");
    }
    assert!(begun.elapsed() >= Duration::from_millis(2500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn polls_answer_at_once_or_when_something_comes() {
    let file = without_history("events-poll");
    for arguments in [vec![], vec!["--config", &file]] {
        let has_history = arguments.is_empty();
        let broker = Broker::start(&arguments);
        let position = |answer: &Value| format!("{}:{}", answer["epoch"].as_str().expect("an epoch"), answer["offset"]);
        let first = get(broker.address, "/sub/a").await.json();
        assert_eq!((&first["offset"], &first["messages"], first.get("recovered")), (&0.into(), &json!([]), None));
        let mut since = position(&first);
        for n in 1..=3 {
            let target = format!("/sub/a?since={since}&wait=20s");
            let (answer, _) = tokio::join!(get(broker.address, &target), async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                post(broker.address, "a", n.to_string().as_bytes()).await
            });
            let answer = answer.json();
            assert_eq!(answer["recovered"], true, "{answer}");
            assert_eq!(answer["messages"][0]["data"], n.to_string(), "{answer}");
            since = position(&answer);
        }
        let begun = Instant::now();
        let empty = get(broker.address, &format!("/sub/a?since={since}&wait=500ms")).await.json();
        assert!(begun.elapsed() >= Duration::from_millis(450));
        assert_eq!((&empty["messages"], position(&empty)), (&json!([]), since.clone()));
        let lost = get(broker.address, "/sub/a?since=00000000000000ff:1").await.json();
        assert_eq!((&lost["recovered"], &lost["offset"]), (&false.into(), &3.into()), "{lost}");
        if has_history {
            let some = get(broker.address, &format!("/sub/a?since={}&limit=2", since.replace(":3", ":0"))).await.json();
            assert_eq!((&some["offset"], some["messages"].as_array().map(Vec::len)), (&2.into(), Some(2)), "{some}");
            let newest = get(broker.address, "/sub/a?last=2").await.json();
            assert_eq!((&newest["messages"][0]["offset"], &newest["offset"]), (&2.into(), &3.into()), "{newest}");
        }
    }
}

#[tokio::test]
async fn polls_end_with_the_broker_and_leave_nothing_behind() {
    let mut broker = Broker::start(&[]);
    for bad in ["/sub", "/sub/%2B", "/sub/a?wait=61s", "/sub/a?limit=0", "/sub/a?since=1", "/sub/a?last=0"] {
        let answer = get(broker.address, bad).await;
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
    }
    let first = get(broker.address, "/sub/a").await.json();
    let target = format!("/sub/a?since={}:0&wait=60s", first["epoch"].as_str().expect("an epoch"));
    // Who goes away while it waits is forgotten; who stays is answered when the broker goes.
    for _ in 0..50 {
        let mut http = Http::open(broker.address).await;
        http.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    }
    assert_eq!(get(broker.address, "/healthz").await.status, 200, "others are answered");
    let mut http = Http::open(broker.address).await;
    http.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal(&broker, "TERM");
    let answer = http.answer().await;
    assert_eq!((answer.status, &answer.json()["messages"]), (200, &json!([])), "{answer:?}");
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}
