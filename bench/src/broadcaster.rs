//! A minimal broker as one would write it today with tokio and tokio-tungstenite: in the comparison it stands for
//! writing the server oneself.
//!
//! A topic is a broadcast channel, a subscriber a task. Paths are those of Ringyard's raw endpoints: messages received at
//! `/pub/TOPIC` go to all subscribers at `/sub/TOPIC`. A subscriber's task writes all waiting messages before it flushes,
//! so that one send may carry several messages. A subscriber that is [`BACKLOG`] messages behind is closed with 1013.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

/// Messages of a topic that a subscriber may be behind.
const BACKLOG: usize = 16 << 10;
/// Connections that wait to be accepted.
const ACCEPT_BACKLOG: u32 = 4096;

/// `bench broadcaster`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads of the runtime; 0: the one that runs everything.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Only name the libraries and their versions.
    #[arg(long)]
    versions: bool,
}

/// Serves until it is killed.
pub(crate) fn serve(options: &Options) -> Result<()> {
    if options.versions {
        println!("tokio {}, tokio-tungstenite {}", version_of("tokio"), version_of("tokio-tungstenite"));
        return Ok(());
    }
    runtime(options.threads)?.block_on(accept(options.listen))
}

fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = match threads {
        0 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    Ok(builder.enable_io().build()?)
}

/// Topics by name.
type Topics = Arc<Mutex<HashMap<String, Sender<Message>>>>;

async fn accept(address: SocketAddr) -> Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("listening on {address}"))?;
    let listener = socket.listen(ACCEPT_BACKLOG)?;
    println!("listening on {}", listener.local_addr()?);
    let topics = Topics::default();
    loop {
        // A client that left before it was accepted is an error here, and no reason to end.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_client(stream, topics.clone()));
        }
    }
}

enum Role {
    Subscriber(Receiver<Message>),
    Publisher(Sender<Message>),
}

async fn serve_client(stream: TcpStream, topics: Topics) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut role = None;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        role = role_of(request.uri().path(), &topics);
        if role.is_some() {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("/sub/TOPIC or /pub/TOPIC".to_owned()));
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        Err(refusal)
    };
    // The buffer is allocated for every connection; the library's documentation recommends 4 KiB for many of them.
    let config = WebSocketConfig::default().read_buffer_size(4 << 10);
    // A refused upgrade was answered already.
    let Ok(socket) = accept_hdr_async_with_config(stream, look, Some(config)).await else {
        return;
    };
    // A connection that ends is the end of its task, whatever the reason.
    let _ended = match role {
        Some(Role::Subscriber(inbox)) => subscribe(socket, inbox).await,
        Some(Role::Publisher(topic)) => publish(socket, topic).await,
        None => Ok(()),
    };
}

fn role_of(path: &str, topics: &Topics) -> Option<Role> {
    let (publishes, name) = match (path.strip_prefix("/sub/"), path.strip_prefix("/pub/")) {
        (Some(name), _) => (false, name),
        (_, Some(name)) => (true, name),
        _ => return None,
    };
    let mut topics = topics.lock().expect("nobody panics here");
    let topic = topics.entry(name.to_owned()).or_insert_with(|| broadcast::channel(BACKLOG).0);
    Some(if publishes { Role::Publisher(topic.clone()) } else { Role::Subscriber(topic.subscribe()) })
}

async fn subscribe(mut socket: WebSocketStream<TcpStream>, mut inbox: Receiver<Message>) -> tungstenite::Result<()> {
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Ok(message) => {
                    socket.feed(message).await?;
                    while let Ok(message) = inbox.try_recv() {
                        socket.feed(message).await?;
                    }
                    socket.flush().await?;
                }
                Err(RecvError::Lagged(_)) => {
                    let frame = CloseFrame { code: CloseCode::Again, reason: "too slow".into() };
                    return socket.close(Some(frame)).await;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            // Pings are answered by the library while it reads.
            incoming = socket.next() => match incoming {
                Some(message) => drop(message?),
                None => return Ok(()),
            },
        }
    }
}

async fn publish(mut socket: WebSocketStream<TcpStream>, topic: Sender<Message>) -> tungstenite::Result<()> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            // Fails without subscribers, which is no error.
            let _reached = topic.send(message);
        }
    }
    Ok(())
}

/// The version of a library that this program was built with.
fn version_of(library: &str) -> &'static str {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let entry = format!("name = \"{library}\"\nversion = \"");
    let version = LOCK.split_once(&entry).and_then(|(_, rest)| rest.split_once('"'));
    version.map_or("unknown", |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_roles() {
        let topics = Topics::default();
        assert!(matches!(role_of("/sub/a/b", &topics), Some(Role::Subscriber(_))));
        assert!(matches!(role_of("/pub/a/b", &topics), Some(Role::Publisher(_))));
        assert!(role_of("/", &topics).is_none());
        assert_eq!(topics.lock().unwrap().len(), 1);
    }

    #[test]
    fn versions_are_known() {
        assert!(version_of("tokio").starts_with("1."));
        assert!(version_of("tokio-tungstenite").starts_with("0."));
        assert_eq!(version_of("no-such-library"), "unknown");
    }
}
