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
            model
                .confirmed(stream, &[Confirmed { filter: TOPIC.to_owned(), position, ..Confirmed::default() }])
                .expect("asked for");
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
        self.model
            .received(stream, &Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Text, payload, tags: None })
            .map(drop)
    }

    fn at(&mut self, stream: StreamId, message: usize, offset: u64) -> Result<(), Violation> {
        let payload = &self.payloads[message];
        let arrival = Arrival { topic: Some(TOPIC), offset: Some(offset), kind: Kind::Text, payload, tags: None };
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
            let arrival = Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Text, payload, tags: None };
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
    let arrival =
        Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Binary, payload: &history.payloads[0], tags: None };
    let kind = history.model.received(history.one, &arrival).expect_err("binary now");
    assert_eq!(kind.property, "text stays text, binary stays binary");
}

#[test]
fn a_message_of_another_topic_or_without_a_subscription() {
    let mut history = History::new();
    let foreign = history.model.publish(0, 1, Kind::Text, LEN);
    let payload = build(foreign, Kind::Text, LEN);
    let mut arrival = Arrival { topic: Some(TOPIC), offset: None, kind: Kind::Text, payload: &payload, tags: None };
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
    let confirmed = Confirmed {
        filter: TOPIC.to_owned(),
        position: Some(Position { epoch: 7, offset: 2 }),
        ..Confirmed::default()
    };
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

/// One topic with a rule, and two clients of `ringyard.v1`.
mod memory {
    use broker::topics::rules::{History, Rule};
    use sim::model::{Arrival, Asked, Confirmed, Model, Options, Position, Remembers, Start, Tags, Violation};
    use sim::payload::{Kind, build};
    use sim::rules::{Policy, Slow, TopicRule};

    const EPOCH: u64 = 7;
    const LEN: usize = 40;
    const KEYED: History =
        History::Keyed { keys_max: 100, bytes_max: 1 << 20, tombstone_ttl: std::time::Duration::from_secs(600) };

    fn at(offset: u64) -> Position {
        Position { epoch: EPOCH, offset }
    }

    /// A model with so many messages published, each with these options.
    fn published(history: History, options: &[Options]) -> Model {
        let rule = TopicRule { history, ttl: 0, ..TopicRule::default() };
        let mut model = Model::new(vec!["t".to_owned()]).ruled(vec![rule], 1 << 30);
        for (options, offset) in options.iter().zip(1..) {
            let id = model.publish_with(0, 0, Kind::Text, LEN, options.clone());
            model.written(id);
            model.acknowledged(id, at(offset)).expect("a place of its own");
        }
        model
    }

    fn window(messages: usize) -> Model {
        published(Rule::default().history, &vec![Options::default(); messages])
    }

    fn keys(keys: &[(&str, bool)]) -> Model {
        let options = |&(key, removed): &(&str, bool)| Options { key: Some(key.into()), removed, ..Options::default() };
        published(KEYED, &keys.iter().map(options).collect::<Vec<_>>())
    }

    /// A subscription, with the answer to it.
    fn begin(model: &mut Model, start: Start, answer: Confirmed) -> Result<usize, Violation> {
        let stream = model.open("client".to_owned());
        model.asking(stream, &[Asked { filter: "t".to_owned(), start, state: true, ..Asked::default() }]);
        model.confirmed(stream, &[Confirmed { filter: "t".to_owned(), ..answer }])?;
        Ok(stream)
    }

    fn recovered(offset: u64, history: Remembers) -> Confirmed {
        Confirmed { position: Some(at(offset)), recovered: Some(true), history: Some(history), ..Confirmed::default() }
    }

    fn get(model: &mut Model, stream: usize, offset: u64, state: bool) -> Result<(), Violation> {
        let id = offset as u32 - 1;
        let options = model.options(id).clone();
        let tags = Tags { key: options.key.as_deref(), removed: options.removed, state, up_to: false };
        let payload = build(id, Kind::Text, LEN);
        let arrival =
            Arrival { topic: Some("t"), offset: Some(offset), kind: Kind::Text, payload: &payload, tags: Some(tags) };
        model.received(stream, &arrival).map(drop)
    }

    /// The property that a recovery from offset 2 of 5 messages breaks, which replays these.
    fn replay(offsets: &[u64]) -> Option<&'static str> {
        let mut model = window(5);
        let stream = begin(&mut model, Start::Since(at(2)), recovered(3, Remembers::Window)).expect("true");
        let got = offsets.iter().try_for_each(|&offset| get(&mut model, stream, offset, false));
        got.and_then(|()| model.settle().map(drop)).err().map(|violation| violation.property)
    }

    #[test]
    fn a_replay_with_a_hole_or_a_double_at_the_seam() {
        assert_eq!(replay(&[3, 4, 5]), None);
        for wrong in [&[4, 5][..], &[3, 5], &[2, 3, 4, 5], &[3, 4, 4, 5]] {
            assert_eq!(replay(wrong), Some("offsets are dense"), "{wrong:?}");
        }
    }

    #[test]
    fn a_recovery_from_another_epoch_or_from_beyond() {
        let mut model = window(5);
        let other = Position { epoch: EPOCH + 1, offset: 2 };
        let wrong = begin(&mut model, Start::Since(other), recovered(3, Remembers::Window)).expect_err("another epoch");
        assert_eq!(wrong.property, "an answer to a position is true");
        let beyond = begin(&mut model, Start::Since(at(9)), recovered(6, Remembers::Window)).expect_err("beyond");
        assert_eq!(beyond.property, "an answer to a position is true");
    }

    #[test]
    fn what_is_there_is_recovered() {
        let mut model = window(5);
        let answer = Confirmed { recovered: Some(false), available: Some((1, 5)), ..recovered(6, Remembers::Window) };
        begin(&mut model, Start::Since(at(2)), answer).expect("not wrong in itself");
        assert_eq!(model.settle().expect_err("all was there").property, "what is there is recovered");
    }

    /// The property that a recovery of keys from offset 2 breaks, which shows these and ends at offset 5.
    fn changed(offsets: &[u64]) -> Option<&'static str> {
        let mut model = keys(&[("a", false), ("b", false), ("a", false), ("c", false), ("b", true)]);
        let stream = begin(&mut model, Start::Since(at(2)), recovered(3, Remembers::Keyed)).expect("true");
        let got = offsets.iter().try_for_each(|&offset| get(&mut model, stream, offset, true));
        let ended = got.and_then(|()| model.state_ended(stream, "t", Some(5)));
        ended.and_then(|()| model.settle().map(drop)).err().map(|violation| violation.property)
    }

    #[test]
    fn a_keyed_recovery_without_a_key_or_a_removal() {
        assert_eq!(changed(&[3, 4, 5]), None);
        for wrong in [&[3, 4][..], &[4, 5], &[3, 5], &[1, 3, 4, 5]] {
            assert_eq!(changed(wrong), Some("a keyed topic's state is the newest of each key"), "{wrong:?}");
        }
    }

    #[test]
    fn state_that_ends_twice_or_never() {
        let mut model = keys(&[("a", false)]);
        let answer = Confirmed { recovered: None, ..recovered(2, Remembers::Keyed) };
        let stream = begin(&mut model, Start::Now, answer.clone()).expect("true");
        get(&mut model, stream, 1, true).expect("the only key");
        let never = model.settle().expect_err("no end");
        assert_eq!(never.property, "state ends once, where it is asked for");
        model.state_ended(stream, "t", Some(1)).expect("the first");
        assert!(model.state_ended(stream, "t", Some(1)).is_err(), "a second one");
    }

    #[test]
    fn a_filter_walk_that_skips_a_topic() {
        let retained = Options { retain: true, ..Options::default() };
        let mut model = published(History::None, &[retained]);
        let stream = model.open("client".to_owned());
        model.asking(stream, &[Asked { filter: "#".to_owned(), start: Start::Now, state: true, ..Asked::default() }]);
        model.confirmed(stream, &[Confirmed { filter: "#".to_owned(), ..Confirmed::default() }]).expect("asked for");
        model.state_ended(stream, "#", None).expect("the first");
        let skipped = model.settle().expect_err("the topic's retained message is missing");
        assert_eq!(skipped.property, "a filter's state is that of every topic");
    }

    #[test]
    fn an_idempotency_key_under_a_wrong_offset_or_forgotten() {
        let named = |key: &str| Options { idempotency_key: Some(key.into()), ..Options::default() };
        let mut model = published(Rule::default().history, &[named("one"), named("two")]);
        let again = model.publish_with(1, 0, Kind::Text, LEN, named("two"));
        model.written(again);
        model.duplicate(again, at(1)).expect("not known to be wrong yet");
        assert_eq!(model.settle().expect_err("1 is another").property, "an idempotency key yields one message");
        let model = published(Rule::default().history, &[named("one"), named("one")]);
        assert_eq!(model.settle().expect_err("two messages").property, "an idempotency key yields one message");
    }

    #[test]
    fn two_that_compare_with_the_same_offset_do_not_both_win() {
        let mut model = window(2);
        let compared = Options { if_offset: Some(2), ..Options::default() };
        let [first, second] = [0, 1].map(|publisher| {
            let id = model.publish_with(publisher, 0, Kind::Text, LEN, compared.clone());
            model.written(id);
            id
        });
        model.acknowledged(first, at(3)).expect("it is next");
        let both = model.acknowledged(second, at(4)).expect_err("3 is the newest");
        assert_eq!(both.property, "compare-and-set compares and sets at once");
    }
    /// The property that a subscriber of a topic with this policy breaks, which gets these of four messages: of a, b, a, b.
    fn delivered(slow: Slow, offsets: &[u64]) -> Option<&'static str> {
        let policy = Policy { slow, ..Policy::default() };
        let rule = TopicRule { history: History::None, policy, ..TopicRule::default() };
        let mut model = Model::new(vec!["t".to_owned()]).ruled(vec![rule], 1 << 30);
        let stream =
            begin(&mut model, Start::Now, Confirmed { position: Some(at(1)), ..Confirmed::default() }).expect("true");
        for (key, offset) in ["a", "b", "a", "b"].into_iter().zip(1..) {
            let options = Options { key: Some(key.into()), ..Options::default() };
            let id = model.publish_with(0, 0, Kind::Text, LEN, options);
            model.written(id);
            model.acknowledged(id, at(offset)).expect("a place of its own");
        }
        let got = offsets.iter().try_for_each(|&offset| get(&mut model, stream, offset, false));
        got.and_then(|()| model.settle().map(drop)).err().map(|violation| violation.property)
    }

    #[test]
    fn conflation_that_loses_the_newest_of_a_key() {
        for right in [&[3, 4][..], &[1, 2, 3, 4], &[2, 3, 4], &[1, 3, 4]] {
            assert_eq!(delivered(Slow::Latest, right), None, "{right:?}");
        }
        for wrong in [&[3][..], &[4], &[1, 2, 4], &[1, 2], &[]] {
            assert_eq!(delivered(Slow::Latest, wrong), Some("nothing is lost"), "{wrong:?}");
        }
        assert_eq!(delivered(Slow::Latest, &[4, 3]), Some("offsets are dense"), "backwards");
        assert_eq!(delivered(Slow::Disconnect, &[3, 4]), Some("offsets are dense"), "not with this policy");
        assert_eq!(delivered(Slow::Skip, &[3, 4]), Some("offsets are dense"), "without a gap");
    }
}
