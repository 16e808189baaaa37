//! The pages of a comparison: `COMPARISON.md` with all tables, and the section of the README with a short table. Every
//! figure comes from the runs of the comparison.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use loadgen::format;

use super::charts;
use super::plan::{PERCENTS, Row, TOPICS_PERCENT};
use super::record::{Comparison, Participant};
use super::summary::{self, Column, columns};

const BEGIN: &str = "<!-- compare -->";
const END: &str = "<!-- /compare -->";

/// Writes pages and plots of a comparison, which is kept at `path`.
pub(super) fn write_all(comparison: &Comparison, path: &Path, results: &Path, readme: &Path) -> Result<()> {
    let drawn = charts::write_all(comparison, &results.join("compare"))?;
    let file = path.file_name().context("a comparison without a file")?.to_string_lossy();
    let page = results.join("COMPARISON.md");
    fs::write(&page, whole(comparison, &file, &drawn)?).with_context(|| format!("writing {}", page.display()))?;
    println!("\nwritten: {}", page.display());
    let text = fs::read_to_string(readme).with_context(|| format!("reading {}", readme.display()))?;
    match between_marks(&text, &section(comparison, &drawn)) {
        Some(changed) if changed != text => {
            fs::write(readme, changed).with_context(|| format!("writing {}", readme.display()))?;
            println!("written: {}", readme.display());
        }
        Some(_) => {}
        None => println!("{} has no lines {BEGIN} and {END}: left as it is", readme.display()),
    }
    Ok(())
}

/// All tables, as text.
pub(super) fn tables(comparison: &Comparison) -> String {
    let rows = Row::ALL.into_iter().filter(|row| comparison.runs.iter().any(|run| run.row == *row));
    rows.map(|row| format!("{}\n\n{}\n{}", title(row), table(comparison, &columns(row)), remarks(comparison, row)))
        .collect()
}

fn whole(comparison: &Comparison, file: &str, drawn: &[charts::Chart]) -> Result<String> {
    let mut page = String::from("# Comparison with other brokers\n\n");
    writeln!(
        page,
        "Ringyard against other brokers on one machine: each server on one core, the same load generator on another, the \
         same work for all,\nruns in turn. Made by `bench compare` from [compare/{file}](compare/{file}), which has every run.\n"
    )?;
    writeln!(
        page,
        "{}, {} runs each; a cell is their median, in brackets the least and the most. Bold: nobody is better.\n\\*: in \
         some of these runs the load generator was the limit, so the server may be better than that. Messages are {} \
         bytes.\nCPU is processor time of all the server's processes, the kernel's work for them included. Every client \
         checks every message, but\nfor saturation, bursts and capacity where bytes alone tell what arrived (raw \
         endpoints, Nchan): there {} of them do, the others count bytes.\n",
        comparison.begun,
        comparison.rounds,
        super::plan::PAYLOAD,
        format::percent(super::load::VERIFY),
    )?;
    if !comparison.finished {
        page += "**This comparison was interrupted; some runs are missing.**\n\n";
    }
    for row in Row::ALL {
        writeln!(page, "## {}\n\n{}\n", title(row), about(comparison, row))?;
        page += &table(comparison, &columns(row));
        page.push('\n');
        for chart in drawn.iter().filter(|chart| chart.row == row) {
            writeln!(page, "![{}](compare/{})\n", chart.title, chart.file)?;
        }
        page += &remarks(comparison, row);
    }
    page += &participants(comparison)?;
    page += &machine_and_commands(comparison)?;
    Ok(page.trim_end().to_owned() + "\n")
}

fn title(row: Row) -> &'static str {
    match row {
        Row::Saturation => "Saturation",
        Row::Bursts => "Bursts",
        Row::Cpu => "Processor time per message",
        Row::Latency => "Capacity and latency",
        Row::Idle => "Idle connections",
        Row::Topics => "Many topics",
    }
}

fn about(comparison: &Comparison, row: Row) -> String {
    let rates = |key: &str| {
        let rate = comparison.runs.iter().find(|run| run.key == key).and_then(|run| run.rate);
        rate.map_or_else(|| "–".to_owned(), format::number)
    };
    match row {
        Row::Saturation => {
            "5,000 subscribers of one topic. The next message is published as soon as fewer than 4, or 64, are still \
             on their way to some subscriber."
                .to_owned()
        }
        Row::Bursts => "5,000 subscribers of one topic. Ten messages are published in one write, the next ten when \
                        all subscribers have the last."
            .to_owned(),
        Row::Cpu => "One topic, 15,000 deliveries per second whatever the number of subscribers, so slow that every \
                     message is a send of its own.\nReceives of the load generator per message show that: below 1, one \
                     receive carried several."
            .to_owned(),
        Row::Latency => {
            let whose = summary::slowest(comparison, "latency-capacity");
            let slowest = whose.map_or("none is known", |(peer, _)| &peer.title);
            let [low, high] = PERCENTS;
            format!(
                "1,000 subscribers of one topic, published open loop: latency counts from when a message was due. \
                 Capacity is the highest rate tried\nthat a server sustained (all delivered, p99 below 400 ms, nothing \
                 wrong), then in brackets the lowest it did not. Latencies of all are taken at\n{low} and {high} % of the \
                 least capacity ({slowest}): {} and {} messages published per second.",
                rates(&format!("latency-{low}")),
                rates(&format!("latency-{high}")),
            )
        }
        Row::Idle => "15,000 idle connections with one subscription each, opened as fast as they are accepted. Memory \
                       is the proportional set size\nof all the server's processes above what it was after the first \
                       hundred clients; the kernel's own for sockets is not in it."
            .to_owned(),
        Row::Topics => {
            let whose = summary::slowest(comparison, "topics-capacity");
            let slowest = whose.map_or("none is known", |(peer, _)| &peer.title);
            format!(
                "10,000 topics of 10 subscribers: 1,000 connections with 100 subscriptions each. Capacity as above; the \
                 rest is taken at {TOPICS_PERCENT} % of the least\ncapacity ({slowest}): {} messages published per second, \
                 each delivered ten times.",
                rates(&format!("topics-{TOPICS_PERCENT}")),
            )
        }
    }
}

fn table(comparison: &Comparison, columns: &[Column]) -> String {
    let titles: Vec<_> = columns.iter().map(|column| column.title.clone()).collect();
    let mut text = format!("| | {} |\n| --- |{}\n", titles.join(" | "), " --- |".repeat(columns.len()));
    for participant in &comparison.participants {
        let cells: Vec<_> = columns.iter().map(|column| column.cell(comparison, participant)).collect();
        // A broker without any figure is in the remarks below the table.
        if cells.iter().all(|cell| cell == &cells[0]) && cells[0].starts_with('(') {
            continue;
        }
        text += &format!("| {} | {} |\n", participant.title, cells.join(" | "));
    }
    text
}

fn remarks(comparison: &Comparison, row: Row) -> String {
    let mut lines = String::new();
    for participant in &comparison.participants {
        for remark in summary::remarks(comparison, row, &participant.name) {
            lines += &format!("- {}: {remark}\n", participant.title);
        }
        let keys = columns(row).into_iter().map(|column| column.key);
        let reasons: Vec<_> = keys.filter_map(|key| reason(participant, &key)).collect();
        if let (Some(why), true) = (reasons.first(), reasons.len() == columns(row).len()) {
            lines += &format!("- {}: {why}\n", participant.title);
        }
    }
    if lines.is_empty() { lines } else { lines + "\n" }
}

fn reason<'a>(participant: &'a Participant, key: &str) -> Option<&'a str> {
    participant.cannot.iter().find(|(point, _)| point == key).map(|(_, why)| why.as_str())
}

fn participants(comparison: &Comparison) -> Result<String> {
    let mut text = String::from("## Who took part\n\n| | version | settings |\n| --- | --- | --- |\n");
    for Participant { title, version, settings, documentation, .. } in &comparison.participants {
        let links: Vec<_> =
            documentation.iter().enumerate().map(|(at, link)| format!("[{}]({link})", at + 1)).collect();
        writeln!(text, "| {title} | {version} | {settings} {} |", links.join(" "))?;
    }
    text.push('\n');
    for Participant { title, remark, .. } in &comparison.participants {
        if let Some(remark) = remark {
            writeln!(text, "- {title}: {remark}.")?;
        }
    }
    for (title, why) in &comparison.absent {
        writeln!(text, "- {title} did not take part: {why}.")?;
    }
    text += "\nWhole settings: [bench/compare.toml](../compare.toml) and the files in [bench/peers](../peers).\n\n";
    Ok(text)
}

fn machine_and_commands(comparison: &Comparison) -> Result<String> {
    let machine = crate::results::describe(&comparison.machine);
    let others: Vec<_> = comparison.runs.iter().map(|run| run.others).collect();
    let mean = others.iter().sum::<f64>() / others.len().max(1) as f64;
    let mut text = String::from("## Machine\n\n");
    writeln!(text, "- {machine}")?;
    writeln!(text, "- other processes used {} of a core on average meanwhile", format::percent(mean))?;
    writeln!(text, "- source: {}; it took {:.0} min\n", comparison.source, comparison.seconds / 60.0)?;
    text += "## How to repeat it\n\n```sh\ncargo build --release --workspace\n\
             target/release/bench compare --install            # installs the brokers (apt-get, npm), then compares\n\
             target/release/bench compare --only ringyard,nats --rows saturation,idle\n\
             target/release/bench compare --resume             # continues after an interruption\n\
             target/release/bench compare --peers mine.toml    # with a server of yours: bench/compare.toml says how\n```\n";
    Ok(text)
}

/// The README's section: a short table of medians, and the main plots.
fn section(comparison: &Comparison, drawn: &[charts::Chart]) -> String {
    let columns = summary::main_columns();
    let titles: Vec<_> = columns.iter().map(|column| column.title.as_str()).collect();
    let mut text = format!("| | {} |\n| --- |{}\n", titles.join(" | "), " ---: |".repeat(columns.len()));
    for participant in &comparison.participants {
        let cells: Vec<_> = columns.iter().map(|column| column.median(comparison, participant)).collect();
        text += &format!("| {} | {} |\n", participant.title, cells.join(" | "));
    }
    text += &format!(
        "\nMedians of {} runs, {}; the best in bold. 5,000 subscribers of one topic and {} bytes per message; p99 with\n\
         1,000 subscribers. The spread of the runs, and the rows for admission, 64 outstanding messages and 10,000 topics:\n\
         [COMPARISON.md](results/COMPARISON.md).\n",
        comparison.rounds,
        comparison.machine.date,
        super::plan::PAYLOAD,
    );
    for chart in drawn.iter().filter(|chart| chart.main) {
        text += &format!("\n![{}](results/compare/{})\n", chart.title, chart.file);
    }
    text
}

/// Replaces the text between the marks; nothing if `text` has no marks.
fn between_marks(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::record::newest;
    use crate::compare::record::tests::{comparison, delivering, run};

    fn one() -> Comparison {
        let mut comparison = comparison();
        comparison.participants.push(Participant {
            name: "a".to_owned(),
            title: "Peer A".to_owned(),
            version: "1.2".to_owned(),
            settings: "defaults".to_owned(),
            documentation: vec!["https://example.org/".to_owned()],
            remark: Some("takes naps".to_owned()),
            cannot: vec![
                ("topics-capacity".to_owned(), "one topic only".to_owned()),
                ("topics-50".to_owned(), "one topic only".to_owned()),
            ],
        });
        comparison.absent.push(("Peer B".to_owned(), "there is no b".to_owned()));
        let mut latest = run("a", Row::Saturation, "saturation-4", 1, delivering(123_456));
        latest.outcome.as_mut().unwrap().errors.lost = 3;
        comparison.runs.push(latest);
        comparison
    }

    #[test]
    fn the_page_has_figures_and_what_went_wrong() {
        let page = whole(&one(), "x.json", &[]).unwrap();
        assert!(page.contains("| Peer A | **123,456** |"), "{page}");
        assert!(page.contains("- Peer A: 3 lost in 1 of 1 runs (saturation-4)"), "{page}");
        assert!(page.contains("- Peer A: one topic only\n") && !page.contains("| Peer A | (one topic"), "{page}");
        assert!(page.contains("| Peer A | 1.2 | defaults [1](https://example.org/) |"));
        assert!(page.contains("Peer B did not take part: there is no b") && page.contains("takes naps"));
        assert!(page.contains("interrupted") && page.contains("(compare/x.json)"));
        assert!(tables(&one()).starts_with("Saturation\n"));
    }

    /// What `bench compare --pages` would write now.
    #[test]
    fn the_kept_pages_are_made_of_the_kept_runs() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let kept = newest(&folder.join("results/compare"), |comparison| comparison.whole).unwrap();
        let (path, comparison) = kept.expect("a comparison is kept");
        let scratch = tempfile::tempdir().unwrap();
        let readme = scratch.path().join("README.md");
        fs::copy(folder.join("README.md"), &readme).unwrap();
        write_all(&comparison, &path, scratch.path(), &readme).unwrap();
        let same = |ours: &Path, kept: &str| {
            assert!(fs::read(ours).unwrap() == fs::read(folder.join(kept)).unwrap(), "{kept}: bench compare --pages");
        };
        same(&readme, "README.md");
        same(&scratch.path().join("COMPARISON.md"), "results/COMPARISON.md");
    }

    #[test]
    fn the_short_table_has_medians_alone() {
        let mut comparison = one();
        for (round, per_second) in [(2, 200_000), (3, 300_000)] {
            comparison.runs.push(run("a", Row::Saturation, "saturation-4", round, delivering(per_second)));
        }
        let section = section(&comparison, &[]);
        assert!(section.starts_with("| | delivered/s, 4 outstanding | "), "{section}");
        assert!(section.contains("\n| Peer A | **200,000** | – | – | – | – |\n"), "{section}");
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- compare -->\nold\n<!-- /compare -->\nb\n";
        let changed = between_marks(text, "new\n").unwrap();
        assert_eq!(changed, "a\n<!-- compare -->\nnew\n<!-- /compare -->\nb\n");
        assert_eq!(between_marks(&changed, "new\n").unwrap(), changed);
        assert!(between_marks("no marks", "new").is_none());
    }
}
