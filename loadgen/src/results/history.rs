//! The lines about recovery after a drop, and about the state that newcomers begin with.

use super::percentiles;
use crate::format::{bytes, count, of, seconds, time};
use crate::outcome::{Arrival, History, Outcome};

pub(super) fn history(outcome: &Outcome) -> Vec<String> {
    let Some(history) = &outcome.history else { return Vec::new() };
    let mut lines = vec![recovery(history), announced(history)];
    if history.state_messages > 0 {
        let states = of(history.states, "subscriber");
        lines.push(format!("{} of state, complete at {states}", of(history.state_messages, "message")));
    }
    if history.catch_up.count > 0 {
        lines.push(format!("connect until complete: {}", percentiles(&history.catch_up)));
    }
    lines.extend(history.arrivals.iter().map(arrival));
    if let Some(ns) = history.recovery_cpu_ns() {
        lines.push(format!("server CPU for what was missed, beyond handshakes: {}", time(ns as f64)));
    }
    lines
}

fn recovery(history: &History) -> String {
    let answers = history.recovered + history.not_recovered;
    if answers == 0 && history.drops == 0 {
        return String::new();
    }
    let interrupted = match history.interrupted {
        0 => String::new(),
        some => format!(" ({} before they had caught up)", count(some)),
    };
    let mut text = format!(
        "{} dropped{interrupted}; {} recovered, {} not; {} replayed",
        of(history.drops, "connection"),
        of(history.recovered, "subscription"),
        count(history.not_recovered),
        of(history.replayed, "message")
    );
    if history.withheld > 0 {
        text += &format!("; {} not recovered although the topic had everything", count(history.withheld));
    }
    text
}

fn announced(history: &History) -> String {
    let answers = history.recovered + history.not_recovered;
    if answers == 0 && history.gaps == 0 && history.resets == 0 {
        return String::new();
    }
    format!(
        "{} announced as missing ({}, {}); {} missing without that, {} twice",
        of(history.announced, "message"),
        of(history.gaps, "gap"),
        of(history.resets, "reset"),
        count(history.holes),
        count(history.doubles)
    )
}

fn arrival(arrival: &Arrival) -> String {
    let who = match arrival.behind {
        Some(behind) => format!("{} behind by about {} each", of(arrival.clients, "client"), of(behind, "message")),
        None => of(arrival.clients, "client"),
    };
    let mut text = format!("{who} at once: {}", seconds(arrival.seconds));
    if arrival.messages > 0 {
        text += &format!(", {}, {}", of(arrival.messages, "message"), bytes(arrival.bytes as f64));
    }
    if let Some(ns) = arrival.server_cpu_ns {
        text += &format!(", server CPU {}", time(ns as f64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_and_arrivals() {
        let arrivals = vec![
            Arrival { clients: 1000, seconds: 0.5, server_cpu_ns: Some(40_000_000), ..Arrival::default() },
            Arrival {
                clients: 1000,
                behind: Some(100),
                seconds: 1.0,
                messages: 100_000,
                bytes: 1 << 20,
                server_cpu_ns: Some(100_000_000),
                ..Arrival::default()
            },
        ];
        let history = History {
            drops: 7,
            interrupted: 2,
            recovered: 5,
            not_recovered: 2,
            replayed: 30,
            holes: 1,
            arrivals,
            ..History::default()
        };
        let outcome = Outcome { history: Some(history), ..Outcome::default() };
        assert_eq!(
            super::history(&outcome),
            [
                "7 connections dropped (2 before they had caught up); 5 subscriptions recovered, 2 not; 30 messages replayed",
                "0 messages announced as missing (0 gaps, 0 resets); 1 missing without that, 0 twice",
                "1,000 clients at once: 500 ms, server CPU 40.0 ms",
                "1,000 clients behind by about 100 messages each at once: 1.00 s, 100,000 messages, 1.00 MiB, server CPU 100 ms",
                "server CPU for what was missed, beyond handshakes: 60.0 ms",
            ]
        );
        assert!(super::history(&Outcome::default()).is_empty());
        let state = History { state_messages: 12, states: 1, ..History::default() };
        let outcome = Outcome { history: Some(state), ..Outcome::default() };
        assert_eq!(super::history(&outcome).concat(), "12 messages of state, complete at 1 subscriber");
    }
}
