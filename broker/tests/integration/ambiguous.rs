//! A request with two tokens or keys, of which each could be meant, is refused: nobody guesses which one its sender trusts.
//! A cookie is none of two, since browsers add it by themselves.

use std::net::SocketAddr;

use serde_json::json;

use crate::access::{Guarded, KEY, key_table, token};
use crate::http::{Answer, Http};
use crate::secrets::refused_by_cause;
use crate::upgrade::UPGRADE;

const EVENTS: &str = "Accept: text/event-stream\r\n";
const CHAT: &str = "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n";

/// The answer to a `GET`, as the first request of a connection or behind another one.
async fn ask(server: SocketAddr, is_behind: bool, target: &str, fields: &str) -> Answer {
    let mut http = Http::open(server).await;
    if is_behind {
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
    }
    http.send(format!("GET {target} HTTP/1.1\r\nHost: {server}\r\n{fields}\r\n")).await;
    http.answer().await
}

fn offer(path: &str, token: &str) -> String {
    let own = if path == "/ws" { "ringyard.v1" } else { "ringyard.raw" };
    format!("Sec-WebSocket-Protocol: {own}, ringyard.token.{token}\r\n{UPGRADE}")
}

fn guarded() -> Guarded {
    let tables = format!("{CHAT}{}", key_table("subscribe = ['chat/+']\npublish = ['chat/+']"));
    Guarded::start("cookie = 'session'\nquery-token = true", &tables)
}

#[tokio::test]
async fn two_good_ones_are_none() {
    let guarded = guarded();
    let server = guarded.address();
    let (one, other) = (token("7", 600, json!({})), token("8", 600, json!({})));
    let mut refused = 0;
    // The same one twice, two users, a token and a key.
    for (header, second) in [(&one, &one), (&one, &other), (&KEY.to_owned(), &one), (&one, &KEY.to_owned())] {
        let bearer = format!("Authorization: Bearer {header}\r\n");
        for is_behind in [false, true] {
            for path in ["/ws", "/sub/chat/7", "/pub/chat/7", "/bus/chat/7"] {
                let answer = ask(server, is_behind, path, &format!("{bearer}{}", offer(path, second))).await;
                assert_eq!(answer.status, 401, "{path}, behind another: {is_behind}: {answer:?}");
                assert!(answer.head.contains("error=\"invalid_token\""), "{answer:?}");
                refused += 1;
            }
            for (wait, fields) in [("", EVENTS), ("wait=0s&", "")] {
                let target = format!("/sub/chat/7?{wait}token={second}");
                let answer = ask(server, is_behind, &target, &format!("{bearer}{fields}")).await;
                assert_eq!(answer.status, 401, "{fields}, behind another: {is_behind}: {answer:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused_by_cause(&guarded.broker).await, [("ambiguous".to_owned(), refused)].into());
}

/// Of two in the same place none counts either.
#[tokio::test]
async fn one_place_has_one() {
    let guarded = guarded();
    let server = guarded.address();
    let good = token("7", 600, json!({}));
    let bearer = format!("Authorization: Bearer {good}\r\n");
    let cookie = format!("Cookie: session={good}\r\n");
    let in_one_field = format!("Cookie: session={good}; session={good}\r\n");
    for is_behind in [false, true] {
        for twice in [format!("{bearer}{bearer}"), format!("{cookie}{cookie}"), in_one_field.clone()] {
            let answer = ask(server, is_behind, "/sub/chat/7", &format!("{twice}{EVENTS}")).await;
            assert_eq!(answer.status, 401, "{twice}, behind another: {is_behind}: {answer:?}");
        }
        let target = format!("/sub/chat/7?token={good}&token={good}");
        assert_eq!(ask(server, is_behind, &target, EVENTS).await.status, 401, "behind another: {is_behind}");
    }
}

/// A page that sends a token is judged by that one, whatever the browser adds.
#[tokio::test]
async fn a_cookie_counts_only_alone() {
    let guarded = guarded();
    let server = guarded.address();
    let (good, bad) = (token("7", 600, json!({})), token("8", -600, json!({})));
    for is_behind in [false, true] {
        for (token, in_cookie, status) in [(&good, &bad, 101), (&good, &good, 101), (&bad, &good, 401)] {
            let fields = format!("Authorization: Bearer {token}\r\nCookie: session={in_cookie}\r\n{UPGRADE}");
            let answer = ask(server, is_behind, "/sub/chat/7", &fields).await;
            assert_eq!(answer.status, status, "behind another: {is_behind}: {answer:?}");
        }
        let with_cookie = |token: &str| format!("{}Cookie: session={good}\r\n", offer("/sub/chat/7", token));
        let mut client = Http::open(server).await;
        client.send(format!("GET /sub/chat/7 HTTP/1.1\r\nHost: {server}\r\n{}\r\n", with_cookie(&bad))).await;
        assert_eq!(client.answer().await.status, 101);
        assert_eq!(closed_with(client).await, 4401, "a page reads why in the close frame");
        assert_eq!(ask(server, is_behind, "/sub/chat/7", &with_cookie(&good)).await.status, 101);
    }
    let counted = refused_by_cause(&guarded.broker).await;
    assert!(!counted.contains_key("ambiguous"), "{counted:?}");
}

/// The code of the close frame that comes first.
async fn closed_with(client: Http) -> u16 {
    use tokio::io::AsyncReadExt;
    let (mut stream, mut read) = client.into_parts();
    while read.len() < 4 {
        let more = tokio::time::timeout(crate::http::PATIENCE, stream.read_buf(&mut read)).await.expect("in time");
        assert!(more.is_ok_and(|bytes| bytes > 0), "no close frame: {}", read.escape_ascii());
    }
    assert_eq!(read[0], 0x88, "a close frame");
    u16::from_be_bytes([read[2], read[3]])
}
