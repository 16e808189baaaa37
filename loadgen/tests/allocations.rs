//! Counts allocations: receiving messages that lie whole in a read, and publishing into a buffer with room, must not
//! allocate.

use allocation_counter::measure;
use loadgen::adapter::{Adapter, Duty, Inbound, Names, Protocol, Topics, Visit};
use loadgen::stamp::{Payloads, Sizes, Stamp};
use protocol::frame::{HEADER_MAX, Opcode, server_header};
use protocol::v1::{MessageParts, PayloadKind, write_message};

const MESSAGES: u64 = 100;

#[derive(Default)]
struct Count {
    intact: u64,
}

impl Visit for Count {
    fn ready(&mut self) {}
    fn message(&mut self, _: Stamp, intact: bool) {
        self.intact += u64::from(intact);
    }
    fn foreign(&mut self) {}
    fn ping(&mut self) {}
    fn reply(&mut self, _: &[u8]) {}
    fn close(&mut self, _: u16) {}
    fn broken(&mut self, why: &str) {
        panic!("{why}");
    }
}

fn stamp(seq: u64) -> Stamp {
    Stamp { stream: 7, seq, sent_ns: seq }
}

/// A server's frame with this message.
fn framed(protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    match protocol {
        Protocol::V1 => write_message(&mut body, &MessageParts::plain("a/7", 12, PayloadKind::Text, payload)),
        Protocol::Nats => body = [format!("MSG a.7 8 {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat(),
        Protocol::Mqtt => body = [b"\x30\x85\x01\x00\x03a/7", payload].concat(),
        _ => body.extend_from_slice(payload),
    }
    let opcode = if matches!(protocol, Protocol::Nats | Protocol::Mqtt) { Opcode::Binary } else { Opcode::Text };
    let mut header = [0; HEADER_MAX];
    let len = server_header(opcode, body.len() as u64, &mut header);
    [&header[..len], &body].concat()
}

#[test]
fn no_allocation_per_message() {
    let duty = Duty { subscribes: Topics { first: 0, step: 1, count: 10 }, publishes: Topics::default() };
    for protocol in [Protocol::Raw, Protocol::V1, Protocol::Nats, Protocol::Mqtt, Protocol::Nchan] {
        let payloads = Payloads::new(Sizes::Fixed(128));
        let names = Names { prefix: "a".to_owned(), count: 10 };
        let adapter = Adapter::new(protocol, "ws://127.0.0.1:9", None, &names, payloads.clone()).unwrap();
        let mut stream = Vec::new();
        for seq in 0..MESSAGES {
            let mut payload = Vec::new();
            payloads.write(stamp(seq), &mut payload);
            stream.extend(framed(protocol, &payload));
        }
        let (mut inbound, mut count) = (Inbound::default(), Count::default());
        let read = measure(|| adapter.feed(&mut inbound, &duty, &stream, &mut count));
        assert_eq!((read.count_total, count.intact), (0, MESSAGES), "{protocol:?}");

        // In reads that cut, a connection is back at nothing once a message is whole.
        let (mut inbound, mut count) = (Inbound::default(), Count::default());
        let cut = measure(|| {
            stream.chunks(50).for_each(|bytes| adapter.feed(&mut inbound, &duty, bytes, &mut count));
        });
        assert_eq!((cut.bytes_current, count.intact), (0, MESSAGES), "{protocol:?}");
        assert!(cut.bytes_max < 1024, "{protocol:?}: {} bytes for what is cut", cut.bytes_max);
        assert!(inbound.is_between_messages(), "{protocol:?}");

        let mut out = Vec::with_capacity(1 << 20);
        let published = measure(|| (0..MESSAGES).for_each(|seq| adapter.publish(7, stamp(seq), &mut out)));
        assert_eq!(published.count_total, 0, "{protocol:?}");
    }
}
