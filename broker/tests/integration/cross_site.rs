//! A page of another site cannot use its visitor's cookie, though the token in it is good (cross-site WebSocket hijacking,
//! RFC 6455 §10.2), and learns nothing of it: not by a handshake, a stream or a request, on a new connection or a used one.

use std::net::SocketAddr;

use serde_json::json;

use crate::access::{Guarded, KEY, key_table, token};
use crate::http::{Answer, Http, await_stat, request, stat};
use crate::secrets::refused_by_cause;
use crate::upgrade::UPGRADE;

const CHAT: &str =
    "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\nrights = ['request']\n";
const V1: &str = "Sec-WebSocket-Protocol: ringyard.v1\r\n";
const EVENTS: &str = "Accept: text/event-stream\r\n";
const FOREIGN: [&str; 4] = ["https://evil.example", "null", "http://127.0.0.1", "file://"];

/// Who reads a request: the shard its connection begins at, or the control plane, behind another request.
const PLANES: [bool; 2] = [false, true];

/// The answer to a request with these fields on a connection of its own.
async fn ask(server: SocketAddr, is_behind: bool, line: &str, fields: &str, body: &str) -> (Http, Answer) {
    let mut http = Http::open(server).await;
    if is_behind {
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
    }
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    http.send(format!("{line} HTTP/1.1\r\nHost: {server}\r\n{fields}{length}\r\n{body}")).await;
    let answer = http.answer().await;
    (http, answer)
}

/// Handshakes and streams, with the status of one that is let in.
fn handshakes() -> [(&'static str, String, u16); 5] {
    [
        ("GET /ws", format!("{V1}{UPGRADE}"), 101),
        ("GET /sub/chat/7", UPGRADE.to_owned(), 101),
        ("GET /pub/chat/7", UPGRADE.to_owned(), 101),
        ("GET /bus/chat/7", UPGRADE.to_owned(), 101),
        ("GET /sub/chat/7", EVENTS.to_owned(), 200),
    ]
}

#[tokio::test]
async fn a_handshake_with_a_good_cookie_is_for_the_brokers_own_pages() {
    let guarded = Guarded::start("cookie = 'session'", CHAT);
    let server = guarded.address();
    let cookie = format!("Cookie: session={}\r\n", token("7", 600, json!({})));
    let mut refused = 0;
    for is_behind in PLANES {
        for (line, fields, admitted) in handshakes() {
            for own in [String::new(), format!("Origin: http://{server}\r\n")] {
                let (_http, answer) = ask(server, is_behind, line, &format!("{cookie}{own}{fields}"), "").await;
                assert_eq!(answer.status, admitted, "{line} {own}, behind another: {is_behind}: {answer:?}");
            }
            for foreign in FOREIGN {
                let fields = format!("{cookie}Origin: {foreign}\r\n{fields}");
                let (mut http, answer) = ask(server, is_behind, line, &fields, "").await;
                assert_eq!(answer.status, 403, "{line} {foreign}, behind another: {is_behind}: {answer:?}");
                assert!(!answer.head.contains("access-control"), "its page cannot read that: {answer:?}");
                assert!(http.ended().await);
                refused += 1;
            }
        }
    }
    await_stat(&guarded.broker, "refused_origin", |count| count == refused).await;
}

/// Neither the answer nor a counter says whether the token is good: it is not looked at.
#[tokio::test]
async fn nothing_is_verified_for_a_foreign_page() {
    let guarded = Guarded::start("cookie = 'session'", CHAT);
    let server = guarded.address();
    let (good, bad, expired) = (token("7", 600, json!({})), "nonsense".to_owned(), token("7", -600, json!({})));
    for is_behind in PLANES {
        for (line, fields, _) in handshakes() {
            let mut answers = Vec::new();
            for token in [&good, &bad, &expired] {
                for credential in [format!("Cookie: session={token}"), format!("Authorization: Bearer {token}")] {
                    let fields = format!("{credential}\r\nOrigin: https://evil.example\r\n{fields}");
                    let (_, answer) = ask(server, is_behind, line, &fields, "").await;
                    assert_eq!(answer.status, 403, "{line}, behind another: {is_behind}: {answer:?}");
                    answers.push(answer.body);
                }
            }
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        }
    }
    assert_eq!(refused_by_cause(&guarded.broker).await, [].into());
}

#[tokio::test]
async fn a_foreign_page_publishes_nothing_with_its_visitors_cookie() {
    let guarded = Guarded::start("cookie = 'session'", CHAT);
    let server = guarded.address();
    let cookie = format!("Cookie: session={}\r\n", token("7", 600, json!({})));
    let batch = r#"{"messages": [{"topic": "chat/7", "data": 1}]}"#;
    let json = "Content-Type: application/json\r\n";
    for is_behind in PLANES {
        // As a form of any page can send it: without asking first.
        for (line, fields, body) in [
            ("POST /pub/chat/7", "Content-Type: text/plain\r\n", "x"),
            ("POST /pub", json, batch),
            ("POST /request/chat/7?timeout=100ms", "Content-Type: text/plain\r\n", "x"),
        ] {
            for foreign in FOREIGN {
                let fields = format!("{cookie}Origin: {foreign}\r\n{fields}");
                let (_, answer) = ask(server, is_behind, line, &fields, body).await;
                assert_eq!(answer.status, 403, "{line} {foreign}: {answer:?}");
                assert!(!answer.head.contains("access-control-allow"), "{answer:?}");
            }
        }
    }
    assert_eq!(stat(&guarded.broker, "messages_in").await, 0);
    for (is_behind, count) in PLANES.into_iter().zip(1..) {
        let fields = format!("{cookie}Origin: http://{server}\r\n");
        let (_, answer) = ask(server, is_behind, "POST /pub/chat/7", &fields, "x").await;
        assert_eq!(answer.status, 200, "the broker's own page: {answer:?}");
        await_stat(&guarded.broker, "messages_in", |messages| messages == count).await;
    }
}

/// A request that only reads is answered, but the browser does not show the answer to the page.
#[tokio::test]
async fn a_foreign_page_reads_no_answer_to_its_visitors_cookie() {
    let guarded = Guarded::start("cookie = 'session'", CHAT);
    let server = guarded.address();
    let cookie = format!("Cookie: session={}\r\n", token("7", 600, json!({})));
    for is_behind in PLANES {
        for foreign in FOREIGN {
            let fields = format!("{cookie}Origin: {foreign}\r\n");
            let (_, answer) = ask(server, is_behind, "GET /sub/chat/7?wait=0s", &fields, "").await;
            assert!(!answer.head.contains("access-control-allow"), "{foreign}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_foreign_page_does_nothing_with_an_operators_cookie() {
    let tables = format!("{CHAT}{}", key_table("api = ['connections', 'topics']\npublish = ['#']"));
    let guarded = Guarded::start("cookie = 'session'", &tables);
    let admin = guarded.broker.admin;
    for line in ["POST /api/users/7/close", "POST /api/users/7/revoke", "DELETE /api/topics/chat/7/messages"] {
        let as_page = |origin: &str| format!("{line} HTTP/1.1\r\nCookie: session={KEY}\r\nOrigin: {origin}");
        for foreign in FOREIGN {
            assert_eq!(request(admin, &as_page(foreign), b"").await.status, 403, "{line} {foreign}");
        }
        let own = request(admin, &as_page(&format!("http://{admin}")), b"").await;
        assert!(own.status < 300 || own.status == 404, "{line}: {own:?}");
    }
}
