//! NATS over WebSocket: the NATS client protocol (docs.nats.io, "Client Protocol") as a stream of bytes in binary
//! messages.
//!
//! `CONNECT` is sent without waiting for `INFO`, which servers accept. The subscriptions and a `PING` follow at once; the
//! `PONG` confirms all of them. Each later subscription has its own `PING`. Subjects are the topics with `.` for `/`. Sids
//! are topic numbers from 1.

use anyhow::{Result, ensure};
use protocol::frame::{Opcode, put_client_frame};

use super::names::{Called, decimals, number, put_number};
use super::socket::{self, Broken, Content, Kind, State};
use super::unit::{self, Unit, Units, stamp_len};
use super::url::Url;
use super::{Duty, Names, Visit};
use crate::stamp::{Payloads, Stamp};

const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true,\"headers\":false,\
    \"lang\":\"rust\",\"name\":\"loadgen\",\"protocol\":1,\"version\":\"1\"}\r\n";
const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"PONG\r\n";
const CRLF: &[u8] = b"\r\n";
/// Subscriptions of one WebSocket message: some KiB.
const SUBSCRIPTIONS_PER_MESSAGE: usize = 256;
/// The longest payload that is accepted, in bytes.
const PAYLOAD_MAX: u64 = 1 << 31;

/// nats-server's WebSocket listener.
#[derive(Debug)]
pub(super) struct Nats {
    subscribe: Url,
    publish: Url,
    names: Called,
}

impl Nats {
    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        let prefix = names.prefix.replace('/', ".");
        ensure!(
            prefix.split('.').all(|token| !token.is_empty())
                && !prefix.starts_with('$')
                && !prefix.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'),
            "the topic {:?} cannot be used: a NATS subject has no empty levels, white space or wildcards",
            names.prefix
        );
        let names = Called::new(&Names { prefix, ..names.clone() }, '.');
        Ok(Self { subscribe: url.clone(), publish: publish.unwrap_or(url).clone(), names })
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        if duty.subscribes.count == 0 { &self.publish } else { &self.subscribe }
    }

    pub(super) fn greet(&self, duty: &Duty, out: &mut Vec<u8>) {
        let mut lines = CONNECT.to_vec();
        for (i, topic) in duty.subscribes.iter(self.names.count()).enumerate() {
            if i > 0 && i % SUBSCRIPTIONS_PER_MESSAGE == 0 {
                send(&lines, out);
                lines.clear();
            }
            self.put_sub(topic, &mut lines);
        }
        lines.extend_from_slice(PING);
        send(&lines, out);
    }

    pub(super) fn subscribe(&self, topic: u32, out: &mut Vec<u8>) {
        let mut lines = Vec::new();
        self.put_sub(topic, &mut lines);
        lines.extend_from_slice(PING);
        send(&lines, out);
    }

    pub(super) fn unsubscribe(&self, topic: u32, out: &mut Vec<u8>) {
        send(format!("UNSUB {}\r\nPING\r\n", u64::from(topic) + 1).as_bytes(), out);
    }

    /// `SUB <subject> <sid>`
    fn put_sub(&self, topic: u32, lines: &mut Vec<u8>) {
        lines.extend_from_slice(b"SUB ");
        self.names.put(topic, lines);
        lines.push(b' ');
        put_number(u64::from(topic) + 1, lines);
        lines.extend_from_slice(CRLF);
    }

    /// `PUB <subject> <#bytes>`
    pub(super) fn publish(&self, topic: u32, stamp: Stamp, payloads: &Payloads, out: &mut Vec<u8>) {
        const PUB: &[u8] = b"PUB ";
        let payload = u64::from(payloads.sizes().of(stamp.stream, stamp.seq));
        let line = PUB.len() + self.names.len(topic) + 1 + decimals(payload) + CRLF.len();
        let len = line + payload as usize + CRLF.len();
        socket::put(out, Opcode::Binary, len, socket::mask(stamp), |out| {
            out.extend_from_slice(PUB);
            self.names.put(topic, out);
            out.push(b' ');
            put_number(payload, out);
            out.extend_from_slice(CRLF);
            payloads.write(stamp, out);
            out.extend_from_slice(CRLF);
        });
    }

    /// An unsolicited `PONG`, which a server accepts as a heartbeat.
    pub(super) fn heartbeat(out: &mut Vec<u8>) {
        send(PONG, out);
    }

    pub(super) fn content<'a>(&'a self, payloads: &'a Payloads) -> Lines<'a> {
        Lines { nats: self, payloads }
    }
}

fn send(lines: &[u8], out: &mut Vec<u8>) {
    put_client_frame(out, Opcode::Binary, lines, socket::fresh_mask());
}

/// The server's side of one connection.
pub(super) struct Lines<'a> {
    nats: &'a Nats,
    payloads: &'a Payloads,
}

impl Content for Lines<'_> {
    #[inline]
    fn whole(&self, state: &mut State, _: Kind, payload: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        unit::stream(self, state, payload, visit)
    }

    fn piece(&self, state: &mut State, _: Kind, piece: &[u8], _: bool, visit: &mut impl Visit) -> Result<(), Broken> {
        unit::stream(self, state, piece, visit)
    }
}

impl Units for Lines<'_> {
    const TAIL: &'static [u8] = CRLF;

    fn payloads(&self) -> &Payloads {
        self.payloads
    }

    fn topic(&self, stream: u32) -> u32 {
        self.nats.names.of_stream(stream)
    }

    #[inline]
    fn unit(&self, state: &mut State, bytes: &[u8], visit: &mut impl Visit) -> Result<Unit, Broken> {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            return Ok(Unit::Cut);
        };
        let front = end + 1;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        if let Some(arguments) = line.strip_prefix(b"MSG ") {
            let Some((subject, len)) = message(arguments) else {
                return Err(unexpected(line));
            };
            if bytes.len() - front < stamp_len(len) {
                return Ok(Unit::Cut);
            }
            return Ok(Unit::Message { front, len, topic: self.nats.names.topic(subject) });
        }
        if line == b"PING" {
            visit.ping();
            socket::reply(Opcode::Binary, PONG, visit);
        } else if line == b"PONG" {
            state.answered(1, visit);
        } else if let Some(why) = line.strip_prefix(b"-ERR") {
            return Err(String::from_utf8_lossy(why).trim().trim_matches('\'').to_owned().into());
        } else if !line.starts_with(b"INFO ") && !line.starts_with(b"+OK") {
            return Err(unexpected(line));
        }
        Ok(Unit::Done(front))
    }
}

/// `<subject> <sid> [reply-to] <#bytes>`: subject and length.
#[inline]
fn message(arguments: &[u8]) -> Option<(&[u8], u64)> {
    let mut fields = arguments.split(|byte| *byte == b' ' || *byte == b'\t').filter(|field| !field.is_empty());
    let subject = fields.next()?;
    let _sid = fields.next()?;
    let third = fields.next()?;
    let len = number(fields.next().unwrap_or(third)).filter(|len| *len <= PAYLOAD_MAX)?;
    fields.next().is_none().then_some((subject, len))
}

fn unexpected(line: &[u8]) -> Broken {
    format!("a line that is no NATS: \"{}\"", line[..line.len().min(80)].escape_ascii()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::testing::{ALL, Event, TOPICS, adapter, client_frames, frame, seen_everyhow};
    use crate::adapter::{Adapter, Protocol, Topics};
    use crate::stamp::Sizes;

    fn lines(bytes: &[u8]) -> String {
        let frames = client_frames(bytes);
        assert!(frames.iter().all(|(opcode, _)| *opcode == Opcode::Binary));
        String::from_utf8(frames.into_iter().flat_map(|(_, payload)| payload).collect()).unwrap()
    }

    #[test]
    fn what_goes_out() {
        let adapter = adapter(Protocol::Nats, Sizes::Fixed(30));
        let mut out = Vec::new();
        adapter.greet(&ALL, &mut out);
        let said = lines(&out);
        let mut said = said.split("\r\n");
        let options = said.next().unwrap().strip_prefix("CONNECT ").unwrap();
        let options: serde_json::Value = serde_json::from_str(options).unwrap();
        assert_eq!((&options["verbose"], &options["headers"]), (&false.into(), &false.into()));
        for topic in 0..TOPICS {
            assert_eq!(said.next().unwrap(), format!("SUB load.gen.{topic} {}", topic + 1));
        }
        assert_eq!(said.collect::<Vec<_>>(), ["PING", ""]);

        let (mut out, mut payload) = (Vec::new(), Vec::new());
        let stamp = Stamp { stream: 10, seq: 1, sent_ns: 2 };
        Payloads::new(Sizes::Fixed(30)).write(stamp, &mut payload);
        adapter.publish(10, stamp, &mut out);
        adapter.subscribe(0, &mut out);
        adapter.unsubscribe(0, &mut out);
        adapter.heartbeat(&mut out);
        let payload = String::from_utf8(payload).unwrap();
        let said = "SUB load.gen.0 1\r\nPING\r\nUNSUB 1\r\nPING\r\nPONG\r\n";
        assert_eq!(lines(&out), format!("PUB load.gen.10 30\r\n{payload}\r\n{said}"));
    }

    #[test]
    fn greetings_of_many_topics_come_in_messages_of_some_length() {
        let new = |prefix: &str, count| {
            let names = Names { prefix: prefix.to_owned(), count };
            Adapter::new(Protocol::Nats, "ws://127.0.0.1:9", None, &names, Payloads::new(Sizes::Fixed(24)))
        };
        let duty = Duty { subscribes: Topics { first: 0, step: 1, count: 600 }, publishes: Topics::default() };
        let mut out = Vec::new();
        new("a", 5000).unwrap().greet(&duty, &mut out);
        assert_eq!((client_frames(&out).len(), lines(&out).matches("SUB ").count()), (3, 600));
        for prefix in ["", "a b", "a.*", "a.>", "/a", "a..b", "$SYS", "a\r\n"] {
            assert!(new(prefix, 1).is_err(), "{prefix:?}");
        }
    }

    fn said(text: &str) -> Vec<Event> {
        seen_everyhow(&adapter(Protocol::Nats, Sizes::Fixed(30)), &ALL, &frame(Opcode::Binary, text.as_bytes()))
    }

    #[test]
    fn what_comes_in() {
        let pong = || Event::Reply(Opcode::Binary, b"PONG\r\n".to_vec());
        let events = said("INFO {\"server_id\":\"x\"}\r\nPING\r\nPONG\r\n+OK\r\nINFO {}\r\nPONG\r\n");
        assert_eq!(events, [Event::Ping, pong(), Event::Ready, Event::Ready]);
        assert_eq!(
            said("-ERR 'Maximum Payload Violation'\r\nPING\r\n"),
            [Event::Broken("Maximum Payload Violation".to_owned())]
        );
        assert_eq!(said("MSG other 1 5\r\nhello\r\nMSG other 1 0\r\n\r\n"), [Event::Foreign, Event::Foreign]);
        for text in [
            "HELLO\r\n",
            "\r\n",
            "MSG a 1\r\n",
            "MSG a 1 x\r\n",
            "MSG a 1 r 5 6\r\n",
            "MSG a 1 99999999999999999999\r\n",
            "MSG a 1 9999999999\r\n",
            "MSG a 1 -1\r\n",
            "SUB a 1\r\n",
        ] {
            assert!(matches!(&said(text)[..], [Event::Broken(_)]), "{text}");
        }
        assert!(matches!(&said("MSG a 1 5\r\nhello!\r\n")[..], [Event::Broken(_)]), "longer than announced");
        assert!(matches!(&said("MSG a 1 5\r\nhell\r\nPING\r\n")[..], [Event::Broken(_)]), "shorter than announced");
        let endless = format!("INFO {}", " ".repeat(300_000));
        let adapter = adapter(Protocol::Nats, Sizes::Fixed(30));
        for cuts in [vec![], (0..300_000).step_by(1000).collect()] {
            let events =
                crate::adapter::testing::seen(&adapter, &ALL, &frame(Opcode::Binary, endless.as_bytes()), &cuts);
            assert!(matches!(&events[..], [Event::Broken(_)]), "a line without end");
        }
    }
}
