//! Starts the shards, one thread with one io_uring each, and tells when they end.
//!
//! Not responsible for what a shard does. A shard ends by [`Order::Shutdown`] or because its ring broke;
//! the latter ends the broker, because its connections are gone.
//!
//! [`Order::Shutdown`]: crate::shard::link::Order::Shutdown

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use ring::uring::{Setup, SetupError, UringDriver};
use tokio::sync::mpsc;

use crate::limits::Limits;
use crate::shard::link::Links;
use crate::shard::{Shard, ShardSetup};
use crate::topics::registry::ShardId;

/// Descriptors that stay free for the process itself.
const DESCRIPTORS_RESERVED: u64 = 92;
/// And for each shard: listener, ring, eventfd, and one to hand a connection over.
const DESCRIPTORS_PER_SHARD: u64 = 4;
/// The longest table of direct descriptors that a ring takes.
const TABLE_TOP: u32 = 1 << 20;
/// Places that all shards share out when nobody says how many: the kernel sets memory aside for each.
const TABLES_DEFAULT: u32 = 1 << 21;

/// The running shards.
#[derive(Debug)]
pub struct Shards {
    ends: mpsc::Receiver<End>,
    running: usize,
}

#[derive(Debug)]
struct End {
    shard: ShardId,
    result: io::Result<()>,
}

impl Shards {
    /// Starts a shard per listener, each with room for `capacity` connections, and waits until all have
    /// their rings.
    ///
    /// # Errors
    /// A sentence that says what to change, when a ring or a thread cannot be made. The caller ends the
    /// process then: shards that did start are not stopped.
    pub fn start(
        listeners: Vec<OwnedFd>,
        capacity: u32,
        links: &Arc<Links>,
        limits: &Arc<Limits>,
    ) -> Result<Self, String> {
        let running = listeners.len();
        let (ended, ends) = mpsc::channel(running);
        let (started, starts) = std::sync::mpsc::sync_channel::<Result<(), SetupError>>(running);
        for (id, listener) in (0..).zip(listeners) {
            let setup = ShardSetup { id, links: Arc::clone(links), limits: Arc::clone(limits) };
            let ring = Setup { listener: Some(listener), capacity, ..Setup::default() };
            let (started, ended) = (started.clone(), ended.clone());
            let run = move || match UringDriver::new(ring) {
                Ok(driver) => {
                    let _ = started.send(Ok(()));
                    let result = Shard::new(driver, setup).run();
                    // Room for one end per shard; and nobody listens only when the process ends.
                    let _ = ended.try_send(End { shard: id, result });
                }
                Err(error) => drop(started.send(Err(error))),
            };
            let thread = thread::Builder::new().name(format!("shard-{id}"));
            thread.spawn(run).map_err(|error| {
                format!("the thread of shard {id} cannot start ({error}): allow more threads, or lower --shards")
            })?;
        }
        for _ in 0..running {
            // A shard that panics takes the process along, so every one answers.
            starts.recv().expect("a shard reports its start").map_err(|error| error.to_string())?;
        }
        Ok(Self { ends, running })
    }

    /// Waits until a shard ends although nobody asked it to; says so. Cancel safe.
    pub(super) async fn failure(&mut self) -> String {
        let end = self.ends.recv().await;
        self.running -= 1;
        match end {
            Some(End { shard, result: Err(error) }) => format!("shard {shard} failed: {error}"),
            Some(End { shard, .. }) => format!("shard {shard} ended although nobody asked it to"),
            None => "all shards are gone".to_owned(),
        }
    }

    /// Waits until all have ended.
    pub(super) async fn all_ended(&mut self) -> Result<(), String> {
        while self.running > 0 {
            let end = self.ends.recv().await.ok_or("a shard ended without a word")?;
            self.running -= 1;
            end.result.map_err(|error| format!("shard {} failed while shutting down: {error}", end.shard))?;
        }
        Ok(())
    }
}

/// How many connections each of `shards` shards gets room for: what `asked` says, or what `descriptors`,
/// the limit of open files, allows.
///
/// # Errors
/// A sentence that says what to change, when that many cannot be had.
pub fn capacity(asked: Option<NonZeroU32>, shards: ShardId, descriptors: u64) -> Result<u32, String> {
    let reserved = DESCRIPTORS_RESERVED + DESCRIPTORS_PER_SHARD * u64::from(shards);
    let room = descriptors.saturating_sub(reserved);
    let room = u32::try_from(room).unwrap_or(TABLE_TOP).min(TABLE_TOP);
    if room == 0 {
        return Err(format!(
            "the limit of {descriptors} open descriptors leaves no room for connections of {shards} shards: raise it (ulimit -n 20000)"
        ));
    }
    let Some(asked) = asked else {
        return Ok(room.min((TABLES_DEFAULT / u32::from(shards)).max(1 << 16)));
    };
    if asked.get() <= room {
        return Ok(asked.get());
    }
    if room == TABLE_TOP {
        return Err(format!(
            "--max-connections is {asked}, but one shard holds {TABLE_TOP} at most: lower it and raise --shards"
        ));
    }
    Err(format!(
        "--max-connections is {asked}, but the limit of {descriptors} open descriptors allows {room} per shard: \
         raise that limit (ulimit -n {}), or lower --max-connections and raise --shards",
        u64::from(asked.get()) + reserved
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_connections() {
        assert_eq!(capacity(None, 2, 20_000), Ok(19_900));
        assert_eq!(capacity(NonZeroU32::new(7), 2, 20_000), Ok(7));
        assert_eq!(capacity(NonZeroU32::new(19_900), 2, 20_000), Ok(19_900));
        assert_eq!(capacity(None, 1, u64::MAX), Ok(1 << 20));
        assert_eq!(capacity(None, 4, u64::MAX), Ok(1 << 19));
        assert_eq!(capacity(None, 1024, u64::MAX), Ok(1 << 16));
        let sentence = capacity(NonZeroU32::new(50_000), 2, 20_000).unwrap_err();
        assert!(sentence.contains("19900 per shard") && sentence.contains("ulimit -n 50100"), "{sentence}");
        assert!(capacity(NonZeroU32::new(2 << 20), 2, u64::MAX).unwrap_err().contains("raise --shards"));
        assert!(capacity(None, 1, 64).unwrap_err().contains("ulimit -n"));
    }
}
