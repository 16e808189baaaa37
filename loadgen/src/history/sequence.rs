//! The offsets of one topic as one client sees them, over all of its connections.
//!
//! Invariant: `position` is the last message that the client has, or that the server said will not come. A message is in
//! order if the one before it (`prev`, or `offset - 1`) is the position. State is not part of the sequence, and is not
//! given to [`Sequence::message`].

use crate::adapter::Position;

/// What a server answered to a subscription of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the subscription begins after: the answer's epoch, and the offset before the first message to come.
    pub after: Position,
    /// Whether everything after the client's position is there; nothing if the answer does not say.
    pub recovered: Option<bool>,
    /// The oldest offset that the topic still has, of an answer that names it.
    pub available_from: Option<u64>,
}

/// How a subscription began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begun {
    /// The client had no position.
    Anew,
    /// Nothing is missing.
    Recovered,
    /// Something is missing, and the answer said so.
    NotRecovered {
        /// Messages that will not come. Nothing: the topic's epoch is another, and nobody knows.
        missed: Option<u64>,
        /// The topic had all of them: one recovery may not replay so much.
        withheld: bool,
    },
}

/// What a server did wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// So many messages are missing, and no gap announced that.
    Missing {
        /// How many.
        messages: u64,
        /// They are the first after an answer with `recovered: true`, which was untrue.
        after_recovery: bool,
    },
    /// A message that the client has already.
    Doubled,
    /// An answer about recovery that is not true, or none at all.
    Untrue,
}

/// One topic at one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sequence {
    position: Option<Position>,
    /// The last answer was `recovered: true`, and no message came since.
    after_recovery: bool,
}

impl Sequence {
    /// What the client asks the server to go on from.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The client forgets its last messages: as if it had remembered an older position.
    pub fn step_back(&mut self, messages: u64) {
        if let Some(position) = &mut self.position {
            position.offset = position.offset.saturating_sub(messages);
        }
    }

    /// The client forgets all: the next subscription is a newcomer's.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// A subscription was answered, to a client that asked for everything after its position.
    ///
    /// # Errors
    /// The answer contradicts what the client has. It continues with what the answer says.
    pub fn answered(&mut self, answer: Answer) -> Result<Begun, Fault> {
        let before = self.position.replace(answer.after);
        self.after_recovery = false;
        let Some(before) = before else { return Ok(Begun::Anew) };
        let same_epoch = before.epoch == answer.after.epoch;
        match answer.recovered {
            Some(true) if before == answer.after => {
                self.after_recovery = true;
                Ok(Begun::Recovered)
            }
            Some(true) | None => Err(Fault::Untrue),
            // Nothing is missing after all.
            Some(false) if before == answer.after => Err(Fault::Untrue),
            Some(false) => Ok(Begun::NotRecovered {
                missed: if same_epoch { answer.after.offset.checked_sub(before.offset) } else { None },
                withheld: same_epoch && answer.available_from.is_some_and(|from| from <= before.offset + 1),
            }),
        }
    }

    /// A message came. `prev` is the offset of the one before it, where that is not the offset before.
    ///
    /// # Errors
    /// It is not the one that had to come. The client goes on with it.
    pub fn message(&mut self, offset: u64, prev: Option<u64>) -> Result<(), Fault> {
        let after_recovery = std::mem::take(&mut self.after_recovery);
        // Without an answer that names a position there is nothing to compare with: a filter's messages.
        let Some(position) = &mut self.position else { return Ok(()) };
        if offset <= position.offset {
            return Err(Fault::Doubled);
        }
        let had = std::mem::replace(&mut position.offset, offset);
        match prev.unwrap_or(offset - 1).checked_sub(had) {
            Some(0) | None => Ok(()),
            Some(messages) => Err(Fault::Missing { messages, after_recovery }),
        }
    }

    /// A message came on a topic whose subscribers are conflated: others may have been left out before it.
    ///
    /// # Errors
    /// Its offset is not higher than those before. The client goes on with what it has.
    pub fn rises(&mut self, offset: u64) -> Result<(), Fault> {
        self.after_recovery = false;
        let Some(position) = &mut self.position else { return Ok(()) };
        if offset <= position.offset {
            return Err(Fault::Doubled);
        }
        position.offset = offset;
        Ok(())
    }

    /// The server said that the messages up to `to` will not come, on such a topic. Returns how many of them the client does
    /// not have.
    pub fn rises_over(&mut self, from: u64, to: u64) -> u64 {
        self.after_recovery = false;
        let Some(position) = &mut self.position else { return to.saturating_sub(from).saturating_add(1) };
        let had = position.offset;
        position.offset = had.max(to);
        to.saturating_sub(had.max(from.saturating_sub(1)))
    }

    /// A message without an offset came, on a connection whose messages the client counts itself.
    pub fn counted(&mut self) {
        self.after_recovery = false;
        if let Some(position) = &mut self.position {
            position.offset += 1;
        }
    }

    /// The server said that the messages `from..=to` will not come. Returns how many of them the client does not have.
    ///
    /// # Errors
    /// The gap does not begin right behind what the client has, or ends before it.
    pub fn gap(&mut self, from: u64, to: u64) -> Result<u64, Fault> {
        self.after_recovery = false;
        let Some(position) = &mut self.position else { return Ok(to.saturating_sub(from).saturating_add(1)) };
        if to < from || to <= position.offset || from <= position.offset {
            return Err(Fault::Doubled);
        }
        let had = std::mem::replace(&mut position.offset, to);
        match from - 1 - had {
            0 => Ok(to - had),
            messages => Err(Fault::Missing { messages, after_recovery: false }),
        }
    }

    /// The epoch ended under a live subscription.
    pub fn reset(&mut self, position: Position) {
        *self = Self { position: Some(position), after_recovery: false };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    fn answer(epoch: u64, offset: u64, recovered: Option<bool>) -> Answer {
        Answer { after: at(epoch, offset), recovered, available_from: None }
    }

    /// A client that has the messages up to `offset` of epoch 7.
    fn having(offset: u64) -> Sequence {
        let mut sequence = Sequence::default();
        sequence.answered(answer(7, offset, None)).unwrap();
        sequence
    }

    #[test]
    fn a_newcomer_and_its_return() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.position(), None);
        assert_eq!(sequence.answered(answer(7, 4, None)), Ok(Begun::Anew));
        for offset in 5..9 {
            assert_eq!(sequence.message(offset, None), Ok(()));
        }
        assert_eq!(sequence.position(), Some(at(7, 8)));
        assert_eq!(sequence.answered(answer(7, 8, Some(true))), Ok(Begun::Recovered));
        assert_eq!(sequence.message(9, None), Ok(()));
    }

    #[test]
    fn planted_faults_are_found() {
        assert_eq!(having(8).message(10, None), Err(Fault::Missing { messages: 1, after_recovery: false }));
        assert_eq!(having(8).message(8, None), Err(Fault::Doubled));
        assert_eq!(having(8).message(20, Some(10)), Err(Fault::Missing { messages: 2, after_recovery: false }));
        assert_eq!(having(8).message(20, Some(8)), Ok(()), "offsets need not be dense");
        // `recovered: true` with another place, another epoch, or a hole behind it.
        assert_eq!(having(8).answered(answer(7, 9, Some(true))), Err(Fault::Untrue));
        assert_eq!(having(8).answered(answer(6, 8, Some(true))), Err(Fault::Untrue));
        let mut hole = having(8);
        hole.answered(answer(7, 8, Some(true))).unwrap();
        assert_eq!(hole.message(11, None), Err(Fault::Missing { messages: 2, after_recovery: true }));
        assert_eq!(hole.message(13, None), Err(Fault::Missing { messages: 1, after_recovery: false }));
        // `recovered: false` although nothing is missing, and an answer that does not say.
        assert_eq!(having(8).answered(answer(7, 8, Some(false))), Err(Fault::Untrue));
        assert_eq!(having(8).answered(answer(7, 8, None)), Err(Fault::Untrue));
    }

    #[test]
    fn what_is_missing_and_said_to_be_is_no_fault() {
        let missed = |missed| Ok(Begun::NotRecovered { missed, withheld: false });
        assert_eq!(having(8).answered(answer(7, 30, Some(false))), missed(Some(22)));
        assert_eq!(having(8).answered(answer(6, 2, Some(false))), missed(None));
        // A position beyond the head, which only a server that forgot messages gives.
        assert_eq!(having(8).answered(answer(7, 3, Some(false))), missed(None));
        let withheld = Answer { available_from: Some(9), ..answer(7, 30, Some(false)) };
        let expected = Begun::NotRecovered { missed: Some(22), withheld: true };
        assert_eq!(having(8).answered(withheld), Ok(expected));
        let mut sequence = having(8);
        assert_eq!(sequence.gap(9, 12), Ok(4));
        assert_eq!(sequence.message(13, None), Ok(()));
        assert_eq!(sequence.gap(15, 20), Err(Fault::Missing { messages: 1, after_recovery: false }));
        assert_eq!(sequence.gap(19, 21), Err(Fault::Doubled));
        sequence.reset(at(9, 3));
        assert_eq!(sequence.message(4, None), Ok(()));
        assert_eq!(sequence.position(), Some(at(9, 4)));
    }

    #[test]
    fn conflated_offsets_rise_and_nothing_more() {
        let mut sequence = having(8);
        sequence.answered(answer(7, 8, Some(true))).unwrap();
        assert_eq!((sequence.rises(12), sequence.rises(13)), (Ok(()), Ok(())));
        assert_eq!((sequence.rises(13), sequence.rises(9)), (Err(Fault::Doubled), Err(Fault::Doubled)));
        assert_eq!((sequence.rises_over(20, 24), sequence.position()), (5, Some(at(7, 24))));
        assert_eq!((sequence.rises_over(20, 26), sequence.rises(26)), (2, Err(Fault::Doubled)));
        assert_eq!(Sequence::default().rises(5), Ok(()));
    }

    #[test]
    fn older_positions_and_counted_messages() {
        let mut sequence = having(8);
        sequence.step_back(3);
        assert_eq!(sequence.position(), Some(at(7, 5)));
        sequence.answered(answer(7, 5, Some(true))).unwrap();
        sequence.counted();
        assert_eq!(sequence.position(), Some(at(7, 6)));
        sequence.step_back(100);
        assert_eq!(sequence.position(), Some(at(7, 0)));
        sequence.forget();
        assert_eq!(sequence, Sequence::default());
    }

    /// What happens to a client of a server that keeps `window` messages.
    #[derive(Clone, Debug)]
    enum Step {
        Publish(u64),
        Reconnect,
        /// The server skips a client that is there, and says so.
        Skip,
        /// The topic begins anew.
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..9u64).prop_map(Step::Publish),
            3 => Just(Step::Reconnect),
            1 => Just(Step::Skip),
            1 => Just(Step::Forget),
        ]
    }

    /// A server that is honest unless `fault` comes due: the number of the delivery that is left out or sent twice.
    struct Server {
        epoch: u64,
        head: u64,
        window: u64,
        sent: u64,
        fault: Option<(u64, bool)>,
    }

    impl Server {
        /// Delivers one message; returns what the client makes of it.
        fn deliver(&mut self, client: &mut Sequence, offset: u64) -> Vec<Fault> {
            self.sent += 1;
            let times = match self.fault {
                Some((at, _)) if at != self.sent => 1,
                Some((_, double)) => 1 + usize::from(double) - usize::from(!double),
                None => 1,
            };
            (0..times).filter_map(|_| client.message(offset, None).err()).collect()
        }
    }

    fn run(steps: &[Step], away: &[bool], fault: Option<(u64, bool)>) -> (Vec<Fault>, bool) {
        let mut server = Server { epoch: 1, head: 0, window: 6, sent: 0, fault };
        let mut client = Sequence::default();
        client.answered(answer(1, 0, None)).unwrap();
        let (mut faults, mut away) = (Vec::new(), away.iter().cycle());
        let mut is_away = false;
        for step in steps {
            match step {
                Step::Publish(count) => {
                    for _ in 0..*count {
                        server.head += 1;
                        if !is_away {
                            let offset = server.head;
                            faults.extend(server.deliver(&mut client, offset));
                        }
                    }
                }
                Step::Reconnect if !is_away && *away.next().unwrap() => is_away = true,
                Step::Reconnect => {
                    is_away = false;
                    let had = client.position().unwrap();
                    let oldest = server.head.saturating_sub(server.window);
                    let whole = had.epoch == server.epoch && (oldest..=server.head).contains(&had.offset);
                    let from = if whole { had.offset } else { server.head };
                    let answer = Answer {
                        after: at(server.epoch, from),
                        recovered: Some(whole),
                        available_from: Some(oldest + 1),
                    };
                    faults.extend(client.answered(answer).err());
                    for offset in from + 1..=server.head {
                        faults.extend(server.deliver(&mut client, offset));
                    }
                }
                Step::Skip if !is_away => {
                    let from = server.head + 1;
                    server.head += 3;
                    faults.extend(client.gap(from, server.head).err());
                }
                Step::Forget if is_away => (server.epoch, server.head) = (server.epoch + 1, 0),
                Step::Skip | Step::Forget => {}
            }
        }
        (faults, fault.is_some_and(|(at, _)| server.sent >= at))
    }

    proptest! {
        #[test]
        fn an_honest_server_has_no_faults(steps in prop::collection::vec(step(), 1..40), away in prop::collection::vec(any::<bool>(), 1..8)) {
            prop_assert_eq!(run(&steps, &away, None).0, []);
        }

        /// A message left out is noticed with whatever comes next that is not announced to be missing, a double at once.
        #[test]
        fn a_dishonest_one_is_found_out(
            steps in prop::collection::vec(step(), 1..40), away in prop::collection::vec(any::<bool>(), 1..8),
            at in 1..60u64, double in any::<bool>(),
        ) {
            // Something comes after it, to a client that is there.
            let steps = [&steps[..], &[Step::Publish(1), Step::Reconnect, Step::Publish(1)]].concat();
            let (faults, happened) = run(&steps, &away, Some((at, double)));
            if double {
                prop_assert_eq!(faults.contains(&Fault::Doubled), happened);
                prop_assert_eq!(faults.len(), usize::from(happened));
            } else if !happened {
                prop_assert_eq!(faults, []);
            } else {
                prop_assert!(faults.len() <= 1);
            }
        }
    }
}
