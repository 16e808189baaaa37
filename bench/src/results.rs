//! Raw data as JSON, one file per figure and day, and the table made of the newest file of each.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use loadgen::Outcome;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One figure: what was measured, what is asked for, and whether that is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// A letter, as the command line takes it, and a few words.
    pub(crate) key: String,
    /// What it is, in words.
    pub(crate) what: String,
    /// What was measured, with its unit.
    pub(crate) measured: String,
    /// What is asked for.
    pub(crate) bound: String,
    pub(crate) reached: bool,
    /// What else one needs to know to believe it.
    pub(crate) remarks: Vec<String>,
    /// Every run, as the load generator reported it, by name.
    pub(crate) runs: Vec<(String, Outcome)>,
}

#[derive(Serialize, Deserialize)]
struct File {
    machine: Machine,
    command: String,
    figure: Figure,
}

/// Keeps a figure as `DATE-KEY.json`.
pub(crate) fn keep(directory: &Path, machine: &Machine, figure: &Figure) -> Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("{}-{}.json", machine.date, figure.key));
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let file =
        File { machine: machine.clone(), command: format!("bench {command}"), figure: without_bulk(figure.clone()) };
    fs::write(&path, serde_json::to_string_pretty(&file)? + "\n").with_context(|| format!("writing {}", path.display()))
}

/// A figure needs percentiles, not every value that a run saw.
fn without_bulk(mut figure: Figure) -> Figure {
    for (_, outcome) in &mut figure.runs {
        outcome.trim();
    }
    figure
}

/// Makes `FIGURES.md` of the newest file of each figure.
pub(crate) fn write_table(directory: &Path) -> Result<()> {
    let mut newest: BTreeMap<String, File> = BTreeMap::new();
    let mut paths: Vec<_> = fs::read_dir(directory)?.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let text = fs::read_to_string(path)?;
        let file: File = serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))?;
        newest.insert(file.figure.key.clone(), file);
    }
    let mut table = String::from(
        "# Figures\n\nMade by `cargo run --release -p bench --bin bench -- figures`. Server and client each have \
         one core, unless the row says otherwise.\nRaw data: the JSON files beside this page.\n\n\
         | figure | measured | asked for | | date |\n| --- | --- | --- | --- | --- |\n",
    );
    for File { machine, figure, .. } in newest.values() {
        let verdict = if figure.reached { "reached" } else { "**falls short**" };
        let Figure { what, measured, bound, .. } = figure;
        writeln!(table, "| {what} | {measured} | {bound} | {verdict} | {} |", machine.date)?;
    }
    table += "\n## Remarks\n\n";
    for File { figure, .. } in newest.values() {
        for remark in &figure.remarks {
            writeln!(table, "- {}: {remark}", figure.what)?;
        }
    }
    table += &machines(newest.values().map(|file| &file.machine));
    fs::write(directory.join("FIGURES.md"), table)?;
    Ok(())
}

/// A page's last section: on which machines it was measured.
pub(crate) fn machines<'a>(all: impl Iterator<Item = &'a Machine>) -> String {
    let mut lines: Vec<_> = all.map(|machine| format!("- {}\n", describe(machine))).collect();
    lines.dedup();
    format!("\n## Machine\n\n{}", lines.concat())
}

pub(crate) fn describe(machine: &Machine) -> String {
    let Machine { date, cores, processor, memory_gib, kernel, congestion_control } = machine;
    format!(
        "{date}: {cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, loopback TCP with congestion control {congestion_control}"
    )
}
