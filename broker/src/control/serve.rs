//! From a handed-over socket to served requests: hyper on tokio's sockets, one task per connection.
//!
//! Not responsible for what requests mean ([`routes`]). Each connection's requests are answered one after
//! the other, in the order they came, so pipelined publishes keep their order.
//!
//! Bounds: [`Room::http_connections_max`] connections, beyond which it is 503 and the end; heads by size, fields and time (hyper); bodies by size and time
//! ([`publish`]); answers by the peer's patience ([`Patience`]).
//!
//! [`Room::http_connections_max`]: super::room::Room::http_connections_max
//! [`routes`]: super::routes
//! [`publish`]: super::publish

use std::io;
use std::pin::pin;
use std::sync::Arc;

use axum::{Extension, Router};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::patience::Patience;
use super::rewind::Rewind;
use super::routes::{App, router};
use crate::limits::Limits;
use crate::shard::link::Handover;
use crate::shard::stats::Refused;

/// What hyper reads and writes; comes back when a connection is upgraded.
pub(super) type Stream = TokioIo<Rewind<Patience<TcpStream>>>;

/// The running server.
#[derive(Debug)]
pub(super) struct Server {
    permits: Arc<Semaphore>,
    permits_max: u32,
}

impl Server {
    /// Serves what shards hand over, on this runtime, for as long as it runs.
    pub(super) fn start(app: &App) -> Self {
        tokio::task::spawn_local(accept(app.clone()));
        Self { permits: Arc::clone(app.permits()), permits_max: app.room().http_connections_max }
    }

    /// Waits until no connection is open.
    pub(super) async fn idle(&self) {
        // One permit per connection; the semaphore is never closed.
        let _ = self.permits.acquire_many(self.permits_max).await;
    }
}

async fn accept(app: App) {
    let router = router(app.clone());
    loop {
        let handover = app.links().handovers.next().await;
        match Arc::clone(app.permits()).try_acquire_owned() {
            Ok(permit) => drop(tokio::task::spawn_local(serve(app.clone(), router.clone(), handover, permit))),
            Err(_) => {
                app.links().plane.count_refusal(Refused::Overload);
                drop(tokio::task::spawn_local(refuse(handover)));
            }
        }
    }
}

async fn serve(app: App, router: Router, handover: Handover, _permit: OwnedSemaphorePermit) {
    // Each request knows whose connection it came on; for most of them nobody asked.
    let guest = Arc::new(handover.guest);
    let router = if guest.is_known() { router.layer(Extension(Arc::clone(&guest))) } else { router };
    let Ok(socket) = stream(handover.socket) else {
        return; // Only a socket that is already broken cannot be registered.
    };
    // While the broker stops, a connection gets its one answer.
    let keep_alive = !app.is_stopping();
    let mut connection = pin!(connection(&app, router, socket, Bytes::from(handover.read), keep_alive).with_upgrades());
    tokio::select! {
        biased;
        // Errors are the peer's: a reset, a malformed or late head; hyper has answered what it could.
        _ = connection.as_mut() => return,
        () = app.stopping() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Serves one socket, of which `read` was read before.
pub(super) fn connection(
    app: &App,
    router: Router,
    socket: TcpStream,
    read: Bytes,
    keep_alive: bool,
) -> http1::Connection<Stream, TowerToHyperService<Router>> {
    let patient = Patience::new(socket, app.limits().ping_timeout);
    let io = TokioIo::new(Rewind::new(patient, read));
    http(app.limits()).keep_alive(keep_alive).serve_connection(io, TowerToHyperService::new(router))
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .half_close(true); // a client that has sent all still wants its answer
    http
}

fn stream(socket: std::os::fd::OwnedFd) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    TcpStream::from_std(socket)
}

async fn refuse(handover: Handover) {
    const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\
        Connection: close\r\n\r\n";
    if let Ok(mut socket) = stream(handover.socket) {
        // A new connection's send buffer is empty: this does not wait.
        let _ = socket.write_all(TOO_MANY).await;
    }
}
