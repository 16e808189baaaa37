//! The figures of a comparison: for each broker and figure the median and the spread of the runs, and what went wrong.
//!
//! Not responsible for showing them (`page`, `charts`).

use std::collections::BTreeMap;

use loadgen::format;
use loadgen::outcome::Outcome;
use loadgen::verdict;

use super::capacity::{self, Try};
use super::load::DISTURBED;
use super::plan::{PERCENTS, Row, SUBSCRIBERS, TOPICS_PERCENT, WINDOWS};
use super::record::{Comparison, Participant, Run};

/// Which values are better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Better {
    More,
    Less,
    /// The figure only explains others.
    Neither,
}

/// Computes a figure of an outcome.
type Metric = fn(&Outcome) -> Option<f64>;

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Runs(Metric),
    /// The capacity that was found.
    Search,
}

/// One figure of every broker.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) title: String,
    pub(super) key: String,
    source: Source,
    pub(super) better: Better,
    pub(super) show: fn(f64) -> String,
}

/// The figure of one broker.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) runs: usize,
    /// Runs in which the load generator was the limit.
    pub(super) invalid: usize,
}

impl Figure {
    fn of(mut values: Vec<f64>, invalid: usize) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Some(Self { median, least, most, runs: values.len(), invalid })
    }
}

impl Column {
    fn of(
        title: impl Into<String>,
        key: impl Into<String>,
        better: Better,
        show: fn(f64) -> String,
        metric: Metric,
    ) -> Self {
        Self { title: title.into(), key: key.into(), source: Source::Runs(metric), better, show }
    }

    fn capacity(key: &str) -> Self {
        let title = "capacity, published/s".to_owned();
        Self { title, key: key.to_owned(), source: Source::Search, better: Better::More, show: format::number }
    }

    /// The figure of a broker, if there is one.
    pub(super) fn figure(&self, comparison: &Comparison, peer: &str) -> Option<Figure> {
        match self.source {
            Source::Search => {
                let tries = tries(comparison, &self.key, peer);
                let above = tries.iter().filter(|(_, good)| !good).map(|(rate, _)| *rate).reduce(f64::min);
                let rate = capacity::highest(&tries)?;
                let invalid =
                    comparison.runs_of(&self.key, peer).filter(|run| Some(rate) < run.rate && is_invalid(run)).count();
                Some(Figure { median: rate, least: rate, most: above.unwrap_or(rate), runs: 1, invalid })
            }
            Source::Runs(metric) => {
                let runs: Vec<_> = comparison.runs_of(&self.key, peer).collect();
                let values = runs.iter().filter_map(|run| metric(run.outcome.as_ref()?)).collect();
                Figure::of(values, runs.iter().filter(|run| is_invalid(run)).count())
            }
        }
    }

    /// The median, with the least and the most in brackets.
    pub(super) fn cell(&self, comparison: &Comparison, participant: &Participant) -> String {
        if let Some((_, why)) = participant.cannot.iter().find(|(key, _)| *key == self.key) {
            return format!("({why})");
        }
        let median = self.median(comparison, participant);
        let (Some(figure), show) = (self.figure(comparison, &participant.name), self.show) else { return median };
        match self.source {
            Source::Search if figure.most > figure.median => format!("{median} (not {})", show(figure.most)),
            Source::Search => format!("{median} or more"),
            Source::Runs(_) if figure.runs > 1 => format!("{median} ({}–{})", show(figure.least), show(figure.most)),
            Source::Runs(_) => median,
        }
    }

    /// The median alone: bold if it is the best, with a star if the load generator was the limit, a dash if there is none.
    pub(super) fn median(&self, comparison: &Comparison, participant: &Participant) -> String {
        let Some(figure) = self.figure(comparison, &participant.name) else { return "–".to_owned() };
        let mark = if figure.invalid > 0 { "\\*" } else { "" };
        let median = (self.show)(figure.median);
        if self.is_best(comparison, &figure) { format!("**{median}**{mark}") } else { format!("{median}{mark}") }
    }

    /// Whether no median is better.
    fn is_best(&self, comparison: &Comparison, figure: &Figure) -> bool {
        let all = comparison.participants.iter().filter_map(|other| self.figure(comparison, &other.name));
        !all.map(|other| other.median).any(|other| match self.better {
            Better::More => other > figure.median,
            Better::Less => other < figure.median,
            Better::Neither => true,
        })
    }
}

/// The columns of a row's table.
pub(super) fn columns(row: Row) -> Vec<Column> {
    use Better::{Less, More, Neither};
    let count: fn(f64) -> String = format::number;
    match row {
        Row::Saturation => WINDOWS
            .iter()
            .flat_map(|window| {
                let key = format!("saturation-{window}");
                [
                    Column::of(format!("delivered/s, {window} outstanding"), &key, More, count, delivered),
                    Column::of(format!("CPU per message, {window}"), &key, Less, format::time, cpu),
                    Column::of(format!("p99, {window}"), &key, Less, format::time, p99),
                ]
            })
            .collect(),
        Row::Bursts => vec![
            Column::of("delivered/s", "bursts", More, count, delivered),
            Column::of("CPU per message", "bursts", Less, format::time, cpu),
            Column::of("p99", "bursts", Less, format::time, p99),
        ],
        Row::Cpu => {
            let title = |clients: u32| format!("{} subscribers", format::count(clients.into()));
            let mut columns: Vec<_> = SUBSCRIBERS
                .iter()
                .map(|clients| Column::of(title(*clients), format!("cpu-{clients}"), Less, format::time, cpu))
                .collect();
            columns.push(Column::of("receives per message, 5,000", "cpu-5000", Neither, count, receives));
            columns
        }
        Row::Latency => {
            let mut columns = vec![Column::capacity("latency-capacity")];
            for percent in PERCENTS {
                let key = format!("latency-{percent}");
                let of =
                    |name: &str, metric| Column::of(format!("{name} at {percent} %"), &key, Less, format::time, metric);
                columns.extend([of("p50", p50), of("p99", p99), of("p99.9", p999)]);
            }
            columns
        }
        Row::Idle => vec![
            Column::of("memory per connection", "idle", Less, format::bytes, memory),
            Column::of("seconds to admit all", "idle", Less, format::seconds, admission_seconds),
            Column::of("CPU per admission", "idle", Less, format::time, admission_cpu),
        ],
        Row::Topics => {
            let key = format!("topics-{TOPICS_PERCENT}");
            let at = format!("at {TOPICS_PERCENT} %");
            vec![
                Column::capacity("topics-capacity"),
                Column::of(format!("CPU per message {at}"), &key, Less, format::time, cpu),
                Column::of(format!("p50 {at}"), &key, Less, format::time, p50),
                Column::of(format!("p99 {at}"), &key, Less, format::time, p99),
            ]
        }
    }
}

/// The columns of the README's short table.
pub(super) fn main_columns() -> [Column; 5] {
    let pick = |row: Row, at: usize, title: &str| Column { title: title.to_owned(), ..columns(row).swap_remove(at) };
    [
        pick(Row::Saturation, 0, "delivered/s, 4 outstanding"),
        pick(Row::Bursts, 0, "delivered/s, bursts of ten"),
        pick(Row::Cpu, 2, "CPU per message"),
        pick(Row::Latency, 5, "p99 latency"),
        pick(Row::Idle, 0, "memory per connection"),
    ]
}

fn delivered(outcome: &Outcome) -> Option<f64> {
    Some(outcome.delivered_per_second())
}

fn cpu(outcome: &Outcome) -> Option<f64> {
    outcome.server_ns_per_message()
}

fn p50(outcome: &Outcome) -> Option<f64> {
    latency(outcome, outcome.latency.p50)
}

fn p99(outcome: &Outcome) -> Option<f64> {
    latency(outcome, outcome.latency.p99)
}

fn p999(outcome: &Outcome) -> Option<f64> {
    latency(outcome, outcome.latency.p999)
}

fn latency(outcome: &Outcome, ns: u64) -> Option<f64> {
    (outcome.latency.count > 0).then_some(ns as f64)
}

/// Receives of the load generator per message: 1 when each came alone, less when one send carried several.
fn receives(outcome: &Outcome) -> Option<f64> {
    let traffic = &outcome.traffic;
    (traffic.delivered > 0).then(|| traffic.receives as f64 / traffic.delivered as f64)
}

/// Proportional set size of all processes, above what it was before the connections; after some idle seconds.
fn memory(outcome: &Outcome) -> Option<f64> {
    let server = outcome.server.as_ref()?;
    let grown = server.memory_after.pss as f64 - server.memory_before.pss as f64;
    (outcome.connect.opened > 0).then(|| grown / outcome.connect.opened as f64)
}

fn admission_seconds(outcome: &Outcome) -> Option<f64> {
    (outcome.connect.opened > 0).then_some(outcome.connect.seconds)
}

fn admission_cpu(outcome: &Outcome) -> Option<f64> {
    outcome.server_ns_per_admission()
}

/// The rates that a search tried.
pub(super) fn tries(comparison: &Comparison, key: &str, peer: &str) -> Vec<Try> {
    comparison.runs_of(key, peer).filter_map(|run| Some((run.rate?, run.sustained?))).collect()
}

/// The broker with the least capacity, and this capacity.
pub(super) fn slowest<'a>(comparison: &'a Comparison, key: &str) -> Option<(&'a Participant, f64)> {
    let found = comparison
        .participants
        .iter()
        .filter_map(|peer| Some((peer, capacity::highest(&tries(comparison, key, &peer.name))?)));
    found.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn is_invalid(run: &Run) -> bool {
    run.outcome.as_ref().is_some_and(|outcome| !outcome.invalid.is_empty())
}

/// Remarks on a broker's runs in a row: errors, failures, the load generator as the limit. Errors in searches are left out,
/// because searches go beyond what can be sustained.
pub(super) fn remarks(comparison: &Comparison, row: Row, peer: &str) -> Vec<String> {
    let runs: Vec<_> =
        comparison.runs.iter().filter(|run| run.row == row && run.peer == peer && run.sustained.is_none()).collect();
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for run in &runs {
        let mut note = |text: String| found.entry(text).or_default().push(&run.key);
        if let Some(failure) = &run.failure {
            note(format!("failed: {}", format::plain(failure)));
        }
        let Some(outcome) = &run.outcome else {
            continue;
        };
        for kind in verdict::kinds(&outcome.errors) {
            let details: Vec<_> = kind.details.iter().map(|(why, _)| format::plain(why)).collect();
            let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
            note(format!("{}{details}", kind.in_words()));
        }
        if !outcome.invalid.is_empty() {
            note("\\* the load generator was the limit".to_owned());
        }
        if run.others > DISTURBED {
            note(format!("other processes used more than {} of a core", format::percent(DISTURBED)));
        }
    }
    let mut remarks: Vec<_> = found
        .into_iter()
        .map(|(text, keys)| format!("{text} in {} of {} runs ({})", keys.len(), runs.len(), distinct(keys).join(", ")))
        .collect();
    let tries: Vec<_> =
        comparison.runs.iter().filter(|run| run.row == row && run.peer == peer && run.sustained.is_some()).collect();
    let limited = tries.iter().filter(|run| is_invalid(run)).count();
    if limited > 0 {
        remarks.push(format!("the load generator was the limit in {limited} of {} tries for capacity", tries.len()));
    }
    remarks
}

fn distinct(mut keys: Vec<&str>) -> Vec<&str> {
    keys.dedup();
    keys
}

/// A run as one line, while the comparison runs.
pub(super) fn in_a_line(run: &Run) -> String {
    let Some(outcome) = &run.outcome else {
        return format!("failed: {}", run.failure.as_deref().unwrap_or("unknown"));
    };
    let mut said = Vec::new();
    if let Some(rate) = run.rate {
        said.push(format!("{}/s published", format::number(rate)));
    }
    if outcome.traffic.delivered > 0 {
        said.push(format!("{}/s delivered", format::number(outcome.delivered_per_second())));
        said.extend(cpu(outcome).map(|ns| format!("{} each", format::time(ns))));
        said.extend(p99(outcome).map(|ns| format!("p99 {}", format::time(ns))));
    } else {
        said.push(format!("admitted in {}", format::seconds(outcome.connect.seconds)));
        said.extend(admission_cpu(outcome).map(|ns| format!("{} each", format::time(ns))));
        said.extend(memory(outcome).map(|bytes| format!("{} each", format::bytes(bytes))));
    }
    match run.sustained {
        Some(true) => said.push("sustained".to_owned()),
        Some(false) => said.push("too much".to_owned()),
        None => {}
    }
    said.extend(verdict::kinds(&outcome.errors).iter().map(verdict::Kind::in_words));
    said.extend(outcome.invalid.iter().map(|why| format!("INVALID: {why}")));
    if run.others > DISTURBED {
        said.push(format!("others used {} of a core", format::percent(run.others)));
    }
    said.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use loadgen::outcome::{Connect, Memory, ServerUse};

    use super::*;
    use crate::compare::plan::points;
    use crate::compare::record::tests::{comparison, delivering, run};

    pub(in crate::compare) fn participant(name: &str) -> Participant {
        Participant {
            name: name.to_owned(),
            title: name.to_uppercase(),
            version: "1".to_owned(),
            settings: String::new(),
            documentation: Vec::new(),
            remark: None,
            cannot: Vec::new(),
        }
    }

    fn two() -> Comparison {
        let mut comparison = comparison();
        comparison.participants = vec![participant("a"), participant("b")];
        for (round, of_a, of_b) in [(1, 100, 400), (2, 300, 500), (3, 200, 300)] {
            comparison.runs.push(run("a", Row::Saturation, "saturation-4", round, delivering(of_a)));
            comparison.runs.push(run("b", Row::Saturation, "saturation-4", round, delivering(of_b)));
        }
        comparison
    }

    #[test]
    fn medians_and_spread() {
        let comparison = two();
        let column = &columns(Row::Saturation)[0];
        assert_eq!(column.figure(&comparison, "a").unwrap().median, 200.0);
        assert_eq!(column.cell(&comparison, &comparison.participants[0]), "200 (100–300)");
        assert_eq!(column.cell(&comparison, &comparison.participants[1]), "**400** (300–500)");
        assert_eq!(columns(Row::Saturation)[3].cell(&comparison, &comparison.participants[0]), "–");
        assert_eq!(Figure::of(vec![1.0, 2.0], 0).unwrap().median, 1.5);
    }

    #[test]
    fn limits_of_the_client_are_marked() {
        let mut comparison = two();
        comparison.runs[0].outcome.as_mut().unwrap().invalid.push("its core was busy".to_owned());
        comparison.runs[2].outcome.as_mut().unwrap().errors.lost = 7;
        comparison.runs[4].others = 0.5;
        let cell = columns(Row::Saturation)[0].cell(&comparison, &comparison.participants[0]);
        assert_eq!(cell, "200\\* (100–300)");
        let remarks = remarks(&comparison, Row::Saturation, "a").join("\n");
        assert!(remarks.contains("\\* the load generator was the limit in 1 of 3 runs (saturation-4)"), "{remarks}");
        assert!(remarks.contains("7 lost in 1 of 3") && remarks.contains("other processes"), "{remarks}");
        assert!(super::remarks(&comparison, Row::Cpu, "a").is_empty());
    }

    #[test]
    fn a_broker_that_cannot_take_part_says_why() {
        let mut comparison = two();
        comparison.participants[0].cannot.push(("topics-50".to_owned(), "no".to_owned()));
        assert_eq!(columns(Row::Topics)[1].cell(&comparison, &comparison.participants[0]), "(no)");
    }

    #[test]
    fn capacities_are_bracketed() {
        let mut comparison = two();
        for (rate, good) in [(None, None), (Some(100.0), Some(true)), (Some(160.0), Some(false))] {
            let mut run = run("a", Row::Latency, "latency-capacity", 1, delivering(1));
            (run.rate, run.sustained) = (rate, good);
            comparison.runs.push(run);
        }
        assert_eq!(columns(Row::Latency)[0].cell(&comparison, &comparison.participants[0]), "**100** (not 160)");
        assert_eq!(slowest(&comparison, "latency-capacity").unwrap().1, 100.0);
        assert!(slowest(&comparison, "topics-capacity").is_none());
    }

    #[test]
    fn memory_is_what_was_added() {
        let grown = |before, after| ServerUse {
            memory_before: Memory { pss: before, ..Memory::default() },
            memory_after: Memory { pss: after, ..Memory::default() },
            ..ServerUse::default()
        };
        let connect = Connect { opened: 10, ..Connect::default() };
        let outcome = Outcome { connect, server: Some(grown(1000, 3000)), ..Outcome::default() };
        assert_eq!(memory(&outcome), Some(200.0));
        assert_eq!(memory(&Outcome::default()), None);
    }

    #[test]
    fn every_column_is_of_a_point() {
        let points = points(false);
        let all = Row::ALL.into_iter().flat_map(|row| columns(row).into_iter().map(move |column| (row, column)));
        for (row, column) in all {
            assert!(points.iter().any(|point| point.key == column.key && point.row == row), "{}", column.key);
        }
        assert_eq!(main_columns()[2].key, "cpu-5000");
        assert_eq!(main_columns()[3].key, "latency-70");
    }
}
