//! Requests: a client asks, serves topics, answers in its own time or not at all, twice, late, or what nobody asked.

use protocol::v1::CommandType;
use serde_json::{Value, json};

use super::{Client, Command, Stage};
use crate::model::{CallId, Violation};
use crate::params;

/// Filters that one client serves at most.
const SERVED_MAX: usize = 4;

/// A command about requests that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Request(CallId),
    /// A filter, and the model's mark.
    Respond(String, u64),
    End(String, u64),
    /// To a request that waits, as far as the client knows.
    Reply(CallId),
}

impl Call {
    pub(super) fn command_type(&self) -> CommandType {
        match self {
            Self::Request(_) => CommandType::Request,
            Self::Respond(..) | Self::End(..) => CommandType::Respond,
            Self::Reply(_) => CommandType::Reply,
        }
    }
}

/// What a client serves, and has to answer.
#[derive(Default, Debug)]
pub(super) struct Serving {
    filters: Vec<String>,
    waiting: Vec<(u64, CallId)>,
    answered: Vec<u64>,
    /// Replies of which only a failure is answered.
    without_id: usize,
}

impl Client {
    /// Does something about requests.
    pub(super) fn call(&mut self, stage: &mut Stage<'_>) {
        match stage.rng.below(10) {
            0..=3 => self.request(stage),
            4 | 5 if self.serving.filters.len() < SERVED_MAX => {
                let filter = params::filter(&stage.params.topics, stage.rng);
                let since = stage.model.calls.serving(self.index, &filter);
                let id = self.remember(Command::Call(Call::Respond(filter.clone(), since)));
                if !self.serving.filters.contains(&filter) {
                    self.serving.filters.push(filter.clone());
                }
                stage.trace.say(|| format!("{} responds to {filter}, {id}", self.name()));
                self.say(&json!({"type": "respond", "id": id, "topic": filter}), None, stage);
            }
            6 if !self.serving.filters.is_empty() && stage.rng.one_in(3) => {
                let at = stage.rng.below(self.serving.filters.len());
                let filter = self.serving.filters.swap_remove(at);
                let since = stage.model.calls.ending(self.index, &filter);
                let id = self.remember(Command::Call(Call::End(filter.clone(), since)));
                stage.trace.say(|| format!("{} ends to respond to {filter}, {id}", self.name()));
                self.say(&json!({"type": "respond", "id": id, "topic": filter, "end": true}), None, stage);
            }
            7 if stage.rng.one_in(3) => {
                let unknown = 1 << 40;
                let number = self.serving.answered.last().copied().filter(|_| stage.rng.one_in(2)).unwrap_or(unknown);
                let id = self.remember(Command::Bad("not-found"));
                self.say(&json!({"type": "reply", "id": id, "reply": number, "data": "twice"}), None, stage);
            }
            _ if !self.serving.waiting.is_empty() => {
                let at = stage.rng.below(self.serving.waiting.len());
                self.reply(at, stage);
            }
            _ => {}
        }
    }

    fn request(&mut self, stage: &mut Stage<'_>) {
        let topic =
            if stage.rng.one_in(10) { "nobody/is/here".to_owned() } else { stage.rng.pick(&stage.params.topics) };
        let timeout_ms = stage.rng.pick(&[10, 100, 1000, params::REQUEST_MS_MAX]);
        let to = stage.rng.one_in(12);
        let call = stage.model.calls.asking(&topic, timeout_ms, to, stage.world.now());
        let id = self.remember(Command::Call(Call::Request(call)));
        let mut text = json!({"type": "request", "id": id, "topic": topic, "data": {"call": call}});
        if timeout_ms != 5000 || stage.rng.one_in(2) {
            text["timeout"] = timeout_ms.into();
        }
        if to {
            text["to"] = "nobody".into();
        }
        stage.trace.say(|| format!("{} asks {text}", self.name()));
        self.say(&text, None, stage);
    }

    fn reply(&mut self, at: usize, stage: &mut Stage<'_>) {
        let (number, call) = self.serving.waiting.swap_remove(at);
        self.serving.answered.push(number);
        let is_error = stage.rng.one_in(5);
        stage.model.calls.replying(self.index, call, is_error, stage.world.now());
        let mut text = json!({"type": "reply", "reply": number});
        match is_error {
            true => text["error"] = json!({"code": "no", "reason": format!("{call} by {}", self.index)}),
            false => text["data"] = json!({"call": call, "by": self.index}),
        }
        if stage.rng.one_in(2) {
            self.serving.without_id += 1;
        } else {
            text["id"] = self.remember(Command::Call(Call::Reply(call))).into();
        }
        stage.trace.say(|| format!("{} answers {text}", self.name()));
        self.say(&text, None, stage);
    }

    /// Answers all that it was asked.
    pub(super) fn reply_to_all(&mut self, stage: &mut Stage<'_>) {
        while self.is_well() && !self.serving.waiting.is_empty() {
            self.reply(0, stage);
        }
    }

    /// Whether a reply without an id may have failed that was not heard to have.
    pub(super) fn replied_without_id(&mut self) -> bool {
        let left = self.serving.without_id.checked_sub(1);
        self.serving.without_id = left.unwrap_or(0);
        left.is_some()
    }

    /// A request came.
    pub(super) fn hear_request(&mut self, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        stage.trace.say(|| format!("{} is asked {value}", self.name()));
        let wrong = || Violation::new("a request comes as it was sent", format!("{}: {value}", self.name()));
        let call = value["data"]["call"].as_u64().ok_or_else(wrong)? as CallId;
        let number = value["reply"].as_u64().ok_or_else(wrong)?;
        let timeout_ms = value["timeout"].as_u64().ok_or_else(wrong)?;
        let topic = value["topic"].as_str().ok_or_else(wrong)?;
        stage.model.calls.given((self.index, number), call, topic, timeout_ms, stage.world.now())?;
        self.serving.waiting.push((number, call));
        Ok(())
    }

    /// A command about requests was answered.
    pub(super) fn hear_call(&mut self, call: &Call, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let code = value["code"].as_str().unwrap_or("ok");
        let wrong = || Violation::new("a request gets an answer", format!("{}: {value} to {call:?}", self.name()));
        let (calls, coverage) = (&mut stage.model.calls, &mut *stage.coverage);
        let now = stage.world.now();
        match (call, code) {
            (Call::Respond(filter, since), "ok") => calls.served(self.index, filter, *since),
            (Call::Respond(filter, _), "limit") => {
                calls.ending(self.index, filter);
                self.serving.filters.retain(|served| served != filter);
            }
            (Call::End(filter, since), "ok") => calls.ended(self.index, filter, *since),
            // It was ended before, or refused.
            (Call::End(..), "not-found") => {}
            (Call::Reply(call), "ok") => {
                coverage.calls_replied += 1;
                calls.reply_taken(self.index, *call)?;
            }
            (Call::Reply(_), "not-found") => coverage.calls_not_found += 1,
            (Call::Request(call), _) => {
                let by = match code {
                    "ok" => value["data"]["by"].as_u64(),
                    "responder-error" => {
                        value["error"]["reason"].as_str().and_then(|reason| reason.rsplit(' ').next()?.parse().ok())
                    }
                    _ => None,
                };
                let count = match code {
                    "ok" => &mut coverage.calls_answered,
                    "responder-error" => &mut coverage.calls_errors,
                    "no-responder" => &mut coverage.calls_no_responder,
                    "busy" => &mut coverage.calls_busy,
                    "responder-lost" => &mut coverage.calls_lost,
                    "timeout" => &mut coverage.calls_timeout,
                    _ => return Err(wrong()),
                };
                *count += 1;
                let is_of_it = match code {
                    "ok" => value["data"]["call"] == *call,
                    "responder-error" => {
                        value["error"]["reason"].as_str().is_some_and(|reason| reason.starts_with(&format!("{call} ")))
                    }
                    _ => true,
                };
                if !is_of_it {
                    return Err(wrong());
                }
                calls.answered(*call, code, by.map(|by| by as usize), now)?;
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }
}
