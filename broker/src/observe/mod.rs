//! What the broker counts, and the log lines that it makes of that once a second.
//!
//! | file | what |
//! | --- | --- |
//! | [`counter`] | one counter: one writer, many readers |
//! | [`counters`] | all counters of a shard, and the reasons that ends and refusals are counted by |
//! | `histogram` | distributions of times and numbers |
//! | [`refused`] | what was refused last, as far as an operator would look for it |
//! | `events` | once a second, what grew becomes log lines |
//! | `process` | what the process uses, as /proc says it |
//!
//! Not responsible for `/metrics` and `/api/stats`, which are in `http`, nor for writing the log (`server/log.rs`).

pub mod counter;
pub mod counters;
pub(crate) mod events;
pub(crate) mod histogram;
pub(crate) mod process;
pub mod refused;
