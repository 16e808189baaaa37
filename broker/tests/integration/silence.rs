//! Peers that say nothing, or too slowly.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{Http, PATIENCE, await_stat, post};
use crate::ws::open;

/// Slowloris: a head that never ends is answered with 408, one byte now and then does not help.
#[tokio::test]
async fn a_handshake_takes_too_long() {
    let broker = Broker::start(&["--handshake-timeout", "1s"]);
    let mut silent = Http::open(broker.address).await;
    let slow = Http::open(broker.address).await;
    let mut half = Http::open(broker.address).await;
    half.send("GET /sub/a HTTP/1.1\r\nHo").await;
    let trickle = async {
        for byte in b"GET /sub/a HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n".iter() {
            if slow.stream.try_write(&[*byte]).is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        slow
    };
    let answers = async { (half.answer().await, half.ended().await) };
    let (slow, (answer, ended)) = tokio::join!(trickle, answers);
    assert_eq!((answer.status, ended), (408, true));
    let mut rest = Vec::new();
    let (mut stream, _) = slow.into_parts();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed in time");
    let mut nothing = Vec::new();
    let _ = timeout(PATIENCE, silent.stream.read_to_end(&mut nothing)).await.expect("closed in time");
    await_stat(&broker, "dropped_handshake_timeout", |dropped| dropped == 3).await;
}

/// The time a client has for its head begins with its connection, however long nothing happened before.
#[tokio::test]
async fn a_client_after_a_long_quiet_has_its_whole_time() {
    let broker = Broker::start(&["--handshake-timeout", "1s", "--shards", "1"]);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let mut http = Http::open(broker.address).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answer = http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Whoever answers no ping is gone; whoever does, stays.
#[tokio::test]
async fn silent_peers_are_closed_and_others_stay() {
    let broker = Broker::start(&["--ping-interval", "1s", "--ping-timeout", "1s"]);
    let server = broker.address;
    let silent = open(server, "/sub/a").await;
    let mut good = open(server, "/sub/a").await;
    // Reading answers pings; the silent one is never read.
    let reading = tokio::spawn(async move {
        loop {
            match good.stream.next().await.expect("no end").unwrap() {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    await_stat(&broker, "dropped_ping_timeout", |dropped| dropped == 1).await;
    post(server, "a", b"still there").await;
    assert_eq!(timeout(PATIENCE, reading).await.expect("in time").unwrap(), "still there");
    drop(silent);
}

/// A peer that vanishes without a word is noticed, and counted, whatever it was doing.
#[tokio::test]
async fn resets_leave_nothing_behind() {
    let broker = Broker::start(&[]);
    let server = broker.address;
    for bytes in [
        "",
        "GET",
        "GET /sub/a HTTP/1.1\r\n",
        "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc",
    ] {
        for _ in 0..20 {
            let stream = TcpStream::connect(server).await.unwrap();
            stream.set_zero_linger().unwrap();
            let _ = stream.try_write(bytes.as_bytes());
            drop(stream);
        }
    }
    await_stat(&broker, "connections", |open| open == 0).await;
    assert_eq!(post(server, "a", b"alive").await, 1);
}

/// A message may take longer than any ping's answer: a ping could not even overtake it.
#[tokio::test]
async fn a_large_message_read_slowly_but_steadily_arrives() {
    const LEN: usize = 24 << 20;
    let times = ["--ping-interval", "1s", "--ping-timeout", "1s"];
    let broker = Broker::start(&[&["--max-message", "32m"], &times[..]].concat());
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut subscriber = socket.connect(broker.address).await.unwrap();
    let head = "GET /sub/large HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    subscriber.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 64 << 10];
    assert!(subscriber.read(&mut bytes).await.unwrap() > 0, "the 101");
    assert_eq!(post(broker.address, "large", &vec![b'x'; LEN]).await, 1);
    let mut left = LEN + 10;
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let some = left.min(bytes.len());
        let read = timeout(PATIENCE, subscriber.read(&mut bytes[..some])).await.expect("in time").unwrap();
        assert!(read > 0, "closed with {left} bytes to come");
        left -= read;
    }
}
