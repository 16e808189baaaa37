//! The life of the broker on the control plane's thread: start, signals, shutdown.
//!
//! After SIGTERM readiness says no, and everything goes on for `--drain-delay`; then clients are asked to leave over
//! `--drain-window` (`shard/drain.rs`), and newcomers are still served; the end, in which they are refused, comes within
//! `--shutdown-grace` after that. SIGINT skips the delay and the window. A second signal ends the broker at once
//! ([`signals`](crate::server::signals)).
//!
//! When a successor has taken over (`takeover`) the window begins at once, and HTTP connections end after the request
//! under way. Connections of users whom the successor revokes are closed. A signal then ends the window, and a second one the
//! broker.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::{Cause, Io};
use rustix::process::setpriority_process;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::capacity::connections::Capacity;
use crate::config::limits::Limits;
use crate::http::admin::AdminListener;
use crate::http::app::App;
use crate::http::serve::Server;
use crate::http::{Operators, send_control, stats};
use crate::ids::ShardId;
use crate::observe::events;
use crate::server::reload::{self, Settings};
use crate::server::shards::Shards;
use crate::server::signals::{Signals, Stop};
use crate::server::takeover::predecessor::{Estate, Taken};
use crate::server::takeover::refuse;
use crate::server::takeover::successor::Claim;
use crate::server::tls::Watch;
use crate::shard::shared::{ControlMessage, SharedState};

/// What shards get beyond the grace period, after which they cut connections themselves.
const GRACE_MARGIN: Duration = Duration::from_secs(2);
/// How many clients a second are asked to leave when a successor has taken over, unless `--drain-window` is set: as many
/// as one core admits with room to spare.
const LEAVING_PER_SECOND: u64 = 10_000;
/// The longest window that follows from that.
const WINDOW_MAX: Duration = Duration::from_secs(25);
/// The shortest window when a successor has taken over: anyone who had just connected to this broker is served.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// How much the control plane gives way to shards that want the same core (`nice(1)`). At 10 a shard gets nine tenths of
/// a core that both would fill: in a storm of HTTP requests one message in a hundred then took 33 ms instead of 95
/// (`bench abuse --only bodies`), and the requests were answered as soon as before.
const CONTROL_NICENESS: i32 = 10;

/// How long shards have to stop accepting; it takes them a turn.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether they have.
const STOP_PAUSE: Duration = Duration::from_millis(1);

/// What there is when the control plane starts.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) shared: Arc<SharedState>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) room: Capacity,
    pub(crate) shards: Shards,
    pub(crate) admin: AdminListener,
    /// Why it is epoll, if io_uring was hoped for.
    pub(crate) fallback: Option<Cause>,
    /// The broker to take over from.
    pub(crate) predecessor: Option<Claim>,
    /// What a successor gets.
    pub(crate) estate: Estate,
    /// What SIGHUP reads again.
    pub(crate) settings: Settings,
}

/// Why a broker shuts down.
enum Why {
    Signal(Stop),
    /// A successor has taken over.
    Taken(Taken),
}

/// Runs the control plane on this thread until a signal or a successor has ended the broker. `ready` is called once, when
/// requests are answered, signals are heard, and no other broker accepts connections any more.
///
/// # Errors
/// A sentence: the runtime cannot start, a shard failed, or the shutdown did not finish in time.
pub(crate) fn run(started: Started, ready: impl FnOnce()) -> Result<(), String> {
    let Started { shared, limits, room, shards, admin, fallback, predecessor, mut estate, mut settings } = started;
    let operators = Operators { on_public_port: admin.is_public(), fallback };
    let app = App::new(Arc::clone(&shared), limits, room, operators);
    let taken = async {
        if let Some(claim) = predecessor {
            let (revoked, link) = claim.complete().await;
            refuse(&shared.authority, &revoked);
            accept_anew(&shared).await;
            if let Some(link) = link.filter(|_| shared.authority.is_on()) {
                tokio::task::spawn_local(link.tell(Arc::clone(&shared.authority)));
            }
        }
        estate.listen();
        ready();
        estate.taken(async || accept_anew(&shared).await).await
    };
    let refused = |cause| shared.refused_values.take(cause);
    let watch = Watch::new(&shared, settings.tls_tables());
    let looking = watch.clone().run();
    let hang_up = {
        let shared = Arc::clone(&shared);
        move || {
            if settings.read_again(&shared.rules, &shared.authority, &watch) {
                for shard in ShardId::all(shared.inboxes.len() as u16) {
                    // One whose queue is full does not sleep, and looks in its next turn.
                    let _ = shared.send_control(shard, ControlMessage::RightsChanged);
                }
            }
            reload::keys(&shared.publish_keys);
        }
    };
    let denied = || shared.authority.counts().map(|(cause, count)| (cause.label(), cause.sentence(), count)).collect();
    let_shards_go_first();
    let life =
        events::beside(|| stats::totals(&shared), denied, refused, live(app, shards, admin, hang_up, looking, taken));
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

/// Lowers the priority of this thread, and of those that it starts from now on; the shards run already.
fn let_shards_go_first() {
    if let Err(error) = setpriority_process(None, CONTROL_NICENESS) {
        debug!(%error, "the control plane keeps the priority of the shards");
    }
}

/// The life of the broker, on a runtime with local tasks, until it ends or is `taken` over.
async fn live(
    app: App,
    mut shards: Shards,
    admin: AdminListener,
    hang_up: impl FnMut() + 'static,
    looking: impl Future<Output = ()> + 'static,
    taken: impl Future<Output = Taken>,
) -> Result<(), String> {
    let mut signals = Signals::new(hang_up).map_err(|error| format!("signals cannot be handled: {error}"))?;
    let server = Server::start(&app);
    tokio::task::spawn_local(looking);
    let operators = admin.serve(&app)?;
    let why = tokio::select! {
        // The start is announced even if a signal is there already.
        biased;
        taken = taken => Why::Taken(taken),
        stop = signals.next() => Why::Signal(stop),
        failure = shards.failure() => return Err(failure),
    };
    let is_taken = matches!(why, Why::Taken(_));
    if is_taken {
        operators.stop();
    }
    let mut finish = pin!(shut_down(&app, server, shards, why));
    if is_taken {
        tokio::select! {
            finished = &mut finish => return finished,
            _ = signals.next() => {
                info!("a signal ends the window: all clients are asked to leave");
                tell_shards(&app, Duration::ZERO, true).await;
            }
        }
    }
    tokio::select! {
        finished = finish => finished,
        // Who asks twice knows what is lost.
        _ = signals.next() => {
            warn!(connections = stats::totals(app.shared()).connections, "ended at once by a second signal");
            Ok(())
        }
    }
}

/// Goes down in order, as the module's documentation says.
async fn shut_down(app: &App, server: Server, mut shards: Shards, why: Why) -> Result<(), String> {
    let Limits { drain_delay, drain_window, shutdown_grace: grace, .. } = *app.limits();
    let connections = stats::totals(app.shared()).connections;
    let ms = |time: Duration| time.as_millis() as u64;
    app.drain();
    let (window, taken) = match why {
        Why::Signal(stop) => {
            let (delay, window) = match stop {
                Stop::Terminate => (drain_delay, drain_window.unwrap_or_default()),
                Stop::Interrupt => Default::default(),
            };
            info!(delay_ms = ms(delay), "draining: readiness says no, everything else goes on");
            sleep(delay).await;
            (window, None)
        }
        Why::Taken(taken) => {
            app.close();
            (drain_window.unwrap_or_else(|| window_for(connections)).max(WINDOW_MIN), Some(taken))
        }
    };
    info!(
        connections,
        window_ms = ms(window),
        successor = taken.as_ref().map(|taken| taken.pid),
        "leaving: clients are asked to leave"
    );
    tell_shards(app, window, taken.is_some()).await;
    if let Some(taken) = taken {
        leave(app, taken).await;
    }
    let mut ended = pin!(shards.all_ended());
    let early = timeout(window, ended.as_mut()).await;
    let end = Instant::now() + grace;
    app.stop();
    info!(
        grace_ms = ms(grace),
        "stopping: newcomers are refused, and anyone who is left is cut when the grace period is over"
    );
    match early {
        Ok(result) => result?,
        // Shards end by themselves when the grace period is over, and cut anyone who is left.
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
}

/// Has all shards look for connections of which only another process was notified, which has stopped accepting.
async fn accept_anew(shared: &SharedState) {
    for shard in ShardId::all(shared.inboxes.len() as u16) {
        send_control(shared, shard, ControlMessage::AcceptAnew).await;
    }
}

/// Waits until no shard accepts connections any more.
async fn stopped_accepting(app: &App) {
    while app.shared().stopped_accepting.load(Ordering::Acquire) < usize::from(app.shards()) {
        sleep(STOP_PAUSE).await;
    }
}

/// Leaves the listeners to a successor, and heeds from then on whom it revokes.
async fn leave(app: &App, taken: Taken) {
    if timeout(STOP_MAX, stopped_accepting(app)).await.is_err() {
        warn!("connections may still be accepted: a shard has not stopped within {STOP_MAX:?}");
    }
    if let Some(link) = taken.leave().await {
        tokio::task::spawn_local(link.heed(Arc::clone(&app.shared().authority)));
    }
}

/// Tells all shards to shut down; `is_succeeded`: another process accepts from their listeners.
async fn tell_shards(app: &App, window: Duration, is_succeeded: bool) {
    for shard in ShardId::all(app.shards()) {
        send_control(app.shared(), shard, ControlMessage::Shutdown { window, is_succeeded }).await;
    }
}

/// The window in which so many clients move to a successor.
fn window_for(clients: u64) -> Duration {
    Duration::from_millis(clients.saturating_mul(1000) / LEAVING_PER_SECOND).min(WINDOW_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_follows_from_the_number_of_clients() {
        let windows = [0, 1_000, 10_000, 250_000, u64::MAX].map(window_for);
        assert_eq!(windows.map(|window| window.as_millis()), [0, 100, 1_000, 25_000, 25_000]);
    }
}
