//! The authority over time: rules, rotation, revocation.

mod known;
mod properties;

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, crypto};
use serde_json::{Value, json};

use super::*;
use crate::access::permissions::{Right, Scope};
use crate::access::vectors::{file, now_ms, vectors};
use crate::config::auth::{AllowTable, AuthTable, GrantLists, KeyTable, Who};

const NOW_MS: u64 = 1_790_000_000_000;
const NOW_S: u64 = NOW_MS / 1000;
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another secret of more than 32 bytes";
const KEY: &str = "rk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A token with these claims, signed with this secret.
pub(crate) fn token_by(secret: &str, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(&json!({"alg": "HS256"})), encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes()).expect("a key");
    let signature = crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

/// A token of a user, issued a minute ago, which ends in an hour.
fn token(user: &str) -> String {
    token_by(SECRET, &json!({"sub": user, "iat": NOW_S - 60, "exp": NOW_S + 3600}))
}

fn lists(subscribe: &[&str], publish: &[&str], rights: &[&str]) -> GrantLists {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    GrantLists { subscribe: owned(subscribe), publish: owned(publish), rights: owned(rights), ..GrantLists::default() }
}

fn allow(principal: Who, grants: GrantLists) -> AllowTable {
    AllowTable { source: "a.toml:9".to_owned(), principal, grants }
}

/// Tables with a secret in a folder, and the folder.
pub(crate) fn tables() -> (AccessTables, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut auth = AuthTable { source: "a.toml:1".to_owned(), ..AuthTable::default() };
    auth.hs_secret_file = file(&folder, "secret", SECRET);
    auth.algorithms = vec!["HS256".to_owned()];
    let key = KeyTable {
        source: "a.toml:20".to_owned(),
        name: "back-end".to_owned(),
        sha256: sha256(KEY.as_bytes()),
        grants: lists(&[], &["#"], &[]),
        api: vec!["topics".to_owned()],
    };
    let admin = Who::Claim { name: "role".to_owned(), value: "admin".to_owned() };
    let allows = vec![
        allow(Who::User, lists(&["user/{sub}/#", "chat/+"], &["chat/+"], &["history"])),
        allow(admin, lists(&["#"], &[], &[])),
    ];
    (AccessTables { auth: Some(auth), allows, keys: vec![key] }, folder)
}

fn authority(tables: &AccessTables) -> Authority {
    Authority::new(tables, &Arc::default(), 1 << 20).expect("an authority")
}

fn identify(authority: &Authority, credential: &str) -> Result<Arc<Principal>, Cause> {
    authority.identify(credential.as_bytes(), NOW_MS).result.map_err(|denial| denial.cause)
}

#[test]
fn without_tables_it_is_off() {
    let off = Authority::default();
    assert!(!off.is_on() && off.keys_url().is_none());
    let anybody = off.anonymous().expect("nobody needs a credential");
    assert!(anybody.allows(Operation::Publish, "a") && anybody.permissions.api(Scope::Connections));
    assert_eq!(identify(&off, "x").unwrap_err(), Cause::NoTokens);
}

#[test]
fn tables_claims_and_keys_grant() {
    use Operation::{Publish, Subscribe};
    let (tables, _folder) = tables();
    let authority = authority(&tables);
    assert!(authority.is_on() && authority.anonymous().is_none() && authority.settings().takes_tokens);
    let ann = identify(&authority, &token("ann")).expect("a user");
    let allows = |operation, name| ann.allows(operation, name);
    assert!(allows(Subscribe, "user/ann/inbox") && allows(Subscribe, "chat/+") && allows(Publish, "chat/7"));
    assert!(!allows(Subscribe, "user/bob/inbox") && !allows(Subscribe, "#") && !allows(Publish, "user/ann/x"));
    assert!(ann.has(Right::History, "chat/7") && !ann.permissions.api(Scope::Topics));
    let odd = identify(&authority, &token("a/b")).expect("a user");
    assert!(odd.allows(Subscribe, "chat/1") && !odd.allows(Subscribe, "user/a/b/x"));
    let role = token_by(SECRET, &json!({"sub": "eve", "exp": NOW_S + 9, "role": ["dev", "admin"]}));
    let admin = identify(&authority, &role).expect("a user");
    assert!(admin.allows(Subscribe, "user/ann/inbox") && !admin.has(Right::History, "x"));
    let key = identify(&authority, KEY).expect("a key");
    assert_eq!((key.kind, &*key.name, key.expires_ms), (PrincipalKind::Key, "back-end", None));
    assert!(key.allows(Publish, "a/b") && !key.allows(Subscribe, "a"));
    assert!(key.permissions.api(Scope::Topics) && !key.permissions.api(Scope::Metrics));
    for unknown in ["rk_", &KEY[..KEY.len() - 1], &format!("{KEY}A"), &format!("rk_{}", "A".repeat(9000))] {
        assert_eq!(identify(&authority, unknown).unwrap_err(), Cause::UnknownApiKey);
    }
}

#[test]
fn grants_are_explained() {
    let (tables, _folder) = tables();
    let authority = authority(&tables);
    let own = token_by(SECRET, &json!({"sub": "ann", "exp": NOW_S + 9, "topics": {"publish": ["x"]}}));
    let ann = identify(&authority, &own).expect("a user");
    let by = |principal: &Principal, operation, name| authority.granting(principal, operation, name);
    let template = by(&ann, Operation::Subscribe, "user/ann/a").expect("a grant");
    assert_eq!(template, "'user/ann/#', from 'user/{sub}/#' of the [[allow]] at a.toml:9");
    assert_eq!(by(&ann, Operation::Publish, "chat/1").expect("a grant"), "'chat/+' of the [[allow]] at a.toml:9");
    assert_eq!(by(&ann, Operation::Publish, "x").expect("a grant"), "'x' of the token's own claim");
    assert_eq!(by(&ann, Operation::Publish, "y"), None);
    let key = identify(&authority, KEY).expect("a key");
    assert_eq!(by(&key, Operation::Publish, "y").expect("a grant"), "'#' of its [[key]]");
}

#[test]
fn who_has_no_credential_is_anonymous_if_none_is_required() {
    let (mut tables, _folder) = tables();
    tables.auth.as_mut().unwrap().required = false;
    tables.allows.push(allow(Who::Anonymous, lists(&["public/#"], &[], &[])));
    let authority = authority(&tables);
    let anybody = authority.anonymous().expect("nobody needs a credential");
    assert_eq!((anybody.kind, &*anybody.name), (PrincipalKind::Anonymous, "anonymous"));
    assert!(anybody.allows(Operation::Subscribe, "public/1"));
    assert!(!anybody.allows(Operation::Subscribe, "chat/1"));
    let ann = identify(&authority, &token("ann")).expect("a user");
    assert!(!ann.allows(Operation::Subscribe, "public/1"), "a user is not anonymous");
    assert_eq!(identify(&authority, "x").unwrap_err(), Cause::Malformed, "a bad credential is not none");
}

#[test]
fn a_revoked_user_stays_out_until_a_newer_token() {
    let (tables, _folder) = tables();
    let authority = authority(&tables);
    let (old, other) = (token("ann"), token("bob"));
    let (ann, bob) = (identify(&authority, &old).unwrap(), identify(&authority, &other).unwrap());
    let generation = authority.generation();
    authority.revoke("ann", NOW_S, NOW_MS).expect("room");
    assert!(authority.generation() > generation && authority.revoked_users() == 1);
    assert_eq!(identify(&authority, &old).unwrap_err(), Cause::Revoked);
    assert_eq!(authority.renew(&ann, Some(NOW_MS)).unwrap_err().cause, Cause::Revoked);
    assert!(Arc::ptr_eq(&authority.renew(&bob, Some(NOW_MS)).expect("still good"), &bob));
    let newer = token_by(SECRET, &json!({"sub": "ann", "iat": NOW_S, "exp": NOW_S + 9}));
    identify(&authority, &newer).expect("issued at that moment");
    let undated = token_by(SECRET, &json!({"sub": "ann", "exp": NOW_S + 9}));
    assert_eq!(identify(&authority, &undated).unwrap_err(), Cause::Revoked);
    let expired = token_by(SECRET, &json!({"sub": "ann", "iat": 1, "exp": 2}));
    assert_eq!(identify(&authority, &expired).unwrap_err(), Cause::Revoked, "it is not only expired");
    authority.revoke("ann", NOW_S - 1000, NOW_MS).expect("room");
    assert_eq!(identify(&authority, &old).unwrap_err(), Cause::Revoked, "an earlier time takes nothing back");
}

#[test]
fn a_secret_is_rotated_without_a_refused_token() {
    let (mut tables, folder) = tables();
    let auth = tables.auth.as_mut().unwrap();
    auth.hs_previous_secret_file = file(&folder, "previous", OTHER);
    let authority = authority(&tables);
    let (path, previous) = (folder.path().join("secret"), folder.path().join("previous"));
    let old = token("ann");
    let kept = identify(&authority, &old).expect("good");
    let new = token_by(OTHER, &json!({"sub": "ann", "exp": NOW_S + 9}));
    identify(&authority, &new).expect("the previous one is good too");
    assert_eq!(authority.reload(None), Ok(Vec::new()), "nothing has changed");
    // What was first is the previous one now.
    fs::write(&previous, SECRET).unwrap();
    fs::write(&path, format!("{OTHER}\n")).unwrap();
    let notices = authority.reload(None).expect("read");
    assert!(notices.len() == 2 && notices.iter().all(|notice| !notice.is_error), "{notices:?}");
    identify(&authority, &old).expect("still good");
    identify(&authority, &new).expect("still good");
    // A bad file changes nothing, and is said once.
    let generation = authority.generation();
    fs::write(&path, "short").unwrap();
    let notices = authority.reload(None).expect("read");
    assert!(notices[0].is_error && notices[0].text.contains("a.toml:2: hs-secret-file"), "{notices:?}");
    assert!(notices[0].text.contains("at least 32") && !notices[0].text.contains("short"), "{notices:?}");
    assert_eq!(authority.reload(None), Ok(Vec::new()));
    fs::remove_file(&path).unwrap();
    assert!(authority.reload(None).expect("read")[0].text.contains("cannot be read"));
    assert_eq!(authority.reload(None), Ok(Vec::new()));
    identify(&authority, &new).expect("still good");
    assert_eq!(authority.generation(), generation);
    // The old secret is gone at last.
    fs::write(&path, OTHER).unwrap();
    fs::write(&previous, OTHER).unwrap();
    authority.reload(None).expect("read");
    assert_eq!(identify(&authority, &old).unwrap_err(), Cause::Signature);
    assert_eq!(authority.renew(&kept, Some(NOW_MS)).unwrap_err().cause, Cause::UnknownKey);
}

#[test]
fn new_tables_hold_at_once_for_everybody() {
    let (mut tables, _folder) = tables();
    let authority = authority(&tables);
    let (ann, key) = (identify(&authority, &token("ann")).unwrap(), identify(&authority, KEY).unwrap());
    tables.allows = vec![allow(Who::User, lists(&["only/{sub}"], &[], &[]))];
    tables.keys.clear();
    let generation = authority.generation();
    authority.reload(Some(&tables)).expect("good tables");
    assert!(authority.generation() > generation);
    let renewed = authority.renew(&ann, Some(NOW_MS)).expect("still good");
    assert!(!Arc::ptr_eq(&renewed, &ann) && renewed.expires_ms == ann.expires_ms);
    assert!(!renewed.allows(Operation::Subscribe, "chat/1"));
    assert!(!renewed.allows(Operation::Subscribe, "only/ann") || renewed.name == ann.name);
    assert_eq!(authority.renew(&key, Some(NOW_MS)).unwrap_err().cause, Cause::UnknownApiKey);
    let again = identify(&authority, &token("ann")).expect("good");
    assert!(again.allows(Operation::Subscribe, "only/ann"));
    let off = authority.reload(Some(&AccessTables::default())).unwrap_err();
    assert!(off.contains("turned off after a restart"), "{off}");
    let on = Authority::default().reload(Some(&tables)).unwrap_err();
    assert!(on.contains("turned on after a restart"), "{on}");
    tables.auth.as_mut().unwrap().hs_secret_file.as_mut().unwrap().value = "/nowhere/secret".into();
    let missing = authority.reload(Some(&tables)).unwrap_err();
    assert!(missing.contains("/nowhere/secret: it cannot be read"), "{missing}");
    identify(&authority, &token("ann")).expect("still good");
}

#[test]
fn keys_from_an_address_come_and_go() {
    let vectors = vectors();
    let (mut tables, _folder) = tables();
    let auth = tables.auth.as_mut().unwrap();
    auth.keys_url = Some(crate::config::auth::Located {
        value: "http://127.0.0.1:1/jwks".to_owned(),
        source: "a.toml:3".to_owned(),
    });
    auth.algorithms.push("ES256".to_owned());
    let authority = authority(&tables);
    let of = |name: &str| {
        let tokens = vectors["tokens"].as_array().unwrap();
        tokens.iter().find(|vector| vector["name"] == name).expect("a vector")["token"].as_str().unwrap().to_owned()
    };
    let es256 = of("PyJWT: good ES256");
    let at = now_ms(&vectors);
    let result = || authority.identify(es256.as_bytes(), at).result.map(drop).map_err(|denial| denial.cause);
    let fetch = authority.key_fetch();
    let refused = || authority.counts().find(|(cause, _)| *cause == Cause::UnknownKey).map(|(_, count)| count);
    assert!(!fetch.is_wanted());
    assert_eq!(result(), Err(Cause::UnknownKey));
    assert!(fetch.is_wanted() && fetch.is_awaited(at));
    assert_eq!(refused(), Some(0), "it is for now only");
    fetch.end();
    assert_eq!((result(), refused()), (Err(Cause::UnknownKey), Some(1)));
    let set = vectors["jwks"].to_string();
    assert_eq!(authority.take_fetched(set.as_bytes()), Ok(true));
    assert_eq!(authority.take_fetched(set.as_bytes()), Ok(false), "they are the same");
    assert_eq!(result(), Ok(()));
    for wrong in ["", "{}", r#"{"keys":[]}"#, "<html>"] {
        authority.take_fetched(wrong.as_bytes()).expect_err("no keys");
        assert_eq!(result(), Ok(()), "stale keys are kept");
    }
    authority.reload(Some(&tables)).expect("the same tables");
    assert_eq!(result(), Ok(()), "the address is the same, and so are its keys");
    tables.auth.as_mut().unwrap().keys_url.as_mut().unwrap().value.push('2');
    authority.reload(Some(&tables)).expect("another address");
    assert_eq!(result(), Err(Cause::UnknownKey));
    let unknown = of("jose: unknown kid");
    fetch.end();
    assert!(authority.identify(unknown.as_bytes(), at).result.is_err() && !fetch.is_wanted(), "RS256 is not listed");
}

#[test]
fn nothing_of_a_credential_is_shown() {
    let (tables, _folder) = tables();
    let authority = authority(&tables);
    let token = token_by(SECRET, &json!({"sub": "ann", "exp": NOW_S + 9, "private": "swordfish"}));
    let principal = identify(&authority, &token).expect("good");
    identify(&authority, KEY).expect("good");
    let shown = format!("{authority:?} {principal:?} {:?}", authority.identify(b"swordfish", NOW_MS));
    let parts = token.split('.').chain([SECRET, "swordfish", KEY]);
    for part in parts.filter(|part| part.len() > 8) {
        assert!(!shown.contains(part), "{part}");
    }
}

#[test]
fn a_claim_named_by_a_table_is_kept_and_no_other() {
    let (mut tables, _folder) = tables();
    tables.allows.push(allow(Who::User, lists(&["t/{tenant}/#"], &[], &[])));
    let authority = authority(&tables);
    let claims = json!({"sub": "ann", "exp": NOW_S + 9, "tenant": 7, "x": "y".repeat(1000)});
    let ann = identify(&authority, &token_by(SECRET, &claims)).expect("good");
    assert!(ann.allows(Operation::Subscribe, "t/7/a"));
    let braces = json!({"sub": "eve", "exp": NOW_S + 9, "topics": {"subscribe": ["u/{sub}"]}});
    let eve = identify(&authority, &token_by(SECRET, &braces)).expect("good");
    assert!(!eve.allows(Operation::Subscribe, "u/eve") && !eve.allows(Operation::Subscribe, "t/7/a"));
    assert!(eve.allows(Operation::Subscribe, "u/{sub}"), "in a token's own filters braces are text");
    let Origin::Token(origin) = &ann.origin else { panic!("{ann:?}") };
    let kept: Vec<_> = origin.claims.iter().map(|(name, _)| &**name).collect();
    assert_eq!(kept, ["sub", "tenant"]);
    assert!(ann.bytes() < 600, "{}", ann.bytes());
}

#[test]
fn a_longest_lifetime_is_remembered() {
    let revocations = Revocations::default();
    let day_s = 24 * 3600;
    for user in 0..crate::access::revocations::USERS_MAX {
        revocations.revoke(&user.to_string(), NOW_S, NOW_MS).expect("room");
    }
    revocations.revoke("7", NOW_S + 1, NOW_MS).expect("it is there already");
    let full = revocations.revoke("one more", NOW_S, NOW_MS).unwrap_err();
    assert!(full.contains("10000 users"), "{full}");
    let later_ms = NOW_MS + Duration::from_secs(day_s).as_millis() as u64;
    revocations.note_lifetime(Some(NOW_S), Some(NOW_MS + 2 * day_s * 1000), NOW_MS);
    revocations.revoke("one more", NOW_S, later_ms).expect_err("a token of two days may still be there");
    revocations.revoke("one more", NOW_S, later_ms + day_s * 1000).expect("all are over");
    assert_eq!(revocations.len(), 2, "7 was revoked for a later time");
    let heir = Revocations::default();
    heir.revoke("7", NOW_S + 2, NOW_MS).expect("room");
    heir.take(&serde_json::from_str(&serde_json::to_string(&revocations.all()).unwrap()).unwrap(), NOW_MS)
        .expect("room");
    assert!(heir.is_revoked("7", Some(NOW_S + 1)) && heir.is_revoked("one more", None), "the later time holds");
    assert_eq!((heir.len(), heir.all().len(), heir.all().is_empty()), (2, 2, false));
    for user in 2..crate::access::revocations::USERS_MAX {
        heir.revoke(&format!("other {user}"), NOW_S, later_ms).expect("room");
    }
    heir.revoke("too many", NOW_S, later_ms).expect_err("tokens of two days may be there: that was handed on too");
    assert!(revocations.is_revoked("one more", None) && !revocations.is_revoked("1", None));
    revocations.note_lifetime(None, None, NOW_MS);
    assert!(revocations.is_revoked("7", Some(NOW_S)) && !revocations.is_revoked("7", Some(NOW_S + 1)));
}
