//! Limits that hold for the port with TLS as well: connections of one address while their handshakes are unfinished, and
//! renegotiation.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::spawn;

use tokio_tungstenite::tungstenite::{Message, client};

use crate::doors::proxy_header;
use crate::http::PATIENCE;
use crate::tls::{Served, connect_to, serve, serve_with, socket_to, trusting, until};

const CLIENT: [u8; 4] = [203, 0, 113, 7];

/// A connection of `client`, as a proxy on this machine says, and the first byte of a handshake.
fn unfinished(served: &Served, client: [u8; 4]) -> TcpStream {
    let mut socket = socket_to(served.address);
    socket.write_all(&proxy_header(0x21, client, b"")).unwrap();
    socket.write_all(&[22]).unwrap();
    socket
}

/// Whether a connection of `client` gets an answer to a request.
fn is_served(served: &Served, client: [u8; 4]) -> bool {
    let mut stream = connect_to(served.address, &trusting(served.root.clone()));
    stream.sock.write_all(&proxy_header(0x21, client, b"")).unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let asked = stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer));
    asked.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

#[test]
fn unfinished_handshakes_count_for_their_address() {
    let options = ["--proxy-protocol", "--trusted-proxy", "127.0.0.0/8", "--max-connections-per-address", "2"];
    let served = serve_with(&[&options[..], &["--handshake-timeout", "10m"]].concat(), "", "");
    // One that comes while an answered one is still there is refused itself: then another takes its place.
    let mut held = Vec::new();
    until("unfinished ones take all places", || {
        held.push(unfinished(&served, CLIENT));
        !is_served(&served, CLIENT)
    });
    assert!(held.len() >= 2, "the first one took both places");
    assert!(served.metric("ringyard_refused_total{reason=\"address\"}") > Some(0.0));
    assert!(is_served(&served, [203, 0, 113, 8]), "others are not held up");
    drop(held);
    until("who goes makes room", || is_served(&served, CLIENT));
}

/// Places of `--max-connections` are for clients that the broker has let in: one that only begins handshakes keeps nobody out.
#[test]
fn unfinished_handshakes_keep_nobody_out() {
    let served = serve(&["--max-connections", "1", "--handshake-timeout", "10m"]);
    let begin = || {
        let mut socket = socket_to(served.address);
        socket.write_all(&[22]).unwrap();
        socket
    };
    let _unfinished: Vec<_> = (0..8).map(|_| begin()).collect();
    let mut only = served.open("/bus/a");
    only.send(Message::text("served")).unwrap();
    assert_eq!(only.read().unwrap(), Message::text("served"));
    client("wss://localhost/bus/a", served.connect()).expect_err("there is one place");
    assert_eq!(served.metric("ringyard_refused_total{reason=\"connections\"}"), Some(1.0));
}

/// RFC 5746 does not ask servers for it; `openssl s_client` asks when it reads a line "R".
#[test]
fn a_client_that_asks_for_renegotiation_does_not_get_it_and_others_go_on() {
    let served = serve(&[]);
    let mut other = served.open("/bus/a");
    let mut child = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &served.address.to_string(), "-CAfile"])
        .arg(served.directory.path().join("a.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut errors = child.stderr.take().unwrap();
    let (said, hears) = mpsc::channel();
    spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
    let complaint = spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    // It is served as any client, until it asks.
    input.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let wait_for = |wanted: &str| while !hears.recv_timeout(PATIENCE).expect(wanted).contains(wanted) {};
    wait_for("HTTP/1.1 200");
    input.write_all(b"R\n").unwrap();
    until("it is ended", || child.try_wait().unwrap().is_some());
    let complaint = complaint.join().unwrap();
    assert!(complaint.contains("no renegotiation"), "{complaint}");
    other.send(Message::text("as before")).unwrap();
    assert_eq!(other.read().unwrap(), Message::text("as before"));
}
