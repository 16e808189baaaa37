//! What is replayed is not conflated: a client that begins in the past, and was answered that all of it comes, gets every message of it,
//! whatever its topic's policy leaves out of what comes live.

use super::begin::{Beginning, Start};
use super::{Model, Position, Stream, Violation};

impl Model {
    /// Checks every beginning of a single topic, alone, in a past that is known.
    pub(super) fn check_replays(&self) -> Result<(), Violation> {
        for stream in &self.streams {
            for begun in stream.beginnings().filter(|begun| begun.alone && begun.confirmed_at.0 > 0) {
                self.check_replay(stream, begun)?;
            }
        }
        Ok(())
    }

    fn check_replay(&self, stream: &Stream, begun: &Beginning) -> Result<(), Violation> {
        let Some(Position { epoch, offset }) = begun.confirmed.position else { return Ok(()) };
        let Some(topic) = self.topics.iter().position(|topic| *topic == begun.asked.filter) else { return Ok(()) };
        let from = match begun.asked.start {
            Start::Since(since) if begun.recovered() => since.offset + 1,
            Start::Last(_) => offset,
            _ => return Ok(()),
        };
        if self.rule(topic).is_keyed() || begun.snapshot.is_some() {
            return Ok(());
        }
        // What was sequenced before the command is behind nobody's back.
        let to = match begun.got.last() {
            _ if begun.purged || (stream.is_owed() && stream.has(&begun.asked.filter)) => u64::MAX,
            Some(newest) => *newest,
            None => return Ok(()),
        };
        for (offset, id) in self.orders.range(topic, epoch, from, to) {
            let is_before = self.messages[id as usize].noticed.is_some_and(|noticed| noticed < begun.asked_at.0);
            if is_before && !begun.got.contains(&offset) {
                let evidence = format!("{} did not get {}: {begun:?}", stream.name, self.describe(id));
                return Err(Violation::new("what is replayed is whole", evidence));
            }
        }
        Ok(())
    }
}
