//! A client that publishes over HTTP: requests that its shard answers, several at a time, cut anywhere; and their answers,
//! each in its turn.

use serde_json::Value;

use super::greet::escape;
use super::standing::{Holder, new_token, rights};
use super::{Client, Parting, Phase, Stage, length};
use crate::model::{MessageId, Moment, Options, Position, TokenId, Violation};
use crate::payload::{self, Kind};

/// Publishers of single messages: a message that the broker refuses leaves no gap in anybody's order.
const POSTS: usize = 1 << 40;

/// What a request is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// Where its message is; with which token it was sent and when, where access control is on.
    Published(MessageId, Option<(Option<TokenId>, Moment)>),
    /// This status.
    Status(u16),
}

impl Client {
    /// Asks for something.
    pub(super) fn post(&mut self, stage: &mut Stage<'_>) {
        match stage.rng.below(40) {
            0 => self.put_request("/pub/a/%23", "", b"x", Expected::Status(400)),
            1 => self.put_request("/pub/$sys/load", "", b"xy", Expected::Status(403)),
            2 if stage.params.access.is_none() => {
                self.put_request("/pub/a", "Content-Type: application/json\r\n", b"[1", Expected::Status(400))
            }
            3 => self.put_request("/pub/a", "Origin: http://elsewhere.example\r\n", b"", Expected::Status(403)),
            4 if self.index.is_multiple_of(3) => {
                // For the control plane, which answers and hangs up.
                let head = format!("GET /api/stats?{} HTTP/1.1\r\nHost: broker.example\r\n\r\n", self.index);
                self.wire.put(head.as_bytes());
                self.requests.push_back(Expected::Status(200));
                self.parting = Parting::HalfClose;
            }
            _ => self.post_message(stage),
        }
    }

    fn post_message(&mut self, stage: &mut Stage<'_>) {
        let topic = stage.rng.below(stage.params.topics.len());
        let kind = stage.rng.pick(&[Kind::Text, Kind::Binary, Kind::Json]);
        let len = length(stage);
        let publisher = POSTS + stage.model.messages();
        let id = match stage.model.rule(topic).may_refuse() {
            true => stage.model.publish_with(publisher, topic, kind, len, Options::default()),
            false => stage.model.publish(publisher, topic, kind, len),
        };
        stage.coverage.published += 1;
        let body = payload::build(id, kind, stage.model.length(id));
        let media = match kind {
            Kind::Text => "text/plain; charset=utf-8",
            Kind::Binary => "application/octet-stream",
            Kind::Json => "application/json",
        };
        let path = format!("/pub/{}", escape(&stage.params.topics[topic]));
        let (credentials, judged) = self.credentials(stage);
        let fields = format!("content-TYPE:{media}\r\n{credentials}");
        self.put_request(&path, &fields, &body, Expected::Published(id, judged));
    }

    /// What a request brings, where access control is on.
    fn credentials(&self, stage: &mut Stage<'_>) -> (String, Option<(Option<TokenId>, Moment)>) {
        if stage.params.access.is_none() {
            return (String::new(), None);
        }
        let asked = stage.model.moment_on(self.shard);
        if stage.rng.one_in(4) {
            return (String::new(), Some((None, asked)));
        }
        let token = new_token(None, stage);
        (format!("authorization: bearer {}\r\n", stage.model.token(token).text), Some((Some(token), asked)))
    }

    /// As what a publish may be answered, by token and tables: 200, 401, 403.
    fn may_be_answered(
        status: u16,
        id: MessageId,
        (token, asked): (Option<TokenId>, Moment),
        stage: &mut Stage<'_>,
    ) -> bool {
        let now = stage.model.moment();
        let required = stage.params.access.as_ref().is_some_and(|access| access.required);
        let topic = &stage.params.topics[stage.model.topic_of(id)];
        let grants = |holder| rights(holder, stage).publishes(topic);
        let (good, bad, granted) = match token {
            None => (!required, required, grants(Holder::Anonymous)),
            Some(token) => {
                let verdicts = stage.model.verdicts(token, asked, now);
                (verdicts.good, verdicts.bad || verdicts.expired, grants(Holder::User(token)))
            }
        };
        match status {
            401 => bad,
            403 => good && !granted,
            _ => good && granted,
        }
    }

    fn put_request(&mut self, path: &str, fields: &str, body: &[u8], expected: Expected) {
        let (forwarded, len) = (&self.door.forwarded, body.len());
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: broker.example\r\n{forwarded}{fields}Content-Length: {len}\r\n\r\n");
        let id = if let Expected::Published(id, _) = expected { Some(id) } else { None };
        self.wire.put_marked(&[head.as_bytes(), body].concat(), id);
        self.requests.push_back(expected);
    }

    /// Takes every whole answer that came.
    pub(super) fn hear_answers(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        while self.phase == Phase::Open {
            let Some(end) = self.wire.input.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            let head = String::from_utf8_lossy(&self.wire.input[..end + 4]).to_ascii_lowercase();
            let len = head.split_once("content-length: ").and_then(|(_, rest)| rest.split_once("\r\n")?.0.parse().ok());
            let len: usize = len.unwrap_or(0);
            if self.wire.input.len() < end + 4 + len {
                return Ok(());
            }
            let answer: Vec<u8> = self.wire.input.drain(..end + 4 + len).collect();
            self.hear_answer(&head, &answer[end + 4..], stage)?;
        }
        Ok(())
    }

    fn hear_answer(&mut self, head: &str, body: &[u8], stage: &mut Stage<'_>) -> Result<(), Violation> {
        let status: u16 = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        let name = self.name();
        stage.trace.say(|| format!("{name} heard {status}"));
        self.was_heard = true;
        let expected = self.requests.pop_front();
        let wrong = |what: &str| {
            let evidence = format!("{name}: {what}, expected {expected:?}: {head:?} {}", body.escape_ascii());
            Violation::new("a request gets the answer it earns", evidence)
        };
        // Refused for its address before its head was looked at, perhaps.
        let crowded = self.door.counts_as.is_some() && stage.params.limits.connections_per_address_max.is_some();
        let late = matches!(status, 408 | 503) || (status == 429 && crowded);
        match expected {
            Some(Expected::Published(id, Some(judged))) if matches!(status, 401 | 403) => {
                if !Self::may_be_answered(status, id, judged, stage) {
                    return Err(wrong("refused, which it should not have been"));
                }
                stage.coverage.posts_denied += 1;
                stage.model.denied(id)?;
            }
            Some(Expected::Published(id, judged)) if status == 200 => {
                let answer: Value = serde_json::from_slice(body).map_err(|error| wrong(&error.to_string()))?;
                let epoch = answer["epoch"].as_str().and_then(|text| u64::from_str_radix(text, 16).ok());
                let (Some(epoch), Some(offset)) = (epoch, answer["offset"].as_u64()) else {
                    return Err(wrong("no place"));
                };
                let topic = answer["topic"].as_str().unwrap_or_default();
                if !stage.params.topics.iter().any(|known| known == topic) || !head.contains("\r\ndate: ") {
                    return Err(wrong("not as the control plane answers"));
                }
                let before = self.answered.insert(topic.to_owned(), (epoch, offset));
                if before.is_some_and(|before| before.0 == epoch && before.1 >= offset) {
                    return Err(wrong("behind a later one"));
                }
                if judged.is_some_and(|judged| !Self::may_be_answered(status, id, judged, stage)) {
                    return Err(wrong("published, which is not granted"));
                }
                stage.coverage.posts_published += 1;
                stage.model.acknowledged(id, Position { epoch, offset })?;
            }
            Some(Expected::Published(id, _))
                if status == 429 && !late && stage.model.rule(stage.model.topic_of(id)).may_refuse() =>
            {
                stage.coverage.state_refused += 1;
                stage.model.refused_publish(id, "limit", None)?;
            }
            Some(Expected::Published(id, _))
                if status == 423 && stage.model.rule(stage.model.topic_of(id)).exclusive =>
            {
                stage.coverage.leases_kept_out += 1;
                stage.model.refused_publish(id, "not-holder", None)?;
            }
            Some(Expected::Status(due)) if status == due => stage.coverage.posts_refused += u64::from(status >= 400),
            _ if late => stage.coverage.posts_late += 1,
            _ => return Err(wrong("answered")),
        }
        if head.contains("\r\nconnection: close\r\n") || head.starts_with("http/1.1 200 ok\r\ncontent-length: 0") {
            self.phase = Phase::Ending;
            if self.parting == Parting::None {
                self.parting = Parting::Gone;
            }
            self.requests.clear();
            self.wire.discard();
        }
        Ok(())
    }
}
