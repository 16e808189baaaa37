//! Operations in flight, each with what the kernel may be reading or writing for it.
//!
//! Entries are reused, so nothing is allocated once the table has grown to the most that were ever in flight
//! at once. The table itself may move: what the kernel touches lies behind the entries' pointers and does not.
//! Those pointers are `Rc`s, and what the kernel writes is in a `Cell`: moving a `Box`, or lending it out, claims
//! that nobody else has a pointer to what is in it.

enum Entry<T> {
    Used(T),
    Free { next: u32 },
}

const NONE: u32 = u32::MAX;

pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: NONE }
    }

    pub(crate) fn put(&mut self, operation: T) -> u32 {
        let index = self.free;
        if index == NONE {
            self.entries.push(Entry::Used(operation));
            return (self.entries.len() - 1) as u32;
        }
        match std::mem::replace(&mut self.entries[index as usize], Entry::Used(operation)) {
            Entry::Free { next } => self.free = next,
            Entry::Used(_) => unreachable!("the free list named an operation in flight"),
        }
        index
    }

    pub(crate) fn at(&mut self, index: u32) -> &mut T {
        match &mut self.entries[index as usize] {
            Entry::Used(operation) => operation,
            Entry::Free { .. } => unreachable!("an operation in flight was freed"),
        }
    }

    pub(crate) fn take(&mut self, index: u32) -> T {
        match std::mem::replace(&mut self.entries[index as usize], Entry::Free { next: self.free }) {
            Entry::Used(operation) => {
                self.free = index;
                operation
            }
            Entry::Free { .. } => unreachable!("an operation completed twice"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table grows, and entries are lent out and taken, between naming the memory and the kernel's write.
    #[test]
    fn what_the_kernel_writes_outlives_every_move() {
        struct Operation {
            token: u64,
            place: std::rc::Rc<std::cell::Cell<i32>>,
        }
        let mut slab = Slab::new();
        let named: Vec<(u32, *mut i32)> = (0..40)
            .map(|n| {
                let index = slab.put(Operation { token: 0, place: std::rc::Rc::new((-n).into()) });
                (index, slab.at(index).place.as_ptr())
            })
            .collect();
        let moved = Box::new(slab);
        let mut slab = *moved;
        for (index, place) in named {
            slab.at(index).token += 1;
            // SAFETY: the operation is in the table, and its place is on the heap: this is the kernel's part.
            unsafe { place.write(place.read() - 100) };
            let operation = slab.take(index);
            assert_eq!((operation.token, operation.place.get()), (1, -100 - index as i32));
        }
    }

    #[test]
    fn the_place_freed_last_is_used_next() {
        let mut slab = Slab::new();
        let places: Vec<_> = (0..4).map(|operation| slab.put(operation)).collect();
        assert_eq!(places, [0, 1, 2, 3]);
        assert_eq!((slab.take(1), slab.take(3)), (1, 3));
        assert_eq!((slab.put(30), slab.put(10), slab.put(40)), (3, 1, 4));
        *slab.at(3) += 1;
        assert_eq!((slab.take(0), slab.take(3), slab.take(1)), (0, 31, 10));
    }
}
