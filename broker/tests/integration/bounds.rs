//! What is held for clients has bounds, and within them nobody who reads is closed, however fast others are.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::broker::Broker;
use crate::http::{await_stat, stat};
use crate::shutdown::{exit, signal};
use crate::ws::{open, open_v1};

/// Resident memory of the broker, in bytes.
fn resident(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// A WebSocket over a bare socket with little room, and whatever came behind the answer.
async fn narrow(broker: &Broker, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(broker.address).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// One that publishes as fast as it can waits for a reader that keeps up with the broker.
#[tokio::test]
async fn a_flood_waits_for_a_reader_that_is_ready() {
    const MESSAGES: u32 = 200_000;
    let limits = ["--shards", "1", "--max-lag", "1m", "--max-log", "2m", "--max-message", "64k"];
    let broker = Broker::start(&limits);
    let mut reader = open(broker.address, "/sub/flood").await;
    let mut publisher = open(broker.address, "/pub/flood").await;
    let flood = tokio::spawn(async move {
        for number in 0..MESSAGES {
            publisher.send(Message::binary(number.to_be_bytes().repeat(25))).await;
        }
        publisher
    });
    for number in 0..MESSAGES {
        let Message::Binary(got) = reader.next().await else { panic!("binary") };
        assert_eq!(got[..4], number.to_be_bytes());
        if number % 20_000 == 0 {
            assert!(stat(&broker, "log_bytes").await <= 2 << 20);
        }
    }
    let _publisher = flood.await.unwrap();
    assert_eq!(stat(&broker, "dropped_slow").await, 0);
}

/// Messages weigh what they take, not what they say.
#[tokio::test]
async fn empty_messages_are_not_weightless() {
    let broker = Broker::start(&["--shards", "1", "--max-lag", "1m", "--max-message", "64k", "--max-memory", "16m"]);
    let before = resident(&broker);
    let _reader = narrow(&broker, "/sub/empty").await;
    let mut publisher = narrow(&broker, "/pub/empty").await;
    // More than the kernel keeps for the reader, two bytes each.
    let frames = [0x82, 0x80, 0, 0, 0, 0].repeat(20_000);
    for _ in 0..150 {
        publisher.write_all(&frames).await.unwrap();
    }
    await_stat(&broker, "dropped_slow", |dropped| dropped == 1).await;
    let after = resident(&broker);
    assert!(after < before + (20 << 20), "{before} -> {after}");
}

/// A client that reads its acknowledgements is never too slow, however many it has coming.
#[tokio::test]
async fn pipelined_acknowledgements_are_all_read() {
    for io in ["uring", "epoll"] {
        let broker = Broker::start(&["--shards", "2", "--max-outbox", "4k", "--io", io]);
        let mut publisher = open_v1(broker.address).await;
        const COMMANDS: u64 = 20_000;
        for id in 0..COMMANDS {
            // Nothing is read meanwhile: what the sockets hold is less than these.
            if id % 1000 == 0 && id > 0 {
                for expected in id - 1000..id {
                    assert_eq!(publisher.json().await["id"], expected, "{io}");
                }
            }
            publisher.send(json!({"type": "publish", "id": id, "topic": "acks", "data": 1}).to_string()).await;
        }
        for expected in COMMANDS - 1000..COMMANDS {
            assert_eq!(publisher.json().await["id"], expected, "{io}");
        }
        assert_eq!(stat(&broker, "dropped_slow").await, 0, "{io}");
    }
}

/// A message may not be under way for ever, and pings between its fragments do not change that.
#[tokio::test]
async fn a_message_has_a_deadline() {
    let broker = Broker::start(&["--shards", "1", "--message-timeout", "1s"]);
    let mut stream = narrow(&broker, "/pub/slow").await;
    // Two thirds of a frame of 300 bytes, and then nothing.
    let begun = Instant::now();
    let mut frame = vec![0x82, 0xfe, 0x01, 0x2c, 0, 0, 0, 0];
    frame.resize(200, b'x');
    stream.write_all(&frame).await.unwrap();
    let mut close = [0; 4];
    stream.read_exact(&mut close).await.unwrap();
    assert_eq!((close[0], &close[2..]), (0x88, &1008_u16.to_be_bytes()[..]));
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(stat(&broker, "dropped_message_timeout").await, 1);
}

/// An idle WebSocket is pinged every interval, also if that is shorter than the time for the answer.
#[tokio::test]
async fn pings_keep_their_interval() {
    let broker = Broker::start(&["--ping-interval", "1s", "--ping-timeout", "20s"]);
    let mut stream = narrow(&broker, "/sub/quiet").await;
    let begun = Instant::now();
    for _ in 0..3 {
        let mut ping = [0; 2];
        stream.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0x89, 0]);
        stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// A client on a slow link is not cut while it takes what it is sent: neither by the ping's deadline, nor by the
/// shutdown, which waits for it, and says 1001 behind the last message.
#[tokio::test]
async fn a_slow_link_gets_everything_before_the_end() {
    const LEN: usize = 400_000;
    let options = ["--shards", "1", "--ping-interval", "1s", "--ping-timeout", "1s", "--close-timeout", "1s"];
    for io in ["uring", "epoll"] {
        let mut broker = Broker::start(&[&options[..], &["--drain-window", "30s", "--io", io]].concat());
        let mut slow = narrow(&broker, "/sub/slow").await;
        let mut publisher = open(broker.address, "/pub/slow").await;
        for _ in 0..3 {
            publisher.send(Message::binary(vec![b'x'; LEN])).await;
        }
        await_stat(&broker, "sequenced", |sequenced| sequenced == 3).await;
        publisher.close().await;
        signal(&broker, "TERM");
        let (mut got, mut some) = (Vec::new(), [0; 20_000]);
        loop {
            let read = slow.read(&mut some).await.unwrap();
            if read == 0 {
                break;
            }
            got.extend_from_slice(&some[..read]);
            tokio::time::sleep(Duration::from_millis(60)).await;
            // A sign of life: no ping is left without an answer.
            let _ = slow.try_write(&[0x8a, 0x80, 0, 0, 0, 0]);
        }
        let close = 1001_u16.to_be_bytes();
        let pings = 200; // bytes of pings in between, at most
        assert!(got.len() >= 3 * (LEN + 10) && got.len() < 3 * (LEN + 10) + pings, "{io}: {}", got.len());
        assert!(got.windows(2).rev().take(60).any(|pair| pair == close), "{io}: no 1001");
        drop(slow);
        assert_eq!(exit(&mut broker).await.code(), Some(0), "{io}");
    }
}

/// One that takes nothing at all is cut when the time is over, and the exit status says so.
#[tokio::test]
async fn a_client_that_was_cut_off_is_no_success() {
    let options = ["--shards", "1", "--max-lag", "16m", "--max-log", "16m", "--shutdown-grace", "1s"];
    let mut broker = Broker::start(&[&options[..], &["--drain-window", "1s"]].concat());
    let _deaf = narrow(&broker, "/sub/deaf").await;
    let mut publisher = open(broker.address, "/pub/deaf").await;
    for _ in 0..14 {
        publisher.send(Message::binary(vec![b'x'; 500_000])).await;
    }
    await_stat(&broker, "sequenced", |sequenced| sequenced == 14).await;
    publisher.close().await;
    signal(&broker, "TERM");
    assert_eq!(exit(&mut broker).await.code(), Some(1));
}
