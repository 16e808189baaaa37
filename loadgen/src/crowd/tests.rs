//! The crowd before a server that tells of members, wholly or not.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;

use protocol::frame::Opcode;

use super::*;
use crate::calls::wire::tests::{options_of, serve_each};
use crate::client::Client;

fn options(arguments: &str) -> Options {
    options_of("presence-crowd", arguments)
}

/// A text frame of a server.
fn text(payload: &str) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("a short text");
    let head = if len < 126 { vec![0x81, len as u8] } else { [&[0x81, 126][..], &len.to_be_bytes()].concat() };
    [&head, payload.as_bytes()].concat()
}

/// The payload of a client's next frame, whose header has a mask.
fn read_masked(stream: &mut TcpStream) -> Option<String> {
    use std::io::Read;
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert_eq!(head[0], 0x80 | Opcode::Text as u8);
    let mut len = usize::from(head[1] & 0x7f);
    if len == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).ok()?;
        len = usize::from(u16::from_be_bytes(long));
    }
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).ok()?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some(String::from_utf8(payload).expect("text"))
}

type Watching = Arc<Mutex<BTreeMap<usize, TcpStream>>>;

/// As much of a broker as a crowd needs. It does not tell the first watcher of member `forgets`.
fn serve(number: usize, mut stream: TcpStream, watching: &Watching, forgets: Option<u64>) {
    let mut reader = Client::new(stream.try_clone().expect("a socket"));
    while !reader.rest().ends_with(b"\r\n\r\n") {
        reader.read_more().expect("a request");
    }
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").expect("an answer");
    while let Some(command) = read_masked(&mut stream) {
        if command.contains("subscribe") {
            assert!(command.contains(r#""topic":"$presence/loadgen""#), "{command}");
            let answers = [text(r#"{"type":"ok","id":0}"#), text(r#"{"type":"state-end","topic":"x"}"#)].concat();
            stream.write_all(&answers).expect("an answer");
            watching.lock().expect("a lock").insert(number, stream.try_clone().expect("a socket"));
            continue;
        }
        let info = command.split(r#""info":"#).nth(1).and_then(|rest| rest.strip_suffix('}')).expect("info").to_owned();
        stream.write_all(&text(r#"{"type":"ok","id":1}"#)).expect("an answer");
        let message =
            text(&format!(r#"{{"type":"message","key":"~{info}","data":{{"info":{info},"connections":1}}}}"#));
        for (at, watcher) in watching.lock().expect("a lock").values_mut().enumerate() {
            if at > 0 || forgets != info.parse().ok() {
                watcher.write_all(&message).expect("a watcher that reads");
            }
        }
    }
}

fn server(forgets: Option<u64>) -> SocketAddr {
    let watching = Watching::default();
    serve_each(move |number, stream| serve(number, stream, &watching, forgets))
}

#[test]
fn every_watcher_has_to_learn_of_every_member() {
    let run = |forgets, patience| {
        let arguments = format!("--url ws://{} --members 20 --watchers 7", server(forgets));
        run_within(&options(&arguments), &Interrupt::default(), patience).expect("a run")
    };
    let crowd = run(None, PATIENCE);
    assert_eq!((crowd.messages, crowd.missing, &crowd.failures[..]), (140, 0, &[][..]), "{crowd:?}");
    assert!(crowd.seconds > 0.9 && crowd.max_ms >= crowd.p50_ms && crowd.bytes > 140 * 50, "{crowd:?}");
    assert_eq!(crowd.sends_per_watcher, None, "no process was named");
    let crowd = run(Some(3), Duration::from_millis(300));
    assert_eq!((crowd.messages, crowd.missing), (139, 1));
    assert_eq!(crowd.failures, ["1 times a watcher did not learn of a member"]);
    assert!(crowd.table().contains("FAILED: 1 times"), "{}", crowd.table());
}

#[test]
fn more_sends_than_may_be_are_a_failure() {
    let watching = Watchers::connect(([127, 0, 0, 1], 1).into(), "", 0, 0, PATIENCE).expect("nobody");
    for (sends, fails) in [(20.0, false), (20.1, true)] {
        let mut crowd = Crowd::of(&options(""), 1, 1, &watching);
        crowd.sends_per_watcher = Some(sends);
        crowd.judge();
        assert_eq!(!crowd.failures.is_empty(), fails, "{crowd:?}");
    }
}

#[test]
fn what_it_does_not_have_is_refused() {
    let refusal = |arguments| run(&options(arguments), &Interrupt::default()).expect_err(arguments).to_string();
    for (arguments, named) in [
        ("--report a.html", "--report"),
        ("--fail-if p99>1s", "--fail-if"),
        ("--clients 5", "--clients"),
        ("--members 0", "at least one member"),
        ("--watchers 20000", "18000 connections"),
        ("--url nats://127.0.0.1:1", "--url"),
    ] {
        let refusal = refusal(arguments);
        assert!(refusal.contains(named), "{arguments}: {refusal}");
    }
}
