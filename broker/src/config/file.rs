//! The TOML file: reads it by a schema into a [`Section`].
//!
//! A value is a string, a whole number or a boolean; of a list also an array of those. The top of the file and each
//! table in it are read alike.
//!
//! Complaints are sentences that begin with `FILE:LINE:`, in the order of lines. All are found in one run; with wrong
//! syntax, only that.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::provenance::{Section, Setting, Source};
use crate::config::schema::{Key, Table, header};
use crate::config::settings::FILE;
use crate::config::suggestions::nearest;

/// Reads the file at `path`.
pub(super) fn read(path: &Path, schema: &'static Table) -> Result<Section, Vec<String>> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&name, &text, schema),
        Err(error) => Err(vec![format!("{name}: the file of --config cannot be read: {error}")]),
    }
}

/// Reads `text`, the content of the file `name`.
pub(super) fn parse(name: &str, text: &str, schema: &'static Table) -> Result<Section, Vec<String>> {
    let mut reader = Reader { name, text, wrong: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        reader.complain(error.span().map_or(0, |span| span.start), &format!("invalid TOML: {message}"));
    }
    let section = if errors.is_empty() { Some(reader.section(schema, table.get_ref(), 0)) } else { None };
    let mut wrong = reader.wrong;
    wrong.sort_by_key(|(line, _)| *line);
    let mut wrong: Vec<_> = wrong.into_iter().map(|(_, sentence)| sentence).collect();
    wrong.dedup();
    section.filter(|_| wrong.is_empty()).ok_or(wrong)
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    /// Lines and sentences.
    wrong: Vec<(usize, String)>,
}

impl Reader<'_> {
    /// Reads a table that begins at `at`.
    fn section(&mut self, schema: &'static Table, table: &DeTable<'_>, at: usize) -> Section {
        let mut section = Section::new(schema, self.source(at));
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (name, value) in entries {
            let at = name.span().start;
            let name: &str = name.get_ref();
            if let Some(key) = schema.key(name) {
                match texts(key, value.get_ref()) {
                    Ok(texts) => match Setting::read(key, &texts, self.source(at)) {
                        Ok(setting) => section.add(setting),
                        Err(sentence) => self.wrong.push((self.line(at), sentence)),
                    },
                    Err(why) => self.complain(at, &why),
                }
            } else if let Some(inner) = schema.tables.iter().find(|table| table.name == name) {
                section.tables.extend(self.tables(inner, value, at));
            } else {
                self.complain(at, &unknown(name, value.get_ref(), schema));
            }
        }
        section
    }

    /// Reads the value of a table's name: one table, or an array of tables.
    fn tables(&mut self, schema: &'static Table, value: &Spanned<DeValue<'_>>, at: usize) -> Vec<Section> {
        match (value.get_ref(), schema.is_array) {
            (DeValue::Table(table), false) => vec![self.section(schema, table, at)],
            (DeValue::Array(array), true) if are_tables(array) => {
                let inner = array.iter().filter_map(|value| Some((value.get_ref().as_table()?, value.span().start)));
                inner.map(|(table, at)| self.section(schema, table, at)).collect()
            }
            _ => {
                self.complain(at, &format!("{} is a table: write {} above its keys", schema.name, schema.header()));
                Vec::new()
            }
        }
    }

    fn complain(&mut self, at: usize, why: &str) {
        self.wrong.push((self.line(at), format!("{}: {why}", self.source(at))));
    }

    fn source(&self, at: usize) -> Source {
        Source::File { name: self.name.to_owned(), line: self.line(at) }
    }

    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// The values of a key, as text.
fn texts(key: &Key, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(values) if key.is_list() => values.iter().map(|value| text(key, value.get_ref())).collect(),
        DeValue::Array(_) => Err(format!("{} takes one value, not a list", key.name)),
        value => Ok(vec![text(key, value)?]),
    }
}

fn text(key: &Key, value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            match number.radix() {
                10 => Ok(digits),
                radix => Ok(i64::from_str_radix(&digits, radix).map_or(digits, |number| number.to_string())),
            }
        }
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!("{} takes a string, a whole number, true or false", key.name))
        }
    }
}

/// What is wrong with a name that the schema does not have.
fn unknown(name: &str, value: &DeValue<'_>, schema: &Table) -> String {
    if name == FILE.name {
        return format!("a file cannot name another with {name}: give --config, or {}", FILE.variable());
    }
    let is_array = matches!(value, DeValue::Array(array) if are_tables(array) && !array.is_empty());
    let is_table = is_array || matches!(value, DeValue::Table(_));
    let names: Vec<_> = if is_table {
        schema.tables.iter().map(|table| table.name).collect()
    } else {
        schema.keys().map(|key| key.name).collect()
    };
    let advice = match nearest(name, &names, name.len() / 3) {
        Some(similar) => format!(": did you mean {similar}?"),
        None => " (`ringyard config example` shows all)".to_owned(),
    };
    let name = name.escape_debug().to_string();
    match (is_table, schema.name) {
        (true, _) => format!("there is no table {}{advice}", header(&name, is_array)),
        (false, "") => format!("there is no setting '{name}'{advice}"),
        (false, _) => format!("there is no setting '{name}' in {}{advice}", schema.header()),
    }
}

/// Whether an array holds nothing but tables.
fn are_tables(array: &DeArray<'_>) -> bool {
    array.iter().all(|value| value.get_ref().is_table())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SETTINGS;

    fn parse(text: &str) -> Result<Section, Vec<String>> {
        super::parse("a.toml", text, &SETTINGS)
    }

    #[test]
    fn values_are_read_with_their_lines() {
        let file = parse(
            "# A comment.\nmax-connections = 100_000\nmax-lag = '4m'\nproxy-protocol = true\n\
             allow-origin = [\n  'https://a',\n  'https://b',\n]\nallow-host = 'c'\ntrusted-proxy = []\nmax-head = 0x400\n",
        )
        .unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!(file.find::<u64>("max-connections"), Some(100_000));
        assert_eq!((file.find::<u64>("max-lag"), file.get::<u64>("max-head")), (Some(4 << 20), 1024));
        assert!(file.get::<bool>("proxy-protocol"));
        assert_eq!(file.all::<String>("allow-origin"), ["https://a", "https://b"]);
        assert_eq!(file.all::<String>("allow-host"), ["c"]);
        let source = |name| file.source_of(name).to_string();
        assert_eq!((source("max-lag"), source("max-head")), ("a.toml:3".into(), "a.toml:11".into()));
        assert_eq!((source("trusted-proxy"), source("io")), ("a.toml:10".into(), "default".into()));
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
            ("\n[limits]\nmax-lag = '4m'", &["a.toml:2: ", "there is no table [limits]"]),
            ("[[topics]]\nmatch = 'a'", &["a.toml:1: ", "there is no table [[topics]]", "did you mean topic?"]),
            ("\nlog.level = 'info'", &["a.toml:2: ", "there is no table [log]"]),
            ("max-message = '2g'", &["a.toml:1: ", "'2g' for max-message", "from 1 to 1g"]),
            ("max-memory = '1m'", &["a.toml:1: ", "at least 4m"]),
            ("ping-interval = '0s'", &["a.toml:1: ", "at least 1ms"]),
            ("max-lag = 4m", &["a.toml:1: ", "invalid TOML"]),
            ("\nmax-lag '4m'", &["a.toml:2: ", "invalid TOML"]),
            ("max-lag = '4m'\nmax-lag = '5m'", &["a.toml:2: ", "invalid TOML", "duplicate"]),
        ] {
            let Err(wrong) = parse(text) else { panic!("{text:?} is no error") };
            for part in parts {
                assert!(wrong[0].contains(part), "{text:?}: {part}: {wrong:?}");
            }
            assert!(!wrong[0].contains('\n') && !wrong[0].contains("--help"), "{wrong:?}");
        }
    }

    #[test]
    fn everything_wrong_is_found_in_one_run() {
        let wrong = parse("io = 'aio'\nshards = 2\nzzz = 1\nmax-lag = 'lots'\n").err().unwrap();
        let lines: Vec<_> = wrong.iter().map(|sentence| sentence.split(' ').next().unwrap()).collect();
        assert_eq!(lines, ["a.toml:1:", "a.toml:3:", "a.toml:4:"]);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let wrong = read(Path::new("/nowhere/ringyard.toml"), &SETTINGS).err().unwrap();
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
