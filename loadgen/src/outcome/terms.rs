//! On which terms subscribers were delivered to, and what was left out for that.

use serde::{Deserialize, Serialize};

/// What a server answered about slow consumers and throttles, and how often it delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Terms {
    /// The answers that were not the usual one, each with the number of subscriptions that got it.
    pub answers: Vec<Answer>,
    /// Messages left out for newer ones of their key, on topics with `latest`. That is no error.
    pub conflated: u64,
    /// Subscriptions whose deliveries were counted: those of clients that verify every message and read at once.
    pub subscriptions: u64,
    /// Deliveries to them in the measured time: messages that came together count once.
    pub deliveries: u64,
}

/// The same answer to some subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// `disconnect`, `skip` or `latest`.
    pub slow_consumer: String,
    /// Milliseconds between two deliveries at least; 0: no throttle.
    pub throttle_ms: u64,
    /// Subscriptions: one topic of one connection each.
    pub subscriptions: u64,
}

impl Terms {
    /// Adds those of another process.
    pub fn add(&mut self, other: &Self) {
        for answer in &other.answers {
            let same = |known: &&mut Answer| {
                (&known.slow_consumer, known.throttle_ms) == (&answer.slow_consumer, answer.throttle_ms)
            };
            match self.answers.iter_mut().find(same) {
                Some(known) => known.subscriptions += answer.subscriptions,
                None => self.answers.push(answer.clone()),
            }
        }
        self.conflated += other.conflated;
        self.subscriptions += other.subscriptions;
        self.deliveries += other.deliveries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_answers_are_added() {
        let answer = |slow_consumer: &str, throttle_ms, subscriptions| Answer {
            slow_consumer: slow_consumer.into(),
            throttle_ms,
            subscriptions,
        };
        let part = |answers| Terms { answers, conflated: 1, subscriptions: 2, deliveries: 3 };
        let mut whole = part(vec![answer("latest", 100, 5)]);
        whole.add(&part(vec![answer("latest", 100, 2), answer("latest", 50, 1), answer("skip", 0, 4)]));
        assert_eq!(whole.answers, [answer("latest", 100, 7), answer("latest", 50, 1), answer("skip", 0, 4)]);
        assert_eq!((whole.conflated, whole.subscriptions, whole.deliveries), (2, 4, 6));
    }
}
