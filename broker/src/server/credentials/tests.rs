//! What the commands print.

use super::*;
use crate::config::auth::{AccessTables, AllowTable, GrantLists, KeyTable, Who};

fn asked(subscribe: Option<&str>, publish: Option<&str>) -> CheckedToken {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (subscribe, publish) = (owned(subscribe), owned(publish));
    CheckedToken { token: None, token_file: None, subscribe, publish, respond: None, lease: None }
}

#[test]
fn a_new_key_comes_with_a_table_that_lets_it_in() {
    let new = NewKey {
        name: "shop".to_owned(),
        subscribe: Vec::new(),
        publish: vec!["orders/#".to_owned(), "a\"b".to_owned()],
        rights: Vec::new(),
        respond: vec!["points/#".to_owned()],
        lease: vec!["loco/+".to_owned()],
        api: vec!["topics".to_owned()],
    };
    let text = key_and_table(&new, &[7; KEY_BYTES]);
    let key = text.split_whitespace().find(|word| word.starts_with(API_KEY_PREFIX)).expect("a key").to_owned();
    assert_eq!(key.len(), API_KEY_PREFIX.len() + 43);
    let parsed: toml::Table = text.parse().expect("TOML");
    let table = &parsed["key"][0];
    assert_eq!(table["name"].as_str(), Some("shop"));
    assert_eq!(table["publish"][1].as_str(), Some("a\"b"));
    assert_eq!(table["api"][0].as_str(), Some("topics"));
    assert_eq!((table["respond"][0].as_str(), table["lease"][0].as_str()), (Some("points/#"), Some("loco/+")));
    assert!(table.get("subscribe").is_none() && table.get("rights").is_none());
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    let written: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(table["sha256"].as_str(), Some(written.as_str()));
    let grants =
        GrantLists { publish: vec!["orders/#".to_owned()], lease: vec!["loco/+".to_owned()], ..GrantLists::default() };
    let table =
        KeyTable { source: "a:1".to_owned(), name: "shop".to_owned(), sha256, grants, api: vec!["topics".to_owned()] };
    let authority = Authority::new(&AccessTables { keys: vec![table], ..AccessTables::default() }, &Arc::default(), 0);
    let authority = authority.expect("an authority");
    let (text, is_allowed) = verdict(&authority, key.as_bytes(), &asked(None, Some("orders/1")), 0);
    assert_eq!(
        text,
        "good: key shop\npublish: orders/#\nlease: loco/+\napi: topics\nallowed: publish orders/1, by 'orders/#' of its [[key]]\n"
    );
    assert!(is_allowed);
    let (text, is_allowed) = verdict(&authority, key.as_bytes(), &asked(Some("orders/1"), Some("x")), 0);
    assert!(!is_allowed && text.contains("denied: subscribe orders/1: no grant for subscribe covers it, it has none"));
    assert!(text.contains("denied: publish x: no grant for publish covers it, the nearest is 'orders/#'"), "{text}");
    let leases =
        CheckedToken { respond: Some("loco/12".to_owned()), lease: Some("loco/12".to_owned()), ..asked(None, None) };
    let (text, _) = verdict(&authority, key.as_bytes(), &leases, 0);
    assert!(
        text.ends_with(
            "denied: respond loco/12: no grant for respond covers it, it has none\n\
         allowed: lease loco/12, by 'loco/+' of its [[key]]\n"
        ),
        "{text}"
    );
    let (text, is_allowed) = verdict(&authority, b"rk_wrong", &asked(None, None), 0);
    assert!(!is_allowed && text.starts_with("denied: ") && text.ends_with("cause: unknown-api-key\n"), "{text}");
    assert!(!text.contains("rk_wrong"));
}

#[test]
fn a_bad_token_is_named_by_its_cause() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/tokens/vectors.json")).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ringyard.toml");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, vectors["secret"].as_str().unwrap()).expect("a file");
    let text = format!("[auth]\nhs-secret-file = '{}'\nalgorithms = ['HS256']\n", secret.display());
    std::fs::write(&path, text).expect("a file");
    let here = crate::config::Surroundings { cores: 1, memory_bytes_default_max: 1 << 30 };
    let args =
        ["ringyard", "--config", path.to_str().unwrap(), "auth", "check", "--token", "x", "--subscribe", "chat/7"];
    let Ok(crate::config::Task::CheckToken(asked, mut tables)) = crate::config::read(args, |_| None, &here) else {
        panic!("the arguments are right")
    };
    assert!(!format!("{asked:?}").contains('x'));
    let grants = GrantLists { subscribe: vec!["user/{sub}/#".to_owned()], ..GrantLists::default() };
    tables.allows.push(AllowTable { source: "a:9".to_owned(), principal: Who::User, grants });
    let authority = Authority::new(&tables, &Arc::default(), 0).expect("an authority");
    let now_ms = vectors["now_s"].as_u64().unwrap() * 1000;
    let check = |name: &str| {
        let vector =
            vectors["tokens"].as_array().unwrap().iter().find(|vector| vector["name"] == name).expect("a vector");
        verdict(&authority, vector["token"].as_str().unwrap().as_bytes(), &asked, now_ms)
    };
    let (text, is_allowed) = check("PyJWT: good HS256");
    assert!(
        is_allowed && text.starts_with("good: user ann, ends in 3600 s\nsubscribe: chat/7, user/ann/#\n"),
        "{text}"
    );
    assert!(text.ends_with("allowed: subscribe chat/7, by 'chat/7' of the token's own claim\n"), "{text}");
    let (text, is_allowed) = check("PyJWT: expired");
    assert!(
        !is_allowed && text.contains("exp is in the past (it is 1790000000 now") && text.ends_with("cause: expired\n")
    );
    assert!(check("PyJWT: another secret").0.ends_with("cause: signature\n"));
}

#[test]
fn a_token_is_read_from_a_file_without_white_space() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, " a.b.c\n").expect("a file");
    let from = |path: &Path| CheckedToken { token_file: Some(path.to_owned()), ..asked(None, None) };
    assert_eq!(credential(&from(&path)), Ok(b"a.b.c".to_vec()));
    assert!(credential(&from(Path::new("/nowhere"))).expect_err("no file").contains("--token-file"));
    assert_eq!(credential(&CheckedToken { token: Some("x".to_owned()), ..asked(None, None) }), Ok(b"x".to_vec()));
}
