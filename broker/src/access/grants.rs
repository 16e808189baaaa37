//! What somebody may do: filters that are granted for subscribing, publishing, answering requests and leases, rights that
//! hold for what is subscribed, and scopes of the operators' API.
//!
//! A requested filter or topic has to lie within one granted filter as a whole ([`covers`]). What nothing grants is denied;
//! there is no rule that takes anything away.
//!
//! [`Permissions`] are what one principal has: grants that many share ([`Permissions::shared`], interned: a connection whose
//! rights come from `[[allow]]` alone pays nothing for them) and, if there are any, its own.
//!
//! Not responsible for whose they are (`rules`, `principal`). Cost of a question: at most one comparison per granted filter.

use std::sync::Arc;

use protocol::topic::covers;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Subscribe to a topic or filter.
    Subscribe,
    /// Publish to a topic.
    Publish,
    /// Answer requests to topics that a filter matches.
    Respond,
    /// Hold the lease of a topic.
    Lease,
}

impl Operation {
    /// All there are: `ALL[i] as usize == i`.
    pub const ALL: [Self; 4] = [Self::Subscribe, Self::Publish, Self::Respond, Self::Lease];

    /// Its name in configuration, tokens and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Respond => "respond",
            Self::Lease => "lease",
        }
    }
}

/// Names of a small set, one bit each.
macro_rules! set {
    ($(#[$doc:meta])* $name:ident of $(#[$item_doc:meta])* $item:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$item_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $item { $($(#[$variant_doc])* $variant,)+ }

        impl $item {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in configuration, tokens and messages.
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

        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
        pub struct $name(u8);

        impl $name {
            /// Whether this one is in it.
            #[must_use]
            pub const fn has(self, item: $item) -> bool {
                self.0 & 1 << item as u8 != 0
            }

            /// What is in either.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl FromIterator<$item> for $name {
            fn from_iter<I: IntoIterator<Item = $item>>(items: I) -> Self {
                Self(items.into_iter().fold(0, |bits, item| bits | 1 << item as u8))
            }
        }
    };
}

set! {
    /// A set of [`Right`]s.
    Rights of
    /// What is allowed in topics that one may subscribe to.
    Right {
        /// See who is present.
        Presence = "presence",
        /// Be seen as present.
        Enter = "enter",
        /// Read what topics remember.
        History = "history",
        /// Send requests.
        Request = "request",
    }
}

set! {
    /// A set of [`Scope`]s.
    Scopes of
    /// What a key may ask of the operators' API.
    Scope {
        /// List topics, and forget their messages.
        Topics = "topics",
        /// List connections of users, close them, revoke tokens.
        Connections = "connections",
        /// Read counters.
        Metrics = "metrics",
        /// Look into one topic, with addresses of its subscribers.
        Inspect = "inspect",
    }
}

/// What a rule, a key or a token grants.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Grants {
    /// Granted filters of each [`Operation`], in its order.
    filters: [Vec<Box<str>>; 4],
    /// In what may be subscribed to.
    pub rights: Rights,
    /// Of the operators' API.
    pub scopes: Scopes,
}

impl Grants {
    /// The granted filters of an operation.
    #[must_use]
    pub fn filters(&self, operation: Operation) -> &[Box<str>] {
        &self.filters[operation as usize]
    }

    /// Grants one more.
    pub fn grant(&mut self, operation: Operation, filter: impl Into<Box<str>>) {
        self.filters[operation as usize].push(filter.into());
    }

    /// Grants what the other does as well.
    pub fn add(&mut self, other: &Self) {
        for (filters, more) in self.filters.iter_mut().zip(&other.filters) {
            for filter in more {
                if !filters.contains(filter) {
                    filters.push(filter.clone());
                }
            }
        }
        (self.rights, self.scopes) = (self.rights.and(other.rights), self.scopes.and(other.scopes));
    }

    /// Whether it grants nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many filters it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filters.iter().map(Vec::len).sum()
    }

    /// What it takes on the heap, in bytes.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.filters.iter().flatten().map(|filter| filter.len() + size_of::<Box<str>>()).sum()
    }

    /// The granted filter that covers this, if there is one.
    #[must_use]
    pub fn covering(&self, operation: Operation, name: &str) -> Option<&str> {
        self.filters(operation).iter().map(AsRef::as_ref).find(|granted| covers(granted, name))
    }
}

/// What one principal may do. See the file's head.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// What it has in common with others.
    pub shared: Arc<Grants>,
    /// What it has besides.
    pub own: Option<Box<Grants>>,
    /// Whether a refusal names the nearest grant.
    pub explains: bool,
}

impl Permissions {
    /// Whether this is granted. Names of topics are filters without wildcards.
    #[must_use]
    pub fn allows(&self, operation: Operation, name: &str) -> bool {
        self.covering(operation, name).is_some()
    }

    /// The granted filter that covers this, if there is one.
    #[must_use]
    pub fn covering(&self, operation: Operation, name: &str) -> Option<&str> {
        self.each().find_map(|grants| grants.covering(operation, name))
    }

    /// Whether this right is granted.
    #[must_use]
    pub fn has(&self, right: Right) -> bool {
        self.each().any(|grants| grants.rights.has(right))
    }

    /// Whether this scope is granted.
    #[must_use]
    pub fn reaches(&self, scope: Scope) -> bool {
        self.each().any(|grants| grants.scopes.has(scope))
    }

    /// Everything that is granted for an operation.
    pub fn filters(&self, operation: Operation) -> impl Iterator<Item = &str> {
        self.each().flat_map(move |grants| grants.filters(operation)).map(AsRef::as_ref)
    }

    /// Why this is not granted, as a reason without a full stop.
    #[must_use]
    pub fn explain(&self, operation: Operation, name: &str) -> String {
        let reason = format!("nothing grants {} {name:?}", operation.as_str());
        if !self.explains {
            return reason;
        }
        match self.nearest(operation, name) {
            Some(nearest) => format!("{reason}; the nearest grant is {nearest:?}"),
            None => format!("{reason}; no filter is granted for that"),
        }
    }

    /// The same of a right.
    #[must_use]
    pub fn explain_right(&self, right: Right, name: &str) -> String {
        format!("nothing grants the right {:?}, which {name:?} needs", right.as_str())
    }

    /// The granted filter that has most levels in common with this, from the first on.
    #[must_use]
    pub fn nearest(&self, operation: Operation, name: &str) -> Option<&str> {
        let common = |granted: &str| {
            let levels = granted.split('/').zip(name.split('/'));
            levels.take_while(|(granted, asked)| granted == asked || matches!(*granted, "+" | "#")).count()
        };
        // Of several the first.
        self.filters(operation)
            .map(|granted| (common(granted), granted))
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map(|(_, granted)| granted)
    }

    fn each(&self) -> impl Iterator<Item = &Grants> {
        [Some(&*self.shared), self.own.as_deref()].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(shared: &[&str], own: &[&str]) -> Permissions {
        let grants = |filters: &[&str]| {
            let mut grants = Grants::default();
            filters.iter().for_each(|filter| grants.grant(Operation::Subscribe, *filter));
            grants
        };
        Permissions { shared: Arc::new(grants(shared)), own: Some(Box::new(grants(own))), explains: true }
    }

    #[test]
    fn what_is_asked_for_lies_within_one_grant() {
        let permissions = permissions(&["chat/+", "a/#"], &["user/7/#"]);
        let allows = |name| permissions.allows(Operation::Subscribe, name);
        for name in ["chat/7", "chat/+", "a", "a/b/c", "a/+/#", "user/7", "user/7/x"] {
            assert!(allows(name), "{name}");
        }
        for name in ["chat", "chat/#", "chat/7/x", "+/7", "#", "user/8", "user/+", "$sys/load", "b"] {
            assert!(!allows(name), "{name}");
        }
        assert!(!permissions.allows(Operation::Publish, "chat/7"), "to read is not to write");
    }

    #[test]
    fn the_nearest_grant_is_named() {
        let permissions = permissions(&["chat/+", "chat/rooms/7"], &["#"]);
        assert_eq!(permissions.nearest(Operation::Subscribe, "chat/rooms/8"), Some("chat/+"));
        let explained = permissions.explain(Operation::Subscribe, "$sys/load");
        assert_eq!(explained, "nothing grants subscribe \"$sys/load\"; the nearest grant is \"#\"");
        let explained = permissions.explain(Operation::Publish, "a");
        assert_eq!(explained, "nothing grants publish \"a\"; no filter is granted for that");
        let silent = Permissions { explains: false, ..permissions };
        assert_eq!(silent.explain(Operation::Publish, "a"), "nothing grants publish \"a\"");
    }

    #[test]
    fn sets_and_unions() {
        let rights: Rights = [Right::History, Right::Enter].into_iter().collect();
        assert!(rights.has(Right::History) && rights.has(Right::Enter) && !rights.has(Right::Presence));
        for right in Right::ALL {
            assert_eq!(Right::named(right.as_str()), Some(*right));
        }
        let mut a = Grants { rights, ..Grants::default() };
        a.grant(Operation::Publish, "a");
        let mut b = Grants { scopes: [Scope::Metrics].into_iter().collect(), ..Grants::default() };
        b.grant(Operation::Publish, "a");
        b.grant(Operation::Publish, "b");
        a.add(&b);
        assert_eq!(a.filters(Operation::Publish).len(), 2);
        assert!(a.rights.has(Right::Enter) && a.scopes.has(Scope::Metrics) && !a.is_empty());
    }
}
