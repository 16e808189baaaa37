//! The words of `ringyard.v1`: types of commands and their members, types of messages, error codes, reasons. Each list
//! stands here once, and nothing is parsed or written under a name that is not in it. So tests can go through a list and find what lacks its
//! part of the grammar, its examples or its simulation.

/// An enum of names, with the text of each and all of them in order.
macro_rules! names {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        $vis enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All there are, in the order of their numbers: `ALL[i] as usize == i`.
            $vis const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The name as it is sent.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The inverse of [`Self::as_str`].
            #[must_use]
            $vis fn named(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

names! {
    /// The `type` of a command: what a client may send.
    pub enum CommandType {
        /// Says hello.
        Connect = "connect",
        /// Ends the connection on purpose.
        Disconnect = "disconnect",
        /// Begins subscriptions.
        Subscribe = "subscribe",
        /// Ends subscriptions.
        Unsubscribe = "unsubscribe",
        /// Publishes one message.
        Publish = "publish",
        /// Reads what a topic remembers.
        History = "history",
        /// Says what stands for all messages up to one.
        Snapshot = "snapshot",
        /// Asks whoever serves a topic.
        Request = "request",
        /// Serves topics: requests for them come to this connection.
        Respond = "respond",
        /// Answers a request.
        Reply = "reply",
        /// Is present at a topic.
        Enter = "enter",
        /// Says something else of itself there.
        Update = "update",
        /// Is present there no more.
        Leave = "leave",
        /// Asks who is present.
        Members = "members",
        /// Takes, renews or gives back the lease of a topic.
        Lease = "lease",
        /// Sets what is published when the connection ends without `disconnect`.
        Will = "will",
        /// Asks for a pong.
        Ping = "ping",
        /// Answers a ping of the broker.
        Pong = "pong",
    }
}

names! {
    /// The `type` of a message: what the broker may send.
    pub enum MessageType {
        /// A command was carried out.
        Ok = "ok",
        /// The answer to a ping.
        Pong = "pong",
        /// Asks a client that wanted it for a pong.
        Ping = "ping",
        /// A message of a topic.
        Message = "message",
        /// A request for a topic that the client serves.
        Request = "request",
        /// All of a subscription's state has been sent.
        StateEnd = "state-end",
        /// Some messages of a topic will not come.
        Gap = "gap",
        /// A topic's epoch ended while it was subscribed to.
        Reset = "reset",
        /// The client's token ends soon: send another.
        Refresh = "refresh",
        /// The broker ended a subscription.
        Ended = "ended",
        /// The client has a lease no more.
        LeaseLost = "lease-lost",
        /// The broker shuts down, and closes the connection.
        Goaway = "goaway",
        /// A command was not carried out.
        Error = "error",
    }
}

names! {
    /// Why a command was not carried out.
    pub enum ErrorCode {
        /// The frame is not one JSON value of whole characters.
        BadJson = "bad-json",
        /// It is JSON but no command.
        BadCommand = "bad-command",
        /// A topic or filter breaks a rule of [`crate::topic`].
        BadTopic = "bad-topic",
        /// The client has to say first who it is.
        Unauthorized = "unauthorized",
        /// The token or key is not a good one.
        BadToken = "bad-token",
        /// This client may not do this.
        Forbidden = "forbidden",
        /// The command asks for what this broker does not do.
        Unsupported = "unsupported",
        /// What the command expects of the topic does not hold.
        Conflict = "conflict",
        /// Another client has the lease.
        Held = "held",
        /// The topic is published to with its lease only, and this is not the current one.
        NotHolder = "not-holder",
        /// A limit of the broker is reached.
        Limit = "limit",
        /// What the command is about is not there.
        NotFound = "not-found",
        /// There is no such subscription to end.
        NotSubscribed = "not-subscribed",
        /// There is such a subscription already.
        AlreadySubscribed = "already-subscribed",
        /// The payload is larger than allowed.
        TooBig = "too-big",
        /// The broker is overloaded; try again.
        Busy = "busy",
        /// Nobody serves the topic of a request.
        NoResponder = "no-responder",
        /// Who had the request is gone, and did not answer it.
        ResponderLost = "responder-lost",
        /// No answer came in time.
        Timeout = "timeout",
        /// Who had the request answered with an error.
        ResponderError = "responder-error",
    }
}

names! {
    /// Why some messages of a topic will not come.
    pub enum GapReason {
        /// They were given up when memory for history was short, or to make room for newer ones.
        Evicted = "evicted",
        /// They were older than the topic remembers messages.
        Expired = "expired",
        /// The subscriber was too far behind, and goes on with newer ones.
        SlowConsumer = "slow-consumer",
    }
}

names! {
    /// Why an epoch ended.
    pub enum ResetReason {
        /// An operator deleted the topic's messages.
        Purged = "purged",
    }
}

names! {
    /// Why a client has a lease no more.
    pub enum LeaseLostReason {
        /// It was not renewed in time.
        Expired = "expired",
        /// The session, and the lease with it, goes on over another connection.
        Taken = "taken",
        /// The client may not hold it any more.
        Closed = "closed",
    }
}

names! {
    /// The members that commands have.
    pub(super) enum Member {
        Type = "type",
        Id = "id",
        Topic = "topic",
        Topics = "topics",
        Since = "since",
        Last = "last",
        State = "state",
        Throttle = "throttle",
        Data = "data",
        Encoding = "encoding",
        Ack = "ack",
        Key = "key",
        Retain = "retain",
        Removed = "removed",
        Ttl = "ttl",
        IdempotencyKey = "idempotency_key",
        IfOffset = "if_offset",
        Before = "before",
        Limit = "limit",
        Reverse = "reverse",
        UpTo = "up_to",
        Token = "token",
        Ping = "ping",
        Timeout = "timeout",
        To = "to",
        End = "end",
        Reply = "reply",
        Error = "error",
        Session = "session",
        Info = "info",
        Lease = "lease",
        Wait = "wait",
        Will = "will",
        Delay = "delay",
    }
}
