//! Messages that arrive in pieces: how long they may take, and how much memory all of them may.
//!
//! A message has `--message-timeout` from its first byte to its last; beyond, its connection is closed with 1008. All
//! of them together may take their share of the budget. Beyond that one goes (1013), of the client that holds most or has
//! held it longest, all its connections together where addresses are counted: so a client that sends a message in the
//! usual way finds room, however many others are left unfinished.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos, nanos};

use crate::capacity::budget::{Held, Level, longest_message};
use crate::observe::counters::Reason;
use crate::publishing::body::{given_up, too_slow};
use crate::shard::Shard;
use crate::shard::transport::connection::{Assembly, Conn, Flags, State};
use crate::shard::transport::heaviest::{Holder, LOOKED_AT, heaviest};

const MILLISECOND: Nanos = 1_000_000;

/// Messages under way, each once, by when they began.
#[derive(Default, Debug)]
pub(in crate::shard) struct Assemblies {
    begun: BTreeSet<(Nanos, ConnId)>,
    /// The last one that the search for one that holds much looked at.
    looked_at: Option<(Nanos, ConnId)>,
}

impl Assemblies {
    pub(in crate::shard) fn begin(&mut self, id: ConnId, since: Nanos) {
        self.begun.insert((since, id));
    }

    /// The message is complete, or never will be.
    pub(in crate::shard) fn end(&mut self, id: ConnId, assembly: &Assembly) {
        self.begun.remove(&(assembly.since, id));
    }

    pub(in crate::shard) fn len(&self) -> usize {
        self.begun.len()
    }

    /// Some of them, others each time.
    fn some(&mut self) -> Vec<(Nanos, ConnId)> {
        let after = self.looked_at.map_or(Unbounded, Excluded);
        let from_start = self.begun.iter().take(LOOKED_AT);
        let some: Vec<_> = self.begun.range((after, Unbounded)).chain(from_start).take(LOOKED_AT).copied().collect();
        self.looked_at = some.last().copied();
        some
    }
}

fn under_way(conn: &mut Conn) -> &mut Assembly {
    conn.extra.as_mut().and_then(|extra| extra.assembly.as_mut()).expect("it has a message under way")
}

impl<D: Driver> Shard<D> {
    /// When a message under way may be overdue.
    pub(in crate::shard) fn next_message_deadline(&self) -> Option<Nanos> {
        let (since, _) = self.input.assemblies.begun.first()?;
        Some(since + nanos(self.limits.message_timeout))
    }

    /// Closes connections whose message has been under way for too long.
    pub(in crate::shard) fn expire_messages(&mut self) {
        let timeout = nanos(self.limits.message_timeout);
        let mean = self.mean_bytes();
        while let Some(&(since, id)) = self.input.assemblies.begun.first()
            && since + timeout <= self.now
        {
            let conn = self.conns.get(id).expect("it has a message under way");
            let waits = conn.flags.has(Flags::PAUSED) || !conn.flags.has(Flags::RECEIVING);
            let assembly = under_way(conn);
            if waits && (self.pressure.level == Level::Calm || assembly.room.charged() < mean) {
                // This shard makes it wait, or has no receive buffer for it; it may have sent the rest already. But not
                // for ever when it is one of those for whose memory all wait.
                assembly.since = self.now;
                self.input.assemblies.begun.pop_first();
                self.input.assemblies.begin(id, self.now);
            } else {
                if conn.state == State::Http {
                    self.fail_request(id, &too_slow(&self.limits));
                    continue;
                }
                let why = "the message was not complete in time; see --message-timeout";
                self.close_with(id, close_code::POLICY.into(), why, Reason::MessageTimeout);
            }
        }
    }

    /// What a message under way takes on average.
    fn mean_bytes(&self) -> u64 {
        self.account.held(Held::Assemblies) / (self.input.assemblies.len() as u64).max(1)
    }

    /// Of some messages under way, the heaviest of the client whose messages weigh most together, if they are at least as
    /// many bytes as a message on average.
    fn heaviest_assembly(&mut self) -> Option<ConnId> {
        let some = self.input.assemblies.some();
        let holders: Vec<_> = some
            .into_iter()
            .map(|(since, id)| {
                let conn = self.conns.get(id).expect("it has a message under way");
                let bytes = under_way(conn).room.charged();
                let weight = bytes.saturating_mul(1 + (self.now - since) / MILLISECOND);
                Holder { id, client: self.acceptor.addresses.client_or_connection(id), bytes, weight }
            })
            .collect();
        heaviest(&holders, self.mean_bytes())
    }

    /// A piece came: if all of them are too many bytes, or all that is held is, one goes, see
    /// [`Shard::heaviest_assembly`]. So short messages are safe however many long ones there are.
    pub(in crate::shard) fn make_room_for_pieces(&mut self) {
        // There is always room for one message on each shard.
        let (own, longest) = (self.account.held(Held::Assemblies), longest_message(self.limits.message_bytes_max));
        if own <= longest {
            return;
        }
        let budget = &self.shared.budget;
        let share = budget.share(Held::Assemblies);
        let most = if budget.has_room(budget.bytes_max() / 32) { share } else { share / 2 };
        // A shard that holds less than its part leaves it to the others: what it holds is not the reason.
        if budget.held(Held::Assemblies) <= most || own <= most / u64::from(self.shards()) {
            return;
        }
        if let Some(id) = self.heaviest_assembly() {
            if self.conns.get(id).is_some_and(|conn| conn.state == State::Http) {
                self.fail_request(id, &given_up());
                return;
            }
            let why = "too many messages are arriving in pieces, and this one held much; connect again";
            self.close_with(id, close_code::TRY_AGAIN_LATER.into(), why, Reason::Memory);
        }
    }
}
