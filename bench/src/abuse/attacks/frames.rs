//! Frames that break a rule: each known case must get its close code, mutated frames must end the connection.

use anyhow::Result;

use crate::abuse::abuser::Abuser;
use crate::abuse::mutate::{garbage, mutate};
use crate::abuse::peer::Ending;
use crate::abuse::scale::MESSAGE_MAX;
use crate::abuse::wire::{BINARY, CLOSE, MASK, PING, PONG, TEXT, frame, upgrade};

/// Path, bytes, name, and the close code that must come.
type Case = (&'static str, Vec<u8>, &'static str, u16);

const PUBLISH: &str = "/pub/abuse/frames";
const SUBSCRIBE: &str = "/sub/abuse/quiet";
const MULTI: &str = "/ws";

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let cases = cases();
    let valid = valid();
    while !abuser.over() {
        for case in &cases {
            closed(abuser, case)?;
        }
        for _ in 0..2 * cases.len() {
            let (path, mut bytes) = valid[abuser.rng.usize(..valid.len())].clone();
            match abuser.rng.u8(..8) {
                0 => bytes = garbage(&mut abuser.rng),
                _ => mutate(&mut bytes, &mut abuser.rng),
            }
            mutated(abuser, path, &bytes)?;
        }
    }
    Ok(())
}

fn closed(abuser: &mut Abuser<'_>, (path, bytes, name, code): &Case) -> Result<()> {
    let mut peer = abuser.open(path)?;
    abuser.send_in_pieces(&mut peer, bytes);
    match peer.ending() {
        Ending::Close(got) if got == *code => abuser.count("closed with the right code", 1),
        other => abuser.violation(format!("{name} at {path}: expected {code}, got {other:?}")),
    }
    Ok(())
}

/// Only frames may come back, and the connection must end.
fn mutated(abuser: &mut Abuser<'_>, path: &'static str, bytes: &[u8]) -> Result<()> {
    let mut peer = abuser.connect()?;
    peer.send(&upgrade(path))?;
    abuser.send_in_pieces(&mut peer, bytes);
    // The answer is read first: a client that ends its stream before gets none.
    match peer.answer() {
        Ok(answer) if answer.status == 101 => {}
        other => {
            abuser.violation(format!("{path} was not upgraded: {other:?}"));
            return Ok(());
        }
    }
    peer.finish_sending();
    let ending = peer.ending();
    if matches!(ending, Ending::Late | Ending::Broken(_)) {
        abuser.violation(format!("{ending:?} at {path}; sent \"{}\"", bytes.escape_ascii()));
    }
    abuser.count("mutations and garbage", 1);
    Ok(())
}

fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let fragments = [frame(0x01, "grü".as_bytes()), frame(PING, b"?"), frame(0x80, "ße".as_bytes())].concat();
    let commands: Vec<_> = [
        r#"{"type":"subscribe","id":1,"topics":["abuse/a","abuse/+"]}"#,
        r#"{"type":"publish","id":2,"topic":"abuse/a","data":{"x":[1,2.5,null]}}"#,
        r#"{"type":"unsubscribe","id":"three","topic":"abuse/a"}"#,
        r#"{"type":"ping"}"#,
    ]
    .into_iter()
    .flat_map(|text| frame(TEXT, text.as_bytes()))
    .collect();
    vec![
        (PUBLISH, [frame(TEXT, b"hello"), frame(BINARY, &[0xff; 300]), frame(CLOSE, &[3, 0xe8])].concat()),
        (PUBLISH, [fragments, frame(CLOSE, b"\x03\xe8bye")].concat()),
        ("/bus/abuse/bus", [frame(TEXT, b"to myself"), frame(PONG, b""), frame(CLOSE, b"")].concat()),
        (SUBSCRIBE, [frame(PING, b"there?"), frame(CLOSE, &[3, 0xe9])].concat()),
        (MULTI, [commands, frame(CLOSE, &[3, 0xe8])].concat()),
    ]
}

/// A header of a client's frame that announces `len` bytes in 2 (`form` 126) or 8 bytes (127).
fn announced(first: u8, form: u8, len: u64) -> Vec<u8> {
    let len = len.to_be_bytes();
    let extended = if form == 126 { &len[6..] } else { &len[..] };
    [&[first, 0x80 | form][..], extended, &MASK].concat()
}

fn cases() -> Vec<Case> {
    let part = vec![b'a'; MESSAGE_MAX / 2];
    let long: Vec<u8> =
        [(0x02, 0), (0x00, 1), (0x00, 2)].into_iter().flat_map(|(first, _)| frame(first, &part)).collect();
    let mut cases = vec![
        (PUBLISH, frame(TEXT, b"\xff"), "bad UTF-8", 1007),
        (PUBLISH, frame(TEXT, b"\xed\xa0\x80"), "a surrogate", 1007),
        (PUBLISH, [frame(0x01, b"\xe2\x82"), frame(0x80, b"x")].concat(), "bad UTF-8 in fragments", 1007),
        (MULTI, frame(TEXT, b"{\"type\":\"\xc0\xaf\"}"), "bad UTF-8 in a command", 1007),
        (SUBSCRIBE, frame(CLOSE, b"\x03\xe8\xff"), "bad UTF-8 in a close reason", 1007),
        (PUBLISH, announced(BINARY, 127, MESSAGE_MAX as u64 + 1), "a long frame", 1009),
        (PUBLISH, announced(TEXT, 127, i64::MAX as u64), "an enormous frame", 1009),
        (PUBLISH, long, "a long message", 1009),
        (MULTI, frame(BINARY, b"{}"), "binary commands", 1003),
        (SUBSCRIBE, frame(TEXT, b"hello"), "data from a subscriber", 1008),
    ];
    for path in [PUBLISH, SUBSCRIBE, MULTI] {
        cases.extend([
            (path, b"\x81\x05hello".to_vec(), "an unmasked frame", 1002),
            (path, frame(TEXT | 0x40, b"hello"), "a reserved bit", 1002),
            (path, frame(0x83, b"hello"), "a reserved opcode", 1002),
            (path, frame(0x8b, b""), "a reserved control opcode", 1002),
            (path, frame(0x09, b""), "a fragmented ping", 1002),
            (path, frame(PING, &[0; 126]), "a long ping", 1002),
            (path, frame(0x80, b"x"), "a continuation of nothing", 1002),
            (path, announced(TEXT, 126, 5), "a length not in its shortest form", 1002),
            (path, announced(TEXT, 127, 1 << 63), "a length with its highest bit", 1002),
            (path, frame(CLOSE, b"\x03"), "half a close code", 1002),
            (path, frame(CLOSE, &[3, 0xed]), "a close code that is never sent", 1002),
        ]);
    }
    for path in [PUBLISH, MULTI] {
        cases.push((path, [frame(0x01, b"a"), frame(TEXT, b"b")].concat(), "a message within a message", 1002));
    }
    cases
}
