//! The TLS handshakes of a run over `wss://`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Latencies;

/// The handshakes that were completed, of all connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Those in which the server proved its identity with its certificate.
    pub full: u64,
    /// Those that went on from an earlier one.
    pub resumed: u64,
    /// All of them by version: `TLS 1.3`.
    pub versions: BTreeMap<String, u64>,
    /// From the connect's success until the end of the handshake.
    pub handshake: Latencies,
    /// Certificates were not checked (`--tls-insecure`).
    pub unchecked: bool,
}

impl Tls {
    /// Adds those of another process.
    pub fn add(&mut self, other: &Self) {
        self.full += other.full;
        self.resumed += other.resumed;
        other.versions.iter().for_each(|(version, count)| *self.versions.entry(version.clone()).or_default() += count);
        let mut all = self.handshake.histogram();
        all.add(other.handshake.histogram()).expect("the same bounds");
        self.handshake = Latencies::of(&all);
        self.unchecked |= other.unchecked;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::histogram;

    #[test]
    fn handshakes_of_all_processes_are_added() {
        let part = |full, nanos, version: &str| {
            let mut took = histogram();
            took.record(nanos).unwrap();
            let versions = [(version.to_owned(), full)].into();
            Tls { full, resumed: 1, versions, handshake: Latencies::of(&took), unchecked: full == 2 }
        };
        let mut whole = part(1, 1000, "TLS 1.2");
        whole.add(&part(2, 3000, "TLS 1.3"));
        assert_eq!((whole.full, whole.resumed, whole.unchecked), (3, 2, true));
        assert_eq!(whole.versions, [("TLS 1.2".to_owned(), 1), ("TLS 1.3".to_owned(), 2)].into());
        assert_eq!((whole.handshake.count, whole.handshake.p50, whole.handshake.max), (2, 1000, 3001));
    }
}
