//! Where each setting's value came from, so that complaints and `config show` can say it.

use std::collections::BTreeMap;
use std::fmt;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::config::file::File;
use crate::config::options::{settings, variable};

/// Who said what a setting is. `Display` is what an operator has to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Flag,
    /// The variable.
    Environment(String),
    File {
        name: String,
        line: usize,
    },
    Default,
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

/// The source of every setting, by its name.
#[derive(Debug)]
pub(super) struct Sources(BTreeMap<String, Source>);

impl Sources {
    /// `matches` are flags and environment without the file.
    pub(super) fn new(command: &Command, matches: &ArgMatches, file: Option<&File>) -> Self {
        let source = |name: &str, arg: &clap::Arg| match matches.value_source(arg.get_id().as_str()) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Environment(variable(name)),
            _ => match file.and_then(|file| Some((file, file.setting(name)?))) {
                Some((file, setting)) => Source::File { name: file.name.clone(), line: setting.line },
                None => Source::Default,
            },
        };
        Self(settings(command).map(|(name, arg)| (name.to_owned(), source(name, arg))).collect())
    }

    /// The source of the setting `name`.
    pub(super) fn of(&self, name: &str) -> &Source {
        self.0.get(name).unwrap_or(&Source::Default)
    }

    /// Whether the file's value of the setting `name` holds.
    pub(super) fn is_file(&self, name: &str) -> bool {
        matches!(self.of(name), Source::File { .. })
    }
}
