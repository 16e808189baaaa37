//! TLS in front of a small broker, with rustls's server.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::ServerConnection;
use rustls::{ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{File, PATIENCE};

/// Where it listens, and the certificate of `localhost` and 127.0.0.1, which is its own authority.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) ca: File,
}

/// Starts it on a thread of its own.
pub(crate) fn front(broker: SocketAddr, versions: &[&'static SupportedProtocolVersion]) -> Front {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let ca = File::with("pem", &made.cert.pem());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    let config = Arc::new(config);
    let (report, reported) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            report.send(listener.local_addr().unwrap()).unwrap();
            loop {
                if let Ok((outer, _)) = listener.accept().await {
                    let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                    tokio::spawn(bridge(outer, connection, broker));
                }
            }
        });
    });
    Front { address: reported.recv_timeout(PATIENCE).unwrap(), ca }
}

/// Moves bytes between a client and the broker until one of them ends.
async fn bridge(mut outer: TcpStream, mut tls: ServerConnection, broker: SocketAddr) {
    let Ok(mut inner) = TcpStream::connect(broker).await else { return };
    let (mut from_client, mut from_broker) = (vec![0; 4096], vec![0; 4096]);
    loop {
        tokio::select! {
            read = outer.read(&mut from_client) => {
                let Ok(len @ 1..) = read else { return };
                let mut rest = &from_client[..len];
                let mut plain = Vec::new();
                while !rest.is_empty() {
                    if tls.read_tls(&mut rest).is_err() || tls.process_new_packets().is_err() {
                        rest = &[];
                    }
                    while let Ok(chunk) = tls.reader().fill_buf().map(<[u8]>::to_vec) {
                        if chunk.is_empty() {
                            break;
                        }
                        tls.reader().consume(chunk.len());
                        plain.extend(chunk);
                    }
                }
                if inner.write_all(&plain).await.is_err() {
                    return;
                }
            }
            read = inner.read(&mut from_broker) => {
                match read {
                    Ok(len @ 1..) => tls.writer().write_all(&from_broker[..len]).unwrap(),
                    _ => tls.send_close_notify(),
                }
                if !matches!(read, Ok(1..)) {
                    flush(&mut tls, &mut outer).await;
                    return;
                }
            }
        }
        if !flush(&mut tls, &mut outer).await {
            return;
        }
    }
}

async fn flush(tls: &mut ServerConnection, outer: &mut TcpStream) -> bool {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out).unwrap();
    }
    outer.write_all(&out).await.is_ok()
}
