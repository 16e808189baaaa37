//! Judges an outcome: counts what was lost, and sums up the run in one line.
//!
//! Not responsible for whether loadgen was the limit (`run` fills [`Outcome::invalid`]) nor for thresholds
//! ([`crate::threshold`] fills [`Outcome::crossed`]).
//!
//! A message is lost to a verifying client when a later one of its stream came instead (a gap, counted at once), or when
//! the client still expected it at the end of the run. Only the process that published on a stream knows its end: a share
//! of a run judges what it knows, `merge` the rest.

use std::fmt;

use crate::format;
use crate::outcome::{Errors, Outcome};

/// Sets [`Errors::lost`] and [`Errors::beyond`] from the streams. Doing it twice changes nothing.
pub fn judge(outcome: &mut Outcome) {
    let mut lost = outcome.traffic.gaps;
    let mut beyond = 0_u64;
    for stream in outcome.streams.values().filter(|stream| stream.published > 0) {
        for (next, clients) in &stream.reached {
            lost = lost.saturating_add(stream.published.saturating_sub(*next).saturating_mul(*clients));
            beyond = beyond.saturating_add(next.saturating_sub(stream.published).saturating_mul(*clients));
        }
    }
    let errors = &mut outcome.errors;
    errors.lost = lost;
    errors.corrupt = errors.corrupt.saturating_sub(errors.beyond).saturating_add(beyond);
    errors.beyond = beyond;
}

/// The verdict. Its `Display` is the last line of every report.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Errors of the server and crossed thresholds, each as a short sentence: exit status 1.
    pub failures: Vec<String>,
    /// Loadgen was the limit: the figures say little about the server.
    pub invalid: Vec<String>,
    /// Ended by a signal: the figures are of the time before.
    pub interrupted: bool,
    /// Remarks: shares missing.
    pub notes: Vec<String>,
}

impl Verdict {
    /// The verdict on an outcome after [`judge`].
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        let ends = [&outcome.stalled, &outcome.ended].into_iter().flatten();
        let mut failures: Vec<_> = ends.map(|sentence| format::plain(sentence)).collect();
        failures.extend(kinds(&outcome.errors).iter().map(Kind::in_words));
        failures.extend(outcome.crossed.iter().map(|sentence| format::plain(sentence)));
        let mut notes = Vec::new();
        // Otherwise that is the verdict itself.
        if outcome.interrupted && !failures.is_empty() {
            notes.push("interrupted: the figures are of the time before".into());
        }
        let shares = outcome.run.share.1;
        if shares > outcome.parts.max(1) {
            notes.push(format!("{} of {shares} shares: loss is judged by `merge` of all", outcome.parts.max(1)));
        }
        let invalid = outcome.invalid.iter().map(|why| format::plain(why)).collect();
        Self { failures, invalid, interrupted: outcome.interrupted, notes }
    }

    /// Something was lost, duplicated, reordered, corrupt, refused or closed, or a threshold was crossed.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// `valid`, `INVALID`, `INTERRUPTED` or `FAILED`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match () {
            () if self.failed() => "FAILED",
            () if self.interrupted => "INTERRUPTED",
            () if !self.invalid.is_empty() => "INVALID",
            () => "valid",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        let limit = || format!("loadgen was the bottleneck: {}", self.invalid.join("; "));
        if self.word() == "INTERRUPTED" {
            f.write_str(": the figures are of the time before")?;
        }
        if self.failed() {
            write!(f, ": {}", self.failures.join(", "))?;
            if !self.invalid.is_empty() {
                write!(f, "; and INVALID: {}", limit())?;
            }
        } else if !self.invalid.is_empty() {
            write!(f, "{} {}", if self.interrupted { ";" } else { ":" }, limit())?;
        }
        if !self.notes.is_empty() {
            write!(f, " ({})", self.notes.join("; "))?;
        }
        Ok(())
    }
}

/// One kind of error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kind {
    /// A word for it, as in `12 lost`.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// How many. Not 0.
    pub count: u64,
    /// By reason or close code, the most frequent first. Empty when there is nothing to tell apart.
    pub details: Vec<(String, u64)>,
}

impl Kind {
    /// `12 lost`.
    #[must_use]
    pub fn in_words(&self) -> String {
        format!("{} {}", format::count(self.count), self.name)
    }
}

/// The errors that there are, by kind.
#[must_use]
pub fn kinds(errors: &Errors) -> Vec<Kind> {
    let plain = |name, meaning, count| Kind { name, meaning, count, details: Vec::new() };
    let detailed = |name, meaning, counts: Vec<(String, u64)>| {
        let mut details = counts;
        details.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let count = details.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        Kind { name, meaning, count, details }
    };
    let reasons = |of: &std::collections::BTreeMap<String, u64>| {
        of.iter().map(|(reason, count)| (format::plain(reason), *count)).collect()
    };
    let mut corrupt =
        plain("corrupt", "messages with the wrong length, filler or topic, or that nobody published", errors.corrupt);
    if errors.beyond > 0 {
        corrupt.details = vec![
            ("that nobody published".into(), errors.beyond),
            ("damaged".into(), errors.corrupt.saturating_sub(errors.beyond)),
        ];
        corrupt.details.retain(|(_, count)| *count > 0);
    }
    let mut kinds = vec![
        plain("lost", "messages that a subscriber never got", errors.lost),
        plain("duplicated", "messages that came again", errors.doubled),
        plain("reordered", "messages that came after a later one of their stream", errors.reordered),
        corrupt,
        plain("miscounted", "clients that received a wrong number of bytes", errors.miscounted),
        plain("untrue", "answers about recovery that were not true", errors.untrue),
        plain("misnumbered", "messages or gaps whose offsets are not the next", errors.misnumbered),
        plain("stale", "keys of which a subscriber did not get the newest message", errors.stale),
        plain("unthrottled", "subscriptions that got more deliveries than their throttle allows", errors.unthrottled),
        detailed("refused", "clients that never became subscribed", reasons(&errors.refused)),
        detailed("closed", "connections that the server closed", by_code(&errors.closed)),
        detailed("broken", "protocol errors, or error messages of the server", reasons(&errors.broken)),
        detailed("publishers lost", "publishing connections that ended", reasons(&errors.publishers)),
    ];
    kinds.retain(|kind| kind.count > 0);
    kinds
}

/// Close codes with their meaning, in words.
#[must_use]
pub fn by_code(codes: &std::collections::BTreeMap<u16, u64>) -> Vec<(String, u64)> {
    codes.iter().map(|(code, count)| (close_code(*code), *count)).collect()
}

/// RFC 6455 section 7.4.1 and the registry that it opened.
fn close_code(code: u16) -> String {
    let meaning = match code {
        1000 => "normal closure",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unacceptable data",
        1005 => "no code",
        1006 => "no close frame",
        1007 => "invalid UTF-8",
        1008 => "policy violation",
        1009 => "message too big",
        1010 => "extension missing",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        4000..=4999 => "the application's own",
        _ => return code.to_string(),
    };
    format!("{code} {meaning}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::outcome::Stream;

    fn outcome() -> Outcome {
        let mut outcome = Outcome { parts: 1, ..Outcome::default() };
        outcome.traffic.gaps = 5;
        outcome.errors.corrupt = 2;
        outcome.streams = BTreeMap::from([
            (0, Stream { published: 10, reached: BTreeMap::from([(10, 90), (8, 3)]) }),
            (1, Stream { published: 0, reached: BTreeMap::from([(7, 4)]) }),
            (2, Stream { published: 4, reached: BTreeMap::from([(4, 1), (6, 2)]) }),
        ]);
        outcome
    }

    #[test]
    fn loss_is_gaps_and_missing_ends_and_judging_twice_changes_nothing() {
        let mut outcome = outcome();
        judge(&mut outcome);
        assert_eq!((outcome.errors.lost, outcome.errors.corrupt, outcome.errors.beyond), (5 + 6, 2 + 4, 4));
        let once = outcome.errors.clone();
        judge(&mut outcome);
        assert_eq!(outcome.errors, once);
        // Knowing better later takes back what was wrong.
        outcome.streams.get_mut(&2).unwrap().published = 6;
        judge(&mut outcome);
        assert_eq!((outcome.errors.lost, outcome.errors.corrupt, outcome.errors.beyond), (5 + 6 + 2, 2, 0));
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let mut outcome = outcome();
        outcome.streams.insert(9, Stream { published: u64::MAX, reached: BTreeMap::from([(0, u64::MAX)]) });
        outcome.streams.insert(8, Stream { published: 1, reached: BTreeMap::from([(u64::MAX, u64::MAX)]) });
        judge(&mut outcome);
        assert_eq!((outcome.errors.lost, outcome.errors.beyond), (u64::MAX, u64::MAX));
        assert_eq!(outcome.errors.total(), u64::MAX);
    }

    #[test]
    fn the_last_line_says_it_all() {
        let mut outcome = Outcome { parts: 1, ..Outcome::default() };
        assert_eq!(Verdict::of(&outcome).to_string(), "valid");
        outcome.invalid.push("worker 1 used 99 % of its core".into());
        let line = Verdict::of(&outcome).to_string();
        assert_eq!(line, "INVALID: loadgen was the bottleneck: worker 1 used 99 % of its core");
        assert!(!Verdict::of(&outcome).failed());
        outcome.invalid.clear();
        outcome.errors.lost = 1200;
        outcome.errors.closed = BTreeMap::from([(1006, 1), (1011, 3)]);
        outcome.errors.shed = BTreeMap::from([(1008, 30)]);
        outcome.interrupted = true;
        let verdict = Verdict::of(&outcome);
        assert!(verdict.failed());
        assert_eq!(
            verdict.to_string(),
            "FAILED: 1,200 lost, 4 closed (interrupted: the figures are of the time before)"
        );
        let stopped = Outcome { parts: 1, interrupted: true, ..Outcome::default() };
        assert_eq!(Verdict::of(&stopped).to_string(), "INTERRUPTED: the figures are of the time before");
        let full = "the server took 100 of 150 clients: no new client in 5.02 s";
        let stalled = Outcome { parts: 1, stalled: Some(full.into()), ..Outcome::default() };
        assert_eq!(Verdict::of(&stalled).to_string(), format!("FAILED: {full}"));
        let closed = &kinds(&outcome.errors)[1];
        assert_eq!(closed.details, [("1011 internal error".into(), 3), ("1006 no close frame".into(), 1)]);
    }
}
