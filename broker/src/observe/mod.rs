//! What the broker counts, and the log lines that it makes of it once a second. `/metrics` and `/api/stats` are in
//! `http`.

pub mod counter;
pub mod counters;
pub(crate) mod events;
pub(crate) mod histogram;
pub(crate) mod process;
