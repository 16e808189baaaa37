//! Leases, over simulated connections of two shards.

use super::*;

/// Two shards. Topics that begin with `x` are exclusive.
pub(super) fn exclusive() -> Stage {
    let rule = Rule { filter: "x/#".to_owned(), is_exclusive: true, ..Rule::default() };
    let rules = crate::topics::rules::Rules::new(vec![rule], crate::topics::keys::Keys::from_seed(1)).expect("one");
    let registry = Registry::new(2, 1).ruled_by(Arc::new(SharedRules::new(rules)));
    let shared = SharedState { registry, ..SharedState::new(2, 1, Epoch(1)) };
    Stage::of(shared, u64::MAX >> 2, Limits { ping_interval: Duration::from_secs(1000), ..Limits::default() })
}

/// A topic below `x/` that this shard sequences.
pub(super) fn topic_of(stage: &Stage, shard: u16) -> String {
    let names = (0..).map(|number| format!("x/{number}"));
    let mut of_it = names.filter(|name| stage.shared.registry.resolve(name).sequencer == ShardId(shard));
    of_it.next().expect("one of them")
}

pub(super) fn lease(topic: &str, more: &Value) -> Value {
    let mut command = json!({ "type": "lease", "id": 7, "topic": topic });
    more.as_object().expect("members").iter().for_each(|(name, value)| command[name] = value.clone());
    command
}

impl Stage {
    /// The number of the lease that a client gets.
    pub(super) fn take(&mut self, client: ClientId, topic: &str) -> u64 {
        let answer = self.one(client, &lease(topic, &json!({})));
        assert_eq!(answer["ttl"], 10_000, "{answer}");
        answer["lease"].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// Who watches whose lease it is.
    pub(super) fn watch(&mut self, topic: &str) -> ClientId {
        let watcher = self.open_at(1, "/ws");
        let read = self.ask(watcher, &json!({ "type": "subscribe", "id": 1, "topic": format!("$lease/{topic}") }));
        assert_eq!(read.first().map(|answer| &answer["type"]), Some(&json!("ok")), "{read:?}");
        watcher
    }

    /// What a watcher is sent: the number of the lease, 0 for one that is free.
    pub(super) fn watched(&mut self, watcher: ClientId) -> Vec<u64> {
        let read = self.read(watcher);
        let number = |message: &Value| {
            let data = &message["data"];
            assert_eq!(data.is_null(), message["removed"] == true, "{message}");
            assert!(data.is_null() || data["by"].is_string() && data["until"].is_u64(), "{message}");
            data["lease"].as_u64().unwrap_or(0)
        };
        read.iter().map(number).collect()
    }

    fn code(&mut self, client: ClientId, command: &Value) -> Value {
        self.one(client, command)["code"].clone()
    }
}

#[test]
fn a_lease_is_handed_over_in_the_order_of_those_who_wait() {
    for sequencer in [0, 1] {
        let mut stage = exclusive();
        let topic = topic_of(&stage, sequencer);
        let watcher = stage.watch(&topic);
        let clients = [0, 1, 0].map(|shard| stage.join(shard, json!(true)).0);
        let number = stage.take(clients[0], &topic);
        assert_eq!(stage.take(clients[0], &topic), number, "who has it gets the same");
        let held = stage.one(clients[1], &lease(&topic, &json!({})));
        assert_eq!((&held["code"], held["ttl"].as_u64()), (&json!("held"), Some(10_000)), "{held}");
        assert!(held["by"].as_str().is_some_and(|by| by.starts_with('~')), "{held}");
        for client in &clients[1..] {
            stage.command(*client, &lease(&topic, &json!({ "wait": 60_000 })));
            assert_eq!(stage.read(*client), <[Value; 0]>::default());
        }
        stage.ok(clients[0], &lease(&topic, &json!({ "lease": number, "end": true })));
        assert_eq!(stage.read(clients[1])[0]["lease"], number + 1);
        assert_eq!(stage.read(clients[2]), <[Value; 0]>::default());
        stage.command(clients[1], &json!({ "type": "disconnect" }));
        assert_eq!(stage.close_of(clients[1]), Some(1000));
        assert_eq!(stage.read(clients[2])[0]["lease"], number + 2, "at once");
        stage.ok(clients[2], &lease(&topic, &json!({ "lease": number + 2, "end": true })));
        assert_eq!(stage.watched(watcher), [number, number, number + 1, number + 2, 0]);
        assert_eq!(stage.take(clients[0], &topic), number + 3, "numbers are never used again");
    }
}

#[test]
fn a_lease_that_is_not_renewed_is_lost() {
    let mut stage = exclusive();
    let topic = topic_of(&stage, 1);
    let client = stage.open("/ws");
    let watcher = stage.watch(&topic);
    let answer = stage.one(client, &lease(&topic, &json!({ "ttl": 1000 })));
    let number = answer["lease"].as_u64().expect("a number");
    stage.pass_ms(700);
    stage.ok(client, &lease(&topic, &json!({ "lease": number })));
    stage.pass_ms(700);
    assert_eq!(stage.read(client), <[Value; 0]>::default());
    stage.pass_ms(500);
    let lost = json!({ "type": "lease-lost", "topic": topic, "lease": number, "reason": "expired" });
    assert_eq!(stage.read(client), [lost]);
    assert_eq!(stage.code(client, &lease(&topic, &json!({ "lease": number }))), "not-found");
    assert_eq!(stage.code(client, &lease(&topic, &json!({ "lease": number, "end": true }))), "not-found");
    assert_eq!(stage.watched(watcher), [number, number, 0]);
    assert_eq!(stage.take(client, &topic), number + 1);
    // Of a topic that nobody knows, and of a client that has none.
    assert_eq!(stage.code(client, &lease("nobody", &json!({ "lease": 1 }))), "not-found");
    let other = stage.open("/ws");
    assert_eq!(stage.code(other, &lease(&topic, &json!({ "lease": number + 1 }))), "not-found");
}

#[test]
fn a_lease_waits_for_the_grace_of_its_session() {
    let mut stage = exclusive();
    let topic = topic_of(&stage, 0);
    let (client, answer) = stage.join(0, json!(true));
    let session = answer["session"].clone();
    let number = stage.one(client, &lease(&topic, &json!({ "ttl": 1000 })))["lease"].as_u64().expect("a number");
    let other = stage.open_at(1, "/ws");
    stage.leave_world(client);
    stage.pass_ms(GRACE_S * 1000 - 1000);
    assert_eq!(stage.code(other, &lease(&topic, &json!({}))), "held", "longer than its ttl");
    let (again, resumed) = stage.join(1, session.clone());
    assert_eq!(resumed["resumed"], true);
    assert_eq!(stage.one(again, &lease(&topic, &json!({ "lease": number })))["lease"], number);
    stage.leave_world(again);
    let waiting = lease(&topic, &json!({ "wait": 60_000 }));
    stage.command(other, &waiting);
    stage.pass_ms(GRACE_S * 1000 - 1000);
    assert_eq!(stage.read(other), <[Value; 0]>::default());
    stage.pass_ms(2000);
    assert_eq!(stage.read(other)[0]["lease"], number + 1);
    let (late, _) = stage.join(0, session);
    assert_eq!(stage.code(late, &lease(&topic, &json!({ "lease": number }))), "not-found");
    // Without a session it is free at once, and a command that waited goes with its connection.
    let gone = stage.open("/ws");
    stage.command(gone, &waiting);
    stage.command(late, &waiting);
    stage.turns(4);
    stage.leave_world(gone);
    stage.leave_world(other);
    assert_eq!(stage.read(late)[0]["lease"], number + 2);
}

#[test]
fn a_lease_goes_with_its_session_to_another_connection() {
    let mut stage = exclusive();
    let topic = topic_of(&stage, 1);
    let (first, answer) = stage.join(0, json!(true));
    let number = stage.take(first, &topic);
    let second = stage.open_at(1, "/ws");
    let resumed = stage.one(second, &json!({ "type": "connect", "id": 1, "session": answer["session"] }));
    assert_eq!(resumed["resumed"], true);
    stage.turns(8);
    let said = String::from_utf8_lossy(&stage.world.client_read(first, 4096)).into_owned();
    let lost = format!(r#"{{"type":"lease-lost","topic":"{topic}","lease":{number},"reason":"taken"}}"#);
    assert!(said.contains(&lost) && said.contains("goes on over another connection"), "{said}");
    stage.leave_world(first);
    assert_eq!(stage.take(second, &topic), number, "the end of the first changes nothing");
    stage.pass_ms(9000);
    assert_eq!(stage.one(second, &lease(&topic, &json!({ "lease": number, "ttl": 5000 })))["ttl"], 5000);
}

#[test]
fn an_exclusive_topic_takes_only_what_comes_under_its_lease() {
    for sequencer in [0, 1] {
        let mut stage = exclusive();
        let topic = topic_of(&stage, sequencer);
        let [first, second] = [0, 1].map(|shard| stage.open_at(shard, "/ws"));
        let publish = |stage: &mut Stage, client, lease: Option<u64>| {
            let options: Vec<_> = lease.map(|lease| ("lease", json!(lease))).into_iter().collect();
            stage.publish(client, &topic, &options)
        };
        assert_eq!(publish(&mut stage, first, None)["code"], "not-holder", "nobody has it");
        let number = stage.take(first, &topic);
        assert_eq!(publish(&mut stage, first, None)["code"], "not-holder");
        assert_eq!(publish(&mut stage, first, Some(number + 1))["code"], "not-holder");
        let position = publish(&mut stage, first, Some(number));
        assert_eq!(position["offset"], 1, "{position}");
        let snapshot = |lease: Value| {
            let up_to = json!({ "epoch": position["epoch"], "offset": 1 });
            json!({ "type": "snapshot", "id": 4, "topic": topic, "up_to": up_to, "data": 1, "lease": lease })
        };
        assert_eq!(stage.code(second, &snapshot(json!(number + 1))), "not-holder");
        stage.ok(first, &snapshot(json!(number)));
        // Behind what the first has sent, and before anything that it sends later.
        stage.command(second, &lease(&topic, &json!({ "wait": 1000 })));
        stage.turns(4);
        stage.command(first, &lease(&topic, &json!({ "lease": number, "end": true })));
        assert_eq!(stage.read(second)[0]["lease"], number + 1);
        stage.read(first);
        assert_eq!(publish(&mut stage, first, Some(number))["code"], "not-holder");
        assert_eq!(publish(&mut stage, second, Some(number + 1))["offset"], 2);
        stage.leave_world(second);
        let second = stage.open_at(1, "/ws");
        assert_eq!(publish(&mut stage, second, Some(number + 1))["code"], "not-holder", "it is free");
        // Elsewhere nobody asks.
        assert_eq!(stage.publish(first, "free", &[])["offset"], 1);
        assert_eq!(stage.publish(first, "free", &[("lease", json!(77))])["offset"], 2);
        let raw = stage.open(&format!("/pub/{topic}"));
        stage.write(raw, &frame(TEXT, b"x"));
        assert_eq!(stage.close_of(raw), Some(1008), "it cannot say under which lease");
    }
}

/// A repeated publish is a duplicate, also when the lease is over.
#[test]
fn a_repetition_needs_no_lease() {
    let mut stage = exclusive();
    let topic = topic_of(&stage, 1);
    let client = stage.open("/ws");
    let number = stage.take(client, &topic);
    let options = [("lease", json!(number)), ("idempotency_key", json!("k"))];
    assert_eq!(stage.publish(client, &topic, &options)["offset"], 1);
    stage.ok(client, &lease(&topic, &json!({ "lease": number, "end": true })));
    let again = stage.publish(client, &topic, &options);
    assert_eq!((&again["offset"], &again["duplicate"]), (&json!(1), &json!(true)), "{again}");
}

#[test]
fn leases_are_charged_and_bounded() {
    let registry = Registry::new(1, 1);
    let shared = SharedState { registry, ..SharedState::new(1, 1, Epoch(1)) };
    let mut stage = Stage::of(shared, u64::MAX >> 2, Limits { subscriptions_max: 2, ..Limits::default() });
    let client = stage.open("/ws");
    let before = stage.shared.budget.held(Held::Subscriptions);
    let number = stage.take(client, "a");
    stage.take(client, "b");
    assert!(stage.shared.budget.held(Held::Subscriptions) > before);
    assert_eq!(stage.code(client, &lease("c", &json!({}))), "limit");
    stage.ok(client, &lease("a", &json!({ "lease": number, "end": true })));
    stage.take(client, "c");
    stage.leave_world(client);
    assert_eq!(stage.shard.leases.len(), 0);
    let other = stage.open("/ws");
    assert_eq!(stage.code(other, &lease("$sys/a", &json!({}))), "forbidden");
}
