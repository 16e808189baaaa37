//! Requests in all cuts and at all times.

use std::time::Duration;

use proptest::prelude::*;

use crate::access::address::AddressLease;
use crate::capacity::budget::{Budget, Held};
use crate::http::request_heads::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nGET\n";
const CHUNKED: &str = "POST /pub/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
    2\r\n\n\n\r\n0\r\n\r\n";
const BARE: &str = "GET / HTTP/1.1\r\nHost: localhost\n\r\n";

fn heads(early: &str) -> (Heads<DuplexStream>, DuplexStream) {
    let (socket, peer) = duplex(1 << 16);
    let limits = Arc::new(Limits::default());
    let connection = Arc::new(Connection::new(AddressLease::default(), || None, &limits));
    let budget = Budget::new(1, 1 << 20);
    let mut read = Buffer::new(budget.of_plane(), Held::Http);
    read.extend(early.as_bytes());
    (Heads::new(socket, read, limits, connection), peer)
}

/// The status of a refusal that ended the requests.
fn refused(heads: Heads<DuplexStream>) -> Option<u16> {
    match heads.into_parts() {
        (_, _, Some(Ended::Refused(answer))) => Some(answer.status),
        (_, _, None) => None,
        other => panic!("{other:?}"),
    }
}

async fn all(heads: &mut Heads<DuplexStream>) -> String {
    let mut read = String::new();
    heads.read_to_string(&mut read).await.unwrap();
    read
}

/// However the bytes are cut, requests that are right pass as they are, and the first that is wrong ends all.
#[tokio::test]
async fn every_head_is_judged_wherever_the_bytes_are_cut() {
    let right = [GET, POST, CHUNKED, GET].concat();
    let sent = [&right, BARE, GET].concat();
    for cut in 0..sent.len() {
        let (early, later) = sent.split_at(cut);
        let (mut heads, mut peer) = heads(early);
        peer.write_all(later.as_bytes()).await.unwrap();
        drop(peer);
        assert_eq!(all(&mut heads).await, right, "cut at {cut}");
        assert_eq!(refused(heads), Some(400), "cut at {cut}");
    }
}

#[tokio::test]
async fn byte_by_byte_into_any_buffer() {
    let sent = [GET, POST, CHUNKED].concat();
    for buffer in [1, 3, 7, 4096] {
        let (mut heads, mut peer) = heads("");
        let writer = async {
            for byte in sent.bytes() {
                peer.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(peer);
        };
        let reader = async {
            let (mut read, mut some) = (Vec::new(), vec![0; buffer]);
            loop {
                let n = heads.read(&mut some).await.unwrap();
                if n == 0 {
                    return read;
                }
                read.extend_from_slice(&some[..n]);
            }
        };
        let (read, ()) = tokio::join!(reader, writer);
        assert_eq!(String::from_utf8(read).unwrap(), sent);
    }
}

/// Wherever the bytes are cut: requests before a handshake pass, its head does not, and what is behind it is kept.
#[tokio::test]
async fn a_handshake_ends_the_requests() {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: ringyard.v1\r\n\r\n";
    let frames = "\u{1}\n\n frames";
    let sent = [GET, POST, upgrade, frames].concat();
    for cut in 0..sent.len() {
        let (early, later) = sent.split_at(cut);
        let (mut heads, mut peer) = heads(early);
        peer.write_all(later.as_bytes()).await.unwrap();
        assert_eq!(all(&mut heads).await, [GET, POST].concat(), "cut at {cut}");
        let (mut socket, mut rest, ended) = heads.into_parts();
        drop(peer);
        let mut unread = Vec::new();
        socket.read_to_end(&mut unread).await.unwrap();
        rest.extend_from_slice(&unread);
        assert_eq!(rest, frames, "cut at {cut}");
        let Some(Ended::Handshake(handshake)) = ended else { panic!("{ended:?}") };
        assert_eq!(handshake.upgrade.purpose, crate::shard::handover::Purpose::V1Session);
        assert_eq!((handshake.host.as_deref(), handshake.origin.as_deref()), (Some("a"), Some("http://a")));
        let response = String::from_utf8(handshake.upgrade.response()).unwrap();
        for field in ["Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Protocol: ringyard.v1"] {
            assert!(response.contains(&format!("\r\nSec-WebSocket-{field}\r\n")), "{response}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_not_chunked_is_an_error() {
    let (mut heads, mut peer) = heads(&CHUNKED[..CHUNKED.len() - 5]);
    peer.write_all(b"1\nx").await.unwrap();
    let mut read = Vec::new();
    assert_eq!(heads.read_to_end(&mut read).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn idle_time_and_head_time_are_different() {
    let limits = Limits::default();
    let started = Instant::now();
    let (mut idle, _peer) = heads(GET);
    assert_eq!(all(&mut idle).await, GET);
    assert_eq!(started.elapsed(), limits.http_idle_timeout);
    assert_eq!(refused(idle), None, "an idle connection just ends");
    // A byte just before its end keeps it, for as long as a head may take.
    let (mut late_one, mut peer) = heads(GET);
    let started = Instant::now();
    let late = async {
        tokio::time::sleep(limits.http_idle_timeout - Duration::from_millis(1)).await;
        peer.write_all(b"G").await.unwrap();
    };
    let (read, ()) = tokio::join!(all(&mut late_one), late);
    assert_eq!(read, GET);
    assert_eq!(refused(late_one), Some(408));
    let whole = limits.http_idle_timeout + limits.handshake_timeout;
    assert!(whole - started.elapsed() <= Duration::from_millis(2), "{:?}", started.elapsed());
    // The first head of a connection has no idle time before it.
    let (mut first, _peer) = heads("");
    let started = Instant::now();
    all(&mut first).await;
    assert_eq!(started.elapsed(), limits.handshake_timeout);
    assert_eq!(refused(first), Some(408));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// The HTTP library takes every head that passes, and sees the same path: it never answers with an error of
    /// its own, which would lack what browsers need.
    #[test]
    fn what_passes_is_understood(target in "[!-~\u{80}-\u{ff}]{0,12}", form in 0..3usize, host in "[!-~]{0,8}") {
        let target = ["", "/", "http://a"][form].to_owned() + &target;
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        if let Ok(Head::Http(_)) = head::parse(&bytes, &HeadLimits::default()) {
            let uri = axum::http::Uri::try_from(&*target);
            prop_assert!(uri.is_ok(), "{target}: {uri:?}");
            let path = uri.unwrap().path().to_owned();
            prop_assert!(target.contains(&path) || path == "/", "{target}: {path}");
        }
    }
}
