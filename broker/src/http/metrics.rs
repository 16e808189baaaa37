//! `GET /metrics`: what Prometheus scrapes, in its text format, version 0.0.4.
//!
//! [`FAMILIES`] is the list of all metrics and the only place where they are described: `# HELP` and broker/METRICS.md
//! come from it. Values are the shards' [counters](crate::observe::counters::Snapshot), added up unless the list says
//! `shard`, and what the control plane knows itself. A scrape reads a few hundred numbers; shards do not notice.
//!
//! Units are Prometheus's: seconds and bytes. Names end in their unit, counters in `_total`.

mod samples;
mod view;

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::capacity::budget::Held;
use crate::http::app::{App, VERSION};
use crate::http::metrics::samples::Samples;
use crate::http::metrics::view::View;

const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The handler.
pub(crate) async fn show(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, MEDIA)], page(&View::now(&app))).into_response()
}

fn page(view: &View<'_>) -> String {
    let mut out = String::with_capacity(32 << 10);
    for family in FAMILIES {
        let Family { name, kind, labels, help, .. } = family;
        let kind = kind.name();
        // A family without samples is described all the same: dashboards find its name.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        (family.samples)(view, &mut Samples { name, labels, out: &mut out });
    }
    out
}

/// One metric.
struct Family {
    name: &'static str,
    kind: Kind,
    /// Names of its labels.
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&View<'_>, &mut Samples<'_>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// A family of one sample.
const fn plain(name: &'static str, kind: Kind, help: &'static str, samples: fn(&View<'_>, &mut Samples<'_>)) -> Family {
    Family { name, kind, labels: &[], help, samples }
}

const fn labelled(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    samples: fn(&View<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind, labels, help, samples }
}

use Kind::{Counter, Gauge, Histogram};

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    labelled("ringyard_info", Gauge, &["version", "driver"],
        "Always 1; the labels say the version and what moves the bytes, io_uring or epoll.",
        |view, out| out.labelled(&[("version", VERSION), ("driver", view.app.room().io.name())], 1)),
    labelled("ringyard_io_fallback", Gauge, &["cause"],
        "1 if the broker runs on epoll because io_uring cannot be used here, with the cause; absent otherwise.",
        |view, out| {
            if let Some(cause) = &view.app.operators().fallback {
                out.labelled(&[("cause", cause.name())], 1);
            }
        }),
    plain("ringyard_ready", Gauge,
        "1 while the broker wants connections (/readyz), 0 from the moment it is told to end.",
        |view, out| out.value(u8::from(view.app.is_ready()))),
    plain("ringyard_shards", Gauge,
        "Shards: threads that hold connections.",
        |view, out| out.value(view.app.shards())),
    plain("ringyard_start_time_seconds", Gauge,
        "When the broker was ready, in seconds since 1970.",
        |view, out| out.value(view.app.started_s())),

    labelled("ringyard_tls_handshakes_total", Counter, &["version", "resumed"],
        "TLS handshakes that were completed, by version and by whether a ticket resumed an earlier one.",
        |view, out| {
            for (version, resumed, count) in view.totals.tls_handshakes() {
                out.labelled(&[("version", version), ("resumed", resumed)], count);
            }
        }),
    labelled("ringyard_tls_failures_total", Counter, &["cause"],
        "TLS connections that could not begin or go on: cleartext, the client spoke no TLS; alert, it sent one; \
         incompatible, no version or cipher in common; violation, it broke the rules.",
        |view, out| {
            for (cause, count) in view.totals.tls_failures() {
                out.labelled(&[("cause", cause)], count);
            }
        }),
    labelled("ringyard_tls_alerts_total", Counter, &["alert"],
        "TLS alerts that clients sent, with which their connections ended, by name (RFC 8446). unknown_ca, certificate_unknown \
         and bad_certificate: they do not trust the certificate.",
        |view, out| {
            for (alert, count) in view.app.shared().tls.iter().flat_map(|tls| tls.alerts.counts()) {
                out.labelled(&[("alert", alert)], count);
            }
        }),
    labelled("ringyard_tls_certificate_expires_seconds", Gauge, &["file"],
        "When the certificate of a [[tls]] table ends that is in force, in seconds since 1970; absent without \
         --tls-listen.",
        |view, out| {
            for (file, end_s) in view.app.shared().tls.iter().flat_map(|tls| tls.expiries()) {
                out.labelled(&[("file", &file)], end_s);
            }
        }),
    labelled("ringyard_tls_certificate_refused", Gauge, &["file", "cause"],
        "1 while the files of a [[tls]] table are bad, so that the certificate from before stays in force; absent when \
         they are good. cause: unreadable, malformed, mismatch (the key is another's), expired.",
        |view, out| {
            for bad in view.app.shared().tls.iter().flat_map(|tls| tls.refused()) {
                out.labelled(&[("file", &bad.file.display().to_string()), ("cause", bad.fault.cause.name())], 1);
            }
        }),

    labelled("ringyard_connections", Gauge, &["shard"],
        "Open connections on the public port, handshakes included.",
        |view, out| out.by_shard(&view.shards, |shard| shard.connections)),
    plain("ringyard_connections_max", Gauge,
        "Most connections of all shards together: --max-connections, or what there is room for.",
        |view, out| out.value(view.app.room().connections_max)),
    plain("ringyard_http_connections", Gauge,
        "Connections of the public port that asked for HTTP: those that the control plane holds, and those that stay with shards.",
        |view, out| out.value(view.app.http_connections())),
    plain("ringyard_http_connections_max", Gauge,
        "Most of those at a time; beyond, 503.",
        |view, out| out.value(view.app.room().http_connections_max)),
    plain("ringyard_subscriptions", Gauge,
        "Subscriptions in force.",
        |view, out| out.value(view.totals.subscriptions)),
    plain("ringyard_event_streams", Gauge,
        "Streams of server-sent events that are open; among the connections.",
        |view, out| out.value(view.totals.event_streams)),
    plain("ringyard_polls_waiting", Gauge,
        "Long polls that wait for a message; among the HTTP connections, half of which may.",
        |view, out| out.value(view.app.polls_waiting())),
    plain("ringyard_topics", Gauge,
        "Topics and filters that somebody publishes, subscribes to or remembers; --max-topics bounds them.",
        |view, out| out.value(view.app.shared().registry.len())),
    plain("ringyard_topics_max", Gauge,
        "Most of those: --max-topics.",
        |view, out| out.value(view.app.limits().topics_max)),

    labelled("ringyard_history_bytes", Gauge, &["kind"],
        "What topics remember, in bytes: windows of messages, which are evicted when there is no room, and state (keys, \
         retained messages, snapshots), which is refused. --max-history bounds both together.",
        |view, out| {
            let usage = &view.app.shared().history_usage;
            out.labelled(&[("kind", "window")], usage.window_bytes());
            out.labelled(&[("kind", "state")], usage.state_bytes());
        }),
    plain("ringyard_history_bytes_max", Gauge,
        "Most of those: --max-history.",
        |view, out| out.value(view.app.limits().history_bytes_max)),
    plain("ringyard_keys", Gauge,
        "Keys, retained messages and snapshots of all topics; --max-keys bounds them.",
        |view, out| out.value(view.app.shared().history_usage.state_entries())),
    plain("ringyard_windows_evicted_total", Counter,
        "Windows of topics that were emptied because all histories together took more than --max-history.",
        |view, out| out.value(view.totals.windows_evicted)),
    plain("ringyard_topics_purged_total", Counter,
        "Topics that were purged: DELETE /api/topics/{topic}/messages.",
        |view, out| out.value(view.totals.purged)),
    labelled("ringyard_recoveries_total", Counter, &["recovered"],
        "Subscriptions that came with a position, by whether everything after it was there.",
        |view, out| {
            out.labelled(&[("recovered", "true")], view.totals.recovered);
            out.labelled(&[("recovered", "false")], view.totals.unrecovered);
        }),

    plain("ringyard_leases", Gauge,
        "Leases of topics that somebody has.",
        |view, out| out.value(view.totals.leases)),
    plain("ringyard_leases_granted_total", Counter,
        "Leases granted, renewals not counted.",
        |view, out| out.value(view.totals.leases_granted)),
    plain("ringyard_leases_lost_total", Counter,
        "Leases that ended because they were not renewed in time, or because nothing grants them any more.",
        |view, out| out.value(view.totals.leases_lost)),
    labelled("ringyard_wills_total", Counter, &["outcome"],
        "Last wills of connections that ended, by whether they were published; refused: nothing grants it any more, or \
         the topic did not take it.",
        |view, out| {
            out.labelled(&[("outcome", "published")], view.totals.wills_published);
            out.labelled(&[("outcome", "refused")], view.totals.wills_refused);
        }),

    plain("ringyard_accepted_total", Counter,
        "Connections accepted on the public port.",
        |view, out| out.value(view.totals.accepted)),
    plain("ringyard_upgraded_total", Counter,
        "WebSocket handshakes answered with 101, and streams of events that began.",
        |view, out| out.value(view.totals.upgraded)),
    labelled("ringyard_closed_total", Counter, &["reason"],
        "Connections of shards that ended, each for one reason.",
        |view, out| out.by_reason(view.totals.closed_by())),
    labelled("ringyard_auth_refused_total", Counter, &["cause"],
        "Tokens and keys refused by access control, by the cause that clients do not learn.",
        |view, out| view.app.shared().authority.counts().for_each(|(cause, count)| {
            out.labelled(&[("cause", cause.label())], count);
        })),
    labelled("ringyard_refused_total", Counter, &["reason"],
        "Requests refused, each for one reason.",
        |view, out| out.by_reason(view.totals.refused_by())),
    labelled("ringyard_slow_consumers_total", Counter, &["policy"],
        "Subscribers that fell too far behind, by what was done with them; disconnect: closed with 1013; \
         skip: sent newer messages.",
        |view, out| {
            out.labelled(&[("policy", "disconnect")], view.totals.dropped_slow);
            out.labelled(&[("policy", "skip")], view.totals.skips);
        }),
    plain("ringyard_messages_conflated_total", Counter,
        "Messages that subscribers of topics with slow-consumer = \"latest\" were not sent, because a newer one of the same \
         key was; counted once per subscriber.",
        |view, out| out.value(view.totals.messages_conflated)),
    plain("ringyard_sends_saved_total", Counter,
        "Sends that throttles saved: messages that went along with another one, or were conflated, of subscriptions with a \
         throttle.",
        |view, out| out.value(view.totals.sends_saved)),
    plain("ringyard_publishes_forbidden_total", Counter,
        "Commands refused on ringyard.v1 because nothing grants them ([[allow]] tables, or --client-publish off).",
        |view, out| out.value(view.totals.commands_forbidden)),
    plain("ringyard_publishes_limited_total", Counter,
        "Publishes refused on ringyard.v1 and over HTTP because they came faster than --max-publish-rate; raw publishers \
         are closed (ringyard_closed_total, reason rate).",
        |view, out| out.value(view.totals.commands_limited)),

    labelled("ringyard_requests_total", Counter, &["outcome"],
        "Requests of ringyard.v1 and of POST /request, by what became of them; abandoned: who asked was gone first, or the broker went.",
        |view, out| view.totals.requests_by_outcome().iter()
            .for_each(|(outcome, count)| out.labelled(&[("outcome", outcome)], count))),
    plain("ringyard_requests_waiting", Gauge,
        "Requests that wait for their answer.",
        |view, out| out.value(view.totals.requests_waiting)),
    plain("ringyard_responders", Gauge,
        "Filters that connections respond to, each counted once per connection.",
        |view, out| out.value(view.totals.responders)),

    labelled("ringyard_messages_in_total", Counter, &["shard"],
        "Messages published, by the shard that took them.",
        |view, out| out.by_shard(&view.shards, |shard| shard.messages_in)),
    plain("ringyard_bytes_in_total", Counter,
        "Payload bytes of those.",
        |view, out| out.value(view.totals.bytes_in)),
    labelled("ringyard_messages_out_total", Counter, &["shard"],
        "Messages sent to subscribers, counted once per subscriber.",
        |view, out| out.by_shard(&view.shards, |shard| shard.messages_out)),
    plain("ringyard_bytes_out_total", Counter,
        "Bytes sent, frame headers included.",
        |view, out| out.value(view.totals.bytes_out)),
    labelled("ringyard_sends_total", Counter, &["shard"],
        "Sends completed, handshakes and control frames included. Messages out divided by this is what batching saves.",
        |view, out| out.by_shard(&view.shards, |shard| shard.sends)),
    plain("ringyard_sends_short_total", Counter,
        "Sends that the kernel took only in part: sockets whose peers read slowly.",
        |view, out| out.value(view.totals.sends_short)),
    plain("ringyard_messages_per_send", Histogram,
        "Messages that one send to a subscriber carried. One send of each turn is looked at and stands for all.",
        |view, out| out.distribution(&view.batch, 1.0, |end| end - 1)),
    plain("ringyard_delivery_seconds", Histogram,
        "From a message's sequencing at its topic's sequencer to the completed send to a subscriber. One send of each turn \
         is looked at and stands for all.",
        |view, out| out.distribution(&view.delivery, 1e9, |end| end)),
    plain("ringyard_turn_seconds", Histogram,
        "How long the turns of shards took, the time that they slept left out: nobody on a shard waits longer for it.",
        |view, out| out.distribution(&view.turn, 1e9, |end| end)),
    plain("ringyard_turn_max_seconds", Gauge,
        "The longest turn of any shard since the start.",
        |view, out| {
            let longest = view.app.shared().stats.iter().map(|shard| shard.turn_max.get()).max();
            out.value(longest.unwrap_or(0) as f64 / 1e9);
        }),
    plain("ringyard_given_up_total", Counter,
        "Subscribers that publishers no longer waited for, because they took too little for too long.",
        |view, out| out.value(view.totals.given_up)),
    plain("ringyard_cut_off_total", Counter,
        "Connections that were cut when the time to shut down was over, before they had been sent everything.",
        |view, out| out.value(view.totals.cut_off)),

    labelled("ringyard_log_bytes", Gauge, &["shard"],
        "Bytes of messages kept for subscribers that have not been sent them, counted once for each topic or filter that they wait for; --max-log bounds each shard's.",
        |view, out| out.by_shard(&view.shards, |shard| shard.log_bytes)),
    plain("ringyard_log_bytes_max", Gauge,
        "Most of those for one shard: --max-log.",
        |view, out| out.value(view.app.limits().log_bytes_max)),
    labelled("ringyard_memory_used_bytes", Gauge, &["held"],
        "Bytes held for clients, with what the allocator adds, by what they are held for.",
        |view, out| {
            let budget = &view.app.shared().budget;
            Held::ALL.iter().for_each(|held| out.labelled(&[("held", held.label())], budget.held(*held)));
        }),
    plain("ringyard_memory_used_bytes_max", Gauge,
        "Most of those, all together: --max-memory, or a quarter of what was available at start.",
        |view, out| out.value(view.app.shared().budget.bytes_max())),
    plain("ringyard_resident_bytes_max", Gauge,
        "What process_resident_memory_bytes stays below: program, shards, connections and what is held for clients.",
        |view, out| out.value(view.app.room().resident_bytes_max())),
    labelled("ringyard_queue_depth", Gauge, &["queue"],
        "What waits between threads, all shards together: batches of requests to topics' sequencers and of deliveries from \
         them, control messages of the control plane, handovers to it.",
        |view, out| {
            let shared = view.app.shared();
            let depths = || shared.inboxes.iter().map(|inbox| inbox.depths());
            out.labelled(&[("queue", "requests")], depths().map(|depths| depths.requests).sum::<usize>());
            out.labelled(&[("queue", "deliveries")], depths().map(|depths| depths.deliveries).sum::<usize>());
            out.labelled(&[("queue", "orders")], depths().map(|depths| depths.control_messages).sum::<usize>());
            out.labelled(&[("queue", "handovers")], shared.handovers.depth());
        }),
    plain("ringyard_queue_full_total", Counter,
        "Times a queue between two shards was full, so that a batch had to wait.",
        |view, out| out.value(view.totals.queues_full)),
    plain("ringyard_pauses_total", Counter,
        "Times a shard stopped reading from publishers until others had caught up.",
        |view, out| out.value(view.totals.pauses)),

    labelled("ringyard_enters_total", Counter, &["shard"],
        "System calls of the driver: io_uring_enter, or everything that it does on epoll.",
        |view, out| out.by_shard(&view.shards, |shard| shard.enters)),
    plain("ringyard_no_buffers_total", Counter,
        "Receives that found no free buffer (ENOBUFS) and were begun again.",
        |view, out| out.value(view.totals.no_buffers)),
    plain("ringyard_completion_overflows_total", Counter,
        "Times the completion queue overflowed; the kernel keeps what did not fit.",
        |view, out| out.value(view.totals.completion_overflows)),
    plain("ringyard_submission_full_total", Counter,
        "Times the submission queue was full within a turn and was submitted early.",
        |view, out| out.value(view.totals.submission_full)),

    plain("process_resident_memory_bytes", Gauge,
        "Memory of the process that is in RAM.",
        |view, out| out.optional(view.process.resident_memory_bytes)),
    plain("process_virtual_memory_bytes", Gauge,
        "Address space of the process.",
        |view, out| out.optional(view.process.virtual_memory_bytes)),
    plain("process_cpu_seconds_total", Counter,
        "Processor time of the process, in user space and in the kernel.",
        |view, out| out.optional(view.process.cpu_seconds)),
    plain("process_open_fds", Gauge,
        "Open descriptors of the process. On io_uring connections are not among them.",
        |view, out| out.optional(view.process.open_fds)),
    plain("process_max_fds", Gauge,
        "Most descriptors that the process may open.",
        |view, out| out.optional(view.process.max_fds)),
    plain("process_start_time_seconds", Gauge,
        "When the process started, in seconds since 1970.",
        |view, out| out.optional(view.process.start_time_seconds)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::counters::{Distribution, Reason, Refused, Scale, Stats};

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");

    /// The table of METRICS.md.
    fn table() -> String {
        let mut table = "| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n".to_owned();
        for Family { name, kind, labels, help, .. } in FAMILIES {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(table, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
        }
        table
    }

    #[test]
    fn the_documentation_names_every_metric() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (head, old) = page.split_at(page.find("| metric |").expect("a table"));
        let end = old.find("\n\n").map_or(old.len(), |at| at + 1);
        let table = table();
        if std::env::var_os("RINGYARD_WRITE_METRICS").is_some() {
            std::fs::write(PAGE, [head, &table, &old[end..]].concat()).unwrap();
        }
        let advice = "METRICS.md is old: RINGYARD_WRITE_METRICS=1 cargo test -p ringyard-broker --lib documentation";
        assert!(std::fs::read_to_string(PAGE).unwrap().contains(&table), "{advice}");
        let reasons = Reason::ALL.iter().map(|reason| reason.label());
        for label in reasons.chain(Refused::ALL.iter().map(|cause| cause.label())) {
            assert!(page.contains(&format!("\n| `{label}` | ")), "METRICS.md does not explain {label}");
        }
    }

    #[test]
    fn names_keep_the_rules() {
        let mut names = std::collections::BTreeSet::new();
        for Family { name, kind, labels, help, .. } in FAMILIES {
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with("ringyard_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n', '|']), "{name}: {help}");
            assert!(!labels.contains(&"le"), "{name}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = String::new();
        Samples { name: "a", labels: &["b", "g"], out: &mut out }.labelled(&[("b", "c\\d\"e\nf"), ("g", "")], 0.5);
        assert_eq!(out, "a{b=\"c\\\\d\\\"e\\nf\",g=\"\"} 0.5\n");
    }

    #[test]
    fn a_distribution_has_inclusive_bounds_and_a_last_bucket() {
        let shard = Stats::default();
        shard.batch.observe(Scale::COUNT, 1, 5);
        shard.batch.observe(Scale::COUNT, 3, 2);
        shard.batch.observe(Scale::COUNT, 1 << 40, 1);
        let mut all = Distribution::new(Scale::COUNT);
        shard.batch.add_to(&mut all);
        let mut out = String::new();
        Samples { name: "a", labels: &[], out: &mut out }.distribution(&all, 1.0, |end| end - 1);
        for line in ["a_bucket{le=\"1\"} 5\n", "a_bucket{le=\"3\"} 7\n", "a_bucket{le=\"+Inf\"} 8\n", "a_count 8\n"] {
            assert!(out.contains(line), "{line}: {out}");
        }
    }
}
