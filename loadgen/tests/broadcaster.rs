//! The load generator against a broadcaster that can be told to misbehave: a run without errors must report
//! none, and every kind of error must be noticed.

use std::net::SocketAddr;
use std::process::{Command, Output};

use futures_util::{SinkExt, StreamExt};
use loadgen::Report;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::{self, Sender};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// What the broadcaster does with message 20.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    Drop,
    Double,
    Damage,
    Close,
}

/// Starts a broadcaster on a thread of its own; it ends with the test's process.
fn broadcaster(fault: Fault) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            let (messages, _) = broadcast::channel(100_000);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, messages.clone(), fault));
            }
        });
    });
    address
}

async fn serve(stream: TcpStream, messages: Sender<Bytes>, fault: Fault) {
    let mut publishes = false;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        publishes = request.uri().path().starts_with("/pub/");
        Ok(response)
    };
    // Anything else, as a question for statistics, is refused.
    let Ok(mut socket) = accept_hdr_async(stream, look).await else {
        return;
    };
    if publishes {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                let _ = messages.send(message.into_data());
            }
        }
        return;
    }
    let mut inbox = messages.subscribe();
    let mut count = 0;
    socket.send(Message::Ping(Bytes::from_static(b"are you there?"))).await.unwrap();
    loop {
        tokio::select! {
            message = inbox.recv() => {
                let mut data = message.expect("the broadcaster keeps up");
                count += 1;
                if count == 20 && fault == Fault::Damage {
                    let mut bytes = data.to_vec();
                    *bytes.last_mut().unwrap() ^= 1;
                    data = bytes.into();
                }
                if count == 20 && fault == Fault::Close {
                    let frame = CloseFrame { code: CloseCode::Again, reason: "too slow".into() };
                    let _ = socket.close(Some(frame)).await;
                    return;
                }
                let copies = match fault {
                    Fault::Drop if count == 20 => 0,
                    Fault::Double if count == 20 => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    if socket.send(Message::Binary(data.clone())).await.is_err() {
                        return;
                    }
                }
            }
            message = socket.next() => {
                if !matches!(message, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}

fn loadgen(address: SocketAddr, arguments: &str) -> (Output, Report) {
    static RUNS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let run = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let json = std::env::temp_dir().join(format!("ringyard-loadgen-{}-{run}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_ringyard-loadgen"))
        .args(["--url", &format!("ws://{address}/sub/bench"), "--clients", "20", "--warmup", "0.1"])
        .args(["--duration", "0.3", "--drain-timeout", "1"])
        .args(["--json", json.to_str().unwrap(), "--server-pid", &std::process::id().to_string()])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&json)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(json).unwrap();
    (output, serde_json::from_str(&text).unwrap())
}

#[test]
fn every_pacing_delivers_everything() {
    for arguments in [
        "",
        "--outstanding 4",
        "--outstanding 2 --burst 10",
        "--rate 500",
        "--rate 1000 --burst 10 --processes 3",
        "--payload 16",
        "--payload 100000 --rate 50",
    ] {
        let (output, report) = loadgen(broadcaster(Fault::None), arguments);
        assert!(report.errors.none() && output.status.success(), "{arguments}: {report}");
        assert!(report.published > 20, "{arguments}: {report}");
        assert!(report.delivered > 0 && report.latency.p50_us > 0.0, "{arguments}: {report}");
        assert!(report.server.unwrap().message_ns.unwrap() > 0.0, "{arguments}: {report}");
        assert!(report.counters.is_none(), "this server has no counters");
        assert_eq!(report.pings, 20, "{arguments}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let (_, report) = loadgen(broadcaster(Fault::None), "--rate 200 --duration 1");
    assert!((180.0..=220.0).contains(&report.published_per_second), "{report}");
}

#[test]
fn an_idle_run_publishes_nothing() {
    let (output, report) = loadgen(broadcaster(Fault::None), "--idle-only --processes 2");
    assert!(output.status.success());
    assert_eq!((report.published, report.delivered, report.pings), (0, 0, 20));
}

#[test]
fn every_kind_of_error_is_noticed() {
    for fault in [Fault::Drop, Fault::Double, Fault::Damage, Fault::Close] {
        for processes in ["", "--processes 2"] {
            let (output, report) = loadgen(broadcaster(fault), &format!("--rate 200 {processes}"));
            let errors = &report.errors;
            assert_eq!(output.status.code(), Some(1), "{fault:?}: {report}");
            match fault {
                Fault::None => unreachable!(),
                Fault::Drop => assert_eq!((errors.lost, errors.doubled_or_reordered), (20, 0)),
                Fault::Double => assert_eq!((errors.lost, errors.doubled_or_reordered), (0, 20)),
                Fault::Damage => assert_eq!((errors.lost, errors.corrupt), (20, 20)),
                Fault::Close => assert_eq!(errors.closed.get(&1013), Some(&20)),
            }
        }
    }
}

#[test]
fn wrong_options_end_in_a_sentence() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (arguments, sentence) in [
        ("--payload 8", "--payload must be at least 16"),
        ("--clients 20000", "need --processes 2"),
        ("--processes 2", "--processes needs --rate"),
        ("--clients 1", "failed"),
        ("--url http://x", "begins with ws://"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringyard-loadgen"))
            .args(["--url", &format!("ws://{nobody}/sub/bench")].iter().filter(|_| !arguments.contains("--url")))
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(sentence) && output.status.code() == Some(2), "{arguments}: {text}");
    }
}
