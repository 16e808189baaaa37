//! The command line: a flag for every setting, the subcommands, and `--help`.
//!
//! Not responsible for values: flags are taken as text, which [`provenance`](crate::config::provenance) reads.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::OsStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};

use crate::config::Stop;
use crate::config::schema::{Key, Kind};
use crate::config::settings::{FILE, SETTINGS};
use crate::config::url::Url;
use crate::config::values;

const ABOUT: &str = "\
Ringyard: an io_uring publish/subscribe broker for the web. A message published to a topic once is sent to every \
WebSocket that subscribes to it";

const AFTER_HELP: &str = "\
Without a command the broker starts. Precedence of settings: flag, environment, file of --config, default. `ringyard \
config show` prints where each value comes from.

SIZE is a number of bytes with an optional k, m or g (powers of 1024): 64k, 16m, 1g.
TIME is a number with its unit, ms, s, m, h or d: 500ms, 10s, 2m.

Publish with:   curl -d 'hello' http://127.0.0.1:8080/pub/demo
Subscribe with: new WebSocket('ws://127.0.0.1:8080/sub/demo'), or open http://127.0.0.1:8080/";

#[derive(Subcommand, Clone, Debug)]
pub(super) enum RunSubcommand {
    /// Look at this machine: what the broker would find here, and the command that mends what is amiss
    ///
    /// Looks at the kernel, io_uring, limits, memory and network as the broker would with the same options, and says
    /// for each whether it is ok, and if not, what mends it. Exit status: 0, all is well or there are warnings; 1, there
    /// is a problem; 2, a flag is wrong.
    Doctor {
        /// Print an array of {name, status, value, advice}
        #[arg(long)]
        json: bool,
    },

    /// Ask the running broker whether it is alive, as container engines do
    ///
    /// Asks for /healthz at --admin-listen, or at --listen. Exit status: 0, it is healthy; 1, it is not.
    Healthcheck {
        /// Ask here instead, as http://host:port[/path]
        #[arg(long, value_name = "URL", value_parser = Url::parse)]
        url: Option<Url>,
    },

    /// Replace the running broker by one with the given options, without refusing a client
    ///
    /// Starts this program again in the background, with --take-over and the options behind `restart`, and waits until it
    /// has taken over: from then on newcomers reach the successor, and the broker that ran before asks its clients to leave
    /// over --drain-window and ends. Exit status: 0, the successor runs; 1, it does not, and the old broker goes on; 2, an
    /// option is wrong.
    Restart,

    /// Say which topic rule applies to a topic, why, and where each of its values comes from
    ///
    /// Reads the `[[topic]]` tables of the file of --config. Exit status: 0; 2, the topic or an option is wrong.
    Topic {
        /// A topic, such as chat/7
        topic: String,
    },

    /// Make an API key
    Key {
        #[command(subcommand)]
        what: KeySubcommand,
    },

    /// Say what a token allows
    Auth {
        #[command(subcommand)]
        what: AuthSubcommand,
    },

    /// Check, show or explain the settings
    Config {
        #[command(subcommand)]
        what: ConfigSubcommand,
    },
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum KeySubcommand {
    /// Print a new key, once, and the `[[key]]` table for the file of --config
    ///
    /// The key goes to the program that is to use it, as `Authorization: Bearer KEY`; the table has only its SHA-256. Exit
    /// status: 0; 2, an option is wrong.
    New(NewKey),
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum AuthSubcommand {
    /// Say whether a token or key is good and what grants an operation, or which check failed
    ///
    /// Reads the tables of the file of --config and the files that they name. Exit status: 0, it is good and whatever was
    /// asked is allowed; 1, it is not; 2, an option is wrong.
    Check(CheckedToken),
}

/// What `key new` is asked for.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct NewKey {
    /// Its name in logs and in /api: letters, digits, - _ . and @
    #[arg(value_parser = values::subject_name)]
    pub name: String,
    /// Filter that it may subscribe to; repeatable
    #[arg(long, value_name = "FILTER", value_parser = values::filter)]
    pub subscribe: Vec<String>,
    /// Filter of topics that it may publish to; repeatable
    #[arg(long, value_name = "FILTER", value_parser = values::filter)]
    pub publish: Vec<String>,
    /// What else it may do with what it subscribes to; repeatable
    #[arg(long, value_name = "RIGHT", requires = "subscribe", value_parser = ["presence", "enter", "history", "request"])]
    pub rights: Vec<String>,
    /// Filter of topics whose requests it may answer; repeatable
    #[arg(long, value_name = "FILTER", value_parser = values::filter)]
    pub respond: Vec<String>,
    /// Filter of topics whose lease it may hold; repeatable
    #[arg(long, value_name = "FILTER", value_parser = values::filter)]
    pub lease: Vec<String>,
    /// Part of the operators' interface that it may use; repeatable
    #[arg(long, value_name = "SCOPE", value_parser = ["topics", "connections", "metrics", "inspect"])]
    pub api: Vec<String>,
}

/// What `auth check` is asked for.
#[derive(Args, Clone, PartialEq, Eq)]
pub struct CheckedToken {
    /// The token, or API key; others on this machine can read it in the list of processes
    #[arg(long, value_name = "TOKEN", required_unless_present = "token_file", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// File with it; - is standard input
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Ask whether this filter may be subscribed to
    #[arg(long, value_name = "FILTER", value_parser = values::filter)]
    pub subscribe: Option<String>,
    /// Ask whether this topic may be published to
    #[arg(long, value_name = "TOPIC", value_parser = values::topic)]
    pub publish: Option<String>,
    /// Ask whether requests of this topic may be answered
    #[arg(long, value_name = "TOPIC", value_parser = values::topic)]
    pub respond: Option<String>,
    /// Ask whether this topic's lease may be held
    #[arg(long, value_name = "TOPIC", value_parser = values::topic)]
    pub lease: Option<String>,
}

/// Keeps the token out of logs.
impl fmt::Debug for CheckedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedToken")
            .field("subscribe", &self.subscribe)
            .field("publish", &self.publish)
            .field("respond", &self.respond)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

#[derive(Subcommand, Clone, Debug)]
pub(super) enum ConfigSubcommand {
    /// Say ok, or everything that is wrong with flags, environment and file. Exit status: 0 or 2
    Check {
        /// The file, if not that of --config
        file: Option<PathBuf>,
    },
    /// Print every setting with its value and where that comes from, as a file that --config takes
    Show {
        /// The file, if not that of --config
        file: Option<PathBuf>,
    },
    /// Print a file with every setting, its explanation and its default
    Example,
}

/// The arguments of the program, taken apart.
pub(super) struct CommandLine {
    pub(super) subcommand: Option<RunSubcommand>,
    matches: ArgMatches,
}

impl CommandLine {
    /// # Errors
    /// `--help` and `--version`, and arguments that cannot be taken apart.
    pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, Stop> {
        let matches = command().try_get_matches_from(args).map_err(|error| stop(&error))?;
        let subcommand = matches.subcommand_name().map(|_| RunSubcommand::from_arg_matches(&matches));
        Ok(Self { subcommand: subcommand.transpose().map_err(|error| stop(&error))?, matches })
    }

    /// The values of a key's flag, if it is given.
    pub(super) fn values(&self, key: &Key) -> Option<Vec<OsString>> {
        Some(self.matches.get_many(key.name)?.cloned().collect())
    }
}

fn command() -> Command {
    let command = Command::new("ringyard").version(env!("CARGO_PKG_VERSION")).about(ABOUT).after_help(AFTER_HELP);
    let command = command.next_line_help(true).arg(flag(&FILE));
    let command = SETTINGS.groups.iter().fold(command, |command, group| {
        let heading = Some(group.heading).filter(|heading| !heading.is_empty());
        command.next_help_heading(heading).args(group.keys.iter().map(flag))
    });
    RunSubcommand::augment_subcommands(command)
}

/// A key's flag, which may stand before or behind the name of a subcommand.
fn flag(key: &'static Key) -> Arg {
    let help = format!("{} [default: {}] [env: {}]", key.help, key.default_text(), key.variable());
    let flag = Arg::new(key.name).long(key.name).value_name(key.kind.placeholder()).help(help);
    let flag = flag.value_parser(OsStringValueParser::new()).allow_negative_numbers(true).global(true);
    match key.kind {
        Kind::Bool => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List(_) => flag.action(ArgAction::Append),
        _ => flag,
    }
}

/// What ends a command line that cannot be read, or that asked for help.
fn stop(error: &clap::Error) -> Stop {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Stop::Shown(error.render().to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Stop::Refused(
                "which subcommand? config has check, show and example, key has new, auth has check (`ringyard config --help` \
                 explains those of config)"
                    .to_owned(),
            )
        }
        _ => Stop::Refused(format!("{} (`ringyard --help` explains every option)", sentence(error))),
    }
}

/// What is wrong, in one line without a full stop.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let sentence = first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand].map(|kind| error.get(kind));
    match suggested.into_iter().flatten().next() {
        Some(ContextValue::String(similar)) => format!("{sentence}: did you mean {similar}?"),
        Some(ContextValue::Strings(similar)) if !similar.is_empty() => {
            format!("{sentence}: did you mean {}?", similar[0])
        }
        _ => sentence,
    }
}
