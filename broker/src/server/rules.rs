//! Topic rules of the configuration: made for the broker, and explained by `ringyard topic`.
//!
//! Not responsible for reading the file ([`config`](crate::config)), nor for which rule applies
//! ([`topics::rules`](crate::topics::rules)).

use std::fmt::Write;

use crate::config::demos::with_demos;
use crate::config::topics::{TopicTable, Written};
use crate::topics::keys::Keys;
use crate::topics::rules::{Rule, Rules, first_difference};

/// Rules from the tables of a configuration, and those of the demos.
///
/// # Panics
/// If two filters are equal, or there are too many: the configuration was checked.
pub(crate) fn from_tables(tables: &[TopicTable], keys: Keys) -> Rules {
    Rules::new(with_demos(tables).iter().map(Rule::from).collect(), keys).expect("a checked configuration")
}

/// Which rule applies to `topic`, which others match it and what decides against them, and each value with its source.
#[must_use]
pub fn explain(topic: &str, tables: &[TopicTable]) -> String {
    let rules = from_tables(tables, Keys::from_seed(0));
    let tables = with_demos(tables);
    let applies = rules.rule_of(topic);
    let filter = &rules.get(applies).filter;
    let table = tables.iter().find(|table| table.filter == *filter);
    let mut text = match (table, applies) {
        (Some(table), _) => format!("To {topic} the rule {filter} applies, {}.\n", table.source),
        (None, id) if id.is_built_in() => format!("To {topic} the built-in rule {filter} applies.\n"),
        (None, _) => format!("To {topic} no rule in a [[topic]] table applies: it has the defaults.\n"),
    };
    for other in rules.matching(topic).into_iter().filter(|id| *id != applies) {
        let other = &rules.get(other).filter;
        let source = tables.iter().find(|table| table.filter == *other).map_or("built in", |table| &table.source);
        let _ = writeln!(text, "{other}, {source}, matches too, but {}.", decision(filter, other));
    }
    text.push('\n');
    let values = match (table, applies) {
        (Some(table), _) => table.written.clone(),
        (None, id) if id.is_built_in() => TopicTable::built_in(filter).written,
        (None, _) => TopicTable::default().written,
    };
    for Written { name, value, source } in values {
        let _ = writeln!(text, "{name} = {value} # {source}");
    }
    text
}

/// Why the filter that applies wins against another.
fn decision(filter: &str, other: &str) -> String {
    let Some((level, [wins, loses])) = first_difference(filter, other) else {
        return "it is the same".to_owned();
    };
    let name = |level: Option<&str>| level.map_or("the end".to_owned(), |level| format!("'{level}'"));
    format!("in level {level} {} beats {}", name(wins), name(loses))
}

#[cfg(test)]
mod tests {
    use crate::topics::rules::{History, Retain};

    use super::*;

    #[test]
    fn what_is_said_of_the_built_in_rule_is_so() {
        let rules = Rules::default();
        let rule = rules.get(rules.rule_of("$sys/topics"));
        assert_eq!((rule.history, rule.retain, rule.stamps_time), (History::None, Retain::Never, false));
        let text = explain("$sys/topics", &[]);
        assert!(text.contains("the built-in rule $sys/topics applies.\n\nhistory = \"none\" # built in\n"), "{text}");
        let text = explain("$sys/load", &[]);
        assert!(text.starts_with("To $sys/load the built-in rule $sys/load applies.\n"), "{text}");
        assert!(text.contains("\nhistory = \"window\" # built in\n"), "{text}");
    }

    #[test]
    fn the_rules_of_the_demos_name_where_they_are_from() {
        let text = explain("demos/game", &[]);
        assert!(
            text.starts_with("To demos/game the rule demos/game applies, built in, demos/ringyard.toml:"),
            "{text}"
        );
        let own = TopicTable { filter: "#".to_owned(), source: "r.toml:1".to_owned(), ..TopicTable::default() };
        let text = explain("demos/game", &[own]);
        assert!(text.starts_with("To demos/game the rule # applies, r.toml:1.\n\n"), "{text}");
    }

    #[test]
    fn defaults_are_shown_where_no_rule_applies() {
        let text = explain("chat/7", &[]);
        for line in ["history = \"window\" # default", "history-bytes = \"256k\" # default", "stamp = [] # default"] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
