//! The words of `ringyard.v1`: types of commands, types of messages, error codes. Each list stands here once, and
//! nothing is parsed or written under a name that is not in it. So tests can go through a list and find what lacks its
//! part of the grammar, its examples or its simulation.

/// An enum of names, with the text of each and all of them in order.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All there are, in the order of their numbers: `ALL[i] as usize == i`.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The name as it is sent.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The inverse of [`Self::as_str`].
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
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
    CommandType {
        /// Says hello.
        Connect = "connect",
        /// Begins subscriptions.
        Subscribe = "subscribe",
        /// Ends subscriptions.
        Unsubscribe = "unsubscribe",
        /// Publishes one message.
        Publish = "publish",
        /// Asks for a pong.
        Ping = "ping",
    }
}

names! {
    /// The `type` of a message: what the broker may send.
    MessageType {
        /// A command was carried out.
        Ok = "ok",
        /// The answer to a ping.
        Pong = "pong",
        /// A message of a topic.
        Message = "message",
        /// A command was not carried out.
        Error = "error",
    }
}

names! {
    /// Why a command was not carried out.
    ErrorCode {
        /// The frame is not one JSON value of whole characters.
        BadJson = "bad-json",
        /// It is JSON but no command.
        BadCommand = "bad-command",
        /// A topic or filter breaks a rule of [`crate::topic`].
        BadTopic = "bad-topic",
        /// This client may not do this.
        Forbidden = "forbidden",
        /// The command asks for what this broker does not do.
        Unsupported = "unsupported",
        /// A limit of the broker is reached.
        Limit = "limit",
        /// There is no such subscription to end.
        NotSubscribed = "not-subscribed",
        /// There is such a subscription already.
        AlreadySubscribed = "already-subscribed",
        /// The payload is larger than allowed.
        TooBig = "too-big",
        /// The broker is overloaded; try again.
        Busy = "busy",
    }
}
