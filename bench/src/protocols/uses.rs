//! The uses: what is published how often, to how many, and how soon it is wanted; and the rule by which a protocol is judged for one.

use serde::{Deserialize, Serialize};

/// How many times the costs of a WebSocket a protocol may have.
pub(super) const COST_MAX: f64 = 3.0;
/// A short poll asks so often within the time in which a message is wanted.
pub(super) const POLLS_PER_DEADLINE: u32 = 2;

/// One use. Its figures are what such a page does, rounded; they are not measured anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    /// Its name on the command line.
    pub(super) key: String,
    /// Its name for readers.
    pub(super) name: String,
    /// Messages published per second, in one topic.
    pub(super) rate: u32,
    /// Bytes of a message.
    pub(super) bytes: usize,
    /// Who gets each message.
    pub(super) subscribers: usize,
    /// Whether these publish, in turn; else one other client does.
    pub(super) everybody_publishes: bool,
    /// Within how many milliseconds a message is wanted, from its publishing on.
    pub(super) deadline_ms: u32,
}

/// All uses, in the order of the tables.
pub(super) fn all() -> Vec<Use> {
    let of = |key: &str, name: &str, (rate, bytes, subscribers), everybody_publishes, deadline_ms| Use {
        key: key.to_owned(),
        name: name.to_owned(),
        rate,
        bytes,
        subscribers,
        everybody_publishes,
        deadline_ms,
    };
    vec![
        of("chat", "Chat", (2, 200, 50), true, 1000),
        of("editing", "Collaborative editing", (20, 100, 10), true, 250),
        of("game", "Game", (240, 48, 8), true, 100),
        of("status", "Status page", (2, 1000, 200), false, 2000),
        of("railway", "Model railway", (20, 80, 4), true, 150),
    ]
}

/// What a protocol costs for one use, per delivered message, and how late messages are: medians of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Costs {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Processor time of the broker, in microseconds.
    pub(super) cpu_us: f64,
    /// Bytes that all clients sent and received.
    pub(super) bytes: f64,
    /// Requests of all clients.
    pub(super) requests: f64,
    /// Messages that did not arrive, of all rounds.
    pub(super) missing: u64,
}

/// Whether a protocol serves a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Fits,
    CostsMuch,
    DoesNotServe,
}

impl Verdict {
    /// As tables say it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::CostsMuch => "costs much",
            Self::DoesNotServe => "does not serve",
        }
    }
}

/// Judges a protocol for a use, against a WebSocket in the same run; and says why.
pub(super) fn judge(wanted: &Use, costs: &Costs, websocket: &Costs) -> (Verdict, String) {
    if costs.missing > 0 {
        return (Verdict::DoesNotServe, format!("{} messages did not arrive", costs.missing));
    }
    if costs.p99_ms > f64::from(wanted.deadline_ms) {
        return (Verdict::DoesNotServe, format!("later than {} ms", wanted.deadline_ms));
    }
    let (cpu, bytes) = (costs.cpu_us / websocket.cpu_us, costs.bytes / websocket.bytes);
    let why = format!("{cpu:.1} x the processor time, {bytes:.1} x the bytes of a WebSocket");
    if cpu.max(bytes) > COST_MAX { (Verdict::CostsMuch, why) } else { (Verdict::Fits, why) }
}

/// The rule, for readers.
pub(super) fn rule() -> Vec<String> {
    vec![
        "A use is a rate, a size, a number of subscribers, who publishes, and within what time a message is wanted.".to_owned(),
        "Does not serve: the 99th percentile of the time from publishing to arrival is above that, or a message did not arrive."
            .to_owned(),
        format!(
            "Costs much: it serves, but its processor time or its bytes per delivered message are more than {COST_MAX:.0} times those of a \
             WebSocket with ringyard.v1 in the same run. Fits: neither."
        ),
        format!(
            "A short poll asks {POLLS_PER_DEADLINE} times within the time in which a message is wanted. Over a WebSocket messages are published \
             on the same connection, otherwise by POST."
        ),
        "Processor time is the broker's, the kernel's work for it included. Bytes are those of all clients in both directions, heads and frames \
         included, TCP and IP not."
            .to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let wanted = &all()[0];
        let websocket = Costs { p50_ms: 1.0, p99_ms: 2.0, cpu_us: 10.0, bytes: 100.0, requests: 0.0, missing: 0 };
        let judged = |costs: Costs| judge(wanted, &costs, &websocket).0;
        assert_eq!(judged(websocket), Verdict::Fits);
        assert_eq!(judged(Costs { cpu_us: 30.0, bytes: 300.0, p99_ms: 1000.0, ..websocket }), Verdict::Fits);
        assert_eq!(judged(Costs { cpu_us: 30.1, ..websocket }), Verdict::CostsMuch);
        assert_eq!(judged(Costs { bytes: 301.0, ..websocket }), Verdict::CostsMuch);
        assert_eq!(judged(Costs { p99_ms: 1000.1, ..websocket }), Verdict::DoesNotServe);
        assert_eq!(judged(Costs { missing: 1, ..websocket }), Verdict::DoesNotServe);
    }

    #[test]
    fn uses_have_names_of_their_own() {
        let mut keys: Vec<_> = all().into_iter().map(|wanted| wanted.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all().len());
    }
}
