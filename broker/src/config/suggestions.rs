//! Near misses: the known name that somebody probably meant.

use crate::config::schema::Key;
use crate::config::settings::{FILE, SETTINGS};

/// So many wrong letters in the name of a variable are a slip. Other programs have variables that begin with
/// `RINGYARD_` too: Kubernetes makes some for a service of that name.
const SLIP: usize = 2;

/// The one of `names` that differs least from `name`, in at most so many letters, but in one at least.
pub(super) fn nearest<'a>(name: &str, names: &[&'a str], letters_max: usize) -> Option<&'a str> {
    let distances = names.iter().map(|known| (strsim::osa_distance(name, known), *known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (1..=letters_max.max(1)).contains(&distance).then_some(known)
}

/// Those of the `names` of variables that are close to a setting's, each with that. Nothing reads them.
#[must_use]
pub fn suggestions_for(names: impl IntoIterator<Item = String>) -> Vec<(String, String)> {
    let variables: Vec<_> = std::iter::once(&FILE).chain(SETTINGS.keys()).map(Key::variable).collect();
    let variables: Vec<_> = variables.iter().map(String::as_str).collect();
    let ours = names.into_iter().filter(|name| name.to_ascii_uppercase().starts_with("RINGYARD"));
    ours.filter_map(|name| nearest(&name, &variables, SLIP).map(str::to_owned).map(|meant| (name, meant))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_misses_are_named_and_others_are_not() {
        for (name, meant) in [
            ("RINGYARD_MAX_CONECTIONS", Some("RINGYARD_MAX_CONNECTIONS")),
            ("RINGYARD_SHARD", Some("RINGYARD_SHARDS")),
            ("RINGYARDMAX_LAG", Some("RINGYARD_MAX_LAG")),
            ("RINGYARD_MAX_LGA", Some("RINGYARD_MAX_LAG")),
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
    fn the_nearest_name_is_suggested() {
        let names = ["max-lag", "max-log", "max-topics"];
        for (name, expected) in [
            ("max_lag", Some("max-lag")),
            ("maxtopics", Some("max-topics")),
            ("max-lag", None),
            ("topic", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &names, name.len() / 3), expected, "{name}");
        }
    }
}
