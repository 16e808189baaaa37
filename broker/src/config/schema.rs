//! What can be set: tables with keys, each with its name, type, default, help and first version.
//!
//! The schema is data. Flags, environment, file, `config show` and `config example` are made from it, for the broker's
//! own [`SETTINGS`](crate::config::settings::SETTINGS) as for any other schema. The top of the file is a table too.

use crate::config::origins;
use crate::config::values::{self, Size, Value};

/// The keys that may stand at the top of the file, or in one table of it.
pub(super) struct Table {
    /// Empty for the top of the file.
    pub(super) name: &'static str,
    /// Whether there may be several, as `[[name]]`, or one, as `[name]`.
    pub(super) is_array: bool,
    pub(super) help: &'static str,
    pub(super) groups: &'static [Group],
    /// Only the top of the file has tables.
    pub(super) tables: &'static [Table],
}

/// Keys under one heading of `--help` and of `config example`.
pub(super) struct Group {
    pub(super) heading: &'static str,
    pub(super) keys: &'static [Key],
}

/// One setting.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: DefaultValue,
    /// The first version that has it.
    pub(super) since: &'static str,
    pub(super) help: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum DefaultValue {
    Fixed(&'static str),
    /// What the default depends on, and an example of a value.
    Otherwise(&'static str, &'static str),
}

/// The type of a value. Numbers and sizes (in bytes) have the least and the greatest value that is allowed, times the
/// least (in milliseconds).
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Number(u64, u64),
    Size(u64, u64),
    Time(u64),
    /// One of these words, with `|` between them.
    Choice(&'static str),
    Address,
    /// An address, `public` or `off`.
    Admin,
    Origin,
    Host,
    /// A name that clients of TLS ask for.
    ServerName,
    Network,
    Path,
    /// Of topics, as subscriptions write it, except those of the broker's own.
    Filter,
    /// The same, in which `{claim}` stands for the value of a claim.
    Template,
    /// Text that is not empty and has no control characters.
    Word,
    /// A name of few signs: letters, digits, `-`, `_`, `.` and `@`.
    SubjectName,
    /// The name of a cookie (RFC 6265 §4.1.1), or nothing.
    CookieName,
    /// `anonymous`, `user` or `claim:NAME=VALUE`.
    WhoIsMeant,
    /// The address of a JWK set.
    KeySource,
    /// 64 hexadecimal digits.
    Sha256,
    /// A member that the broker writes into messages.
    Stamp,
    /// Any number of values: the flag may repeat, commas separate, the file may have an array.
    List(&'static Kind),
}

impl Table {
    pub(super) fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.groups.iter().flat_map(|group| group.keys)
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }

    /// As the file writes it.
    pub(super) fn header(&self) -> String {
        header(self.name, self.is_array)
    }
}

/// How the file begins a table.
pub(super) fn header(name: &str, is_array: bool) -> String {
    if is_array { format!("[[{name}]]") } else { format!("[{name}]") }
}

/// A key, to which [`Key::help`] adds its text.
pub(super) const fn key(name: &'static str, kind: Kind, default: DefaultValue, since: &'static str) -> Key {
    Key { name, kind, default, since, help: "" }
}

impl Key {
    /// With this text, which has no full stop.
    pub(super) const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// Its variable of the environment.
    pub(super) fn variable(&self) -> String {
        format!("RINGYARD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Whether it may have several values, or none.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List(_))
    }

    /// The default, or what it depends on.
    pub(super) fn default_text(&self) -> &'static str {
        match self.default {
            DefaultValue::Fixed(text) | DefaultValue::Otherwise(text, _) => text,
        }
    }

    /// The default, if it is fixed.
    pub(super) fn fixed_default(&self) -> Option<&'static str> {
        match self.default {
            DefaultValue::Fixed(text) => Some(text),
            DefaultValue::Otherwise(..) => None,
        }
    }

    /// Values as TOML writes them.
    pub(super) fn literal(&self, values: &[String]) -> String {
        let quoted = |value: &String| toml::Value::String(value.clone()).to_string();
        let first = values.first().map(String::as_str).unwrap_or_default();
        match self.kind {
            Kind::List(_) => format!("[{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", ")),
            Kind::Number(..) => values::number(first).map_or_else(|_| first.to_owned(), |number| number.to_string()),
            Kind::Bool => values::truth(first).is_ok_and(|value| value).to_string(),
            _ => values.first().map(quoted).unwrap_or_default(),
        }
    }

    /// The fixed default, or an example.
    pub(super) fn example(&self) -> &'static str {
        match self.default {
            DefaultValue::Fixed(text) | DefaultValue::Otherwise(_, text) => text,
        }
    }
}

impl Kind {
    /// What stands for the value in `--help`.
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Number(..) => "N",
            Self::Size(..) => "SIZE",
            Self::Time(_) => "TIME",
            Self::Choice(words) => words,
            Self::Address => "ADDR",
            Self::Admin => "ADDR|public|off",
            Self::Origin => "ORIGIN",
            Self::Host => "HOST",
            Self::ServerName => "NAME",
            Self::Network => "NET",
            Self::Path => "FILE",
            Self::Filter | Self::Template => "FILTER",
            Self::Word => "TEXT",
            Self::SubjectName | Self::CookieName => "NAME",
            Self::WhoIsMeant => "anonymous|user|claim:NAME=VALUE",
            Self::KeySource => "URL",
            Self::Sha256 => "HEX",
            Self::Stamp => "time",
            Self::List(kind) => kind.placeholder(),
        }
    }

    /// Reads one value.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    pub(super) fn read(self, text: &str) -> Result<Value, String> {
        let text = self.trim(text);
        match self {
            Self::Bool => values::truth(text).map(Value::Bool),
            Self::Number(least, most) => {
                within(values::number(text)?, least, most, |number| number.to_string()).map(Value::Number)
            }
            Self::Size(least, most) => {
                within(values::size(text)?, least, most, |bytes| Size(bytes).to_string()).map(Value::Number)
            }
            Self::Time(least_ms) => {
                let time = values::duration(text)?;
                let is_enough = time.as_millis() >= u128::from(least_ms);
                is_enough.then_some(Value::Time(time)).ok_or_else(|| format!("it must be at least {least_ms}ms"))
            }
            Self::Choice(words) => match words.split('|').find(|word| *word == text) {
                Some(word) => Ok(Value::Text(word.to_owned())),
                None => Err(format!("it must be one of {}", words.replace('|', ", "))),
            },
            Self::Address => values::address(text).map(Value::Address),
            Self::Admin => values::admin(text).map(Value::Admin),
            Self::Origin => origins::origin(text).map(Value::Text),
            Self::Host => values::host(text).map(Value::Text),
            Self::ServerName => values::server_name(text).map(Value::Text),
            Self::Network => values::network(text).map(Value::Network),
            Self::Path => Ok(Value::Text(text.to_owned())),
            Self::Filter => values::filter(text).map(Value::Text),
            Self::Template => values::template(text).map(Value::Text),
            Self::Word => values::word(text).map(Value::Text),
            Self::SubjectName => values::subject_name(text).map(Value::Text),
            Self::CookieName => values::cookie_name(text).map(Value::Text),
            Self::WhoIsMeant => values::who_is_meant(text).map(Value::Text),
            Self::KeySource => values::key_source(text).map(Value::Text),
            Self::Sha256 => values::sha256(text).map(Value::Text),
            Self::Stamp => values::stamp(text).map(Value::Text),
            Self::List(kind) => kind.read(text),
        }
    }

    /// The values in one text: of a list as many as commas separate, else one.
    pub(super) fn split(self, text: &str) -> Vec<&str> {
        match self {
            // Commas belong to filters, which no flag and no variable has in a list.
            Self::List(Self::Filter | Self::Template) => vec![text],
            Self::List(_) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
            _ => vec![self.trim(text)],
        }
    }

    /// White space around a value is ignored, but a filter may have some.
    fn trim(self, text: &str) -> &str {
        if matches!(self, Self::Filter | Self::Template | Self::List(Self::Filter | Self::Template)) {
            text
        } else {
            text.trim()
        }
    }
}

fn within(value: u64, least: u64, most: u64, write: impl Fn(u64) -> String) -> Result<u64, String> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else if most == values::SIZE_TOP {
        Err(format!("it must be at least {}", write(least)))
    } else {
        Err(format!("it must be from {} to {}", write(least), write(most)))
    }
}
