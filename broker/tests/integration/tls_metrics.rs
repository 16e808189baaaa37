//! What `/metrics` says of TLS. All counts differ, so that none can stand for another.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::tls::{Served, ask_on, client_config, connect_to, serve, socket_to, trusting, until, write_pair};

const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn speaking(served: &Served, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    Arc::new(client_config(served.root.clone(), &[version], aws_lc_rs::default_provider()))
}

#[test]
fn handshakes_are_counted_by_version_and_by_resumption() {
    let served = serve(&[]);
    // Clients that come for the first time, and how often each comes again with a ticket.
    for (version, clients, again) in [(&TLS12, 1, 2), (&TLS13, 2, 2)] {
        for _ in 0..clients {
            let config = speaking(&served, version);
            for _ in 0..=again {
                let answer = ask_on(&mut connect_to(served.address, &config), REQUEST);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
    }
    let full_again = speaking(&served, &TLS13);
    ask_on(&mut connect_to(served.address, &full_again), REQUEST);
    for (version, resumed, count) in [("1.2", false, 1.0), ("1.2", true, 2.0), ("1.3", false, 3.0), ("1.3", true, 4.0)]
    {
        let sample = format!("ringyard_tls_handshakes_total{{version=\"{version}\",resumed=\"{resumed}\"}}");
        assert_eq!(served.metric(&sample), Some(count), "{sample}");
    }
}

#[test]
fn failures_are_counted_by_cause() {
    let served = serve(&["--tls-min", "1.3"]);
    let other = tempfile::tempdir().unwrap();
    let suspicious = trusting(write_pair(other.path(), "other"));
    let old = speaking(&served, &TLS12);
    let shake_hands = |config: &Arc<ClientConfig>| {
        let mut stream = connect_to(served.address, config);
        stream.conn.complete_io(&mut stream.sock).expect_err("no handshake");
    };
    let send = |bytes: &[u8]| {
        let mut socket = socket_to(served.address);
        socket.write_all(bytes).unwrap();
        // Until the broker has ended it; a reset says the same.
        let _ = socket.read_to_end(&mut Vec::new());
    };
    // It speaks no TLS.
    send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // It does not trust the certificate, and says so by an alert.
    (0..2).for_each(|_| shake_hands(&suspicious));
    (0..3).for_each(|_| shake_hands(&old));
    // A handshake record without a handshake.
    (0..4).for_each(|_| send(&[22, 3, 1, 0, 5, 9, 9, 9, 9, 9]));
    for (cause, count) in [("cleartext", 1.0), ("alert", 2.0), ("incompatible", 3.0), ("violation", 4.0)] {
        let sample = format!("ringyard_tls_failures_total{{cause=\"{cause}\"}}");
        until(&sample, || served.metric(&sample) == Some(count));
    }
    // Cleartext is answered like any bad request.
    let closed = "ringyard_closed_total{reason=\"tls\"}";
    until(closed, || served.metric(closed) == Some(9.0));
}
