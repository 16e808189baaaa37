//! The figures for readers: a table in `bench/README.md`, and `compare.json`, which the broker carries for its page `/compare`. Both are made of
//! the kept raw data alone, and a test compares them with it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use super::protocol::Protocol;
use super::record::{Record, kept};
use super::uses::{self, Costs, Use, Verdict, judge, rule};
use crate::results::describe;

const BEGIN: &str = "<!-- protocols -->\n";
const END: &str = "<!-- /protocols -->";

/// What the page shows.
#[derive(Serialize)]
struct Page {
    /// When and where that was measured; nothing if it was not.
    machine: Option<String>,
    rule: Vec<String>,
    uses: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    wanted: Use,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    protocol: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    bytes: f64,
    requests: f64,
    verdict: Verdict,
    why: String,
}

/// The columns of the page. Its WebSocket is that with `ringyard.v1`, which has positions as the others have.
const COLUMNS: [(&str, Protocol); 4] = [
    ("short-poll", Protocol::ShortPoll),
    ("long-poll", Protocol::LongPoll),
    ("sse", Protocol::Sse),
    ("websocket", Protocol::V1),
];

/// Writes both.
pub(super) fn write_all(results: &Path) -> Result<()> {
    let record = kept(results)?;
    let [readme, json] = places();
    let text = fs::read_to_string(&readme)?;
    let changed =
        with_section(&text, &section(record.as_ref())).context("bench/README.md has no place for the table")?;
    fs::write(&readme, changed)?;
    fs::write(&json, page(record.as_ref())?)?;
    println!("written: {}, {}", readme.display(), json.display());
    Ok(())
}

/// `bench/README.md` and `compare.json`.
fn places() -> [PathBuf; 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [here.join("README.md"), here.join("../broker/src/web/compare.json")]
}

fn page(record: Option<&Record>) -> Result<String> {
    let uses = record.map_or_else(uses::all, |record| record.uses.clone());
    let rows = uses.into_iter().map(|wanted| {
        let cells = record.map(|record| cells(record, &wanted)).unwrap_or_default();
        Row { wanted, cells }
    });
    let machine = record.map(|record| describe(&record.machine));
    Ok(serde_json::to_string_pretty(&Page { machine, rule: rule(), uses: rows.collect() })? + "\n")
}

fn cells(record: &Record, wanted: &Use) -> Vec<Cell> {
    let Some(websocket) = record.costs(wanted, Protocol::V1) else { return Vec::new() };
    let cell = |(protocol, measured): (&'static str, Protocol)| {
        let costs = record.costs(wanted, measured)?;
        let Costs { p50_ms, p99_ms, cpu_us, bytes, requests, .. } = costs;
        let (verdict, why) = judge(wanted, &costs, &websocket);
        let why = if measured == Protocol::V1 && verdict == Verdict::Fits { String::new() } else { why };
        Some(Cell { protocol, p50_ms, p99_ms, cpu_us, bytes, requests, verdict, why })
    };
    COLUMNS.into_iter().filter_map(cell).collect()
}

fn section(record: Option<&Record>) -> String {
    let mut text = String::new();
    match record {
        None => text += "Not measured yet.\n",
        Some(record) => {
            text += &table(record);
            let _ = writeln!(text, "\n{}.", describe(&record.machine));
        }
    }
    text.push('\n');
    for sentence in rule() {
        let _ = writeln!(text, "- {sentence}");
    }
    text
}

/// One row for each use, in Markdown.
pub(super) fn table(record: &Record) -> String {
    let mut table = String::from("| use |");
    for protocol in Protocol::value_variants() {
        let _ = write!(table, " {} |", protocol.title());
    }
    table += "\n| --- |";
    table += &" --- |".repeat(Protocol::value_variants().len());
    for wanted in &record.uses {
        let Use { name, rate, bytes, subscribers, deadline_ms, .. } = wanted;
        let _ = write!(table, "\n| {name}: {rate}/s of {bytes} B to {subscribers}, within {deadline_ms} ms |");
        for &protocol in Protocol::value_variants() {
            let costs = record.costs(wanted, protocol).zip(record.costs(wanted, Protocol::V1));
            table += &costs.map_or_else(|| " – |".to_owned(), |(costs, websocket)| cell(wanted, &costs, &websocket));
        }
    }
    table + "\n"
}

fn cell(wanted: &Use, costs: &Costs, websocket: &Costs) -> String {
    let Costs { p50_ms, p99_ms, cpu_us, bytes, requests, .. } = costs;
    let (verdict, _) = judge(wanted, costs, websocket);
    let words = verdict.words();
    format!(" **{words}**: {p50_ms:.1} / {p99_ms:.1} ms, {cpu_us:.1} µs, {bytes:.0} B, {requests:.2} |")
}

/// The text with `section` between its marks.
fn with_section(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{section}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::protocols::client::Sample;
    use crate::protocols::record::Run;

    /// What `bench protocols --pages` would write now.
    #[test]
    fn the_pages_are_made_of_the_kept_runs() {
        let record = kept(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results")).unwrap();
        let [readme, json] = places();
        assert!(page(record.as_ref()).unwrap() == fs::read_to_string(json).unwrap(), "bench protocols --pages");
        let text = fs::read_to_string(readme).unwrap();
        assert!(with_section(&text, &section(record.as_ref())).unwrap() == text, "bench protocols --pages");
    }

    #[test]
    fn cells_are_medians_of_the_rounds() {
        let uses = uses::all();
        let mut record = Record::new(Machine::this(), 1.0, &uses);
        for (protocol, times) in [(Protocol::V1, [1, 1, 1]), (Protocol::ShortPoll, [9, 1, 4])] {
            for (round, time) in (1..).zip(times) {
                let sample = Sample {
                    delivered: 10,
                    server_cpu_ns: time * 100_000,
                    bytes: 1000,
                    p99_us: 500,
                    ..Sample::default()
                };
                record.runs.push(Run { wanted: "chat".to_owned(), protocol, round, sample });
            }
        }
        let cells = cells(&record, &uses[0]);
        assert_eq!(cells.iter().map(|cell| cell.protocol).collect::<Vec<_>>(), ["short-poll", "websocket"]);
        assert_eq!((cells[0].cpu_us, cells[0].verdict), (40.0, Verdict::CostsMuch));
        assert_eq!((cells[1].cpu_us, cells[1].verdict, &*cells[1].why), (10.0, Verdict::Fits, ""));
        assert!(table(&record).contains("| **costs much**: 0.0 / 0.5 ms, 40.0 µs, 100 B, 0.00 |"));
    }

    #[test]
    fn a_section_takes_the_place_of_the_one_before() {
        let text = format!("a\n{BEGIN}old\n{END}\nb");
        assert_eq!(with_section(&text, "new\n").unwrap(), format!("a\n{BEGIN}new\n{END}\nb"));
        assert!(with_section("a", "new").is_none());
    }
}
