//! A table with stable indices whose vacant places are used again: putting something in allocates nothing once
//! it has grown to the most things that were ever in it at once.

pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    vacant: u32,
}

enum Entry<T> {
    Used(T),
    Vacant { next: u32 },
}

const NONE: u32 = u32::MAX;

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), vacant: NONE }
    }

    pub(super) fn put(&mut self, thing: T) -> u32 {
        let index = self.vacant;
        if index == NONE {
            self.entries.push(Entry::Used(thing));
            return (self.entries.len() - 1) as u32;
        }
        match std::mem::replace(&mut self.entries[index as usize], Entry::Used(thing)) {
            Entry::Vacant { next } => self.vacant = next,
            Entry::Used(_) => unreachable!("the list of vacant places named one in use"),
        }
        index
    }

    pub(super) fn at(&mut self, index: u32) -> &mut T {
        match &mut self.entries[index as usize] {
            Entry::Used(thing) => thing,
            Entry::Vacant { .. } => unreachable!("nothing is there"),
        }
    }

    pub(super) fn take(&mut self, index: u32) -> T {
        match std::mem::replace(&mut self.entries[index as usize], Entry::Vacant { next: self.vacant }) {
            Entry::Used(thing) => {
                self.vacant = index;
                thing
            }
            Entry::Vacant { .. } => unreachable!("taken twice"),
        }
    }
}
