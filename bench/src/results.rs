//! Raw data as JSON, of which only the latest run of each kind is kept, and the table of the broker's figures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use loadgen::Outcome;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One figure: what was measured, its bound, and whether that is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// A letter, as `--only` takes it, and a word or two.
    pub(crate) key: String,
    /// What is measured.
    pub(crate) what: String,
    /// The result, with its unit.
    pub(crate) measured: String,
    /// What the broker must reach; nothing where the figure only informs.
    pub(crate) bound: Option<String>,
    /// Whether the bound is reached; true without one.
    pub(crate) reached: bool,
    /// Conditions that the reader has to know.
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

/// Keeps a figure as `DATE-KEY.json`, in place of earlier runs.
pub(crate) fn keep(directory: &Path, machine: &Machine, figure: &Figure) -> Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("{}-{}.json", machine.date, figure.key));
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let file =
        File { machine: machine.clone(), command: format!("bench {command}"), figure: without_bulk(figure.clone()) };
    fs::write(&path, serde_json::to_string_pretty(&file)? + "\n")
        .with_context(|| format!("writing {}", path.display()))?;
    remove_older(&path)
}

/// Removes the earlier runs of the same kind from the folder of `latest`. A file's name is the date of its run, then its
/// kind.
pub(crate) fn remove_older(latest: &Path) -> Result<()> {
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = |name: &str| name.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
    let name = name_of(latest);
    let folder = latest.parent().context("a file is in a folder")?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let other = name_of(&path);
        if other < name && other.starts_with(|c: char| c.is_ascii_digit()) && kind(&other) == kind(&name) {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// A figure needs percentiles, not every value that a run saw.
fn without_bulk(mut figure: Figure) -> Figure {
    for (_, outcome) in &mut figure.runs {
        outcome.trim();
    }
    figure
}

/// Writes `FIGURES.md`.
pub(crate) fn write_table(directory: &Path) -> Result<()> {
    fs::write(directory.join("FIGURES.md"), table(directory)?)?;
    Ok(())
}

fn table(directory: &Path) -> Result<String> {
    let mut newest: BTreeMap<String, File> = BTreeMap::new();
    let mut paths: Vec<_> = fs::read_dir(directory)?.map(|entry| anyhow::Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let text = fs::read_to_string(path)?;
        let file: File = serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))?;
        newest.insert(file.figure.key.clone(), file);
    }
    let mut table = String::from(
        "# Figures\n\nMade by `cargo run --release -p ringyard-bench --bin bench -- figures`. Server and client each have \
         one core, unless the row says otherwise.\nRaw data: the JSON files beside this page.\n\n\
         | figure | measured | bound | | date |\n| --- | --- | --- | --- | --- |\n",
    );
    for File { machine, figure, .. } in newest.values() {
        let Figure { what, measured, bound, .. } = figure;
        let bound = bound.as_deref().unwrap_or("–");
        let verdict = match (&figure.bound, figure.reached) {
            (None, _) => "",
            (_, true) => "reached",
            (_, false) => "**not reached**",
        };
        writeln!(table, "| {what} | {measured} | {bound} | {verdict} | {} |", machine.date)?;
    }
    table += "\n## Remarks\n\n";
    for File { figure, .. } in newest.values() {
        for remark in &figure.remarks {
            writeln!(table, "- {}: {remark}", figure.what)?;
        }
    }
    Ok(table + &machines(newest.values().map(|file| &file.machine)))
}

/// The last section of a page: the machines on which it was measured.
pub(crate) fn machines<'a>(all: impl Iterator<Item = &'a Machine>) -> String {
    let mut lines: Vec<_> = all.map(|machine| format!("- {}\n", describe(machine))).collect();
    lines.sort();
    lines.dedup();
    format!("\n## Machine\n\n{}", lines.concat())
}

pub(crate) fn describe(machine: &Machine) -> String {
    let Machine { date, cores, processor, memory_gib, kernel, congestion_control } = machine;
    format!(
        "{date}: {cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, loopback TCP with congestion control {congestion_control}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_run_of_a_kind_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "2026-01-01-a-message.json",
            "2026-02-03-a-message.json",
            "2026-02-04-a-message.json",
            "2026-01-01-h-message.json",
            "2026-01-01-2358.json",
            "2026-01-01-2359.json",
            "2026-01-01-2359-part.json",
            "FIGURES.md",
        ];
        names.iter().for_each(|name| fs::write(folder.path().join(name), "").unwrap());
        for latest in ["2026-02-03-a-message.json", "2026-01-01-2359.json"] {
            remove_older(&folder.path().join(latest)).unwrap();
        }
        let left = names.iter().filter(|name| folder.path().join(name).exists()).copied().collect::<Vec<_>>();
        assert_eq!(left, [&names[1..4], &names[5..]].concat());
    }

    /// What `bench figures --pages` would write now.
    #[test]
    fn the_kept_table_is_made_of_the_kept_runs() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        assert!(table(&kept).unwrap() == fs::read_to_string(kept.join("FIGURES.md")).unwrap(), "bench figures --pages");
    }
}
