//! Members of topics, at the topics' sequencers: who is there, with how many sessions, and what each says of itself.
//!
//! What changes is said as a [`Change`] of a keyed topic, `$presence/{topic}`, whose key is the member; its messages are the one
//! way in which anybody learns of it. A topic lists so many members; those beyond are counted and nothing is said of them, until
//! one that is listed leaves.
//!
//! Invariants ([`Members::check`]): a member is there exactly while a session of it is; sessions are counted right; a topic is
//! kept exactly while it has members.
//!
//! Memory: charged to the shard's account. Cost: logarithmic in the topic's members.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::capacity::budget::{Account, COUNTS_BYTES, Charge, Held, allocated};
use crate::ids::TopicId;
use crate::presence::SessionRef;
use crate::topics::registry::TopicRef;

/// What a session takes in a topic's table, in bytes.
const SESSION_BYTES: u64 = 2 * size_of::<(SessionRef, Arc<str>)>() as u64;
/// What a member takes, without its name and what it says of itself.
const MEMBER_BYTES: u64 = 2 * size_of::<(Arc<str>, Member)>() as u64;

/// The members of all topics of one sequencer.
#[derive(Debug)]
pub struct Members {
    topics: FxHashMap<TopicId, Present>,
    account: Arc<Account>,
}

/// Those of one topic.
#[derive(Debug)]
struct Present {
    topic: TopicRef,
    members: BTreeMap<Arc<str>, Member>,
    /// Who each session is.
    sessions: FxHashMap<SessionRef, Arc<str>>,
    /// Those that are not listed.
    unlisted: BTreeSet<Arc<str>>,
    /// What members take, in bytes.
    member_bytes: u64,
    charge: Charge,
}

#[derive(Debug)]
struct Member {
    sessions: u32,
    /// The text of a JSON value.
    info: Option<Arc<[u8]>>,
    /// When it came, in milliseconds since 1970.
    since_ms: u64,
    is_listed: bool,
}

/// What is to be published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Of which member.
    pub member: Arc<str>,
    /// The text of a JSON value; `None`: it is there no more.
    pub value: Option<String>,
}

/// Why a session does not enter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotEntered {
    /// The topic lists no more members, and this one has something to say.
    Full,
    /// It was to be there already.
    NotThere,
}

/// One member, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub member: Arc<str>,
    /// What it says of itself: the text of a JSON value.
    pub info: Option<Arc<[u8]>>,
    /// With how many sessions it is there.
    pub connections: u32,
}

/// A session that enters a topic.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which.
    pub session: SessionRef,
    /// The name of its member.
    pub member: Arc<str>,
    /// What it says of itself.
    pub info: Option<Arc<[u8]>>,
    /// It has to be there already.
    pub is_update: bool,
}

impl Members {
    /// None.
    #[must_use]
    pub fn new(account: &Arc<Account>) -> Self {
        Self { topics: FxHashMap::default(), account: Arc::clone(account) }
    }

    /// A session enters a topic, or says something else of itself there. `listed_max`: so many members are listed. Returns what
    /// is to be said of it, if anything.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    pub fn enter(
        &mut self,
        topic: &TopicRef,
        entry: Entry,
        listed_max: usize,
        now_ms: u64,
    ) -> Result<Option<Change>, NotEntered> {
        let Entry { session, member, info, is_update } = entry;
        if is_update && !self.has(topic.id, session) {
            return Err(NotEntered::NotThere);
        }
        let present = self.topics.get(&topic.id);
        let known = present.and_then(|present| present.members.get(&member));
        let is_listed = known.map_or(present.map_or(0, Present::listed) < listed_max, |known| known.is_listed);
        if !is_listed && info.is_some() {
            return Err(NotEntered::Full);
        }
        let present = self.topics.entry(topic.id).or_insert_with(|| Present::new(topic.clone(), &self.account));
        if present.sessions.insert(session, Arc::clone(&member)).is_some() {
            let known = present.members.get_mut(&member).expect("a session has a member");
            // A session that enters again without a word leaves what was said.
            if info.is_none() || known.info == info {
                return Ok(None);
            }
            known.say(info, &mut present.member_bytes);
        } else {
            let new = || Member { sessions: 0, info: None, since_ms: now_ms, is_listed };
            let known = present.members.entry(Arc::clone(&member)).or_insert_with(new);
            known.sessions += 1;
            if known.sessions == 1 {
                present.unlisted.extend((!is_listed).then(|| Arc::clone(&member)));
                present.member_bytes += bytes_of(&member);
            }
            if info.is_some() {
                known.say(info, &mut present.member_bytes);
            }
        }
        present.recharge();
        Ok(present.change(&member))
    }

    /// A session leaves a topic, or is over. Returns what is to be said: of its member, and of another that is listed in its place.
    ///
    /// # Errors
    /// It was not there.
    pub fn leave(&mut self, topic: TopicId, session: SessionRef) -> Result<Vec<Change>, NotEntered> {
        let present = self.topics.get_mut(&topic).ok_or(NotEntered::NotThere)?;
        let member = present.sessions.remove(&session).ok_or(NotEntered::NotThere)?;
        let known = present.members.get_mut(&member).expect("a session has a member");
        known.sessions -= 1;
        let mut changes = Vec::new();
        if known.sessions > 0 {
            changes.extend(present.change(&member));
        } else {
            let gone = present.members.remove(&member).expect("it was just there");
            present.member_bytes -= bytes_of(&member) + gone.info_bytes();
            present.unlisted.remove(&member);
            if gone.is_listed {
                changes.push(Change { member, value: None });
                changes.extend(present.list_another());
            }
        }
        if present.members.is_empty() {
            self.topics.remove(&topic);
        } else {
            present.recharge();
        }
        Ok(changes)
    }

    /// What a member says of itself; `None`: nothing, or it is not there.
    #[must_use]
    pub fn info(&self, topic: TopicId, member: &str) -> Option<Arc<[u8]>> {
        self.topics.get(&topic)?.members.get(member)?.info.clone()
    }

    /// A member, if it is there, says again what it said before: what it said then could not be published.
    pub fn put_back(&mut self, topic: TopicId, member: &str, info: Option<Arc<[u8]>>) {
        let Some(present) = self.topics.get_mut(&topic) else { return };
        let Some(known) = present.members.get_mut(member) else { return };
        known.say(info, &mut present.member_bytes);
        present.recharge();
    }

    /// A member that was to be listed is only counted: there was no room for what is said of it.
    pub fn unlist(&mut self, topic: TopicId, member: &Arc<str>) {
        let Some(present) = self.topics.get_mut(&topic) else { return };
        if let Some(known) = present.members.get_mut(member) {
            known.is_listed = false;
            present.unlisted.insert(Arc::clone(member));
        }
    }

    /// How many members a topic has.
    #[must_use]
    pub fn count(&self, topic: TopicId) -> u64 {
        self.topics.get(&topic).map_or(0, |present| present.members.len() as u64)
    }

    /// Whether a session is there.
    #[must_use]
    pub fn has(&self, topic: TopicId, session: SessionRef) -> bool {
        self.topics.get(&topic).is_some_and(|present| present.sessions.contains_key(&session))
    }

    /// The first of those that are listed, by name.
    #[must_use]
    pub fn list(&self, topic: TopicId, limit: usize) -> Vec<Listed> {
        let Some(present) = self.topics.get(&topic) else { return Vec::new() };
        let listed = present.members.iter().filter(|(_, member)| member.is_listed).take(limit);
        let listed = listed.map(|(name, member)| Listed {
            member: Arc::clone(name),
            info: member.info.clone(),
            connections: member.sessions,
        });
        listed.collect()
    }

    /// The sessions that are there, with the topics.
    pub fn sessions(&self) -> impl Iterator<Item = (&TopicRef, SessionRef)> {
        self.topics.values().flat_map(|present| present.sessions.keys().map(|session| (&present.topic, *session)))
    }

    /// Checks what always holds: see the file's head. Linear in members.
    ///
    /// # Errors
    /// What does not hold, and of which topic.
    pub fn check(&self) -> Result<(), String> {
        for present in self.topics.values() {
            let sessions: u64 = present.members.values().map(|member| u64::from(member.sessions)).sum();
            let rules = [
                ("a topic has members", !present.members.is_empty()),
                ("a member has sessions", present.members.values().all(|member| member.sessions > 0)),
                ("sessions are counted", sessions == present.sessions.len() as u64),
                ("sessions have members", present.sessions.values().all(|member| present.members.contains_key(member))),
                (
                    "bytes are counted",
                    present.members.iter().map(|(name, m)| bytes_of(name) + m.info_bytes()).sum::<u64>()
                        == present.member_bytes,
                ),
                (
                    "who is not listed is known",
                    present.members.iter().filter(|(_, m)| !m.is_listed).map(|(name, _)| name).eq(&present.unlisted),
                ),
            ];
            if let Some((rule, _)) = rules.iter().find(|(_, holds)| !holds) {
                return Err(format!("members of {:?}: {rule}", present.topic.name));
            }
        }
        Ok(())
    }
}

impl Present {
    fn new(topic: TopicRef, account: &Arc<Account>) -> Self {
        let charge = Charge::new(account, Held::Subscriptions, 0);
        let (members, sessions, unlisted) = (BTreeMap::new(), FxHashMap::default(), BTreeSet::new());
        Self { topic, members, sessions, unlisted, member_bytes: 0, charge }
    }

    fn listed(&self) -> usize {
        self.members.len() - self.unlisted.len()
    }

    /// The first that is not listed is, from now on.
    fn list_another(&mut self) -> Option<Change> {
        let member = self.unlisted.pop_first()?;
        self.members.get_mut(&member).expect("somebody who is there").is_listed = true;
        self.change(&member)
    }

    /// What is said of a member that is there.
    fn change(&self, name: &Arc<str>) -> Option<Change> {
        let member = self.members.get(name).filter(|member| member.is_listed)?;
        let mut value = String::from("{");
        if let Some(info) = &member.info {
            let _ = write!(value, "\"info\":{},", str::from_utf8(info).expect("JSON is UTF-8"));
        }
        let _ = write!(value, "\"connections\":{},\"since\":{}}}", member.sessions, member.since_ms);
        Some(Change { member: Arc::clone(name), value: Some(value) })
    }

    fn recharge(&mut self) {
        self.charge.resize(self.member_bytes + SESSION_BYTES * self.sessions.capacity() as u64);
    }
}

impl Member {
    /// It says this of itself from now on; `bytes` is what all members take.
    fn say(&mut self, info: Option<Arc<[u8]>>, bytes: &mut u64) {
        *bytes -= self.info_bytes();
        self.info = info;
        *bytes += self.info_bytes();
    }

    fn info_bytes(&self) -> u64 {
        self.info.as_ref().map_or(0, |info| allocated(info.len() + COUNTS_BYTES))
    }
}

/// What a member takes without what it says of itself.
fn bytes_of(name: &str) -> u64 {
    MEMBER_BYTES + allocated(name.len() + COUNTS_BYTES)
}

#[cfg(test)]
mod tests;
