//! Requests and replies: between shards, over HTTP, with a responder that does not read, and as many as may wait.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::access::{Guarded, connected, token};
use crate::broker::Broker;
use crate::http::{Answer, await_stat, request, stats};
use crate::ws::{Ws, open_v1};

async fn responder(server: SocketAddr, filter: &str) -> Ws {
    let mut client = open_v1(server).await;
    let answer = client.command(json!({"type": "respond", "id": 1, "topic": filter})).await;
    assert_eq!(answer, json!({"type": "ok", "id": 1}));
    client
}

/// Answers the next request; its message.
async fn reply(responder: &mut Ws, answer: Value) -> Value {
    let asked = responder.json().await;
    assert_eq!(asked["type"], "request", "{asked}");
    let mut reply = answer;
    (reply["type"], reply["reply"]) = ("reply".into(), asked["reply"].clone());
    responder.send(reply.to_string()).await;
    asked
}

async fn ask(server: SocketAddr, path: &str, media: &str, body: &[u8]) -> Answer {
    request(server, &format!("POST /request/{path} HTTP/1.1\r\nContent-Type: {media}"), body).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

/// Many connections on two shards ask each other, all at once.
#[tokio::test]
async fn everybody_asks_everybody_on_two_shards() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut responders = Vec::new();
    for at in 0..8 {
        responders.push(responder(broker.address, &format!("points/{at}")).await);
    }
    for mut responder in responders {
        tokio::spawn(async move {
            loop {
                let asked = responder.json().await;
                let answer = json!({"type": "reply", "reply": asked["reply"], "data": asked["data"]});
                responder.send(answer.to_string()).await;
            }
        });
    }
    let mut askers = Vec::new();
    for asker in 0..8_u64 {
        let address = broker.address;
        askers.push(tokio::spawn(async move {
            let mut client = open_v1(address).await;
            for round in 0..100 {
                let topic = format!("points/{}", (asker + round) % 8);
                let data = json!([asker, round]);
                let answer =
                    client.command(json!({"type": "request", "id": round, "topic": topic, "data": data})).await;
                assert_eq!(answer, json!({"type": "ok", "id": round, "data": data}));
            }
        }));
    }
    for asker in askers {
        asker.await.unwrap();
    }
    let counted = stats(&broker).await;
    assert_eq!((&counted["requests_answered"], &counted["requests_waiting"]), (&800.into(), &0.into()), "{counted}");
}

#[tokio::test]
async fn over_http_every_kind_of_answer_and_every_failure() {
    let broker = Broker::start(&["--shards", "2"]);
    let server = broker.address;
    assert_eq!(code(&ask(server, "a", "text/plain", b"x").await), (404, "no-responder".to_owned()));
    let mut client = responder(server, "a/#").await;
    type Case<'a> = (&'a str, &'a [u8], Value, Value, &'a str, &'a [u8]);
    let cases: [Case<'_>; 3] = [
        ("text/plain", b"one", json!("one"), json!({"data": "two"}), "text/plain; charset=utf-8", b"two"),
        ("application/json", b" [1 ]", json!([1]), json!({"data": {"a": 1}}), "application/json", b"{\"a\":1}"),
        (
            "image/png",
            b"\xff",
            json!("/w=="),
            json!({"data": "AAE=", "encoding": "base64"}),
            "application/octet-stream",
            b"\0\x01",
        ),
    ];
    for (media, body, data, answer, answered_media, answered) in cases {
        let (got, asked) = tokio::join!(ask(server, "a/b%20c?timeout=9s", media, body), reply(&mut client, answer));
        assert_eq!((&asked["topic"], &asked["data"]), (&json!("a/b c"), &data));
        assert_eq!((got.status, &got.body[..]), (200, answered), "{got:?}");
        assert!(got.head.to_ascii_lowercase().contains(&format!("content-type: {answered_media}\r\n")), "{got:?}");
    }
    let error = json!({"code": "stuck", "reason": "no power"});
    let (got, _) = tokio::join!(ask(server, "a", "text/plain", b""), reply(&mut client, json!({"error": error})));
    assert_eq!(code(&got), (500, "responder-error".to_owned()));
    assert_eq!(got.json()["error"], error);
    let began = Instant::now();
    let got = ask(server, "a?timeout=300ms", "text/plain", b"").await;
    assert_eq!(code(&got), (504, "timeout".to_owned()));
    assert!((300..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    for path in ["a?timeout=1ms", "a?timeout=5", "a/%23"] {
        assert_eq!(ask(server, path, "text/plain", b"").await.status, 400, "{path}");
    }
    assert_eq!(ask(server, "$sys/x", "text/plain", b"").await.status, 403);
    assert_eq!(request(server, "GET /request/a HTTP/1.1", b"").await.status, 405);
    let late = client.json().await["reply"].clone();
    let answer = client.command(json!({"type": "reply", "id": 9, "reply": late, "data": 1})).await;
    assert_eq!(answer["code"], "not-found");
    let (got, ()) = tokio::join!(ask(server, "a", "text/plain", b""), async {
        client.json().await;
        drop(client);
    });
    assert_eq!(code(&got), (502, "responder-lost".to_owned()));
}

/// 64 requests wait, and one more may not; then the oldest is answered.
#[tokio::test]
async fn sixty_four_wait_for_their_answers() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut responders = Vec::new();
    for _ in 0..4 {
        responders.push(responder(broker.address, "a").await);
    }
    let mut client = open_v1(broker.address).await;
    for id in 0..64 {
        client.send(json!({"type": "request", "id": id, "topic": "a", "data": id}).to_string()).await;
    }
    let refused = client.command(json!({"type": "request", "id": 64, "topic": "a", "data": 64})).await;
    assert_eq!(refused["code"], "busy", "{refused}");
    for responder in &mut responders {
        for _ in 0..16 {
            let asked = responder.json().await;
            let answer = json!({"type": "reply", "reply": asked["reply"], "data": asked["data"]});
            responder.send(answer.to_string()).await;
        }
    }
    let mut answered = Vec::new();
    for _ in 0..64 {
        let answer = client.json().await;
        assert_eq!((&answer["type"], &answer["data"]), (&json!("ok"), &answer["id"]));
        answered.push(answer["id"].as_u64().expect("a number"));
    }
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..64), "each once");
}

/// Megabytes fill its socket. It is passed over once nothing has gone to it for a second.
#[tokio::test]
async fn a_responder_that_does_not_read_is_passed_over() {
    let broker = Broker::start(&["--shards", "2", "--max-memory", "128m"]);
    let blocked = responder(broker.address, "a").await;
    let mut other = responder(broker.address, "#").await;
    let mut client = open_v1(broker.address).await;
    let data = "x".repeat(900_000);
    for id in 0..12 {
        let command = json!({"type": "request", "id": id, "topic": "a", "data": data, "timeout": 60_000});
        client.send(Message::text(command.to_string())).await;
    }
    await_stat(&broker, "requests_waiting", |waiting| waiting == 12).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let asked = json!({"type": "request", "id": 20, "topic": "a", "data": "small"});
    let (answer, asked) = tokio::join!(client.command(asked), reply(&mut other, json!({"data": "done"})));
    assert_eq!((&answer["data"], &asked["data"]), (&json!("done"), &json!("small")));
    drop(blocked);
    for _ in 0..12 {
        assert_eq!(client.json().await["code"], "responder-lost");
    }
}

#[tokio::test]
async fn over_http_a_token_needs_the_right_and_gives_the_name() {
    let tables = "[[allow]]\nprincipal = \"user\"\nsubscribe = [\"points/#\"]\nrights = [\"request\"]\nrespond = [\"points/+\"]\n";
    let guarded = Guarded::start("", tables);
    let server = guarded.address();
    let mut station = connected(server, &token("station", 600, json!({}))).await;
    assert_eq!(station.command(json!({"type": "respond", "id": 2, "topic": "points/3"})).await["type"], "ok");
    assert_eq!(station.command(json!({"type": "respond", "id": 3, "topic": "#"})).await["code"], "forbidden");
    let bearer = token("ada", 600, json!({}));
    let head = |topic: &str| format!("POST /request/{topic} HTTP/1.1\r\nAuthorization: Bearer {bearer}");
    let (to, other) = (head("points/3?to=station"), head("lights/1"));
    let (got, asked) = tokio::join!(request(server, &to, b"left"), reply(&mut station, json!({"data": "left"})));
    assert_eq!((got.status, &asked["from"]), (200, &json!("ada")), "{got:?}");
    assert_eq!(request(server, &other, b"").await.status, 403);
    assert_eq!(ask(server, "points/3", "text/plain", b"").await.status, 401);
}
