//! `POST /pub/{topic}`, and the operators' pages.

use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{Http, post, request, stat};
use crate::ws::{open, open_v1};

#[tokio::test]
async fn a_post_is_published_and_answered_with_its_place() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/demo").await;
    let first = request(broker.address, "POST /pub/demo HTTP/1.1", b"hello").await;
    assert_eq!(first.status, 200, "{first:?}");
    assert!(first.head.contains("content-type: application/json"), "{}", first.head);
    let place = first.json();
    assert_eq!((&place["topic"], &place["offset"]), (&"demo".into(), &1.into()));
    let epoch = place["epoch"].as_str().expect("an epoch");
    assert!(epoch.len() == 16 && epoch.bytes().all(|byte| byte.is_ascii_hexdigit()), "{epoch}");
    let second = request(broker.address, "POST /pub/demo HTTP/1.1", "wörld".as_bytes()).await.json();
    assert_eq!((&second["epoch"], &second["offset"]), (&epoch.into(), &2.into()));
    assert_eq!(subscriber.text().await, "hello");
    assert_eq!(subscriber.text().await, "wörld");
}

#[tokio::test]
async fn bytes_that_are_not_text_are_binary() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/demo").await;
    post(broker.address, "demo", b"\xff\xfe\0").await;
    assert_eq!(subscriber.next().await, Message::binary(&b"\xff\xfe\0"[..]));
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let broker = Broker::start(&[]);
    let mut http = Http::open(broker.address).await;
    for offset in 1..=50 {
        http.send("POST /pub/alive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = http.answer().await;
        assert_eq!((answer.status, &answer.json()["offset"]), (200, &offset.into()));
    }
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/pipe").await;
    let mut http = Http::open(broker.address).await;
    let mut ahead = String::new();
    for at in 0..100 {
        let body = format!("message {at}");
        ahead += &format!("POST /pub/pipe HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if at % 10 == 0 {
            ahead += "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        }
    }
    http.send(ahead).await;
    for at in 0..100 {
        let answer = http.answer().await;
        assert_eq!((answer.status, &answer.json()["offset"]), (200, &(at + 1).into()));
        if at % 10 == 0 {
            assert_eq!(http.answer().await.status, 200);
        }
        assert_eq!(subscriber.text().await, format!("message {at}"));
    }
}

#[tokio::test]
async fn a_chunked_body_is_one_message() {
    let broker = Broker::start(&[]);
    let mut subscriber = open(broker.address, "/sub/chunks").await;
    let mut http = Http::open(broker.address).await;
    http.send("POST /pub/chunks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    http.send("4\r\none \r\n").await.send("7\r\nmessage\r\n").await.send("0\r\n\r\n").await;
    assert_eq!(http.answer().await.status, 200);
    assert_eq!(subscriber.text().await, "one message");
}

/// Topics that differ by an empty level are different topics, by HTTP, on raw connections and in `ringyard.v1`.
#[tokio::test]
async fn levels_may_be_empty() {
    let broker = Broker::start(&[]);
    const TOPICS: [&str; 4] = ["a/b", "/a/b", "a//b", "a/b/"];
    let mut readers = Vec::new();
    for topic in TOPICS {
        readers.push(open(broker.address, &format!("/sub/{topic}")).await);
    }
    let mut any = open_v1(broker.address).await;
    any.subscribe(&["a/+/b", "+/a/b", "a/b/#"]).await;
    for topic in TOPICS {
        assert_eq!(post(broker.address, topic, topic.as_bytes()).await, 1);
    }
    for (topic, reader) in TOPICS.iter().zip(&mut readers) {
        assert_eq!(reader.text().await, *topic);
    }
    let mut matched = Vec::new();
    for _ in TOPICS {
        matched.push(any.json().await["topic"].as_str().unwrap().to_owned());
    }
    matched.sort();
    assert_eq!(matched, ["/a/b", "a//b", "a/b", "a/b/"]);
    // `%2F` for proxies that make one slash of two.
    assert_eq!(post(broker.address, "a%2F%2Fb", b"again").await, 2);
    assert_eq!(readers[2].text().await, "again");
}

#[tokio::test]
async fn what_cannot_be_published() {
    let broker = Broker::start(&["--max-message", "1000"]);
    for (target, body, status) in [
        ("POST /pub/$sys/load HTTP/1.1", &b"x"[..], 403),
        ("POST /pub/a/+ HTTP/1.1", b"x", 400),
        ("POST /pub/a/. HTTP/1.1", b"x", 400),
        ("POST /pub/big HTTP/1.1", &[b'x'; 1001], 413),
        ("PUT /pub/demo HTTP/1.1", b"x", 405),
        ("POST /no/such/page HTTP/1.1", b"x", 404),
        ("GET /no/such/page HTTP/1.1", b"", 404),
    ] {
        let answer = request(broker.address, target, body).await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
    }
    assert_eq!(post(broker.address, "fits", &[b'x'; 1000]).await, 1);
    assert_eq!(stat(&broker, "messages_in").await, 1);
}

#[tokio::test]
async fn pages_for_operators_and_people() {
    let broker = Broker::start(&[]);
    let health = request(broker.address, "GET /healthz HTTP/1.1", b"").await;
    assert_eq!(health.status, 200);
    let page = request(broker.address, "GET / HTTP/1.1", b"").await;
    assert!(page.status == 200 && page.head.contains("content-type: text/html"), "{}", page.head);
    let subscriber = open(broker.address, "/sub/counted").await;
    post(broker.address, "counted", b"12345").await;
    let stats = request(broker.admin, "GET /api/stats HTTP/1.1", b"").await.json();
    assert_eq!(stats["totals"]["subscriptions"], 1, "{stats}");
    assert_eq!(stats["totals"]["messages_in"], 1, "{stats}");
    assert_eq!(stats["totals"]["bytes_in"], 5, "{stats}");
    assert_eq!(stats["shards"].as_array().expect("a list").len(), 2, "{stats}");
    drop(subscriber);
}
