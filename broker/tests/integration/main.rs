//! The real binary, driven from outside by clients that are not ours: tokio-tungstenite for WebSockets, bare
//! TCP for HTTP. Nothing here sleeps and hopes: every wait is for an answer and has a limit.

mod access;
mod admission;
mod audience;
mod bounds;
mod calls;
mod churn;
mod conflation;
mod dashboard;
mod descriptors;
mod doors;
mod drivers;
mod endpoints;
mod events;
mod families;
mod fetched_keys;
mod history;
mod http;
mod large;
mod lease_fights;
mod lease_rights;
mod leases;
mod log;
mod many;
mod metrics;
mod operator;
mod order;
mod output;
mod planes;
mod policy;
mod presence;
mod presence_users;
mod publish;
mod publishers;
mod purge;
mod refusals;
mod refused;
mod revoked;
mod rotation;
mod rules;
mod shutdown;
mod signals;
mod silence;
mod slow;
mod startup;
mod takeover;
mod tls;
mod tls_reload;
mod upgrade;
mod v1;
mod ways;
mod wills;
mod ws;

#[path = "../support/broker.rs"]
mod broker;
