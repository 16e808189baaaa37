//! `ringyard auth check`: says what a token may do by its exit status and in words, and never prints the token.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::access::{KEY, SECRET, key_table, token};
use crate::fetched_keys::Provider;
use crate::rotation::Signer;

/// Writes a configuration; its path.
fn configuration(folder: &Path, auth: &str) -> String {
    let secret = folder.join("hs");
    std::fs::write(&secret, SECRET).unwrap();
    let auth = auth.replace("SECRET", &format!("hs-secret-file = {secret:?}\nalgorithms = ['HS256']"));
    let allow = "[[allow]]\nprincipal = 'user'\nsubscribe = ['chat/+']\npublish = ['user/{sub}']";
    let path = folder.join("ringyard.toml");
    std::fs::write(&path, format!("{auth}\n{allow}\n{}", key_table("publish = ['orders/#']"))).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs the program with this standard input.
fn run(config: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard"));
    command.args(["auth", "check", "--config", config]).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    // One that needs no input may have ended.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// The exit status and what is printed, in which no part of the token is.
fn check(config: &str, arguments: &[&str], token: &str) -> (Option<i32>, String) {
    let output = run(config, &[&["--token-file", "-"], arguments].concat(), &format!(" {token}\n"));
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let bare = token.strip_prefix("rk_").unwrap_or(token);
    for part in bare.split('.').filter(|part| !part.is_empty()) {
        assert!(!text.contains(part), "{part}: {text}");
    }
    (output.status.code(), text)
}

#[test]
fn the_exit_status_says_whether_everything_asked_for_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), "[auth]\nSECRET");
    let user = token("ada", 600, json!({"topics": {"publish": ["chat/7"]}}));
    for (arguments, status, says) in [
        (&[][..], 0, "good: user ada, ends in "),
        (&["--subscribe", "chat/7"], 0, "allowed: subscribe chat/7, by 'chat/+' of the [[allow]] at "),
        (&["--publish", "chat/7"], 0, "allowed: publish chat/7, by 'chat/7' of the token's own claim"),
        (&["--publish", "user/ada"], 0, "allowed: publish user/ada, by 'user/"),
        (&["--subscribe", "chat/7", "--publish", "chat/7"], 0, "allowed: publish"),
        (&["--subscribe", "chat/#"], 1, "denied: subscribe chat/#: no grant for subscribe covers it, the nearest is"),
        (&["--publish", "user/bob"], 1, "denied: publish user/bob"),
        (&["--subscribe", "chat/7", "--publish", "chat/8"], 1, "denied: publish chat/8"),
        (&["--subscribe", "news", "--publish", "chat/7"], 1, "denied: subscribe news"),
    ] {
        let (code, text) = check(&config, arguments, &user);
        assert!(code == Some(status) && text.contains(says), "{arguments:?}: {code:?} {text}");
    }
    let (code, text) = check(&config, &["--publish", "orders/1"], KEY);
    assert!(code == Some(0) && text.contains("good: key shop"), "{code:?} {text}");
    assert_eq!(check(&config, &["--subscribe", "orders/1"], KEY).0, Some(1));
}

#[test]
fn a_bad_token_is_named_by_its_cause_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), "[auth]\nSECRET");
    for (bad, cause) in [
        (token("ada", -600, json!({})), "expired"),
        (token("ada", 600, json!({"nbf": 4_000_000_000_u64})), "not-yet"),
        (token("ada", 600, json!({"topics": {"publish": ["nobody+else"]}})), "topics"),
        ("ofNoUse.toAnybody.atAll".to_owned(), "malformed"),
        ("rk_of-no-use".to_owned(), "unknown-api-key"),
    ] {
        let (code, text) = check(&config, &["--subscribe", "chat/7"], &bad);
        assert!(code == Some(1) && text.contains(&format!("cause: {cause}\n")), "{cause}: {code:?} {text}");
    }
    let good = token("ada", 600, json!({}));
    let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, "A".repeat(43));
    assert!(check(&config, &[], &forged).1.contains("cause: signature\n"));
}

#[test]
fn a_token_may_be_in_a_file_or_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration(folder.path(), "[auth]\nSECRET");
    let file = folder.path().join("token");
    let good = token("ada", 600, json!({}));
    std::fs::write(&file, format!("{good}\n")).unwrap();
    for arguments in [["--token-file", file.to_str().unwrap()], ["--token", &good]] {
        let output = run(&config, &arguments, "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(0) && text.starts_with("good: user ada"), "{text}");
        assert!(!text.contains(&good), "{text}");
    }
    let missing = run(&config, &["--token-file", "/nowhere/at/all"], "");
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(String::from_utf8(missing.stderr).unwrap().contains("--token-file"));
}

#[test]
fn keys_are_fetched_from_their_address() {
    let (signer, key) = Signer::es256("first");
    let (stranger, _) = Signer::es256("first");
    let folder = tempfile::tempdir().unwrap();
    let auth = |url: &str| format!("[auth]\nkeys-url = '{url}'\nalgorithms = ['ES256']");
    let (_provider, address) = Provider::start(&[key]);
    let config = configuration(folder.path(), &auth(&format!("http://{address}/jwks")));
    let (code, text) = check(&config, &["--subscribe", "chat/7"], &signer.token(7));
    assert!(code == Some(0) && text.starts_with("good: user user-7"), "{code:?} {text}");
    let (code, text) = check(&config, &[], &stranger.token(7));
    assert!(code == Some(1) && text.contains("cause: signature\n"), "{code:?} {text}");
    // Nobody listens there. A key of the file needs no keys of others.
    let config = configuration(folder.path(), &auth("http://127.0.0.1:1/jwks"));
    let (code, text) = check(&config, &[], &signer.token(7));
    assert!(code == Some(1) && text.starts_with("keys-url gave no keys: "), "{code:?} {text}");
    assert!(text.contains("cause: unknown-key\n"), "{text}");
    let (code, text) = check(&config, &["--publish", "orders/1"], KEY);
    assert!(code == Some(0) && !text.contains("keys-url"), "{code:?} {text}");
}
