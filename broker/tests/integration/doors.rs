//! Who may come in: the host a request is addressed to, how many connections one address has, and what trusted
//! proxies say. The clients are on loopback, which is exempt by itself; so proxies speak for others.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;

use crate::broker::Broker;
use crate::http::{Http, PATIENCE, await_stat, post, stat};
use crate::ws::{Ws, try_open};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

fn upgrade(host: &str, path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{KEY}{more}\r\n")
}

/// The status of one request on a connection of its own.
async fn status(server: SocketAddr, request: impl AsRef<[u8]>) -> u16 {
    Http::open(server).await.send(request).await.answer().await.status
}

// ---- hosts

#[tokio::test]
async fn a_request_to_another_host_is_misdirected() {
    let broker = Broker::start(&["--allow-host", "broker.example", "--allow-host", "other.example:8443"]);
    let port = broker.address.port();
    let cases = [
        (true, format!("127.0.0.1:{port}")),
        (true, "127.0.0.1".to_owned()),
        (true, format!("[::1]:{port}")),
        (true, "localhost".to_owned()),
        (true, format!("app.localhost:{port}")),
        (true, format!("Broker.Example:{port}")),
        (true, "other.example:8443".to_owned()),
        (false, "other.example:8080".to_owned()),
        (false, format!("rebound.example:{port}")),
        (false, "127.0.0.1.rebound.example".to_owned()),
    ];
    for (ours, host) in cases {
        let refused = if ours { None } else { Some(421) };
        let handshake = status(broker.address, upgrade(&host, "/sub/a", "")).await;
        assert_eq!(handshake, refused.unwrap_or(101), "{host}");
        let plain = status(broker.address, format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(plain, refused.unwrap_or(200), "{host}");
        let publish = format!("POST /pub/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(status(broker.address, publish).await, refused.unwrap_or(200), "{host}");
        let operators = status(broker.admin, format!("GET /api/stats HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(operators, refused.unwrap_or(200), "{host}");
    }
}

#[tokio::test]
async fn the_refusal_names_the_option() {
    let broker = Broker::start(&[]);
    let mut handshake = Http::open(broker.address).await;
    let answer = handshake.send(upgrade("rebound.example", "/ws", "")).await.answer().await;
    // Whatever else is wrong with it.
    assert_eq!(answer.status, 400);
    for request in [upgrade("rebound.example", "/sub/a", ""), "GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n".into()]
    {
        let mut http = Http::open(broker.address).await;
        let answer = http.send(request).await.answer().await;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 421);
        assert!(body.contains("rebound.example") && body.contains("--allow-host"), "{body}");
    }
    await_stat(&broker, "refused_host", |refused| refused == 2).await;
}

#[tokio::test]
async fn no_host_and_two_hosts_are_no_request() {
    let broker = Broker::start(&[]);
    for fields in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: lo cal\r\n"] {
        assert_eq!(status(broker.address, format!("GET / HTTP/1.1\r\n{fields}\r\n")).await, 400, "{fields}");
    }
    assert_eq!(status(broker.address, "GET /healthz HTTP/1.0\r\n\r\n").await, 200);
}

#[tokio::test]
async fn every_host_is_ours_if_that_is_what_is_asked_for() {
    let broker = Broker::start(&["--allow-host", "*"]);
    assert_eq!(status(broker.address, upgrade("whatever.example", "/sub/a", "")).await, 101);
}

// ---- connections per address

const BEHIND_A_PROXY: [&str; 4] = ["--trusted-proxy", "127.0.0.0/8", "--max-connections-per-address", "2"];

async fn open_for(server: SocketAddr, client: &str) -> Result<Ws, u16> {
    match try_open(server, "/bus/a", &[("x-forwarded-for", client)]).await {
        Ok(client) => Ok(client),
        Err(Error::Http(response)) => {
            let says_when = response.headers().contains_key("retry-after");
            assert_eq!(says_when, response.status() == 429, "{client}: {response:?}");
            Err(response.status().as_u16())
        }
        Err(other) => panic!("{client}: {other}"),
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_room_for_others_is_left() {
    let broker = Broker::start(&BEHIND_A_PROXY);
    let server = broker.address;
    let first = open_for(server, "203.0.113.7").await.unwrap();
    let _second = open_for(server, "9.9.9.9, 203.0.113.7:1234, 127.0.0.9").await.unwrap();
    assert_eq!(open_for(server, "203.0.113.7").await.err(), Some(429));
    assert_eq!(open_for(server, "::ffff:203.0.113.7").await.err(), Some(429));
    let _other = open_for(server, "203.0.113.8").await.unwrap();
    assert_eq!(stat(&broker, "refused_address").await, 2);
    // Who goes makes room for the next.
    drop(first);
    let mut next = open_for(server, "203.0.113.7").await;
    for _ in 0..100 {
        if next.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        next = open_for(server, "203.0.113.7").await;
    }
    let mut next = next.expect("there is room again");
    next.send("hello").await;
    assert_eq!(next.text().await, "hello");
}

#[tokio::test]
async fn a_network_of_ipv6_is_one_client() {
    let broker = Broker::start(&BEHIND_A_PROXY);
    let server = broker.address;
    let _first = open_for(server, "2001:db8:0:1::1").await.unwrap();
    let _second = open_for(server, "[2001:db8:0:1::2]:5000").await.unwrap();
    assert_eq!(open_for(server, "2001:db8:0:1:ffff::3").await.err(), Some(429));
    let _other = open_for(server, "2001:db8:0:2::1").await.unwrap();
}

/// A proxy's own connections, those of loopback, and whoever comes without a proxy's word.
#[tokio::test]
async fn who_is_not_counted_is_not_refused() {
    let broker = Broker::start(&BEHIND_A_PROXY);
    let mut clients = Vec::new();
    for client in ["", "127.0.0.1", "unknown", "203.0.113.7, unknown", "127.0.0.3, 127.0.0.4"] {
        for _ in 0..4 {
            clients.push(open_for(broker.address, client).await.unwrap_or_else(|status| panic!("{client}: {status}")));
        }
    }
    assert_eq!(stat(&broker, "refused_address").await, 0);
}

/// Nobody is believed who is not named.
#[tokio::test]
async fn without_a_trusted_proxy_nobody_speaks_for_others() {
    let broker = Broker::start(&["--max-connections-per-address", "1"]);
    let _first = open_for(broker.address, "203.0.113.7").await.unwrap();
    let _second = open_for(broker.address, "203.0.113.7").await.unwrap();
}

/// An address of this machine that is not loopback, if it has one.
pub(crate) fn own_ip() -> Option<IpAddr> {
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let ip = route.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback());
    if ip.is_none() {
        println!("this machine has no address but loopback");
    }
    ip
}

/// Without any proxy, where the machine has an address that is not loopback: the kernel tells it, to every shard.
#[tokio::test]
async fn an_address_of_its_own_counts_over_all_shards() {
    let Some(ip) = own_ip() else { return };
    let arguments =
        ["--listen", "0.0.0.0:0", "--allow-anonymous", "--max-connections-per-address", "3", "--shards", "4"];
    let broker = Broker::start(&arguments);
    let server = SocketAddr::new(ip, broker.address.port());
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(try_open(server, "/sub/a", &[]).await.expect("there is room"));
    }
    for _ in 0..8 {
        assert!(matches!(try_open(server, "/sub/a", &[]).await, Err(Error::Http(answer)) if answer.status() == 429));
    }
    assert_eq!(stat(&broker, "refused_address").await, 8);
    let _exempt = try_open(broker.address, "/sub/a", &[]).await.expect("loopback is exempt");
    drop(open);
    await_stat(&broker, "connections", |open| open == 1).await;
    let _again = try_open(server, "/sub/a", &[]).await.expect("there is room again");
}

/// An upgrade on a connection that a proxy used for requests of others before.
#[tokio::test]
async fn an_upgrade_on_a_reused_connection_counts_as_its_client() {
    let broker = Broker::start(&BEHIND_A_PROXY);
    let server = broker.address;
    let mut open = Vec::new();
    for expected in [101, 101, 429] {
        let mut http = Http::open(server).await;
        http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n").await;
        assert_eq!(http.answer().await.status, 200);
        let more = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 203.0.113.7\r\n";
        http.send(upgrade("localhost", "/sub/a", more)).await;
        assert_eq!(http.answer().await.status, expected);
        open.push(http);
    }
    // The same client by the shorter way.
    assert_eq!(open_for(server, "203.0.113.7").await.err(), Some(429));
    drop(open);
    await_stat(&broker, "connections", |open| open == 0).await;
    let _again = open_for(server, "203.0.113.7").await.expect("all counts are back");
}

// ---- the PROXY protocol

const PROXY_PROTOCOL: [&str; 5] =
    ["--proxy-protocol", "--trusted-proxy", "127.0.0.0/8", "--max-connections-per-address", "1"];

pub(crate) fn proxy_header(command: u8, client: [u8; 4], extension: &[u8]) -> Vec<u8> {
    let body = [&client[..], &[127, 0, 0, 1, 0x9c, 0x41, 0x1f, 0x90], extension].concat();
    let len = (body.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &len, &body].concat()
}

async fn proxied(server: SocketAddr, client: [u8; 4]) -> (Http, u16) {
    let mut http = Http::open(server).await;
    let head = upgrade("localhost", "/sub/a", "");
    http.send([proxy_header(0x21, client, b""), head.into_bytes()].concat()).await;
    let status = http.answer().await.status;
    (http, status)
}

/// A proxy on this machine speaks for clients of other machines, who are no operators of this one.
#[tokio::test]
async fn who_comes_through_a_proxy_is_no_operator_of_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    std::fs::write(&file, crate::access::key_table("api = ['topics']")).unwrap();
    let config = ["--config", file.to_str().unwrap(), "--admin-listen", "public"];
    let request = "GET /api/topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let broker = Broker::start(&config);
    assert_eq!(status(broker.address, request.to_owned()).await, 200, "an operator of this machine");
    let broker = Broker::start(&[&config[..], &PROXY_PROTOCOL].concat());
    for client in [[203, 0, 113, 7], [127, 0, 0, 1]] {
        let mut http = Http::open(broker.address).await;
        http.send([&proxy_header(0x21, client, b""), request.as_bytes()].concat()).await;
        assert_eq!(http.answer().await.status, 401, "{client:?}");
    }
}

#[tokio::test]
async fn a_proxy_header_says_who_the_client_is() {
    let broker = Broker::start(&PROXY_PROTOCOL);
    let server = broker.address;
    let (first, status) = proxied(server, [203, 0, 113, 7]).await;
    assert_eq!(status, 101);
    let (mut refused, status) = proxied(server, [203, 0, 113, 7]).await;
    assert_eq!(status, 429);
    assert!(refused.ended().await);
    drop(refused);
    let (_other, status) = proxied(server, [203, 0, 113, 8]).await;
    assert_eq!(status, 101);
    assert_eq!(stat(&broker, "refused_address").await, 1);
    // An HTTP connection counts as well, for as long as it is open.
    drop(first);
    await_stat(&broker, "connections", |open| open == 1).await;
    let mut http = Http::open(server).await;
    http.send(proxy_header(0x21, [203, 0, 113, 7], b"")).await;
    http.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(http.answer().await.status, 200);
    let (_, status) = proxied(server, [203, 0, 113, 7]).await;
    assert_eq!(status, 429);
    // And goes on counting when it becomes a WebSocket.
    http.send(upgrade("localhost", "/sub/a", "")).await;
    assert_eq!(http.answer().await.status, 101);
    let (_, status) = proxied(server, [203, 0, 113, 7]).await;
    assert_eq!(status, 429);
    drop(http);
    await_stat(&broker, "connections", |open| open == 1).await;
    let (_again, status) = proxied(server, [203, 0, 113, 7]).await;
    assert_eq!(status, 101);
}

#[tokio::test]
async fn a_proxy_header_arrives_in_any_pieces() {
    let broker = Broker::start(&PROXY_PROTOCOL);
    for request in [upgrade("localhost", "/sub/a", ""), "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".into()] {
        let expected = if request.starts_with("GET /sub") { 101 } else { 200 };
        let bytes = [proxy_header(0x21, [203, 0, 113, 9], &[0xee; 300]), request.into_bytes()].concat();
        let mut http = Http::open(broker.address).await;
        http.stream.set_nodelay(true).unwrap();
        for byte in bytes {
            http.send([byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(http.answer().await.status, expected);
        drop(http);
        await_stat(&broker, "connections", |open| open == 0).await;
    }
}

#[tokio::test]
async fn a_proxy_speaks_for_itself() {
    let broker = Broker::start(&PROXY_PROTOCOL);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut http = Http::open(broker.address).await;
        let local = [b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", upgrade("localhost", "/sub/a", "").as_bytes()].concat();
        http.send(local).await;
        assert_eq!(http.answer().await.status, 101);
        open.push(http);
    }
}

/// QUIC's clients, of whom the proxy knows the address, and those of a socket of its own machine, of whom it does not.
#[tokio::test]
async fn a_proxy_header_of_every_family_lets_the_request_in() {
    let broker = Broker::start(&PROXY_PROTOCOL);
    let begin = |family: u8, body: &[u8]| {
        [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &(body.len() as u16).to_be_bytes(), body].concat()
    };
    for header in [begin(0x12, &[1; 12]), begin(0x22, &[2; 36]), begin(0x31, &[b'/'; 216]), begin(0x00, &[3; 70])] {
        let mut http = Http::open(broker.address).await;
        http.send([&header[..], b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat()).await;
        assert_eq!(http.answer().await.status, 200, "{}", header.escape_ascii());
    }
}

/// Without an answer: what a proxy says by mistake is not for its clients to read.
#[tokio::test]
async fn a_broken_or_missing_proxy_header_ends_the_connection() {
    let broker = Broker::start(&PROXY_PROTOCOL);
    let mut broken = proxy_header(0x21, [203, 0, 113, 7], b"");
    // A transport that version 2 does not have.
    broken[13] = 0x13;
    let cases: [&[u8]; 3] = [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 40001 8080\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &broken,
    ];
    for bytes in cases {
        let mut http = Http::open(broker.address).await;
        http.send(bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, http.stream.read_to_end(&mut answer)).await.expect("closed in time");
        assert_eq!(answer, b"", "{}", bytes.escape_ascii());
    }
    await_stat(&broker, "dropped_proxy_header", |dropped| dropped == 3).await;
}

/// From whom it is not taken it is no beginning of a request.
#[tokio::test]
async fn a_proxy_header_of_a_stranger_is_refused() {
    for arguments in [&["--proxy-protocol", "--trusted-proxy", "192.0.2.0/24"][..], &[]] {
        let broker = Broker::start(arguments);
        let mut http = Http::open(broker.address).await;
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        http.send([&proxy_header(0x21, [203, 0, 113, 7], b"")[..], request].concat()).await;
        assert_eq!(http.answer().await.status, 400);
        assert!(http.ended().await);
        assert_eq!(post(broker.address, "a", b"others are served").await, 1);
    }
}
