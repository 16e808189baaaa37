//! The tables of access control: what they become, and what is wrong with them.

use super::*;
use crate::config::auth::{AccessTables, Who};

/// The tables of this file, whose name is `a.toml` in what is said of it.
fn tables(name: &str, text: &str, options: &[&str]) -> Result<AccessTables, String> {
    let file = Kept::new(name, text);
    match read(&[&["--config", file.path()], options].concat()) {
        Ok(Task::Serve(config)) => Ok(config.access),
        Err(Stop::Refused(sentences)) => Err(sentences.replace(file.path(), "a.toml")),
        other => panic!("{other:?}"),
    }
}

const SHA256: &str = "9F86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const SOURCE: &str = "[auth]\nhs-secret-file = '/run/secrets/hs'\nalgorithms = ['HS256']\n";

#[test]
fn without_tables_access_control_is_off() {
    let none = tables("auth-none", "", &[]).unwrap();
    assert!(none.is_empty() && !none.is_required());
    let anybody = tables("auth-anybody", "[auth]\nrequired = false\n", &[]).unwrap();
    assert!(!anybody.is_empty() && !anybody.is_required());
    let key = tables("auth-key", &format!("[[key]]\nname = 'a'\nsha256 = '{SHA256}'\n"), &[]).unwrap();
    assert!(!key.is_empty() && key.is_required(), "required is the default without [auth] too");
    assert_eq!((key.keys[0].sha256[0], key.keys[0].sha256[31]), (0x9f, 0x08));
}

#[test]
fn every_key_of_auth_reaches_its_value() {
    let text = "[auth]\nrequired = false\nhs-secret-file = 'hs'\nhs-previous-secret-file = 'old'\nkeys-file = 'jwks'\n\
                keys-url = 'HTTPS://id.example/jwks'\nkeys-ca-file = 'ca'\nalgorithms = ['HS256', 'ES256']\nissuer = 'i'\naudience = 'a'\n\
                user-claim = 'uid'\ntopics-claim = 'https://example.org/t'\nleeway = '1s'\ngrace = '2s'\nquery-token = true\n\
                cookie = 'c'\ntyp = 'at+jwt'\nmax-age = '3h'\nexplain = true\n";
    let auth = tables("auth-every", text, &[]).unwrap().auth.unwrap();
    let path = |file: &Option<crate::config::auth::Located<PathBuf>>| file.as_ref().unwrap().value.clone();
    assert_eq!(path(&auth.hs_secret_file), PathBuf::from("hs"));
    assert_eq!(path(&auth.hs_previous_secret_file), PathBuf::from("old"));
    assert_eq!(path(&auth.keys_file), PathBuf::from("jwks"));
    assert!(auth.keys_file.as_ref().unwrap().source.ends_with(".toml:5"));
    assert_eq!(auth.keys_url.as_ref().unwrap().value, "https://id.example/jwks");
    assert_eq!(path(&auth.keys_ca_file), PathBuf::from("ca"));
    assert_eq!(auth.algorithms, ["HS256", "ES256"]);
    assert_eq!((auth.issuer.as_deref(), auth.audience.as_deref()), (Some("i"), Some("a")));
    assert_eq!((&*auth.user_claim, &*auth.topics_claim), ("uid", "https://example.org/t"));
    assert_eq!((auth.leeway, auth.grace), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((auth.cookie.as_deref(), auth.typ.as_deref()), (Some("c"), Some("at+jwt")));
    assert_eq!(auth.max_age, Some(Duration::from_secs(3 * 3600)));
    assert!(!auth.required && auth.query_token && auth.explain);
    let auth = tables("auth-defaults", SOURCE, &[]).unwrap().auth.unwrap();
    assert!(auth.required && !auth.query_token && !auth.explain);
    assert_eq!((auth.cookie, auth.typ, auth.max_age, auth.issuer), (None, None, None, None));
    assert_eq!((&*auth.user_claim, &*auth.topics_claim), ("sub", "topics"));
    assert_eq!((auth.leeway, auth.grace), (Duration::from_secs(30), Duration::from_secs(25)));
}

#[test]
fn grants_reach_their_values() {
    let text = format!(
        "{SOURCE}[[allow]]\nprincipal = 'user'\nsubscribe = ['user/{{sub}}/#', 'a,b', ' c ']\npublish = 'chat/+'\n\
         rights = ['presence', 'enter', 'history', 'request']\nrespond = ['points/#']\nlease = ['loco/+']\n\
         [[allow]]\nprincipal = 'claim:role=a=b'\n\
         [[key]]\nname = 'shop'\nsha256 = '{SHA256}'\nsubscribe = ['x/{{y}}']\napi = ['topics', 'inspect']\n"
    );
    let AccessTables { allows, keys, .. } = tables("auth-grants", &text, &[]).unwrap();
    assert_eq!(allows[0].grants.subscribe, ["user/{sub}/#", "a,b", " c "]);
    assert_eq!(allows[0].grants.publish, ["chat/+"]);
    assert_eq!((allows[0].grants.respond.len(), allows[0].grants.lease.len()), (1, 1));
    assert_eq!((allows[0].grants.rights.len(), &allows[0].principal), (4, &Who::User));
    assert!(allows[0].source.ends_with(".toml:4"));
    assert_eq!(allows[1].principal, Who::Claim { name: "role".to_owned(), value: "a=b".to_owned() });
    assert_eq!((&*keys[0].name, keys[0].api.len()), ("shop", 2));
    assert_eq!(keys[0].grants.subscribe, ["x/{y}"], "keys have no claims, so braces are text");
}

#[test]
fn what_is_wrong_is_a_sentence_with_its_line() {
    let key = format!("[[key]]\nname = 'a'\nsha256 = '{SHA256}'\n");
    let twice = key.clone() + &key;
    let allow = |rest: &str| format!("{SOURCE}[[allow]]\n{rest}");
    let with = |rest: &str| format!("{SOURCE}{rest}");
    for (at, (text, part)) in [
        ("[auth]\nhs-secret-file = 'a'\n".to_owned(), "a.toml:1: [auth] has a source of keys and needs algorithms"),
        ("[auth]\nalgorithms = ['ES256']\n".to_owned(), "a.toml:1: [auth] has algorithms and needs hs-secret-file"),
        ("[auth]\nalgorithms = ['none']\n".to_owned(), "a.toml:2: invalid value 'none' for algorithms"),
        ("[auth]\nalgorithms = ['ES512']\n".to_owned(), "it must be one of HS256"),
        ("[auth]\nhs-previous-secret-file = 'a'\n".to_owned(), "a.toml:2: hs-previous-secret-file is for a rotation"),
        ("[auth]\nhs-secret-file = 'a'\nalgorithms = ['ES256']\n".to_owned(), "a.toml:2: hs-secret-file is of no use"),
        (
            "[auth]\nkeys-url = 'https://a/'\nalgorithms = ['HS256']\n".to_owned(),
            "a.toml:1: keys-url gives public keys",
        ),
        (
            with("keys-url = 'http://id.example/jwks'\n"),
            "a.toml:4: invalid value 'http://id.example/jwks' for keys-url",
        ),
        (with("keys-ca-file = 'ca'\n"), "a.toml:4: keys-ca-file is of no use"),
        (with("keys-url = 'http://[::1]/'\nkeys-ca-file = 'ca'\n"), "a.toml:5: keys-ca-file is of no use"),
        (with("keys-url = 'ftp://a/'\n"), "an address such as https://"),
        (with("keys-url = 'https://me:secret@a/'\n"), "an address such as https://"),
        (with("issuers = 'a'\n"), "a.toml:4: there is no setting 'issuers' in [auth]: did you mean issuer?"),
        (with("issuer = ''\n"), "a.toml:4: invalid value '' for issuer"),
        (with("cookie = 'a b'\n"), "a.toml:4: invalid value 'a b' for cookie"),
        (with("max-age = '0s'\n"), "at least 1ms"),
        ("[[auth]]\n".to_owned(), "a.toml:1: auth is a table: write [auth] above its keys"),
        ("[allow]\n".to_owned(), "a.toml:1: allow is a table: write [[allow]] above its keys"),
        ("[[keys]]\n".to_owned(), "a.toml:1: there is no table [[keys]]: did you mean key?"),
        (allow("subscribe = ['a']\n"), "a.toml:4: the table [[allow]] needs principal"),
        (allow("principal = 'admin'\n"), "a.toml:5: invalid value 'admin' for principal"),
        (allow("principal = 'claim:role'\n"), "claim:NAME=VALUE"),
        (allow("principal = 'user'\nsubscribe = ['a/#/b']\n"), "a.toml:6: invalid value 'a/#/b' for subscribe"),
        (allow("principal = 'user'\nsubscribe = ['a/{sub']\n"), "a claim stands in braces"),
        (allow("principal = 'user'\nsubscribe = ['a/{}']\n"), "a claim stands in braces"),
        (allow("principal = 'user'\nsubscribe = ['a/sub}']\n"), "a claim stands in braces"),
        (allow("principal = 'user'\nsubscribe = ['+{sub}']\n"), "must stand alone"),
        (
            allow("principal = 'user'\npublish = ['a']\nrights = ['history']\n"),
            "a.toml:7: rights are for what is subscribed",
        ),
        (allow("principal = 'user'\nrights = ['admin']\n"), "a.toml:6: invalid value 'admin' for rights"),
        (allow("principal = 'anonymous'\n"), "a.toml:4: the table [[allow]] is for anonymous, and everybody needs"),
        (
            "[auth]\nrequired = false\n[[allow]]\nprincipal = 'anonymous'\npublish = ['{sub}']\n".to_owned(),
            "has no claims",
        ),
        (
            "[[allow]]\nprincipal = 'user'\n".to_owned(),
            "a.toml:1: the table [[allow]] is for users, and [auth] has no source",
        ),
        ("[[key]]\nname = 'a'\n".to_owned(), "a.toml:1: the table [[key]] needs sha256"),
        (format!("[[key]]\nsha256 = '{SHA256}'\n"), "a.toml:1: the table [[key]] needs name"),
        ("[[key]]\nname = 'a'\nsha256 = 'abc'\n".to_owned(), "a.toml:3: invalid value 'abc' for sha256: it must be 64"),
        (format!("[[key]]\nname = 'a/b'\nsha256 = '{SHA256}'\n"), "a.toml:2: invalid value 'a/b' for name"),
        (key.clone() + "api = ['all']\n", "a.toml:4: invalid value 'all' for api"),
        (twice.clone(), "a.toml:4: a.toml:1 has a key named a too"),
        (twice, "a.toml:4: the table at a.toml:1 has the same sha256"),
        (
            format!("publish-key = 'f'\n{key}"),
            "--publish-key (a.toml:1) does not go with [auth], [[allow]] and [[key]] (a.toml:2)",
        ),
        (format!("client-publish = 'off'\n{key}"), "--client-publish (a.toml:1) does not go with"),
    ]
    .into_iter()
    .enumerate()
    {
        let sentences = tables(&format!("auth-wrong-{at}"), &text, &[]).expect_err(&text);
        assert!(sentences.contains(part), "{text}: {part}: {sentences}");
    }
}

#[test]
fn required_tokens_let_the_broker_listen_beyond_loopback() {
    let beyond = ["--listen", "0.0.0.0:8080"];
    assert!(tables("auth-beyond", SOURCE, &beyond).unwrap().is_required());
    let anybody = SOURCE.replace("[auth]\n", "[auth]\nrequired = false\n");
    let sentence = tables("auth-anyone", &anybody, &beyond).unwrap_err();
    assert!(sentence.contains("required = true in [auth]"), "{sentence}");
    assert!(sentence.contains("do what [[allow]] grants to anonymous"), "{sentence}");
    tables("auth-meant", &anybody, &[&beyond[..], &["--allow-anonymous"]].concat()).unwrap();
}

#[test]
fn commands_about_credentials() {
    let Ok(Task::NewKey(key)) =
        read(&["key", "new", "shop", "--publish", "a/#", "--publish", "b,c", "--api", "topics"])
    else {
        panic!("the arguments are right")
    };
    assert_eq!((&*key.name, key.publish, key.api), ("shop", vec!["a/#".into(), "b,c".into()], vec!["topics".into()]));
    for (arguments, part) in [
        (&["key", "new", "a b"][..], "a name has 1 to 64 letters"),
        (&["key", "new"], "<NAME>"),
        (&["key", "new", "a", "--publish", "a/#/b"], "must be the last level"),
        (&["key", "new", "a", "--api", "all"], "topics"),
        (&["auth", "check"], "--token"),
        (&["auth", "check", "--token", "a", "--token-file", "b"], "cannot be used with"),
        (&["auth", "check", "--token", "a", "--publish", "a/+"], "only subscriptions may use"),
    ] {
        let sentence = refused(arguments);
        assert!(sentence.contains(part) && !sentence.contains('\n'), "{arguments:?}: {sentence}");
    }
    let file = Kept::new("auth-check", SOURCE);
    let Ok(Task::Check(tables)) = read(&["config", "check", file.path()]) else { panic!("the file is right") };
    assert!(tables.is_required());
}

#[test]
fn tables_are_shown_as_a_file_that_means_the_same() {
    let text = format!("{SOURCE}[[allow]]\nprincipal = 'user'\nsubscribe = ['u/{{sub}}', 'a,b']\n");
    let file = Kept::new("auth-shown", &text);
    let again = shown(&["config", "show", file.path()]);
    let (first, second) = (tables("auth-first", &text, &[]).unwrap(), tables("auth-second", &again, &[]).unwrap());
    assert_eq!(first.allows[0].grants, second.allows[0].grants);
    assert_eq!(first.auth.unwrap().algorithms, second.auth.unwrap().algorithms);
}
