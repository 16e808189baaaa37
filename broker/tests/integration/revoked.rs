//! Users who are revoked stay revoked when a successor takes over, whatever of the two says so and when.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as Name, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use crate::access::{Guarded, KEY, connected, key_table, now_s, post_as, token};
use crate::http::request;
use crate::shutdown::exit;
use crate::takeover::{start, succeeding};

fn tables() -> String {
    let allow = "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['chat/+']\n";
    format!("{allow}{}", key_table("api = ['connections']"))
}

async fn revoke(admin: SocketAddr, user: &str) {
    let head = format!("POST /api/users/{user}/revoke HTTP/1.1\r\nAuthorization: Bearer {KEY}");
    let answer = request(admin, &head, b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// What a token of this user gets that was signed before anybody was revoked.
async fn status(server: SocketAddr, user: &str) -> u16 {
    let old = token(user, 600, json!({"iat": now_s() - 100}));
    post_as(server, "chat/7", Some(&old)).await.status
}

/// The name at which brokers of this address meet.
fn meeting(address: SocketAddr) -> Name {
    Name::from_abstract_name(format!("ringyard/take-over/{address}")).unwrap()
}

/// One line of JSON.
fn line(socket: &mut UnixStream) -> Value {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        socket.read_exact(&mut byte).expect("a whole line");
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).expect("JSON")
}

#[tokio::test]
async fn a_successor_refuses_who_was_revoked() {
    let mut guarded = Guarded::with("", &tables(), &["--drain-window", "0s", "--take-over"]);
    let config = guarded.folder.path().join("ringyard.toml").to_str().unwrap().to_owned();
    let server = guarded.address();
    for user in ["7", "%C3%BC%22%5C"] {
        revoke(guarded.broker.admin, user).await;
    }
    for round in 0..2 {
        let more = ["--take-over", "--drain-window", "0s", "--config", &config];
        let successor = start(&succeeding(&guarded.broker, &more));
        assert_eq!(exit(&mut guarded.broker).await.code(), Some(0));
        guarded.broker = successor;
        for (user, expected) in [("7", 401), ("ü\"\\", 401), ("8", 200)] {
            assert_eq!(status(server, user).await, expected, "{user} after take-over {round}");
        }
        // Tokens from after that are good.
        drop(connected(server, &token("7", 600, json!({"iat": now_s() + 2}))).await);
    }
}

#[tokio::test]
async fn a_predecessor_tells_at_the_end_who_was_revoked_meanwhile() {
    let mut guarded = Guarded::with("", &tables(), &["--drain-window", "0s"]);
    revoke(guarded.broker.admin, "7").await;
    let mut socket = UnixStream::connect_addr(&meeting(guarded.address())).expect("it waits for a successor");
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(b"r").unwrap();
    let revoked_users = |line: &Value| line["users"].as_array().unwrap().len();
    tokio::task::yield_now().await;
    let (offer, first) = (line(&mut socket), line(&mut socket));
    assert_eq!((&offer["revoked"], revoked_users(&first)), (&json!(true), 1), "{first}");
    revoke(guarded.broker.admin, "8").await;
    socket.write_all(b"ready\n").unwrap();
    let mut word = [0; 6];
    socket.read_exact(&mut word).unwrap();
    assert_eq!((&word, revoked_users(&line(&mut socket))), (b"yours\n", 2));
    assert_eq!(exit(&mut guarded.broker).await.code(), Some(0));
}

#[tokio::test]
async fn a_successor_that_does_not_ask_gets_nothing() {
    let mut guarded = Guarded::with("", &tables(), &["--drain-window", "0s"]);
    revoke(guarded.broker.admin, "7").await;
    let mut socket = UnixStream::connect_addr(&meeting(guarded.address())).expect("it waits for a successor");
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.write_all(b"\n").unwrap();
    assert_eq!(line(&mut socket)["revoked"], false);
    socket.write_all(b"ready\n").unwrap();
    let mut words = Vec::new();
    socket.read_to_end(&mut words).unwrap();
    assert_eq!(words, b"yours\n");
    assert_eq!(exit(&mut guarded.broker).await.code(), Some(0));
}

/// Hands over a listener as a broker does that said `before` at first and `after` at the end.
fn hand_over(waits: &UnixListener, listener: &TcpListener, before: &str, after: &str) {
    let (mut successor, _) = waits.accept().unwrap();
    let mut asking = [0];
    successor.read_exact(&mut asking).unwrap();
    assert_eq!(&asking, b"r");
    let offer = format!("{{\"version\":\"0\",\"pid\":1,\"shards\":1,\"revoked\":{}}}\n{before}", !before.is_empty());
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [listener.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)));
    sendmsg(&successor, &[IoSlice::new(offer.as_bytes())], &mut control, SendFlags::NOSIGNAL).unwrap();
    let mut ready = [0; 6];
    successor.read_exact(&mut ready).unwrap();
    successor.write_all(format!("yours\n{after}").as_bytes()).unwrap();
}

#[tokio::test]
async fn a_successor_heeds_both_and_does_without_either() {
    let users = |users: &str| format!("{{\"users\":[{users}],\"longest_lifetime_s\":90000}}\n");
    let now_s = now_s();
    let both = (users(&format!("[\"7\",{now_s}]")), users(&format!("[\"7\",{now_s}],[\"8\",{now_s}]")));
    for ((before, after), expected) in [(both, 401), ((String::new(), String::new()), 200)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let waits = UnixListener::bind_addr(&meeting(server)).unwrap();
        let predecessor = std::thread::spawn(move || hand_over(&waits, &listener, &before, &after));
        let arguments = ["--listen", &server.to_string(), "--take-over", "--shards", "1"];
        let guarded = Guarded::with("", &tables(), &arguments);
        predecessor.join().expect("everything was said");
        assert_eq!((status(server, "7").await, status(server, "8").await), (expected, expected));
        assert_eq!(status(guarded.address(), "9").await, 200);
    }
}

/// Of three brokers in a row the first two drain for long, and the last one revokes: whose token is refused now is closed on both.
#[tokio::test]
async fn who_is_revoked_at_a_successor_is_closed_where_it_still_is() {
    let guarded = Guarded::with("", &tables(), &["--drain-window", "60s"]);
    let config = guarded.folder.path().join("ringyard.toml").to_str().unwrap().to_owned();
    let (server, more) = (guarded.address(), ["--take-over", "--drain-window", "60s", "--config", &config]);
    let old = |user| token(user, 600, json!({"iat": now_s() - 100}));
    let mut clients = Vec::new();
    let mut brokers = vec![guarded.broker];
    for _ in 0..2 {
        // Many stay, so that few of them have to leave while this looks.
        for user in ["7", "8"] {
            for _ in 0..40 {
                let mut client = connected(server, &old(user)).await;
                client.subscribe(&["chat/7"]).await;
                clients.push((user, client));
            }
        }
        brokers.push(start(&succeeding(brokers.last().unwrap(), &more)));
    }
    let begin = Instant::now();
    revoke(brokers[2].admin, "7").await;
    let (mut revoked, mut left) = (0, 0);
    for (user, client) in &mut clients {
        if *user == "7" {
            match client.close_code().await {
                4403 => revoked += 1,
                code => assert_eq!(code, 1001),
            }
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for (user, client) in &mut clients {
        if *user == "8" {
            let heard = tokio::time::timeout(Duration::from_millis(1), client.stream.next());
            left += u32::from(heard.await.is_err());
        }
    }
    assert!(revoked > 60 && left > 60, "{revoked} were closed, {left} stay");
    // And who was revoked cannot come back.
    assert_eq!(status(server, "7").await, 401);
}
