//! How many connections the process has room for: what its limit of open descriptors allows, differently on each
//! driver, and what memory allows.
//!
//! On io_uring a shard's connections lie in its ring's own table. Each table may be as long as the limit, and none
//! of it counts against the process. On epoll every connection is a descriptor of the process: all shards share
//! the limit out, with the control plane.
//!
//! The kernel spreads connections over shards by hash, unevenly, so a shard's table is longer than its share, where
//! descriptors allow; and it has places left for clients that are answered with 503.
//!
//! HTTP connections are descriptors of the process under both drivers, so the limit bounds their places under both,
//! and [`DESCRIPTORS_OPERATORS`] stay free for the listener of operators, which holds on to them (`admin`).
//!
//! Memory is estimated: [`CONNECTION_BYTES`] each, of what [`MemoryPlan`] leaves for connections.

use std::num::NonZeroU32;

use ring::Io;

use crate::capacity::memory::{MEMORY_PERCENT, MemoryPlan};

/// Memory that one idle connection with a subscription takes, with a margin: 4.8 KB in the kernel for the server's
/// end (half of what bench/results/SCALE.md shows for both), 0.1 KB in the broker, and a fifth for what is under way.
pub const CONNECTION_BYTES: u64 = 6 << 10;

/// Descriptors that stay free for connections of operators.
pub const DESCRIPTORS_OPERATORS: u64 = 32;
/// Descriptors that stay free for the process itself.
const DESCRIPTORS_PROCESS: u64 = 60;
/// And for each shard: listener, ring or epoll, eventfd, and one to hand a connection over.
const DESCRIPTORS_PER_SHARD: u64 = 4;
/// The longest table of direct descriptors that a ring takes.
const TABLE_TOP: u64 = 1 << 20;
/// Places that all shards share out when nobody says how many: the kernel sets memory aside for each.
const TABLES_DEFAULT: u64 = 1 << 21;
/// Places in a table beyond the connections that there may be: for those that are answered with 503, and for HTTP.
const TABLE_SPARE: u64 = 1 << 10;
/// HTTP connections at the same time, where descriptors are no concern.
const HTTP_TOP: u32 = 4096;
/// On epoll, HTTP gets one in so many descriptors; on io_uring, where shards need none, all but one in so many, which
/// are for sockets on their way between the planes.
const HTTP_PART: u64 = 8;

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// The driver that this is for.
    pub io: Io,
    /// Connections of all shards together.
    pub connections_max: u32,
    /// Places for connections in each shard's table.
    pub shard_connections_max: u32,
    /// HTTP connections of the control plane.
    pub http_connections_max: u32,
    /// Connections that descriptors allow.
    pub by_descriptors: u64,
    /// Connections that memory allows; `None` where it is not known.
    pub by_memory: Option<u64>,
    /// How memory is shared out.
    pub memory: MemoryPlan,
}

impl Capacity {
    /// The room for `asked` connections of all shards together, or for as many as `descriptors`, the limit of open
    /// files, and `memory` allow.
    ///
    /// # Errors
    /// A sentence that says what to change, when descriptors do not allow that many.
    pub fn new(
        io: Io,
        asked: Option<NonZeroU32>,
        shards: u16,
        descriptors: u64,
        memory: MemoryPlan,
    ) -> Result<Self, String> {
        let free = descriptors.saturating_sub(reserved(shards));
        let shards = u64::from(shards);
        let http_top = u64::from(HTTP_TOP).min(memory.http_places());
        let (table, http) = match io {
            Io::Uring => (free, http_top.min(free - free / HTTP_PART)),
            Io::Epoll => {
                let http = http_top.min(free / HTTP_PART);
                ((free - http) / shards, http)
            }
        };
        let table = table.min(TABLE_TOP);
        if table == 0 || http == 0 {
            return Err(format!(
                "the limit of {descriptors} open descriptors leaves no room for connections of {shards} shards: \
                 raise it (ulimit -n 20000)"
            ));
        }
        let by_descriptors = table * shards;
        let by_memory = memory.connections_bytes().map(|bytes| (bytes / CONNECTION_BYTES).max(1));
        let connections = match asked.map(|asked| u64::from(asked.get())) {
            None => {
                let tables = (TABLES_DEFAULT / shards).max(1 << 16).min(table) * shards;
                tables.min(by_memory.unwrap_or(u64::MAX))
            }
            Some(asked) if asked <= by_descriptors => asked,
            Some(asked) => return Err(too_many(io, asked, table, shards as u16, descriptors)),
        };
        // Every shard may get all of them; of very many it is given twice its share.
        let places = connections.min((2 * connections.div_ceil(shards)).max(1 << 16)) + TABLE_SPARE;
        Ok(Self {
            io,
            connections_max: u32::try_from(connections).unwrap_or(u32::MAX),
            shard_connections_max: places.min(table) as u32,
            http_connections_max: http as u32,
            by_descriptors,
            by_memory,
            memory,
        })
    }

    /// What to say if more was asked for than memory has room for.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let room = self.by_memory.filter(|room| u64::from(self.connections_max) > *room)?;
        Some(format!(
            "--max-connections is {}, but the memory that is available now has room for about {room} ({} KiB each, of \
             {MEMORY_PERCENT} % of it, beside {} MiB for --max-memory): lower one of them, or give the machine or the \
             container more memory",
            self.connections_max,
            CONNECTION_BYTES >> 10,
            self.memory.budget_bytes >> 20
        ))
    }

    /// What resident memory stays below, in bytes.
    #[must_use]
    pub fn resident_bytes_max(&self) -> u64 {
        self.memory.resident_bytes_max(self)
    }
}

/// The limit of open descriptors that `connections` of all shards together need.
#[must_use]
pub fn descriptors_for(io: Io, connections: u64, shards: u16) -> u64 {
    let table = connections.div_ceil(u64::from(shards));
    let needed = match io {
        Io::Uring => table,
        Io::Epoll => {
            let all = table * u64::from(shards);
            all + all.div_ceil(HTTP_PART - 1).clamp(1, u64::from(HTTP_TOP))
        }
    };
    needed + reserved(shards)
}

fn reserved(shards: u16) -> u64 {
    DESCRIPTORS_PROCESS + DESCRIPTORS_OPERATORS + DESCRIPTORS_PER_SHARD * u64::from(shards)
}

/// `asked` is more than the shards have room for, each with `table` places.
fn too_many(io: Io, asked: u64, table: u64, shards: u16, descriptors: u64) -> String {
    let enough = asked.div_ceil(TABLE_TOP);
    if enough > u64::from(shards) {
        return format!(
            "--max-connections is {asked}, but one shard holds {TABLE_TOP} at most: raise --shards to {enough}, \
             or lower it"
        );
    }
    let all = table * u64::from(shards);
    let needed = descriptors_for(io, asked, shards);
    match io {
        Io::Uring => format!(
            "--max-connections is {asked}, but the limit of {descriptors} open descriptors allows {table} per shard, \
             {all} in all: raise that limit (ulimit -n {needed}), or raise --shards to {}",
            asked.div_ceil(table)
        ),
        Io::Epoll => format!(
            "--max-connections is {asked}, but the limit of {descriptors} open descriptors, which all shards share \
             on epoll, allows {table} per shard, {all} in all: raise that limit (ulimit -n {needed}), or lower \
             --max-connections"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(io: Io, asked: u32, shards: u16, descriptors: u64) -> Result<Capacity, String> {
        Capacity::new(io, NonZeroU32::new(asked), shards, descriptors, MemoryPlan::new(None, 0, shards, None))
    }

    /// Of all shards, and places of each.
    fn on_uring(asked: u32, shards: u16, descriptors: u64) -> Result<(u32, u32), String> {
        room(Io::Uring, asked, shards, descriptors).map(|room| (room.connections_max, room.shard_connections_max))
    }

    /// Of all shards, and of HTTP.
    fn on_epoll(asked: u32, shards: u16, descriptors: u64) -> Result<(u32, u32), String> {
        room(Io::Epoll, asked, shards, descriptors).map(|room| (room.connections_max, room.http_connections_max))
    }

    #[test]
    fn a_ring_has_a_table_of_its_own() {
        assert_eq!(on_uring(0, 2, 20_000), Ok((39_800, 19_900)));
        assert_eq!(on_uring(39_800, 2, 20_000), Ok((39_800, 19_900)));
        assert_eq!(on_uring(0, 1, u64::MAX), Ok((1 << 20, 1 << 20)));
        assert_eq!(on_uring(0, 4, u64::MAX), Ok((1 << 21, 1 << 20)));
        assert_eq!(on_uring(0, 1024, u64::MAX), Ok((1 << 26, (1 << 17) + (1 << 10))));
        let sentence = on_uring(50_000, 2, 20_000).unwrap_err();
        for part in ["19900 per shard, 39800 in all", "ulimit -n 25100", "--shards to 3"] {
            assert!(sentence.contains(part), "{sentence}");
        }
        assert!(on_uring(3 << 20, 2, u64::MAX).unwrap_err().contains("raise --shards to 3"));
        assert!(on_uring(0, 1, 64).unwrap_err().contains("ulimit -n"));
    }

    #[test]
    fn one_shard_may_get_all_connections_and_those_that_are_refused() {
        assert_eq!(on_uring(7, 2, 20_000), Ok((7, 1031)));
        assert_eq!(on_uring(10_000, 4, 20_000), Ok((10_000, 11_024)));
        assert_eq!(on_uring(1_000_000, 4, u64::MAX), Ok((1_000_000, 501_024)));
    }

    #[test]
    fn on_epoll_everybody_shares_the_limit() {
        assert_eq!(on_epoll(0, 2, 20_000), Ok((17_412, 2_487)));
        assert_eq!(on_epoll(0, 1, 1_024), Ok((812, 116)));
        assert_eq!(on_epoll(7, 2, 20_000), Ok((7, 2_487)));
        assert_eq!(on_epoll(0, 4, 1 << 20), Ok(((1_048_576 - 108 - 4_096) / 4 * 4, 4_096)));
        assert_eq!(on_epoll(0, 1, u64::MAX), Ok((1 << 20, 4_096)));
        for (descriptors, shards) in [(20_000, 2), (1_024, 8), (1 << 20, 3), (108, 2)] {
            let room = room(Io::Epoll, 0, shards, descriptors).unwrap();
            let all = u64::from(room.shard_connections_max) * u64::from(shards)
                + u64::from(room.http_connections_max)
                + 92
                + 4 * u64::from(shards);
            assert!(all <= descriptors && all + u64::from(shards) > descriptors, "{all} of {descriptors}");
        }
        assert!(on_epoll(0, 2, 100).unwrap_err().contains("ulimit -n"));
    }

    #[test]
    fn the_limit_that_is_advised_is_enough() {
        for io in [Io::Uring, Io::Epoll] {
            for (asked, shards) in [(50_000, 2), (1_000, 4), (17, 1)] {
                let sentence = room(io, asked, shards, 110).unwrap_err();
                let advised = sentence.split("ulimit -n ").nth(1).unwrap().split(')').next().unwrap();
                let room = room(io, asked, shards, advised.parse().unwrap()).unwrap();
                assert_eq!(room.connections_max, asked, "{sentence}");
            }
        }
    }

    /// A client that asks for HTTP takes a descriptor of the process on io_uring too.
    #[test]
    fn http_leaves_descriptors_to_operators_under_both_drivers() {
        for io in [Io::Uring, Io::Epoll] {
            for (descriptors, shards) in [(128, 1), (128, 2), (260, 2), (1_024, 2), (1_024, 8), (4_300, 1)] {
                let room = room(io, 0, shards, descriptors).unwrap();
                let shards = u64::from(shards);
                let tables = if io == Io::Epoll { u64::from(room.shard_connections_max) * shards } else { 0 };
                let others = DESCRIPTORS_PROCESS + DESCRIPTORS_PER_SHARD * shards;
                let taken = tables + u64::from(room.http_connections_max) + others;
                assert!(taken + DESCRIPTORS_OPERATORS <= descriptors, "{io} {descriptors} {shards}: {taken}");
                assert!(room.http_connections_max > 0);
            }
        }
        assert_eq!(room(Io::Uring, 0, 2, 1_024).unwrap().http_connections_max, 924 - 115);
    }

    #[test]
    fn memory_bounds_what_nobody_asked_for() {
        let plan = |memory| MemoryPlan::new(None, 0, 2, memory);
        let estimate =
            |asked, memory| Capacity::new(Io::Uring, NonZeroU32::new(asked), 2, 20_000, plan(memory)).unwrap();
        let small = estimate(0, Some(256 << 20));
        // 80 % of 256 MiB, without 64 MiB and half as much for the budget, and 20 MiB that are fixed.
        assert_eq!((small.connections_max, small.http_connections_max), (15_155, 256));
        assert_eq!(small.shard_connections_max, 15_155 + 1_024);
        assert_eq!(estimate(0, Some(1 << 40)).connections_max, 39_800);
        assert_eq!(estimate(0, Some(0)).connections_max, 1);
        assert_eq!((small.warning(), estimate(10_000, Some(256 << 20)).warning()), (None, None));
        let asked = estimate(39_000, Some(256 << 20));
        assert_eq!(asked.connections_max, 39_000);
        let warning = asked.warning().unwrap();
        for part in ["39000", "15155", "memory", "64 MiB for --max-memory"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        assert_eq!(estimate(39_000, None).warning(), None);
    }
}
