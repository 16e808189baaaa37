//! The life of the process.
//!
//! | file | what it does |
//! | --- | --- |
//! | `start` | starts everything, in the order in which it may fail |
//! | `lifecycle` | signals and shutdown |
//! | `shards` | one thread with one driver for each shard |
//! | `signals` | which signals end the broker, and which are only logged |
//! | `reload` | SIGHUP: settings are read again |
//! | `rules` | topic rules from the configuration; `ringyard topic` |
//! | `takeover` | a successor takes over from a running broker |
//! | `notify` | the readiness message to a service manager |
//! | `restart` | `ringyard restart` |
//! | `log`, `crash` | the log; a panic ends the process |
//! | `announce`, `output` | what is printed at start, and by commands |
//! | `credentials` | `ringyard key new`, `ringyard auth check`, and the files of keys in `ringyard config check` |
//! | `token_keys` | the thread that reads files of keys again and fetches `keys-url` |
//! | `doctor`, `healthcheck` | `ringyard doctor`, `ringyard healthcheck` |

pub(crate) mod announce;
pub mod crash;
pub mod credentials;
pub mod doctor;
pub mod healthcheck;
pub(crate) mod lifecycle;
pub mod log;
pub(crate) mod notify;
pub mod output;
pub(crate) mod reload;
pub mod restart;
pub mod rules;
pub mod shards;
pub(crate) mod signals;
pub mod start;
pub(crate) mod takeover;
mod tls;
pub mod token_keys;
