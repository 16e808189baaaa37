//! A parser's complaint as one sentence.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::Stop;

/// What ends a command line that cannot be read, or that asked for help.
pub(super) fn stop(error: &clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Stop::Shown(error.render().to_string());
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Stop::Refused(
            "config what? check, show or example (`ringyard config --help` explains them)".to_owned(),
        );
    }
    Stop::Refused(format!("{} (`ringyard --help` explains every option)", sentence(error)))
}

/// What is wrong, without a full stop.
pub(super) fn sentence(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    let mut sentence = words.join(" ");
    if let Some(similar) = context(ContextKind::SuggestedArg) {
        sentence.push_str(&format!(": did you mean {similar}?"));
    }
    sentence
}
