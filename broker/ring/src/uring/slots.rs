//! What the driver knows of each direct descriptor: 12 bytes, in memory that costs nothing until touched.

use bitflags::bitflags;

use crate::ConnId;

/// One place of the descriptor table. All zero is a vacant place.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// How often the place was used before.
    pub(super) generation: u32,
    /// Index of the send in flight while `SENDING` is set, of the dial while `DIALLING` is.
    pub(super) operation: u32,
    pub(super) flags: Flags,
}

bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Flags: u32 {
        /// A connection lives here.
        const OPEN = 1;
        /// A receive is in flight.
        const RECEIVING = 1 << 1;
        /// The receive in flight was asked to end.
        const RECEIVE_STOPPING = 1 << 2;
        /// A send is in flight.
        const SENDING = 1 << 3;
        /// A shutdown is in flight.
        const SHUTTING = 1 << 4;
        /// A shutdown waits for the send in flight.
        const SHUTDOWN_WANTED = 1 << 5;
        /// An install is in flight.
        const INSTALLING = 1 << 6;
        /// `close` was called.
        const CLOSING = 1 << 7;
        /// The close operation is in flight, and it is the only one.
        const CLOSE_QUEUED = 1 << 8;
        /// The socket has an ordinary descriptor as well, and lives on with that.
        const INSTALLED = 1 << 9;
        /// Taken by a dial that is not over: no [`ConnId`] names it yet.
        const DIALLING = 1 << 10;
        /// The receive in flight throws away.
        const DISCARDING = 1 << 11;
        /// The receive in flight is for one time only.
        const RECEIVING_ONCE = 1 << 12;
        /// The peer's address is asked for.
        const ASKING = 1 << 13;
        /// The send in flight was cancelled to learn how far it has got.
        const PROGRESS_ASKED = 1 << 14;
        /// The length of the socket's send queue is asked for.
        const UNSENT_ASKED = 1 << 15;
        /// Any of the operations that a close has to wait for.
        const IN_FLIGHT = Self::RECEIVING.bits() | Self::SENDING.bits() | Self::SHUTTING.bits()
            | Self::INSTALLING.bits() | Self::ASKING.bits() | Self::UNSENT_ASKED.bits();
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
        // SAFETY: `Slot` is three `u32`s (`Flags` wraps one), for which all-zero bytes are a valid value.
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
        let lives = slot.generation == conn.generation
            && slot.flags & (Flags::OPEN | Flags::CLOSING | Flags::DIALLING) == Flags::OPEN;
        lives.then_some(slot)
    }

    /// Gives the place to a new connection.
    pub(super) fn open(&mut self, slot: u32) -> ConnId {
        let place = &mut self.slots[slot as usize];
        assert_eq!(place.flags, Flags::empty(), "the kernel chose a slot in use");
        place.flags = Flags::OPEN;
        self.used += 1;
        ConnId { slot, generation: place.generation }
    }

    /// The connection is gone, and so is everything that named it.
    pub(super) fn vacate(&mut self, slot: u32) -> ConnId {
        let place = &mut self.slots[slot as usize];
        assert_eq!(
            place.flags & (Flags::OPEN | Flags::IN_FLIGHT),
            Flags::OPEN,
            "a slot is vacated once, with nothing in flight"
        );
        let conn = ConnId { slot, generation: place.generation };
        *place = Slot { generation: place.generation.wrapping_add(1), operation: 0, flags: Flags::empty() };
        self.used -= 1;
        conn
    }
}

const _: () = assert!(size_of::<Slot>() <= 16, "the budget of a slot");
