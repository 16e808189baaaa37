//! Samples of a family, as lines of Prometheus's text format.

use std::fmt::{Display, Write};

use crate::observe::counters::{Distribution, Snapshot};

/// Where a family's samples go.
pub(super) struct Samples<'a> {
    pub(super) name: &'static str,
    /// Those that every sample has.
    pub(super) labels: &'static [&'static str],
    pub(super) out: &'a mut String,
}

impl Samples<'_> {
    pub(super) fn value(&mut self, value: impl Display) {
        self.labelled(&[], value);
    }

    pub(super) fn optional(&mut self, value: Option<impl Display>) {
        value.into_iter().for_each(|value| self.value(value));
    }

    pub(super) fn labelled(&mut self, labels: &[(&str, &str)], value: impl Display) {
        debug_assert!(labels.iter().map(|(label, _)| label).eq(self.labels), "{} is not described so", self.name);
        self.line("", labels, value);
    }

    pub(super) fn by_shard(&mut self, shards: &[Snapshot], value: fn(&Snapshot) -> u64) {
        for (id, shard) in shards.iter().enumerate() {
            self.labelled(&[("shard", &id.to_string())], value(shard));
        }
    }

    pub(super) fn by_reason(&mut self, reasons: impl Iterator<Item = (&'static str, u64)>) {
        reasons.for_each(|(reason, count)| self.labelled(&[("reason", reason)], count));
    }

    /// A distribution whose values are written divided by `unit`. Its buckets exclude their end, Prometheus's include it:
    /// `last` is the largest value below an end.
    pub(super) fn distribution(&mut self, all: &Distribution, unit: f64, last: fn(u64) -> u64) {
        // One look at each bucket, so that the last of these lines and the count agree.
        for (end, below) in all.cumulative() {
            self.line("_bucket", &[("le", &(last(end) as f64 / unit).to_string())], below);
        }
        let count = all.count();
        self.line("_bucket", &[("le", "+Inf")], count);
        self.line("_sum", &[], all.sum as f64 / unit);
        self.line("_count", &[], count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value}");
    }
}
