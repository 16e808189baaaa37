//! From a sequenced message to the sends of its subscribers.
//!
//! | file | step |
//! | --- | --- |
//! | `append` | messages get into logs; congested topics |
//! | `log` | what waits for the subscribers of one topic or filter |
//! | `deliver` | delivery rounds: one send carries all that waits |
//! | `lag` | subscribers that are far behind |

pub(crate) mod append;
pub(crate) mod deliver;
pub(crate) mod lag;
pub mod log;
