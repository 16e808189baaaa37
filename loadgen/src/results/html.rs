//! The result as one HTML page: no scripts, no network, plots inline, for small screens and dark themes too.
//!
//! All text from outside (names, URLs, reasons of a server) goes through [`escape`]. A policy in the page forbids it to
//! load anything. Below each plot its figures are a table, for readers who cannot see the plot.

mod plots;

use std::fmt::Write;

use time::OffsetDateTime;

use super::{conditions, errors, lines};
use crate::format::{bytes, count, number, plain, time};
use crate::outcome::Outcome;
use crate::plot::escape;
use crate::verdict::{Verdict, kinds};

const STYLE: &str = include_str!("page.css");

/// The page. Judge the outcome first.
#[must_use]
pub fn page(outcome: &Outcome) -> String {
    let run = &outcome.run;
    let verdict = Verdict::of(outcome);
    let title = plain(&format!("{}: {} clients", run.scenario, count(run.clients)));
    let mut out = String::with_capacity(1 << 17);
    out.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n",
    );
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    put(&mut out, format_args!("<title>{} – {} – ringyard-loadgen</title>\n", escape(&title), verdict.word()));
    put(
        &mut out,
        format_args!("<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{}</h1>\n", escape(&title)),
    );
    put(&mut out, format_args!("<p class=\"sub\">{}</p>\n</header>\n", escape(&plain(&origin(outcome)))));
    put_verdict(&mut out, &verdict);
    put_tiles(&mut out, outcome);
    put_errors(&mut out, outcome);
    out.push_str(&plots::section(outcome));
    put_lines(&mut out, outcome);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(what);
}

/// `ws://... over raw, 2027-01-15 08:00 UTC, version 0.1.0`.
fn origin(outcome: &Outcome) -> String {
    let run = &outcome.run;
    let protocol = run.protocol.map_or(String::new(), |protocol| format!(" over {}", protocol.name()));
    let mut text = format!("{}{protocol}", run.url);
    if let Some(started) = utc(run.started_unix_ms / 1000).filter(|_| run.started_unix_ms > 0) {
        text += &format!(" · {started}");
    }
    if !run.version.is_empty() {
        text += &format!(" · ringyard-loadgen {}", run.version);
    }
    text
}

/// Seconds since 1970 as a date and a time; nothing beyond the calendar's end.
fn utc(seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    Some(format!("{} {:02}:{:02} UTC", time.date(), time.hour(), time.minute()))
}

fn put_verdict(out: &mut String, verdict: &Verdict) {
    let (class, sign, heading) = match verdict.word() {
        "FAILED" => ("failed", "✕", "Failed"),
        "INTERRUPTED" => ("invalid", "!", "Interrupted"),
        "INVALID" => ("invalid", "!", "Invalid: loadgen was the bottleneck"),
        _ => ("valid", "✓", "Valid"),
    };
    put(
        out,
        format_args!(
            "<section class=\"verdict {class}\" aria-label=\"Verdict\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span>\
         <div><h2>{heading}</h2>"
        ),
    );
    let limit = verdict.invalid.iter().map(|why| {
        if verdict.failed() { format!("Also invalid: loadgen was the bottleneck: {why}") } else { why.clone() }
    });
    let said: Vec<_> = verdict.failures.iter().cloned().chain(limit).chain(verdict.notes.iter().cloned()).collect();
    match said.is_empty() {
        true => out.push_str("<p>No message lost, duplicated, reordered or corrupt; no client refused or closed.</p>"),
        false => {
            out.push_str("<ul>");
            said.iter().for_each(|said| put(out, format_args!("<li>{}</li>", escape(said))));
            out.push_str("</ul>");
        }
    }
    out.push_str("</div></section>\n");
}

fn put_tiles(out: &mut String, outcome: &Outcome) {
    let latency = &outcome.latency;
    let measured = |ns: u64| (latency.count > 0).then(|| time(ns as f64));
    let tiles = [
        ("delivered per second", (outcome.traffic.delivered > 0).then(|| number(outcome.delivered_per_second()))),
        ("latency p50", measured(latency.p50)),
        ("latency p90", measured(latency.p90)),
        ("latency p99", measured(latency.p99)),
        ("latency p99.9", measured(latency.p999)),
        ("latency max", measured(latency.max)),
        ("server CPU per message", outcome.server_ns_per_message().map(time)),
        ("server memory per client", outcome.server_bytes_per_connection().filter(|each| *each > 0.0).map(bytes)),
        ("connected in", (outcome.connect.opened > 0).then(|| crate::format::seconds(outcome.connect.seconds))),
    ];
    out.push_str("<dl class=\"tiles\">\n");
    for (name, value) in tiles {
        if let Some(value) = value {
            put(out, format_args!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value)));
        }
    }
    out.push_str("</dl>\n");
}

fn put_errors(out: &mut String, outcome: &Outcome) {
    let said = errors(outcome);
    if said.is_empty() {
        return;
    }
    out.push_str("<section>\n<h2>Errors</h2>\n");
    let kinds = kinds(&outcome.errors);
    if !kinds.is_empty() {
        out.push_str("<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Kind</th><th scope=\"col\" class=\"n\">Count</th><th scope=\"col\">What it is</th></tr></thead>\n<tbody>\n");
        for kind in &kinds {
            put(
                out,
                format_args!(
                    "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"w\">{}",
                    escape(kind.name),
                    count(kind.count),
                    escape(kind.meaning)
                ),
            );
            if !kind.details.is_empty() {
                put(out, format_args!("<br><small>{}</small>", escape(&super::reasons(&kind.details))));
            }
            out.push_str("</td></tr>\n");
        }
        out.push_str("</tbody>\n</table></div>\n");
    }
    // What is no error comes last.
    said.iter().skip(kinds.len()).for_each(|line| put(out, format_args!("<p>{}</p>\n", escape(line))));
    out.push_str("</section>\n");
}

fn put_lines(out: &mut String, outcome: &Outcome) {
    out.push_str("<section>\n<h2>The run</h2>\n<dl class=\"facts\">\n");
    for line in lines(outcome).into_iter().chain([conditions(outcome)]).filter(|line| !line.text.is_empty()) {
        put(out, format_args!("<dt>{}</dt>", escape(line.name)));
        line.text.iter().for_each(|text| put(out, format_args!("<dd>{}</dd>", escape(text))));
        out.push('\n');
    }
    out.push_str("</dl>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// Elements are closed in order; void ones and the doctype aside.
    fn assert_whole(html: &str) {
        let mut open = Vec::new();
        for tag in html.split('<').skip(1) {
            let name: String = tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
            let inside = tag.split('>').next().unwrap();
            if tag.starts_with('!') || ["meta", "br"].contains(&name.as_str()) || inside.ends_with('/') {
                continue;
            }
            match tag.starts_with('/') {
                true => {
                    assert_eq!(open.pop().as_deref(), Some(name.as_str()), "before {:?}", &html[html.len().min(9)..9])
                }
                false => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn a_page_is_whole_and_refers_to_nothing_outside() {
        for outcome in [sample::good(), sample::bad(), Outcome::default()] {
            let html = page(&outcome);
            assert_whole(&html);
            for outside in ["<script", "href", "src=", "url(", "@import", "<link", "<iframe", "<img", "onload"] {
                assert!(!html.contains(outside), "{outside}");
            }
            let addresses = html.replace("http://www.w3.org/2000/svg", "").replace(&escape(&outcome.run.url), "");
            assert!(!addresses.contains("://") || outcome.run.url.is_empty());
            assert!(!html.contains("NaN") && !html.contains("inf\""), "a figure that is none");
        }
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        const EVIL: &str = "<b>\"'&\x1b";
        let mut outcome = sample::bad();
        let run = &mut outcome.run;
        for text in
            [&mut run.scenario, &mut run.url, &mut run.payload, &mut run.pacing, &mut run.version, &mut run.machine]
        {
            *text = EVIL.into();
        }
        outcome.invalid = vec![EVIL.into()];
        outcome.crossed = vec![EVIL.into()];
        outcome.errors.refused.insert(EVIL.into(), 1);
        outcome.errors.broken.insert(EVIL.into(), 1);
        outcome.errors.publishers.insert(EVIL.into(), 1);
        let html = page(&outcome);
        assert_whole(&html);
        assert!(!html.contains("<b>") && !html.contains("<script") && !html.contains('\x1b'));
        assert!(html.contains("&lt;b&gt;&quot;&#39;&amp;"));
    }

    #[test]
    fn the_verdict_is_said_in_words() {
        assert!(page(&sample::good()).contains("<h2>Valid</h2>"));
        let bad = page(&sample::bad());
        assert!(bad.contains("<h2>Failed</h2>") && bad.contains("1,204 lost") && bad.contains("Also invalid"));
        assert!(bad.contains("503 Service Unavailable"));
        let mut busy = sample::good();
        busy.invalid = vec!["worker 1 was busy".into()];
        assert!(page(&busy).contains("<h2>Invalid: loadgen was the bottleneck</h2><ul><li>worker 1 was busy</li>"));
    }

    #[test]
    fn dates_are_written_in_full() {
        assert_eq!(utc(1_800_000_000).as_deref(), Some("2027-01-15 08:00 UTC"));
        assert_eq!(utc(u64::MAX), None);
    }

    #[test]
    #[ignore = "writes pages for people to look at"]
    fn write_pages() {
        let folder = std::env::temp_dir().join("ringyard-loadgen-pages");
        std::fs::create_dir_all(&folder).unwrap();
        let mut busy = sample::good();
        busy.invalid = vec!["worker 1 used 99 % of its core".into()];
        for (name, outcome) in [("good", sample::good()), ("bad", sample::bad()), ("invalid", busy)] {
            std::fs::write(folder.join(format!("{name}.html")), page(&outcome)).unwrap();
        }
    }
}
