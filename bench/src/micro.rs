//! `bench micro`: writes `MICRO.md`, the table of the last `cargo bench -p ringyard-bench --bench protocol`, from criterion's files
//! beside this program.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::machine::Machine;
use crate::results::describe;

/// The implementation of the first column.
const OURS: &str = "ringyard";

/// Remarks below the table.
const REMARKS: &str = "\
- Text is UTF-8: ours is measured within a frame, whose header takes some 10 ns; the others check the bare text.
- Decoding: a copy into the receive buffer stands for the socket, from which the others copy too. A message in several
  frames is gathered by all.
- Commands: the broker reads a flat command (strings without escapes, whole numbers, lists of strings) in one pass of
  its own, and everything else, JSON payloads and strings with escapes, with simd-json. \"By simd-json\" is the same
  command with an escape in its first name, which sends all of it there. It costs a check for what simd-json
  overlooks, a copy and two passes before anything is built: a short command or plain text does not earn that back,
  a JSON payload does. serde_json's side checks neither topics nor unknown members.
";

/// `bench micro`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Criterion's results [default: `criterion` in the target folder of this program].
    #[arg(long)]
    criterion: Option<PathBuf>,
    /// Where results are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
}

/// Criterion's `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: String,
    value_str: String,
    throughput: Option<Throughput>,
}

#[derive(Deserialize)]
struct Throughput {
    #[serde(rename = "Elements")]
    elements: Option<u32>,
}

/// Criterion's `estimates.json`.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Group, case, implementation: nanoseconds.
type Table = BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>;

/// Makes the page.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let target = || Ok(std::env::current_exe()?.with_file_name("../criterion"));
    let criterion = options.criterion.clone().map_or_else(target, anyhow::Ok)?;
    let table = read(&criterion).context("run cargo bench -p ringyard-bench --bench protocol first")?;
    ensure!(!table.is_empty(), "there are no results in {}", criterion.display());
    let page = page(&table, &Machine::this())?;
    println!("{page}");
    fs::create_dir_all(&options.results)?;
    fs::write(options.results.join("MICRO.md"), page)?;
    Ok(true)
}

/// Results lie in `group/implementation/case/new`.
fn read(criterion: &Path) -> Result<Table> {
    let folders = |path: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        let paths = entries.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
    };
    let mut table = Table::new();
    for group in folders(criterion)? {
        for implementation in folders(&group)? {
            for case in folders(&implementation)? {
                let file = |name: &str| fs::read_to_string(case.join("new").join(name));
                // Another program's benchmarks are of another shape.
                let Ok(text) = file("benchmark.json") else { continue };
                let Ok(benchmark) = serde_json::from_str::<Benchmark>(&text) else { continue };
                let estimates: Estimates = serde_json::from_str(&file("estimates.json")?)?;
                let count = benchmark.throughput.and_then(|throughput| throughput.elements).unwrap_or(1);
                let cases = table.entry(benchmark.group_id).or_default();
                let times = cases.entry(benchmark.value_str).or_default();
                times.insert(benchmark.function_id, estimates.median.point_estimate / f64::from(count));
            }
        }
    }
    Ok(table)
}

fn page(table: &Table, machine: &Machine) -> Result<String> {
    let mut page = String::from(
        "# Micro-benchmarks\n\nThe protocol crate against what one would use instead, on the same bytes. Medians in nanoseconds, made by \
         `cargo bench -p ringyard-bench --bench protocol`, then `cargo run --release -p ringyard-bench --bin bench -- micro`; what is \
         measured is said in [protocol.rs](../benches/protocol.rs).\n",
    );
    for (group, cases) in table {
        let mut others: Vec<_> = cases.values().flat_map(BTreeMap::keys).filter(|name| *name != OURS).collect();
        others.sort_unstable();
        others.dedup();
        write!(page, "\n## {}\n\n| | {OURS} |", capitalised(group))?;
        for name in &others {
            write!(page, " {name} |")?;
        }
        write!(page, "\n| --- | ---: |{}\n", " ---: |".repeat(others.len()))?;
        for (case, times) in in_order(cases) {
            write!(page, "| {case} |")?;
            for name in [OURS].into_iter().chain(others.iter().map(|name| name.as_str())) {
                let time = times.get(name).map_or(String::new(), |time| figure(*time));
                write!(page, " {time} |")?;
            }
            page.push('\n');
        }
    }
    write!(page, "\n## Remarks\n\n{REMARKS}\n## Machine\n\n- {}\n", describe(machine))?;
    Ok(page)
}

/// Shortest first.
fn in_order(cases: &BTreeMap<String, BTreeMap<String, f64>>) -> Vec<(&String, &BTreeMap<String, f64>)> {
    let mut cases: Vec<_> = cases.iter().collect();
    let time = |times: &BTreeMap<String, f64>| times.get(OURS).copied().unwrap_or(f64::MAX);
    cases.sort_by(|(_, a), (_, b)| time(a).total_cmp(&time(b)));
    cases
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// At least three digits.
fn figure(nanos: f64) -> String {
    match nanos {
        ..10.0 => format!("{nanos:.2}"),
        10.0..100.0 => format!("{nanos:.1}"),
        _ => format!("{nanos:.0}"),
    }
}
