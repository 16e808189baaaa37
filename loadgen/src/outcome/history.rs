//! What clients made of the topics' histories: recovery after a drop, and the state that newcomers begin with.

use serde::{Deserialize, Serialize};

use super::Latencies;

/// Recovery and state. Announced means: by `recovered: false` or a `gap`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Connections dropped by this program, to come back.
    pub drops: u64,
    /// Those of them whose client had not got everything yet that it had missed before.
    pub interrupted: u64,
    /// Subscriptions (one topic of one connection) that were answered with `recovered: true`.
    pub recovered: u64,
    /// Those that were answered with `recovered: false`.
    pub not_recovered: u64,
    /// Those of the latter whose topic had all they missed: one recovery may not replay so much.
    pub withheld: u64,
    /// Messages published while their client was away that it got.
    pub replayed: u64,
    /// Gaps that were announced.
    pub gaps: u64,
    /// Messages announced not to come, where the number is known (in one epoch).
    pub announced: u64,
    /// Resets that were announced.
    pub resets: u64,
    /// Messages missing that were not announced. They also count as lost or misnumbered.
    pub holes: u64,
    /// Messages that a client had already. They also count as doubled or misnumbered.
    pub doubles: u64,
    /// Messages flagged as state.
    pub state_messages: u64,
    /// Newcomers that got all of their state.
    pub states: u64,
    /// From the connect until everything missed, or all of the state, had come.
    pub catch_up: Latencies,
    /// All clients at once, after publishing had ended.
    pub arrivals: Vec<Arrival>,
}

/// All clients connect at once, and catch up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arrival {
    /// How many.
    pub clients: u64,
    /// They came with a position, each about so many messages back; nothing: without.
    pub behind: Option<u64>,
    /// From the first connect until the last had everything, in seconds.
    pub seconds: f64,
    /// Messages that they received.
    pub messages: u64,
    /// Bytes that they received, frames included.
    pub bytes: u64,
    /// The server's processor time for it: handshakes, answers and messages. Needs `--server-pid`.
    pub server_cpu_ns: Option<u64>,
    /// This program's.
    pub own_cpu_ns: u64,
}

impl History {
    /// Adds the counts of another, but for its distribution and its arrivals.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.drops, other.drops),
            (&mut self.interrupted, other.interrupted),
            (&mut self.recovered, other.recovered),
            (&mut self.not_recovered, other.not_recovered),
            (&mut self.withheld, other.withheld),
            (&mut self.replayed, other.replayed),
            (&mut self.gaps, other.gaps),
            (&mut self.announced, other.announced),
            (&mut self.resets, other.resets),
            (&mut self.holes, other.holes),
            (&mut self.doubles, other.doubles),
            (&mut self.state_messages, other.state_messages),
            (&mut self.states, other.states),
        ] {
            *sum = sum.saturating_add(count);
        }
    }

    /// Whether anything of it happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The server's processor time for what clients with positions missed, beyond that for clients without: nanoseconds.
    #[must_use]
    pub fn recovery_cpu_ns(&self) -> Option<u64> {
        let cpu = |with: bool| {
            self.arrivals
                .iter()
                .find(|arrival| arrival.behind.is_some() == with)
                .and_then(|arrival| arrival.server_cpu_ns)
        };
        Some(cpu(true)?.saturating_sub(cpu(false)?))
    }
}
