//! What the runs of a race say: of each peer and figure the median and the spread, and what went wrong.
//!
//! Not responsible for how that is shown (`page`, `charts`).

use std::collections::BTreeMap;

use loadgen::format;
use loadgen::outcome::Outcome;
use loadgen::verdict;

use super::capacity::{self, Try};
use super::load::DISTURBED;
use super::plan::{CROWDS, PERCENTS, Row, TOPICS_PERCENT, WINDOWS};
use super::record::{Contestant, Race, Run};

/// What is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Better {
    More,
    Less,
    /// Only says how something came about.
    Neither,
}

/// How a figure is made of an outcome.
type Metric = fn(&Outcome) -> Option<f64>;

/// Where the values of a column come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Runs(Metric),
    /// The capacity that was found.
    Search,
}

/// A figure of every peer.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) title: String,
    pub(super) key: String,
    source: Source,
    pub(super) better: Better,
    pub(super) show: fn(f64) -> String,
}

/// A peer's figure.
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

    /// A peer's figure, if it has one.
    pub(super) fn figure(&self, race: &Race, peer: &str) -> Option<Figure> {
        match self.source {
            Source::Search => {
                let tries = tries(race, &self.key, peer);
                let above = tries.iter().filter(|(_, good)| !good).map(|(rate, _)| *rate).reduce(f64::min);
                let rate = capacity::highest(&tries)?;
                let invalid =
                    race.runs_of(&self.key, peer).filter(|run| Some(rate) < run.rate && is_invalid(run)).count();
                Some(Figure { median: rate, least: rate, most: above.unwrap_or(rate), runs: 1, invalid })
            }
            Source::Runs(metric) => {
                let runs: Vec<_> = race.runs_of(&self.key, peer).collect();
                let values = runs.iter().filter_map(|run| metric(run.outcome.as_ref()?)).collect();
                Figure::of(values, runs.iter().filter(|run| is_invalid(run)).count())
            }
        }
    }

    /// Median, and least and most in brackets; marked where the load generator was the limit.
    pub(super) fn cell(&self, race: &Race, contestant: &Contestant) -> String {
        if let Some((_, why)) = contestant.cannot.iter().find(|(key, _)| *key == self.key) {
            return format!("({why})");
        }
        let Some(figure) = self.figure(race, &contestant.name) else {
            return "–".to_owned();
        };
        let show = self.show;
        let mark = if figure.invalid > 0 { "\\*" } else { "" };
        let median = show(figure.median);
        let median = if self.is_best(race, &figure) { format!("**{median}**") } else { median };
        match self.source {
            Source::Search if figure.most > figure.median => format!("{median}{mark} (not {})", show(figure.most)),
            Source::Search => format!("{median}{mark} or more"),
            Source::Runs(_) if figure.runs > 1 => {
                format!("{median}{mark} ({}–{})", show(figure.least), show(figure.most))
            }
            Source::Runs(_) => format!("{median}{mark}"),
        }
    }

    /// Nobody's median is better.
    fn is_best(&self, race: &Race, figure: &Figure) -> bool {
        let all = race.contestants.iter().filter_map(|other| self.figure(race, &other.name));
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
            let mut columns: Vec<_> = CROWDS
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
        Row::Crowd => vec![
            Column::of("memory per connection", "crowd", Less, format::bytes, memory),
            Column::of("seconds to admit all", "crowd", Less, format::seconds, admission_seconds),
            Column::of("CPU per admission", "crowd", Less, format::time, admission_cpu),
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

/// One column of each kind: what a short table shows.
pub(super) fn main_columns() -> Vec<Column> {
    let pick = |row: Row, at: usize, title: &str| Column { title: title.to_owned(), ..columns(row).swap_remove(at) };
    vec![
        pick(Row::Saturation, 0, "delivered/s, 4 outstanding"),
        pick(Row::Bursts, 0, "delivered/s, bursts of ten"),
        pick(Row::Cpu, 2, "CPU per message, slow"),
        pick(Row::Latency, 5, "p99, 1,000 subscribers"),
        pick(Row::Crowd, 0, "memory per connection"),
        pick(Row::Crowd, 2, "CPU per admission"),
        pick(Row::Topics, 1, "CPU per message, 10,000 topics"),
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

/// What a search tried.
pub(super) fn tries(race: &Race, key: &str, peer: &str) -> Vec<Try> {
    race.runs_of(key, peer).filter_map(|run| Some((run.rate?, run.sustained?))).collect()
}

/// The least capacity, and whose it is.
pub(super) fn slowest<'a>(race: &'a Race, key: &str) -> Option<(&'a Contestant, f64)> {
    let found =
        race.contestants.iter().filter_map(|peer| Some((peer, capacity::highest(&tries(race, key, &peer.name))?)));
    found.min_by(|(_, one), (_, other)| one.total_cmp(other))
}

fn is_invalid(run: &Run) -> bool {
    run.outcome.as_ref().is_some_and(|outcome| !outcome.invalid.is_empty())
}

/// What one must know of a peer's runs in a row: errors, failures, limits of the load generator. Searches go beyond
/// what can be sustained, so that what is lost there says nothing.
pub(super) fn remarks(race: &Race, row: Row, peer: &str) -> Vec<String> {
    let runs: Vec<_> =
        race.runs.iter().filter(|run| run.row == row && run.peer == peer && run.sustained.is_none()).collect();
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
        race.runs.iter().filter(|run| run.row == row && run.peer == peer && run.sustained.is_some()).collect();
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

/// A run, for progress.
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
    use crate::race::plan::points;
    use crate::race::record::tests::{delivering, race, run};

    pub(in crate::race) fn contestant(name: &str) -> Contestant {
        Contestant {
            name: name.to_owned(),
            title: name.to_uppercase(),
            version: "1".to_owned(),
            settings: String::new(),
            documentation: Vec::new(),
            remark: None,
            cannot: Vec::new(),
        }
    }

    fn two() -> Race {
        let mut race = race();
        race.contestants = vec![contestant("a"), contestant("b")];
        for (round, of_a, of_b) in [(1, 100, 400), (2, 300, 500), (3, 200, 300)] {
            race.runs.push(run("a", Row::Saturation, "saturation-4", round, delivering(of_a)));
            race.runs.push(run("b", Row::Saturation, "saturation-4", round, delivering(of_b)));
        }
        race
    }

    #[test]
    fn medians_and_spread() {
        let race = two();
        let column = &columns(Row::Saturation)[0];
        assert_eq!(column.figure(&race, "a").unwrap().median, 200.0);
        assert_eq!(column.cell(&race, &race.contestants[0]), "200 (100–300)");
        assert_eq!(column.cell(&race, &race.contestants[1]), "**400** (300–500)");
        assert_eq!(columns(Row::Saturation)[3].cell(&race, &race.contestants[0]), "–");
        assert_eq!(Figure::of(vec![1.0, 2.0], 0).unwrap().median, 1.5);
    }

    #[test]
    fn limits_of_the_client_are_marked() {
        let mut race = two();
        race.runs[0].outcome.as_mut().unwrap().invalid.push("its core was busy".to_owned());
        race.runs[2].outcome.as_mut().unwrap().errors.lost = 7;
        race.runs[4].others = 0.5;
        let cell = columns(Row::Saturation)[0].cell(&race, &race.contestants[0]);
        assert_eq!(cell, "200\\* (100–300)");
        let remarks = remarks(&race, Row::Saturation, "a").join("\n");
        assert!(remarks.contains("\\* the load generator was the limit in 1 of 3 runs (saturation-4)"), "{remarks}");
        assert!(remarks.contains("7 lost in 1 of 3") && remarks.contains("other processes"), "{remarks}");
        assert!(super::remarks(&race, Row::Cpu, "a").is_empty());
    }

    #[test]
    fn whoever_cannot_says_why() {
        let mut race = two();
        race.contestants[0].cannot.push(("topics-50".to_owned(), "no".to_owned()));
        assert_eq!(columns(Row::Topics)[1].cell(&race, &race.contestants[0]), "(no)");
    }

    #[test]
    fn capacities_are_bracketed() {
        let mut race = two();
        for (rate, good) in [(None, None), (Some(100.0), Some(true)), (Some(160.0), Some(false))] {
            let mut run = run("a", Row::Latency, "latency-capacity", 1, delivering(1));
            (run.rate, run.sustained) = (rate, good);
            race.runs.push(run);
        }
        assert_eq!(columns(Row::Latency)[0].cell(&race, &race.contestants[0]), "**100** (not 160)");
        assert_eq!(slowest(&race, "latency-capacity").unwrap().1, 100.0);
        assert!(slowest(&race, "topics-capacity").is_none());
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
