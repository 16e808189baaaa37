//! The contract of [`ring::Driver`], case by case, on every driver: io_uring and epoll over loopback TCP, the
//! simulated network in calm, and the simulated network with faults.
//!
//! | file | what it is |
//! | --- | --- |
//! | `harness` | what drives a driver: a world that makes it and plays its clients |
//! | `opening` | accepting, adopting, installing; whose a connection is |
//! | `receiving`, `sending` | bytes, in either direction |
//! | `progress` | how far a connection's output has got |
//! | `closing` | the join of a close, and the driver's own end |
//! | `turns` | what ends a turn |
//! | `dialling` | the contract of [`ring::Dial`], on those drivers that dial |

mod closing;
mod dialling;
mod harness;
mod opening;
mod progress;
mod receiving;
mod sending;
mod turns;

use harness::{Calm, Epoll, Harness, Options, Rough, Run, Uring, with_seeds};

/// A test of each case of the calling module per driver.
macro_rules! on_every_driver {
    ($($case:ident)*) => {
        mod uring { $(#[test] fn $case() { super::$case::<crate::Uring>() })* }
        mod epoll { $(#[test] fn $case() { super::$case::<crate::Epoll>() })* }
        mod simulated { $(#[test] fn $case() { super::$case::<crate::Calm>() })* }
        mod simulated_rough {
            $(#[test] fn $case() { crate::with_seeds(super::$case::<crate::Rough>) })*
        }
    };
}
use on_every_driver;

macro_rules! on_every_driver_that_dials {
    ($($case:ident)*) => {
        mod uring_dials { $(#[test] fn $case() { crate::dialling::$case::<crate::Uring>() })* }
        mod epoll_dials { $(#[test] fn $case() { crate::dialling::$case::<crate::Epoll>() })* }
    };
}

on_every_driver_that_dials! {
    a_dialled_connection_is_like_an_accepted_one
    a_dial_goes_out_by_ipv6
    a_dialled_socket_is_prompt_and_never_blocks
    a_refused_dial_leaves_nothing
    a_dial_goes_out_from_its_source
    a_source_of_somebody_else_is_refused
    a_full_table_dials_nothing
    one_receive_is_one_receive
    one_receive_without_buffers_says_so
    discards_count_every_byte
    discards_keep_up_with_a_flood
    a_discard_sees_the_end_of_the_stream
    a_discard_stops_and_a_receive_follows
    a_close_with_a_discard_in_flight_reports_closed_only
    a_stale_id_receives_nothing
    a_dropped_driver_ends_its_dials
    five_thousand_dials_all_stand
}

/// A world with the usual driver.
fn run<H: Harness>() -> Run<H> {
    Run::new(Options::default())
}
