//! Settings with their sources: what flags, environment and file say about the keys of a table.
//!
//! Precedence: flag, environment, file, default. Sources are added in this order, and what was added first holds.
//!
//! Invariant: every value was read by its key's type, so a [`Section`] gives typed values without errors.

use std::fmt;

use crate::config::schema::{Key, Table};
use crate::config::values::{FromValue, Value};

/// Who gave a value. `Display` is the place for an operator to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Flag,
    /// The variable of this name.
    Environment(String),
    File {
        name: String,
        /// From 1.
        line: usize,
    },
    Default,
}

impl Source {
    /// Whether nobody gave the value.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => f.write_str(variable),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The value of one key, or its values if it is a list.
pub(super) struct Setting {
    key: &'static Key,
    texts: Vec<String>,
    values: Vec<Value>,
    source: Source,
}

impl Setting {
    /// Reads the values of `key` in `texts`.
    ///
    /// # Errors
    /// A sentence that names the source, the key and the value.
    pub(super) fn read(key: &'static Key, texts: &[String], source: Source) -> Result<Self, String> {
        let texts: Vec<_> = texts.iter().flat_map(|text| key.kind.split(text)).map(str::to_owned).collect();
        let read = |text: &String| key.kind.read(text).map_err(|why| complaint(text, key, &source, &why));
        let values = texts.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { key, texts, values, source })
    }
}

/// What is wrong with a value, and where to change it.
fn complaint(text: &str, key: &Key, source: &Source, why: &str) -> String {
    let name = key.name;
    let text: String = text.chars().flat_map(visible).collect();
    match source {
        Source::File { .. } => format!("{source}: invalid value '{text}' for {name}: {why}"),
        Source::Environment(variable) => format!("invalid value '{text}' for {variable}: {why}"),
        Source::Flag | Source::Default => format!("invalid value '{text}' for --{name}: {why}"),
    }
}

/// A character as it is, or escaped: a complaint is one line.
fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

/// What is set of one table.
pub(super) struct Section {
    pub(super) table: &'static Table,
    /// Where the table begins.
    pub(super) source: Source,
    settings: Vec<Setting>,
    /// In the order of the file.
    pub(super) tables: Vec<Section>,
}

impl Section {
    pub(super) fn new(table: &'static Table, source: Source) -> Self {
        Self { table, source, settings: Vec::new(), tables: Vec::new() }
    }

    /// Adds a setting, unless its key is set already.
    pub(super) fn add(&mut self, setting: Setting) {
        if self.setting(setting.key.name).is_none() {
            self.settings.push(setting);
        }
    }

    /// Adds what `other` has and this section has not.
    pub(super) fn add_section(&mut self, other: Self) {
        other.settings.into_iter().for_each(|setting| self.add(setting));
        self.tables.extend(other.tables);
    }

    /// The value of a key without a fixed default, if it is set.
    pub(super) fn find<T: FromValue>(&self, name: &str) -> Option<T> {
        self.values(name).first().map(|value| typed(name, value))
    }

    /// The value of a key with a fixed default.
    pub(super) fn get<T: FromValue>(&self, name: &str) -> T {
        self.find(name).unwrap_or_else(|| {
            let key = self.key(name);
            let default = key.fixed_default().unwrap_or_else(|| panic!("{name} has no fixed default"));
            typed(name, &key.kind.read(default).expect("a default is a valid value"))
        })
    }

    /// What the word of a key stands for.
    pub(super) fn choose<T: Copy>(&self, name: &str, meanings: &[(&str, T)]) -> T {
        let word: String = self.get(name);
        let meaning = meanings.iter().find(|(other, _)| *other == word);
        meaning.unwrap_or_else(|| panic!("{name}: {word} has no meaning")).1
    }

    /// The values of a list.
    pub(super) fn all<T: FromValue>(&self, name: &str) -> Vec<T> {
        self.values(name).iter().map(|value| typed(name, value)).collect()
    }

    /// The values of a key as they were written. None if the key is not set and its default is not fixed.
    pub(super) fn texts(&self, key: &Key) -> Vec<String> {
        match self.setting(key.name) {
            Some(setting) => setting.texts.clone(),
            None => key.fixed_default().into_iter().map(str::to_owned).collect(),
        }
    }

    pub(super) fn source_of(&self, name: &str) -> &Source {
        self.setting(name).map_or(&Source::Default, |setting| &setting.source)
    }

    fn key(&self, name: &str) -> &'static Key {
        self.table.key(name).unwrap_or_else(|| panic!("the schema has no {name}"))
    }

    fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key.name == name)
    }

    fn values(&self, name: &str) -> &[Value] {
        self.setting(self.key(name).name).map_or(&[], |setting| &setting.values)
    }
}

fn typed<T: FromValue>(name: &str, value: &Value) -> T {
    T::from_value(value).unwrap_or_else(|| panic!("{name} has another type in the schema"))
}
