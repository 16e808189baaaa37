//! A stream of server-sent events: `/sub` over HTTP, with one subscription or some. Its client sends nothing.
//!
//! The first event is `position`, once every subscription is in force: where the stream begins, and whether anything is missing before.
//! If state follows, its id is that of an empty topic, so that who is cut off before the end of the state gets all of it again; the event
//! `state-end` has the place that the state stands for. Messages of a single topic have ids, so a browser that comes back says what it
//! has; those of several topics or of a filter have none.
//!
//! An idle stream takes this record on the heap.

use std::fmt::Write;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::frame::{CloseCode, close_code};
use protocol::v1::{CommandError, Position};

use crate::capacity::budget::{Account, Charge, Held};
use crate::ids::{LogSlot, Seq};
use crate::message::Encoding;
use crate::message::encoding::events::EventForm;
use crate::session::subscription::{Begun, Released, Subscription};
use crate::session::subscriptions::Subscriptions;
use crate::session::{Action, Codec, Incoming, Pending, SessionKind};
use crate::topics::keys::Keys;
use crate::topics::rules::{HistoryKind, SlowConsumer};

/// The key of a single subscription.
const KEY: u32 = 0;

/// What is sent while there is nothing else: a comment, which clients pass over.
const COMMENT: Bytes = Bytes::from_static(b"3\r\n:\n\n\r\n");
/// The same without a chunk.
const COMMENT_PLAIN: Bytes = Bytes::from_static(b":\n\n");

/// Codes of ends that have to do with who the client is.
const ACCESS_CODES: std::ops::RangeInclusive<u16> = 4400..=4499;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct EventSession {
    form: EventForm,
    /// How long its client is to wait before it comes back.
    retry_ms: u16,
    /// Its client named a place that there is not: whatever it is sent, something may be missing.
    lost_place: bool,
    subs: Subs,
}

#[derive(Debug)]
enum Subs {
    One(Option<Subscription>),
    Some(Box<Several>),
}

/// Several subscriptions.
#[derive(Debug)]
struct Several {
    subscriptions: Subscriptions,
    /// Of how many it is not known yet with what they begin.
    joining: usize,
    charge: Option<Charge>,
}

impl EventSession {
    /// A stream of so many subscriptions. `lost_place`: its client named a place that there is not.
    pub(crate) fn new(form: EventForm, topics: usize, lost_place: bool, retry_ms: u16) -> Self {
        let subs = match topics {
            1 => Subs::One(None),
            _ => {
                Subs::Some(Box::new(Several { subscriptions: Subscriptions::default(), joining: topics, charge: None }))
            }
        };
        Self { form, retry_ms, lost_place, subs }
    }

    /// Writes the first event.
    fn put_position(&self, begun: &Begun, out: &mut BytesMut) {
        let mut data = String::from("{");
        let recovered = if self.lost_place { Some(false) } else { begun.recovered };
        let mut id = None;
        if let Some(Position { epoch, offset }) = begun.position.filter(|_| self.form.has_ids) {
            let _ = write!(data, "\"epoch\":\"{epoch:016x}\",\"offset\":{},", offset - 1);
            let restarts = begun.shows_state && begun.recovered != Some(true);
            id = Some(Position { epoch, offset: if restarts { 0 } else { offset - 1 } });
        }
        if let Some(recovered) = recovered {
            let _ = write!(data, "\"recovered\":{recovered},");
        }
        if let Some((from, to)) = begun.available {
            let _ = write!(data, "\"available\":{{\"from\":{from},\"to\":{to}}},");
        }
        let skips = match begun.slow_consumer {
            SlowConsumer::Disconnect => "",
            SlowConsumer::Skip => "\"slow_consumer\":\"skip\",",
            SlowConsumer::Latest => "\"slow_consumer\":\"latest\",",
        };
        data.push_str(if self.form.has_ids { skips } else { "" });
        if self.form.has_envelope {
            data.push_str("\"envelope\":true,");
            if let Some(history) = begun.history.and_then(HistoryKind::name).filter(|_| self.form.has_ids) {
                let _ = write!(data, "\"history\":\"{history}\",");
            }
        }
        let _ = write!(data, "\"ids\":{}}}", self.form.has_ids);
        // In one event: some clients take a `retry` by itself for one.
        let retry = format!("retry: {}\n", self.retry_ms);
        self.form.put_chunk(out, retry.len() + data.len() + 96, |out| {
            out.extend_from_slice(retry.as_bytes());
            self.form.write_event(out, Some("position"), id, data.as_bytes());
        });
    }
}

impl SessionKind for EventSession {
    fn as_kind(&self) -> &(dyn SessionKind + 'static) {
        self
    }

    fn as_kind_mut(&mut self) -> &mut (dyn SessionKind + 'static) {
        self
    }

    fn takes_messages(&self) -> bool {
        false
    }

    fn on_message<'a>(&mut self, _message: Incoming<'a>, _codec: Codec<'a, '_>) -> Action<'a> {
        Action::Answer
    }

    fn on_error(&mut self, _error: &CommandError, _out: &mut BytesMut) -> Action<'static> {
        Action::Answer
    }

    fn put_answer(&self, answer: &[u8], out: &mut BytesMut) {
        out.extend_from_slice(answer);
    }

    fn put_end(&self, code: u16, why: &str, out: &mut BytesMut) {
        if ACCESS_CODES.contains(&code) {
            let data = serde_json::json!({ "code": code, "reason": why }).to_string();
            self.form.put_event(out, Some("expired"), None, data.as_bytes());
        } else if CloseCode(code) != close_code::GOING_AWAY {
            // For whoever looks at the stream: a browser just comes back.
            let why = why.replace(['\r', '\n'], " ");
            self.form.put_chunk(out, why.len() + 4, |out| out.extend_from_slice(format!(": {why}\n\n").as_bytes()));
        }
        self.form.put_last(out);
    }

    fn ping(&self) -> Bytes {
        if self.form.is_chunked { COMMENT } else { COMMENT_PLAIN }
    }

    fn takes_notices(&self) -> bool {
        true
    }

    fn add(&mut self, log: LogSlot, filter: Arc<str>, keys: Keys) -> u32 {
        match &mut self.subs {
            Subs::One(subscription) => {
                *subscription = Some(Subscription::waiting(log));
                KEY
            }
            Subs::Some(several) => several.subscriptions.add(log, filter, keys),
        }
    }

    fn go_live(&mut self, key: u32, index: u32, cursor: Seq) {
        match &mut self.subs {
            Subs::One(subscription) => {
                if let Some(subscription) = subscription {
                    subscription.go_live(index, cursor);
                }
            }
            Subs::Some(several) => several.subscriptions.go_live(key, index, cursor),
        }
    }

    fn begin(&mut self, _key: u32, begun: Begun, out: &mut BytesMut) -> Released {
        let keys = match &mut self.subs {
            Subs::One(subscription) => {
                if let Some(subscription) = subscription {
                    subscription.held = false;
                }
                None
            }
            Subs::Some(several) => {
                several.joining = several.joining.saturating_sub(1);
                if several.joining > 0 {
                    return Released::None;
                }
                let keys = several.subscriptions.keys();
                for &key in &keys {
                    several.subscriptions.sub_mut(key).subscription.held = false;
                }
                Some(keys)
            }
        };
        self.put_position(&begun, out);
        keys.map_or(Released::One(KEY), Released::Many)
    }

    fn forget_pending(&mut self, keys: &[u32]) {
        match &mut self.subs {
            Subs::One(_) => drop(self.take_pending()),
            Subs::Some(several) => several.subscriptions.forget_pending(keys),
        }
    }

    fn remove(&mut self, key: u32) -> Option<Subscription> {
        match &mut self.subs {
            Subs::One(subscription) => subscription.take(),
            Subs::Some(several) => several.subscriptions.remove(key).map(|sub| sub.subscription),
        }
    }

    fn subscription(&self, key: u32) -> Option<&Subscription> {
        match &self.subs {
            Subs::One(subscription) => subscription.as_ref(),
            Subs::Some(several) => several.subscriptions.get(key).map(|sub| &sub.subscription),
        }
    }

    fn subscription_mut(&mut self, key: u32) -> Option<&mut Subscription> {
        match &mut self.subs {
            Subs::One(subscription) => subscription.as_mut(),
            Subs::Some(several) => several.subscriptions.get_mut(key).map(|sub| &mut sub.subscription),
        }
    }

    fn keys(&self) -> Vec<u32> {
        match &self.subs {
            Subs::One(subscription) => subscription.iter().map(|_| KEY).collect(),
            Subs::Some(several) => several.subscriptions.keys(),
        }
    }

    fn encoding(&self) -> Encoding {
        Encoding::Events(self.form)
    }

    fn shares_sends(&self) -> bool {
        matches!(self.subs, Subs::Some(_))
    }

    fn set_pending(&mut self, key: u32) {
        match &mut self.subs {
            Subs::One(subscription) => {
                if let Some(subscription) = subscription {
                    subscription.pending = true;
                }
            }
            Subs::Some(several) => several.subscriptions.set_pending(key),
        }
    }

    fn pending(&self) -> &[u32] {
        match &self.subs {
            Subs::One(Some(Subscription { pending: true, .. })) => &[KEY],
            Subs::One(_) => &[],
            Subs::Some(several) => several.subscriptions.pending(),
        }
    }

    fn take_pending(&mut self) -> Pending {
        match &mut self.subs {
            Subs::One(subscription) => {
                let was = subscription.as_mut().is_some_and(|subscription| std::mem::take(&mut subscription.pending));
                if was { Pending::One(KEY) } else { Pending::None }
            }
            Subs::Some(several) => {
                let overlapping = several.subscriptions.overlapping();
                match several.subscriptions.take_pending() {
                    keys if keys.is_empty() => Pending::None,
                    keys => Pending::Many { keys, overlapping },
                }
            }
        }
    }

    fn sender_of(&self, topic: &str) -> Option<u32> {
        match &self.subs {
            Subs::One(_) => Some(KEY),
            Subs::Some(several) => several.subscriptions.sender_of(topic),
        }
    }

    fn charge(&mut self, account: &Arc<Account>) {
        let Subs::Some(several) = &mut self.subs else { return };
        let bytes = several.subscriptions.heap_bytes() + size_of::<Several>() as u64;
        match &mut several.charge {
            Some(charge) => charge.resize(bytes),
            None => several.charge = Some(Charge::new(account, Held::Subscriptions, bytes)),
        }
    }
}

#[cfg(test)]
mod tests;
