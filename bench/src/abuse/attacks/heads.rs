//! Malformed request heads: each known case must get its status, mutated heads and garbage any answer or none.

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::mutate::{garbage, mutate};
use crate::abuse::peer::Ending;
use crate::abuse::scale::MESSAGE_MAX;
use crate::abuse::wire::{post, upgrade, upgrade_with};

/// Bytes, name, and the status that must come.
type Case = (Vec<u8>, &'static str, u16);

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let cases = cases();
    let valid = valid();
    while !abuser.over() {
        for case in &cases {
            refused(abuser, case)?;
        }
        for _ in 0..cases.len() {
            let bytes = match abuser.rng.u8(..4) {
                0 => garbage(&mut abuser.rng),
                _ => {
                    let mut bytes = valid[abuser.rng.usize(..valid.len())].clone();
                    mutate(&mut bytes, &mut abuser.rng);
                    bytes
                }
            };
            mutated(abuser, &bytes)?;
        }
    }
    Ok(())
}

fn refused(abuser: &mut Abuser<'_>, (bytes, name, status): &Case) -> Result<()> {
    let mut peer = abuser.connect()?;
    abuser.send_in_pieces(&mut peer, bytes);
    match peer.answer() {
        Ok(answer) if answer.status == *status => abuser.count("refused with the right status", 1),
        other => abuser.violation(format!("{name}: expected {status}, got {other:?}")),
    }
    Ok(())
}

/// An answer must be HTTP and blame the client, not the server; and the connection must end.
fn mutated(abuser: &mut Abuser<'_>, bytes: &[u8]) -> Result<()> {
    let mut peer = abuser.connect()?;
    abuser.send_in_pieces(&mut peer, bytes);
    peer.finish_sending();
    let (said, ending) = peer.read_to_end();
    // In the version of the request.
    let status = said.strip_prefix(b"HTTP/1.0 ").or(said.strip_prefix(b"HTTP/1.1 "));
    let blamed = status.is_some_and(|status| {
        let right = matches!(status.first(), Some(b'1' | b'2' | b'4'));
        // Unknown transfer coding or version (RFC 9112 §6.1, RFC 9110 §15.6.6).
        right || status.starts_with(b"501") || status.starts_with(b"505")
    });
    if ending == Ending::Late || !(blamed || said.is_empty()) {
        let (sent, said) = (bytes.escape_ascii(), said[..said.len().min(200)].escape_ascii());
        abuser.violation(format!("{ending:?} after \"{said}\"; sent \"{sent}\""));
    }
    abuser.count("mutations and garbage", 1);
    Ok(())
}

/// Heads that are answered with 2xx or 101 as they are.
fn valid() -> Vec<Vec<u8>> {
    vec![
        upgrade("/sub/abuse/heads"),
        upgrade("/bus/abuse/heads"),
        upgrade("/ws"),
        post("abuse/heads", "Content-Type: text/plain\r\n", b"hello"),
        b"POST /pub/abuse/heads HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            .to_vec(),
        b"GET /healthz HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
    ]
}

fn cases() -> Vec<Case> {
    let text = |from: &str, to: &str| {
        let head = String::from_utf8(upgrade("/sub/abuse/heads")).expect("text");
        assert!(head.contains(from), "{from}");
        head.replacen(from, to, 1).into_bytes()
    };
    let close = "Connection: close\r\n";
    let events = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: broker\r\nAccept: text/event-stream\r\n\r\n").into_bytes()
    };
    vec![
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "TLS", 400),
        (text("\r\n", "\n"), "a bare line feed", 400),
        (text("Host: broker\r\n", ""), "no host", 400),
        (text("Host:", "Host: a\r\nHost:"), "two hosts", 400),
        (text("Host:", "Host :"), "a space before a colon", 400),
        (text("Host:", "X: a\r\n b\r\nHost:"), "a folded line", 400),
        (text("HTTP/1.1", "HTTP/4.2"), "an unknown version", 400),
        (text("GET ", "G\0T "), "a control character", 400),
        (text("GET ", "POST "), "an upgrade by POST", 405),
        (text("Version: 13", "Version: 8"), "an old version", 426),
        (events("/sub?topic="), "a stream of no topic", 400),
        (events(&format!("/sub?{}", "topic=a&".repeat(40))), "a stream of one topic again and again", 400),
        (events("/sub/abuse?since=1"), "a stream from nowhere", 400),
        (text("dGhlIHNh", "dGhl"), "a short key", 400),
        (upgrade_with("/sub/abuse", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "two keys", 400),
        (upgrade_with("/sub/abuse", "Content-Length: 5\r\n"), "an upgrade with a body", 400),
        (upgrade_with("/sub/abuse", "Transfer-Encoding: chunked\r\n"), "an upgrade with chunks", 400),
        (upgrade_with("/sub/abuse", "Origin: http://elsewhere\r\n"), "a foreign page", 403),
        (upgrade("/nowhere"), "an unknown path", 404),
        (upgrade("/sub/../b"), "a level of dots", 400),
        (upgrade("/sub/a%zz"), "bad percent-encoding", 400),
        (upgrade("/pub/a+"), "a publisher's wildcard", 400),
        (upgrade("/pub/$sys"), "a reserved topic", 403),
        (upgrade(&format!("/sub/{}", "a".repeat(300))), "a long topic", 400),
        (text("Sec-WebSocket-Key", &format!("X: {}\r\nY", "x".repeat(9000))), "a long head", 431),
        ([b"GET /".to_vec(), vec![b'a'; 9000]].concat(), "a request line without end", 414),
        (upgrade_with("/sub/abuse", &"X: y\r\n".repeat(70)), "many fields", 431),
        (post("abuse", &format!("{close}Content-Type: application/json\r\n"), b"{"), "a body that is no JSON", 400),
        (post("$sys", close, b"x"), "a reserved topic over HTTP", 403),
        (post("abuse", close, &vec![b'x'; MESSAGE_MAX + 1]), "a long body", 413),
        (format!("GET /nowhere HTTP/1.1\r\nHost: broker\r\n{close}\r\n").into_bytes(), "nothing there", 404),
        (format!("GET /ws HTTP/1.1\r\nHost: broker\r\n{close}\r\n").into_bytes(), "no upgrade", 426),
        (format!("PUT /healthz HTTP/1.1\r\nHost: broker\r\n{close}\r\n").into_bytes(), "a wrong method", 405),
    ]
}
