//! A deterministic simulation of the broker: several shards, their network and their clients in one
//! thread, from one seed, checked against a model that knows nothing of how the broker works.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`params`] | what a seed stands for |
//! | `run`   | rounds: shards, clients and time take turns |
//! | `client/` | simulated clients, good and bad |
//! | `plane` | the control plane's part |
//! | `operator` | what operators do to users |
//! | [`access`] | tokens, and what is granted to whom |
//! | `presence` | sessions, and where clients may be present |
//! | `finish` | how a run ends, and what must be true then |
//! | [`model`] | what must be true of every history |
//! | [`payload`] | what messages say |
//! | [`rules`] | what topics remember |
//! | [`report`] | outcomes, failures, and which events were met |

pub mod access;
mod client;
mod finish;
pub mod leases;
pub mod model;
mod operator;
pub mod params;
pub mod payload;
mod plane;
mod presence;
pub mod report;
pub mod rules;
mod run;
mod trace;

pub use params::Params;
pub use report::{Coverage, Failure, Outcome};
pub use run::run;
