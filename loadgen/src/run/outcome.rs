//! Makes the outcome of what a run observed.

use super::Run;
use super::bottleneck::busiest;
use super::phases::Measured;
use super::rows::Usage;
use crate::outcome::{
    Answer, Connect, FORMAT, History, Latencies, Memory, Outcome, Own, ServerUse, Slow, Terms, Tls, Traffic,
};
use crate::plan::Pacing;
use crate::verdict;
use crate::worker::{Broadcast, HistoryPart, Part, SlowPart, TermsPart, TlsPart};

/// What a run observed, beside its series.
pub(super) struct Observed {
    /// Cores that this program may run on.
    pub(super) cores: u32,
    /// The last worker is that of the logins, whose figures are its own.
    pub(super) logs_in: bool,
    pub(super) connect: Connect,
    /// Before the first connection, when all were connected, and at the end of the measured time.
    pub(super) before: Usage,
    pub(super) connected: Usage,
    pub(super) after: Usage,
    /// This program's memory, before the first connection and at the end of the measured time.
    pub(super) own_before: Memory,
    pub(super) own_after: Memory,
    pub(super) measured: Measured,
    pub(super) part: Part,
}

impl Run {
    pub(super) fn outcome(&mut self, observed: Observed) -> Outcome {
        let (own, server, traffic) = (own(&observed), self.server_use(&observed), self.traffic(&observed));
        let Observed { connect, measured, part, .. } = observed;
        let logins = self.storm.as_ref().and_then(|storm| {
            let (reused, server) = (self.plan.options.access.token_reuse, self.server.is_some());
            storm.outcome(&measured.from, reused, server, part.logins.as_deref())
        });
        let total = self.last.counts;
        let latency = Latencies::of(&part.latency);
        let mut outcome = Outcome {
            format: FORMAT,
            run: self.facts.clone(),
            connect: Connect {
                retries: total.retries,
                reopened: total.reopened,
                storm_seconds: std::mem::take(&mut self.storm_seconds),
                ..connect
            },
            seconds: measured.seconds(),
            traffic,
            admission: Latencies::of(&part.admission),
            series: std::mem::take(&mut self.series),
            errors: part.errors,
            streams: part.streams,
            own,
            server,
            slow: self.slow(&part.slow),
            terms: terms(&part.terms),
            tls: part.tls.as_deref().map(|part| tls(part, self.plan.options.access.tls_insecure)),
            history: self.history(&part.history),
            logins,
            stalled: self.stall_in_words(),
            ended: self.ended.take().map(|(_, why)| why),
            interrupted: self.interrupted,
            parts: 1,
            ..Outcome::default()
        };
        outcome.invalid = self.bottlenecks(&outcome, &latency, measured.times);
        outcome.latency = latency;
        verdict::judge(&mut outcome);
        outcome
    }

    fn traffic(&self, Observed { measured: Measured { from, to, .. }, part, .. }: &Observed) -> Traffic {
        let (total, broadcast) = (self.last.counts, self.lone_broadcast());
        Traffic {
            published: total.published,
            published_measured: to.counts.published - from.counts.published,
            delivered: self.delivered(&to.counts) - self.delivered(&from.counts),
            delivered_total: self.delivered(&total),
            bytes: to.counts.bytes - from.counts.bytes,
            receives: to.counts.receives - from.counts.receives,
            pings: total.pings,
            gaps: part.gaps,
            lateness_p99_ns: if part.lateness.is_empty() { 0 } else { part.lateness.value_at_quantile(0.99) },
            last_first_ns: broadcast.map_or(0, |(first, _)| first),
            last_last_ns: broadcast.map_or(0, |(_, last)| last),
        }
    }

    /// From the publication of the last message until the first and until the last subscriber had it, if no message before
    /// it was still on its way.
    fn lone_broadcast(&self) -> Option<(u64, u64)> {
        let Pacing::Open(rate) = self.plan.pacing else { return None };
        let Broadcast { published, first, last } = self.broadcast;
        let (first, last) = (first.checked_sub(published)?, last.checked_sub(published)?);
        let apart = f64::from(self.plan.options.burst) / rate * 1e9;
        (published > 0 && (last as f64) < apart).then_some((first, last))
    }

    fn slow(&self, part: &SlowPart) -> Option<Slow> {
        let since = |unix_ns: u64| unix_ns.saturating_sub(self.plan.clock.unix(self.started)) as f64 / 1e9;
        (self.facts.slow > 0).then(|| Slow {
            behind: part.behind,
            behind_messages: part.behind_messages,
            closed: part.closed.clone(),
            cut_off: part.cut_off_ns.map(|(first, last)| (since(first), since(last))),
        })
    }

    fn history(&mut self, part: &HistoryPart) -> Option<History> {
        let arrivals = std::mem::take(&mut self.arrivals);
        let history = History { catch_up: Latencies::of(&part.catch_up), arrivals, ..part.counts.clone() };
        (self.plan.recovers() || self.plan.late() || !history.is_empty()).then_some(history)
    }

    fn server_use(&self, Observed { before, connected, after, measured, .. }: &Observed) -> Option<ServerUse> {
        let Measured { from, to, counters, .. } = measured;
        self.server.as_ref().map(|server| ServerUse {
            pid: server.pid(),
            connect_cpu_ns: connected.server_cpu_ns.saturating_sub(before.server_cpu_ns),
            cpu_ns: to.server_cpu_ns.saturating_sub(from.server_cpu_ns),
            memory_before: before.server_memory,
            memory_connected: connected.server_memory,
            memory_after: after.server_memory,
            ended_at: self.server_ended_at.map(|at| at.saturating_sub(self.started) as f64 / 1e9),
            lived: self.server_ended_at.map(|at| at.clamp(from.at, to.at) as f64 / 1e9 - from.at as f64 / 1e9),
            sends: counters.map(|(sends, _)| sends),
            messages: counters.map(|(_, messages)| messages),
        })
    }
}

fn terms(part: &TermsPart) -> Option<Terms> {
    let answer = |(&(policy, throttle_ms), &subscriptions): (&(_, _), &_)| Answer {
        slow_consumer: crate::adapter::SlowConsumer::name(policy).to_owned(),
        throttle_ms,
        subscriptions,
    };
    let TermsPart { answers, conflated, subscriptions, deliveries } = part;
    (!answers.is_empty()).then(|| Terms {
        answers: answers.iter().map(answer).collect(),
        conflated: *conflated,
        subscriptions: *subscriptions,
        deliveries: *deliveries,
    })
}

fn tls(part: &TlsPart, unchecked: bool) -> Tls {
    let sum =
        |wanted: bool| part.handshakes.iter().filter(|((_, resumed), _)| *resumed == wanted).map(|(_, n)| n).sum();
    let mut tls = Tls { full: sum(false), resumed: sum(true), unchecked, ..Tls::default() };
    for ((version, _), count) in &part.handshakes {
        *tls.versions.entry((*version).to_owned()).or_default() += count;
    }
    tls.handshake = Latencies::of(&part.took);
    tls
}

fn own(Observed { cores, logs_in, before, connected, own_before, own_after, measured, .. }: &Observed) -> Own {
    let cpu_ns = measured.to.own_cpu_ns - measured.from.own_cpu_ns;
    Own {
        cpu_ns,
        connect_cpu_ns: connected.own_cpu_ns - before.own_cpu_ns,
        cpu_share: cpu_ns as f64 / 1e9 / measured.seconds().max(1e-9) / f64::from((*cores).max(1)),
        busiest_worker: busiest(&measured.from, &measured.to, *logs_in),
        memory_before: *own_before,
        memory_after: *own_after,
    }
}
