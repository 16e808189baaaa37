//! The port of `--tls-listen` lets in whom the public one lets in: `policy`'s table over TLS.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::access::{Guarded, KEY};
use crate::policy::{PUBLIC, WHO, bytes, credentials, tables};
use crate::tls::{Tls, connect_to, free_address, trusting, write_pair};

/// What a request is answered with.
fn status(stream: &mut Tls, request: &[u8]) -> u16 {
    stream.write_all(request).unwrap();
    let mut line = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut line).unwrap();
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

/// A connection that the control plane has.
fn used(server: SocketAddr, config: &Arc<ClientConfig>) -> Tls {
    let mut stream = connect_to(server, config);
    assert_eq!(status(&mut stream, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"), 200);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    stream
}

#[test]
fn every_endpoint_is_over_tls_as_the_table_says() {
    let certificates = tempfile::tempdir().unwrap();
    let config = trusting(write_pair(certificates.path(), "a"));
    let path = |name: &str| certificates.path().join(name).display().to_string();
    let (cert, key) = (path("a.pem"), path("a.key"));
    let tables = format!("{}[[tls]]\ncert = '{cert}'\nkey = '{key}'\nnames = ['localhost']\n", tables());
    let server = free_address();
    let _guarded = Guarded::with("", &tables, &["--tls-listen", &server.to_string()]);
    for (what, expected) in PUBLIC {
        // So that there is such a topic.
        assert_eq!(status(&mut connect_to(server, &config), &bytes("POST /pub/chat/7", Some(KEY))), 200);
        for ((who, credential), expected) in WHO.iter().zip(credentials()).zip(expected) {
            let request = bytes(what, credential.as_deref());
            assert_eq!(status(&mut connect_to(server, &config), &request), *expected, "{what} as {who}");
            let again = status(&mut used(server, &config), &request);
            assert_eq!(again, *expected, "{what} as {who} after another request");
        }
    }
}
