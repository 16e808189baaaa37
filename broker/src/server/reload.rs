//! SIGHUP: what can be read again is read again, and the log says what that was.
//!
//! | read again | in force |
//! | --- | --- |
//! | `log-level` in the file of `--config` | at once |
//! | the `[[topic]]` tables in that file | at once; another kind of `history` for new topics only, with the filters in the log |
//! | all other settings in that file | after a restart; the log names those that have changed |
//! | the tables `[auth]`, `[[allow]]` and `[[key]]`, but `keys-url` | at once, for open connections too |
//! | the `[[tls]]` tables, and the files that they name | for new connections |
//! | the files with keys that `[auth]` names | for the next token that was not seen before |
//! | the keys in the file of `--publish-key` | for the next request or handshake |
//!
//! Flags and environment are those of the start, and win over the file as they did then. A file with a mistake changes
//! nothing: the log has the sentences that a start would have been refused with.

use std::env;

use tracing::{error, info, warn};

use crate::access::authority::Authority;
use crate::access::keys::{Loaded, PublishKeys};
use crate::config::auth::AccessTables;
use crate::config::tls::TlsTable;
use crate::config::topics::TopicTable;
use crate::config::{self, Config, LogLevel, Stop, Surroundings, Task};
use crate::server::log;
use crate::server::rules::from_tables;
use crate::server::tls::Watch;
use crate::topics::keys::Keys;
use crate::topics::rules::{Rule, SharedRules};

/// Filters that one line of the log names.
const FILTERS_SHOWN: usize = 20;
/// Settings that hold as soon as they are read.
const AT_ONCE: &[&str] = &["log-level"];

/// The settings as they are in force.
#[derive(Debug)]
pub(crate) struct Settings {
    here: Surroundings,
    level: LogLevel,
    written: Vec<(&'static str, String)>,
    topics: Vec<TopicTable>,
    access: AccessTables,
    tls: Vec<TlsTable>,
    /// What the filters of topic rules are hashed under.
    names: Keys,
}

impl Settings {
    /// Those of the start. Filters of topic rules are hashed under `names`.
    pub(crate) fn new(config: &Config, here: Surroundings, names: Keys) -> Self {
        let (written, topics, access) = (config.written.clone(), config.topics.clone(), config.access.clone());
        let tls = config.tls_tables.clone();
        Self { here, level: config.log.level, written, topics, access, tls, names }
    }

    /// The `[[tls]]` tables of the start.
    pub(crate) fn tls_tables(&self) -> Vec<TlsTable> {
        self.tls.clone()
    }

    /// Reads everything again that can be. Returns whether what clients may do has changed.
    pub(crate) fn read_again(&mut self, rules: &SharedRules, authority: &Authority, watch: &Watch) -> bool {
        match config::read(env::args_os(), |name| env::var_os(name), &self.here) {
            Ok(Task::Serve(config)) => {
                let changes = self.take(&config.written);
                let level = config.log.level;
                // The line about it is logged if either level allows that.
                log::set_level(self.level.max(level));
                info!(signal = "SIGHUP", "settings were read again: {changes}");
                self.take_rules(config.topics, rules);
                watch.take(config.tls_tables);
                let has_changed = self.take_access(config.access, authority);
                log::set_level(level);
                self.level = level;
                has_changed
            }
            Err(Stop::Refused(sentences)) => {
                let sentences = sentences.replace('\n', "; ");
                error!(
                    signal = "SIGHUP",
                    "settings were read again and are wrong, so nothing has changed: {sentences}"
                );
                false
            }
            // The arguments are those of a broker, as they were at the start.
            Ok(_) | Err(Stop::Shown(_)) => false,
        }
    }

    /// Puts topic rules in force, if they have changed, and logs what that means.
    fn take_rules(&mut self, read: Vec<TopicTable>, in_force: &SharedRules) {
        if says_the_same(&read, &self.topics) {
            return;
        }
        let new = from_tables(&read, self.names);
        let changed = listed(&in_force.current().history_changes(&new));
        let number = read.len();
        in_force.replace(new);
        self.topics = read;
        info!(signal = "SIGHUP", rules = number, "the topic rules have changed, from now on");
        if !changed.is_empty() {
            warn!(
                signal = "SIGHUP",
                filters = changed,
                "another kind of `history` holds for new topics; existing ones keep theirs until they are forgotten"
            );
        }
    }

    /// Puts rules for clients and the keys in files in force. With a file that is wrong nothing changes.
    fn take_access(&mut self, read: AccessTables, authority: &Authority) -> bool {
        if read.is_empty() && self.access.is_empty() {
            return false;
        }
        if let Err(sentence) = authority.reload(Some(&read)) {
            error!(signal = "SIGHUP", "rules and keys of clients stay as they were: {sentence}");
            return false;
        }
        let (grants, api_keys, trusted_keys) = (read.allows.len(), read.keys.len(), authority.trusted_keys());
        info!(signal = "SIGHUP", grants, api_keys, trusted_keys, "rules and keys of clients were read again");
        self.access = read;
        true
    }

    /// Puts those in force that can be, and says what has changed.
    fn take(&mut self, read: &[(&'static str, String)]) -> String {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for ((name, value), (_, in_force)) in read.iter().zip(&mut self.written) {
            if value == in_force {
                continue;
            }
            let change = if value.is_empty() { format!("{name} by default") } else { format!("{name} = {value}") };
            if AT_ONCE.contains(name) {
                in_force.clone_from(value);
                now.push(change);
            } else {
                later.push(change);
            }
        }
        match (now.is_empty(), later.is_empty()) {
            (true, true) => "none of them has changed".to_owned(),
            (false, true) => format!("{} from now on", now.join(", ")),
            (true, false) => format!("{} after a restart (`ringyard restart`)", later.join(", ")),
            (false, false) => {
                format!("{} from now on; {} after a restart (`ringyard restart`)", now.join(", "), later.join(", "))
            }
        }
    }
}

/// Filters for a line of the log.
fn listed(filters: &[&str]) -> String {
    let shown = filters.iter().take(FILTERS_SHOWN).copied().collect::<Vec<_>>().join(", ");
    match filters.len().checked_sub(FILTERS_SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown}, and {more} more"),
    }
}

/// Whether both give the same rules. Lines and order do not matter.
fn says_the_same(a: &[TopicTable], b: &[TopicTable]) -> bool {
    let rules = |tables: &[TopicTable]| {
        let mut rules: Vec<_> = tables.iter().map(Rule::from).collect();
        rules.sort_by(|a, b| a.filter.cmp(&b.filter));
        rules
    };
    rules(a) == rules(b)
}

/// Reads the file of `--publish-key` again, if there is one.
pub(crate) fn keys(keys: &PublishKeys) {
    match keys.reload() {
        Ok(None) => {}
        Ok(Some(Loaded { keys, warning })) => {
            info!(signal = "SIGHUP", keys, "the keys of --publish-key were read again");
            if let Some(warning) = warning {
                warn!("{warning}");
            }
        }
        Err(sentence) => error!(signal = "SIGHUP", "the keys that were in force stay: {sentence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_so_many_filters() {
        let filters: Vec<_> = (0..22).map(|n| format!("f{n}")).collect();
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        assert_eq!(listed(&filters[..2]), "f0, f1");
        assert!(listed(&filters[..20]).ends_with(", f19"));
        assert!(listed(&filters).ends_with(", f19, and 2 more"));
    }

    #[test]
    fn what_changes_now_and_what_later_is_named() {
        let written = |level: &str, shards: &str| vec![("log-level", level.to_owned()), ("shards", shards.to_owned())];
        let here = Surroundings { cores: 2, memory_bytes_default_max: 1 << 30 };
        let (written_first, names) = (written("info", ""), Keys::from_seed(1));
        let access = AccessTables::default();
        let mut settings = Settings {
            here,
            level: LogLevel::Info,
            written: written_first,
            topics: Vec::new(),
            tls: Vec::new(),
            access,
            names,
        };
        assert_eq!(settings.take(&written("info", "")), "none of them has changed");
        assert_eq!(settings.take(&written("debug", "")), "log-level = debug from now on");
        let both = settings.take(&written("warn", "4"));
        assert_eq!(both, "log-level = warn from now on; shards = 4 after a restart (`ringyard restart`)");
        let still = settings.take(&written("warn", "4"));
        assert_eq!(still, "shards = 4 after a restart (`ringyard restart`)", "it is not in force yet");
        settings.written = written("warn", "4");
        assert_eq!(settings.take(&written("warn", "")), "shards by default after a restart (`ringyard restart`)");
    }
}
