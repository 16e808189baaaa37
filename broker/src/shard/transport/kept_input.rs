//! How much input may wait with its connections, and who is closed when it is more.
//!
//! All input that is kept may take its share of the budget. Beyond that, when more comes for a connection whose input is
//! more than twice the average, as much is given back (1013): of some whose input waits, the heaviest of the client that
//! holds most is closed. So small messages are safe however much others send, even when there is hardly any memory left.
//!
//! Not responsible for when input waits ([`pause`](crate::shard::transport::pause)).

use protocol::frame::close_code;
use ring::{ConnId, Driver};

use crate::capacity::budget::Held;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::transport::connection::State;
use crate::shard::transport::heaviest::{Holder, heaviest};
use crate::shard::transport::pause::KEPT_BYTES_MAX;

/// Kept input that nobody is closed for while the budget has room: what any connection may have here that only waits for its
/// turn.
const INNOCENT_BYTES: u64 = KEPT_BYTES_MAX as u64;
/// The same while it has hardly any.
const INNOCENT_BYTES_NEAR_BOUND: u64 = 4 << 10;
/// Kept input that nobody is closed for.
const INNOCENT_BYTES_AT_BOUND: u64 = 1 << 10;

impl<D: Driver> Shard<D> {
    /// What all kept input of this shard may take, in bytes.
    pub(super) fn input_share(&self) -> u64 {
        self.shared.budget.share(Held::Input) / u64::from(self.shards())
    }

    /// Closes connections if all kept input is too much, or all that is held is, and that of this one is part of the
    /// reason: those whose clients hold most, until as much is free as this one takes.
    pub(super) fn limit_kept_input(&mut self, id: ConnId) {
        self.make_room_for_pieces();
        let (budget, share) = (&self.shared.budget, self.input_share());
        let (at_bound, near_bound) = (!budget.has_room(share / 8), !budget.has_room(share / 2));
        let held = self.account.held(Held::Input);
        // Little kept input is not the reason, however short memory is.
        let innocent = match (at_bound, near_bound) {
            (true, _) => share / 4,
            (false, true) => share / 2,
            (false, false) => share,
        };
        if held <= innocent {
            return;
        }
        let mut holders = self.some_that_keep_input(id);
        let (kept, all) = (holders[0].bytes, holders.iter().map(|holder| holder.bytes).sum::<u64>());
        let mean = all / holders.iter().filter(|holder| holder.bytes > 0).count().max(1) as u64;
        let most = match (at_bound, near_bound) {
            (true, _) => INNOCENT_BYTES_AT_BOUND,
            (false, true) => mean.max(INNOCENT_BYTES_NEAR_BOUND),
            (false, false) => (2 * mean).max(INNOCENT_BYTES),
        };
        if kept <= most {
            return;
        }
        let mut freed = 0;
        while freed < kept {
            let Some(heaviest) = heaviest(&holders, 1) else { return };
            let at = holders.iter().position(|holder| holder.id == heaviest).expect("one of them");
            freed += holders.swap_remove(at).bytes;
            let why = "memory is short, and much input of this connection waits; connect again";
            self.close_with(heaviest, close_code::TRY_AGAIN_LATER.into(), why, Reason::Memory);
        }
    }

    /// This connection, which comes first, and some of those whose input waits, with what is kept of it.
    fn some_that_keep_input(&mut self, id: ConnId) -> Vec<Holder<Result<(usize, u32), ConnId>>> {
        let mut ids = vec![id];
        ids.extend(self.input.some_waiting().filter(|&other| other != id));
        ids.into_iter()
            .map(|id| {
                let conn = self.conns.get(id).filter(|conn| conn.state == State::Open);
                let bytes = conn.and_then(|conn| conn.extra.as_ref()).map_or(0, |extra| extra.input.charged());
                Holder { id, client: self.acceptor.addresses.client_or_connection(id), bytes, weight: bytes }
            })
            .collect()
    }
}
