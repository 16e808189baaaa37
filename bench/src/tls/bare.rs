//! rustls's server without sockets and without a broker: the least that any broker on rustls pays. The client is the load
//! generator's, so that both offer and choose the same.
//!
//! In a process of its own: processor time is that of the server's calls alone, memory that of the whole process. Its last
//! line is the figure.

use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use loadgen::tls::{ServerName, Session, Tls};
use rustls::crypto::aws_lc_rs;
use rustls::{NamedGroup, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Certificate;
use crate::process::{Cores, Server};

/// Of each kind, before those that count.
const WARM_UP: usize = 200;

/// `bench tls-floor`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorOptions {
    /// PEM file.
    #[arg(long)]
    cert: PathBuf,
    /// PEM file.
    #[arg(long)]
    key: PathBuf,
    /// Full handshakes.
    #[arg(long)]
    count: usize,
    /// Keep the connections, and print bytes of memory for each instead of nanoseconds.
    #[arg(long)]
    memory: bool,
    /// Print bytes of each handshake instead, both directions and tickets included.
    #[arg(long, conflicts_with = "memory")]
    bytes: bool,
    /// Without ML-KEM.
    #[arg(long)]
    classic: bool,
}

/// Nanoseconds of processor time of the server's part of a full handshake, on the server's core.
pub(crate) fn handshake_ns(cores: Cores, certificate: &Certificate, count: usize) -> Result<f64> {
    run(cores, certificate, count, &[])
}

/// User memory that a connection holds after its handshake, in bytes.
pub(crate) fn idle_bytes(cores: Cores, certificate: &Certificate, count: usize) -> Result<f64> {
    run(cores, certificate, count, &["--memory"])
}

/// Bytes of a full handshake, of both directions, with the broker's key exchanges: hybrid, or without ML-KEM.
pub(crate) fn handshake_bytes(cores: Cores, certificate: &Certificate, is_classic: bool) -> Result<f64> {
    run(cores, certificate, 100, if is_classic { &["--bytes", "--classic"] } else { &["--bytes"] })
}

fn run(cores: Cores, certificate: &Certificate, count: usize, more: &[&str]) -> Result<f64> {
    let (cert, key, count) = (certificate.cert()?, certificate.key()?, count.to_string());
    let arguments = ["tls-floor", "--cert", &cert, "--key", &key, "--count", &count];
    let server = Server::start(&std::env::current_exe()?, cores.server, &[&arguments, more].concat())?;
    let last = server.last_line()?;
    last.parse().with_context(|| format!("the bare server said {last:?}"))
}

/// The process itself.
pub(crate) fn floor(options: &FloorOptions) -> Result<()> {
    // The code that starts it waits for an address.
    println!("127.0.0.1:1");
    let config = server_config(options)?;
    let client = Tls::new(Some(&options.cert), false, false)?;
    let name = ServerName::try_from("127.0.0.1")?;
    for _ in 0..WARM_UP {
        handshake(&config, &client, &name, &mut Cost::default())?;
    }
    let mut kept = Vec::with_capacity(if options.memory { options.count } else { 0 });
    let before = loadgen::usage::memory(std::process::id())?;
    let mut cost = Cost::default();
    for _ in 0..options.count {
        let connection = handshake(&config, &client, &name, &mut cost)?;
        if options.memory {
            kept.push(Box::new(connection));
        }
    }
    let grown = loadgen::usage::memory(std::process::id())?.pss.saturating_sub(before.pss);
    let sum = match (options.memory, options.bytes) {
        (true, _) => grown,
        (_, true) => cost.bytes,
        _ => cost.nanos,
    };
    println!("{}", sum as f64 / options.count as f64);
    drop(kept);
    Ok(())
}

/// What handshakes took.
#[derive(Default)]
struct Cost {
    /// Processor time of the server's calls.
    nanos: u64,
    /// Of both directions.
    bytes: u64,
}

fn server_config(options: &FloorOptions) -> Result<Arc<ServerConfig>> {
    let certificates = CertificateDer::pem_file_iter(&options.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&options.key)?;
    // As the broker's.
    let mut provider = loadgen::tls::hybrid_first();
    if options.classic {
        provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
    }
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // As the broker's: sessions are in tickets, not in memory.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// One full handshake, with everything that the server sends after it; adds what it takes.
fn handshake(
    config: &Arc<ServerConfig>,
    client: &Tls,
    name: &ServerName<'static>,
    cost: &mut Cost,
) -> Result<ServerConnection> {
    let mut session = client.session(name)?;
    let mut to_server = Vec::new();
    session.output(&mut to_server);
    let mut from = ring::floor::thread_cpu_ns();
    let mut server = ServerConnection::new(Arc::clone(config))?;
    loop {
        let to_client = serve(&mut server, &to_server)?;
        cost.nanos += ring::floor::thread_cpu_ns() - from;
        cost.bytes += (to_server.len() + to_client.len()) as u64;
        if to_client.is_empty() {
            ensure!(!server.is_handshaking(), "the handshake does not end");
            return Ok(server);
        }
        to_server = answer(&mut session, &to_client)?;
        from = ring::floor::thread_cpu_ns();
    }
}

fn serve(server: &mut ServerConnection, mut bytes: &[u8]) -> Result<Vec<u8>> {
    while !bytes.is_empty() {
        server.read_tls(&mut bytes)?;
        server.process_new_packets()?;
        if let Ok(plain) = server.reader().fill_buf() {
            let len = plain.len();
            server.reader().consume(len);
        }
    }
    let mut out = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut out)?;
    }
    Ok(out)
}

fn answer(session: &mut Session, bytes: &[u8]) -> Result<Vec<u8>> {
    session.receive(bytes, &mut Vec::new()).map_err(|why| anyhow!(why))?;
    let mut out = Vec::new();
    session.output(&mut out);
    Ok(out)
}
