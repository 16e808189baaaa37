//! `/metrics`, read by parsers that are not ours; and what dashboards and alerts ask of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use prometheus_parse::{Sample, Scrape, Value};

use crate::broker::Broker;
use crate::http::{PATIENCE, await_stat, post, request};
use crate::shutdown::{exit, signal};
use crate::ws::open;

/// The page of a broker.
async fn page(broker: &Broker) -> String {
    let answer = request(broker.admin, "GET /metrics HTTP/1.1", b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{}", answer.head);
    String::from_utf8(answer.body).expect("UTF-8")
}

/// Its samples.
fn samples(page: &str) -> Vec<Sample> {
    Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).expect("Prometheus's text format").samples
}

/// The sum of a metric's samples that have all these labels.
#[track_caller]
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&Sample| labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value));
    let mut found = samples.iter().filter(|sample| sample.metric == name).filter(has).peekable();
    assert!(found.peek().is_some(), "no {name} with {labels:?}");
    found
        .map(|sample| match sample.value {
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
            _ => panic!("{name} is no number: {:?}", sample.value),
        })
        .sum()
}

/// Every name that a series of this page may have.
fn names(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a type");
        names.insert(name.to_owned());
        if kind == "histogram" {
            names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        }
    }
    names
}

#[tokio::test]
async fn what_happened_is_counted() {
    let broker = Broker::start(&["--max-connections", "100"]);
    let mut subscribers = Vec::new();
    for _ in 0..7 {
        subscribers.push(open(broker.address, "/sub/counted").await);
    }
    for _ in 0..3 {
        post(broker.address, "counted", b"12345").await;
    }
    for subscriber in &mut subscribers {
        for _ in 0..3 {
            assert_eq!(subscriber.text().await, "12345");
        }
    }
    let foreign = "POST /pub/counted HTTP/1.1\r\nOrigin: https://evil.example";
    assert_eq!(request(broker.address, foreign, b"").await.status, 403);
    subscribers.pop().expect("one of seven").close().await;
    await_stat(&broker, "messages_out", |out| out == 21).await;
    // A WebSocket, and four that published over HTTP.
    await_stat(&broker, "closed_by_client", |closed| closed == 5).await;
    await_stat(&broker, "connections", |open| open == 6).await;

    let page = page(&broker).await;
    let samples = samples(&page);
    let sum = |name: &str, labels: &[(&str, &str)]| sum(&samples, name, labels);
    assert_eq!(sum("ringyard_ready", &[]), 1.0);
    assert_eq!(sum("ringyard_shards", &[]), 2.0);
    assert_eq!(sum("ringyard_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(sum("ringyard_connections", &[]), 6.0);
    assert_eq!(sum("ringyard_connections_max", &[]), 100.0);
    assert_eq!(sum("ringyard_subscriptions", &[]), 6.0);
    assert_eq!(sum("ringyard_topics", &[]), 1.0);
    assert_eq!(sum("ringyard_upgraded_total", &[]), 7.0);
    assert_eq!(sum("ringyard_messages_in_total", &[]), 3.0);
    assert_eq!(sum("ringyard_bytes_in_total", &[]), 15.0);
    assert_eq!(sum("ringyard_messages_out_total", &[]), 21.0);
    // Handshakes and closes are sends too.
    assert!((8.0..=40.0).contains(&sum("ringyard_sends_total", &[])));
    assert_eq!(sum("ringyard_refused_total", &[("reason", "origin")]), 1.0);
    assert_eq!(sum("ringyard_closed_total", &[("reason", "by_client")]), 5.0);
    assert_eq!(sum("ringyard_slow_consumers_total", &[("policy", "disconnect")]), 0.0);
    assert_eq!(
        sum("ringyard_accepted_total", &[]),
        sum("ringyard_closed_total", &[]) + sum("ringyard_connections", &[]),
        "every connection that is gone has its reason"
    );
    for queue in ["requests", "deliveries", "orders", "handovers"] {
        assert_eq!(sum("ringyard_queue_depth", &[("queue", queue)]), 0.0);
    }
    assert!(sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(sum("process_open_fds", &[]) < sum("process_max_fds", &[]));
    assert!(sum("process_start_time_seconds", &[]) <= sum("ringyard_start_time_seconds", &[]) + 1.0);

    for (name, largest) in [("ringyard_delivery_seconds", 10.0), ("ringyard_messages_per_send", 3.0)] {
        let histogram = samples.iter().find(|sample| sample.metric == name).expect(name);
        let Value::Histogram(buckets) = &histogram.value else { panic!("{histogram:?}") };
        let is_sorted = buckets.is_sorted_by(|a, b| a.less_than < b.less_than && a.count <= b.count);
        assert!(is_sorted && buckets.last().expect("a bucket").less_than == f64::INFINITY, "{buckets:?}");
        let count = sum(&format!("{name}_count"), &[]);
        assert!(count > 0.0 && buckets.last().expect("a bucket").count == count, "{name}: {count} of {buckets:?}");
        let mean = sum(&format!("{name}_sum"), &[]) / count;
        assert!(mean > 0.0 && mean <= largest, "{name}: {mean}");
    }
}

#[tokio::test]
async fn a_fallback_is_told_with_its_cause() {
    let broker = crate::drivers::on_epoll_by_force();
    let samples = samples(&page(&broker).await);
    assert_eq!(sum(&samples, "ringyard_io_fallback", &[("cause", "seccomp")]), 1.0);
    assert_eq!(sum(&samples, "ringyard_info", &[("driver", "epoll")]), 1.0);
    let health = request(broker.admin, "GET /healthz HTTP/1.1", b"").await.json();
    assert!(health["fallback"].as_str().expect("a sentence").contains("seccomp"), "{health}");
    let chosen = Broker::start(&["--io", "epoll"]);
    assert!(!self::page(&chosen).await.contains("ringyard_io_fallback{"), "who chose epoll did not fall back");
}

/// Load balancers look elsewhere first; operators see a broker to its end.
#[tokio::test]
async fn a_broker_that_drains_says_so_and_goes_on() {
    let mut broker = Broker::start(&["--drain-delay", "3s", "--drain-window", "0s"]);
    assert_eq!(request(broker.admin, "GET /readyz HTTP/1.1", b"").await.status, 200);
    signal(&broker, "TERM");
    let not_ready = async {
        while request(broker.admin, "GET /readyz HTTP/1.1", b"").await.status != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, not_ready).await.expect("readiness says no");
    for address in [broker.address, broker.admin] {
        let health = request(address, "GET /healthz HTTP/1.1", b"").await;
        assert_eq!((health.status, &health.json()["status"]), (200, &"draining".into()), "it is alive");
    }
    assert_eq!(sum(&samples(&page(&broker).await), "ringyard_ready", &[]), 0.0);
    let mut late = open(broker.address, "/sub/a").await;
    post(broker.address, "a", b"still here").await;
    assert_eq!(late.text().await, "still here");
    assert_eq!(late.close_code().await, 1001);
    assert_eq!(exit(&mut broker).await.code(), Some(0));
}

// ---- what is shipped for Prometheus and Grafana

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// The metrics that an expression names: words that begin as metrics do.
fn metrics_of(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("ringyard_") || word.starts_with("process_"))
}

#[tokio::test]
async fn dashboards_and_alerts_ask_for_metrics_that_there_are() {
    let broker = Broker::start(&[]);
    let known = names(&page(&broker).await);
    let mut used = BTreeSet::new();
    for file in ["grafana/ringyard.json", "prometheus/alerts.yaml", "prometheus/alerts.test.yaml"] {
        let text = fs::read_to_string(deploy(file)).expect(file);
        for name in metrics_of(&text) {
            assert!(known.contains(name), "{file} asks for {name}, which there is not");
            used.insert(name.to_owned());
        }
    }
    assert!(used.len() > 30, "{used:?}");
}

#[test]
fn the_dashboard_is_whole() {
    let text = fs::read_to_string(deploy("grafana/ringyard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let variables: Vec<_> = list(&dashboard["templating"]["list"]).iter().map(|one| one["name"].clone()).collect();
    assert_eq!(variables, ["datasource", "instance"]);
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = panel["title"].as_str().expect("a title").to_owned();
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} sticks out");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies on another");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title} explains nothing");
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().expect("an expression");
            assert!(metrics_of(expression).next().is_some(), "{title} asks for nothing");
            for selector in expression.split(['(', ' ']).filter(|word| word.contains('{')) {
                assert!(selector.contains(r#"instance=~"$instance""#), "{title} shows other brokers too: {selector}");
            }
        }
    }
}

/// Prometheus's own tool has the last word, where it is installed; the checks install it.
#[tokio::test]
async fn prometheus_accepts_what_it_is_given() {
    if Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        assert!(
            std::env::var("RINGYARD_PEERS").as_deref() != Ok("required"),
            "promtool is not installed (Debian: prometheus)"
        );
        eprintln!("PASSED OVER: promtool is not installed");
        return;
    }
    let broker = Broker::start(&[]);
    let _subscriber = open(broker.address, "/sub/a").await;
    post(broker.address, "a", b"x").await;
    promtool(&["check", "metrics"], page(&broker).await.as_bytes());
    for (command, file) in [
        (["check", "rules"], "prometheus/alerts.yaml"),
        (["test", "rules"], "prometheus/alerts.test.yaml"),
        (["check", "config"], "prometheus/prometheus.yaml"),
    ] {
        promtool(&[command[0], command[1], deploy(file).to_str().expect("UTF-8")], b"");
    }
}

fn promtool(arguments: &[&str], input: &[u8]) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was there");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}
