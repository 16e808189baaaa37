//! Request heads and their answers.

use super::{Client, Pace, Parting, Phase, Role, Stage};
use crate::model::{Confirmed, Violation};

/// Of every handshake (RFC 6455 §1.3).
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

impl Client {
    pub(super) fn greet(&mut self, stage: &mut Stage<'_>) {
        if self.role == Role::Poster {
            self.wire.put(&self.door.preamble.clone());
            self.phase = Phase::Open;
            return;
        }
        let more = if self.wants_upgrade() { self.fields(stage) } else { String::new() };
        let topics = stage.params.topics.clone();
        let head = match &self.role {
            Role::Subscriber(filter) => upgrade(&format!("/sub/{}", escape(filter)), &more),
            Role::Publisher(topic) => upgrade(&format!("/pub/{}", escape(&topics[*topic])), &more),
            Role::Bus(topic) => upgrade(&format!("/bus/{}", escape(&topics[*topic])), &more),
            Role::V1 => upgrade("/ws", &more),
            Role::Events(_) => self.listening_head(stage),
            Role::Http => format!("GET /api/stats?{} HTTP/1.1\r\nHost: h\r\n\r\n", self.index),
            Role::Slowloris => format!("GET /ws HTTP/1.1\r\nHost: h\r\nX-Slow: {}", "x".repeat(self.index % 50)),
            Role::Poster => unreachable!("it has returned"),
            Role::Refused(_) => {
                let (statuses, head) = bad_head(stage, self.index);
                self.role = Role::Refused(statuses);
                head
            }
        };
        self.wire.put(&self.door.preamble);
        self.wire.put(head.as_bytes());
        self.open_stream(stage);
        if self.eager {
            // Frames on the heels of the head, in one write where the pace allows.
            self.speak(stage);
        }
    }

    /// What its head says besides.
    fn fields(&mut self, stage: &mut Stage<'_>) -> String {
        let (credentials, token) = self.present(stage);
        let offers = match (self.role == Role::V1, token) {
            (true, None) => "Sec-WebSocket-Protocol: other, ringyard.v1\r\n".to_owned(),
            (true, Some(token)) => format!("Sec-WebSocket-Protocol: other, ringyard.v1, {token}\r\n"),
            (false, None) => String::new(),
            (false, Some(token)) => format!("Sec-WebSocket-Protocol: ringyard.raw, {token}\r\n"),
        };
        format!("{offers}{credentials}{}", self.door.forwarded)
    }

    /// Tells the model of a client with subscriptions.
    pub(super) fn open_stream(&mut self, stage: &mut Stage<'_>) {
        let filter = match &self.role {
            Role::Subscriber(filter) => Some(filter.clone()),
            Role::Bus(topic) => Some(stage.params.topics[*topic].clone()),
            Role::V1 | Role::Events(_) => None,
            _ => return,
        };
        let stream = stage.model.open(self.name());
        self.stream = Some(stream);
        if self.wire.reads == Pace::Fast {
            stage.model.reads_at_once(stream);
        }
        if let Some(filter) = filter {
            stage.model.subscribing(stream, &[filter]);
        }
        self.listen(stage);
    }

    /// Its handshake was answered 101.
    fn begin(&mut self, wrong: &impl Fn(&str) -> Violation, stage: &mut Stage<'_>) -> Result<(), Violation> {
        if let Some(earned) = self.earned(stage) {
            if earned.holder.is_none() && earned.closing.is_empty() {
                return Err(wrong(&format!("upgraded: {earned:?}, {:?}", self.standing)));
            }
            if !self.enter(earned, stage) {
                return Ok(());
            }
        }
        let filter = match &self.role {
            Role::Subscriber(filter) => filter.clone(),
            Role::Bus(topic) => stage.params.topics[*topic].clone(),
            _ => return Ok(()),
        };
        let stream = self.stream.expect("opened with the head");
        stage.model.confirmed(stream, &[Confirmed { filter, ..Confirmed::default() }])
    }

    /// The answer to the head, once it is whole. Returns whether frames may follow.
    pub(super) fn hear_head(&mut self, stage: &mut Stage<'_>) -> Result<bool, Violation> {
        let Some(end) = self.wire.input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8_lossy(&self.wire.input[..end + 4]).into_owned();
        let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        let is_stream = self.is_listening() && status == 200;
        // One that ends at once stands for a refusal, which a browser would take for the last word: it says when to come back.
        let status = if is_stream && head.contains("Content-Length: ") { 503 } else { status };
        stage.trace.say(|| format!("{} heard {status}", self.name()));
        let name = self.name();
        let wrong = |what: &str| Violation::new("a head gets the answer it earns", format!("{name}: {what}: {head:?}"));
        if self.door.broken && !matches!(status, 408 | 503) {
            return Err(wrong("answered behind a broken PROXY header"));
        }
        if status == 101 {
            self.wire.input.drain(..end + 4);
            if !self.wants_upgrade() || !head.contains(ACCEPT) {
                return Err(wrong("upgraded"));
            }
            if head.contains("ringyard.v1") != (self.role == Role::V1) {
                return Err(wrong("the subprotocol"));
            }
            self.phase = Phase::Open;
            return self.begin(&wrong, stage).map(|()| true);
        }
        if is_stream && status == 200 {
            self.wire.input.drain(..end + 4);
            if !head.contains("Content-Type: text/event-stream\r\n") || !head.contains("chunked") {
                return Err(wrong("no stream"));
            }
            stage.coverage.streams += 1;
            self.phase = Phase::Open;
            return Ok(true);
        }
        // Refused for its address before its head was looked at, perhaps.
        let crowded = self.door.counts_as.is_some() && stage.params.limits.connections_per_address_max.is_some();
        let late = matches!(status, 408 | 503) || (status == 429 && crowded);
        let fits = match &self.role {
            Role::Refused(statuses) => late || statuses.contains(&status),
            Role::Http => late || status == 200,
            _ => late || status == 503,
        };
        let judged = self.earned(stage).filter(|earned| earned.statuses.contains(&status));
        let fits = fits || judged.is_some();
        if !fits {
            return Err(wrong("refused"));
        }
        if judged.is_some() {
            stage.coverage.refused_access += 1;
            self.deny_all(stage)?;
        } else if status == 408 {
            stage.coverage.handshake_timeouts += 1;
        } else if status == 429 {
            stage.coverage.crowded += 1;
        } else if matches!(self.role, Role::Refused(_)) {
            stage.coverage.refused += 1;
        }
        self.phase = Phase::Ending;
        if self.parting == Parting::None {
            self.parting = Parting::Violation(0);
        }
        self.wire.discard();
        Ok(false)
    }
}

fn upgrade(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: broker.example\r\n{more}Connection: keep-alive, Upgrade\r\nUPGRADE: WebSocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn bad_head(stage: &mut Stage<'_>, index: usize) -> (Vec<u16>, String) {
    match stage.rng.below(6) {
        0 => (vec![404], upgrade("/nowhere", "")),
        1 => (vec![400], upgrade("/pub/a/%23", "")),
        2 => (vec![403], upgrade("/pub/$sys/load", "")),
        3 => (vec![431], upgrade("/ws", &format!("X: {}\r\n", "y".repeat(9000)))),
        4 if index.is_multiple_of(2) => (vec![421], upgrade("/sub/a", "").replace("broker.example", "evil.example")),
        4 => (vec![403], upgrade("/sub/a", "Origin: http://elsewhere.example\r\n")),
        _ => (vec![400], "\u{1}\u{2} what is this\r\n\r\n".to_owned()),
    }
}

pub(super) fn escape(topic: &str) -> String {
    let mut path = String::new();
    for byte in topic.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'/' | b'+' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}
