//! The lines about policies for slow consumers and throttles.

use crate::format::{count, number, of};
use crate::outcome::{Answer, Outcome};

pub(super) fn terms(outcome: &Outcome) -> Vec<String> {
    let Some(terms) = &outcome.terms else { return Vec::new() };
    let mut lines: Vec<_> = terms.answers.iter().map(answer).collect();
    if terms.conflated > 0 {
        lines.push(format!("{} left out for newer ones of their key", of(terms.conflated, "message")));
    }
    if let Some(deliveries) = outcome.deliveries_per_subscription() {
        let mut text = format!("{} deliveries per subscription and second", number(deliveries));
        if let Some(sends) = outcome.sends_per_client() {
            text += &format!(", {} sends per client and second", number(sends));
        }
        lines.push(text);
    }
    lines
}

fn answer(answer: &Answer) -> String {
    let mut text =
        format!("{} with slow-consumer = \"{}\"", of(answer.subscriptions, "subscription"), answer.slow_consumer);
    if answer.throttle_ms > 0 {
        text += &format!(", at most one delivery in {} ms", count(answer.throttle_ms));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Connect, ServerUse, Terms};

    #[test]
    fn answers_and_deliveries() {
        let answer = |slow_consumer: &str, throttle_ms| Answer {
            slow_consumer: slow_consumer.into(),
            throttle_ms,
            subscriptions: 20,
        };
        let terms = Terms {
            answers: vec![answer("latest", 100), answer("skip", 0)],
            conflated: 1234,
            subscriptions: 10,
            deliveries: 990,
        };
        let mut outcome = Outcome { terms: Some(terms), seconds: 10.0, ..Outcome::default() };
        let text = super::terms(&outcome);
        assert_eq!(
            text,
            [
                "20 subscriptions with slow-consumer = \"latest\", at most one delivery in 100 ms",
                "20 subscriptions with slow-consumer = \"skip\"",
                "1,234 messages left out for newer ones of their key",
                "9.90 deliveries per subscription and second",
            ]
        );
        outcome.connect = Connect { opened: 20, ..Connect::default() };
        outcome.server = Some(ServerUse { sends: Some(2000), ..ServerUse::default() });
        assert!(super::terms(&outcome)[3].ends_with("second, 10.0 sends per client and second"));
        outcome.terms.as_mut().unwrap().subscriptions = 0;
        assert_eq!(super::terms(&outcome).len(), 3);
        assert!(super::terms(&Outcome::default()).is_empty());
    }
}
