//! The life of the broker on the control plane's thread: start, signals, shutdown.
//!
//! After SIGTERM readiness says no, and everything goes on for `--drain-delay`; then newcomers and HTTP publishers are
//! refused, and clients are asked to leave over `--drain-window` (`shard/drain.rs`); the end comes within
//! `--shutdown-grace` after that. SIGINT skips the delay and the window. A second signal ends the broker at once
//! ([`signals`](crate::server::signals)).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ring::{Cause, Io};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::capacity::connections::Capacity;
use crate::config::limits::Limits;
use crate::http::admin::AdminListener;
use crate::http::app::App;
use crate::http::serve::Server;
use crate::http::{Operators, send_control, stats};
use crate::ids::ShardId;
use crate::observe::events;
use crate::server::shards::Shards;
use crate::server::signals::{Signals, Stop};
use crate::shard::shared::{ControlMessage, SharedState};

/// What shards get beyond the grace period, after which they cut connections themselves.
const GRACE_MARGIN: Duration = Duration::from_secs(2);
/// Runs the control plane on this thread until a signal has ended the broker. `ready` is called once, when
/// requests are answered and signals are heard. `fallback` says why it is epoll, if io_uring was hoped for.
///
/// # Errors
/// A sentence: the runtime cannot start, a shard failed, or the shutdown did not finish in time.
pub(crate) fn run(
    shared: Arc<SharedState>,
    limits: Arc<Limits>,
    room: Capacity,
    shards: Shards,
    admin: AdminListener,
    fallback: Option<Cause>,
    ready: impl FnOnce(),
) -> Result<(), String> {
    let operators = Operators { on_public_port: admin.is_public(), fallback };
    let app = App::new(Arc::clone(&shared), limits, room, operators);
    let life = events::beside(move || stats::totals(&shared), live(app, shards, admin, ready));
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
async fn live(app: App, mut shards: Shards, admin: AdminListener, ready: impl FnOnce()) -> Result<(), String> {
    let mut signals = Signals::new().map_err(|error| format!("signals cannot be handled: {error}"))?;
    let server = Server::start(&app);
    admin.serve(&app)?;
    ready();
    tokio::select! {
        stop = signals.next() => shut_down(&app, server, shards, signals, stop).await,
        failure = shards.failure() => Err(failure),
    }
}

/// Goes down in order, as the module's documentation says, unless a second signal ends it at once.
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
        let connections = stats::totals(app.shared()).connections;
        info!(connections, window_ms = ms(window), "leaving: clients are told to go, newcomers refused");
        for shard in ShardId::all(app.shards()) {
            send_control(app.shared(), shard, ControlMessage::Shutdown { window }).await;
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
        match stats::totals(app.shared()).cut_off {
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
            warn!(connections = stats::totals(app.shared()).connections, "ended at once by a second signal");
            Ok(())
        }
    }
}
