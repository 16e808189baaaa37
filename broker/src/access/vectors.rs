//! Tokens made by PyJWT, joserfc and `jose`: good ones are accepted, forged ones refused for the right cause. See
//! `tests/tokens/README.md`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::access::authority::Authority;
use crate::access::permissions::{Operation, Right};
use crate::access::principal::{Denial, PrincipalKind};
use crate::access::trusted_keys::TrustedKeys;
use crate::config::auth::{AccessTables, AuthTable, Located};

/// `tests/tokens/vectors.json`.
pub(super) fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/tokens/vectors.json")).expect("JSON")
}

/// The time of all tokens.
pub(super) fn now_ms(vectors: &Value) -> u64 {
    vectors["now_s"].as_u64().expect("a time") * 1000
}

/// A file with this text.
pub(super) fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> Option<Located<PathBuf>> {
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a file");
    Some(Located { value: path, source: "a.toml:2".to_owned() })
}

/// The authority with settings of the vectors.
pub(super) fn authority(vectors: &Value, settings: &str) -> Authority {
    let folder = tempfile::tempdir().expect("a folder");
    let (all, of) = (&vectors["settings"][settings], |name: &str| vectors["settings"][settings][name].as_str());
    let text = |name: &str| of(name).map(str::to_owned);
    let mut auth = AuthTable { source: "a.toml:1".to_owned(), ..AuthTable::default() };
    auth.leeway = Duration::from_secs(vectors["leeway_s"].as_u64().expect("a time"));
    auth.algorithms =
        all["algorithms"].as_array().expect("a list").iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    (auth.issuer, auth.audience, auth.typ) = (text("issuer"), text("audience"), text("typ"));
    auth.max_age = all["max_age_s"].as_u64().map(Duration::from_secs);
    auth.user_claim = text("user_claim").unwrap_or(auth.user_claim);
    auth.topics_claim = text("topics_claim").unwrap_or(auth.topics_claim);
    if all["secret"] == true {
        auth.hs_secret_file = file(&folder, "secret", vectors["secret"].as_str().expect("a secret"));
    }
    if all["jwks"] == true {
        auth.keys_file = file(&folder, "jwks", &vectors["jwks"].to_string());
    }
    if all["pem"] == true {
        auth.keys_file = file(&folder, "pem", vectors["pem"].as_str().expect("PEM"));
    }
    let tables = AccessTables { auth: Some(auth), ..AccessTables::default() };
    Authority::new(&tables, &Arc::default(), 1 << 20).unwrap_or_else(|sentence| panic!("{settings}: {sentence}"))
}

#[test]
fn each_token_is_accepted_or_refused_for_its_cause() {
    let vectors = vectors();
    let now_ms = now_ms(&vectors);
    let (mut forged, mut wrong) = (0, Vec::new());
    let tokens = vectors["tokens"].as_array().expect("a list");
    for vector in tokens {
        let text = |name: &str| vector[name].as_str().expect("a text");
        let (name, token, expected) = (text("name"), text("token"), text("expected"));
        let authority = authority(&vectors, text("settings"));
        let identified = authority.identify(token.as_bytes(), now_ms);
        let found = identified.result.as_ref().map_or_else(|denial| denial.cause.label(), |_| "ok");
        if found != expected {
            wrong.push(format!("{name}: {found}, not {expected}"));
        }
        forged += usize::from(expected != "ok");
        let counted: Vec<_> = authority.counts().filter(|(_, count)| *count > 0).collect();
        match identified.result {
            Ok(principal) => {
                assert_eq!((principal.kind, &*principal.name), (PrincipalKind::User, "ann"), "{name}");
                assert_eq!(counted, [], "{name}");
            }
            Err(denial) => assert_eq!(counted, [(denial.cause, 1)], "{name}"),
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(forged >= 60, "{forged}");
    for library in ["PyJWT", "joserfc", "jose"] {
        let of =
            |vector: &&Value| vector["name"].as_str().is_some_and(|name| name.starts_with(&format!("{library}: ")));
        assert!(tokens.iter().filter(of).count() > 20, "{library}");
    }
}

/// Neither the cache nor the remembered header changes a verdict.
#[test]
fn whatever_came_before_each_token_is_judged_alike() {
    let vectors = vectors();
    let now_ms = now_ms(&vectors);
    let tokens = vectors["tokens"].as_array().expect("a list");
    let mut authorities = std::collections::BTreeMap::new();
    let mut good = 0;
    for vector in tokens.iter().chain(tokens.iter().rev()) {
        let text = |name: &str| vector[name].as_str().expect("a text");
        let authority = authorities.entry(text("settings")).or_insert_with(|| authority(&vectors, text("settings")));
        let result = authority.identify(text("token").as_bytes(), now_ms).result;
        let found = result.as_ref().map_or_else(|denial| denial.cause.label(), |_| "ok");
        assert_eq!(found, text("expected"), "{}", text("name"));
        good += usize::from(result.is_ok());
    }
    assert!(good >= 20, "{good}");
}

#[test]
fn only_an_expired_token_counts_as_expired() {
    for cause in crate::access::principal::Cause::ALL {
        assert_eq!(Denial::of(*cause).is_expired(), cause.label() == "expired");
    }
}

/// The log and the counters name causes, and SECURITY.md says what they mean.
#[test]
fn each_cause_is_explained() {
    let page = include_str!("../../SECURITY.md");
    for cause in crate::access::principal::Cause::ALL {
        let name = format!("`{}`", cause.label());
        let is_row = |line: &str| line.split('|').nth(1).is_some_and(|causes| causes.contains(&name));
        assert!(page.lines().any(is_row), "{name} is missing in SECURITY.md");
    }
}

#[test]
fn the_claim_with_topics_grants_what_it_lists() {
    let vectors = vectors();
    let tokens = vectors["tokens"].as_array().expect("a list");
    let good = |name: &str| {
        let vector = tokens.iter().find(|vector| vector["name"] == name).expect("a vector");
        let authority = authority(&vectors, vector["settings"].as_str().expect("a text"));
        authority.identify(vector["token"].as_str().expect("a text").as_bytes(), now_ms(&vectors)).result.expect("good")
    };
    let principal = good("PyJWT: good HS256");
    let allows = |operation, name| principal.allows(operation, name);
    assert!(allows(Operation::Subscribe, "chat/7") && allows(Operation::Publish, "chat/7"));
    assert!(!allows(Operation::Subscribe, "chat/8") && !allows(Operation::Lease, "chat/7"));
    assert!(principal.has(Right::Enter, "chat/7") && !principal.has(Right::History, "chat/7"));
    let now_s = now_ms(&vectors) / 1000;
    assert_eq!((principal.expires_ms, principal.issued_at_s), (Some((now_s + 3600) * 1000), Some(now_s - 60)));
    assert_eq!((good("PyJWT: good without exp").max_age_ms, principal.max_age_ms), (Some(3_600_000), None));
    let named = good("PyJWT: good with other claims");
    assert!(named.allows(Operation::Publish, "a"));
    assert!(!good("PyJWT: good without topics").allows(Operation::Subscribe, "chat/7"));
}

#[test]
fn key_sets_that_are_wrong_are_refused_with_the_reason() {
    let vectors = vectors();
    let jwks = &vectors["jwks"]["keys"];
    let with = |at: usize, member: &str, value: &str| {
        let mut key = jwks[at].clone();
        key[member] = Value::from(value);
        key
    };
    let secret = |kid: &str, k: &str| serde_json::json!({"kty": "oct", "kid": kid, "k": k});
    let long = "A".repeat(43);
    let set = |keys: &[&Value]| serde_json::json!({ "keys": keys }).to_string();
    let [rsa, es256] = [0, 2].map(|at| jwks[at].clone());
    let cases = [
        (set(&[]), "no key that can be used"),
        (set(&[&vectors["weak_jwk"]]), "no key that can be used"),
        (set(&[&with(0, "use", "enc")]), "no key that can be used"),
        (set(&[&with(0, "alg", "RSA-OAEP")]), "no key that can be used"),
        (set(&[&es256, &with(3, "kid", "x"), &with(1, "kid", "rsa"), &rsa]), "two keys have the kid 'rsa'"),
        (set(&[&rsa, &secret("rsa", &long)]), "a secret and a public key have the kid 'rsa'"),
        (set(&[&secret("s", "c2hvcnQ")]), "key 1: k has not at least 32 bytes"),
        (set(&[&with(0, "d", "AQAB")]), "key 1: it is a private key"),
        (set(&[&rsa, &with(2, "x", "AAAA")]), "key 2: x and y"),
        (set(&[&with(4, "x", "AAAA")]), "key 1: x has not 32 bytes"),
        (set(&[&with(0, "n", "!")]), "key 1: it has no n or no e"),
        (set(&[&with(0, "alg", "ES256")]), "key 1: its alg is not one of its kty"),
        (set(&[&Value::from(7)]), "key 1 is not an object"),
        (set(&[&serde_json::json!({"kid": "a"})]), "key 1: it has no kty"),
        ("{}".to_owned(), "no list `keys`"),
        (r#"{"keys": [], "keys": []}"#.to_owned(), "a member twice"),
        ("{".to_owned(), "not a JSON object"),
        ("hello".to_owned(), "neither a JWK set nor PEM"),
        (String::new(), "neither a JWK set nor PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----".to_owned(), "key 1 is a private key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA".to_owned(), "key 1 is a private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA".to_owned(), "key 1 is a CERTIFICATE"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA".to_owned(), "key 1 has no end"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----".to_owned(), "key 1 cannot be used"),
        (vectors["weak_pem"].as_str().unwrap().to_owned(), "key 1 cannot be used"),
        (vectors["curve_pem"].as_str().unwrap().to_owned(), "key 1 cannot be used"),
        (
            set(&(0..65).map(|n| with(2, "kid", &n.to_string())).collect::<Vec<_>>().iter().collect::<Vec<_>>()),
            "at most 64",
        ),
    ];
    for (text, part) in cases {
        let Err(sentence) = TrustedKeys::read(text.as_bytes(), false) else { panic!("{text} is good") };
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    let with_secret = set(&[&rsa, &secret("s", &long)]);
    assert_eq!(TrustedKeys::read(with_secret.as_bytes(), false).expect("keys").len(), 2);
    let public = TrustedKeys::read(with_secret.as_bytes(), true).expect_err("a secret at an address");
    assert!(public.contains("key 2: it is a secret"), "{public}");
    assert!(TrustedKeys::read(vectors["pem"].as_str().unwrap().as_bytes(), true).is_err(), "an address gives JWK sets");
    assert_eq!(TrustedKeys::read(set(&[&rsa, &rsa]).as_bytes(), true).expect("the same twice is one").len(), 1);
    assert_eq!(TrustedKeys::read(vectors["jwks"].to_string().as_bytes(), true).expect("keys").len(), 5);
    let shown = format!("{:?}", TrustedKeys::secret(vectors["secret"].as_str().unwrap().as_bytes()).expect("a key"));
    assert!(!shown.contains("example"), "{shown}");
}
