//! What the driver knows of each connection: 16 bytes, in memory that costs nothing until touched.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bitflags::bitflags;

use crate::ConnId;

/// One place of the table.
pub(super) struct Slot {
    /// How often the place was used before.
    pub(super) generation: u32,
    /// The connection's socket; `None` is a vacant place. Gone, it is closed.
    socket: Option<OwnedFd>,
    /// Index of the send in flight while `SENDING` is set, of the attempt while `DIALLING` is; in a vacant place, of
    /// the next vacant one.
    pub(super) link: u32,
    pub(super) flags: Flags,
}

bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Flags: u32 {
        /// The caller wants to receive, and no end was reported.
        const RECEIVING = 1;
        /// That was asked to end.
        const RECEIVE_STOPPING = 1 << 1;
        /// A send is in flight.
        const SENDING = 1 << 2;
        /// It waits for room in the socket.
        const BLOCKED = 1 << 3;
        /// A shutdown waits for the send in flight.
        const SHUTDOWN_WANTED = 1 << 4;
        /// `close` was called.
        const CLOSING = 1 << 5;
        /// The socket said that there is something to receive, and `recv` has not said since that it is gone.
        const READABLE = 1 << 6;
        /// There is more than bytes: an end, an error, an urgent mark. Only an empty `recv` proves all was seen.
        const DRAIN = 1 << 7;
        /// In the list of those to be read from.
        const LISTED = 1 << 8;
        /// Others may have a descriptor of the same socket.
        const SHARED = 1 << 9;
        /// The receive ends with the first bytes.
        const ONCE = 1 << 10;
        /// The bytes are thrown away.
        const DISCARDING = 1 << 11;
        /// The handshake is under way: this connection is not reported yet.
        const DIALLING = 1 << 12;
        /// The peer's address is asked for.
        const ASKING = 1 << 13;
        /// The length of the socket's send queue is asked for.
        const UNSENT_ASKED = 1 << 14;
    }
}

impl Slot {
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
        self.held(conn).filter(|slot| !slot.flags.contains(Flags::CLOSING))
    }

    /// Gives a place to a new connection. There is room.
    pub(super) fn open(&mut self, socket: OwnedFd) -> ConnId {
        assert!(!self.is_full(), "a connection without a place");
        self.used += 1;
        let index = self.vacant;
        if index == NONE {
            self.slots.push(Slot { generation: 0, socket: Some(socket), link: 0, flags: Flags::empty() });
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
        assert!(
            slot.generation == conn.generation && !slot.flags.contains(Flags::SENDING),
            "vacated once, with nothing in flight"
        );
        let generation = slot.generation.wrapping_add(1);
        // Dropping the old place closes the socket.
        *slot = Slot { generation, socket: None, link: self.vacant, flags: Flags::empty() };
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
        slots.at(again[1].slot).flags.insert(Flags::CLOSING);
        assert!(slots.live(again[1]).is_none() && slots.held(again[1]).is_some());
        assert!(slots.held(ConnId { slot: 3, generation: 0 }).is_none());
    }
}
