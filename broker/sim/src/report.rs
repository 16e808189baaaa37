//! What a run leaves behind: its outcome or its failure, and which events it met.

use std::fmt;
use std::ops::AddAssign;

use protocol::v1::{CommandType, MessageType};

use crate::model::Violation;
use crate::params::Params;

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident: $rare:expr,)+) => {
        /// How often each thing happened that a simulation must have met to mean anything.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Coverage {
            $($(#[$doc])* pub $name: u64,)+
            /// Commands of `ringyard.v1` that were carried out, or refused as unsupported, by their type's number.
            pub commands: [u64; CommandType::ALL.len()],
            /// Messages of `ringyard.v1` that clients got, by their type's number.
            pub messages: [u64; MessageType::ALL.len()],
        }

        impl AddAssign for Coverage {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)+
                add(&mut self.commands, &other.commands);
                add(&mut self.messages, &other.messages);
            }
        }

        impl Coverage {
            /// Every count with its name, and whether a long series must have met it.
            #[must_use]
            pub fn rows(&self) -> Vec<(String, u64, bool)> {
                let mut rows = vec![$((stringify!($name).to_owned(), self.$name, $rare),)+];
                let commands = CommandType::ALL.map(|command| ("command", command.as_str(), self.commands[command as usize]));
                let messages = MessageType::ALL.map(|message| ("message", message.as_str(), self.messages[message as usize]));
                rows.extend(commands.map(|(what, name, count)| (format!("{what} {name}"), count, true)));
                rows.extend(messages.map(|(what, name, count)| (format!("{what} {name}"), count, true)));
                rows
            }
        }
    };
}

fn add(counts: &mut [u64], others: &[u64]) {
    counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
}

coverage! {
    /// Rounds.
    rounds: true,
    /// Messages published.
    published: true,
    /// Acknowledgements seen.
    acknowledged: true,
    /// Publishes over HTTP that shards answered.
    posts_published: true,
    /// Those that they refused.
    posts_refused: true,
    /// Those that came too slowly, or found no room.
    posts_late: true,
    /// Those that the control plane had to answer.
    posts_handed_over: true,
    /// Publishes by the control plane answered.
    http_published: true,
    /// Streams of events that began.
    streams: true,
    /// Those of several topics.
    streams_several: true,
    /// Those that were given all since a position.
    streams_recovered: true,
    /// Those that the broker ended.
    streams_ended: true,
    /// Messages received.
    delivered: true,
    /// Empty ones among them.
    delivered_empty: true,
    /// Messages longer than 64 KiB.
    delivered_huge: true,
    /// Messages that matched several confirmed subscriptions of their receiver.
    overlapping: true,
    /// Subscribers that lasted until everything had come to rest.
    settled_streams: true,
    /// Messages owed to those, which came.
    owed: true,
    /// Beginnings of subscriptions whose state was checked at the end.
    beginnings: true,
    /// Positions from which everything was there.
    recovered: true,
    /// Positions from which it was not.
    not_recovered: true,
    /// Those of which the answer said what is available.
    available: true,
    /// Messages that came as state.
    shown: true,
    /// Removals among those.
    shown_removed: true,
    /// Snapshots among those.
    shown_snapshots: true,
    /// Ends of state.
    state_ends: true,
    /// Gaps of which subscribers were notified that were too slow.
    skips_told: true,
    /// Subscribers that were too slow and went on with newer messages.
    skips: true,
    /// Subscriptions confirmed that get the newest message of each key.
    latest: true,
    /// Those that are delivered to once per interval.
    throttled: true,
    /// Messages left out for newer ones of their keys.
    conflated: true,
    /// Topics purged.
    purges: true,
    /// Snapshots stored.
    snapshots: true,
    /// Pages of history.
    pages: true,
    /// History of topics without one.
    history_unsupported: true,
    /// Publishes that were known by their idempotency key.
    duplicates: true,
    /// Compare-and-sets that held.
    compared: true,
    /// Those that did not.
    conflicts: true,
    /// Messages published to be retained.
    retained: true,
    /// Removals published.
    removals: true,
    /// Topics that remembered something when all was over.
    remembering: true,
    /// Windows given up for want of room.
    evicted: true,
    /// State refused for want of room.
    state_refused: true,
    /// Raw publishers closed because of that.
    raw_refused: true,
    /// Requests answered with data.
    calls_answered: true,
    /// Those answered with the responder's error.
    calls_errors: true,
    /// Those that nobody served.
    calls_no_responder: true,
    /// Those refused because there were too many.
    calls_busy: true,
    /// Those whose responder was lost.
    calls_lost: true,
    /// Those that were not answered in time.
    calls_timeout: true,
    /// Replies that were taken.
    calls_replied: true,
    /// Replies that came too late.
    calls_not_found: true,
    /// Sessions that clients were given and can go on with.
    sessions_opened: true,
    /// Those that clients went on with.
    sessions_resumed: true,
    /// Those among them that were on another shard before.
    sessions_moved: true,
    /// Those that were asked for and not given, because they were over or another user's.
    sessions_lost: true,
    /// Clients that got none that can be resumed, because there were as many as may be.
    sessions_scarce: true,
    /// Those that were over for certain when they were asked for.
    sessions_late: true,
    /// Closed because their sessions went on over other connections.
    close_4409: true,
    /// Sessions that their clients ended on purpose.
    disconnected: true,
    /// Topics entered, or said something new at.
    entered: true,
    /// Members that watchers were shown, or that came.
    arrivals: true,
    /// Members that they learned had gone.
    departures: true,
    /// Members shown that were there with several connections.
    shared_members: true,
    /// Counts that came.
    counts: true,
    /// Members in answers to `members`.
    members_listed: true,
    /// Those answers that left some out because no more are listed.
    members_unlisted: true,
    /// Entries refused because no more members are listed.
    presence_full: true,
    /// Updates and leaves of who had not entered.
    presence_not_found: true,
    /// Topics where nobody can be present.
    presence_unsupported: true,
    /// What watchers knew at the end, compared with what is true.
    views: true,
    /// The same of counts.
    views_of_counts: true,
    /// Leases that clients were given.
    leases_granted: true,
    /// Renewed.
    leases_renewed: true,
    /// Given back.
    leases_released: true,
    /// Answers that somebody else has one.
    leases_held: true,
    /// Renewals and returns of leases that were not there.
    leases_not_found: true,
    /// Those that came back with their sessions.
    leases_resumed: true,
    /// Those that ran out.
    leases_expired: true,
    /// Those that went to other connections with their sessions.
    leases_taken: true,
    /// Times somebody who waited got one before who came later.
    leases_in_turn: true,
    /// Who had one, as watchers were shown.
    leases_shown: true,
    /// What watchers knew of them at the end, compared with what is true.
    leases_viewed: true,
    /// Messages published on exclusive topics.
    leases_published: true,
    /// Messages refused there.
    leases_kept_out: true,
    /// Wills that were set.
    wills_set: true,
    /// Wills that somebody got.
    wills_published: true,
    /// Those among them that waited.
    wills_delayed: true,
    /// Those among them on exclusive topics.
    wills_of_holders: true,
    /// Wills that were due for certain.
    wills_due: true,
    /// Those that did not come because their clients came back in time.
    wills_cancelled: true,
    /// Those compared with what the next holder published.
    wills_before_next: true,
    /// Clients with wills that the broker's shutdown closed.
    wills_drained: true,
    /// Unsubscribes answered.
    unsubscribed: true,
    /// Those of a subscription that overlapped another.
    unsubscribed_overlapping: true,
    /// Subscribe commands refused for a limit.
    subscriptions_limit: true,
    /// Topics that began a new epoch while filters matched them.
    epochs: true,
    /// Sends taken in part.
    short_sends: true,
    /// Receives without a buffer.
    no_buffers: true,
    /// Multishots ended.
    ended_multishots: true,
    /// Connections broken by the network or a client.
    resets: true,
    /// Subscribers dropped for being slow.
    slow_drops: true,
    /// Close frames with 1013 seen.
    close_1013: true,
    /// Messages that were not complete in time.
    message_timeouts: true,
    /// Connections closed because memory was short.
    memory_drops: true,
    /// Subscribers that publishers waited for in vain.
    given_up: true,
    /// Steps at whose end more than three quarters of the budget were used.
    budget_high: true,
    /// Looks at shards whose logs had seven eighths of what they may have, or more.
    logs_high: true,
    /// Violations answered with their code.
    violations: true,
    /// Heads refused.
    refused: true,
    /// Connections refused because there were enough of their address.
    crowded: true,
    /// Connections for whose clients a proxy spoke.
    proxied: true,
    /// Proxies that did not say for whom they speak as they must.
    bad_proxies: true,
    /// Heads that came too slowly.
    handshake_timeouts: true,
    /// Clients dropped for silence.
    ping_timeouts: true,
    /// Pings answered.
    pings: true,
    /// Times publishers had to wait.
    pauses: true,
    /// Times another shard's queue was full.
    full_queues: true,
    /// Times a shard's turns were withheld.
    stalls: true,
    /// Leaps of the clock.
    leaps: true,
    /// Connections adopted.
    adopted: true,
    /// Connections handed over.
    handed_over: true,
    /// Half-closed publishers whose messages all had to come.
    half_closes: true,
    /// Close handshakes begun by a client and answered in kind.
    close_handshakes: true,
    /// Heads refused because the broker had as many connections as it takes.
    over_total: true,
    /// Heads refused because too many came in a second.
    over_rate: true,
    /// Sends that were timed, or that a timed one stands for.
    timed_sends: true,
    /// Runs with access control.
    guarded: true,
    /// Tokens that `connect` was answered `ok` for.
    tokens: true,
    /// Those that it was answered `bad-token` for.
    bad_tokens: true,
    /// Handshakes answered 401 or 403.
    refused_access: true,
    /// Requests answered 401 or 403.
    posts_denied: true,
    /// Commands answered `forbidden` for want of a grant.
    forbidden: true,
    /// Connections that were asked for another token.
    refreshes: true,
    /// Closed for a bad token.
    close_4400: true,
    /// Closed at a token's end.
    close_4401: true,
    /// Closed because their clients may not be here any longer.
    close_4403: true,
    /// Closed because their clients did not say who they are.
    close_4408: true,
    /// Users whose tokens were revoked.
    revocations: true,
    /// Connections that operators closed.
    closed_by_operators: true,
    /// Runs that ended in a shutdown.
    shutdowns: true,
    /// Those with a window.
    windows: true,
    /// WebSockets closed with 1001 there.
    close_1001: true,
}

impl Coverage {
    /// What a long series must have met and did not.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.rows().into_iter().filter(|&(_, count, must)| must && count == 0).map(|(name, ..)| name).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count, _) in self.rows() {
            writeln!(f, "  {name:<26}{count:>12}")?;
        }
        Ok(())
    }
}

/// A run in which everything held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// A hash over everything that happened, in order.
    pub trace: u64,
    /// What it met.
    pub coverage: Coverage,
}

/// A run in which something did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run's parameters, its seed among them.
    pub params: Box<Params>,
    /// The round in which it was noticed.
    pub round: u64,
    /// What did not hold.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} failed in round {}", self.params.seed, self.round)?;
        writeln!(f, "  {}", self.violation)?;
        writeln!(f, "  {}", replay(self.params.seed))?;
        write!(f, "{:#?}", self.params)
    }
}

/// The command that runs a seed again.
#[must_use]
pub fn replay(seed: u64) -> String {
    format!("replay: cargo run --release -p ringyard-sim --bin sim -- --seed {seed} -v")
}
