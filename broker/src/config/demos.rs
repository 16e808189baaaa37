//! The topic rules of the demos, which are built in, so that these work without a file.
//!
//! They hold unless a `[[topic]]` table of the file matches topics below `demos/`: whoever wrote one knows better.

use crate::config::file;
use crate::config::provenance::Section;
use crate::config::settings::SETTINGS;
use crate::config::topics::{TOPIC, TopicTable};

const RULES: &str = include_str!("../web/demos/ringyard.toml");

/// The tables of a file, and those of the demos unless the file has one for them.
pub(crate) fn with_demos(own: &[TopicTable]) -> Vec<TopicTable> {
    let is_for_demos = |table: &TopicTable| matches!(table.filter.split('/').next(), Some("demos" | "+" | "#"));
    let demos = if own.iter().any(is_for_demos) { Vec::new() } else { tables() };
    own.iter().cloned().chain(demos).collect()
}

fn tables() -> Vec<TopicTable> {
    let file: Section = file::parse("built in, demos/ringyard.toml", RULES, &SETTINGS).expect("a valid file");
    file.tables.iter().filter(|section| section.table.name == TOPIC.name).map(TopicTable::new).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::topic_checks;
    use crate::config::topics::HistoryKind;

    use super::*;

    fn filters(own: &[&str]) -> Vec<String> {
        let table = |filter: &&str| TopicTable { filter: (*filter).to_owned(), ..TopicTable::default() };
        let own: Vec<_> = own.iter().map(table).collect();
        with_demos(&own).into_iter().map(|table| table.filter).collect()
    }

    #[test]
    fn the_demos_have_their_rules_unless_the_file_has_one_for_them() {
        let of_demos = filters(&[]);
        assert_eq!(of_demos.len(), 8);
        assert!(of_demos.iter().all(|filter| filter.starts_with("demos/")), "{of_demos:?}");
        assert_eq!(filters(&["chat/#", "demo/#"]), [&["chat/#".to_owned(), "demo/#".to_owned()], &*of_demos].concat());
        for own in ["#", "+/x", "+", "demos/#", "demos/mine"] {
            assert_eq!(filters(&["chat/#", own]), ["chat/#", own]);
        }
    }

    #[test]
    fn they_are_as_a_file_of_ones_own_may_have_them() {
        let file = file::parse("demos/ringyard.toml", RULES, &SETTINGS).unwrap();
        assert_eq!(topic_checks::read(&file, 512, 4 << 20).unwrap().len(), 8);
        let throttle = tables().into_iter().find(|table| table.filter == "demos/rail/throttle/+").unwrap();
        assert!(throttle.is_exclusive);
        let awareness = tables().into_iter().find(|table| table.filter == "demos/doc/+/awareness").unwrap();
        assert_eq!((awareness.history, awareness.throttle), (HistoryKind::Keyed, Duration::from_millis(50)));
        assert_eq!(awareness.source.split(':').next(), Some("built in, demos/ringyard.toml"));
    }
}
