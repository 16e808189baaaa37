//! The TOML file: its text becomes flags, so that a value in it is read, and refused, as the flag's would be.
//!
//! Every key is the name of a setting, at the top level: there are no tables. A value is a string, a whole number or
//! a boolean; for a repeatable setting also a list of those.
//!
//! Complaints are sentences that begin with `FILE:LINE:`. All are found that can be found in one look: with wrong
//! syntax the syntax only.

use std::path::Path;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::options::{self, settings};
use crate::config::refusal::sentence;

/// What a file says.
#[derive(Debug)]
pub(super) struct File {
    /// As the operator named it.
    pub(super) name: String,
    settings: Vec<Setting>,
}

/// What a file says of one setting.
#[derive(Debug)]
pub(super) struct Setting {
    name: String,
    /// From 1.
    pub(super) line: usize,
    /// The same, as flags; none for an empty list.
    flags: Vec<String>,
}

impl File {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path, command: &Command) -> Result<Self, Vec<String>> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(name, &text, command),
            Err(error) => Err(vec![format!("{name}: the file of --config cannot be read: {error}")]),
        }
    }

    /// Reads `text`, the content of the file `name`.
    pub(super) fn parse(name: String, text: &str, command: &Command) -> Result<Self, Vec<String>> {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let (table, wrong) = DeTable::parse_recoverable(text);
        if !wrong.is_empty() {
            let told = |error: &toml::de::Error| {
                let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
                format!("{name}:{}: this is no TOML: {message}", line(error.span().map_or(0, |span| span.start)))
            };
            let mut wrong: Vec<_> = wrong.iter().map(told).collect();
            wrong.dedup();
            return Err(wrong);
        }
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let (mut settings, mut wrong) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            let line = line(key.span().start);
            match flags(key.get_ref(), value, command) {
                Ok(flags) => settings.push(Setting { name: key.get_ref().to_string(), line, flags }),
                Err(complaint) => wrong.push(format!("{name}:{line}: {complaint}")),
            }
        }
        if wrong.is_empty() { Ok(Self { name, settings }) } else { Err(wrong) }
    }

    /// What it says of the setting `name`.
    pub(super) fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// The flags of those settings of which `wanted` says so.
    pub(super) fn flags<'a>(&'a self, wanted: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'a str> + 'a {
        let wanted = self.settings.iter().filter(move |setting| wanted(&setting.name));
        wanted.flat_map(|setting| setting.flags.iter().map(String::as_str))
    }
}

/// One key's value as flags that the command line takes, or what is wrong with it.
fn flags(key: &str, value: &Spanned<DeValue<'_>>, command: &Command) -> Result<Vec<String>, String> {
    let found = settings(command).find(|(name, _)| *name == key && key != options::FILE);
    let Some((_, arg)) = found else { return Err(unknown(key, value.get_ref(), command)) };
    let flags = match value.get_ref() {
        DeValue::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
            values.iter().map(|value| flag(key, value.get_ref())).collect::<Result<Vec<_>, _>>()?
        }
        DeValue::Array(_) => return Err(format!("{key} takes one value, not a list")),
        value => vec![flag(key, value)?],
    };
    // Alone, so that nothing else can be what is complained of.
    match command.clone().try_get_matches_from(std::iter::once("ringyard").chain(flags.iter().map(String::as_str))) {
        Ok(_) => Ok(flags),
        Err(error) => Err(as_key(&sentence(&error), key, arg)),
    }
}

fn flag(key: &str, value: &DeValue<'_>) -> Result<String, String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
        DeValue::Integer(number) => {
            let text = number.as_str().replace('_', "");
            i64::from_str_radix(&text, number.radix()).map_or(text, |number| number.to_string())
        }
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            return Err(format!("{key} takes a string, a whole number, true or false"));
        }
    };
    Ok(format!("--{key}={text}"))
}

/// The sentence about a flag as one about a key: the line in the file already says where.
fn as_key(sentence: &str, key: &str, arg: &Arg) -> String {
    sentence.replace(&format!("'{arg}'"), key).replace(&format!("--{key}"), key)
}

/// A key that names no setting; if it is close to one, says to which.
fn unknown(key: &str, value: &DeValue<'_>, command: &Command) -> String {
    if key == options::FILE {
        return format!("a file cannot name another with {key}: give --config, or RINGYARD_CONFIG");
    }
    let similar = command.clone().try_get_matches_from(["ringyard", &format!("--{key}")]).err().and_then(|error| {
        match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-').to_owned()),
            _ => None,
        }
    });
    let key = key.escape_debug();
    match (similar, value) {
        (_, DeValue::Table(_)) => format!("there are no tables here, such as {key}: every setting stands by itself"),
        (Some(similar), _) => format!("there is no setting '{key}': did you mean {similar}?"),
        (None, _) => format!("there is no setting '{key}' (`ringyard config example` shows all)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, Vec<String>> {
        File::parse("a.toml".to_owned(), text, &options::command())
    }

    #[test]
    fn settings_become_flags() {
        let file = parse(
            "# A comment.\nmax-connections = 100_000\nmax-lag = '4m'\nproxy-protocol = true\n\
             allow-origin = [\n  'https://a',\n  'https://b',\n]\nallow-host = 'c'\ntrusted-proxy = []\nmax-head = 0x400\n",
        )
        .unwrap();
        assert_eq!(
            file.flags(|_| true).collect::<Vec<_>>(),
            [
                "--max-connections=100000",
                "--max-lag=4m",
                "--proxy-protocol=true",
                "--allow-origin=https://a",
                "--allow-origin=https://b",
                "--allow-host=c",
                "--max-head=1024",
            ]
        );
        assert_eq!(file.setting("max-lag").unwrap().line, 3);
        assert_eq!(file.setting("max-head").unwrap().line, 11);
        assert!(file.setting("trusted-proxy").is_some() && file.setting("io").is_none());
    }

    #[test]
    fn complaints_name_file_line_and_key() {
        for (text, parts) in [
            ("\n\nmax-lag = 'lots'", &["a.toml:3: ", " max-lag: ", "such as 64k"][..]),
            ("max-lag = 1.5", &["a.toml:1: ", "'1.5'", "max-lag"]),
            ("\nping-interval = 25", &["a.toml:2: ", "ping-interval", "unit"]),
            ("max-topics = -1", &["a.toml:1: ", "max-topics"]),
            ("io = 'aio'", &["a.toml:1: ", "io", "epoll"]),
            ("proxy-protocol = 'maybe'", &["a.toml:1: ", "proxy-protocol"]),
            ("shards = [1, 2]", &["a.toml:1: ", "shards takes one value"]),
            ("shards = 2026-11-23", &["a.toml:1: ", "shards takes a string"]),
            ("allow-origin = ['https://a', 'b']", &["a.toml:1: ", "allow-origin", "scheme"]),
            ("max_lag = '4m'", &["a.toml:1: ", "'max_lag'", "did you mean max-lag?"]),
            ("\"z\\nz\" = 1", &["a.toml:1: ", "no setting 'z\\nz'"]),
            ("zzz = 1", &["a.toml:1: ", "no setting 'zzz'"]),
            ("config = 'b.toml'", &["a.toml:1: ", "--config"]),
            ("help = true", &["a.toml:1: ", "no setting 'help'"]),
            ("\n[limits]\nmax-lag = '4m'", &["a.toml:2: ", "no tables", "limits"]),
            ("max-lag = 4m", &["a.toml:1: ", "no TOML"]),
            ("\nmax-lag '4m'", &["a.toml:2: ", "no TOML"]),
            ("max-lag = '4m'\nmax-lag = '5m'", &["a.toml:2: ", "no TOML", "duplicate"]),
        ] {
            let wrong = parse(text).unwrap_err();
            for part in parts {
                assert!(wrong[0].contains(part), "{text:?}: {part}: {wrong:?}");
            }
            assert!(!wrong[0].contains('\n') && !wrong[0].contains("--help"), "{wrong:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_in_one_go() {
        let wrong = parse("io = 'aio'\nshards = 2\nzzz = 1\nmax-lag = 'lots'\n").unwrap_err();
        let lines: Vec<_> = wrong.iter().map(|sentence| sentence.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["a.toml:1:", "a.toml:3:", "a.toml:4:"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let wrong = File::read(Path::new("/nowhere/ringyard.toml"), &options::command()).unwrap_err();
        assert!(wrong[0].starts_with("/nowhere/ringyard.toml: ") && wrong[0].contains("--config"), "{wrong:?}");
    }
    proptest::proptest! {
        #[test]
        fn whatever_a_file_holds_complaints_name_it_and_a_line(
            text in "([a-z\\-]{1,12}|max-lag|io|allow-host)?[ =]{0,3}(['\"\\[\\]{},.#\\\\0-9a-zé\u{1f600}\n]{0,24}\n?){0,4}"
        ) {
            let lines = text.matches('\n').count() + 1;
            for complaint in parse(&text).err().into_iter().flatten() {
                let rest = complaint.strip_prefix("a.toml:").unwrap();
                let line: usize = rest.split(':').next().unwrap().parse().unwrap();
                proptest::prop_assert!((1..=lines).contains(&line) && !complaint.contains('\n'), "{}", complaint);
            }
        }
    }
}
