//! How many connections the process has room for, which its limit of open descriptors decides: differently on
//! each driver.
//!
//! On io_uring a shard's connections lie in its ring's own table. Each table may be as long as the limit, and none
//! of it counts against the process. On epoll every connection is a descriptor of the process: all shards share
//! the limit out, with the control plane.

use std::num::NonZeroU32;

use ring::Io;

use crate::topics::registry::ShardId;

/// Descriptors that stay free for the process itself.
const DESCRIPTORS_RESERVED: u64 = 92;
/// And for each shard: listener, ring or epoll, eventfd, and one to hand a connection over.
const DESCRIPTORS_PER_SHARD: u64 = 4;
/// The longest table of direct descriptors that a ring takes.
const TABLE_TOP: u32 = 1 << 20;
/// Places that all shards share out when nobody says how many: the kernel sets memory aside for each.
const TABLES_DEFAULT: u32 = 1 << 21;
/// HTTP connections at the same time, where descriptors are no concern.
const HTTP_TOP: u32 = 4096;
/// Where they are: the part of them that is HTTP's, one in so many.
const HTTP_PART: u64 = 8;

/// What there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// The driver it was reckoned for.
    pub io: Io,
    /// Connections of each shard.
    pub shard_connections_max: u32,
    /// HTTP connections of the control plane.
    pub http_connections_max: u32,
}

impl Room {
    /// Reckons: `asked` connections per shard, or as many as `descriptors`, the limit of open files, allows.
    ///
    /// # Errors
    /// A sentence that says what to change, when that many cannot be had.
    pub fn new(io: Io, asked: Option<NonZeroU32>, shards: ShardId, descriptors: u64) -> Result<Self, String> {
        let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_SHARD * u64::from(shards);
        let free = descriptors.saturating_sub(reserved);
        let (room, http) = match io {
            Io::Uring => (free, HTTP_TOP),
            Io::Epoll => {
                let http = u64::from(HTTP_TOP).min(free / HTTP_PART);
                ((free - http) / u64::from(shards), http as u32)
            }
        };
        let room = u32::try_from(room).unwrap_or(TABLE_TOP).min(TABLE_TOP);
        if room == 0 || http == 0 {
            return Err(format!(
                "the limit of {descriptors} open descriptors leaves no room for connections of {shards} shards: \
                 raise it (ulimit -n 20000)"
            ));
        }
        let shard_connections_max = match asked {
            None => room.min((TABLES_DEFAULT / u32::from(shards)).max(1 << 16)),
            Some(asked) if asked.get() <= room => asked.get(),
            Some(asked) => return Err(too_many(io, asked, room, shards, descriptors)),
        };
        Ok(Self { io, shard_connections_max, http_connections_max: http })
    }
}

/// `asked` is more than there is room for.
fn too_many(io: Io, asked: NonZeroU32, room: u32, shards: ShardId, descriptors: u64) -> String {
    if room == TABLE_TOP {
        return format!(
            "--max-connections is {asked}, but one shard holds {TABLE_TOP} at most: lower it and raise --shards"
        );
    }
    let shards = u64::from(shards);
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_SHARD * shards;
    let asked_of = |shards: u64| u64::from(asked.get()) * shards;
    match io {
        Io::Uring => format!(
            "--max-connections is {asked}, but the limit of {descriptors} open descriptors allows {room} per shard: \
             raise that limit (ulimit -n {}), or lower --max-connections and raise --shards",
            asked_of(1) + reserved
        ),
        Io::Epoll => format!(
            "--max-connections is {asked}, but the limit of {descriptors} open descriptors, which all shards share \
             on epoll, allows {room} per shard: raise that limit (ulimit -n {}), or lower --max-connections",
            asked_of(shards) + (asked_of(shards).div_ceil(HTTP_PART - 1)).min(u64::from(HTTP_TOP)) + reserved
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_uring(asked: u32, shards: ShardId, descriptors: u64) -> Result<u32, String> {
        Room::new(Io::Uring, NonZeroU32::new(asked), shards, descriptors).map(|room| room.shard_connections_max)
    }

    fn on_epoll(asked: u32, shards: ShardId, descriptors: u64) -> Result<(u32, u32), String> {
        Room::new(Io::Epoll, NonZeroU32::new(asked), shards, descriptors)
            .map(|room| (room.shard_connections_max, room.http_connections_max))
    }

    #[test]
    fn a_ring_has_a_table_of_its_own() {
        assert_eq!(on_uring(0, 2, 20_000), Ok(19_900));
        assert_eq!(on_uring(7, 2, 20_000), Ok(7));
        assert_eq!(on_uring(19_900, 2, 20_000), Ok(19_900));
        assert_eq!(on_uring(0, 1, u64::MAX), Ok(1 << 20));
        assert_eq!(on_uring(0, 4, u64::MAX), Ok(1 << 19));
        assert_eq!(on_uring(0, 1024, u64::MAX), Ok(1 << 16));
        let sentence = on_uring(50_000, 2, 20_000).unwrap_err();
        assert!(sentence.contains("19900 per shard") && sentence.contains("ulimit -n 50100"), "{sentence}");
        assert!(on_uring(2 << 20, 2, u64::MAX).unwrap_err().contains("raise --shards"));
        assert!(on_uring(0, 1, 64).unwrap_err().contains("ulimit -n"));
    }

    #[test]
    fn on_epoll_everybody_shares_the_limit() {
        assert_eq!(on_epoll(0, 2, 20_000), Ok((8_706, 2_487)));
        assert_eq!(on_epoll(0, 1, 1_024), Ok((812, 116)));
        assert_eq!(on_epoll(7, 2, 20_000), Ok((7, 2_487)));
        assert_eq!(on_epoll(0, 4, 1 << 20), Ok(((1_048_576 - 108 - 4_096) / 4, 4_096)));
        assert_eq!(on_epoll(0, 1, u64::MAX), Ok((1 << 20, 4_096)));
        for (descriptors, shards) in [(20_000, 2), (1_024, 8), (1 << 20, 3), (108, 2)] {
            let (shard, http) = on_epoll(0, shards, descriptors).unwrap();
            let all = u64::from(shard) * u64::from(shards) + u64::from(http) + 92 + 4 * u64::from(shards);
            assert!(all <= descriptors && all + u64::from(shards) > descriptors, "{all} of {descriptors}");
        }
        assert!(on_epoll(0, 2, 100).unwrap_err().contains("ulimit -n"));
    }

    #[test]
    fn the_limit_that_is_advised_is_enough() {
        for (asked, shards) in [(50_000, 2), (1_000, 4), (17, 1)] {
            let sentence = on_epoll(asked, shards, 110).unwrap_err();
            let advised = sentence.split("ulimit -n ").nth(1).unwrap().split(')').next().unwrap();
            assert_eq!(on_epoll(asked, shards, advised.parse().unwrap()).unwrap().0, asked, "{sentence}");
        }
    }
}
