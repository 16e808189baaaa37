//! Starts the shards, one thread with one driver each, and tells when they end.
//!
//! Not responsible for what a shard does. A shard ends by [`ControlMessage::Shutdown`] or because its driver broke;
//! the latter ends the broker, because its connections are gone.
//!
//! Which driver it is, is known from here on at compile time: there is one kind of shard for each.
//!
//! [`ControlMessage::Shutdown`]: crate::shard::shared::ControlMessage::Shutdown

use std::io;
use std::iter;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use ring::epoll::{self, EpollDriver};
use ring::uring::{self, UringDriver};
use ring::{Driver, Io};
use tokio::sync::mpsc;

use crate::capacity::connections::Capacity;
use crate::config::limits::Limits;
use crate::ids::ShardId;
use crate::shard::shared::SharedState;
use crate::shard::{Shard, ShardSetup};

/// What one shard accepts from: the listener of `--listen`, and that of `--tls-listen`.
type Listeners = (Arc<OwnedFd>, Option<Arc<OwnedFd>>);

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
    /// Starts a shard per listener, which accepts from one of `tls_listeners` as well, if there are any. None accepts connections before all have their drivers: they would be lost if the
    /// start failed, and a predecessor that goes on would have served them.
    ///
    /// # Errors
    /// A sentence that says what to change, when a driver or a thread cannot be made. The caller ends the
    /// process then.
    pub fn start(
        listeners: Vec<Arc<OwnedFd>>,
        tls_listeners: Vec<Arc<OwnedFd>>,
        room: &Capacity,
        shared: &Arc<SharedState>,
        limits: &Arc<Limits>,
    ) -> Result<Self, String> {
        let capacity = room.shard_connections_max;
        let seconds = tls_listeners.into_iter().map(Some).chain(iter::repeat(None));
        let listeners = listeners.into_iter().zip(seconds).collect();
        match room.io {
            Io::Uring => Self::start_on(listeners, shared, limits, move |(listener, second)| {
                let setup = uring::Setup { listener: Some(listener), second, capacity, ..uring::Setup::default() };
                UringDriver::new(setup).map_err(|error| error.to_string())
            }),
            Io::Epoll => Self::start_on(listeners, shared, limits, move |(listener, second)| {
                let setup = epoll::Setup { listener: Some(listener), second, capacity, ..epoll::Setup::default() };
                EpollDriver::new(setup).map_err(|error| error.to_string())
            }),
        }
    }

    /// A driver belongs to its shard's thread, so it is made there.
    fn start_on<D: Driver>(
        listeners: Vec<Listeners>,
        shared: &Arc<SharedState>,
        limits: &Arc<Limits>,
        make: impl Fn(Listeners) -> Result<D, String> + Copy + Send + 'static,
    ) -> Result<Self, String> {
        let running = listeners.len();
        let (ended, ends) = mpsc::channel(running);
        let (started, starts) = std::sync::mpsc::sync_channel::<Result<(), String>>(running);
        let mut begins = Vec::with_capacity(running);
        for (id, listener) in ShardId::all(u16::MAX).zip(listeners) {
            let setup = ShardSetup { id, shared: Arc::clone(shared), limits: Arc::clone(limits) };
            let (started, ended) = (started.clone(), ended.clone());
            let (begin, begun) = std::sync::mpsc::sync_channel::<()>(1);
            begins.push(begin);
            let run = move || match make(listener) {
                Ok(driver) => {
                    let _ = started.send(Ok(()));
                    if begun.recv().is_err() {
                        return; // Another has failed.
                    }
                    let result = Shard::new(driver, setup).run();
                    // Capacity for one end per shard; and nobody listens only when the process ends.
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
            starts.recv().expect("a shard reports its start")?;
        }
        for begin in begins {
            begin.send(()).expect("a shard waits for this");
        }
        Ok(Self { ends, running })
    }

    /// Waits until a shard ends although nobody asked it to; says so. Cancel safe.
    pub(crate) async fn failure(&mut self) -> String {
        let end = self.ends.recv().await;
        self.running -= 1;
        match end {
            Some(End { shard, result: Err(error) }) => format!("shard {shard} failed: {error}"),
            Some(End { shard, .. }) => format!("shard {shard} ended although nobody asked it to"),
            None => "all shards are gone".to_owned(),
        }
    }

    /// Waits until all have ended.
    pub(crate) async fn all_ended(&mut self) -> Result<(), String> {
        while self.running > 0 {
            let end = self.ends.recv().await.ok_or("a shard ended without a word")?;
            self.running -= 1;
            end.result.map_err(|error| format!("shard {} failed while shutting down: {error}", end.shard))?;
        }
        Ok(())
    }
}
