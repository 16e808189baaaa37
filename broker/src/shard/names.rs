//! Whether there is room for a new topic or filter, from what the registry and the budget hold.
//!
//! Not responsible for what one client may begin ([`NameShare`](crate::access::quota::NameShare)). Cost: a look-up in the
//! registry and a few loads.

use crate::access::quota::{Name, NamesFull, NamesLeft};
use crate::capacity::budget::Held;
use crate::shard::handover::Purpose;
use crate::shard::shared::SharedState;
use crate::topics::registry::name_bytes;

impl SharedState {
    /// Whether a client may use `name`, as a topic or a filter.
    ///
    /// # Errors
    /// It is new, and there is no room for it.
    pub fn admit_name(&self, name: &str, topics_max: usize) -> Result<Name, NamesFull> {
        if self.registry.contains(name) {
            return Ok(Name::Known);
        }
        if self.registry.len() >= topics_max {
            return Err(NamesFull::Topics);
        }
        let shards = self.inboxes.len() as u16;
        // Filters stay as long as their subscribers do, while idle topics make room for others: a quarter is for topics.
        let filters_max = self.budget.share(Held::Names) / 4 * 3;
        let bytes = self.budget.held(Held::Names).saturating_add(name_bytes(name, shards));
        if protocol::topic::is_wildcard(name) && bytes > filters_max {
            return Err(NamesFull::Memory);
        }
        if !self.registry.has_bytes_for(name) || !self.budget.has_room(name_bytes(name, shards)) {
            return Err(NamesFull::Memory);
        }
        Ok(Name::New)
    }

    /// The same of the topic that a WebSocket is for, if it is for one.
    ///
    /// # Errors
    /// It is new, and there is no room for it.
    pub fn admit_purpose(&self, purpose: &Purpose, topics_max: usize) -> Result<Name, NamesFull> {
        match purpose {
            Purpose::Subscribe(name) | Purpose::Publish(name) | Purpose::Bus(name) => self.admit_name(name, topics_max),
            Purpose::V1Session => Ok(Name::Known),
            Purpose::Events(stream) => stream.filters.iter().try_fold(Name::Known, |so_far, filter| {
                let name = self.admit_name(filter, topics_max)?;
                Ok(if name == Name::New { name } else { so_far })
            }),
        }
    }

    /// For how many more names there is room.
    #[must_use]
    pub fn names_left(&self, topics_max: usize) -> NamesLeft {
        let bytes_max = self.budget.share(Held::Names);
        let bytes = bytes_max.saturating_sub(self.budget.held(Held::Names));
        NamesLeft { names: topics_max.saturating_sub(self.registry.len()), bytes, bytes_max }
    }

    /// What a name weighs once it is registered, in bytes.
    #[must_use]
    pub fn name_bytes(&self, name: &str) -> u64 {
        name_bytes(name, self.inboxes.len() as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_share_and_leave_the_rest_alone() {
        let shared = SharedState::new(1, 1, crate::ids::Epoch(1)).within(40_000);
        let mut names = Vec::new();
        let refusal = loop {
            let name = format!("t{}", names.len());
            match shared.admit_name(&name, 1_000_000) {
                Ok(Name::New) => names.push(shared.registry.resolve(&name)),
                other => break other,
            }
        };
        assert_eq!(refusal, Err(NamesFull::Memory));
        let used = shared.budget.used();
        assert!((6_500..=7_500).contains(&used), "{used}");
        assert_eq!(shared.admit_name("t0", 1), Ok(Name::Known));
        assert_eq!(shared.admit_name("new", 1), Err(NamesFull::Topics));
    }
}
