//! `/sub`, `/pub` and `/bus`: at most one subscription, and messages as they are. The connection's first message is sent
//! once the subscription is in force; there are no commands and no answers. A message that its topic has no room for ends the
//! connection (1008), for nothing else could tell its publisher.

use std::sync::Arc;

use bytes::BytesMut;
use protocol::frame::close_code;
use protocol::v1::CommandError;

use crate::capacity::budget::Account;
use crate::ids::{LogSlot, Seq};
use crate::message::Encoding;
use crate::message::options::Refusal;
use crate::observe::counters::Reason;
use crate::session::subscription::{Begun, Released, Subscription};
use crate::session::{Action, Codec, Data, Incoming, Pending, PublishData, SequencerAnswer, SessionKind, Target};
use crate::topics::keys::Keys;
use crate::topics::registry::{Publisher, TopicRef};

/// The key of the one subscription.
const KEY: u32 = 0;

/// See the file's head. Part of the connection's record, and so as small as can be.
#[derive(Default, Debug)]
pub(crate) struct RawSession {
    subscription: Option<Subscription>,
    publisher: Option<Publisher>,
}

impl RawSession {
    /// A session that publishes what it is sent to `topic`.
    pub(crate) fn publishing_to(topic: TopicRef) -> Self {
        Self { subscription: None, publisher: Some(Publisher::new(topic)) }
    }
}

impl SessionKind for RawSession {
    fn as_kind(&self) -> &(dyn SessionKind + 'static) {
        self
    }

    fn as_kind_mut(&mut self) -> &mut (dyn SessionKind + 'static) {
        self
    }

    fn takes_messages(&self) -> bool {
        self.publisher.is_some()
    }

    fn on_message<'a>(&mut self, message: Incoming<'a>, _codec: Codec<'a, '_>) -> Action<'a> {
        let Some(publisher) = &self.publisher else {
            return Action::violation(close_code::POLICY, "this is a subscription: publish at /pub or /bus");
        };
        let data = match message.data {
            Data::Received(bytes) => PublishData::Copy(bytes),
            Data::Gathered(room) => PublishData::InPlace(tight(std::mem::take(room))),
        };
        let to = Target::Known(publisher.topic().clone());
        Action::Publish { to, kind: message.kind.into(), data, options: None, id: None, ack: false }
    }

    /// The only thing that is refused before it is on its way is a publish, for its rate.
    fn on_error(&mut self, _error: &CommandError, _out: &mut BytesMut) -> Action<'static> {
        let why = "publishing faster than --max-publish-rate allows".into();
        Action::Close { code: close_code::POLICY, why, reason: Reason::Rate }
    }

    /// There is no answer that could say which message was refused, so the connection ends.
    fn on_answer(
        &mut self,
        _ticket: u64,
        answer: Result<SequencerAnswer<'_>, Refusal>,
        _account: &Arc<Account>,
        _out: &mut BytesMut,
    ) -> Action<'static> {
        let Err(refusal) = answer else { return Action::Answer };
        Action::Close { code: close_code::POLICY, why: refusal.to_string().into(), reason: Reason::Limit }
    }

    fn publisher(&self) -> Option<&Publisher> {
        self.publisher.as_ref()
    }

    fn add(&mut self, log: LogSlot, _filter: Arc<str>, _keys: Keys) -> u32 {
        self.subscription = Some(Subscription::waiting(log));
        KEY
    }

    fn go_live(&mut self, _key: u32, index: u32, cursor: Seq) {
        if let Some(subscription) = &mut self.subscription {
            subscription.go_live(index, cursor);
        }
    }

    fn begin(&mut self, _key: u32, _begun: Begun, _out: &mut BytesMut) -> Released {
        if let Some(subscription) = &mut self.subscription {
            subscription.held = false;
        }
        Released::One(KEY)
    }

    fn forget_pending(&mut self, _keys: &[u32]) {
        self.take_pending();
    }

    fn remove(&mut self, _key: u32) -> Option<Subscription> {
        self.subscription.take()
    }

    fn subscription(&self, _key: u32) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    fn subscription_mut(&mut self, _key: u32) -> Option<&mut Subscription> {
        self.subscription.as_mut()
    }

    fn keys(&self) -> Vec<u32> {
        self.subscription.iter().map(|_| KEY).collect()
    }

    fn encoding(&self) -> Encoding {
        Encoding::Raw
    }

    fn set_pending(&mut self, _key: u32) {
        if let Some(subscription) = &mut self.subscription {
            subscription.pending = true;
        }
    }

    fn pending(&self) -> &[u32] {
        if self.subscription.is_some_and(|subscription| subscription.pending) { &[KEY] } else { &[] }
    }

    fn take_pending(&mut self) -> Pending {
        let was_pending =
            self.subscription.as_mut().is_some_and(|subscription| std::mem::take(&mut subscription.pending));
        if was_pending { Pending::One(KEY) } else { Pending::None }
    }
}

/// A buffer that is not much longer than what is in it: it lives as long as the message.
pub(super) fn tight(room: BytesMut) -> BytesMut {
    if room.len() < room.capacity() - room.capacity() / 8 { BytesMut::from(&room[..]) } else { room }
}

#[cfg(test)]
mod tests {
    use protocol::frame::{HEADER_MAX, MessageKind};
    use protocol::v1::Parser;

    use super::*;
    use crate::config::limits::Limits;
    use crate::topics::registry::Registry;

    /// What a binary message leads to.
    fn send<'a>(session: &mut RawSession, data: Data<'a>, parser: &'a mut Parser) -> Action<'a> {
        let (limits, mut out) = (Limits::default(), BytesMut::new());
        let action = session.on_message(
            Incoming { kind: MessageKind::Binary, data },
            Codec { parser, limits: &limits, is_identified: true, out: &mut out },
        );
        assert!(out.is_empty(), "there are no answers");
        action
    }

    #[test]
    fn what_a_publisher_sends_goes_to_its_topic() {
        let registry = Registry::new(1, 1);
        let mut session = RawSession::publishing_to(registry.resolve("t"));
        let (mut parser, mut bytes) = (Parser::default(), *b"xy");
        match send(&mut session, Data::Received(&mut bytes), &mut parser) {
            Action::Publish { to: Target::Known(topic), data: PublishData::Copy(b"xy"), ack: false, .. } => {
                assert_eq!(&*topic.name, "t");
            }
            other => panic!("{other:?}"),
        }
        assert!(registry.resolve("t").has_publisher());
        drop(session);
        assert!(registry.is_empty(), "the topic goes with its publisher");
    }

    #[test]
    fn a_gathered_message_keeps_its_buffer_unless_that_is_much_too_long() {
        let registry = Registry::new(1, 1);
        let mut session = RawSession::publishing_to(registry.resolve("t"));
        for (capacity, kept) in [(1000, 1000), (2000, 990)] {
            let mut room = BytesMut::with_capacity(capacity);
            room.resize(HEADER_MAX + 980, b'x');
            match send(&mut session, Data::Gathered(&mut room), &mut Parser::default()) {
                Action::Publish { data: PublishData::InPlace(room), .. } => {
                    assert_eq!((room.len(), room.capacity()), (HEADER_MAX + 980, kept));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_subscriber_that_sends_is_closed() {
        let mut session = RawSession::default();
        assert!(!session.takes_messages());
        let mut parser = Parser::default();
        let action = send(&mut session, Data::Received(&mut []), &mut parser);
        assert!(matches!(action, Action::Close { code: close_code::POLICY, .. }), "{action:?}");
    }

    #[test]
    fn its_subscription_is_pending_once() {
        let mut session = RawSession::default();
        let key = session.add(LogSlot::new(3), "t".into(), Registry::new(1, 1).keys());
        session.go_live(key, 5, Seq(70));
        assert!(session.subscription(key).unwrap().held);
        assert_eq!(session.begin(key, Begun::default(), &mut BytesMut::new()), Released::One(key));
        session.set_pending(key);
        session.set_pending(key);
        assert_eq!(session.pending(), [key]);
        assert!(matches!(session.take_pending(), Pending::One(0)));
        assert!(matches!(session.take_pending(), Pending::None));
        let ended = session.remove(key).unwrap();
        assert_eq!((ended.log, ended.index, ended.cursor, ended.live), (LogSlot::new(3), 5, Seq(70), true));
        assert!(session.keys().is_empty());
    }
}
