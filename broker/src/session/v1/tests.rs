//! A `ringyard.v1` session without a shard: text goes in, actions and answers come out.

use std::time::Duration;

use protocol::frame::{MessageKind, close_code};
use protocol::v1::{Connected, ErrorCode, Parser, PayloadKind, Position};

use crate::capacity::budget::Budget;
use crate::config::limits::Limits;
use crate::session::v1::*;
use crate::session::{Data, PublishData, Target};
use crate::topics::registry::Registry;

/// A session, and what a shard would lend it.
struct Client {
    session: V1Session,
    limits: Limits,
    registry: Registry,
    is_identified: bool,
}

/// What a message led to, without its borrows.
#[derive(PartialEq, Debug)]
enum Done {
    Answer,
    Publish { to: String, known: bool, kind: PayloadKind, data: Vec<u8>, ack: bool },
    Subscribe(Vec<String>),
    Unsubscribe { flush: bool },
    History(String),
    Snapshot(String),
    Connect(Option<String>),
    Other(&'static str),
    Call(String),
    Close(u16),
}

impl Client {
    fn new() -> Self {
        let limits = Limits { subscriptions_max: 4, message_bytes_max: 16, ..Limits::default() };
        Self { session: V1Session::default(), limits, registry: Registry::new(1, 1), is_identified: true }
    }

    /// What a text message leads to, and its answer.
    fn text(&mut self, text: &str) -> (Done, String) {
        let (mut parser, mut out, mut text) = (Parser::default(), BytesMut::new(), text.as_bytes().to_vec());
        let codec =
            Codec { parser: &mut parser, limits: &self.limits, is_identified: self.is_identified, out: &mut out };
        let message = Incoming { kind: MessageKind::Text, data: Data::Received(&mut text) };
        let done = match self.session.on_message(message, codec) {
            Action::Answer => Done::Answer,
            Action::Publish { to, kind, data, ack, .. } => {
                let (to, known) = match to {
                    Target::Known(topic) => (topic.name.to_string(), true),
                    Target::Named(name) => (name.to_owned(), false),
                };
                let PublishData::Copy(data) = data else { panic!("{data:?}") };
                Done::Publish { to, known, kind, data: data.to_vec(), ack }
            }
            Action::Subscribe { filters, .. } => Done::Subscribe(filters.iter().map(str::to_owned).collect()),
            Action::Unsubscribe { flush } => Done::Unsubscribe { flush },
            Action::History { topic, .. } => Done::History(topic.to_owned()),
            Action::Snapshot { topic, .. } => Done::Snapshot(topic.to_owned()),
            Action::Connect { token, .. } => Done::Connect(token.map(str::to_owned)),
            Action::Disconnect { .. } => Done::Other("disconnect"),
            Action::Enter { is_update: false, .. } => Done::Other("enter"),
            Action::Enter { is_update: true, .. } => Done::Other("update"),
            Action::Leave { .. } => Done::Other("leave"),
            Action::Members { .. } => Done::Other("members"),
            Action::Call(call) => Done::Call(format!("{call:?}")),
            Action::Lease { .. } => Done::Other("lease"),
            Action::Will { .. } => Done::Other("will"),
            Action::Close { code, .. } => Done::Close(code.into()),
        };
        (done, String::from_utf8(out.to_vec()).unwrap())
    }

    /// Carries out a subscribe of the topics that `text` names, as a shard whose logs have to be joined first.
    fn subscribe(&mut self, text: &str, id: u64) -> Vec<u32> {
        let (Done::Subscribe(filters), _) = self.text(text) else { panic!("{text}") };
        let keys = self.registry.keys();
        let added: Vec<u32> =
            filters.iter().map(|filter| self.session.add(LogSlot::new(7), filter.as_str().into(), keys)).collect();
        self.session.begin_subscribe(Id::number(id), added.clone());
        added
    }

    /// A subscription comes into force. The answer, if one is written.
    fn go_live(&mut self, key: u32, offset: u64) -> String {
        let mut out = BytesMut::new();
        self.session.go_live(key, 0, Seq(0));
        let begun = Begun { position: Some(Position { epoch: 1, offset }), ..Begun::default() };
        self.session.begin(key, begun, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }
}

fn code(answer: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    answer["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Where a token is needed, `connect` with one comes first; a ping's answer is no command.
#[test]
fn nothing_is_done_before_the_client_says_who_it_is() {
    let mut client = Client { is_identified: false, ..Client::new() };
    for command in [
        r#"{"type":"connect","id":1}"#,
        r#"{"type":"ping","id":1}"#,
        r#"{"type":"subscribe","id":1,"topic":"a"}"#,
        r#"{"type":"unsubscribe","id":1,"topic":"a"}"#,
        r#"{"type":"publish","id":1,"topic":"a","data":1}"#,
        r#"{"type":"history","id":1,"topic":"a"}"#,
        r#"{"type":"disconnect","id":1}"#,
        r#"{"type":"enter","id":1,"topic":"a"}"#,
        r#"{"type":"update","id":1,"topic":"a","info":1}"#,
        r#"{"type":"leave","id":1,"topic":"a"}"#,
        r#"{"type":"members","id":1,"topic":"a"}"#,
    ] {
        let (done, answer) = client.text(command);
        assert_eq!((done, code(&answer)), (Done::Answer, "unauthorized".to_owned()), "{command}");
        assert!(answer.contains("\"id\":1"), "{answer}");
    }
    assert_eq!(client.text(r#"{"type":"pong"}"#), (Done::Answer, String::new()));
    let (done, answer) = client.text(r#"{"type":"connect","id":1,"token":"a.b.c","ping":"message"}"#);
    assert_eq!((done, answer), (Done::Connect(Some("a.b.c".to_owned())), String::new()));
    let connected = Connected { member: "ada", ping_ms: Some(25_000), server: "r", ..Connected::default() };
    for (pings, expected) in [(true, ",\"ping\":25000"), (false, "")] {
        client.session.pings_by_message = pings;
        let mut out = BytesMut::new();
        client.session.write_connected(Id::number(1), &connected, &mut out);
        assert_eq!(out, format!("{{\"type\":\"ok\",\"id\":1,\"member\":\"ada\"{expected},\"server\":\"r\"}}"));
    }
}

/// What nothing grants any more ends like an unsubscribe, and says so for each; not before its command is answered.
#[test]
fn subscriptions_that_are_not_granted_end() {
    let mut client = Client::new();
    let keys = client.subscribe(r#"{"type":"subscribe","id":1,"topics":["a","b"]}"#, 1);
    client.go_live(keys[0], 1);
    assert!(client.session.end_subscriptions(&keys[..1]).is_none(), "its command is not answered");
    client.go_live(keys[1], 1);
    let action = client.session.end_subscriptions(&keys[..1]);
    assert!(matches!(action, Some(Action::Unsubscribe { flush: false })), "{action:?}");
    assert!(client.session.end_subscriptions(&keys[1..]).is_none(), "one after the other");
    let mut out = BytesMut::new();
    let ended = client.session.finish_unsubscribe(&mut out);
    assert_eq!((ended.keys, ended.forbidden, out.len()), (vec![keys[0]], vec!["a".to_owned()], 0));
}

#[test]
fn a_ping_is_answered_and_nothing_else_happens() {
    let (done, answer) = Client::new().text(r#"{"type":"ping","id":3}"#);
    assert_eq!(done, Done::Answer);
    assert!(answer.contains("pong") && answer.contains('3'), "{answer}");
}

#[test]
fn what_is_no_command_is_answered_with_its_error_and_what_is_no_text_closes() {
    let mut client = Client::new();
    let (done, answer) = client.text("{");
    assert_eq!((done, code(&answer)), (Done::Answer, ErrorCode::BadJson.as_str().to_owned()));
    let (mut parser, mut out, mut bytes) = (Parser::default(), BytesMut::new(), [1, 2, 3]);
    let codec = Codec { parser: &mut parser, limits: &client.limits, is_identified: true, out: &mut out };
    let message = Incoming { kind: MessageKind::Binary, data: Data::Received(&mut bytes) };
    let action = client.session.on_message(message, codec);
    assert!(matches!(action, Action::Close { code: close_code::UNSUPPORTED, .. }), "{action:?}");
}

#[test]
fn a_subscribe_is_answered_once_all_its_topics_are_in_force() {
    let mut client = Client::new();
    let keys = client.subscribe(r#"{"type":"subscribe","id":1,"topics":["a","b"]}"#, 1);
    assert_eq!(client.go_live(keys[1], 5), "", "the other is still to come");
    let busy = client.text(r#"{"type":"unsubscribe","id":2,"topics":["b"]}"#);
    assert_eq!((busy.0, code(&busy.1)), (Done::Answer, ErrorCode::Busy.as_str().to_owned()));
    let answer = client.go_live(keys[0], 9);
    let (a, b) = (answer.find("\"a\"").unwrap(), answer.find("\"b\"").unwrap());
    assert!(a < b && answer.contains("\"id\":1"), "in the command's order: {answer}");
}

#[test]
fn a_topic_twice_or_too_many_refuse_the_whole_command() {
    let mut client = Client::new();
    client.subscribe(r#"{"type":"subscribe","id":1,"topics":["a"]}"#, 1);
    for (topics, expected) in [
        (r#"["b","b"]"#, ErrorCode::AlreadySubscribed),
        (r#"["b","a"]"#, ErrorCode::AlreadySubscribed),
        (r#"["b","c","d","e"]"#, ErrorCode::Limit),
    ] {
        let (done, answer) = client.text(&format!(r#"{{"type":"subscribe","id":2,"topics":{topics}}}"#));
        assert_eq!((done, code(&answer)), (Done::Answer, expected.as_str().to_owned()), "{topics}");
    }
    assert_eq!(client.session.keys(), [0]);
}

#[test]
fn an_unsubscribe_names_its_subscriptions_once_and_waits_where_others_may_overlap() {
    let mut client = Client::new();
    let [a] = client.subscribe(r#"{"type":"subscribe","id":1,"topics":["a"]}"#, 1)[..] else { panic!() };
    client.go_live(a, 1);
    let unknown = client.text(r#"{"type":"unsubscribe","id":2,"topics":["a","x"]}"#);
    assert_eq!((unknown.0, code(&unknown.1)), (Done::Answer, ErrorCode::NotSubscribed.as_str().to_owned()));
    assert!(!client.session.is_unsubscribing());
    let [all] = client.subscribe(r##"{"type":"subscribe","id":3,"topics":["#"]}"##, 3)[..] else { panic!() };
    client.go_live(all, 1);
    let (done, _) = client.text(r#"{"type":"unsubscribe","id":4,"topics":["a","a"]}"#);
    assert_eq!(done, Done::Unsubscribe { flush: true });
    let mut out = BytesMut::new();
    assert_eq!(client.session.finish_unsubscribe(&mut out).keys, [a]);
    assert!(!out.is_empty() && !client.session.is_unsubscribing());
}

/// What waits for its time is sent before the subscription ends, for as long as one of them may have a throttle.
#[test]
fn an_unsubscribe_waits_where_one_has_a_throttle() {
    let mut client = Client::new();
    for (id, throttle, flush) in [(1, 0, false), (3, 100, true), (5, 0, false)] {
        let subscribe = format!(r#"{{"type":"subscribe","id":{id},"topic":"a"}}"#);
        let [key] = client.subscribe(&subscribe, id)[..] else { panic!() };
        client.session.go_live(key, 0, Seq(1));
        let begun = Begun { throttle: Throttle::at_least(Duration::from_millis(throttle)), ..Begun::default() };
        client.session.begin(key, begun, &mut BytesMut::new());
        let (done, _) = client.text(&format!(r#"{{"type":"unsubscribe","id":{},"topic":"a"}}"#, id + 1));
        assert_eq!(done, Done::Unsubscribe { flush }, "{throttle}");
        assert_eq!(client.session.finish_unsubscribe(&mut BytesMut::new()).keys, [key]);
        client.session.remove(key);
    }
}

#[test]
fn publishes_are_checked_and_the_last_topic_is_remembered() {
    let mut client = Client::new();
    let publish = |topic: &str, data: &str| format!(r#"{{"type":"publish","id":1,"topic":"{topic}","data":"{data}"}}"#);
    for (topic, data, expected) in
        [("$x", "y", ErrorCode::Forbidden), ("t", "much longer than it may be", ErrorCode::TooBig)]
    {
        let (done, answer) = client.text(&publish(topic, data));
        assert_eq!((done, code(&answer)), (Done::Answer, expected.as_str().to_owned()), "{topic}");
    }
    for known in [false, true] {
        let (done, answer) = client.text(&publish("t", "hi"));
        let Done::Publish { to, known: was, data, .. } = done else { panic!("{done:?} {answer}") };
        assert_eq!((&*to, was, &*data), ("t", known, &b"hi"[..]));
        client.session.remember_topic(client.registry.resolve("t"));
    }
}

#[test]
fn each_acknowledgement_goes_to_its_command() {
    let mut client = Client::new();
    let budget = Budget::new(1, 1 << 20);
    let account = budget.of_shard(0);
    let tickets = [10, 11].map(|id| client.session.await_answer(Id::number(id), true, account).unwrap());
    assert!(budget.used() > 0, "what waits is charged");
    assert_eq!(client.session.answers_to_come(), Some(2));
    let mut out = BytesMut::new();
    let published =
        SequencerAnswer::Published { position: Position { epoch: 1, offset: 4 }, subscribers: 3, duplicate: false };
    client.session.on_answer(tickets[1], Ok(published), account, &mut out);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert!(
        text.contains("\"id\":11") && text.contains("\"offset\":4") && text.contains("\"subscribers\":3"),
        "{text}"
    );
    out.clear();
    client.session.on_answer(tickets[1], Ok(published), account, &mut out);
    assert!(out.is_empty(), "answered once");
    assert_eq!(client.session.answers_to_come(), Some(1));
    client.session.on_answer(tickets[0], Err(Refusal::Unsupported("not here")), account, &mut out);
    let text = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(text, r#"{"type":"error","id":10,"code":"unsupported","reason":"not here"}"#);
    assert_eq!(client.session.answers_to_come(), Some(0));
}

/// Millions of `/ws` connections have to fit.
#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<V1Session>() <= 176, "{}", size_of::<V1Session>());
}

#[test]
fn what_is_charged_grows_with_the_subscriptions_and_goes_with_them() {
    let budget = Budget::new(1, 1 << 30);
    let (mut session, keys) = (V1Session::default(), Registry::new(1, 1).keys());
    let mut estimate = 0;
    for n in 0..1024 {
        let filter = format!("+/{}/{n}/+", n % 7);
        estimate += session.bytes_for(&filter);
        session.add(LogSlot::new(n), filter.into(), keys);
    }
    session.charge(budget.of_shard(0));
    let used = budget.used();
    assert!(used > 1024 * 150 && used <= estimate, "{used} of {estimate}");
    for key in session.keys() {
        session.remove(key);
    }
    session.charge(budget.of_shard(0));
    assert_eq!(budget.used(), 0);
}
