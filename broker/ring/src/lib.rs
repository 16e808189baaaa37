//! The broker's only way to the kernel, and the only crate of the workspace with `unsafe` code.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`driver`](crate::Driver) | the contract: operations in, completions out; [`Dial`], what a client needs besides |
//! | [`gather`](crate::Gather) | bytes to send, shared by reference and pinned while a send names them |
//! | [`uring`] | the real driver: one io_uring per shard |
//! | [`epoll`] | the driver for hosts where io_uring is forbidden: one epoll per shard |
//! | [`probe`](crate::probe()) | which of the two this host allows, and why not io_uring |
//! | [`features`](crate::features()) | which features of io_uring the kernel has |
//! | [`sim`] | a simulated network with a seeded clock, for deterministic tests |
//! | [`random`](crate::Random) | random numbers that a seed replays |
//! | [`waker`](crate::Waker) | wakes a driver that sleeps, from any thread |
//! | [`listen`] | listening sockets (`SO_REUSEPORT`), with start-up errors as sentences |
//! | [`floor`] | the measuring stick: bare sends and nothing else |
//! | `socket` | addresses as the kernel reads them, and making sockets of them |
//! | [`limits`] | how many descriptors the process may open |
//! | [`signals`] | signals held back until the runtime handles them |
//! | [`sandbox`] | for tests: system calls forbidden as containers forbid them |
//!
//! The rule that makes the crate sound: **an operation may name only memory that this crate owns, and
//! that memory stays pinned until the operation's last completion.** Nothing outside can break it,
//! because nothing outside hands in pointers: sends take a [`Gather`] by value, receives lend out buffers
//! that the driver owns.

mod clock;
mod driver;
pub mod epoll;
mod features;
pub mod floor;
mod gather;
pub mod limits;
pub mod listen;
pub mod peer;
mod probe;
mod random;
pub mod sandbox;
pub mod signals;
pub mod sim;
mod socket;
#[cfg(test)]
mod testing;
pub mod uring;
mod waker;

pub use clock::monotonic;
pub use driver::{ACCEPTS_PER_TURN, AcceptEnd, ConnId, Counters, Dial, Driver, Event, Nanos, ReceiveEnd, nanos};
pub use features::{Feature, features, is_at_least};
pub use gather::Gather;
pub use probe::{Cause, Io, probe};
pub use random::Random;
pub use waker::Waker;
