//! Commands about credentials: `ringyard key new`, `ringyard auth check`, and `ringyard config check` with files of keys.
//!
//! Not responsible for the policy itself ([`access`](crate::access)). A token that is checked appears in nothing that is printed.

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::access::authority::{API_KEY_PREFIX, Authority};
use crate::access::permissions::{Operation, Scope};
use crate::access::principal::{Cause, Principal, PrincipalKind};
use crate::config::auth::AccessTables;
use crate::config::{CheckedToken, NewKey};
use crate::server::output::{complain, say};
use crate::server::token_keys::check;
use crate::server::token_keys::fetch::{TIMEOUT, fetch};

/// Random bytes of an API key.
const KEY_BYTES: usize = 32;
/// The longest file with a token that is read: a token is shorter, and white space may surround it.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Prints a new key and its table.
#[must_use]
pub fn new_key(asked: &NewKey) -> ExitCode {
    let mut random = [0; KEY_BYTES];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return complain("the operating system gives no random bytes", 1);
    }
    say(&key_and_table(asked, &random))
}

/// The key of these random bytes, and the table that lets it in.
fn key_and_table(asked: &NewKey, random: &[u8; KEY_BYTES]) -> String {
    let key = format!("{API_KEY_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let mut sha256 = String::new();
    for byte in digest(&SHA256, key.as_bytes()).as_ref() {
        let _ = write!(sha256, "{byte:02x}");
    }
    let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
    let NewKey { name, subscribe, publish, rights, respond, lease, api } = asked;
    let mut text = format!(
        "# The key, which is printed this once: Authorization: Bearer {key}\n# Its table, for the file of --config:\n\n\
         [[key]]\nname = {}\nsha256 = \"{sha256}\"\n",
        quoted(name)
    );
    let lists = [
        ("subscribe", subscribe),
        ("rights", rights),
        ("publish", publish),
        ("respond", respond),
        ("lease", lease),
        ("api", api),
    ];
    for (name, values) in lists {
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(quoted).collect();
            let _ = writeln!(text, "{name} = [{}]", values.join(", "));
        }
    }
    text
}

/// Says that a configuration is right, once its files of keys could be read.
#[must_use]
pub fn check_tables(tables: &AccessTables) -> ExitCode {
    match Authority::new(tables, &Arc::default(), 0).and_then(|authority| check(&authority)) {
        Ok(()) => say("ok\n"),
        Err(sentence) => complain(&sentence, 2),
    }
}

/// Says what a token allows under these tables.
#[must_use]
pub fn check_token(asked: &CheckedToken, tables: &AccessTables) -> ExitCode {
    let credential = match credential(asked) {
        Ok(credential) => credential,
        Err(sentence) => return complain(&sentence, 2),
    };
    if tables.is_empty() {
        let sentence = "the file of --config has none of [auth], [[allow]] and [[key]]: everybody may do everything";
        return complain(sentence, 2);
    }
    let authority = match Authority::new(tables, &Arc::default(), 0) {
        Ok(authority) => authority,
        Err(sentence) => return complain(&sentence, 2),
    };
    let mut note = String::new();
    if let Some(source) = authority.keys_url().filter(|_| !credential.starts_with(API_KEY_PREFIX.as_bytes())) {
        let fetched = fetch(&source, TIMEOUT).and_then(|fetched| authority.take_fetched(&fetched.text));
        if let Err(why) = fetched {
            let _ = writeln!(note, "keys-url gave no keys: {why}");
        }
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let (text, is_allowed) = verdict(&authority, &credential, asked, now_ms);
    let printed = say(&(note + &text));
    if is_allowed { printed } else { ExitCode::FAILURE }
}

/// The token, from wherever it is.
fn credential(asked: &CheckedToken) -> Result<Vec<u8>, String> {
    let read = match (&asked.token, &asked.token_file) {
        (Some(token), _) => Ok(token.clone().into_bytes()),
        (None, Some(path)) if path == Path::new("-") => read_bounded(std::io::stdin().lock()),
        (None, Some(path)) => fs::File::open(path).and_then(read_bounded),
        (None, None) => return Err("give --token or --token-file".to_owned()),
    };
    let bytes = read.map_err(|error| format!("the file of --token-file cannot be read: {error}"))?;
    Ok(bytes.trim_ascii().to_vec())
}

fn read_bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
}

/// What is said of a credential, and whether everything that was asked is allowed.
fn verdict(authority: &Authority, credential: &[u8], asked: &CheckedToken, now_ms: u64) -> (String, bool) {
    let principal = match authority.identify(credential, now_ms).result {
        Ok(principal) => principal,
        Err(denial) => {
            let hint = match denial.cause {
                Cause::Expired | Cause::NotYet => format!(" (it is {} now, in seconds since 1970)", now_ms / 1000),
                _ => String::new(),
            };
            let (label, sentence) = (denial.cause.label(), denial.cause.sentence());
            return (format!("denied: {sentence}{hint}\ncause: {label}\n"), false);
        }
    };
    let mut text = about(&principal, now_ms);
    let mut is_allowed = true;
    let questions = [
        (Operation::Subscribe, &asked.subscribe),
        (Operation::Publish, &asked.publish),
        (Operation::Respond, &asked.respond),
        (Operation::Lease, &asked.lease),
    ];
    for (operation, name) in questions.into_iter().filter_map(|(operation, name)| Some((operation, name.as_ref()?))) {
        let verb = operation.name();
        match authority.granting(&principal, operation, name) {
            Some(grant) => _ = writeln!(text, "allowed: {verb} {name}, by {grant}"),
            None => {
                is_allowed = false;
                let nearest = principal.permissions.nearest(principal.claims(), operation, name);
                let nearest =
                    nearest.map_or_else(|| "it has none".to_owned(), |filter| format!("the nearest is '{filter}'"));
                let _ = writeln!(text, "denied: {verb} {name}: no grant for {verb} covers it, {nearest}");
            }
        }
    }
    (text, is_allowed)
}

/// Who it is, and everything that is granted.
fn about(principal: &Principal, now_ms: u64) -> String {
    let who = match principal.kind {
        PrincipalKind::Anonymous => "anonymous".to_owned(),
        PrincipalKind::User => format!("user {}", principal.name),
        PrincipalKind::Key => format!("key {}", principal.name),
        PrincipalKind::Operator => "operator".to_owned(),
    };
    let end = match principal.expires_ms {
        Some(expires_ms) if expires_ms <= now_ms => ", within leeway of its end".to_owned(),
        Some(expires_ms) => format!(", ends in {} s", (expires_ms - now_ms) / 1000),
        None => String::new(),
    };
    let mut text = format!("good: {who}{end}\n");
    for operation in Operation::ALL {
        let filters: Vec<_> = principal.permissions.filters(principal.claims(), operation).collect();
        if !filters.is_empty() {
            let _ = writeln!(text, "{}: {}", operation.name(), filters.join(", "));
        }
    }
    let scopes: Vec<_> = Scope::ALL.into_iter().filter(|scope| principal.permissions.api(*scope)).collect();
    if !scopes.is_empty() {
        let _ = writeln!(text, "api: {}", scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(", "));
    }
    text
}

#[cfg(test)]
mod tests;
