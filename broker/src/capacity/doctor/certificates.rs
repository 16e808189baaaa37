//! The certificates of `[[tls]]`: whether they are good, and for how long.

use crate::capacity::doctor::{Facts, Finding, Plan};

/// From here on, in days, somebody has to see to it.
const DAYS_FEW: u64 = 14;
const DAY_SECONDS: u64 = 86_400;

/// A finding for each table; nothing without `--tls-listen`.
pub(super) fn look(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let name = "certificate";
    let finding = |(file, end): &(String, Result<u64, String>)| match end {
        Err(why) => Finding::problem(name, why, "name a certificate and its key, as PEM, in [[tls]]"),
        Ok(expires_s) => {
            let days = expires_s.saturating_sub(facts.now.as_secs()) / DAY_SECONDS;
            let value = format!("{file}: ends in {days} day{}", if days == 1 { "" } else { "s" });
            if days >= DAYS_FEW {
                return Finding::ok(name, value);
            }
            Finding::warning(
                name,
                value,
                "renew it: writing the new files is enough, the broker looks every 30 seconds",
            )
        }
    };
    plan.certificates.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capacity::doctor::Status;

    #[test]
    fn a_certificate_is_warned_of_two_weeks_before_its_end() {
        let facts = Facts { io_uring: Ok(Vec::new()), cores: 1, now: Duration::from_secs(1000), misnamed: Vec::new() };
        let found = |end| {
            let certificates = vec![("a.pem".to_owned(), end)];
            let plan = Plan {
                io: None,
                shards: 1,
                asked: None,
                memory_asked: None,
                memory_bytes_least: 0,
                certificates,
                wrong: Vec::new(),
            };
            look(&plan, &facts).remove(0)
        };
        let in_days = |days| Ok(1000 + days * DAY_SECONDS);
        assert_eq!(found(in_days(14)).status, Status::Ok);
        let soon = found(in_days(13));
        assert_eq!((soon.status, soon.value.as_str()), (Status::Warning, "a.pem: ends in 13 days"));
        assert_eq!(found(Err("a.pem cannot be read".to_owned())).status, Status::Problem);
    }
}
