//! The phases of a run, and the end of its workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::rows::State;
use super::{Run, warn};
use crate::clock::monotonic;
use crate::outcome::{Errors, Phase, add_streams, histogram};
use crate::usage::Server;
use crate::worker::{Command, Final, HistoryPart, Part, SlowPart, TermsPart, Times, TlsPart};

/// After the last subscription: what the server still does for it belongs to admission.
const SETTLE: Duration = Duration::from_millis(300);
/// Between the command and the first message.
const HEAD_START_NS: u64 = 50_000_000;

/// The measured time.
pub(super) struct Measured {
    pub(super) times: Times,
    pub(super) from: State,
    pub(super) to: State,
    /// When the server ended or the last client was lost, if that was before the end.
    pub(super) ended_at: Option<u64>,
    /// Sends and messages that the server counted.
    pub(super) counters: Option<(u64, u64)>,
}

impl Measured {
    /// Of a run that ended while connecting.
    pub(super) fn nothing(state: &State) -> Self {
        let times = Times { begin: state.at, measure_from: state.at, end: state.at };
        Self { times, from: state.clone(), to: state.clone(), ended_at: None, counters: None }
    }

    /// Without what came after the end of the server or of all connections.
    pub(super) fn seconds(&self) -> f64 {
        let end = self.ended_at.map_or(self.to.at, |ended| ended.min(self.to.at));
        end.saturating_sub(self.from.at) as f64 / 1e9
    }
}

impl Run {
    pub(super) fn connect(&mut self) -> Result<()> {
        while !self.incomplete.is_empty() && !self.stopped() {
            self.wait(self.next_row)?;
            self.check_progress();
        }
        let until = monotonic() + SETTLE.as_nanos() as u64;
        self.wait_until(until)?;
        self.row()?;
        Ok(())
    }

    /// Warm-up and measurement.
    pub(super) fn measure(&mut self) -> Result<Measured> {
        let options = &self.plan.options;
        let soon = monotonic() + HEAD_START_NS;
        let begin = self.plan.start_at().map_or(soon, |at| at.max(soon));
        if let Some(at) = self.plan.start_at().filter(|at| *at < soon) {
            let late = (soon - at) as f64 / 1e9;
            warn(&format!("--start-at was {late:.1} s ago when all were connected: this process begins now"));
        }
        let measure_from = begin + options.warmup.as_nanos() as u64;
        let mut times = Times { begin, measure_from, end: measure_from + options.duration.as_nanos() as u64 };
        if self.interrupted {
            times = Times { begin, measure_from: begin, end: begin };
        }
        self.send_all(&Command::Begin(self.until_logged_in(times)));
        self.phase = Phase::WarmUp;
        self.wait_until(times.measure_from)?;
        self.row()?;
        let from = self.last.clone();
        let counters_from = self.server.as_ref().and_then(Server::counters);
        self.phase = Phase::Measure;
        let storms = u64::from(self.plan.options.storms.unwrap_or(0));
        for storm in 1..=storms {
            self.wait_until(times.measure_from + (times.end - times.measure_from) * storm / (storms + 1))?;
            if !self.is_over() {
                self.missing_since = Some(monotonic());
                self.unstormed += self.shared.commands.len();
                self.send_all(&Command::Storm);
            }
        }
        self.wait_until(times.end)?;
        self.log_in()?;
        let ended_at = self.ended.as_ref().map(|(at, _)| *at);
        if self.storm.is_some() {
            times.end = times.end.max(monotonic());
        }
        if self.interrupted || ended_at.is_some() || self.storm.is_some() {
            times.end = times.end.min(ended_at.unwrap_or_else(monotonic));
            self.send_all(&Command::Begin(times));
        }
        self.row()?;
        let to = self.last.clone();
        // A server without counters then is not asked again.
        let counters_to = counters_from.and(self.server.as_ref()).and_then(Server::counters);
        let counters =
            counters_from.zip(counters_to).map(|(from, to)| (to.0.saturating_sub(from.0), to.1.saturating_sub(from.1)));
        Ok(Measured { times, from, to, ended_at, counters })
    }

    /// From here on it is known how many messages there are.
    pub(super) fn end_publishing(&mut self) -> Result<()> {
        self.phase = Phase::Drain;
        self.send_all(&Command::Published);
        while self.published_workers < self.shared.commands.len() {
            self.wait(self.next_row)?;
        }
        Ok(())
    }

    pub(super) fn drain(&mut self) -> Result<()> {
        let last = Arc::new(self.final_counts());
        self.send_all(&Command::Drain(last));
        while self.drained_workers < self.shared.commands.len() && !self.stopped_twice() {
            self.wait(self.next_row)?;
        }
        // One state more: the last rows' errors and broadcast.
        self.row()
    }

    fn final_counts(&self) -> Final {
        let streams = self.plan.streams as usize;
        let all_known = self.plan.options.share.of == 1;
        let mut published = vec![if all_known { 0 } else { u64::MAX }; streams];
        for (stream, count) in &self.published {
            published[*stream as usize] = *count;
        }
        let can = self.plan.adapter.abilities();
        let wire = (can.discard && self.plan.verifying < 1.0 && all_known && streams > 0).then(|| {
            let mut wire = vec![0; self.plan.topics as usize];
            for (stream, count) in &self.published {
                wire[self.plan.topic_of(*stream) as usize] += self.wire_bytes(*stream, *count);
            }
            wire
        });
        Final { published, wire, interrupted: self.interrupted || self.ended.is_some() }
    }

    /// Ends all workers and puts their parts together.
    pub(super) fn finish(&mut self) -> Part {
        self.send_all(&Command::Finish);
        let mut sum = Part {
            errors: Errors::default(),
            gaps: 0,
            latency: histogram(),
            admission: histogram(),
            lateness: histogram(),
            streams: BTreeMap::new(),
            slow: SlowPart::default(),
            terms: TermsPart::default(),
            tls: None,
            logins: None,
            history: HistoryPart::new(),
        };
        for thread in self.threads.drain(..) {
            let Some(part) = thread.join().expect("a worker does not panic") else { continue };
            sum.errors.add(&part.errors);
            sum.gaps += part.gaps;
            for (all, one) in [
                (&mut sum.latency, &part.latency),
                (&mut sum.admission, &part.admission),
                (&mut sum.lateness, &part.lateness),
            ] {
                all.add(one).expect("the same bounds");
            }
            add_streams(&mut sum.streams, &part.streams);
            sum.slow.add(&part.slow);
            sum.terms.add(&part.terms);
            sum.logins = sum.logins.take().or(part.logins);
            if let Some(part) = &part.tls {
                sum.tls.get_or_insert_with(|| Box::new(TlsPart::new())).add(part);
            }
            sum.history.add(&part.history);
        }
        sum
    }
}
