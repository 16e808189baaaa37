//! What fits on this machine, and what of it is used.
//!
//! | file | what |
//! | --- | --- |
//! | [`budget`] | the account of all memory held for clients |
//! | [`buffer`], [`shared_bytes`] | bytes that are charged to it: a buffer, and what many refer to |
//! | [`log_shares`] | what each shard keeps for subscribers, as all shards see it |
//! | [`memory`] | what the process takes at most, added up at start |
//! | [`connections`] | how many connections there is room for: descriptors and memory |
//! | [`memlock`] | whether the rings of all shards may be locked in memory |
//! | [`machine`] | what /proc and /sys say of the machine |
//! | [`doctor`] | `ringyard doctor`: all of this for the operator, with what to change |

pub mod budget;
pub mod buffer;
pub mod connections;
pub mod doctor;
pub mod log_shares;
pub mod machine;
pub mod memlock;
pub mod memory;
pub mod shared_bytes;
