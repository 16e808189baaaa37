//! One rule on every way in: the same input gets the same answer as the first request of a connection, as a later one,
//! on the operators' port, in a WebSocket handshake, and in a command of `ringyard.v1`.

use std::net::SocketAddr;

use serde_json::json;

use crate::broker::Broker;
use crate::http::{Answer, Http, request};
use crate::ws::{Ws, open, open_v1};

const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

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
            assert!(expected < 400 || expected == 421 || same, "{head:?}");
        }
    }
    for target in [format!("/{long}"), format!("/healthz?{long}"), format!("http://localhost/{long}")] {
        for (server, behind_another) in [(broker.address, false), (broker.address, true), (broker.admin, false)] {
            let head = format!("GET {target} HTTP/1.1\r\n{page}\r\n");
            assert_eq!(ask(server, behind_another, &head).await.status, 414, "{behind_another}");
        }
    }
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
        assert!(answer.json()["error"].as_str().expect("a sentence").contains("--max-publish-rate"));
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
