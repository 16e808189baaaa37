//! Tokens and keys against rules, with a clock that is a number.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::access::grants::{Grants, Operation, Right, Scope};
use crate::access::rules::{AllowRule, Whom};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"another-secret-of-more-than-32-bytes";
/// The time of day.
const NOW_S: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW_S * 1000;

fn grants(subscribe: &[&str], publish: &[&str]) -> Grants {
    let mut grants = Grants::default();
    subscribe.iter().for_each(|filter| grants.grant(Operation::Subscribe, *filter));
    publish.iter().for_each(|filter| grants.grant(Operation::Publish, *filter));
    grants
}

fn setup() -> Setup {
    let source = String::new;
    let mut of_key = grants(&[], &["#"]);
    of_key.scopes = [Scope::Metrics].into_iter().collect();
    Setup {
        required: true,
        algorithms: vec![Algorithm::HS256],
        issuer: None,
        audience: None,
        typ: None,
        user_claim: "sub".to_owned(),
        topics_claim: "topics".to_owned(),
        leeway_ms: 30_000,
        grace_ms: 25_000,
        max_age_ms: None,
        query_token: false,
        cookie: None,
        explain: false,
        allow: vec![AllowRule { whom: Whom::User, grants: grants(&["user/{sub}/#", "chat/+"], &[]), source: source() }],
        keys: vec![KeyRule { name: "shop".to_owned(), sha256: sha256(b"rk_key"), grants: of_key, source: source() }],
    }
}

fn authority(change: impl FnOnce(&mut Setup)) -> Authority {
    let mut setup = setup();
    change(&mut setup);
    Authority::new(Some(setup), KeySet::secret(SECRET).expect("a secret"))
}

fn sign(claims: &Value, secret: &[u8]) -> String {
    let key = EncodingKey::from_secret(secret).expect("a secret");
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

/// With a header as it is written.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let key = EncodingKey::from_secret(SECRET).expect("a secret");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

fn cause(authority: &Authority, token: &str) -> Option<Cause> {
    authority.identify(token.as_bytes(), NOW_MS).result.err().map(|denial| denial.cause)
}

#[test]
fn a_user_may_do_what_tables_and_token_grant() {
    let authority = authority(|_| {});
    let claims = json!({"sub": "7", "iat": NOW_S, "exp": NOW_S + 60,
                        "topics": {"publish": ["chat/7"], "rights": ["history"]}});
    let token = sign(&claims, SECRET);
    let Identified { result, cost } = authority.identify(token.as_bytes(), NOW_MS);
    let ada = result.expect("a user");
    assert_eq!((ada.kind, &*ada.name, ada.expires_ms), (PrincipalKind::User, "7", Some(NOW_MS + 60_000)));
    let allows = |operation, name| ada.permissions.allows(operation, name);
    assert!(allows(Operation::Subscribe, "user/7/x") && allows(Operation::Subscribe, "chat/+"));
    assert!(!allows(Operation::Subscribe, "user/8/x") && !allows(Operation::Publish, "chat/8"));
    assert!(allows(Operation::Publish, "chat/7") && ada.permissions.has(Right::History));
    assert!(!format!("{authority:?}{ada:?}").contains(&token[..20]));
    let again = authority.identify(token.as_bytes(), NOW_MS);
    assert!(Arc::ptr_eq(&again.result.expect("a user"), &ada) && again.cost < cost, "it was seen before");
}

#[test]
fn time_is_the_callers() {
    let authority = authority(|setup| setup.leeway_ms = 5_000);
    let token = sign(&json!({"sub": "7", "nbf": NOW_S, "exp": NOW_S + 60}), SECRET);
    let at = |now_ms| authority.identify(token.as_bytes(), now_ms).result.map_err(|denial| denial.cause).map(drop);
    assert_eq!(at(NOW_MS - 5_001), Err(Cause::NotYetValid));
    for round in 0..2 {
        assert_eq!(at(NOW_MS - 5_000), Ok(()), "{round}");
        assert_eq!(at(NOW_MS + 64_999), Ok(()), "{round}");
        assert_eq!(at(NOW_MS + 65_000), Err(Cause::Expired), "{round}: whether it was seen before or not");
    }
}

#[test]
fn every_cause_is_found_and_counted() {
    let authority = authority(|setup| {
        (setup.issuer, setup.audience) = (Some("https://id".to_owned()), Some("ringyard".to_owned()));
        setup.typ = Some("JWT".to_owned());
    });
    let good = json!({"sub": "7", "exp": NOW_S + 60, "iss": "https://id", "aud": ["x", "ringyard"]});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        if value.is_null() {
            claims.as_object_mut().expect("claims").remove(name);
        } else {
            claims[name] = value;
        }
        sign(&claims, SECRET)
    };
    assert_eq!(cause(&authority, &sign(&good, SECRET)), None);
    let text = good.to_string();
    let cases = [
        (Cause::TooLong, "a".repeat(TOKEN_BYTES_MAX + 1)),
        (Cause::Malformed, String::new()),
        (Cause::Malformed, "a.b".to_owned()),
        (Cause::Malformed, "a.b.c.d".to_owned()),
        (Cause::Malformed, signed(r#"{"alg":"HS256","alg":"HS256"}"#, &text)),
        (Cause::Malformed, signed(r#"{"alg":"HS256","kid":7}"#, &text)),
        (Cause::Malformed, format!("{}=", sign(&good, SECRET))),
        (Cause::Algorithm, signed(r#"{"alg":"none"}"#, &text)),
        (Cause::Algorithm, signed(r#"{"alg":"HS384"}"#, &text)),
        (Cause::Algorithm, signed(r#"{"typ":"JWT"}"#, &text)),
        (Cause::Algorithm, signed(r#"{"alg":"HS256","crit":["b64"]}"#, &text)),
        (Cause::Signature, sign(&good, OTHER)),
        (Cause::Claims, signed(r#"{"alg":"HS256"}"#, "[]")),
        (Cause::Claims, signed(r#"{"alg":"HS256"}"#, r#"{"sub":"7","sub":"8"}"#)),
        (Cause::Claims, with("exp", json!((NOW_S + 60).to_string()))),
        (Cause::Claims, with("exp", json!(-1))),
        (Cause::Claims, with("nbf", json!([NOW_S]))),
        (Cause::NoExpiry, with("exp", Value::Null)),
        (Cause::Expired, with("exp", json!(NOW_S - 30))),
        (Cause::NotYetValid, with("nbf", json!(NOW_S + 31))),
        (Cause::Issuer, with("iss", json!("https://id/"))),
        (Cause::Issuer, with("iss", Value::Null)),
        (Cause::Audience, with("aud", json!("ringyard2"))),
        (Cause::Audience, with("aud", json!(["ringyard", 7]))),
        (Cause::Type, signed(r#"{"alg":"HS256","typ":"at+jwt"}"#, &text)),
        (Cause::Type, signed(r#"{"alg":"HS256"}"#, &text)),
        (Cause::User, with("sub", Value::Null)),
        (Cause::User, with("sub", json!(""))),
        (Cause::User, with("sub", json!("x".repeat(257)))),
        (Cause::User, with("sub", json!("a\nb"))),
        (Cause::Topics, with("topics", json!({"subscribe": "#"}))),
        (Cause::ApiKey, "rk_other".to_owned()),
    ];
    for (expected, token) in &cases {
        assert_eq!(cause(&authority, token), Some(*expected), "{token}");
    }
    let counted: u64 = authority.refused().map(|(_, count)| count).sum();
    assert_eq!(counted, cases.len() as u64);
    authority.refuse_ambiguous();
    assert_eq!(authority.refused().next(), Some((Cause::Ambiguous, 1)));
}

#[test]
fn an_api_key_has_what_its_table_grants() {
    let authority = authority(|_| {});
    let key = authority.identify(b"rk_key", NOW_MS).result.expect("a key");
    assert_eq!((key.kind, &*key.name), (PrincipalKind::Key, "shop"));
    assert!(key.permissions.allows(Operation::Publish, "a") && !key.permissions.allows(Operation::Subscribe, "a"));
    assert!(key.permissions.reaches(Scope::Metrics) && !key.permissions.reaches(Scope::Topics));
    assert!(authority.has_keys() && authority.anonymous().is_none());
    assert!(key.check_scope(Scope::Topics).is_err() && key.check(Operation::Publish, "a").is_ok());
}

#[test]
fn rights_are_renewed_when_rules_change() {
    let authority = authority(|_| {});
    let token = sign(&json!({"sub": "7", "exp": NOW_S + 60}), SECRET);
    let before = authority.identify(token.as_bytes(), NOW_MS).result.expect("a user");
    let key = authority.identify(b"rk_key", NOW_MS).result.expect("a key");
    assert!(Arc::ptr_eq(&authority.renew(&before).expect("the same"), &before));
    let generation = authority.generation();
    let mut changed = setup();
    changed.allow[0].grants = grants(&["user/{sub}/#"], &["b"]);
    changed.keys.clear();
    authority.set_rules(Some(changed));
    assert!(authority.generation() > generation);
    for after in [authority.renew(&before), authority.identify(token.as_bytes(), NOW_MS).result] {
        let after = after.expect("a user");
        assert!(!after.permissions.allows(Operation::Subscribe, "chat/7"));
        assert!(after.permissions.allows(Operation::Subscribe, "user/7/#"));
        assert!(after.permissions.allows(Operation::Publish, "b") && after.expires_ms == before.expires_ms);
    }
    assert_eq!(authority.renew(&key).expect_err("gone").cause, Cause::ApiKey);
    authority.set_rules(None);
    assert!(!authority.is_on() && authority.anonymous().is_none());
}

#[test]
fn revoked_tokens_are_refused_and_newer_ones_are_not() {
    let authority = authority(|_| {});
    let issued = |at: u64| sign(&json!({"sub": "7", "iat": at, "exp": NOW_S + 60}), SECRET);
    let old = authority.identify(issued(NOW_S - 10).as_bytes(), NOW_MS).result.expect("a user");
    let other = sign(&json!({"sub": "8", "iat": NOW_S - 10, "exp": NOW_S + 60}), SECRET);
    assert!(authority.revoke("7", NOW_S, NOW_MS));
    assert_eq!(authority.renew(&old).expect_err("revoked").cause, Cause::Revoked);
    assert_eq!(cause(&authority, &issued(NOW_S - 10)), Some(Cause::Revoked), "though it was seen before");
    assert_eq!(cause(&authority, &issued(NOW_S - 1)), Some(Cause::Revoked));
    let undated = sign(&json!({"sub": "7", "exp": NOW_S + 60}), SECRET);
    assert_eq!(cause(&authority, &undated), Some(Cause::Revoked), "nobody knows when it was issued");
    assert_eq!((cause(&authority, &issued(NOW_S)), cause(&authority, &other)), (None, None));
    assert!(authority.revoke("7", NOW_S - 100, NOW_MS), "a revocation is never weakened by another");
    assert_eq!(cause(&authority, &issued(NOW_S - 1)), Some(Cause::Revoked));
}

#[test]
fn revocations_are_bounded_and_none_is_dropped_for_another() {
    let authority = authority(|_| {});
    for user in 0..REVOKED_MAX {
        assert!(authority.revoke(&user.to_string(), NOW_S, NOW_MS));
    }
    assert!(!authority.revoke("one more", NOW_S, NOW_MS) && authority.revoke("7", NOW_S + 1, NOW_MS));
    let later = NOW_MS + (REMEMBERED_S + 2) * 1000;
    assert!(authority.revoke("one more", NOW_S, later), "tokens from before have ended");
}

#[test]
fn keys_are_rotated_without_a_refused_token() {
    let authority = authority(|_| {});
    let (old, new) = (json!({"sub": "7", "exp": NOW_S + 60}), json!({"sub": "8", "exp": NOW_S + 60}));
    let secret = |bytes: &[u8]| KeySet::secret(bytes).expect("a secret");
    authority.set_file_keys(secret(OTHER).with(secret(SECRET)).expect("both"));
    assert_eq!((cause(&authority, &sign(&old, SECRET)), cause(&authority, &sign(&new, OTHER))), (None, None));
    authority.set_file_keys(secret(OTHER));
    assert_eq!(cause(&authority, &sign(&old, SECRET)), Some(Cause::Signature), "though it was seen before");
    assert_eq!(cause(&authority, &sign(&new, OTHER)), None);
}

#[test]
fn an_unknown_kid_asks_for_keys() {
    let authority = authority(|_| {});
    assert!(!authority.take_wants_keys());
    let claims = json!({"sub": "7", "exp": NOW_S + 60}).to_string();
    assert_eq!(cause(&authority, &signed(r#"{"alg":"HS256","kid":"new"}"#, &claims)), None, "a secret has no kid");
    assert!(authority.take_wants_keys() && !authority.take_wants_keys());
}

proptest! {
    /// Whatever is changed in a good token: it is refused, and nothing panics.
    #[test]
    fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let authority = authority(|_| {});
        let good = sign(&json!({"sub": "7", "exp": NOW_S + 60}), SECRET).into_bytes();
        let mut token = good.clone();
        let at = at.index(token.len());
        if cut { token.truncate(at) } else { token[at] = byte }
        let result = authority.identify(&token, NOW_MS).result;
        prop_assert_eq!(result.is_ok(), token == good);
    }

    #[test]
    fn anything_at_all_is_refused(token in prop::collection::vec(any::<u8>(), 0..300)) {
        let result = authority(|_| {}).identify(&token, NOW_MS).result;
        prop_assert!(result.is_err());
    }
}
