//! The control plane: everything that is not a WebSocket frame, on one thread: with the tokio-uring runtime, or
//! with tokio's own where io_uring cannot be used.
//!
//! | step | file |
//! | --- | --- |
//! | a shard hands over a socket whose request is no WebSocket handshake | `serve` |
//! | so many have a place; what is known of each | `places`, `connection` |
//! | every request head is checked; a peer that reads nothing is given up | `heads`, `patience` |
//! | the request finds its handler | `routes` |
//! | a request is addressed to this broker; a browser's comes from its own pages or allowed origins | `policy`, `hosts`, `origins` |
//! | `POST /pub/{topic}` is sequenced by the topic's home; its body, what that means, new topics | `publish`, `bodies`, `payload`, `names` |
//! | a WebSocket handshake goes back to a shard | `upgrade` |
//! | the page, refusals as one JSON sentence | `page`, `refusal` |
//! | operators ask on a listener of their own | [`admin`] |
//! | counters as JSON and for Prometheus; what the process uses | `stats`, `metrics`, `process` |
//! | the log; counters that become log lines once a second | [`log`], `watch` |
//! | signals: which end the broker, and which are logged and nothing else | `signals` |
//!
//! [`room`] says how many connections there may be, [`memory`] what memory all takes at most, [`locked`] what rings
//! lock;
//! [`shards`] starts the data plane and tells when a shard has ended; [`crash`] ends the process when a thread panics.
//! This file is the life of the broker: start, signals, shutdown.
//!
//! Invariants: HTTP requests never run on a shard's thread. Everything is bounded: connections, heads,
//! bodies, waits. What was accepted is delivered.
//!
//! After SIGTERM readiness says no, and everything goes on for `--drain-delay`; then newcomers and HTTP publishers are
//! refused, and clients told to go over `--drain-window` (`shard/drain.rs`); the end comes within `--shutdown-grace`
//! after that. SIGINT skips the delay and the window. A second signal ends the broker at once (`signals`).

pub mod admin;
mod bodies;
mod connection;
pub mod crash;
mod heads;
mod hosts;
pub mod locked;
pub mod log;
pub mod memory;
mod metrics;
mod names;
mod origins;
mod page;
mod patience;
mod payload;
mod places;
mod policy;
mod process;
mod publish;
mod refusal;
pub mod room;
mod routes;
mod serve;
pub mod shards;
mod signals;
mod stats;
mod upgrade;
mod watch;

#[cfg(test)]
mod tests;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ring::{Cause, Io};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use self::admin::Door;
use self::room::Room;
use self::routes::App;
use self::serve::Server;
use self::shards::Shards;
use self::signals::{Signals, Stop};
use crate::limits::Limits;
use crate::shard::link::{Links, Order};
use crate::topics::registry::ShardId;

/// What shards get beyond the grace period, after which they cut connections themselves.
const GRACE_MARGIN: Duration = Duration::from_secs(2);
/// Between two looks at a shard's full queue of orders.
const QUEUE_PAUSE: Duration = Duration::from_millis(1);

/// What operators are told, besides counters, and where.
#[derive(Clone, Debug, Default)]
struct Operators {
    /// Whether counters are on the public port.
    on_public_port: bool,
    /// Why it is epoll although io_uring would have been taken.
    fallback: Option<Cause>,
}

/// Runs the control plane on this thread until a signal has ended the broker. `ready` is called once, when
/// requests are answered and signals are heard. `fallback` says why it is epoll, if io_uring was hoped for.
///
/// # Errors
/// A sentence: the runtime cannot start, a shard failed, or the shutdown did not finish in time.
pub fn run(
    links: Arc<Links>,
    limits: Arc<Limits>,
    room: Room,
    shards: Shards,
    door: Door,
    fallback: Option<Cause>,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let operators = Operators { on_public_port: door.is_public(), fallback };
    let app = App::new(links, limits, room, operators);
    let life = watch::beside(app.clone(), live(app, shards, door, ready));
    match room.io {
        Io::Uring => tokio_uring::Runtime::new(&tokio_uring::builder())
            .map_err(|error| format!("the control plane cannot start its io_uring: {error}"))?
            .block_on(life),
        Io::Epoll => {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("the control plane cannot start: {error}"))?;
            LocalSet::new().block_on(&runtime, life)
        }
    }
}

/// The life of the broker, on a runtime with local tasks.
async fn live(app: App, mut shards: Shards, door: Door, ready: impl FnOnce()) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("signals cannot be handled: {error}"))?;
    let server = Server::start(&app);
    door.serve(&app)?;
    ready();
    tokio::select! {
        stop = signals.next() => shut_down(&app, server, shards, signals, stop).await,
        failure = shards.failure() => Err(failure),
    }
}

/// Goes down in order, as the module's head says, unless a second signal ends it at once.
async fn shut_down(
    app: &App,
    server: Server,
    mut shards: Shards,
    mut signals: Signals,
    stop: Stop,
) -> Result<(), String> {
    let Limits { drain_delay, drain_window, shutdown_grace: grace, .. } = *app.limits();
    let (delay, window) = match stop {
        Stop::Terminate => (drain_delay, drain_window),
        Stop::Interrupt => Default::default(),
    };
    let ms = |time: Duration| time.as_millis() as u64;
    let finish = async {
        app.drain();
        info!(delay_ms = ms(delay), "draining: readiness says no, everything else goes on");
        sleep(delay).await;
        app.leave();
        let connections = stats::totals(app.links()).connections;
        info!(connections, window_ms = ms(window), "leaving: clients are told to go, newcomers refused");
        for shard in 0..app.shards() {
            order(app.links(), shard, Order::Shutdown { window }).await;
        }
        let mut ended = pin!(shards.all_ended());
        let early = timeout(window, ended.as_mut()).await;
        let end = Instant::now() + grace;
        app.stop();
        info!(grace_ms = ms(grace), "stopping: whoever is left is cut when the grace period is over");
        match early {
            Ok(result) => result?,
            // Shards end by themselves when the grace period is over, and cut whoever is left.
            Err(_) => timeout_at(end + GRACE_MARGIN, ended).await.map_err(|_| {
                format!("the shutdown did not finish within --shutdown-grace ({grace:?}): connections were cut")
            })??,
        }
        // Requests that are under way even then are cut, as connections are.
        let _ = timeout_at(end, server.idle()).await;
        match stats::totals(app.links()).cut_off {
            0 => Ok(()),
            clients => Err(format!(
                "{clients} clients were cut off before they had taken what was accepted for them: they read too slowly \
                 for --drain-window and --shutdown-grace"
            )),
        }
    };
    tokio::select! {
        finished = finish => finished,
        // Who asks twice knows what is lost.
        _ = signals.next() => {
            warn!(connections = stats::totals(app.links()).connections, "ended at once by a second signal");
            Ok(())
        }
    }
}

/// Gives an order however long the shard's queue is full.
async fn order(links: &Links, shard: ShardId, mut order: Order) {
    while let Err(full) = links.order(shard, order) {
        order = full;
        sleep(QUEUE_PAUSE).await;
    }
}
