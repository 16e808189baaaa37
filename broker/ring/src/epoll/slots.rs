//! What the driver knows of each connection: 16 bytes, in memory that costs nothing until touched.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::ConnId;

/// One place of the table.
pub(super) struct Slot {
    /// How often the place was used before.
    pub(super) generation: u32,
    /// The connection's socket; `None` is a vacant place. Gone, it is closed.
    socket: Option<OwnedFd>,
    /// Index of the send in flight while [`SENDING`] is set, of the attempt while [`DIALLING`] is; in a vacant
    /// place, of the next vacant one.
    pub(super) link: u32,
    /// The flags below.
    pub(super) flags: u32,
}

/// The caller wants to receive, and no end was reported.
pub(super) const RECEIVING: u32 = 1;
/// That was asked to end.
pub(super) const RECEIVE_STOPPING: u32 = 1 << 1;
/// A send is in flight.
pub(super) const SENDING: u32 = 1 << 2;
/// It waits for room in the socket.
pub(super) const BLOCKED: u32 = 1 << 3;
/// A shutdown waits for the send in flight.
pub(super) const SHUTDOWN_WANTED: u32 = 1 << 4;
/// `close` was called.
pub(super) const CLOSING: u32 = 1 << 5;
/// The socket said that there is something to receive, and `recv` has not said since that it is gone.
pub(super) const READABLE: u32 = 1 << 6;
/// There is more than bytes: an end, an error, an urgent mark. Only an empty `recv` proves all was seen.
pub(super) const DRAIN: u32 = 1 << 7;
/// In the list of those to be read from.
pub(super) const LISTED: u32 = 1 << 8;
/// Others may have a descriptor of the same socket.
pub(super) const SHARED: u32 = 1 << 9;
/// The receive ends with the first bytes.
pub(super) const ONCE: u32 = 1 << 10;
/// The bytes are thrown away.
pub(super) const DISCARDING: u32 = 1 << 11;
/// The handshake is under way: nobody knows of this connection yet.
pub(super) const DIALLING: u32 = 1 << 12;
/// The peer's address is asked for.
pub(super) const ASKING: u32 = 1 << 13;
/// The length of the socket's send queue is asked for.
pub(super) const UNSENT_ASKED: u32 = 1 << 14;

impl Slot {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u32) {
        self.flags |= flag;
    }

    pub(super) fn clear(&mut self, flag: u32) {
        self.flags &= !flag;
    }

    /// The socket of a place in use.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("a connection has its socket").as_fd()
    }
}

/// The table. Places are used from the first on, and one that was vacated before one that never was used.
pub(super) struct Slots {
    slots: Vec<Slot>,
    capacity: u32,
    /// Places in use.
    used: u32,
    /// The vacant place to be used next.
    vacant: u32,
}

const NONE: u32 = u32::MAX;

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        Self { slots: Vec::with_capacity(capacity as usize), capacity, used: 0, vacant: NONE }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn is_full(&self) -> bool {
        self.used == self.capacity
    }

    /// The place of an operation or event that was checked before.
    pub(super) fn at(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The place of `conn`, if that connection is not gone.
    pub(super) fn held(&mut self, conn: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        (slot.generation == conn.generation && slot.socket.is_some()).then_some(slot)
    }

    /// The place of `conn`, if that connection lives and is not being closed.
    pub(super) fn live(&mut self, conn: ConnId) -> Option<&mut Slot> {
        self.held(conn).filter(|slot| !slot.has(CLOSING))
    }

    /// A connection moves in. There is room.
    pub(super) fn open(&mut self, socket: OwnedFd) -> ConnId {
        assert!(!self.is_full(), "a connection without a place");
        self.used += 1;
        let index = self.vacant;
        if index == NONE {
            self.slots.push(Slot { generation: 0, socket: Some(socket), link: 0, flags: 0 });
            return ConnId { slot: (self.slots.len() - 1) as u32, generation: 0 };
        }
        let slot = &mut self.slots[index as usize];
        self.vacant = slot.link;
        slot.socket = Some(socket);
        ConnId { slot: index, generation: slot.generation }
    }

    /// The connection is gone, and nothing names it any more. Closes its socket.
    pub(super) fn vacate(&mut self, conn: ConnId) {
        let slot = &mut self.slots[conn.slot as usize];
        assert!(slot.generation == conn.generation && !slot.has(SENDING), "vacated once, with nothing in flight");
        let generation = slot.generation.wrapping_add(1);
        // Dropping the old place closes the socket.
        *slot = Slot { generation, socket: None, link: self.vacant, flags: 0 };
        self.vacant = conn.slot;
        self.used -= 1;
    }
}

const _: () = assert!(size_of::<Slot>() <= 16, "the budget of a slot");

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("there is one").into()
    }

    #[test]
    fn places_come_back_with_another_generation() {
        let mut slots = Slots::new(3);
        let conns = [(); 3].map(|()| slots.open(socket()));
        assert_eq!(conns.map(|conn| (conn.slot, conn.generation)), [(0, 0), (1, 0), (2, 0)]);
        assert!(slots.is_full());
        slots.vacate(conns[0]);
        slots.vacate(conns[2]);
        let again = [(); 2].map(|()| slots.open(socket()));
        assert_eq!(again.map(|conn| (conn.slot, conn.generation)), [(2, 1), (0, 1)]);
        assert!(slots.is_full() && slots.live(conns[0]).is_none() && slots.live(again[1]).is_some());
        slots.at(again[1].slot).set(CLOSING);
        assert!(slots.live(again[1]).is_none() && slots.held(again[1]).is_some());
        assert!(slots.held(ConnId { slot: 3, generation: 0 }).is_none());
    }
}
