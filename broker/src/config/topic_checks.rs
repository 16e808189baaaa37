//! What can be wrong with the `[[topic]]` tables of the file.

use std::collections::HashMap;
use std::time::Duration;

use protocol::topic::is_reserved;

use crate::config::provenance::Section;
use crate::config::topics::{OF_PRESENCE, TOPIC, TopicTable, is_meant};
use crate::config::values;

/// Longest value of `throttle`.
const THROTTLE_TOP: Duration = Duration::from_secs(5);
/// What can be set for the broker's own topics, whose names begin with `$`.
const OF_RESERVED: &[&str] = &["match", "throttle"];
/// Most tables: a topic holds the number of its rule in 16 bits.
const TABLES_MAX: usize = 65_000;

/// The tables of a file. `topic_bytes_max` is `max-topic`, `lag_bytes_max` is `max-lag` of the top.
///
/// # Errors
/// A sentence for everything that is wrong with one table, or between two, in the order of the file.
pub(super) fn read(
    settings: &Section,
    topic_bytes_max: usize,
    lag_bytes_max: u64,
) -> Result<Vec<TopicTable>, Vec<String>> {
    let sections: Vec<_> = settings.tables.iter().filter(|section| section.table.name == TOPIC.name).collect();
    let (mut wrong, mut seen) = (Vec::new(), HashMap::new());
    if let Some(section) = sections.get(TABLES_MAX) {
        wrong.push(format!("{}: there are {} [[topic]] tables: at most {TABLES_MAX}", section.source, sections.len()));
    }
    for section in &sections {
        wrong.extend(wrong_filter(section, topic_bytes_max, &mut seen));
        wrong.extend(meaningless(section));
        wrong.extend(wrong_lag(section, lag_bytes_max));
        wrong.extend(wrong_throttle(section));
    }
    if wrong.is_empty() { Ok(sections.into_iter().map(TopicTable::new).collect()) } else { Err(wrong) }
}

/// What is wrong with the filter of a table, given those before it.
fn wrong_filter(section: &Section, bytes_max: usize, seen: &mut HashMap<String, String>) -> Option<String> {
    let Some(filter) = section.find::<String>("match") else {
        return Some(format!("{}: the table [[topic]] needs match: a filter such as 'chat/#'", section.source));
    };
    let source = section.source_of("match");
    if filter.len() > bytes_max {
        return Some(format!(
            "{source}: invalid value '{filter}' for match: it has {} bytes, and --max-topic is {bytes_max}",
            filter.len()
        ));
    }
    let first = seen.insert(filter.clone(), source.to_string())?;
    Some(format!("{source}: invalid value '{filter}' for match: {first} has the same filter; a filter has one table"))
}

/// What is wrong with the `max-lag` of a table.
fn wrong_lag(section: &Section, bytes_max: u64) -> Option<String> {
    let bytes = section.find::<u64>("max-lag").filter(|bytes| *bytes > bytes_max)?;
    let (source, value) = (section.source_of("max-lag"), values::Size(bytes));
    Some(format!("{source}: invalid value '{value}' for max-lag: --max-lag is {}", values::Size(bytes_max)))
}

/// What is wrong with the `throttle` of a table.
fn wrong_throttle(section: &Section) -> Option<String> {
    let throttle = section.find::<Duration>("throttle").filter(|throttle| *throttle > THROTTLE_TOP)?;
    let source = section.source_of("throttle");
    Some(format!("{source}: invalid value '{}ms' for throttle: it must be at most 5s", throttle.as_millis()))
}

/// Sentences about keys that mean nothing beside the table's kind of history, or for the broker's own topics.
fn meaningless(section: &Section) -> Vec<String> {
    let set = || TOPIC.keys().filter(|key| !section.source_of(key.name).is_default());
    if is_reserved(&section.find::<String>("match").unwrap_or_default()) {
        let others = set().filter(|key| !OF_RESERVED.contains(&key.name));
        let wrong = others.map(|key| {
            let source = section.source_of(key.name);
            format!(
                "{source}: {} cannot be set for topics that begin with $, the broker's own: only throttle can",
                key.name
            )
        });
        return wrong.collect();
    }
    let history = TopicTable::new(section).history;
    let has_presence = section.get::<bool>("presence");
    let alone = set()
        .filter(|key| !has_presence && OF_PRESENCE.contains(&key.name))
        .map(|key| format!("{}: {} has no meaning without presence = true", section.source_of(key.name), key.name));
    let others = set().filter(|key| !is_meant(key.name, history)).map(|key| {
        let word: String = section.get("history");
        format!(
            "{}: {} has no meaning with history = \"{word}\": remove the one or change the other",
            section.source_of(key.name),
            key.name
        )
    });
    alone.chain(others).collect()
}
