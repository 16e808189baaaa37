//! Variables of the environment that look like a setting and are none. Nobody else would tell: what is not read is
//! not complained of. Other programs have variables that begin with `RINGYARD_` too (Kubernetes makes some for a
//! service of that name), so only close misses count.

use crate::config::options::{command, settings, variable};

/// So many wrong letters are a slip.
const SLIP: usize = 2;

/// Those of `names` that are close to a setting's variable, each with that.
#[must_use]
pub fn suggestions_for(names: impl IntoIterator<Item = String>) -> Vec<(String, String)> {
    let command = command();
    let variables: Vec<_> = settings(&command).map(|(name, _)| variable(name)).collect();
    let slip = |name: String| {
        let nearest = variables.iter().min_by_key(|variable| distance(&name, variable))?;
        (1..=SLIP).contains(&distance(&name, nearest)).then(|| (name, nearest.clone()))
    };
    names.into_iter().filter(|name| name.to_ascii_uppercase().starts_with("RINGYARD")).filter_map(slip).collect()
}

/// How many letters must be added, removed or replaced to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_misses_are_told_and_others_are_not() {
        for (name, meant) in [
            ("RINGYARD_MAX_CONECTIONS", Some("RINGYARD_MAX_CONNECTIONS")),
            ("RINGYARD_SHARD", Some("RINGYARD_SHARDS")),
            ("RINGYARDMAX_LAG", Some("RINGYARD_MAX_LAG")),
            ("RINGYARD_MAX_LAG", None),
            ("RINGYARD_SERVICE_HOST", None),
            ("RINGYARD_PORT_8080_TCP", None),
            ("RINGYARD_PORT", None),
            ("RINGYARD_PUBLISH", None),
            ("HOME", None),
        ] {
            let suggested = suggestions_for([name.to_owned()]);
            assert_eq!(suggested.first().map(|(_, meant)| meant.as_str()), meant, "{name}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "abd", 1), ("kitten", "sitting", 3)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
