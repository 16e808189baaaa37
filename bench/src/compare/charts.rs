//! The plots of a comparison: bars and lines of the tables' figures, one SVG file each.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use loadgen::plot::{Axis, Bar, BarChart, Line, LineChart, Unit};

use super::plan::{Row, SUBSCRIBERS};
use super::record::Comparison;
use super::summary::{Column, Figure, columns};

/// A plot of one row.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) row: Row,
    pub(super) title: &'static str,
    pub(super) file: &'static str,
    /// Shown in the README too.
    pub(super) main: bool,
}

type Draw = fn(&Comparison, &str) -> Option<String>;

const CHARTS: [(Chart, Draw); 6] = [
    (chart(Row::Saturation, "Delivered messages per second, 5,000 subscribers", "delivered.svg", true), delivered),
    (chart(Row::Cpu, "Processor time per message over subscribers", "cpu.svg", true), cpu),
    (chart(Row::Latency, "Latency at 70 % of the least capacity", "latency.svg", true), latency),
    (chart(Row::Idle, "User memory per idle connection", "memory.svg", true), memory),
    (chart(Row::Idle, "Processor time per admitted connection", "admission.svg", false), admission),
    (chart(Row::Topics, "Processor time per message, 10,000 topics", "topics.svg", false), topics),
];

const fn chart(row: Row, title: &'static str, file: &'static str, main: bool) -> Chart {
    Chart { row, title, file, main }
}

/// Draws every plot for which there are figures.
pub(super) fn write_all(comparison: &Comparison, folder: &Path) -> Result<Vec<Chart>> {
    fs::create_dir_all(folder)?;
    let mut drawn = Vec::new();
    for (chart, draw) in CHARTS {
        if let Some(svg) = draw(comparison, chart.title) {
            let path = folder.join(chart.file);
            fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
            drawn.push(chart);
        }
    }
    Ok(drawn)
}

fn delivered(comparison: &Comparison, title: &str) -> Option<String> {
    let columns = columns(Row::Saturation);
    let series = [("4 outstanding", &columns[0]), ("64 outstanding", &columns[3])];
    bars(comparison, title, Axis::linear("messages per second"), &series)
}

fn latency(comparison: &Comparison, title: &str) -> Option<String> {
    let columns = columns(Row::Latency);
    let series = [("p50", &columns[4]), ("p99", &columns[5]), ("p99.9", &columns[6])];
    let all = series.iter().flat_map(|(_, column)| {
        comparison.participants.iter().filter_map(|peer| column.figure(comparison, &peer.name)).collect::<Vec<_>>()
    });
    let (least, most) =
        all.fold((f64::INFINITY, 0.0_f64), |(least, most), figure| (least.min(figure.least), most.max(figure.most)));
    // Bars begin at the end of the axis: it lies below the shortest bar, so that this one is visible.
    let axis = Axis::log("").unit(Unit::Time).bounds(least / 3.0, most * 1.1);
    bars(comparison, title, axis, &series)
}

fn memory(comparison: &Comparison, title: &str) -> Option<String> {
    let columns = columns(Row::Idle);
    bars(comparison, title, Axis::linear("").unit(Unit::Bytes), &[("memory", &columns[0])])
}

fn admission(comparison: &Comparison, title: &str) -> Option<String> {
    let columns = columns(Row::Idle);
    bars(comparison, title, Axis::linear("").unit(Unit::Time), &[("processor time", &columns[2])])
}

fn topics(comparison: &Comparison, title: &str) -> Option<String> {
    let columns = columns(Row::Topics);
    bars(comparison, title, Axis::linear("").unit(Unit::Time), &[("processor time", &columns[1])])
}

/// A group of bars for every peer that has a figure, a bar for every series.
fn bars(comparison: &Comparison, title: &str, axis: Axis, series: &[(&str, &Column)]) -> Option<String> {
    let figures = |column: &Column| -> Vec<Option<Figure>> {
        comparison.participants.iter().map(|peer| column.figure(comparison, &peer.name)).collect()
    };
    let series: Vec<_> = series.iter().map(|(name, column)| (*name, figures(column))).collect();
    let shown: Vec<_> = (0..comparison.participants.len())
        .filter(|at| series.iter().any(|(_, figures)| figures[*at].is_some()))
        .collect();
    if shown.is_empty() {
        return None;
    }
    let chart = BarChart::new(title, axis).groups(shown.iter().map(|at| comparison.participants[*at].title.as_str()));
    let chart = chart.describe("Whiskers: the least and the most of several runs.");
    let chart = series.iter().fold(chart, |chart, (name, figures)| {
        let bar = |figure: &Figure| Bar::new(figure.median).spread(figure.least, figure.most);
        chart.series(name, shown.iter().map(|at| figures[*at].as_ref().map(bar)).collect())
    });
    Some(chart.svg())
}

fn cpu(comparison: &Comparison, title: &str) -> Option<String> {
    let columns = columns(Row::Cpu);
    let (x, y) = (Axis::log("subscribers"), Axis::linear("").unit(Unit::Time));
    let mut chart = LineChart::new(title, x, y).describe("Shaded: the least and the most of several runs.");
    let mut any = false;
    for peer in &comparison.participants {
        let figures = SUBSCRIBERS.iter().zip(&columns);
        let figures: Vec<_> = figures
            .filter_map(|(clients, column)| Some((f64::from(*clients), column.figure(comparison, &peer.name)?)))
            .collect();
        if !figures.is_empty() {
            any = true;
            let line = Line::new(&peer.title, figures.iter().map(|(x, figure)| (*x, figure.median)).collect());
            let spread = figures.iter().map(|(x, figure)| (*x, figure.least, figure.most)).collect();
            chart = chart.line(line.marked().spread(spread));
        }
    }
    any.then(|| chart.svg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::record::tests::{comparison, delivering, run};
    use crate::compare::summary::tests::participant;

    #[test]
    fn what_was_measured_is_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let mut comparison = comparison();
        comparison.participants.push(participant("a"));
        comparison.runs.push(run("a", Row::Saturation, "saturation-4", 1, delivering(1234)));
        let drawn = write_all(&comparison, folder.path()).unwrap();
        assert_eq!(drawn.len(), 1);
        let svg = fs::read_to_string(folder.path().join(drawn[0].file)).unwrap();
        assert!(svg.contains("<svg") && svg.contains("64 outstanding"));
    }

    #[test]
    fn charts_are_of_their_rows_columns() {
        let (saturation, latency) = (columns(Row::Saturation), columns(Row::Latency));
        assert_eq!((&saturation[0].key[..], &saturation[3].key[..]), ("saturation-4", "saturation-64"));
        assert!(saturation[3].title.contains("delivered") && latency[4].title == "p50 at 70 %");
        assert_eq!(columns(Row::Idle)[2].title, "CPU per admission");
        assert_eq!(columns(Row::Cpu)[3].key, format!("cpu-{}", SUBSCRIBERS[3]));
    }
}
