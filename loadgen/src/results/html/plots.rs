//! The page's plots: each as an SVG with its figures as a table below; those that take the page's width in another size
//! for small screens.

use super::put;
use crate::format::{bytes, count, number, percent, time};
use crate::outcome::{Latencies, Outcome, Phase, Second, percentile};
use crate::plot::{Axis, Line, LineChart, Unit, escape};
use crate::series::thin;

/// Rows of a plot and its table; longer runs are thinned.
const ROWS_MAX: usize = 360;
/// Points of a distribution lie at least this far apart, as a factor of what is left above them.
const APART: f64 = 0.98;

/// All plots that there is something for.
pub(super) fn section(outcome: &Outcome) -> String {
    let rows = thin(&outcome.series, ROWS_MAX);
    let mut out = String::new();
    put_distribution(&mut out, outcome);
    put_latency(&mut out, &rows);
    put_rate(&mut out, &rows, "Delivered per second", |row| row.delivered);
    put_rate(&mut out, &rows, "Published per second", |row| row.published);
    put_rate(&mut out, &rows, "Errors per second", |row| row.errors);
    put_clients(&mut out, &rows);
    put_cpu(&mut out, &rows);
    put_memory(&mut out, &rows);
    if out.is_empty() {
        return out;
    }
    let mut head = String::from("<section>\n<h2>Plots</h2>\n");
    if rows.len() < outcome.series.len() {
        let each = rows.first().map_or(0.0, |row| row.span);
        put(
            &mut head,
            format_args!(
                "<p class=\"note\">Every point stands for {each} seconds; of latencies it is the worst of them.</p>\n"
            ),
        );
    }
    format!("{head}<div class=\"plots\">\n{out}</div>\n</section>\n")
}

/// A plot over its table; a wide one in two sizes.
struct Figure<'a> {
    title: &'a str,
    note: &'a str,
    /// Takes the page's width on large screens.
    wide: bool,
    chart: LineChart,
    head: Vec<&'a str>,
    body: Vec<Vec<String>>,
}

impl Figure<'_> {
    fn put(self, out: &mut String) {
        let class = if self.wide { " class=\"wide\"" } else { "" };
        put(out, format_args!("<figure{class}>\n<h3>{}</h3>\n", escape(self.title)));
        if !self.note.is_empty() {
            put(out, format_args!("<p class=\"note\">{}</p>\n", escape(self.note)));
        }
        let chart = self.chart.bare();
        if self.wide {
            put(out, format_args!("<div class=\"small\">{}</div>\n", chart.clone().size(350.0, 320.0).svg()));
            put(out, format_args!("<div class=\"large\">{}</div>\n", chart.size(1030.0, 360.0).svg()));
        } else {
            put(out, format_args!("{}\n", chart.size(420.0, 270.0).svg()));
        }
        put(
            out,
            format_args!(
                "<details><summary>The figures</summary><div class=\"scroll\" tabindex=\"0\"><table>\n<caption>{}</caption>\n<thead><tr>",
                escape(self.title)
            ),
        );
        for (at, name) in self.head.iter().enumerate() {
            let class = if at == 0 { "" } else { " class=\"n\"" };
            put(out, format_args!("<th scope=\"col\"{class}>{}</th>", escape(name)));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.body {
            out.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let class = if at == 0 { "" } else { " class=\"n\"" };
                put(out, format_args!("<td{class}>{}</td>", escape(cell)));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table></div></details>\n</figure>\n");
    }
}

fn put_distribution(out: &mut String, outcome: &Outcome) {
    let all = [("messages", &outcome.latency), ("admission", &outcome.admission)];
    let known: Vec<_> = all.into_iter().filter(|(_, latencies)| latencies.count > 0).collect();
    if known.is_empty() {
        return;
    }
    let mut chart =
        LineChart::new("Latency distribution", Axis::percentile("percentile"), Axis::log("latency").unit(Unit::Time))
            .describe(&known.iter().map(|(name, latencies)| in_words(name, latencies)).collect::<Vec<_>>().join(" "));
    for (name, latencies) in &known {
        chart = chart.line(Line::new(name, distribution(latencies)));
    }
    let percents = [50.0, 90.0, 99.0, 99.9];
    let histograms: Vec<_> = known.iter().map(|(_, latencies)| latencies.histogram()).collect();
    let row = |percent: f64| {
        let values = histograms.iter().map(|histogram| time(percentile(histogram, percent) as f64));
        std::iter::once(format!("p{percent}")).chain(values).collect()
    };
    let mut body: Vec<Vec<String>> = percents.into_iter().map(row).collect();
    let of = |name: &str, figure: fn(&Latencies) -> String| {
        std::iter::once(name.to_owned()).chain(known.iter().map(|(_, latencies)| figure(latencies))).collect()
    };
    body.push(of("max", |latencies| time(latencies.max as f64)));
    body.push(of("mean", |latencies| time(latencies.mean)));
    body.push(of("samples", |latencies| count(latencies.count)));
    let head = std::iter::once("percentile").chain(known.iter().map(|(name, _)| *name)).collect();
    let note =
        "Messages: from when one was due until a verifying client had it. Admission: upgrade request until subscribed.";
    Figure { title: "Latency distribution", note, wide: true, chart, head, body }.put(out);
}

fn in_words(name: &str, latencies: &Latencies) -> String {
    format!(
        "{name}: p50 {}, p99 {}, max {}.",
        time(latencies.p50 as f64),
        time(latencies.p99 as f64),
        time(latencies.max as f64)
    )
}

/// (percentile, nanoseconds), as many as a plot can show.
fn distribution(latencies: &Latencies) -> Vec<(f64, f64)> {
    let total: u64 = latencies.values.iter().map(|(_, count)| count).sum();
    let mut points = Vec::new();
    let (mut seen, mut left_drawn) = (0_u64, f64::INFINITY);
    for (at, (value, count)) in latencies.values.iter().enumerate() {
        // From the first message of this value...
        let left = (total - seen) as f64 / total as f64;
        seen += count;
        if left <= left_drawn * APART || at + 1 == latencies.values.len() {
            points.push((100.0 * (1.0 - left), *value as f64));
            left_drawn = left;
        }
    }
    // ... the last value up to the last message.
    if let Some((percent, value)) = points.last().copied()
        && total > 1
    {
        let end = 100.0 * (1.0 - 1.0 / total as f64);
        if end > percent {
            points.push((end, value));
        }
    }
    points
}

/// Over the run's time, with its phases.
fn over_time(title: &str, rows: &[Second], y: Axis) -> LineChart {
    let mut chart = LineChart::new(title, Axis::linear("").unit(Unit::Seconds), y);
    let mut from = rows.first().map_or(0.0, |row| row.at - row.span);
    for (at, row) in rows.iter().enumerate() {
        if rows.get(at + 1).is_none_or(|next| next.phase != row.phase) {
            chart = chart.band(from, row.at, row.phase.name(), row.phase != Phase::Measure);
            from = row.at;
        }
    }
    chart
}

/// What happened within a row stands in its middle.
fn middle(row: &Second) -> f64 {
    row.at - row.span / 2.0
}

fn table_of(rows: &[Second], figures: &[&dyn Fn(&Second) -> String]) -> Vec<Vec<String>> {
    rows.iter()
        .map(|row| {
            let when = [format!("{} s", number(row.at)), row.phase.name().to_owned()];
            when.into_iter().chain(figures.iter().map(|figure| figure(row))).collect()
        })
        .collect()
}

fn put_latency(out: &mut String, rows: &[Second]) {
    // While connecting it is another latency: that of admission.
    let shown: Vec<_> = rows.iter().filter(|row| row.latency.count > 0 && row.phase != Phase::Connect).collect();
    if shown.is_empty() {
        return;
    }
    type Pick = fn(&Latencies) -> u64;
    let picks: [(&str, Pick); 5] =
        [("p50", |l| l.p50), ("p90", |l| l.p90), ("p99", |l| l.p99), ("p99.9", |l| l.p999), ("max", |l| l.max)];
    let mut chart = over_time("Latency by the second", rows, Axis::log("latency").unit(Unit::Time));
    for (name, pick) in picks {
        let points = shown.iter().map(|row| (middle(row), pick(&row.latency) as f64)).collect();
        chart = chart.line(Line::new(name, points));
    }
    let worst = shown.iter().max_by_key(|row| row.latency.max).expect("not empty");
    chart = chart.describe(&format!(
        "The slowest message took {}, in the second that ended {} s after the start.",
        time(worst.latency.max as f64),
        number(worst.at)
    ));
    let figure = |pick: Pick| {
        move |row: &Second| if row.latency.count > 0 { time(pick(&row.latency) as f64) } else { "–".into() }
    };
    let figures = picks.map(|(_, pick)| figure(pick));
    let body = table_of(rows, &figures.each_ref().map(|figure| figure as &dyn Fn(&Second) -> String));
    let head = ["until", "phase"].into_iter().chain(picks.map(|(name, _)| name)).collect();
    Figure { title: "Latency by the second", note: "", wide: true, chart, head, body }.put(out);
}

fn put_rate(out: &mut String, rows: &[Second], title: &str, pick: fn(&Second) -> u64) {
    if rows.iter().all(|row| pick(row) == 0) {
        return;
    }
    let rate = |row: &Second| if row.span > 0.0 { pick(row) as f64 / row.span } else { 0.0 };
    let most = rows.iter().map(rate).fold(0.0, f64::max);
    let chart = over_time(title, rows, Axis::linear("per second"))
        .describe(&format!("At most {} in a second.", number(most)))
        .line(Line::new(title, rows.iter().map(|row| (middle(row), rate(row))).collect()));
    let body = table_of(rows, &[&|row| number(rate(row))]);
    Figure { title, note: "", wide: false, chart, head: vec!["until", "phase", "per second"], body }.put(out);
}

fn put_clients(out: &mut String, rows: &[Second]) {
    let most = rows.iter().map(|row| row.clients).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    let title = "Clients subscribed";
    let before = rows.first().map(|row| (row.at - row.span, row.clients.saturating_sub(row.opened) as f64));
    let points = rows.iter().map(|row| (row.at, row.clients as f64));
    let chart = over_time(title, rows, Axis::linear("clients"))
        .describe(&format!("At most {}.", count(most)))
        .line(Line::new(title, before.into_iter().chain(points).collect()));
    let body = table_of(rows, &[&|row| count(row.clients), &|row| count(row.opened)]);
    let head = vec!["until", "phase", "subscribed", "newly subscribed"];
    Figure { title, note: "", wide: false, chart, head, body }.put(out);
}

fn put_cpu(out: &mut String, rows: &[Second]) {
    if rows.iter().all(|row| row.own_cpu == 0.0 && row.server_cpu.is_none()) {
        return;
    }
    let title = "Processor";
    let own = rows.iter().map(|row| (middle(row), row.own_cpu)).collect();
    let server: Vec<_> = rows.iter().map(|row| (middle(row), row.server_cpu.unwrap_or(f64::NAN))).collect();
    let watched = rows.iter().any(|row| row.server_cpu.is_some());
    let mut chart = over_time(title, rows, Axis::linear("share of one core").unit(Unit::Share));
    if watched {
        chart = chart.line(Line::new("server", server));
    }
    chart = chart.line(Line::new("loadgen", own));
    let server = |row: &Second| row.server_cpu.map_or("–".into(), percent);
    let body = table_of(rows, &[&server, &|row| percent(row.own_cpu)]);
    let note = if watched { "100 % is one core." } else { "Of loadgen alone; 100 % is one core." };
    Figure { title, note, wide: false, chart, head: vec!["until", "phase", "server", "loadgen"], body }.put(out);
}

fn put_memory(out: &mut String, rows: &[Second]) {
    if rows.iter().all(|row| row.server_memory.is_none()) {
        return;
    }
    let title = "Server memory";
    let points = rows.iter().map(|row| (row.at, row.server_memory.map_or(f64::NAN, |memory| memory as f64)));
    let most = rows.iter().filter_map(|row| row.server_memory).max().unwrap_or(0);
    let chart = over_time(title, rows, Axis::linear("anonymous memory").unit(Unit::Bytes))
        .describe(&format!("At most {}.", bytes(most as f64)))
        .line(Line::new(title, points.collect()));
    let body = table_of(rows, &[&|row| row.server_memory.map_or("–".into(), |memory| bytes(memory as f64))]);
    Figure { title, note: "", wide: false, chart, head: vec!["until", "phase", "memory"], body }.put(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::histogram;
    use crate::sample;

    #[test]
    fn a_distribution_ends_at_its_last_message() {
        let mut latency = histogram();
        (0..1000).for_each(|_| latency.record(1_000_000).unwrap());
        latency.record(9_000_000).unwrap();
        let points = distribution(&Latencies::of(&latency));
        assert_eq!(points[0].0, 0.0);
        let (percent, value) = *points.last().unwrap();
        assert!((percent - 100.0 * (1.0 - 1.0 / 1001.0)).abs() < 1e-9 && (8.9e6..9.1e6).contains(&value));
        assert_eq!(distribution(&Latencies::default()), []);
    }

    #[test]
    fn a_distribution_has_as_many_points_as_a_plot_shows() {
        let points = distribution(&sample::good().latency);
        assert!((100..800).contains(&points.len()), "{}", points.len());
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
    }

    #[test]
    fn every_plot_has_its_figures_and_phases() {
        let html = section(&sample::bad());
        assert_eq!(html.matches("<figure").count(), 8);
        assert_eq!(html.matches("<svg").count(), 8 + 2);
        assert_eq!(html.matches("<details>").count(), 8);
        assert_eq!(html.matches("<title>").count(), 8 + 2);
        assert!(html.contains(">connect</text>") && html.contains(">measure</text>"));
        // A good run has no plot of errors.
        assert_eq!(section(&sample::good()).matches("<figure").count(), 7);
        assert_eq!(section(&Outcome::default()), "");
    }

    #[test]
    fn a_long_run_is_thinned_and_says_so() {
        let mut outcome = sample::good();
        let row = outcome.series[30].clone();
        outcome.series = (1..=7200).map(|at| Second { at: f64::from(at), ..row.clone() }).collect();
        let html = section(&outcome);
        assert!(html.contains("Every point stands for 20 seconds"));
        assert!(html.len() < 1_000_000, "{}", html.len());
    }
}
