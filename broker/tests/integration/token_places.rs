//! Where a token may stand depends on the request and on the configuration: an address and a cookie hold one only where `[auth]`
//! says so, and an address only that of a stream or a poll.

use serde_json::json;

use crate::access::{CHAT, Guarded, KEY, key_table, token};
use crate::http::{Answer, request};
use crate::ws::try_open;

/// Of a request with a body of one byte, or none for `GET`.
async fn ask(guarded: &Guarded, method: &str, target: &str, fields: &str) -> Answer {
    let server = if target.starts_with("/api") { guarded.broker.admin } else { guarded.address() };
    let body: &[u8] = if method == "GET" { b"" } else { b"x" };
    request(server, &format!("{method} {target} HTTP/1.1{fields}"), body).await
}

#[tokio::test]
async fn an_address_holds_the_token_of_a_poll_and_of_nothing_else() {
    let guarded = Guarded::start("query-token = true", &format!("{CHAT}{}", key_table("api = ['connections']")));
    let good = token("7", 600, json!({}));
    assert_eq!(ask(&guarded, "GET", &format!("/sub/chat/7?wait=0s&token={good}"), "").await.status, 200);
    assert_eq!(ask(&guarded, "GET", "/sub/chat/7?wait=0s", "").await.status, 401);
    for bad in ["x", &good[1..], &format!("{good}&token={good}")] {
        assert_eq!(ask(&guarded, "GET", &format!("/sub/chat/7?wait=0s&token={bad}"), "").await.status, 401, "{bad}");
    }
    for path in ["/pub/chat/7", "/pub", "/request/chat/7"] {
        let answer = ask(&guarded, "POST", &format!("{path}?token={good}"), "").await;
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
    }
    for path in ["/api/users/7/close", "/api/users/7/revoke"] {
        let answer = ask(&guarded, "POST", &format!("{path}?token={KEY}"), "").await;
        assert_eq!(answer.status, 401, "{path}: {answer:?}");
        let answer = ask(&guarded, "POST", path, &format!("\r\nAuthorization: Bearer {KEY}")).await;
        assert_ne!(answer.status, 401, "{path}: {answer:?}");
    }
    for path in ["/sub/chat/7", "/pub/chat/7", "/bus/chat/7"] {
        let refused = try_open(guarded.address(), &format!("{path}?token={good}"), &[]).await.err().expect("refused");
        assert!(refused.to_string().contains("401"), "{path}: {refused}");
    }
}

#[tokio::test]
async fn addresses_and_cookies_hold_none_unless_that_is_asked_for() {
    let guarded = Guarded::start("", CHAT);
    let good = token("7", 600, json!({}));
    for fields in ["", "\r\nAccept: text/event-stream"] {
        assert_eq!(ask(&guarded, "GET", &format!("/sub/chat/7?token={good}"), fields).await.status, 401);
        let cookie = format!("{fields}\r\nCookie: session={good}; token={good}; ={good}");
        assert_eq!(ask(&guarded, "GET", "/sub/chat/7", &cookie).await.status, 401);
    }
    let cookie = format!("\r\nCookie: session={good}");
    assert_eq!(ask(&guarded, "POST", "/pub/chat/7", &cookie).await.status, 401);

    let guarded = Guarded::start("cookie = 'session'", CHAT);
    assert_eq!(ask(&guarded, "POST", "/pub/chat/7", &cookie).await.status, 200);
    let other = cookie.replace("session", "sessions");
    assert_eq!(ask(&guarded, "POST", "/pub/chat/7", &other).await.status, 401);
    let refused = try_open(guarded.address(), "/sub/chat/7", &[("cookie", &format!("sessions={good}"))]).await;
    assert!(refused.err().expect("refused").to_string().contains("401"));
    assert_eq!(ask(&guarded, "GET", &format!("/sub/chat/7?wait=0s&token={good}"), "").await.status, 401);
}
