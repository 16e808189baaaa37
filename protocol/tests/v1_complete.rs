//! Whether `ringyard.v1` is specified and has examples for all that the code knows: every type of command, every type of
//! message, every error code and every reason, from the lists in `src/v1/names.rs`. And whether the grammar names nothing else.
//!
//! The vectors are run in `tests/v1.rs`; that each command is simulated is a test of `broker/sim`.

use std::collections::BTreeSet;

use protocol::v1::{CommandType, ErrorCode, GapReason, LeaseLostReason, MessageType, ResetReason};
use simd_json::OwnedValue;
use simd_json::prelude::*;

const GRAMMAR: &str = include_str!("../RINGYARD-V1.md");

/// The text under a heading of the grammar, up to the next of the same level.
fn under<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let marks = heading.split(' ').next()?;
    let (_, after) = text.split_once(&format!("\n{heading}\n"))?;
    after.split(&format!("\n{marks} ")).next()
}

/// What stands between `open` and `close` in the lines of `text` that begin with `open`.
fn listed<'a>(text: &'a str, open: &str, close: &str) -> BTreeSet<&'a str> {
    let rests = text.lines().filter_map(|line| line.strip_prefix(open));
    rests.map(|rest| rest.split(close).next().expect("a first part")).collect()
}

fn vectors(section: &str) -> Vec<OwnedValue> {
    let mut text = include_bytes!("../vectors/v1.json").to_vec();
    let all = simd_json::to_owned_value(&mut text).expect("the vectors are JSON");
    all.get_array(section).expect("a section").clone()
}

/// The `type` of a JSON object, if `text` is one that has it.
fn type_of(text: &str) -> Option<String> {
    let value = simd_json::to_owned_value(&mut text.as_bytes().to_vec()).ok()?;
    value.get_str("type").map(str::to_owned)
}

fn names<const N: usize>(all: [&'static str; N]) -> BTreeSet<&'static str> {
    all.into_iter().collect()
}

#[test]
fn the_grammar_has_a_section_per_command() {
    let commands = under(GRAMMAR, "## 3. Commands").expect("section 3");
    assert_eq!(listed(commands, "### ", "\n"), names(CommandType::ALL.map(CommandType::as_str)));
    for command in CommandType::ALL.map(CommandType::as_str) {
        let section = under(commands, &format!("### {command}")).expect("its section");
        assert!(
            section.contains(&format!("{{ type: \"{command}\"")),
            "the section on {command} does not show its members"
        );
    }
}

#[test]
fn the_grammar_shows_every_message() {
    let messages = under(GRAMMAR, "## 4. Messages from the broker").expect("section 4");
    assert_eq!(listed(messages, "{ type: \"", "\""), names(MessageType::ALL.map(MessageType::as_str)));
}

#[test]
fn the_grammar_explains_every_error_code() {
    let messages = under(GRAMMAR, "## 4. Messages from the broker").expect("section 4");
    assert_eq!(listed(messages, "| `", "` |"), names(ErrorCode::ALL.map(ErrorCode::as_str)));
}

/// The reasons of each message that has some: the message, its heading in section 4, the reasons.
fn reasons() -> [(&'static str, &'static str, BTreeSet<&'static str>); 3] {
    [
        ("gap", "### Gaps", names(GapReason::ALL.map(GapReason::as_str))),
        ("reset", "### Resets", names(ResetReason::ALL.map(ResetReason::as_str))),
        ("lease-lost", "### Lost leases", names(LeaseLostReason::ALL.map(LeaseLostReason::as_str))),
    ]
}

#[test]
fn the_grammar_and_the_vectors_have_every_reason() {
    let messages = under(GRAMMAR, "## 4. Messages from the broker").expect("section 4");
    let vectors = vectors("messages");
    for (message, heading, reasons) in reasons() {
        assert_eq!(listed(under(messages, heading).expect("its section"), "- `", "`"), reasons);
        let said = vectors.iter().filter_map(|vector| vector.get("say"));
        let of_it = said.filter(|say| say.get_str("type") == Some(message));
        assert_eq!(of_it.filter_map(|say| say.get_str("reason")).collect::<BTreeSet<_>>(), reasons);
    }
}

#[test]
fn the_vectors_have_every_command_accepted_and_refused() {
    let vectors = vectors("commands");
    for command in CommandType::ALL.map(CommandType::as_str) {
        for verdict in ["is", "error"] {
            let of_it = |vector: &&OwnedValue| vector.get_str("send").and_then(type_of).as_deref() == Some(command);
            let found = vectors.iter().filter(of_it).any(|vector| vector.contains_key(verdict));
            assert!(found, "vectors/v1.json has no {command} with \"{verdict}\"");
        }
    }
}

#[test]
fn the_vectors_have_every_message_and_every_error_code() {
    let messages = vectors("messages");
    for message in MessageType::ALL.map(MessageType::as_str) {
        let found = messages.iter().any(|vector| vector.get_str("bytes").and_then(type_of).as_deref() == Some(message));
        assert!(found, "vectors/v1.json has no message of type {message}");
    }
    let refused = vectors("commands");
    let refusals = refused.iter().filter_map(|vector| vector.get("error"));
    let said = messages.iter().filter_map(|vector| vector.get("say"));
    let codes: BTreeSet<_> = refusals.chain(said).filter_map(|value| value.get_str("code")).collect();
    assert_eq!(codes, names(ErrorCode::ALL.map(ErrorCode::as_str)));
}

#[test]
fn names_are_read_as_they_are_written() {
    for (at, command) in CommandType::ALL.into_iter().enumerate() {
        assert_eq!((CommandType::named(command.as_str()), command as usize), (Some(command), at));
    }
    for message in MessageType::ALL {
        assert_eq!(MessageType::named(message.as_str()), Some(message));
    }
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::named(code.as_str()), Some(code));
    }
    assert_eq!(CommandType::named("Ping"), None);
}
