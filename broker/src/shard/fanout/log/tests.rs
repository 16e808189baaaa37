//! The log against a model of its subscribers, and single cases.

use proptest::prelude::*;
use protocol::v1::PayloadKind;

use crate::capacity::budget::Budget;
use crate::message::{Encoding, Payload};
use crate::shard::fanout::log::gather::COALESCE_BYTES_MAX;
use crate::shard::fanout::log::gather::Taken;
use crate::shard::fanout::log::*;
use crate::shard::fanout::parts::*;
use crate::topics::registry::Registry;
use crate::topics::rules::SlowConsumer;

/// What most topics have.
const DISCONNECT: LagPolicy =
    LagPolicy { slow_consumer: SlowConsumer::Disconnect, bytes_max: u64::MAX, throttle: Throttle::NONE };

/// One subscriber as the model knows it: what it was sent, and whether its socket takes anything.
struct Reader {
    slot: u32,
    cursor: Seq,
    start: u64,
    got: Vec<Offset>,
    blocked: bool,
    lagging: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Append,
    Add,
    Remove(usize),
    Visit(usize),
    Block(usize),
    Unblock(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Append),
        2 => Just(Step::Add),
        1 => any::<usize>().prop_map(Step::Remove),
        4 => (0..5_usize).prop_map(Step::Visit),
        1 => any::<usize>().prop_map(Step::Block),
        1 => any::<usize>().prop_map(Step::Unblock),
    ]
}

/// What a shard does with a log, without sockets.
struct Rig {
    log: Log,
    readers: Vec<Reader>,
    next_slot: u32,
}

impl Rig {
    fn take(&mut self, slot: u32, visited: bool) {
        let reader = self.readers.iter_mut().find(|reader| reader.slot == slot).expect("a live reader");
        if reader.cursor == self.log.head() {
            return;
        }
        if reader.blocked {
            if visited {
                self.log.lags(reader.cursor, !reader.lagging);
                reader.lagging = true;
            }
            return;
        }
        reader.got.extend(self.log.pending(reader.cursor).map(|(_, message)| message.offset));
        reader.cursor = self.log.head();
        if std::mem::take(&mut reader.lagging) {
            self.log.caught_up();
        }
    }

    fn deliver_to(&mut self) {
        if let Some(subscriber) = self.log.next_in_round() {
            self.take(subscriber.conn.slot, true);
        }
    }
}

proptest! {
    #[test]
    fn everybody_gets_everything_in_order_and_nothing_needed_is_trimmed(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let registry = Registry::new(1, 1);
    let budget = Budget::new(1, 1 << 40);
        let topic = registry.resolve("t");
        let mut log = Log::new(topic.clone(), (0, 0), DISCONNECT, registry.keys(), budget.of_shard(0));
        log.next_offset = Offset(1);
        let mut rig = Rig { log, readers: Vec::new(), next_slot: 0 };
        let mut published = 0;
        for step in steps {
            match step {
                Step::Append => {
                    published += 1;
                    let payload = Payload::copy_of(PayloadKind::Text, b"0123456789", budget.of_shard(0));
                    rig.log.append(Arc::new(Message::new(topic.key(), Offset(published), payload, 0)));
                }
                Step::Add => {
                    let slot = rig.next_slot;
                    rig.next_slot += 1;
                    rig.log.add(Subscriber { conn: ConnId { slot, generation: 0 }, sub: 0 });
                    let head = rig.log.head();
                    rig.readers.push(Reader {
                        slot, cursor: head, start: published, got: Vec::new(), blocked: false, lagging: false,
                    });
                }
                Step::Remove(at) if !rig.readers.is_empty() => {
                    let at = at % rig.readers.len();
                    let gone = rig.readers.swap_remove(at);
                    if let Some(moved) = rig.log.remove(at, gone.lagging) {
                        rig.take(moved.conn.slot, true);
                    }
                }
                Step::Visit(times) => (0..times).for_each(|_| rig.deliver_to()),
                Step::Block(at) if !rig.readers.is_empty() => {
                    let at = at % rig.readers.len();
                    rig.readers[at].blocked = true;
                }
                Step::Unblock(at) if !rig.readers.is_empty() => {
                    let at = at % rig.readers.len();
                    rig.readers[at].blocked = false;
                    if rig.readers[at].lagging {
                        let slot = rig.readers[at].slot;
                        rig.take(slot, false);
                    }
                }
                _ => {}
            }
            rig.log.trim();
            let lagging = rig.readers.iter().filter(|reader| reader.lagging).count();
            prop_assert_eq!(rig.log.lagging as usize, lagging);
            for reader in &rig.readers {
                prop_assert!(rig.log.entries.tail() <= reader.cursor && reader.cursor <= rig.log.head());
            }
        }
        while rig.log.has_pending() {
            rig.deliver_to();
        }
        for at in 0..rig.readers.len() {
            rig.readers[at].blocked = false;
            let slot = rig.readers[at].slot;
            if rig.readers[at].lagging {
                rig.take(slot, false);
            }
        }
        rig.log.trim();
        prop_assert_eq!(rig.log.kept_bytes(), 0, "all were sent, all is freed");
        for reader in &rig.readers {
            let expected: Vec<Offset> = (reader.start + 1..=published).map(Offset).collect();
            prop_assert_eq!(&reader.got, &expected);
        }
    }
}

/// Two that lag by turns, and deliveries that end in the middle of a round: what the second one still needs
/// was freed, because only the first one's place was remembered.
#[test]
fn a_subscriber_that_lags_in_a_round_that_is_cut_short_keeps_its_messages() {
    let registry = Registry::new(1, 1);
    let budget = Budget::new(1, 1 << 40);
    let topic = registry.resolve("t");
    let mut log = Log::new(topic.clone(), (0, 0), DISCONNECT, registry.keys(), budget.of_shard(0));
    log.next_offset = Offset(1);
    let append = |log: &mut Log| {
        let payload = Payload::copy_of(PayloadKind::Text, b"hello", budget.of_shard(0));
        log.append(Arc::new(Message::new(topic.key(), log.next_offset, payload, 0)));
    };
    let visit = |log: &mut Log, slot| assert_eq!(log.next_in_round().map(|visited| visited.conn.slot), Some(slot));
    for slot in [0, 1] {
        log.add(Subscriber { conn: ConnId { slot, generation: 0 }, sub: 0 });
    }
    append(&mut log);
    visit(&mut log, 0); // is sent 0
    visit(&mut log, 1); // has been sent nothing
    log.lags(Seq(0), true);
    log.trim();
    append(&mut log);
    visit(&mut log, 0); // is sent 1
    append(&mut log);
    log.caught_up(); // 1 is sent all three
    append(&mut log);
    visit(&mut log, 1); // has been sent 0 to 2
    log.lags(Seq(3), true);
    visit(&mut log, 0); // has been sent 0 and 1
    log.lags(Seq(2), true);
    log.trim();
    append(&mut log);
    log.trim();
    assert_eq!(log.gather(Seq(2), Encoding::Raw, Thrift::Fast).to, Seq(5));
}

#[test]
fn a_gather_joins_small_frames_and_is_built_once_per_place() {
    let registry = Registry::new(1, 1);
    let budget = Budget::new(1, 1 << 40);
    let topic = registry.resolve("t");
    let mut log = Log::new(topic.clone(), (0, 0), DISCONNECT, registry.keys(), budget.of_shard(0));
    log.next_offset = Offset(1);
    log.add(Subscriber { conn: ConnId { slot: 0, generation: 0 }, sub: 0 });
    for offset in 1..=3 {
        log.append(Arc::new(Message::new(
            topic.key(),
            Offset(offset),
            Payload::copy_of(PayloadKind::Text, b"hello", budget.of_shard(0)),
            0,
        )));
    }
    let mut gather = |from| {
        let Taken { gather, to, .. } = log.gather(from, Encoding::Raw, Thrift::Fast);
        (gather.expect("something to send"), to)
    };
    let (first, to) = gather(Seq(0));
    assert_eq!((first.parts().len(), first.len(), to), (1, 21, Seq(3)));
    let (again, _) = gather(Seq(0));
    assert_eq!(again.parts()[0].as_ptr(), first.parts()[0].as_ptr());
    let big = Payload::copy_of(PayloadKind::Binary, &vec![0; COALESCE_BYTES_MAX], budget.of_shard(0));
    log.append(Arc::new(Message::new(topic.key(), Offset(4), big, 0)));
    let Taken { gather: vectored, to, .. } = log.gather(Seq(2), Encoding::Raw, Thrift::Fast);
    assert_eq!((vectored.map(|vectored| vectored.parts().len()), to), (Some(2), Seq(4)));
    let huge = Payload::copy_of(PayloadKind::Binary, &vec![0; GATHER_BYTES_MAX], budget.of_shard(0));
    log.append(Arc::new(Message::new(topic.key(), Offset(5), huge, 0)));
    assert_eq!(log.gather(Seq(3), Encoding::Raw, Thrift::Fast).to, Seq(4), "the huge one goes alone");
    assert_eq!(log.gather(Seq(4), Encoding::Raw, Thrift::Fast).to, Seq(5));
}
