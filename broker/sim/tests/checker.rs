//! The model can fail: histories with one thing wrong, each of which it has to report.

use sim::model::{Arrival, Confirmed, Model, Position, StreamId, Violation};
use sim::payload::{Kind, build};

/// Two subscribers and one publisher on one topic; five messages, accepted.
struct History {
    model: Model,
    one: StreamId,
    two: StreamId,
    payloads: Vec<Vec<u8>>,
}

const TOPIC: &str = "t";
const LEN: usize = 40;

impl History {
    fn new() -> Self {
        Self::with_lengths(&[LEN; 5])
    }

    fn with_lengths(lengths: &[usize]) -> Self {
        let mut model = Model::new(vec![TOPIC.to_owned(), "other".to_owned()]);
        let [one, two] = ["one", "two"].map(|name| {
            let stream = model.open(name.to_owned());
            model.subscribing(stream, &[TOPIC.to_owned()]);
            let position = Some(Position { epoch: 7, offset: 1 });
            model.confirmed(stream, &[Confirmed { filter: TOPIC.to_owned(), position }]).expect("asked for");
            stream
        });
        let payloads = lengths.iter().map(|&len| {
            let id = model.publish(0, 0, Kind::Text, len);
            model.written(id);
            model.accepted(id);
            build(id, Kind::Text, len)
        });
        let payloads = payloads.collect();
        Self { model, one, two, payloads }
    }

    fn raw(&mut self, stream: StreamId, message: usize) -> Result<(), Violation> {
        let payload = &self.payloads[message];
        self.model.received(stream, &Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Text, payload }).map(drop)
    }

    fn at(&mut self, stream: StreamId, message: usize, offset: u64) -> Result<(), Violation> {
        let payload = &self.payloads[message];
        let arrival = Arrival { topic: Some(TOPIC), offset: Some(offset), kind: Kind::Text, payload };
        self.model.received(stream, &arrival).map(drop)
    }

    /// Tells all of it, then settles: the first thing wrong.
    fn verdict(mut self, one: &[usize], two: &[usize]) -> Option<&'static str> {
        let (a, b) = (self.one, self.two);
        let told = one.iter().try_for_each(|&message| self.raw(a, message));
        let told = told.and_then(|()| two.iter().try_for_each(|&message| self.raw(b, message)));
        told.and_then(|()| self.model.settle().map(drop)).err().map(|violation| violation.property)
    }
}

#[test]
fn a_right_history_passes() {
    assert_eq!(History::new().verdict(&[0, 1, 2, 3, 4], &[0, 1, 2, 3, 4]), None);
    let mut offsets = History::new();
    for message in 0..5 {
        offsets.at(offsets.one, message, message as u64 + 1).expect("in order");
    }
}

#[test]
fn a_lost_message() {
    for lost in 0..5 {
        let seen: Vec<_> = (0..5).filter(|&message| message != lost).collect();
        assert_eq!(History::new().verdict(&seen, &[0, 1, 2, 3, 4]), Some("nothing is lost"), "{lost}, by one");
        assert_eq!(History::new().verdict(&seen, &seen), Some("nothing is lost"), "{lost}, by both");
    }
}

#[test]
fn a_doubled_message() {
    assert_eq!(History::new().verdict(&[0, 1, 1, 2, 3, 4], &[]), Some("nothing is doubled"));
    assert_eq!(History::new().verdict(&[0, 1, 2, 0, 3, 4], &[]), Some("nothing is doubled"));
}

#[test]
fn a_publishers_messages_out_of_order() {
    let order = History::new().verdict(&[0, 2, 1, 3, 4], &[]);
    assert!(matches!(order, Some("nothing is lost" | "a publisher's order is kept")), "{order:?}");
}

#[test]
fn two_publishers_seen_in_two_orders() {
    let mut history = History::new();
    let foreign = history.model.publish(1, 0, Kind::Text, LEN);
    history.model.written(foreign);
    history.payloads.push(build(foreign, Kind::Text, LEN));
    let order = history.verdict(&[0, 1, 5, 2, 3, 4], &[0, 1, 2, 5, 3, 4]);
    assert_eq!(order, Some("all subscribers of a topic see the same order"));
}

#[test]
fn orders_that_contradict_each_other_only_in_a_circle() {
    let mut history = History::new();
    // One message of each of three publishers: a b, b c, c a.
    let payloads: Vec<_> = (1..4)
        .map(|publisher| {
            let id = history.model.publish(publisher, 0, Kind::Text, LEN);
            build(id, Kind::Text, LEN)
        })
        .collect();
    let three = history.model.open("three".to_owned());
    history.model.subscribing(three, &[TOPIC.to_owned()]);
    for (stream, [first, next]) in [(history.one, [0, 1]), (history.two, [1, 2]), (three, [2, 0])] {
        for message in [first, next] {
            let payload = &payloads[message];
            let arrival = Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Text, payload };
            history.model.received(stream, &arrival).expect("each by itself is fine");
        }
        history.model.ended(stream);
    }
    let circle = history.model.settle().expect_err("a circle");
    assert_eq!(circle.property, "all subscribers of a topic see the same order");
}

#[test]
fn a_changed_byte_and_another_kind() {
    let mut history = History::new();
    *history.payloads[0].last_mut().expect("not empty") ^= 1;
    let changed = history.raw(history.one, 0).expect_err("a changed byte");
    assert_eq!(changed.property, "a payload arrives as it was sent");

    let mut history = History::new();
    let cut = history.payloads[0].len() - 1;
    history.payloads[0].truncate(cut);
    assert!(history.raw(history.one, 0).is_err(), "a byte less");

    let mut history = History::new();
    let arrival = Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Binary, payload: &history.payloads[0] };
    let kind = history.model.received(history.one, &arrival).expect_err("binary now");
    assert_eq!(kind.property, "text stays text, binary stays binary");
}

#[test]
fn a_message_of_another_topic_or_without_a_subscription() {
    let mut history = History::new();
    let foreign = history.model.publish(0, 1, Kind::Text, LEN);
    let payload = build(foreign, Kind::Text, LEN);
    let mut arrival = Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Text, payload: &payload };
    assert_eq!(
        history.model.received(history.one, &arrival).expect_err("named wrong").property,
        "a message keeps its topic"
    );
    arrival.topic = Some("other");
    let unasked = history.model.received(history.one, &arrival).expect_err("not subscribed");
    assert_eq!(unasked.property, "only subscribers of a topic get its messages");
    history.model.unsubscribed(history.one, &[TOPIC.to_owned()]);
    let late = history.raw(history.one, 0).expect_err("no longer subscribed");
    assert_eq!(late.property, "only subscribers of a topic get its messages");
}

#[test]
fn offsets_with_a_gap_a_false_start_or_two_owners() {
    let mut history = History::new();
    assert_eq!(history.at(history.one, 0, 2).expect_err("1 was next").property, "offsets are dense");

    let mut history = History::new();
    history.at(history.one, 0, 1).expect("the first");
    assert_eq!(history.at(history.one, 1, 3).expect_err("2 was next").property, "offsets are dense");

    let mut history = History::new();
    history.model.acknowledged(0, Position { epoch: 7, offset: 1 }).expect("free");
    let taken = history.model.acknowledged(1, Position { epoch: 7, offset: 1 }).expect_err("taken");
    assert_eq!(taken.property, "a message has one place, and a place one message");
    let other = history.at(history.one, 1, 1).expect_err("acknowledged elsewhere");
    assert_eq!(other.property, "a message has one place, and a place one message");

    let mut late = History::new();
    let three = late.model.open("three".to_owned());
    late.model.subscribing(three, &[TOPIC.to_owned()]);
    late.at(three, 3, 4).expect("before it was confirmed");
    let confirmed = Confirmed { filter: TOPIC.to_owned(), position: Some(Position { epoch: 7, offset: 2 }) };
    let start = late.model.confirmed(three, &[confirmed]).expect_err("2 and 3 are missing");
    assert_eq!(start.property, "a subscription begins where it was confirmed");
}

#[test]
fn empty_messages_lost_between_two_others() {
    let lengths = [LEN, 0, 0, LEN];
    let whole = [0, 1, 2, 3];
    assert_eq!(History::with_lengths(&lengths).verdict(&whole, &whole), None);
    let lost = History::with_lengths(&lengths).verdict(&whole, &[0, 1, 3]);
    assert_eq!(lost, Some("all subscribers of a topic see the same order"));
}
