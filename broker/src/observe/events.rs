//! Once a second, what the shards counted since becomes log lines: at most one per cause, with how often it happened.
//!
//! Not responsible for the counters. This is how the log stays short in a storm and costs shards nothing.
//!
//! Normal ends and peers' mistakes are logged at the levels `debug` and `info`; what an operator may have to change at
//! `warn`, with the option that changes it.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{Level, debug, info, warn};

use crate::observe::counters::{Reason, Refused, Snapshot};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks at `totals`, all counters added up, for as long as `life` takes, and once more when it is over. `refused` gives,
/// and forgets, the first value that requests were refused for since the last look.
pub(crate) async fn beside<T>(
    totals: impl Fn() -> Snapshot,
    denied: impl Fn() -> Vec<Denied>,
    refused: impl Fn(Refused) -> Option<String>,
    life: impl Future<Output = T>,
) -> T {
    let mut life = pin!(life);
    let mut before = Snapshot::default();
    let mut denied_before = denied();
    loop {
        let over = timeout(PERIOD, life.as_mut()).await;
        let now = totals();
        occurrences(&before, &now, &refused).into_iter().for_each(Occurrence::log);
        before = now;
        let denied_now = denied();
        denials(&denied_before, &denied_now).for_each(log_denial);
        denied_before = denied_now;
        if let Ok(over) = over {
            return over;
        }
    }
}

/// A cause for which access control refuses tokens and keys: its name, what it means, and how often it has.
pub(crate) type Denied = (&'static str, &'static str, u64);

/// The causes that came up since the last look, with how often.
fn denials<'a>(before: &'a [Denied], now: &'a [Denied]) -> impl Iterator<Item = Denied> + 'a {
    let added = |(&(cause, what, count), before): (&Denied, &Denied)| (cause, what, count.saturating_sub(before.2));
    now.iter().zip(before).map(added).filter(|(.., count)| *count > 0)
}

fn log_denial((cause, what, count): Denied) {
    info!(event = "denied", cause, count, "tokens or keys were refused: {what}");
}

/// What happened since the last look.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Occurrence {
    level: Level,
    event: &'static str,
    reason: &'static str,
    what: &'static str,
    count: u64,
    /// What the first of them was refused for, where that is a value.
    first: Option<String>,
}

impl Occurrence {
    fn log(self) {
        let Self { level, event, reason, what, count, first } = self;
        match level {
            Level::WARN => warn!(event, reason, count, first, "{what}"),
            Level::INFO => info!(event, reason, count, first, "{what}"),
            _ => debug!(event, reason, count, first, "{what}"),
        }
    }
}

fn occurrences(before: &Snapshot, now: &Snapshot, refused: impl Fn(Refused) -> Option<String>) -> Vec<Occurrence> {
    let mut all = Vec::new();
    let mut put = |event, reason, said: Option<(Level, &'static str)>, count, counted: u64, cause: Option<Refused>| {
        if let (Some((level, what)), 1..) = (said, counted.saturating_sub(count)) {
            let first = cause.and_then(&refused);
            all.push(Occurrence { level, event, reason, what, count: counted - count, first });
        }
    };
    for ((reason, (label, now)), (_, before)) in Reason::ALL.iter().zip(now.closed_by()).zip(before.closed_by()) {
        put("closed", label, of_end(*reason), before, now, None);
    }
    for ((cause, (label, now)), (_, before)) in Refused::ALL.iter().zip(now.refused_by()).zip(before.refused_by()) {
        put("refused", label, Some(of_refusal(*cause)), before, now, Some(*cause));
    }
    for Strain { reason, level, what, count } in STRAINS {
        put("strained", reason, Some((level, what)), count(before), count(now), None);
    }
    all
}

/// How much the end of connections matters, and in which words; nothing where it is no end or logged elsewhere.
fn of_end(reason: Reason) -> Option<(Level, &'static str)> {
    Some(match reason {
        Reason::HandedOver | Reason::Refused => return None,
        Reason::ByClient => (Level::DEBUG, "clients left"),
        Reason::HttpIdle => (Level::DEBUG, "HTTP connections were idle; see --http-idle-timeout"),
        Reason::Shutdown => (Level::INFO, "clients were told that the broker goes away (1001)"),
        Reason::HandshakeTimeout => (Level::DEBUG, "connections brought no complete request in time (408)"),
        Reason::PingTimeout => (
            Level::DEBUG,
            "clients were silent after a ping, or took nothing of what they were sent; see --ping-timeout",
        ),
        Reason::Slow => (Level::WARN, "subscribers were closed, being too far behind (1013); see --max-lag"),
        Reason::Memory => {
            (Level::WARN, "clients that held much memory were closed when it was short; see --max-memory")
        }
        Reason::MessageTimeout => (Level::INFO, "clients took too long over one message (1008); see --message-timeout"),
        Reason::Violation => (Level::INFO, "clients were closed for breaking the protocol or a limit of it"),
        Reason::Expired => (Level::INFO, "clients were closed, their tokens having ended (4401)"),
        Reason::Access => {
            (Level::INFO, "clients were closed by access control (4400, 4403, 4408); see ringyard_auth_refused_total")
        }
        Reason::SessionTaken => (Level::DEBUG, "clients went on over another connection (4409)"),
        Reason::ProxyHeader => (Level::WARN, "connections of trusted proxies began without a PROXY header"),
        Reason::Limit => (
            Level::WARN,
            "publishers were closed, their topic having no room for a message (1008); see history-messages, history-bytes, --max-keys",
        ),
        Reason::Rate => (Level::WARN, "publishers were closed, being faster than --max-publish-rate (1008)"),
        Reason::Tls => (Level::INFO, "connections were closed, TLS having failed; see ringyard_tls_failures_total"),
        Reason::Reset => (Level::DEBUG, "connections were reset by the peer or the network"),
        Reason::Handover => (Level::WARN, "HTTP connections were dropped: the control plane has too many to take"),
        Reason::Adoption => (Level::WARN, "WebSockets were dropped: no descriptor was free; see --max-connections"),
    })
}

fn of_refusal(cause: Refused) -> (Level, &'static str) {
    match cause {
        Refused::Host => (Level::WARN, "requests for a foreign host were refused (421); see --allow-host"),
        Refused::Origin => (Level::WARN, "pages of a foreign origin were refused (403); see --allow-origin"),
        Refused::Publish => {
            (Level::WARN, "requests to publish were refused (401, 403); see --publish-key and --client-publish")
        }
        Refused::Access => {
            (Level::INFO, "requests were refused by access control (401, 403); see ringyard_auth_refused_total")
        }
        Refused::Connections => {
            (Level::WARN, "clients were refused, the broker being full (503); see --max-connections")
        }
        Refused::Address => {
            (Level::WARN, "clients were refused, having too many connections (429); see --max-connections-per-address")
        }
        Refused::AcceptRate => (Level::WARN, "clients were refused, too many coming at once (503); see --accept-rate"),
        Refused::Draining => (Level::INFO, "clients were refused, the broker going away (503)"),
        Refused::Topics => (Level::WARN, "topics were refused, there being too many (503); see --max-topics"),
        Refused::Memory => (Level::WARN, "requests were refused, memory being short (503); see --max-memory"),
        Refused::Overload => (Level::WARN, "requests were refused, the broker having too much to do (503)"),
        Refused::Request => (Level::INFO, "malformed or misplaced requests were refused"),
    }
}

/// What is no fault of anybody's, and slows the broker.
struct Strain {
    reason: &'static str,
    level: Level,
    what: &'static str,
    count: fn(&Snapshot) -> u64,
}

const STRAINS: [Strain; 6] = [
    Strain {
        reason: "forbidden",
        level: Level::INFO,
        what: "commands were refused, because nothing grants them ([[allow]], or --client-publish off)",
        count: |counted| counted.commands_forbidden,
    },
    Strain {
        reason: "publish_rate",
        level: Level::WARN,
        what: "publishes were refused, coming faster than --max-publish-rate",
        count: |counted| counted.commands_limited,
    },
    Strain {
        reason: "no_buffers",
        level: Level::INFO,
        what: "receives found no free buffer (ENOBUFS) and began again",
        count: |counted| counted.no_buffers,
    },
    Strain {
        reason: "queue_full",
        level: Level::INFO,
        what: "batches waited for another shard's full queue",
        count: |counted| counted.queues_full,
    },
    Strain {
        reason: "completion_overflow",
        level: Level::INFO,
        what: "completion queues overflowed; the kernel kept what did not fit",
        count: |counted| counted.completion_overflows,
    },
    Strain {
        reason: "submission_full",
        level: Level::DEBUG,
        what: "submission queues were full within a turn and submitted early",
        count: |counted| counted.submission_full,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_once_a_look_with_its_count() {
        let before = Snapshot { refused_origin: 3, dropped_slow: 1, ..Snapshot::default() };
        let now = Snapshot { refused_origin: 1003, dropped_slow: 1, no_buffers: 7, ..before };
        let first = |cause| (cause == Refused::Origin).then(|| "https://evil.example".to_owned());
        let logged = occurrences(&before, &now, first);
        let logged: Vec<_> = logged
            .iter()
            .map(|occurrence| (occurrence.event, occurrence.reason, occurrence.count, occurrence.first.as_deref()))
            .collect();
        let expected = [("refused", "origin", 1000, Some("https://evil.example")), ("strained", "no_buffers", 7, None)];
        assert_eq!(logged, expected);
        assert_eq!(occurrences(&now, &now, first), []);
    }

    #[test]
    fn each_cause_of_a_denial_is_logged_with_its_count() {
        let (before, now) = ([("a", "x", 3), ("b", "y", 1)], [("a", "x", 3), ("b", "y", 8)]);
        assert_eq!(denials(&before, &now).collect::<Vec<_>>(), [("b", "y", 7)]);
    }

    #[test]
    fn what_an_option_changes_is_a_warning_that_names_it() {
        for cause in Refused::ALL.iter().filter(|cause| **cause != Refused::Overload) {
            let (level, what) = of_refusal(*cause);
            assert_eq!(level == Level::WARN, what.contains("see --"), "{what}");
        }
        let logged = Reason::ALL.iter().filter_map(|reason| of_end(*reason));
        assert!(logged.filter(|(level, _)| *level == Level::WARN).count() == 7);
    }

    #[test]
    fn what_is_logged_elsewhere_is_not_logged_twice() {
        let now = Snapshot { refused: 5, refused_request: 5, handed_over: 9, closed: 14, ..Snapshot::default() };
        let logged: Vec<_> =
            occurrences(&Snapshot::default(), &now, |_| None).iter().map(|occurrence| occurrence.reason).collect();
        assert_eq!(logged, ["request"]);
    }
}
