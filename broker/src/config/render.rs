//! Settings as a TOML file: all values with their sources (`config show`), or all settings with their explanations and
//! defaults (`config example`). Either can be passed back with `--config`.

use std::fmt::Write;

use crate::config::provenance::Section;
use crate::config::schema::Table;

/// Longest line of a comment, in characters.
const LINE: usize = 100;

/// Every setting with its value and source. A setting that follows others is a comment with the value that `following`
/// knows for it, so that it still follows them when the file is passed back.
pub(super) fn show(settings: &Section, following: impl Fn(&Section, &str) -> Option<String>) -> String {
    let mut text = format!("# The settings of ringyard {}, and where each comes from.\n", env!("CARGO_PKG_VERSION"));
    show_keys(&mut text, settings, &following);
    for section in &settings.tables {
        let _ = writeln!(text, "\n{} # {}", section.table.header(), section.source);
        show_keys(&mut text, section, &following);
    }
    text
}

fn show_keys(out: &mut String, section: &Section, following: &dyn Fn(&Section, &str) -> Option<String>) {
    for key in section.table.keys() {
        let (name, source, values) = (key.name, section.source_of(key.name), section.texts(key));
        let _ = match following(section, name) {
            _ if !values.is_empty() || key.is_list() => writeln!(out, "{name} = {} # {source}", key.literal(&values)),
            Some(value) => {
                writeln!(out, "# {name} = {} # {source}: {}", key.literal(&[value]), key.default_text())
            }
            None => writeln!(out, "# {name} is not set: {}", key.default_text()),
        };
    }
}

/// Every setting, each commented out, below its explanation.
pub(super) fn example(schema: &Table) -> String {
    let mut text = comment(schema.help);
    example_keys(&mut text, schema);
    for table in schema.tables {
        let _ = write!(text, "\n\n{}#{}\n", comment(&format!("{}.", table.help)), table.header());
        example_keys(&mut text, table);
    }
    text
}

fn example_keys(out: &mut String, table: &Table) {
    for group in table.groups {
        if !group.heading.is_empty() {
            let _ = write!(out, "\n\n# {}\n", group.heading);
        }
        for key in group.keys {
            let mut about = format!("{}. Default: {}.", key.help, key.default_text());
            if table.name.is_empty() {
                let _ = write!(about, " Environment: {}.", key.variable());
            }
            let _ = write!(about, " Since {}.", key.since);
            let value = key.literal(&[key.example().to_owned()]);
            let _ = write!(out, "\n{}#{} = {value}\n", comment(&about), key.name);
        }
    }
}

/// `text` in lines that begin with `# `.
fn comment(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::from("#"));
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::settings::SETTINGS;
    use crate::config::tests::{read, refused, shown};
    use crate::config::{Config, Task};

    fn config(text: &str) -> Config {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("ringyard-render-{}-{number}.toml", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let task = read(&["--config", file.to_str().unwrap()]).unwrap();
        std::fs::remove_file(&file).unwrap();
        let Task::Serve(config) = task else { panic!("{task:?}") };
        *config
    }

    #[test]
    fn the_example_has_every_setting_with_its_default() {
        let example = example(&SETTINGS);
        for key in SETTINGS.keys() {
            assert!(example.contains(&format!("\n#{} = ", key.name)), "{}", key.name);
        }
        assert!(example.lines().all(|line| line.chars().count() <= 120));
        assert_eq!(config(&example), config(""));
        // These do not go with others: with the defaults of `history` and `presence`, and with tables of access control.
        let alone = ["#tombstone-ttl", "#presence-members", "#presence-info", "#publish-key"];
        let uncommented: Vec<_> = example
            .lines()
            .filter(|line| !alone.iter().any(|start| line.starts_with(start)))
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .collect();
        let config = config(&uncommented.join("\n"));
        assert_eq!((config.shards, config.limits.origins.len(), config.topics.len()), (2, 1, 1));
    }

    #[test]
    fn the_example_in_the_repository_is_what_the_binary_prints() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/ringyard.toml");
        let kept = std::fs::read_to_string(kept).unwrap();
        assert!(
            kept == shown(&["config", "example"]),
            "stale: run `cargo run -- config example > deploy/ringyard.toml`"
        );
    }

    #[test]
    fn what_is_shown_can_be_fed_back() {
        let flags = [
            "--max-lag=8m",
            "--shards=3",
            "--proxy-protocol",
            "--trusted-proxy=10.0.0.0/8,::1",
            "--allow-origin=https://a",
            "--max-connections=7",
            "--drain-delay=3s",
        ];
        let Ok(Task::Serve(asked)) = read(&flags) else { panic!("these flags are right") };
        let shown = shown(&[&["config", "show"][..], &flags].concat());
        assert_eq!(config(&shown), *asked, "{shown}");
        for line in [
            "max-lag = \"8m\" # flag",
            "trusted-proxy = [\"10.0.0.0/8\", \"::1\"] # flag",
            "proxy-protocol = true # flag",
            "max-connections = 7 # flag",
            "# max-frame = \"1m\" # default: the same as --max-message",
            "max-message = \"1m\" # default",
            "allow-host = [] # default",
            "# accept-rate is not set: no limit",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
    }

    #[test]
    fn nothing_is_shown_of_a_configuration_that_is_wrong() {
        assert!(refused(&["config", "show", "--max-lag", "1k"]).contains("--max-lag (1k, flag)"));
    }
}
