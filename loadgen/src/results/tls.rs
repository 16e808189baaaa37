//! The lines about TLS handshakes.

use super::percentiles;
use crate::format::{count, of};
use crate::outcome::Outcome;

pub(super) fn tls(outcome: &Outcome) -> Vec<String> {
    let Some(tls) = &outcome.tls else { return Vec::new() };
    let versions: Vec<_> =
        tls.versions.iter().map(|(version, number)| format!("{} × {version}", count(*number))).collect();
    let mut text = format!("{}, {} resumed", of(tls.full, "full handshake"), count(tls.resumed));
    if !versions.is_empty() {
        text += &format!(" ({})", versions.join(", "));
    }
    let unchecked = if tls.unchecked { "certificates were not checked (--tls-insecure)" } else { "" };
    vec![text, percentiles(&tls.handshake), unchecked.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Latencies, Tls, histogram};

    #[test]
    fn handshakes() {
        let mut took = histogram();
        took.record(2_000_000).unwrap();
        let versions = [("TLS 1.2".to_owned(), 1), ("TLS 1.3".to_owned(), 1200)].into();
        let tls = Tls { full: 1000, resumed: 201, versions, handshake: Latencies::of(&took), unchecked: true };
        let text = super::tls(&Outcome { tls: Some(tls), ..Outcome::default() });
        assert_eq!(text[0], "1,000 full handshakes, 201 resumed (1 × TLS 1.2, 1,200 × TLS 1.3)");
        assert!(text[1].starts_with("p50 2.00 ms   p90"), "{}", text[1]);
        assert_eq!(text[2], "certificates were not checked (--tls-insecure)");
        assert!(super::tls(&Outcome::default()).is_empty());
    }
}
