//! From a handed-over socket to served requests: hyper on tokio's sockets, one task per connection.
//!
//! Not responsible for what requests mean ([`routes`]). Each connection's requests are answered one after
//! the other, in the order they came, so pipelined publishes keep their order.
//!
//! Bounds: so many connections ([`places`]), heads by size, fields and time ([`heads`]), bodies by size, time and rate
//! ([`bodies`]), answers by the peer's patience ([`Patience`]), the library's buffer by [`READ_BYTES_MAX`].
//!
//! Answers on a connection that stays open say for how long (`Keep-Alive: timeout=`), a little less than the truth, so
//! that a client gives it up first and never sends a request into its end.
//!
//! [`bodies`]: crate::http::bodies
//! [`heads`]: crate::http::request_heads
//! [`places`]: crate::http::places
//! [`routes`]: crate::http::routes

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::access::rejection::{Rejection, readable};
use crate::capacity::buffer::Buffer;
use crate::config::is_loopback;
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::connection::Connection;
use crate::http::places;
use crate::http::request_heads::Heads;
use crate::http::routes::router;
use crate::http::upgrade;
use crate::http::write_timeout::Patience;
use crate::http::{busiest, ends, load};
use crate::publishing::fields;
use crate::shard::handover::Handover;

/// How much hyper reads ahead, in bytes; its least. A head that is longer by `--max-head` has room for itself.
const READ_BYTES_MAX: usize = 8 << 10;
/// How long a connection in a spare place may take for its one answer.
const SPARE_TIME: Duration = Duration::from_secs(2);

/// The running server.
#[derive(Debug)]
pub(crate) struct Server(App);

impl Server {
    /// Serves what shards hand over, on this runtime, for as long as it runs.
    pub(crate) fn start(app: &App) -> Self {
        tokio::task::spawn_local(accept(app.clone()));
        tokio::task::spawn_local(load::run(app.clone()));
        tokio::task::spawn_local(busiest::run(app.clone()));
        tokio::task::spawn_local(ends::run(app.clone()));
        Self(app.clone())
    }

    /// Waits until no connection is open, or on its way here from a shard.
    pub(crate) async fn idle(&self) {
        while self.0.shared().handovers.depth() > 0 {
            tokio::task::yield_now().await;
        }
        self.0.places().idle().await;
    }
}

async fn accept(app: App) {
    let router = router(app.clone());
    loop {
        let Handover { socket, read, lease, is_bridged } = app.shared().handovers.next().await;
        let Ok(socket) = stream(socket) else {
            continue; // Only a socket that is already broken cannot be registered.
        };
        let connection = Connection::new(lease, || socket.peer_addr().ok(), app.limits());
        // Only operators' requests ask for it, and only where there are keys.
        let asks = app.shared().authority.has_keys();
        let is_near = asks && (is_bridged || socket.peer_addr().is_ok_and(|peer| is_loopback(peer.ip())));
        let connection = Arc::new(connection.near(is_near));
        let (app, router) = (app.clone(), router.clone());
        let full = match places::enter(&app, &connection) {
            Ok(place) => {
                tokio::task::spawn_local(serve(app, router, socket, read, connection, place));
                continue;
            }
            Err(full) => full,
        };
        // A probe does not wait: its answer is short.
        if full == Rejection::HttpConnections
            && !is_probe(read.as_ref())
            && let Some(place) = places::wait(&app, &connection)
        {
            tokio::task::spawn_local(async move {
                match place.await {
                    Some(place) => serve(app, router, socket, read, connection, place).await,
                    None => turn_away(&app, socket, read.as_ref(), &full),
                }
            });
            continue;
        }
        match app.places().spare().filter(|_| is_probe(read.as_ref())) {
            Some(spare) => {
                let once = Arc::into_inner(connection).expect("nobody else has it yet");
                let served = serve(app, router, socket, read, Arc::new(once.spare()), spare);
                tokio::task::spawn_local(timeout(SPARE_TIME, served));
            }
            None => turn_away(&app, socket, read.as_ref(), &full),
        }
    }
}

/// Serves one connection for as long as it has its place.
async fn serve<P>(app: App, router: Router, socket: TcpStream, read: Buffer, connection: Arc<Connection>, _place: P) {
    // While the broker shuts down, a connection gets its one answer.
    let keep_alive = !connection.is_spare && !app.is_closing();
    let stop = async {
        tokio::select! {
            () = app.closing() => {}
            () = connection.ended() => {}
        }
    };
    self::connection(&app, router, socket, read, &connection, keep_alive, stop).await;
}

/// Serves one socket, of which `read` was read before, until its client or `stop` ends it.
pub(crate) async fn connection(
    app: &App,
    router: Router,
    socket: TcpStream,
    read: Buffer,
    connection: &Arc<Connection>,
    keep_alive: bool,
    stop: impl Future<Output = ()>,
) {
    let patient = Patience::new(socket, app.limits().ping_timeout);
    let heads = Heads::new(patient, read, app.shared_limits(), Arc::clone(connection));
    let keep_alive_for = keep_alive.then(|| announcement(app.limits())).flatten();
    let requests = Requests { router, connection: Arc::clone(connection), keep_alive_for };
    let mut http = http(app.limits()).keep_alive(keep_alive).serve_connection(TokioIo::new(heads), requests);
    let served = tokio::select! {
        biased;
        served = &mut http => served,
        () = stop => {
            Pin::new(&mut http).graceful_shutdown();
            (&mut http).await
        }
    };
    // Errors are the peer's: a reset, or a body that is not what its head says; hyper has answered what it could.
    if served.is_ok() {
        upgrade::finish(app, connection, http.into_parts().io.into_inner()).await;
    }
}

fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(None) // `heads` keeps the time
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(READ_BYTES_MAX + limits.head_bytes_max)
        .half_close(true); // a client that has sent all still wants its answer
    http
}

/// What answers say of the idle time, as a field.
fn announcement(limits: &Limits) -> Option<HeaderValue> {
    let value = fields::keep_alive(limits.http_idle_timeout)?;
    Some(HeaderValue::try_from(value).expect("a token and a number"))
}

/// Answers the requests of one connection, in their order.
#[derive(Debug)]
struct Requests {
    router: Router,
    connection: Arc<Connection>,
    /// The announcement of the idle time; `None`: the connection ends after its first answer, or says nothing.
    keep_alive_for: Option<HeaderValue>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&self.connection));
        let keep_alive_for = self.keep_alive_for.clone().filter(|_| stays(&request));
        let answered = TowerToHyperService::new(self.router.clone()).call(request);
        Box::pin(async move {
            let mut response = answered.await?;
            let headers = response.headers_mut();
            if let Some(timeout) = keep_alive_for
                && !headers.contains_key(header::CONNECTION)
            {
                // A field for this connection only is named in `Connection` (RFC 9110 §7.6.1).
                headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
                headers.insert(HeaderName::from_static("keep-alive"), timeout);
            }
            Ok(response)
        })
    }
}

/// Whether the client lets the connection stay open after its answer (RFC 9112 §9.3).
fn stays(request: &Request<Body>) -> bool {
    let lines = request.headers().get_all(header::CONNECTION).iter();
    let mut options = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    request.version() == Version::HTTP_11 && !options.any(|option| option.eq_ignore_ascii_case(b"close"))
}

fn stream(socket: std::os::fd::OwnedFd) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    // A bridge's end is a Unix socket, which has no such thing.
    let _ = socket.set_nodelay(true);
    TcpStream::from_std(socket)
}

/// Whether a request, of which this is the head, is one of a probe's.
fn is_probe(read: &[u8]) -> bool {
    ["GET /healthz ", "GET /readyz ", "HEAD /healthz ", "HEAD /readyz "]
        .iter()
        .any(|line| read.starts_with(line.as_bytes()))
}

/// Refuses a connection that gets no place, not even a spare one.
fn turn_away(app: &App, socket: TcpStream, read: &[u8], rejection: &Rejection) {
    app.shared().plane.count_refusal(rejection.cause());
    let mut answer = Vec::with_capacity(512);
    let page = protocol::head::page(read);
    readable(rejection.answer(), page, &app.limits().origins).write_to(&mut answer);
    if let Ok(mut socket) = socket.into_std() {
        // A new connection's send buffer is empty, so this neither waits nor is short.
        let _ = socket.write_all(&answer);
    }
}
