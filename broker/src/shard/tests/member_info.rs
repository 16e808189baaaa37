//! What others learn of a member where its token says it, on simulated connections of two shards.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::access::authority::Authority;
use crate::access::authority::tests::{SECRET, tables, token_by};
use crate::config::auth::{AllowTable, GrantLists, Who};
use crate::config::topics::{Presence, PresenceInfo};
use crate::topics::registry::Registry;
use crate::topics::rules::{Rule, SharedRules};

/// Two shards with access control, where users may enter and watch every topic, and what is said of them is as `info` says.
fn stage(info: PresenceInfo) -> (Stage, tempfile::TempDir) {
    let (mut tables, folder) = tables();
    let list = |text: &str| vec![text.to_owned()];
    let rights = vec!["enter".to_owned(), "presence".to_owned()];
    let grants = GrantLists { subscribe: list("#"), rights, ..GrantLists::default() };
    tables.allows.push(AllowTable { source: "a.toml:30".to_owned(), principal: Who::User, grants });
    let authority = Authority::new(&tables, &Arc::default(), 1 << 20).expect("an authority");
    let presence = Some(Presence { members_max: 9, info });
    let registry = Registry::new(2, 1).ruled_by(SharedRules::only(Rule { presence, ..Rule::default() }));
    let shared = SharedState { registry, ..SharedState::new(2, 1, Epoch(1)) }.authorized_by(Arc::new(authority));
    shared.wall_clock.set(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000), 0);
    (Stage::of(shared, u64::MAX >> 2, Limits::default()), folder)
}

/// A user's token with this claim `info`.
fn token(user: &str, info: &Value) -> String {
    token_by(SECRET, &json!({ "sub": user, "iat": 1_900_000_000, "exp": 1_900_003_600, "info": info }))
}

fn connect(stage: &mut Stage, shard: usize, token: &str) -> ClientId {
    let client = stage.open_at(shard, "/ws");
    let answers = stage.ask(client, &json!({ "type": "connect", "id": 1, "token": token }));
    assert_eq!(answers[0]["type"], "ok", "{answers:?}");
    client
}

/// The code of what a command is answered with; "ok".
fn code(stage: &mut Stage, client: ClientId, command: &Value) -> String {
    let answer = stage.ask(client, command).remove(0);
    let code = if answer["type"] == "ok" { &answer["type"] } else { &answer["code"] };
    code.as_str().expect("a text").to_owned()
}

/// Who is at `t`, and what is said of each.
fn present(stage: &mut Stage, client: ClientId) -> Value {
    let answer = stage.ask(client, &json!({ "type": "members", "id": 9, "topic": "t" })).remove(0);
    let members = answer["members"].as_array().expect("members").iter();
    members.map(|member| json!([member["member"], member["info"], member["connections"]])).collect()
}

fn enter() -> Value {
    json!({ "type": "enter", "id": 2, "topic": "t" })
}

#[test]
fn a_token_says_who_its_client_is_and_the_client_cannot() {
    let (mut stage, _folder) = stage(PresenceInfo::Token);
    let ada = connect(&mut stage, 0, &token("ada", &json!({ "name": "Ada L.", "id": 7 })));
    let bob = connect(&mut stage, 1, &token("bob", &Value::Null));
    let own = json!({ "type": "enter", "id": 3, "topic": "t", "info": { "name": "the boss" } });
    assert_eq!(code(&mut stage, ada, &own), "forbidden");
    assert_eq!(present(&mut stage, ada), json!([]), "who is refused is not there");
    for client in [ada, bob] {
        assert_eq!(code(&mut stage, client, &enter()), "ok");
    }
    let update = json!({ "type": "update", "id": 4, "topic": "t", "info": 1 });
    assert_eq!(code(&mut stage, ada, &update), "forbidden");
    let both = json!([["ada", { "name": "Ada L.", "id": 7 }, 1], ["bob", null, 1]]);
    assert_eq!(present(&mut stage, bob), both);
    // Another token of the same user says something else, from the next time that it enters.
    let refreshed = json!({ "type": "connect", "id": 5, "token": token("ada", &json!("Ada K.")) });
    assert_eq!(code(&mut stage, ada, &refreshed), "ok");
    assert_eq!(present(&mut stage, bob), both);
    assert_eq!(code(&mut stage, ada, &enter()), "ok");
    assert_eq!(present(&mut stage, bob), json!([["ada", "Ada K.", 1], ["bob", null, 1]]));
    let tab = connect(&mut stage, 1, &token("ada", &json!("Ada K.")));
    assert_eq!(code(&mut stage, tab, &enter()), "ok");
    assert_eq!(present(&mut stage, bob), json!([["ada", "Ada K.", 2], ["bob", null, 1]]));
}

#[test]
fn a_token_that_says_too_much_does_not_enter() {
    let (mut stage, _folder) = stage(PresenceInfo::Token);
    // With its quotes 1025 bytes, and 1024.
    for (len, expected) in [(1023, "too-big"), (1022, "ok")] {
        let ada = connect(&mut stage, 0, &token("ada", &json!("x".repeat(len))));
        assert_eq!(code(&mut stage, ada, &enter()), expected, "{len}");
    }
}

#[test]
fn where_clients_say_it_themselves_tokens_do_not() {
    let (mut stage, _folder) = stage(PresenceInfo::Client);
    let ada = connect(&mut stage, 0, &token("ada", &json!("of the token")));
    assert_eq!(code(&mut stage, ada, &enter()), "ok");
    assert_eq!(present(&mut stage, ada), json!([["ada", null, 1]]));
    assert_eq!(code(&mut stage, ada, &json!({ "type": "update", "id": 4, "topic": "t", "info": 1 })), "ok");
    assert_eq!(present(&mut stage, ada), json!([["ada", 1, 1]]));
}
