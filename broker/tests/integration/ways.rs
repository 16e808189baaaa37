//! One rule on every way in: the same input gets the same answer as the first request of a connection, as a later one,
//! on the operators' port, in a WebSocket handshake, and in a command of `ringyard.v1`.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::http::{Answer, Http, PATIENCE, await_stat, request};
use crate::upgrade::UPGRADE;
use crate::ws::{Ws, open, open_v1};

/// A request on a connection of its own, alone or behind another one.
async fn ask(server: SocketAddr, behind_another: bool, head: &str) -> Answer {
    let mut http = Http::open(server).await;
    if behind_another {
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
    }
    http.send(head).await;
    http.answer().await
}

#[tokio::test]
async fn heads() {
    let broker = Broker::start(&["--max-head", "2k", "--max-headers", "12", "--allow-origin", "https://app.example"]);
    let host = "Host: localhost\r\n";
    let long = "x".repeat(3000);
    let page = format!("{host}Origin: https://app.example\r\n");
    // The request line, where PATH is a resource; its fields; the status of a refusal.
    let cases: Vec<(&str, String, Option<u16>)> = vec![
        ("GET PATH HTTP/1.1\r\n", host.into(), None),
        ("GET PATH?a=b HTTP/1.1\r\n", host.into(), None),
        ("GET http://localhostPATH HTTP/1.1\r\n", host.into(), None),
        ("GET http://127.0.0.1:1PATH HTTP/1.1\r\n", "Host: elsewhere.example\r\n".into(), None),
        ("\r\nGET PATH HTTP/1.1\r\n", host.into(), None),
        ("GET PATH HTTP/1.1\r\n", page.clone(), None),
        ("GET PATH HTTP/1.1\r\n", format!("{host}Content-Length: 0\r\n"), None),
        // Line ends and other malformed lines.
        ("GET PATH HTTP/1.1\n", host.into(), Some(400)),
        ("GET PATH HTTP/1.1\r\n", "Host: localhost\n".into(), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}A: b\n"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}A: b\r\n folded\r\n"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}A : b\r\n"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}A: \u{1}\r\n"), Some(400)),
        ("GET PATH HTTP/1.1 \r\n", host.into(), Some(400)),
        ("GET  PATH HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET PATH HTTP/2.0\r\n", host.into(), Some(400)),
        // Targets.
        ("GET PATH#part HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET PATH<> HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET PATH?\"<> HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET ftp://localhostPATH HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET http://user@localhostPATH HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET http://PATH HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET localhost:80 HTTP/1.1\r\n", host.into(), Some(400)),
        ("GET * HTTP/1.1\r\n", host.into(), Some(400)),
        // Hosts and origins.
        ("GET PATH HTTP/1.1\r\n", String::new(), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}{host}"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", "Host:\r\n".into(), Some(400)),
        ("GET PATH HTTP/1.1\r\n", "Host: localhost:x\r\n".into(), Some(400)),
        ("GET PATH HTTP/1.1\r\n", "Host: local/host\r\n".into(), Some(400)),
        ("GET PATH HTTP/1.1\r\n", "Host: elsewhere.example\r\n".into(), Some(421)),
        ("GET http://elsewhere.examplePATH HTTP/1.1\r\n", host.into(), Some(421)),
        ("GET PATH HTTP/1.1\r\n", format!("{page}Origin: https://app.example\r\n"), Some(400)),
        // Lengths.
        ("GET PATH HTTP/1.1\r\n", format!("{host}Content-Length: 1\r\nContent-Length: 1\r\n"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}Content-Length: -1\r\n"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), Some(400)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}Transfer-Encoding: gzip, chunked\r\n"), Some(501)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}X: {long}\r\n"), Some(431)),
        ("GET PATH HTTP/1.1\r\n", format!("{host}{}", "X: y\r\n".repeat(12)), Some(431)),
        ("CONNECT localhost:80 HTTP/1.1\r\n", host.into(), Some(501)),
    ];
    for (line, fields, refused) in cases {
        for path in ["/healthz", "/sub/a"] {
            let is_handshake = path == "/sub/a";
            let upgrade = if is_handshake { UPGRADE } else { "" };
            let head = format!("{}{fields}{upgrade}\r\n", line.replace("PATH", path));
            let expected = refused.unwrap_or(if is_handshake { 101 } else { 200 });
            let mut reasons = Vec::new();
            for (server, behind_another) in
                [(broker.address, false), (broker.address, true), (broker.admin, false), (broker.admin, true)]
            {
                if is_handshake && server == broker.admin {
                    continue; // No WebSockets there.
                }
                let answer = ask(server, behind_another, &head).await;
                assert_eq!(answer.status, expected, "{server}, behind another: {behind_another}: {head:?}: {answer:?}");
                let readable = answer.head.contains("access-control-allow-origin: https://app.example\r\n");
                assert!(
                    !fields.contains("app.example")
                        || readable
                        || expected == 101
                        || fields.matches("Origin").count() > 1
                );
                reasons.push(answer.body);
            }
            let same = reasons.iter().all(|reason| *reason == reasons[0]);
            // A plain request's 421 comes from the HTTP API, in JSON; so it does on all ways.
            assert!(expected < 400 || same, "{head:?}: {reasons:?}");
        }
    }
    for target in [format!("/{long}"), format!("/healthz?{long}"), format!("http://localhost/{long}")] {
        for (server, behind_another) in [(broker.address, false), (broker.address, true), (broker.admin, false)] {
            let head = format!("GET {target} HTTP/1.1\r\n{page}\r\n");
            assert_eq!(ask(server, behind_another, &head).await.status, 414, "{behind_another}");
        }
    }
}

/// How a handshake and the bytes behind it come.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// First of all: a shard reads it.
    Alone,
    /// Behind an answered request: the control plane reads it.
    BehindAnother,
    /// The same, in one write with the request.
    WithAnother,
}

/// Everything that comes back for a handshake at `path`: its answer, then `frames` frames or the end.
async fn handshake(server: SocketAddr, way: Way, path: &str, fields: &str, behind: &[u8], frames: usize) -> Vec<u8> {
    const REQUEST: &str = "POST /pub/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx";
    let head = format!("GET {path} HTTP/1.1\r\n{fields}{UPGRADE}\r\n");
    let mut http = Http::open(server).await;
    match way {
        Way::Alone => http.send([head.as_bytes(), behind].concat()).await,
        Way::BehindAnother => {
            http.send(REQUEST).await;
            assert_eq!(http.answer().await.status, 200);
            http.send([head.as_bytes(), behind].concat()).await
        }
        Way::WithAnother => {
            http.send([REQUEST.as_bytes(), head.as_bytes(), behind].concat()).await;
            assert_eq!(http.answer().await.status, 200);
            &mut http
        }
    };
    let (mut stream, mut bytes) = http.into_parts();
    let is_whole = |bytes: &[u8]| {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
        end.is_some_and(|mut at| {
            let mut left = frames;
            while left > 0 && bytes.len() >= at + 2 {
                at += match bytes[at + 1] {
                    126 if bytes.len() < at + 4 => return false,
                    126 => 4 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])),
                    len => 2 + usize::from(len),
                };
                left -= 1;
            }
            frames > 0 && left == 0 && bytes.len() >= at
        })
    };
    while !is_whole(&bytes) {
        let read = timeout(PATIENCE, stream.read_buf(&mut bytes)).await;
        match read.unwrap_or_else(|_| panic!("{way:?} {path}: stuck after {}", bytes.escape_ascii())) {
            // A connection that ends with unread bytes may be reset.
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    bytes
}

/// A frame of a client; its mask is zero.
fn frame(text: &str) -> Vec<u8> {
    let head = match text.len() {
        len @ ..126 => vec![0x81, 0x80 | len as u8],
        len => [&[0x81, 0x80 | 126][..], &(len as u16).to_be_bytes()].concat(),
    };
    [&head, &[0; 4][..], text.as_bytes()].concat()
}

/// The same bytes come back whichever way a handshake comes, admitted or not, with whatever is behind its head.
#[tokio::test]
async fn handshakes() {
    let broker = Broker::start(&["--allow-origin", "https://app.example"]);
    let many: Vec<String> = (0..400).map(|n| format!("{n:03}").repeat(200)).collect();
    let many = many.iter().map(|text| frame(text)).collect::<Vec<_>>().concat();
    let protocol = "Sec-WebSocket-Protocol: other, ringyard.v1\r\n";
    let page = "Origin: https://app.example\r\n";
    // What is asked for, where N makes the topic new; its fields; what is behind it; how many frames come back.
    let cases: Vec<(&str, String, Vec<u8>, usize, &str)> = vec![
        ("/bus/N", String::new(), frame("hi"), 1, "101"),
        ("/bus/N?x=y", page.to_owned(), [frame("hi"), frame("there")].concat(), 2, "101"),
        ("/bus/N", String::new(), many, 400, "101"),
        ("/bus/N", String::new(), [frame("whole"), frame("cut")[..3].to_vec()].concat(), 1, "101"),
        ("/sub/N", String::new(), frame("not allowed here"), 1, "101"),
        ("/ws", protocol.to_owned(), frame(r#"{"type":"ping","id":7}"#), 1, "101"),
        ("/ws", protocol.to_owned(), frame("no command"), 1, "101"),
        ("/bus/N", String::new(), b"no frame".to_vec(), 1, "101"),
        ("/ws", String::new(), frame("hi"), 0, "400"),
        ("/bus/+", page.to_owned(), frame("hi"), 0, "400"),
        ("/pub/$sys", page.to_owned(), Vec::new(), 0, "403"),
        ("/bus/N", "Origin: https://evil.example\r\n".to_owned(), frame("hi"), 0, "403"),
        ("/nowhere", page.to_owned(), Vec::new(), 0, "404"),
    ];
    for (path, fields, behind, frames, status) in cases {
        let mut answers = Vec::new();
        for way in [Way::Alone, Way::BehindAnother, Way::WithAnother] {
            let path = path.replace('N', &format!("{way:?}"));
            let fields = format!("Host: localhost\r\n{fields}");
            let answer = handshake(broker.address, way, &path, &fields, &behind, frames).await;
            assert!(
                answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()),
                "{way:?} {path}: {}",
                answer.escape_ascii()
            );
            answers.push(answer);
        }
        for answer in &answers {
            assert_eq!(answer.escape_ascii().to_string(), answers[0].escape_ascii().to_string(), "{path} {fields:?}");
        }
    }
    for way in [Way::Alone, Way::BehindAnother, Way::WithAnother] {
        let answer = handshake(broker.address, way, "/bus/a", "Host: elsewhere.example\r\n", b"", 0).await;
        assert!(answer.starts_with(b"HTTP/1.1 421 "), "{way:?}: {}", answer.escape_ascii());
    }
    // Nobody is left over, and nothing is held for anybody.
    await_stat(&broker, "connections", |open| open == 0).await;
    let memory = request(broker.admin, "GET /api/stats HTTP/1.1", b"").await.json()["memory"]["held"].clone();
    assert_eq!((&memory["input"], &memory["queues"]), (&json!(0), &json!(0)), "{memory}");
    assert_eq!(crate::http::stat(&broker, "adopted").await, 16);
    // The operators' port has no WebSockets but /ws, which pages of other hosts do not reach.
    let answer = handshake(broker.admin, Way::Alone, "/bus/a", &format!("Host: localhost\r\n{protocol}"), b"", 0).await;
    assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", answer.escape_ascii());
}

/// A handshake that is refused on a connection that stayed open ends it, whatever refused it (RFC 9931).
#[tokio::test]
async fn a_refused_handshake_ends_a_kept_connection() {
    let broker = Broker::start(&[]);
    for fields in ["Host: elsewhere.example\r\n", "Host: localhost\r\nOrigin: https://evil.example\r\n"] {
        let mut http = Http::open(broker.address).await;
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
        http.send(format!("GET /sub/a HTTP/1.1\r\n{fields}{UPGRADE}\r\nGET / HTTP/1.1\n\n")).await;
        assert!([403, 421].contains(&http.answer().await.status));
        assert!(http.ended().await, "{fields}");
    }
}

#[tokio::test]
async fn topics() {
    let broker = Broker::start(&["--max-topic", "20"]);
    let long = "x".repeat(21);
    for topic in [
        "a",
        "a/b",
        "a%2Fb",
        "r%C3%A4um",
        "räum",
        "a%20b",
        "a+b",
        "$sys",
        "%24sys",
        "+",
        "%2B",
        "%23",
        "a//b",
        "a/",
        "",
        "%ff",
        "a%2",
        "a%zz",
        "a%00",
        "%0A",
        "a?b",
        "a\"b",
        "a%25b",
        "a/../b",
        &long,
    ] {
        let posted = request(broker.address, &format!("POST /pub/{topic} HTTP/1.1"), b"x").await.status;
        let head = format!("GET /pub/{topic} HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n");
        let opened = ask(broker.address, false, &head).await.status;
        let expected = if posted == 200 { 101 } else { posted };
        assert_eq!(opened, expected, "{topic:?}");
        if opened == 101 && topic == "r%C3%A4um" {
            let mut reader = open(broker.address, "/sub/r%C3%A4um").await;
            assert_eq!(request(broker.address, "POST /pub/räum HTTP/1.1", b"one name").await.status, 200);
            assert_eq!(reader.text().await, "one name");
        }
    }
}

/// The next message of both kinds of subscribers: the envelope's `data`, and the payload.
async fn delivered(envelopes: &mut Ws, payloads: &mut Ws) -> (String, String) {
    let envelope = envelopes.text().await;
    let (_, data) = envelope.split_once("\"data\":").expect("a message");
    (data.to_owned(), payloads.text().await)
}

#[tokio::test]
async fn json() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let mut envelopes = open_v1(server).await;
    envelopes.subscribe(&["t"]).await;
    let mut payloads = open(server, "/sub/t").await;
    let mut publisher = open_v1(server).await;
    let post = async |text: &str| {
        let head = "POST /pub/t HTTP/1.1\r\nContent-Type: application/json";
        request(server, head, text.as_bytes()).await.status
    };
    for text in [
        "1",
        "-0",
        "-0.0",
        "1.50",
        "1E2",
        "1e-400",
        "5e-324",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "true",
        "null",
        "\"text\"",
        "\"\"",
        "\"\\u0041\\/\\n\"",
        "\"\\ud83d\\ude00\"",
        " { \"b\" : [ 1 , 2 ] , \"a\" : { } } ",
        "{\"a\":1,\"a\":2}",
        "[\"\\u00e4\"]",
        "\t[]\r\n",
        &nested(64),
    ] {
        publisher.send(format!(r#"{{"type":"publish","topic":"t","data":{text}}}"#)).await;
        let by_command = delivered(&mut envelopes, &mut payloads).await;
        assert_eq!(post(text).await, 200, "{text}");
        assert_eq!(delivered(&mut envelopes, &mut payloads).await, by_command, "{text}");
    }
    for text in [
        "",
        " ",
        "nul",
        "NaN",
        "Infinity",
        "01",
        "1.",
        ".5",
        "+1",
        "0x10",
        "1e400",
        "-1e999",
        "1 2",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "'a'",
        "\"a",
        "\"\t\"",
        "\"\\ud83d\"",
        "\"\\ude00\\ud83d\"",
        "\"\\x41\"",
        "\u{feff}1",
        "/**/1",
        "1\0",
        "]",
        &nested(65),
        &nested(2000),
    ] {
        publisher.send(format!(r#"{{"type":"publish","topic":"t","data":{text}}}"#)).await;
        assert_eq!(publisher.json().await["type"], "error", "{text}");
        assert_eq!(post(text).await, 400, "{text}");
    }
    // Nothing of that was delivered.
    assert_eq!(post("\"last\"").await, 200);
    assert_eq!(payloads.text().await, "last");
}

/// `--max-publish-rate` holds for each HTTP connection as for each WebSocket.
#[tokio::test]
async fn the_publish_rate() {
    let broker = Broker::start(&["--max-publish-rate", "1"]);
    let post = async |http: &mut Http| {
        http.send("POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx").await;
        http.answer().await
    };
    let mut http = Http::open(broker.address).await;
    let mut refused = Vec::new();
    for _ in 0..10 {
        let answer = post(&mut http).await;
        match answer.status {
            200 => {}
            _ => refused.push(answer),
        }
    }
    assert!((5..=8).contains(&refused.len()), "{refused:?}");
    for answer in refused {
        assert!(answer.status == 429 && answer.head.contains("retry-after: "), "{answer:?}");
        assert!(answer.json()["detail"].as_str().expect("a sentence").contains("--max-publish-rate"));
    }
    assert_eq!(post(&mut Http::open(broker.address).await).await.status, 200, "another connection");
}

/// Nobody takes all names: over HTTP, too, one client begins so many topics in so much time.
#[tokio::test]
async fn new_topics() {
    let broker = Broker::start(&["--max-topics-per-connection", "3"]);
    let mut http = Http::open(broker.address).await;
    for (topic, status) in [("a", 200), ("b", 200), ("c", 200), ("d", 429), ("a", 200), ("e", 429)] {
        http.send(format!("POST /pub/{topic} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")).await;
        let answer = http.answer().await;
        assert_eq!(answer.status, status, "{topic}: {answer:?}");
        assert_eq!(answer.head.contains("retry-after: "), status == 429);
    }
    let other = request(broker.address, "POST /pub/d HTTP/1.1", b"x").await;
    assert_eq!(other.status, 429, "where nobody has an address, all are one client");
    assert_eq!(crate::http::stat(&broker, "refused_topics").await, 3);
    let mut client = open_v1(broker.address).await;
    let answer = client.command(json!({"type": "publish", "id": 1, "topic": "a", "data": 1})).await;
    assert_eq!(answer["type"], "ok");
}
