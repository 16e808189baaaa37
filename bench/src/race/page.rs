//! The pages of a race: `RACE.md` with all tables, and the README's section with the short one. Every figure in them is
//! made of the race's runs.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use loadgen::format;

use super::charts;
use super::plan::{PERCENTS, Row, TOPICS_PERCENT};
use super::record::{Contestant, Race};
use super::summary::{self, Column, columns};

const BEGIN: &str = "<!-- race -->";
const END: &str = "<!-- /race -->";

/// Writes everything that is made of a race kept at `path`.
pub(super) fn write_all(race: &Race, path: &Path, results: &Path, readme: &Path) -> Result<()> {
    let drawn = charts::write_all(race, &results.join("race"))?;
    let file = path.file_name().context("a race without a file")?.to_string_lossy();
    let page = results.join("RACE.md");
    fs::write(&page, whole(race, &file, &drawn)?).with_context(|| format!("writing {}", page.display()))?;
    println!("\nwritten: {}", page.display());
    let text = fs::read_to_string(readme).with_context(|| format!("reading {}", readme.display()))?;
    match between_marks(&text, &section(race, &drawn)) {
        Some(changed) if changed != text => {
            fs::write(readme, changed).with_context(|| format!("writing {}", readme.display()))?;
            println!("written: {}", readme.display());
        }
        Some(_) => {}
        None => println!("{} has no lines {BEGIN} and {END}: left as it is", readme.display()),
    }
    Ok(())
}

/// All tables, for a terminal.
pub(super) fn tables(race: &Race) -> String {
    let rows = Row::ALL.into_iter().filter(|row| race.runs.iter().any(|run| run.row == *row));
    rows.map(|row| format!("{}\n\n{}\n{}", title(row), table(race, &columns(row)), remarks(race, row))).collect()
}

fn whole(race: &Race, file: &str, drawn: &[charts::Chart]) -> Result<String> {
    let mut page = String::from("# The race\n\n");
    writeln!(
        page,
        "Ringyard against other brokers on one machine: each server on one core, the same load generator on another, the \
         same work for all,\nruns in turn. Made by `bench race` from [race/{file}](race/{file}), which has every run.\n"
    )?;
    writeln!(
        page,
        "{}, {} runs each; a cell is their median, in brackets the least and the most. Bold: nobody is better.\n\\*: in \
         some of these runs the load generator was the limit, so the server may be better than that. Messages are {} \
         bytes.\nCPU is processor time of all the server's processes, the kernel's work for them included. Every client \
         checks every message, but\nfor saturation, bursts and capacity where bytes alone tell what arrived (raw \
         endpoints, Nchan): there {} of them do, the others count bytes.\n",
        race.begun,
        race.rounds,
        super::plan::PAYLOAD,
        format::percent(super::load::VERIFY),
    )?;
    if !race.finished {
        page += "**This race was interrupted; some runs are missing.**\n\n";
    }
    for row in Row::ALL {
        writeln!(page, "## {}\n\n{}\n", title(row), about(race, row))?;
        page += &table(race, &columns(row));
        page.push('\n');
        for chart in drawn.iter().filter(|chart| chart.row == row) {
            writeln!(page, "![{}](race/{})\n", chart.title, chart.file)?;
        }
        page += &remarks(race, row);
    }
    page += &who(race)?;
    page += &how(race)?;
    Ok(page.trim_end().to_owned() + "\n")
}

fn title(row: Row) -> &'static str {
    match row {
        Row::Saturation => "Saturation",
        Row::Bursts => "Bursts",
        Row::Cpu => "Processor time per message",
        Row::Latency => "Capacity and latency",
        Row::Crowd => "A crowd",
        Row::Topics => "Many topics",
    }
}

fn about(race: &Race, row: Row) -> String {
    let rates = |key: &str| {
        let rate = race.runs.iter().find(|run| run.key == key).and_then(|run| run.rate);
        rate.map_or_else(|| "–".to_owned(), format::number)
    };
    match row {
        Row::Saturation => {
            "5,000 subscribers of one topic. The next message is published as soon as fewer than so many \
                            are on their way to some subscriber."
                .to_owned()
        }
        Row::Bursts => "5,000 subscribers of one topic. Ten messages are published in one write, the next ten when \
                        everybody has the last."
            .to_owned(),
        Row::Cpu => "One topic, 15,000 deliveries per second whatever the number of subscribers, so slow that every \
                     message is a send of its own.\nReceives of the load generator per message show that: below 1, one \
                     receive carried several."
            .to_owned(),
        Row::Latency => {
            let whose = summary::slowest(race, "latency-capacity");
            let slowest = whose.map_or("nobody's is known", |(peer, _)| &peer.title);
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
        Row::Crowd => {
            "15,000 idle connections with one subscription each, opened as fast as they are accepted. Memory \
                       is the proportional set size\nof all the server's processes above what it was after the first \
                       hundred clients; the kernel's own for sockets is not in it."
                .to_owned()
        }
        Row::Topics => {
            let whose = summary::slowest(race, "topics-capacity");
            let slowest = whose.map_or("nobody's is known", |(peer, _)| &peer.title);
            format!(
                "10,000 topics of 10 subscribers: 1,000 connections with 100 subscriptions each. Capacity as above; the \
                 rest is taken at {TOPICS_PERCENT} % of the least\ncapacity ({slowest}): {} messages published per second, \
                 each delivered ten times.",
                rates(&format!("topics-{TOPICS_PERCENT}")),
            )
        }
    }
}

fn table(race: &Race, columns: &[Column]) -> String {
    let titles: Vec<_> = columns.iter().map(|column| column.title.clone()).collect();
    let mut text = format!("| | {} |\n| --- |{}\n", titles.join(" | "), " --- |".repeat(columns.len()));
    for contestant in &race.contestants {
        let cells: Vec<_> = columns.iter().map(|column| column.cell(race, contestant)).collect();
        // Whoever has no figure at all is told in one place.
        if cells.iter().all(|cell| cell == &cells[0]) && cells[0].starts_with('(') {
            continue;
        }
        text += &format!("| {} | {} |\n", contestant.title, cells.join(" | "));
    }
    text
}

fn remarks(race: &Race, row: Row) -> String {
    let mut lines = String::new();
    for contestant in &race.contestants {
        for remark in summary::remarks(race, row, &contestant.name) {
            lines += &format!("- {}: {remark}\n", contestant.title);
        }
        let keys = columns(row).into_iter().map(|column| column.key);
        let reasons: Vec<_> = keys.filter_map(|key| reason(contestant, &key)).collect();
        if let (Some(why), true) = (reasons.first(), reasons.len() == columns(row).len()) {
            lines += &format!("- {}: {why}\n", contestant.title);
        }
    }
    if lines.is_empty() { lines } else { lines + "\n" }
}

fn reason<'a>(contestant: &'a Contestant, key: &str) -> Option<&'a str> {
    contestant.cannot.iter().find(|(point, _)| point == key).map(|(_, why)| why.as_str())
}

fn who(race: &Race) -> Result<String> {
    let mut text = String::from("## Who took part\n\n| | version | settings |\n| --- | --- | --- |\n");
    for Contestant { title, version, settings, documentation, .. } in &race.contestants {
        let links: Vec<_> =
            documentation.iter().enumerate().map(|(at, link)| format!("[{}]({link})", at + 1)).collect();
        writeln!(text, "| {title} | {version} | {settings} {} |", links.join(" "))?;
    }
    text.push('\n');
    for Contestant { title, remark, .. } in &race.contestants {
        if let Some(remark) = remark {
            writeln!(text, "- {title}: {remark}.")?;
        }
    }
    for (title, why) in &race.absent {
        writeln!(text, "- {title} did not take part: {why}.")?;
    }
    text += "\nWhole settings: [bench/race.toml](../race.toml) and the files in [bench/peers](../peers).\n\n";
    Ok(text)
}

fn how(race: &Race) -> Result<String> {
    let machine = crate::results::describe(&race.machine);
    let others: Vec<_> = race.runs.iter().map(|run| run.others).collect();
    let mean = others.iter().sum::<f64>() / others.len().max(1) as f64;
    let mut text = String::from("## Machine\n\n");
    writeln!(text, "- {machine}")?;
    writeln!(text, "- other processes used {} of a core on average meanwhile", format::percent(mean))?;
    writeln!(text, "- source: {}; it took {:.0} min\n", race.source, race.seconds / 60.0)?;
    text += "## How to repeat it\n\n```sh\ncargo build --release --workspace\n\
             target/release/bench race --install            # installs the peers (apt-get, npm), then races\n\
             target/release/bench race --only ringyard,nats --rows saturation,crowd\n\
             target/release/bench race --resume             # goes on after an interruption\n\
             target/release/bench race --peers mine.toml    # with a server of yours: bench/race.toml says how\n```\n";
    Ok(text)
}

/// The README's section.
fn section(race: &Race, drawn: &[charts::Chart]) -> String {
    // Why somebody has no figure is on the whole page.
    let mut brief = race.clone();
    brief.contestants.iter_mut().for_each(|contestant| contestant.cannot.clear());
    let mut text = table(&brief, &summary::main_columns());
    text += &format!(
        "\n5,000 subscribers of one topic unless it says otherwise, {} bytes per message, one core for the server, one for \
         the clients; medians of\n{} runs, least and most in brackets, bold what nobody beats. `bench race` measured it, \
         {}. What each column is, the peers'\nversions and settings, what went wrong in which run and how to repeat it: \
         [RACE.md](results/RACE.md).\n",
        super::plan::PAYLOAD,
        race.rounds,
        race.begun,
    );
    for chart in drawn.iter().filter(|chart| chart.main) {
        text += &format!("\n![{}](results/race/{})\n", chart.title, chart.file);
    }
    text
}

/// `text` with what stands between the marks replaced, if it has them.
fn between_marks(text: &str, section: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::race::record::tests::{delivering, race, run};

    fn one() -> Race {
        let mut race = race();
        race.contestants.push(Contestant {
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
        race.absent.push(("Peer B".to_owned(), "there is no b".to_owned()));
        let mut latest = run("a", Row::Saturation, "saturation-4", 1, delivering(123_456));
        latest.outcome.as_mut().unwrap().errors.lost = 3;
        race.runs.push(latest);
        race
    }

    #[test]
    fn the_page_has_figures_and_what_went_wrong() {
        let page = whole(&one(), "x.json", &[]).unwrap();
        assert!(page.contains("| Peer A | **123,456** |"), "{page}");
        assert!(page.contains("- Peer A: 3 lost in 1 of 1 runs (saturation-4)"), "{page}");
        assert!(page.contains("- Peer A: one topic only\n") && !page.contains("| Peer A | (one topic"), "{page}");
        assert!(page.contains("| Peer A | 1.2 | defaults [1](https://example.org/) |"));
        assert!(page.contains("Peer B did not take part: there is no b") && page.contains("takes naps"));
        assert!(page.contains("interrupted") && page.contains("(race/x.json)"));
        assert!(tables(&one()).starts_with("Saturation\n"));
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- race -->\nold\n<!-- /race -->\nb\n";
        let changed = between_marks(text, "new\n").unwrap();
        assert_eq!(changed, "a\n<!-- race -->\nnew\n<!-- /race -->\nb\n");
        assert_eq!(between_marks(&changed, "new\n").unwrap(), changed);
        assert!(between_marks("no marks", "new").is_none());
    }
}
