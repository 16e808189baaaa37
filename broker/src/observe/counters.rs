//! What a shard counts, readable from any thread while it runs.
//!
//! One writer (the shard), many readers. The control plane has a set of its own for what it refuses.
//!
//! Invariant: every connection of a shard ends for one [`Reason`], counted when that is decided; so once no connection
//! is closing, the reasons' sum is `closed`. Every refusal has one [`Refused`].
//!
//! Distributions ([`Stats::delivery`], [`Stats::batch`]) are in `histogram`.

use serde::Serialize;

pub use crate::observe::counter::Counter;
pub use crate::observe::histogram::{Distribution, Histogram, Scale};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One shard's counters. Gauges say so; all others only grow.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Counter,)+
            /// From a message's sequencing at its topic's sequencer to its completed send, in nanoseconds: one send of each
            /// turn is looked at, and counts as often as the turn had sends.
            pub delivery: Histogram<{ Scale::TIME.buckets() }>,
            /// Messages in those sends.
            pub batch: Histogram<{ Scale::COUNT.buckets() }>,
            /// How long turns took that had something to do, in nanoseconds.
            pub turn: Histogram<{ Scale::TIME.buckets() }>,
            /// The longest of them.
            pub turn_max: Counter,
        }

        /// A copy of [`Stats`] at one moment, as `/api/stats` shows it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Snapshot { $($(#[$doc])* pub $name: u64,)+ }

        impl Stats {
            /// The values now; each by itself, not one cut through all.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)+ }
            }
        }

        impl std::ops::AddAssign for Snapshot {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)+ }
        }
    };
}

stats! {
    /// Gauge: open connections, handshakes included.
    connections,
    /// Gauge: subscriptions.
    subscriptions,
    /// Gauge: streams of events (`/sub` over HTTP).
    event_streams,
    /// Gauge: topics and filters with subscribers on this shard.
    logs,
    /// Gauge: topics whose sequencer this shard is.
    topics,
    /// Gauge: leases of topics whose sequencer this shard is.
    leases,
    /// Gauge: bytes of messages kept for subscribers that have not got them.
    log_bytes,
    /// Gauge: requests that wait for their answer, of this shard's connections and of HTTP.
    requests_waiting,
    /// Gauge: filters that this shard's connections respond to.
    responders,
    /// Connections accepted.
    accepted,
    /// WebSocket handshakes answered with 101, and streams of events that began.
    upgraded,
    /// Connections handed to the control plane.
    handed_over,
    /// Connections that the control plane gave to this shard.
    adopted,
    /// Connections whose request head was refused, for whatever reason (400, 403, 404, 426, 431, 503, ...).
    refused,
    /// HTTP requests that were refused on connections that went on. What follows counts both.
    requests_refused,
    /// Of those: addressed to a host that is not the broker's (421).
    refused_host,
    /// Of those: from a web page of a foreign origin (403).
    refused_origin,
    /// Of those: to publish, without the right to (401, 403).
    refused_publish,
    /// Of those: access control did not let them (401, 403).
    refused_access,
    /// Of those: there were as many connections as the broker takes (503).
    refused_connections,
    /// Of those: there were as many connections of that address as the broker takes (429).
    refused_address,
    /// Of those: more came in a second than the broker takes (503).
    refused_accept_rate,
    /// Of those: the broker is on its way out (503).
    refused_draining,
    /// Of those: there were as many topics as the broker keeps (503).
    refused_topics,
    /// Of those: memory was short (503).
    refused_memory,
    /// Of those: there was too much to do for the control plane or a topic's sequencer (503).
    refused_overload,
    /// Of those: the request itself was wrong (400, 403, 404, 405, 426, 431).
    refused_request,
    /// Connections closed, for whatever reason.
    closed,
    /// Messages published by this shard's connections or sequenced for HTTP.
    messages_in,
    /// Payload bytes of those.
    bytes_in,
    /// Messages sequenced by this shard as sequencer.
    sequenced,
    /// Messages sent to subscribers, each counted once per subscriber.
    messages_out,
    /// Sends completed.
    sends,
    /// Bytes those sends carried.
    bytes_out,
    /// Sends the kernel took only in part.
    sends_short,
    /// Messages that reached this shard for a topic nobody here subscribes to any more.
    unsubscribed_messages,
    /// Connections dropped: no complete request head in time.
    dropped_handshake_timeout,
    /// Connections dropped: silent after a ping.
    dropped_ping_timeout,
    /// Messages that subscribers were not sent because newer ones of their keys superseded them (`latest`).
    messages_conflated,
    /// Sends that a throttle saved: messages that went along with another one.
    sends_saved,
    /// Subscribers dropped: too far behind (slow-consumer policy), 1013.
    dropped_slow,
    /// Times that a subscriber was too far behind and went on with newer messages.
    skips,
    /// Connections dropped: they held much of the memory when that was short, and took nothing, 1013.
    dropped_memory,
    /// Connections dropped: a message was not complete in time, 1008.
    dropped_message_timeout,
    /// Windows of topics' histories that were emptied because there was no room.
    windows_evicted,
    /// Topics whose messages an operator had forgotten.
    purged,
    /// Leases granted, renewals not counted.
    leases_granted,
    /// Leases that ended because they were not renewed, or because nothing grants them any more.
    leases_lost,
    /// Last wills published.
    wills_published,
    /// Last wills not published: nothing granted it any more, or the topic did not take it.
    wills_refused,
    /// Subscriptions that came with a position and were given everything after it.
    recovered,
    /// Subscriptions that came with a position of which not everything after it was there any more.
    unrecovered,
    /// Subscribers that publishers no longer wait for, because they took too little for too long.
    given_up,
    /// Connections dropped: a protocol violation (1002, 1003, 1007, 1009, 1008).
    dropped_violation,
    /// Connections dropped: a trusted proxy sent no PROXY header, or a broken one.
    dropped_proxy_header,
    /// Connections dropped: published faster than allowed (1008).
    dropped_rate,
    /// Connections dropped: published to a topic that had no room for the message (1008).
    dropped_limit,
    /// Connections closed: their token ended, and no other came in time (4401).
    closed_expired,
    /// Connections closed by access control: no token or a bad one, rights that ended, or an operator (4400, 4403, 4408).
    closed_access,
    /// Connections closed: their session goes on over another one (4409).
    closed_session_taken,
    /// Connections dropped: TLS could not begin or go on.
    dropped_tls,
    /// TLS handshakes: version 1.2, in full.
    tls_12_full,
    /// TLS handshakes: version 1.2, resumed by a ticket.
    tls_12_resumed,
    /// TLS handshakes: version 1.3, in full.
    tls_13_full,
    /// TLS handshakes: version 1.3, resumed by a ticket.
    tls_13_resumed,
    /// TLS that failed: the client spoke something else, HTTP most likely.
    tls_failed_cleartext,
    /// TLS that failed: the client sent an alert.
    tls_failed_alert,
    /// TLS that failed: no version, cipher suite or group in common.
    tls_failed_incompatible,
    /// TLS that failed: the client broke its rules.
    tls_failed_violation,
    /// Connections dropped: reset or broken by the peer or the network.
    dropped_reset,
    /// Connections dropped: the control plane's queue was full, or the hand-over took too long.
    dropped_handover,
    /// Connections dropped: no descriptor was free to take them back from the control plane. They count as adopted
    /// and closed.
    dropped_adoption,
    /// Connections closed by the client with a close frame or end of stream.
    closed_by_client,
    /// HTTP connections of this shard closed because nothing came for `--http-idle-timeout`.
    closed_http_idle,
    /// Connections closed because the broker went away (1001).
    closed_shutdown,
    /// Of the connections closed when the time to shut down was over: those that had not been sent everything.
    cut_off,
    /// Commands refused for publishing faster than allowed (the error `limit`).
    commands_limited,
    /// Commands refused, because nothing grants them (the error `forbidden`).
    commands_forbidden,
    /// Requests answered by a responder.
    requests_answered,
    /// Requests that a responder answered with an error.
    requests_responder_error,
    /// Requests that nobody serves.
    requests_no_responder,
    /// Requests refused, because their responders or their own connection had too many waiting.
    requests_busy,
    /// Requests whose responder's connection ended before it answered.
    requests_responder_lost,
    /// Requests that were not answered in time.
    requests_timeout,
    /// Requests whose own connection ended before they were answered, or the broker did.
    requests_abandoned,
    /// Receives that found no free buffer (`ENOBUFS`).
    no_buffers,
    /// Multishot operations that the kernel ended by itself.
    multishots_ended,
    /// Times the submission queue was full within a turn.
    submission_full,
    /// Completion queue overflows (nothing is lost).
    completion_overflows,
    /// Completions and calls that named a connection already gone.
    stale,
    /// System calls of the driver: `io_uring_enter`, or everything that it does on epoll.
    enters,
    /// Times a full queue made this shard pause its publishers.
    pauses,
    /// Times another shard's queue was full, so that a batch had to wait.
    queues_full,
}

macro_rules! causes {
    ($(#[$doc:meta])* $type:ident, $list:ident, $($(#[$variant_doc:meta])* $variant:ident $field:ident $label:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in `/metrics`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }

        impl Stats {
            fn $list(&self, cause: $type) -> &Counter {
                match cause { $($type::$variant => &self.$field,)+ }
            }
        }

        impl Snapshot {
            /// Every cause's name in `/metrics`, with its count.
            pub fn $list(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$(($label, self.$field),)+].into_iter()
            }
        }
    };
}

causes! {
    /// Why a shard's connection ended. Each has exactly one: the first that was decided.
    Reason, closed_by,
    /// The client's close frame or end of stream.
    ByClient closed_by_client "by_client",
    /// An HTTP connection was idle for too long.
    HttpIdle closed_http_idle "http_idle",
    /// The broker went away (1001).
    Shutdown closed_shutdown "shutdown",
    /// It asked for HTTP, and the control plane has it now.
    HandedOver handed_over "handed_over",
    /// Its request was refused, as [`Refused`] says, and it ended with that.
    Refused refused "refused",
    /// No complete head in time (408).
    HandshakeTimeout dropped_handshake_timeout "handshake_timeout",
    /// Silent after a ping.
    PingTimeout dropped_ping_timeout "ping_timeout",
    /// Too far behind, or reading nothing at all (1013).
    Slow dropped_slow "slow",
    /// Held much of the memory when that was short, and took nothing (1013).
    Memory dropped_memory "memory",
    /// A message was not complete in time (1008).
    MessageTimeout dropped_message_timeout "message_timeout",
    /// A protocol violation.
    Violation dropped_violation "violation",
    /// Published faster than allowed (1008).
    Rate dropped_rate "rate",
    /// Published to a topic that had no room for the message, without commands (1008).
    Limit dropped_limit "limit",
    /// Its token ended, and no other came in time (4401).
    Expired closed_expired "expired",
    /// Access control: no token or a bad one, rights that ended, or an operator (4400, 4403, 4408).
    Access closed_access "access",
    /// Its session goes on over another connection (4409).
    SessionTaken closed_session_taken "session_taken",
    /// A trusted proxy sent no PROXY header, or a broken one.
    ProxyHeader dropped_proxy_header "proxy_header",
    /// TLS could not begin, or not go on.
    Tls dropped_tls "tls",
    /// Reset or broken by the peer or the network.
    Reset dropped_reset "reset",
    /// It asked for HTTP, and the control plane could not take it.
    Handover dropped_handover "handover",
    /// It came from the control plane, and the shard had no room.
    Adoption dropped_adoption "adoption",
}

causes! {
    /// Why a request was refused.
    Refused, refused_by,
    /// Addressed to a host that is not the broker's (421).
    Host refused_host "host",
    /// From a web page of a foreign origin (403).
    Origin refused_origin "origin",
    /// To publish, without a key or in a broker whose clients only subscribe (401, 403).
    Publish refused_publish "publish",
    /// Without a token where one is needed, with a bad one, or with one that grants too little (401, 403).
    Access refused_access "access",
    /// As many connections as the broker takes (503).
    Connections refused_connections "connections",
    /// As many connections of one address as the broker takes (429).
    Address refused_address "address",
    /// More in a second than the broker takes (503).
    AcceptRate refused_accept_rate "accept_rate",
    /// The broker is on its way out (503).
    Draining refused_draining "draining",
    /// As many topics as the broker keeps (503).
    Topics refused_topics "topics",
    /// Memory was short (503).
    Memory refused_memory "memory",
    /// Too much to do for the control plane or a topic's sequencer (503).
    Overload refused_overload "overload",
    /// The request itself is wrong.
    Request refused_request "request",
}

impl Snapshot {
    /// TLS handshakes by version and by whether they were resumed, as `/metrics` names these.
    pub(crate) fn tls_handshakes(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("1.2", "false", self.tls_12_full),
            ("1.2", "true", self.tls_12_resumed),
            ("1.3", "false", self.tls_13_full),
            ("1.3", "true", self.tls_13_resumed),
        ]
    }

    /// What became of requests, as `/metrics` names it.
    pub(crate) fn requests_by_outcome(&self) -> [(&'static str, u64); 7] {
        [
            ("answered", self.requests_answered),
            ("responder-error", self.requests_responder_error),
            ("no-responder", self.requests_no_responder),
            ("busy", self.requests_busy),
            ("responder-lost", self.requests_responder_lost),
            ("timeout", self.requests_timeout),
            ("abandoned", self.requests_abandoned),
        ]
    }

    /// Causes for which TLS failed, as `/metrics` names them.
    pub(crate) fn tls_failures(&self) -> [(&'static str, u64); 4] {
        [
            ("cleartext", self.tls_failed_cleartext),
            ("alert", self.tls_failed_alert),
            ("incompatible", self.tls_failed_incompatible),
            ("violation", self.tls_failed_violation),
        ]
    }
}

impl Stats {
    /// Counts the end of a connection. Only the owner may call this.
    pub(crate) fn count_end(&self, reason: Reason) {
        self.closed_by(reason).add(1);
    }

    /// Counts a refusal by its cause, if it has one. Only the owner may call this.
    pub(crate) fn count_refusal(&self, cause: impl Into<Option<Refused>>) {
        if let Some(cause) = cause.into() {
            self.refused_by(cause).add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_counter_of_its_own() {
        let stats = Stats::default();
        Reason::ALL.iter().for_each(|&reason| stats.count_end(reason));
        Refused::ALL.iter().for_each(|&cause| stats.count_refusal(cause));
        let counted = stats.snapshot();
        let labels: std::collections::BTreeSet<_> = counted.closed_by().map(|(label, _)| label).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        assert!(counted.closed_by().chain(counted.refused_by()).all(|(_, count)| count == 1));
        assert!(Reason::ALL.iter().all(|reason| labels.contains(reason.label())));
    }
}
