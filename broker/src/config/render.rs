//! Settings written as a TOML file: all that hold now (`config show`), or all that there are (`config example`).
//!
//! Both are made from the definitions of the options, so that a new option is in them. A file that either printed
//! can be passed back with `--config`.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::Config;
use crate::config::options::{FILE, settings, variable};
use crate::config::sources::Sources;
use crate::config::values::{Size, members, truth};

/// Longest line of a comment, in characters.
const LINE: usize = 100;

/// Every setting that holds, with its source. What has no value of its own is shown in a comment, so that it still
/// follows what it follows when the file is passed back.
pub(super) fn show(command: &Command, matches: &ArgMatches, sources: &Sources, config: &Config) -> String {
    let mut text = format!("# The settings of ringyard {}, and where each comes from.\n", env!("CARGO_PKG_VERSION"));
    for (name, arg) in settings(command).filter(|(name, _)| *name != FILE) {
        let values: Vec<String> = matches
            .get_raw(arg.get_id().as_str())
            .into_iter()
            .flatten()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let values = match Kind::of(arg) {
            Kind::List => values.iter().flat_map(|value| members(value)).map(str::to_owned).collect(),
            _ => values,
        };
        let source = sources.of(name);
        let line = match (effective(name, config), values.is_empty()) {
            (_, false) => format!("{name} = {} # {source}", literal(arg, &values)),
            (_, true) if Kind::of(arg) == Kind::List => format!("{name} = [] # {source}"),
            (Some(value), true) => format!("# {name} = {} # {source}: {}", literal(arg, &[value]), default(arg)),
            (None, true) => format!("# {name} is not set: {}", default(arg)),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// A file with every setting, each in a comment that explains it and gives its default.
pub(super) fn example(command: &Command) -> String {
    let mut text = String::from(
        "# Every setting of ringyard with its default. Printed by `ringyard config example`; `ringyard config check FILE`\n\
         # tells whether a file is right. A flag or a variable of the environment outdoes what stands here. To change a\n\
         # setting, take away the # in front of it.\n",
    );
    let mut heading = None;
    for (name, arg) in settings(command).filter(|(name, _)| *name != FILE) {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            text.push_str(&format!("\n\n# {}\n", heading.unwrap_or_default()));
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.split(" [default: ").next().unwrap_or_default();
        let variable = variable(name);
        text.push('\n');
        text.push_str(&comment(&format!("{help}. Default: {}. Environment: {variable}.", default(arg))));
        let values: Vec<_> =
            arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        let values = if values.is_empty() { vec![instance(name, arg).to_owned()] } else { values };
        text.push_str(&format!("#{name} = {}\n", literal(arg, &values)));
    }
    text
}

/// What holds when nobody says anything.
fn default(arg: &Arg) -> String {
    if let [value, ..] = arg.get_default_values() {
        return value.to_string_lossy().into_owned();
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let told = help.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
    told.unwrap_or("none").to_owned()
}

/// What holds instead of a setting that has no value of its own, where the configuration alone tells that.
fn effective(name: &str, config: &Config) -> Option<String> {
    match name {
        "shards" => Some(config.shards.to_string()),
        "max-frame" => Some(Size(config.limits.frame_bytes_max).to_string()),
        "max-lag" => Some(Size(config.limits.lag_bytes_max).to_string()),
        "max-log" => Some(Size(config.limits.log_bytes_max).to_string()),
        _ => None,
    }
}

/// An example value for a setting without a fixed default.
fn instance(name: &str, arg: &Arg) -> &'static str {
    match name {
        "shards" => "2",
        "max-connections" => "100000",
        "max-frame" => "1m",
        "max-lag" => "4m",
        "max-log" => "256m",
        "max-memory" => "1g",
        "allow-origin" => "https://example.org",
        "allow-host" => "example.org",
        "trusted-proxy" => "10.0.0.0/8",
        _ if Kind::of(arg) == Kind::Number => "1000",
        _ => "",
    }
}

/// How TOML writes a value.
#[derive(PartialEq, Eq, Debug)]
enum Kind {
    Number,
    Truth,
    List,
    Text,
}

impl Kind {
    fn of(arg: &Arg) -> Self {
        let value_name = arg.get_value_names().and_then(<[_]>::first).map(|name| name.as_str());
        match (arg.get_action(), value_name) {
            (ArgAction::Append, _) => Self::List,
            (_, Some("N")) => Self::Number,
            (_, Some("BOOL")) => Self::Truth,
            _ => Self::Text,
        }
    }
}

fn literal(arg: &Arg, values: &[String]) -> String {
    let text = |value: &String| toml::Value::String(value.trim().to_owned()).to_string();
    let first = values.first().map(|value| value.trim()).unwrap_or_default();
    match Kind::of(arg) {
        Kind::List => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        Kind::Number => first.to_owned(),
        // What is shown was read before.
        Kind::Truth => truth(first).is_ok_and(|value| value).to_string(),
        Kind::Text => values.first().map(text).unwrap_or_default(),
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
    use crate::config::tests::{read, refused, shown};
    use crate::config::{Config, Task, options};

    fn config(text: &str) -> Config {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("ringyard-written-{}-{number}.toml", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let task = read(&["--config", file.to_str().unwrap()]).unwrap();
        std::fs::remove_file(&file).unwrap();
        let Task::Serve(config) = task else { panic!("{task:?}") };
        *config
    }

    #[test]
    fn the_example_has_every_setting_with_its_default() {
        let example = example(&options::command());
        for (name, arg) in settings(&options::command()).filter(|(name, _)| *name != FILE) {
            assert!(example.contains(&format!("\n#{name} = ")), "{name}");
            assert!(!instance(name, arg).is_empty() || !arg.get_default_values().is_empty(), "{name} has no example");
        }
        assert!(example.lines().all(|line| line.chars().count() <= 120));
        assert_eq!(config(&example), config(""));
        let uncommented: Vec<_> = example
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .collect();
        let config = config(&uncommented.join("\n"));
        assert_eq!((config.shards, config.limits.origins.len()), (2, 1));
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
            "# max-frame = \"1m\" # default: what --max-message says",
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
