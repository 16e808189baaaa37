//! Filters with few `+`, in a tree over the levels up to the last `+`.
//!
//! A node stands for the first levels of some filters; behind the last `+` of a filter what remains is one hash, which
//! hangs on the node. So a filter has at most [`PLUS_LEVELS`](crate::topics::filters::PLUS_LEVELS) nodes, however long it is, and a
//! topic is looked for level by level: alive are the nodes that its levels so far lead to. Of filters with at most
//! three `+` within eight levels those are at most 1 + 8 + 28 + 56 = 93 at the last of them, and 255 at all.
//!
//! Values are ids of the caller, who compares what is found with the topic: two levels with the same hash share a
//! branch. Invariant: a node but the root exists while a filter leads through it.

use rustc_hash::FxHashMap;

use crate::topics::filters::{EXACT, OPEN, Pattern, fold, table_bytes};

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// See the file's head.
#[derive(Default, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// From a node by a level's hash.
    branches: FxHashMap<(u32, u64), u32>,
    /// Filters that end behind a node with these levels, whose hashes are folded.
    tails: FxHashMap<(u32, u64), Ids>,
}

#[derive(Clone, Debug)]
struct Node {
    /// The branch `+`, or [`NONE`].
    plus: u32,
    /// Branches by a level's hash.
    named: u32,
    /// Filters that end here with a `#`, and without one.
    open: u32,
    exact: u32,
}

/// Nearly always one: more only where hashes are the same.
#[derive(Debug)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

impl Node {
    const EMPTY: Self = Self { plus: NONE, named: 0, open: 0, exact: 0 };

    fn is_empty(&self) -> bool {
        self.plus == NONE && self.named == 0 && self.open == 0 && self.exact == 0
    }
}

impl Tree {
    pub(super) fn insert(&mut self, pattern: &Pattern, id: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::EMPTY);
        }
        let mut node = ROOT;
        for level in &pattern.levels[..pattern.fixed_from] {
            node = self.enter(node, *level);
        }
        let at = &mut self.nodes[node as usize];
        *(if pattern.open { &mut at.open } else { &mut at.exact }) += 1;
        match self.tails.entry((node, tail(pattern))) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Ids::One(id));
            }
            std::collections::hash_map::Entry::Occupied(mut held) => match held.get_mut() {
                Ids::One(first) => *held.get_mut() = Ids::Several(vec![*first, id]),
                Ids::Several(ids) => ids.push(id),
            },
        }
    }

    /// Removes a filter that was inserted with this id.
    pub(super) fn remove(&mut self, pattern: &Pattern, id: u32) {
        let mut path = vec![ROOT];
        for level in &pattern.levels[..pattern.fixed_from] {
            let last = *path.last().expect("begins with the root");
            path.push(match level {
                None => self.nodes[last as usize].plus,
                Some(hash) => self.branches[&(last, *hash)],
            });
        }
        let last = *path.last().expect("begins with the root");
        let key = (last, tail(pattern));
        match self.tails.get_mut(&key).expect("a filter that is here") {
            Ids::Several(ids) if ids.len() > 1 => ids.retain(|&other| other != id),
            _ => drop(self.tails.remove(&key)),
        }
        let at = &mut self.nodes[last as usize];
        *(if pattern.open { &mut at.open } else { &mut at.exact }) -= 1;
        for (depth, &node) in path.iter().enumerate().skip(1).rev() {
            if !self.nodes[node as usize].is_empty() {
                break;
            }
            self.free.push(node);
            let parent = path[depth - 1];
            match pattern.levels[depth - 1] {
                None => self.nodes[parent as usize].plus = NONE,
                Some(hash) => {
                    self.nodes[parent as usize].named -= 1;
                    self.branches.remove(&(parent, hash));
                }
            }
        }
    }

    /// Adds the ids of filters that may match a topic of these levels. Returns the number of look-ups.
    pub(super) fn search(&self, levels: &[u64], found: &mut Vec<u32>) -> usize {
        let (mut looked_up, mut alive, mut next) = (0, Vec::new(), Vec::new());
        if !self.nodes.is_empty() {
            alive.push(ROOT);
        }
        let mut open = Vec::new();
        for depth in 0..=levels.len() {
            if alive.is_empty() {
                break;
            }
            let exact = tails(&levels[depth..], &mut open);
            for &node in &alive {
                let at = &self.nodes[node as usize];
                let opens = if at.open > 0 { &open[..] } else { &[] };
                for &key in opens.iter().chain((at.exact > 0).then_some(&exact)) {
                    looked_up += 1;
                    match self.tails.get(&(node, key)) {
                        None => {}
                        Some(Ids::One(id)) => found.push(*id),
                        Some(Ids::Several(ids)) => found.extend_from_slice(ids),
                    }
                }
                let Some(&level) = levels.get(depth) else { continue };
                if at.plus != NONE {
                    next.push(at.plus);
                }
                if at.named > 0 {
                    looked_up += 1;
                    next.extend(self.branches.get(&(node, level)));
                }
            }
            std::mem::swap(&mut alive, &mut next);
            next.clear();
        }
        looked_up
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
            + self.free.capacity() * size_of::<u32>()
            + table_bytes(self.branches.capacity(), size_of::<((u32, u64), u32)>())
            + table_bytes(self.tails.capacity(), size_of::<((u32, u64), Ids)>())
    }

    fn enter(&mut self, node: u32, level: Option<u64>) -> u32 {
        let known = match level {
            None => self.nodes[node as usize].plus,
            Some(hash) => self.branches.get(&(node, hash)).copied().unwrap_or(NONE),
        };
        if known != NONE {
            return known;
        }
        let new = match self.free.pop() {
            Some(vacant) => vacant,
            None => {
                self.nodes.push(Node::EMPTY);
                (self.nodes.len() - 1) as u32
            }
        };
        match level {
            None => self.nodes[node as usize].plus = new,
            Some(hash) => {
                self.nodes[node as usize].named += 1;
                self.branches.insert((node, hash), new);
            }
        }
        new
    }
}

/// What stands behind the last `+` of a filter.
fn tail(pattern: &Pattern) -> u64 {
    let levels = pattern.literals(pattern.fixed_from).fold(0, fold);
    fold(levels, if pattern.open { OPEN } else { EXACT })
}

/// What [`tail`] is of filters that match these levels: returns that of the one without `#`, and leaves those with
/// one in `open`.
fn tails(levels: &[u64], open: &mut Vec<u64>) -> u64 {
    let mut hash = 0;
    open.clear();
    open.push(fold(hash, OPEN));
    for &level in levels {
        hash = fold(hash, level);
        open.push(fold(hash, OPEN));
    }
    fold(hash, EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(levels: &[Option<u64>], open: bool) -> Pattern {
        let fixed_from = levels.iter().rposition(Option::is_none).map_or(0, |at| at + 1);
        let plus = levels.iter().filter(|level| level.is_none()).count();
        Pattern { levels: levels.to_vec(), open, fixed_from, plus }
    }

    /// Two filters whose levels hash alike are both found, and go one by one.
    #[test]
    fn filters_with_the_same_hashes_are_kept_apart() {
        let mut tree = Tree::default();
        let twin = pattern(&[Some(1), None, Some(2)], false);
        tree.insert(&twin, 10);
        tree.insert(&twin, 11);
        tree.insert(&twin, 12);
        let found = |tree: &Tree| {
            let mut found = Vec::new();
            tree.search(&[1, 7, 2], &mut found);
            found
        };
        assert_eq!(found(&tree), [10, 11, 12]);
        tree.remove(&twin, 11);
        assert_eq!(found(&tree), [10, 12]);
        tree.remove(&twin, 12);
        tree.remove(&twin, 10);
        assert!(found(&tree).is_empty());
        assert!(tree.branches.is_empty() && tree.tails.is_empty());
        assert_eq!(tree.free.len() + 1, tree.nodes.len());
    }

    #[test]
    fn nodes_are_used_again() {
        let mut tree = Tree::default();
        for round in 0..1000 {
            let filter = pattern(&[Some(round), Some(2), None], true);
            tree.insert(&filter, 0);
            tree.remove(&filter, 0);
        }
        assert!(tree.nodes.len() <= 4);
    }
}
