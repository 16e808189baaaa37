//! What the settings of TLS mean to clients: versions, key exchange, `--tls-only`.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, Error, NamedGroup, ProtocolVersion, SupportedProtocolVersion};
use tokio_tungstenite::tungstenite::{Message, client};

use crate::doors::own_ip;
use crate::tls::{
    Served, Tls, client_config, connect_to, free_address, open_on, serve, serve_at, serve_with, socket_to,
};

const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A handshake with a client of these versions: the version, or the cause for which there is none.
fn version(served: &Served, versions: &[&'static SupportedProtocolVersion]) -> Result<ProtocolVersion, Error> {
    let config = client_config(served.root.clone(), versions, aws_lc_rs::default_provider());
    shake_hands(served, &Arc::new(config)).map(|stream| stream.conn.protocol_version().expect("a version"))
}

/// Whether the answer to a request comes encrypted.
fn shake_hands(served: &Served, config: &Arc<ClientConfig>) -> Result<Tls, Error> {
    let mut stream = connect_to(served.address, config);
    match stream.conn.complete_io(&mut stream.sock) {
        Ok(_) => {
            let answer = crate::tls::ask_on(&mut stream, REQUEST);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            Ok(stream)
        }
        Err(error) => Err(error.downcast::<Error>().expect("a cause that TLS has")),
    }
}

/// By flag and by file. The default leaves nobody out.
#[test]
fn the_least_version_is_that_of_the_setting() {
    let old_is_served = [serve(&[]), serve(&["--tls-min", "1.2"]), serve_with(&[], "tls-min = '1.2'\n", "")];
    for served in &old_is_served {
        assert_eq!(version(served, &[&TLS12]), Ok(ProtocolVersion::TLSv1_2));
        assert_eq!(version(served, &[&TLS12, &TLS13]), Ok(ProtocolVersion::TLSv1_3));
    }
    for served in [serve(&["--tls-min", "1.3"]), serve_with(&[], "tls-min = '1.3'\n", "")] {
        assert_eq!(version(&served, &[&TLS12]), Err(Error::AlertReceived(AlertDescription::ProtocolVersion)));
        assert_eq!(version(&served, &[&TLS12, &TLS13]), Ok(ProtocolVersion::TLSv1_3));
    }
}

/// The group that a client gets which offers both, each with a share, as browsers do.
fn group(served: &Served) -> NamedGroup {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    let config = client_config(served.root.clone(), &[&TLS13], provider);
    let stream = shake_hands(served, &Arc::new(config)).expect("a handshake");
    stream.conn.negotiated_key_exchange_group().expect("a group").name()
}

#[test]
fn the_key_exchange_is_that_of_the_setting() {
    let hybrid = [serve(&["--tls-key-exchange", "hybrid"]), serve_with(&[], "tls-key-exchange = 'hybrid'\n", "")];
    for served in &hybrid {
        assert_eq!(group(served), NamedGroup::X25519MLKEM768);
    }
    let classic = [serve(&["--tls-key-exchange", "classic"]), serve_with(&[], "tls-key-exchange = 'classic'\n", "")];
    for served in &classic {
        assert_eq!(group(served), NamedGroup::X25519);
    }
}

/// RFC 7301 §3.2: a server that has none of a client's protocols says so.
#[test]
fn http_1_1_is_the_one_protocol_inside() {
    let served = serve(&[]);
    let offering = |protocols: &[&[u8]]| {
        let mut config = client_config(served.root.clone(), rustls::ALL_VERSIONS, aws_lc_rs::default_provider());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        shake_hands(&served, &Arc::new(config)).map(|stream| stream.conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(offering(&[b"h2", b"http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(offering(&[]), Ok(None));
    assert_eq!(offering(&[b"h2"]), Err(Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
    let refused = served.metric("ringyard_tls_failures_total{cause=\"incompatible\"}");
    assert_eq!(refused, Some(1.0));
}

/// The plain port is there for this machine alone, whatever address was asked for; the one with TLS is there for all.
#[test]
fn with_tls_only_other_machines_reach_the_port_with_tls_alone() {
    let Some(own) = own_ip() else { return };
    let address = SocketAddr::new(own, free_address().port());
    let options = ["--allow-anonymous", "--listen", "0.0.0.0:0", "--allow-host", "*"];
    let served = serve_at(address, &[&options[..], &["--tls-only"]].concat(), "", "");
    let plain = SocketAddr::new(own, served.broker.address.port());
    let refused = TcpStream::connect(plain).expect_err("the plain port is closed to others").kind();
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    let mut secure = served.open("/bus/a");
    secure.send(Message::text("from beyond")).unwrap();
    assert_eq!(secure.read().unwrap(), Message::text("from beyond"));
    let near = served.broker.address;
    assert!(near.ip().is_loopback(), "{near}");
    client(format!("ws://{near}/bus/a"), socket_to(near)).expect("this machine needs no TLS");
    drop(served);

    // Without it the same settings have the plain port open to all.
    let served = serve_at(SocketAddr::new(own, free_address().port()), &options, "", "");
    let plain = SocketAddr::new(own, served.broker.address.port());
    client(format!("ws://{plain}/bus/a"), socket_to(plain)).expect("nobody has closed it");
    open_on(served.connect(), "/bus/a");
}
