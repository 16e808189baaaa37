//! Abuse of the port with TLS: bytes that are no TLS, records cut anywhere, handshakes that do not end, floods of key
//! updates, alerts in the middle of a frame, peers that close one direction. Who is right must be served; who is wrong, or
//! late, must be ended.

use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use loadgen::tls::{ServerName, Session, Tls};

use crate::abuse::abuser::Abuser;
use crate::abuse::mutate::{ends, garbage, mutate};
use crate::abuse::peer::{Address, Ending, PATIENCE, Peer};
use crate::abuse::wire::{BINARY, frame, upgrade};

pub(super) const THREADS: usize = 2;
/// Key updates of one flood.
const UPDATES: usize = 2000;
/// Between two bytes of a slow handshake.
const STEP: Duration = Duration::from_millis(100);
/// A deadline may be met this much late, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);
/// An alert without encryption: fatal, handshake_failure (RFC 8446, section 6).
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// A request whose answer leaves the connection open.
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

type OneAttack = fn(&mut Abuser<'_>, &Tls) -> Result<()>;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    // Attacks are about bytes, not about who is trusted.
    let tls = Tls::new(None, true, false)?;
    if abuser.index == 0 {
        return slow_handshakes(abuser, &tls);
    }
    let attacks: [(&str, OneAttack); 8] = [
        ("plain HTTP", plain_http),
        ("a byte at a time", byte_by_byte),
        ("cut anywhere", cut_anywhere),
        ("cut short", cut_short),
        ("key updates", key_updates),
        ("an alert within a frame", alert_within_a_frame),
        ("half closed", half_closed),
        ("damaged", damaged),
    ];
    // Each once at least, however short the round.
    loop {
        for (name, attack) in attacks {
            attack(abuser, &tls).with_context(|| name)?;
            abuser.count("attacks on TLS", 1);
        }
        if abuser.over() {
            return Ok(());
        }
    }
}

/// A connection to the port with TLS.
struct Secure {
    peer: Peer,
    session: Session,
    /// Received and not looked at yet.
    plain: Vec<u8>,
    open: bool,
}

impl Secure {
    fn connect(abuser: &Abuser<'_>, tls: &Tls) -> Result<Self> {
        let (peer, session) = (connect(abuser)?, tls.session(&ServerName::try_from("127.0.0.1")?)?);
        Ok(Self { peer, session, plain: Vec::new(), open: true })
    }

    /// A WebSocket that gets back what it sends.
    fn open(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<Self> {
        let mut secure = Self::connect(abuser, tls)?;
        secure.upgrade(&mut |peer, bytes| Ok(peer.send(bytes)?))?;
        Ok(secure)
    }

    /// Handshake and upgrade, whose bytes go out through `send`.
    fn upgrade(&mut self, send: &mut dyn FnMut(&mut Peer, &[u8]) -> Result<()>) -> Result<()> {
        static TOPIC: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let topic = TOPIC.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.session.seal(&upgrade(&format!("/bus/abuse/tls/{topic}")));
        loop {
            let out = self.output();
            send(&mut self.peer, &out)?;
            if let Some(at) = self.plain.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.plain.drain(..at + 4).collect();
                ensure!(head.starts_with(b"HTTP/1.1 101 "), "no upgrade: {}", head.escape_ascii());
                return Ok(());
            }
            ensure!(self.receive()?, "the end in place of an upgrade");
        }
    }

    fn output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.session.output(&mut out);
        out
    }

    fn send(&mut self, plain: &[u8]) -> Result<()> {
        self.session.seal(plain);
        let out = self.output();
        Ok(self.peer.send(&out)?)
    }

    /// Ends the direction to the broker, with a word of TLS about it or without. What was sealed goes out before.
    fn finish_sending(&mut self, is_announced: bool) -> Result<()> {
        if is_announced {
            self.session.close();
        }
        let out = self.output();
        self.peer.send(&out)?;
        self.peer.finish_sending();
        Ok(())
    }

    /// Waits for more bytes; false at the end.
    fn receive(&mut self) -> Result<bool> {
        let mut bytes = [0; 16 << 10];
        let len = match self.peer.stream().read(&mut bytes) {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error).context(format!("nothing within {PATIENCE:?}")),
        };
        if len == 0 {
            self.open = false;
        } else {
            self.open = self.session.receive(&bytes[..len], &mut self.plain).map_err(|why| anyhow!(why))?;
        }
        Ok(self.open)
    }

    /// Sends a message and waits until it comes back.
    fn expect_echo(&mut self, message: &[u8]) -> Result<()> {
        self.send(&frame(BINARY, message))?;
        ensure!(message.len() < 126, "a short message");
        let expected = [&[BINARY, message.len() as u8][..], message].concat();
        while !self.plain.windows(expected.len()).any(|bytes| bytes == expected) {
            ensure!(self.receive()?, "the end in place of a message");
        }
        self.plain.clear();
        Ok(())
    }

    /// Reads until the connection ends.
    fn expect_end(&mut self) -> Result<()> {
        let begun = Instant::now();
        // What comes behind an alert need not be readable.
        while self.open && matches!(self.receive(), Ok(true)) {
            ensure!(begun.elapsed() < PATIENCE, "still open after {PATIENCE:?}");
        }
        match self.peer.read_to_end().1 {
            Ending::Eof | Ending::Reset => Ok(()),
            other => bail!("{other:?} in place of the end"),
        }
    }
}

fn connect(abuser: &Abuser<'_>) -> Result<Peer> {
    let socket = abuser.target.tls.context("the broker has no port with TLS")?;
    // Its bytes are made here.
    Peer::connect(&Address::plain(socket))
}

/// The client's first flight.
fn hello(tls: &Tls) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    tls.session(&ServerName::try_from("127.0.0.1")?)?.output(&mut out);
    Ok(out)
}

/// Gets 400 and a sentence.
fn plain_http(abuser: &mut Abuser<'_>, _: &Tls) -> Result<()> {
    let mut peer = connect(abuser)?;
    peer.send(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n")?;
    let (said, _) = peer.read_to_end();
    if !said.starts_with(b"HTTP/1.1 400 ") {
        abuser.violation(format!("plain HTTP was answered with \"{}\"", said[..said.len().min(80)].escape_ascii()));
    }
    Ok(())
}

/// Every record is cut at every byte.
fn byte_by_byte(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let mut secure = Secure::connect(abuser, tls)?;
    secure.upgrade(&mut |peer, bytes| Ok(bytes.chunks(1).try_for_each(|byte| peer.send(byte))?))?;
    secure.session.seal(&frame(BINARY, b"x"));
    let out = secure.output();
    out.chunks(1).try_for_each(|byte| secure.peer.send(byte))?;
    secure.expect_echo(b"byte by byte")
}

fn cut_anywhere(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let mut rng = abuser.rng.fork();
    let mut secure = Secure::connect(abuser, tls)?;
    secure.upgrade(&mut |peer, bytes| {
        let mut from = 0;
        for end in ends(bytes.len(), &mut rng) {
            peer.send(&bytes[from..end])?;
            from = end;
        }
        Ok(())
    })?;
    secure.expect_echo(b"in pieces")
}

/// The end of the stream in the middle of the first flight, and in the middle of a record behind the upgrade.
fn cut_short(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let hello = hello(tls)?;
    let mut peer = connect(abuser)?;
    peer.send(&hello[..abuser.rng.usize(..hello.len())])?;
    peer.finish_sending();
    ensure!(matches!(peer.read_to_end().1, Ending::Eof | Ending::Reset), "half a hello was not ended");
    let mut secure = Secure::open(abuser, tls)?;
    secure.session.seal(&frame(BINARY, b"whole"));
    let out = secure.output();
    secure.peer.send(&out[..abuser.rng.usize(1..out.len())])?;
    secure.peer.finish_sending();
    secure.expect_end()
}

/// More than a few in a row end the connection: each one costs the broker new keys and an answer.
fn key_updates(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let mut secure = Secure::open(abuser, tls)?;
    for _ in 0..UPDATES {
        secure.session.update_keys().map_err(|why| anyhow!(why))?;
        let out = secure.output();
        if secure.peer.send(&out).is_err() {
            abuser.count("floods of key updates that were ended", 1);
            return Ok(());
        }
    }
    secure.expect_end().context("the flood was not ended")?;
    abuser.count("floods of key updates that were ended", 1);
    Ok(())
}

/// Half a frame, then an alert: the end of the stream as TLS has it, or bytes that nobody encrypted.
fn alert_within_a_frame(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let half = &frame(BINARY, b"half of this")[..9];
    let mut secure = Secure::open(abuser, tls)?;
    secure.send(half)?;
    secure.session.close();
    let out = secure.output();
    secure.peer.send(&out)?;
    secure.expect_end().context("close_notify")?;
    let mut secure = Secure::open(abuser, tls)?;
    secure.send(half)?;
    secure.peer.send(&ALERT)?;
    secure.expect_end().context("an alert without encryption")
}

/// A peer that sends no more, and reads on: a WebSocket ends, and a request before that end gets its answer.
fn half_closed(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let mut secure = Secure::open(abuser, tls)?;
    secure.expect_echo(b"before")?;
    secure.finish_sending(abuser.rng.bool())?;
    secure.expect_end()?;
    let mut secure = Secure::connect(abuser, tls)?;
    secure.session.seal(HEALTH);
    while !secure.plain.starts_with(b"HTTP/1.1 200 ") {
        let out = secure.output();
        secure.peer.send(&out)?;
        ensure!(secure.receive()?, "the end in place of an answer");
    }
    secure.session.seal(HEALTH);
    secure.finish_sending(abuser.rng.bool())?;
    secure.expect_end()?;
    let answers = secure.plain.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count();
    ensure!(answers == 2, "{answers} answers to two requests: {}", secure.plain.escape_ascii());
    Ok(())
}

/// Any answer or none, but an end.
fn damaged(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let mut bytes = hello(tls)?;
    match abuser.rng.u8(..4) {
        0 => bytes = garbage(&mut abuser.rng),
        _ => mutate(&mut bytes, &mut abuser.rng),
    }
    let mut peer = connect(abuser)?;
    abuser.send_in_pieces(&mut peer, &bytes);
    peer.finish_sending();
    let ending = peer.read_to_end().1;
    if ending == Ending::Late {
        abuser.violation(format!("a damaged hello was not ended within {PATIENCE:?}"));
    }
    Ok(())
}

/// Handshakes that never end, silent or a byte at a time: the deadline for handshakes holds for them too.
fn slow_handshakes(abuser: &mut Abuser<'_>, tls: &Tls) -> Result<()> {
    let limit = abuser.target.scale.handshake_timeout;
    loop {
        let mut waiting = Vec::new();
        for number in 0..2 * abuser.target.scale.silent {
            let (mut peer, hello) = (connect(abuser)?, hello(tls)?);
            // All but the last byte at once, or one after the other.
            let sent = if number % 2 == 0 { hello.len() - 1 } else { 0 };
            peer.send(&hello[..sent])?;
            waiting.push((peer, hello, sent, Instant::now()));
        }
        while !waiting.is_empty() {
            thread::sleep(STEP);
            let mut left = Vec::with_capacity(waiting.len());
            for (mut peer, hello, mut sent, since) in waiting {
                if peer.poll_ending()?.is_some() {
                    abuser.count("slow handshakes ended", 1);
                    continue;
                }
                if since.elapsed() > limit + SLACK {
                    abuser.violation(format!("a slow handshake is still open after {:?}", since.elapsed()));
                    continue;
                }
                if sent + 1 < hello.len() {
                    // Fails when the connection was ended meanwhile, which the next step shows.
                    drop(peer.send(&hello[sent..=sent]));
                    sent += 1;
                }
                left.push((peer, hello, sent, since));
            }
            waiting = left;
        }
        if Instant::now() + limit > abuser.target.deadline {
            return Ok(());
        }
    }
}
