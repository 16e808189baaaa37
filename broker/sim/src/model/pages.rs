//! Snapshots that clients store and are shown, and pages of history that they read.

use super::past::{Page, Snapshot, bad_property};
use super::{MessageId, Model, Position, Violation};
use crate::payload::Kind;
use crate::rules::Slow;

impl Model {
    // ---- snapshots

    /// A snapshot is shown as it was stored, and the newest.
    pub(super) fn check_snapshot(
        &self,
        id: MessageId,
        topic: usize,
        up_to: u64,
        epoch: Option<u64>,
    ) -> Result<(), Violation> {
        let snapshot = self.past.snapshots[&id];
        let fits = snapshot.topic == topic && snapshot.up_to.offset == up_to;
        if fits && epoch.is_none_or(|epoch| epoch == snapshot.up_to.epoch) {
            return Ok(());
        }
        bad_property("a snapshot stands for what it was stored for", format!("{snapshot:?}, as {up_to} of {epoch:?}"))
    }

    /// A snapshot is about to be sent.
    pub fn snapshot(&mut self, topic: usize, up_to: Position, kind: Kind, len: usize) -> MessageId {
        let id = self.publish(usize::MAX - 1, topic, kind, len);
        self.messages[id as usize].conditional = true;
        self.past.snapshots.insert(id, Snapshot { topic, up_to, stored: None });
        id
    }

    /// It was answered.
    ///
    /// # Errors
    /// It must have been answered otherwise.
    pub fn snapshot_answered(&mut self, id: MessageId, refused: Option<(&str, Option<u64>)>) -> Result<(), Violation> {
        let now = self.tick();
        let Snapshot { topic, up_to, .. } = self.past.snapshots[&id];
        let bad = |what: &str| {
            Err(Violation::new(
                "a snapshot replaces an older one only",
                format!("up to {up_to:?}: {what}, {refused:?}"),
            ))
        };
        let written = self.messages[id as usize].written;
        let rule = self.rule(topic);
        // A snapshot stands for a chain of messages, and `latest` breaks chains.
        let takes = rule.is_window() && rule.policy.slow != Slow::Latest;
        match refused {
            None if !takes => bad("stored where it may not be"),
            None if up_to.offset > 1 << 40 => bad("stored beyond the newest message"),
            None => {
                let newer = self.past.snapshots.values().find(|other| {
                    other.topic == topic
                        && other.up_to.epoch == up_to.epoch
                        && other.up_to.offset > up_to.offset
                        && other.stored.is_some_and(|stored| written.is_some_and(|written| stored < written))
                });
                if newer.is_some() {
                    return bad("stored over a newer one");
                }
                self.past.snapshots.get_mut(&id).expect("made above").stored = Some(now);
                Ok(())
            }
            Some(("unsupported", _)) if !takes => Ok(()),
            Some(("conflict", Some(_))) if takes => Ok(()),
            Some(("limit", _)) if takes => Ok(()),
            Some(("not-holder", _)) if rule.exclusive => Ok(()),
            _ => bad("answered otherwise"),
        }
    }

    pub(super) fn has_snapshot(&self, topic: usize) -> bool {
        self.past.snapshots.values().any(|snapshot| snapshot.topic == topic)
    }

    // ---- pages

    /// A page of history came: what was asked, the topic's position, `recovered`, `more`, and its messages.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn page(
        &mut self,
        asked: &Page,
        head: Position,
        recovered: Option<bool>,
        more: bool,
        found: &[(MessageId, u64)],
    ) -> Result<(), Violation> {
        let bad = |what: &str| {
            let evidence = format!("{asked:?}: {what}; {head:?}, recovered {recovered:?}, more {more}, {found:?}");
            Err(Violation::new("a page is part of the list", evidence))
        };
        let rule = self.rule(asked.topic);
        if rule.is_none() {
            return bad("there is no history");
        }
        let mut offsets: Vec<_> = found.iter().map(|&(_, offset)| offset).collect();
        if asked.reverse {
            offsets.reverse();
        }
        let known = |place: Position| place.epoch == head.epoch && place.offset <= head.offset;
        let since = asked.since.filter(|since| known(*since)).map_or(0, |since| since.offset);
        let to =
            asked.before.map_or(head.offset + 1, |before| if known(before) { before.offset } else { head.offset + 1 });
        let step = |pair: &[u64]| if rule.is_keyed() { pair[0] < pair[1] } else { pair[0] + 1 == pair[1] };
        if offsets.len() > asked.limit || !offsets.windows(2).all(step) {
            return bad("more than asked for, or with holes");
        }
        if offsets.first().is_some_and(|&first| first <= since) || offsets.last().is_some_and(|&last| last >= to) {
            return bad("beyond its bounds");
        }
        if recovered.is_some() != asked.since.is_some() {
            return bad("recovered goes with since");
        }
        if recovered == Some(true) && !asked.since.is_some_and(known) {
            return bad("recovered from an unknown position");
        }
        let whole = recovered == Some(true) && !rule.is_keyed() && asked.before.is_none();
        let from = if asked.reverse { more } else { false };
        if whole && !from && offsets.first().map_or(since < head.offset && !more, |&first| first != since + 1) {
            return bad("recovered, but not from the position on");
        }
        let reaches = !rule.is_keyed() && asked.before.is_none() && (asked.reverse || !more);
        if reaches && offsets.last().is_some_and(|&last| last != head.offset) {
            return bad("it does not end with the newest");
        }
        for &(id, offset) in found {
            let place = Position { epoch: head.epoch, offset };
            self.orders.place(asked.topic, place, id, || format!("message ~{id}~ of a page"))?;
            self.placed(id, place);
        }
        Ok(())
    }
}
