//! What the driver knows of each direct descriptor: 12 bytes, in memory that costs nothing until touched.

use crate::ConnId;

/// One place of the descriptor table. All zero is a vacant place.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// How often the place was used before.
    pub(super) generation: u32,
    /// Index of the send in flight while [`SENDING`] is set, of the dial while [`DIALLING`] is.
    pub(super) operation: u32,
    /// The flags below.
    pub(super) flags: u32,
}

/// A connection lives here.
pub(super) const OPEN: u32 = 1;
/// A receive is in flight.
pub(super) const RECEIVING: u32 = 1 << 1;
/// The receive in flight was asked to end.
pub(super) const RECEIVE_STOPPING: u32 = 1 << 2;
/// A send is in flight.
pub(super) const SENDING: u32 = 1 << 3;
/// A shutdown is in flight.
pub(super) const SHUTTING: u32 = 1 << 4;
/// A shutdown waits for the send in flight.
pub(super) const SHUTDOWN_WANTED: u32 = 1 << 5;
/// An install is in flight.
pub(super) const INSTALLING: u32 = 1 << 6;
/// `close` was called.
pub(super) const CLOSING: u32 = 1 << 7;
/// The close operation is in flight, and it is the only one.
pub(super) const CLOSE_QUEUED: u32 = 1 << 8;
/// The socket has an ordinary descriptor as well, and lives on with that.
pub(super) const INSTALLED: u32 = 1 << 9;
/// Taken by a dial that is not over: no [`ConnId`] names it yet.
pub(super) const DIALLING: u32 = 1 << 10;
/// The receive in flight throws away.
pub(super) const DISCARDING: u32 = 1 << 11;
/// The receive in flight is for one time only.
pub(super) const RECEIVING_ONCE: u32 = 1 << 12;
/// The peer's address is asked for.
pub(super) const ASKING: u32 = 1 << 13;
/// The send in flight was cancelled to learn how far it has got.
pub(super) const PROGRESS_ASKED: u32 = 1 << 14;
/// The length of the socket's send queue is asked for.
pub(super) const UNSENT_ASKED: u32 = 1 << 15;
/// Any of the operations that a close has to wait for.
pub(super) const IN_FLIGHT: u32 = RECEIVING | SENDING | SHUTTING | INSTALLING | ASKING | UNSENT_ASKED;

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
}

/// The table, one [`Slot`] per direct descriptor of the ring.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    /// Places in use.
    used: u32,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        let slots = Box::<[Slot]>::new_zeroed_slice(capacity as usize);
        // SAFETY: `Slot` is three `u32`s, for which all-zero bytes are a valid value.
        let slots = unsafe { slots.assume_init() };
        Self { slots, used: 0 }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn is_full(&self) -> bool {
        self.used == self.capacity()
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// The slot as it is, whatever lives there.
    pub(super) fn at(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The slot of `conn`, if that connection lives and is not being closed.
    pub(super) fn live(&mut self, conn: ConnId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(conn.slot as usize)?;
        let lives = slot.generation == conn.generation && slot.flags & (OPEN | CLOSING | DIALLING) == OPEN;
        lives.then_some(slot)
    }

    /// A connection moves in.
    pub(super) fn open(&mut self, slot: u32) -> ConnId {
        let place = &mut self.slots[slot as usize];
        assert_eq!(place.flags, 0, "the kernel chose a slot in use");
        place.flags = OPEN;
        self.used += 1;
        ConnId { slot, generation: place.generation }
    }

    /// The connection is gone, and so is everything that named it.
    pub(super) fn vacate(&mut self, slot: u32) -> ConnId {
        let place = &mut self.slots[slot as usize];
        assert_eq!(place.flags & (OPEN | IN_FLIGHT), OPEN, "a slot is vacated once, with nothing in flight");
        let conn = ConnId { slot, generation: place.generation };
        *place = Slot { generation: place.generation.wrapping_add(1), operation: 0, flags: 0 };
        self.used -= 1;
        conn
    }
}

const _: () = assert!(size_of::<Slot>() <= 16, "the budget of a slot");
