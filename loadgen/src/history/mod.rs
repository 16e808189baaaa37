//! What a client may rely on when a topic has a history, as rules that a run checks.
//!
//! | file | what it is |
//! | --- | --- |
//! | `sequence` | the offsets of one topic at one client: nothing missing, nothing twice, and every answer about recovery true |
//! | `newest` | conflation: numbers rise and, after silence, the newest message of each key has arrived |
//! | `throttled` | throttles: a subscriber is sent to at most once per interval |
//!
//! Pure: what a server said comes in, a fault comes out. Not responsible for parsing (`adapter`), for counting (`worker`),
//! nor for the payloads, whose stamps are checked as always. Cost of a message: a comparison, no allocation.

mod newest;
mod sequence;
mod throttled;

pub use self::newest::{Backwards, Newest, newest};
pub use self::sequence::{Answer, Begun, Fault, Sequence};
pub use self::throttled::Throttled;
