//! RFC 6455, rule by rule, against the real binary: a raw client sends exact bytes to `/bus/...`, which
//! gives every message back, and asserts exact frames and close codes. Categories follow those of the
//! Autobahn test suite; every case names its section of the RFC.
//!
//! With `RINGYARD_CONFORMANCE_TLS=1` the whole suite runs over `wss`.

mod client;
mod closing;
mod control;
mod fragments;
mod framing;
mod limits;
mod refusals;
mod text;
mod tls;

#[allow(dead_code, reason = "the integration tests ask for counters too")]
#[path = "../support/broker.rs"]
mod broker;
