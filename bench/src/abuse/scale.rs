//! How many clients and how much time the campaign and the attacks use, and the deadlines that the broker is started
//! with.

use std::time::Duration;

use super::Options;

/// `--max-message` of the campaign's broker, in bytes.
pub(super) const MESSAGE_MAX: usize = 256 << 10;
/// `--max-lag` of the campaign's broker.
pub(super) const LAG_MAX: &str = "1m";

/// How much is done, and the deadlines that the broker was started with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Clients come by the port with TLS.
    pub(super) tls: bool,
    /// How long a round or an attack lasts.
    pub(super) time: Duration,
    /// How long latencies are measured before an attack.
    pub(super) calm: Duration,
    /// Well-behaved raw subscribers, and those that speak `ringyard.v1`.
    pub(super) raw: usize,
    pub(super) v1: usize,
    /// Topics created per round.
    pub(super) topics: usize,
    /// Subscriptions begun and ended per round.
    pub(super) resubscriptions: usize,
    /// Silent peers of each sort at the same time.
    pub(super) silent: usize,
    /// Subscribers of each sort that do not read.
    pub(super) stalled: usize,
    pub(super) handshake_timeout: Duration,
    pub(super) ping_interval: Duration,
    pub(super) ping_timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) topic_idle_timeout: Duration,
    pub(super) message_timeout: Duration,
    /// What single attacks need.
    pub(super) counts: Counts,
}

/// How many clients attack in each kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// Fast readers of large messages.
    pub(super) readers: usize,
    /// Fast readers of a topic that is flooded.
    pub(super) flood_readers: usize,
    /// Clients that ask and do not read the answers.
    pub(super) outboxes: usize,
    /// Messages that are left open.
    pub(super) holders: usize,
    /// HTTP bodies that come a byte at a time, and large ones of which the end is missing.
    pub(super) bodies: usize,
    pub(super) large_bodies: usize,
    /// Connections that subscribe to as many filters as they may.
    pub(super) filter_connections: usize,
    pub(super) overlapping_connections: usize,
    /// Readers that make slow but steady progress.
    pub(super) slow_readers: usize,
    /// All attacks run at once, so that the broker may close connections that it must keep in a single attack.
    pub(super) together: bool,
}

/// The scale of the campaign.
pub(super) fn campaign(options: &Options) -> Scale {
    let rounds = options.rounds as usize;
    let seconds = |quick, real| Duration::from_secs(if options.quick { quick } else { real });
    let pick = |quick: usize, real: usize| if options.quick { quick } else { real };
    Scale {
        tls: options.tls,
        time: options.seconds.map_or(seconds(3, 30), Duration::from_secs),
        calm: Duration::ZERO,
        raw: pick(50, 200),
        v1: pick(5, 20),
        topics: pick(5_000, 100_000),
        resubscriptions: pick(20_000, 1_000_000usize.div_ceil(rounds)),
        silent: pick(3, 20),
        stalled: pick(3, 10),
        handshake_timeout: seconds(3, 5),
        ping_interval: seconds(1, 3),
        ping_timeout: seconds(2, 3),
        close_timeout: seconds(1, 3),
        topic_idle_timeout: seconds(1, 2),
        message_timeout: seconds(3, 5),
        counts: counts(options),
    }
}

/// The scale of a single attack.
pub(super) fn attack(options: &Options) -> Scale {
    let quick = options.quick;
    Scale {
        time: Duration::from_secs(options.seconds.unwrap_or(if quick { 3 } else { 10 })),
        calm: Duration::from_millis(if quick { 800 } else { 3000 }),
        raw: if quick { 25 } else { 50 },
        v1: 5,
        handshake_timeout: Duration::from_secs(3),
        ping_interval: Duration::from_secs(1),
        ping_timeout: Duration::from_secs(1),
        close_timeout: Duration::from_secs(1),
        topic_idle_timeout: Duration::from_secs(2),
        message_timeout: Duration::from_secs(if quick { 2 } else { 5 }),
        ..campaign(options)
    }
}

/// The scale of all attacks together.
pub(super) fn together(options: &Options) -> Scale {
    let alone = attack(options);
    let time = Duration::from_secs(options.seconds.unwrap_or(if options.quick { 8 } else { 60 }));
    Scale {
        time,
        raw: 180,
        v1: 20,
        // With all attacks on two cores a client may answer late.
        ping_interval: Duration::from_secs(5),
        ping_timeout: Duration::from_secs(5),
        counts: Counts { together: true, ..alone.counts },
        ..alone
    }
}

/// The broker's arguments: the options of `own`, and the deadlines of `scale` that every run sets.
pub(super) fn arguments(scale: &Scale, own: &[(&str, &str)]) -> Vec<String> {
    let deadlines = [
        ("handshake-timeout", scale.handshake_timeout),
        ("http-idle-timeout", scale.handshake_timeout),
        ("ping-interval", scale.ping_interval),
        ("ping-timeout", scale.ping_timeout),
        ("close-timeout", scale.close_timeout),
        ("topic-idle-timeout", scale.topic_idle_timeout),
    ];
    let own = own.iter().map(|(name, value)| format!("--{name}={value}"));
    own.chain(deadlines.map(|(name, time)| format!("--{name}={}", milliseconds(time)))).collect()
}

/// A time as options take it.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

fn counts(options: &Options) -> Counts {
    let pick = |quick: usize, real: usize| if options.quick { quick } else { real };
    Counts {
        readers: pick(50, 200),
        flood_readers: pick(300, 1000),
        outboxes: pick(200, 400),
        holders: pick(150, 300),
        bodies: 4200,
        large_bodies: pick(300, 600),
        filter_connections: pick(16, 48),
        overlapping_connections: pick(8, 16),
        slow_readers: 3,
        together: false,
    }
}
