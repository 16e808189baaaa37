//! What a budget is charged after clients have come and gone: what it was before.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::access::authority::Authority;
use crate::access::authority::tests::{SECRET, tables, token_by};
use crate::config::topics::{Presence, PresenceInfo};
use crate::topics::registry::Registry;
use crate::topics::rules::{Rule, SharedRules};

/// Clients at a time, and how often as many come.
const CLIENTS: usize = 250;
const ROUNDS: usize = 40;
/// The time of day when the clock of the simulation is 0, in seconds since 1970.
const NOW_S: u64 = 1_900_000_000;

impl Stage {
    /// One client, with what a client can have: subscriptions, a session, presence, a lease, a will, filters that it serves.
    fn begin(&mut self, number: usize) -> ClientId {
        let client = self.open_quickly(number % 2, ["/ws", "/ws", "/sub/raw", "/bus/raw"][number % 4]);
        if number % 4 > 1 {
            return client;
        }
        let own = format!("own/{number}");
        let will = json!({"topic": format!("{own}/will"), "data": 1, "delay": 0});
        let commands = [
            json!({"type": "connect", "id": 1, "session": number.is_multiple_of(3), "will": will}),
            json!({"type": "subscribe", "id": 2, "topics": [own, format!("{own}/+"), "all", format!("$presence/{own}")]}),
            json!({"type": "subscribe", "id": 3, "topic": format!("{own}/slow"), "throttle": 1000}),
            json!({"type": "enter", "id": 4, "topic": own, "info": number}),
            json!({"type": "lease", "id": 5, "topic": own, "ttl": 5000}),
            json!({"type": "respond", "id": 6, "filter": format!("{own}/ask/+")}),
            json!({"type": "publish", "id": 7, "topic": format!("{own}/slow"), "data": 1, "ack": true}),
            json!({"type": "request", "id": 8, "topic": format!("own/{}/ask/it", number - number % 4), "data": 1, "timeout": 1000}),
        ];
        for command in commands {
            let frame = frame(TEXT, command.to_string().as_bytes());
            assert_eq!(self.world.client_write(client, &frame), frame.len());
            self.few_turns(1);
        }
        self.few_turns(4);
        client
    }

    fn open_quickly(&mut self, shard: usize, path: &str) -> ClientId {
        let client = self.ask_to_open(shard, path);
        self.few_turns(4);
        client
    }

    /// All of them leave, in one way or another, and time passes.
    fn leave(&mut self, clients: Vec<ClientId>) {
        for (at, client) in clients.into_iter().enumerate() {
            if at % 2 == 0 { self.world.client_reset(client) } else { self.world.client_close(client) }
        }
        for _ in 0..60 {
            self.world.advance(5_000_000_000);
            self.few_turns(4);
        }
    }

    /// Turns without a look at everything.
    fn few_turns(&mut self, turns: usize) {
        for _ in 0..turns {
            assert!(self.shard.step().unwrap());
            for other in &mut self.others {
                assert!(other.step().unwrap());
            }
        }
    }
}

#[test]
fn ten_thousand_clients_with_topics_of_their_own_come_and_leave_nothing() {
    let presence = Some(Presence { members_max: 9, info: PresenceInfo::Client });
    let registry = Registry::new(2, 1).ruled_by(SharedRules::only(Rule { presence, ..Rule::default() }));
    let shared = SharedState { registry, ..SharedState::new(2, 1, Epoch(1)) };
    let limits = Limits {
        ping_interval: Duration::from_secs(100_000),
        topic_idle_timeout: Duration::from_secs(1),
        session_grace: Duration::from_secs(1),
        ..Limits::default()
    };
    let mut stage = Stage::of(shared, u64::MAX >> 2, limits);
    let before = stage.shared.budget.held(Held::Subscriptions);
    let mut number = 0;
    for round in 0..ROUNDS {
        let begin = |_| {
            number += 1;
            stage.begin(number)
        };
        let clients: Vec<_> = (0..CLIENTS).map(begin).collect();
        let there = stage.shared.budget.held(Held::Subscriptions);
        assert!(there > before + 1000 * CLIENTS as u64, "{there} bytes in round {round}");
        stage.leave(clients);
        assert_eq!(stage.shared.budget.held(Held::Subscriptions), before, "after round {round}");
    }
    stage.turns(1);
}

/// What is remembered of their tokens takes no room that is for subscriptions, and not for ever.
#[test]
fn users_leave_nothing_but_what_is_remembered_of_their_tokens() {
    const CACHE_BYTES: u64 = 1 << 20;
    let (tables, _folder) = tables();
    let shared = SharedState::new(2, 1, Epoch(1)).within(64 << 20);
    let authority = Authority::new(&tables, shared.budget.of_plane(), CACHE_BYTES).expect("an authority");
    let shared = shared.authorized_by(Arc::new(authority));
    shared.wall_clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S), 0);
    let limits = Limits { ping_interval: Duration::from_secs(100_000), ..Limits::default() };
    let mut stage = Stage::of(shared, 64 << 20, limits);
    let held = |stage: &Stage| [Held::Subscriptions, Held::Tokens].map(|held| stage.shared.budget.held(held));
    let before = held(&stage);
    let mut remembered = Vec::new();
    for round in 0..4 {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let now_s = NOW_S + stage.world.now() / 1_000_000_000;
            let claims = json!({"sub": format!("{round}-{number}"), "iat": now_s, "exp": now_s + 600});
            let client = stage.open_quickly(number % 2, "/ws");
            for command in [
                json!({"type": "connect", "id": 1, "token": token_by(SECRET, &claims)}),
                json!({"type": "subscribe", "id": 2, "topic": format!("user/{round}-{number}/x"), "state": false}),
            ] {
                let frame = frame(TEXT, command.to_string().as_bytes());
                assert_eq!(stage.world.client_write(client, &frame), frame.len());
                stage.few_turns(4);
            }
            clients.push(client);
        }
        assert!(held(&stage)[0] > before[0] + 500 * CLIENTS as u64 && held(&stage)[1] > before[1]);
        // Longer than the tokens last.
        stage.leave(clients);
        for _ in 0..2 {
            stage.leave(Vec::new());
        }
        assert_eq!(held(&stage)[0], before[0], "after round {round}");
        remembered.push(held(&stage)[1] - before[1]);
    }
    // Tokens that have ended make room for others, whether there is enough or not.
    assert!(remembered[3] < 2 * remembered[0] && remembered[3] <= CACHE_BYTES, "{remembered:?}");
}
