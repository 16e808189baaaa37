//! What a connection speaks once it is a WebSocket. No sockets, no shard, no clock: a whole message goes in
//! ([`SessionKind::on_message`]), an [`Action`] comes out; the shard carries it out and says what became of it.
//!
//! | file | what |
//! | --- | --- |
//! | [`raw`] | `/sub`, `/pub`, `/bus`: one subscription, messages as they are |
//! | [`v1`] | `/ws`: `ringyard.v1`, commands and many subscriptions |
//! | [`events`] | `/sub` over HTTP: a stream of server-sent events, of one subscription or some |
//! | `subscriptions`, `index` | the subscriptions of a session that may have many |
//! | `incoming`, `action` | what a session is given, and what it wants done |
//! | [`http`] | `POST /pub/{topic}`: one request of a connection that is no WebSocket |
//! | [`subscription`] | one subscription: its place in a log, and how far it is |
//!
//! A subscription of a session is named by a key. Its life: [`SessionKind::add`], with a log that may not be joined yet;
//! [`SessionKind::go_live`]; [`SessionKind::begin`], with which it is released; delivery rounds move its cursor, and list it as pending when there is more than one send
//! takes; [`SessionKind::remove`].
//!
//! Answers are written to `out`, as what [`SessionKind::put_answer`] frames; nothing written means nothing to say.
//!
//! A new kind of session is a file with a type that implements [`SessionKind`], and a line in the list of [`Session`].

mod action;
pub(crate) mod calls;
pub(crate) mod events;
pub(crate) mod http;
mod incoming;
mod index;
pub(crate) mod raw;
pub(crate) mod subscription;
mod subscriptions;
pub(crate) mod v1;

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::frame::{Opcode, close_code, put_close, put_frame};
use protocol::v1::{CommandError, Connected, Id, LeaseLostReason, Position};

use crate::access::quota::NameShare;
use crate::capacity::budget::Account;
use crate::ids::{LogSlot, Seq};
use crate::message::Encoding;
use crate::message::options::Refusal;
use crate::observe::counters::Reason;
use crate::presence::members::Listed;
use crate::sequencer::history::recall::Page;
pub(crate) use crate::session::action::{Action, PublishData, Target};
use crate::session::events::EventSession;
pub(crate) use crate::session::incoming::{Codec, Data, Incoming};
use crate::session::raw::RawSession;
use crate::session::subscription::{Begun, Released, Subscription};
use crate::session::v1::V1Session;
use crate::topics::keys::Keys;
use crate::topics::registry::{Publisher, TopicRef};

/// A ping without a payload (RFC 6455 5.5.2).
const PING: Bytes = Bytes::from_static(&[0x89, 0]);

/// Makes the type of all sessions from their list.
macro_rules! sessions {
    ($($(#[$doc:meta])* $name:ident($kind:ty),)+) => {
        /// What one connection speaks. Before its handshake: a raw session without a subscription.
        #[derive(Debug)]
        pub(crate) enum Session { $($(#[$doc])* $name($kind),)+ }

        impl Deref for Session {
            type Target = dyn SessionKind;

            fn deref(&self) -> &Self::Target {
                match self { $(Self::$name(session) => session.as_kind(),)+ }
            }
        }

        impl DerefMut for Session {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self { $(Self::$name(session) => session.as_kind_mut(),)+ }
            }
        }
    };
}

sessions! {
    /// `/sub`, `/pub` and `/bus`.
    Raw(RawSession),
    /// `/ws`. On the heap: an idle raw connection is not to pay for its size.
    V1(Box<V1Session>),
    /// `/sub` over HTTP.
    Events(Box<EventSession>),
}

impl Session {
    /// Every subscription.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.keys().into_iter().filter_map(|key| self.subscription(key))
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::Raw(RawSession::default())
    }
}

/// What one kind of session does. `out` takes an answer's text: see the module's head. Methods with a body are for
/// sessions that have commands, or many subscriptions.
pub(crate) trait SessionKind: Debug {
    /// This session, whatever holds it.
    fn as_kind(&self) -> &(dyn SessionKind + 'static);

    /// This session, whatever holds it.
    fn as_kind_mut(&mut self) -> &mut (dyn SessionKind + 'static);

    // ---- input

    /// Whether messages may come at all. Asked before a message in pieces is gathered.
    fn takes_messages(&self) -> bool;

    /// A whole message came.
    fn on_message<'a>(&mut self, message: Incoming<'a>, codec: Codec<'a, '_>) -> Action<'a>;

    /// What an [`Action`] asked for was not done.
    fn on_error(&mut self, error: &CommandError, out: &mut BytesMut) -> Action<'static>;

    /// A command is on its way to a sequencer. Returns the ticket that the answer has to bring; if not `always`, it is
    /// answered only if it fails. What that takes is charged to `account`.
    fn await_answer(&mut self, _id: Option<Id>, _always: bool, _account: &Arc<Account>) -> Option<u64> {
        None
    }

    /// A sequencer carried out the command with this ticket, or refused it; without commands, a message.
    fn on_answer(
        &mut self,
        _ticket: u64,
        _answer: Result<SequencerAnswer<'_>, Refusal>,
        _account: &Arc<Account>,
        _out: &mut BytesMut,
    ) -> Action<'static> {
        Action::Answer
    }

    /// How many answers are still to come from sequencers; `None`: what this session sends is never answered.
    fn answers_to_come(&self) -> Option<usize> {
        None
    }

    /// Appends an answer as the connection sends it: by default as one text frame.
    fn put_answer(&self, answer: &[u8], out: &mut BytesMut) {
        put_frame(out, Opcode::Text, answer);
    }

    /// Appends the last that the connection sends: by default a close frame with this code and reason.
    fn put_end(&self, code: u16, why: &str, out: &mut BytesMut) {
        put_close(out, code, why);
    }

    // ---- access

    /// The client has said who it is, with the command `id`: that is answered.
    fn write_connected(&mut self, _id: Option<Id>, _connected: &Connected<'_>, _out: &mut BytesMut) {}

    /// The broker shuts down and closes the connection: its client is asked to come back after so many milliseconds.
    fn write_goaway(&self, _retry_ms: u64, _out: &mut BytesMut) {}

    /// Its client has the lease of a topic no more.
    fn write_lease_lost(&self, _topic: &str, _number: u64, _reason: LeaseLostReason, _out: &mut BytesMut) {}

    /// Its rights have changed: the topic of the last publish is asked for again.
    fn forget_topic(&mut self) {}

    /// Nothing grants these subscriptions any more. `None`: they cannot end now; ask again later.
    fn end_subscriptions(&mut self, _keys: &[u32]) -> Option<Action<'static>> {
        Some(Action::Close {
            code: close_code::FORBIDDEN,
            why: "nothing grants this any more".into(),
            reason: Reason::Access,
        })
    }

    // ---- publishing

    /// What keeps the topic that it publishes to for its whole life, if there is one.
    fn publisher(&self) -> Option<&Publisher> {
        None
    }

    /// Keeps the topic of its last publish, so that the next one need not ask the registry.
    fn remember_topic(&mut self, _topic: TopicRef) {}

    /// How many new topics its client may begin, if that is limited per connection.
    fn name_share(&mut self) -> Option<&mut NameShare> {
        None
    }

    // ---- subscriptions

    /// Adds a subscription that waits for the join of its log, with a filter that it does not have. Returns its key.
    fn add(&mut self, log: LogSlot, filter: Arc<str>, keys: Keys) -> u32;

    /// All subscriptions of a command are added: it is answered once they are in force.
    fn begin_subscribe(&mut self, _id: Option<Id>, _keys: Vec<u32>) {}

    /// A subscription is in force: it has this index in its log, and gets what follows `cursor` once it is released.
    fn go_live(&mut self, key: u32, index: u32, cursor: Seq);

    /// What a subscription begins with is known. If its command waits for no other, that is answered, and its subscriptions
    /// are released.
    fn begin(&mut self, key: u32, begun: Begun, out: &mut BytesMut) -> Released;

    /// What it is sent to find out whether its client is there: any answer will do.
    fn ping(&self) -> Bytes {
        PING
    }

    /// Whether it can be sent something about a topic that is no message: its wire has an envelope.
    fn takes_notices(&self) -> bool {
        false
    }

    /// Whether newcomers are shown a topic's state unless they say otherwise.
    fn wants_state(&self) -> bool {
        false
    }

    /// Whether an [`Action::Unsubscribe`] was not carried out yet.
    fn is_unsubscribing(&self) -> bool {
        false
    }

    /// The unsubscribe is carried out now. Writes the answer, if a command asked for it.
    fn finish_unsubscribe(&mut self, _out: &mut BytesMut) -> Ended {
        Ended::default()
    }

    /// These subscriptions are pending no more: they are sent to now, or removed one by one after this. Linear in them.
    fn forget_pending(&mut self, keys: &[u32]);

    /// Removes a subscription.
    fn remove(&mut self, key: u32) -> Option<Subscription>;

    /// One subscription.
    fn subscription(&self, key: u32) -> Option<&Subscription>;

    /// The same, to be changed.
    fn subscription_mut(&mut self, key: u32) -> Option<&mut Subscription>;

    /// Keys of all subscriptions.
    fn keys(&self) -> Vec<u32>;

    // ---- output

    /// What its subscriptions are sent of a message.
    fn encoding(&self) -> Encoding;

    /// Whether its subscriptions share one send, which is made at the end of a delivery round.
    fn shares_sends(&self) -> bool {
        false
    }

    /// A subscription has something to be sent as soon as the connection is free.
    fn set_pending(&mut self, key: u32);

    /// The subscriptions that have, each once.
    fn pending(&self) -> &[u32];

    /// The same, of which none is pending any more.
    fn take_pending(&mut self) -> Pending;

    /// Of the subscriptions in force that match `topic`, the one that is for longest. Asked only for [`Pending::Many`].
    fn sender_of(&self, _topic: &str) -> Option<u32> {
        None
    }

    // ---- memory

    /// What one more subscription takes at most, in bytes.
    fn bytes_for(&self, _filter: &str) -> u64 {
        0
    }

    /// Charges what it has on the heap now. To be called after its subscriptions changed. Linear in what it keeps to find
    /// them.
    fn charge(&mut self, _account: &Arc<Account>) {}
}

/// What a sequencer says that carried out a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SequencerAnswer<'a> {
    /// A message was published, or had been before: where it was put, and how many subscriptions match its topic.
    Published { position: Position, subscribers: u32, duplicate: bool },
    /// It is done; there is nothing to say about it.
    Done,
    /// A client connected.
    Connected(Connected<'a>),
    /// Who is present at a topic: how many in all, some of those that are listed, and whether there are more.
    Members { count: u64, members: &'a [Listed], more: bool },
    /// The client has a lease.
    Leased { number: u64, ttl_ms: u64 },
    /// Another client has the lease.
    Held { by: &'a str, ttl_ms: u64 },
    /// What a topic remembers. The position is that of its newest message.
    History { position: Position, page: &'a Page },
}

/// Subscriptions that end.
#[derive(Default, Debug)]
pub(crate) struct Ended {
    /// Their keys, each once: they are to be removed.
    pub(crate) keys: Vec<u32>,
    /// Their filters, if the client did not ask for it: it is notified of each.
    pub(crate) forbidden: Vec<String>,
}

/// Subscriptions that had something to be sent.
#[derive(Debug)]
pub(crate) enum Pending {
    /// None.
    None,
    /// One, which sends every message of its log.
    One(u32),
    /// Some, of which each sends the messages that [`SessionKind::sender_of`] says, if two of the session's may match
    /// the same topic (`overlapping`), else every message of its log.
    Many { keys: Vec<u32>, overlapping: bool },
}
