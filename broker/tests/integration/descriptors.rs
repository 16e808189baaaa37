//! A low limit of open descriptors: HTTP connections cannot take those of operators, on either driver.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::http::{Http, request};

/// Operators' connections at the same time.
const OPERATORS: usize = 8;

fn start(io: &str, limit: u64) -> Broker {
    let arguments = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --shards 2 --log-level error";
    let command = format!("ulimit -n {limit}; exec {} --io {io} {arguments}", env!("CARGO_BIN_EXE_ringyard"));
    Broker::of(Command::new("sh").args(["-c", &command]).stdout(Stdio::piped()).spawn().unwrap())
}

/// A figure of `/metrics`.
async fn metric(broker: &Broker, name: &str) -> u64 {
    let answer = request(broker.admin, "GET /metrics HTTP/1.1", b"").await;
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
}

#[tokio::test]
async fn operators_are_answered_while_http_has_all_it_may_have() {
    ring::limits::raise_descriptors();
    for io in ["uring", "epoll"] {
        for limit in [128, 260, 1024] {
            let broker = start(io, limit);
            let most = metric(&broker, "ringyard_http_connections_max").await;
            assert!(most > 0 && most < limit, "{io}, {limit}: {most}");
            let mut crowd = Vec::new();
            let begun = Instant::now();
            // Those that are refused make room in the shards for others, so in the end HTTP has all its places, but for
            // those that are kept for probes.
            let filled = most - (most / 8).clamp(1, 64);
            while metric(&broker, "ringyard_http_connections").await < filled {
                assert!(begun.elapsed() < Duration::from_secs(30), "{io}, {limit}: never {filled}");
                for _ in 0..(limit / 8) {
                    let mut http = Http::open(broker.address).await;
                    http.send("POST /pub/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n").await;
                    crowd.push(http);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut operators = Vec::new();
            for _ in 0..OPERATORS {
                let mut operator = Http::open(broker.admin).await;
                operator.send("GET /api/stats HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
                operators.push(operator);
            }
            for operator in &mut operators {
                assert_eq!(operator.answer().await.status, 200, "{io}, {limit}");
            }
            // And what the process itself opens for an answer can be opened.
            assert!(metric(&broker, "process_open_fds").await <= limit);
        }
    }
}
