//! Streams of events on a shard, on simulated connections: what time brings, and how they end.

use protocol::frame::close_code::FORBIDDEN;
use ring::Nanos;

use super::*;
use crate::shard::handover::Stream;

const SECOND: Nanos = 1_000_000_000;
const COMMENT: &str = "3\r\n:\n\n\r\n";

impl Stage {
    /// A client whose stream is open, and what it was sent.
    fn listen(&mut self, path: &str, fields: &str) -> (ClientId, String) {
        let client = self.world.connect(0);
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n");
        assert_eq!(self.world.client_write(client, head.as_bytes()), head.len());
        self.turns(8);
        let heard = self.heard(client);
        assert!(heard.starts_with("HTTP/1.1 200") && heard.contains("event: position"), "{heard}");
        (client, heard)
    }

    fn heard(&mut self, client: ClientId) -> String {
        self.turns(4);
        String::from_utf8(self.world.client_read(client, 1 << 20)).expect("text")
    }

    fn seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.world.advance(SECOND);
            self.turns(3);
        }
    }
}

#[test]
fn a_silent_stream_gets_a_comment_every_twenty_seconds() {
    let mut stage = Stage::new();
    let (client, _) = stage.listen("/sub/t", "");
    for round in 0..3 {
        let (mut heard, mut waited) = (String::new(), 0);
        while heard.is_empty() {
            stage.seconds(1);
            waited += 1;
            heard = stage.heard(client);
            assert!(waited < 23, "round {round}");
        }
        assert!(heard == COMMENT && waited > 18, "round {round}, {waited} s: {heard}");
    }
    // What is sent tells as much.
    for _ in 0..4 {
        stage.seconds(15);
        // A new one each time: it would have to answer pings.
        let publisher = stage.open("/pub/t");
        stage.write(publisher, &frame(TEXT, b"x"));
        let heard = stage.heard(client);
        assert!(heard.contains("data: x\n") && !heard.contains(COMMENT), "{heard}");
    }
}

#[test]
fn who_acknowledges_nothing_is_gone() {
    let mut stage = Stage::new();
    let (client, _) = stage.listen("/sub/t", "");
    let (reader, _) = stage.listen("/sub/t", "");
    for _ in 0..3 {
        stage.seconds(21);
        assert_eq!(stage.heard(reader), COMMENT);
    }
    assert_eq!(stage.shared.stats[0].snapshot().event_streams, 1, "the other one did not read");
    assert!(stage.world.client_end(client).is_some() || stage.heard(client).contains(COMMENT));
}

#[test]
fn what_its_client_sends_is_not_kept() {
    let mut stage = Stage::new();
    let (client, _) = stage.listen("/sub/t", "");
    stage.turns(4);
    let before = stage.shared.budget.used();
    for _ in 0..200 {
        stage.write(client, &[0x81; 4096]);
    }
    stage.turns(4);
    assert_eq!(stage.shared.budget.used(), before);
    let publisher = stage.open("/pub/t");
    stage.write(publisher, &frame(TEXT, b"x"));
    assert!(stage.heard(client).contains("data: x\n"), "it goes on");
}

#[test]
fn an_idle_stream_takes_little() {
    let mut stage = Stage::within(64 << 20, Limits::default());
    let (first, _) = stage.listen("/sub/t", "");
    stage.turns(4);
    let before = stage.shared.budget.used();
    for _ in 0..100 {
        drop(stage.listen("/sub/t", ""));
    }
    stage.turns(4);
    let each = (stage.shared.budget.used() - before) / 100;
    assert!(each <= 16, "{each} bytes beside the record and its session, for its place among the topic's subscribers");
    assert_eq!(stage.heard(first), "");
    assert!(size_of::<crate::session::events::EventSession>() <= 48);
}

/// The control plane admitted it; then its token was revoked.
#[test]
fn one_that_is_not_to_begin_ends_as_a_stream() {
    let mut stage = Stage::new();
    let filters = vec!["t".to_owned()];
    let stream = Stream {
        filters,
        is_chunked: true,
        has_envelope: false,
        is_resumed: false,
        lost_place: false,
        readable_for: None,
    };
    let client = stage.adopt(Purpose::Events(Box::new(stream)), Entry::Refused(FORBIDDEN, "no longer"));
    let heard = stage.heard(client);
    assert!(
        heard.contains("event: expired\ndata: {\"code\":4403,\"reason\":\"no longer\"}\n\n\r\n0\r\n\r\n"),
        "{heard}"
    );
}

#[test]
fn several_topics_that_cannot_all_be_recovered_are_not_asked_for() {
    let mut stage = Stage::new();
    let (_, heard) = stage.listen("/sub?topic=a&topic=b/%23", "Last-Event-ID: 00000000000000ab:3\r\n");
    assert!(heard.contains("data: {\"recovered\":false,\"ids\":false}"), "{heard}");
}
