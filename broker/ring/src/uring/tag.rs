//! The `user_data` of an operation: what it was, for which slot, and for which use of that slot.
//!
//! `kind (8 bits) | generation (24 bits) | slot (32 bits)`. The join of a close waits for every final
//! completion, so 24 bits of generation are plenty: two uses of a slot never have to be distinguished across a wrap.

use crate::ConnId;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Accept,
    /// The posted read of the waker's eventfd.
    EventFdRead,
    /// The slot is an index into the table of adoptions.
    Adopt,
    /// The slot is an index into the table of dials.
    DialSocket,
    Connect,
    Receive,
    Send,
    Shutdown,
    Install,
    /// The slot is an index into the table of queries.
    Peer,
    Unsent,
    Close,
    /// Only failed cancellations complete visibly.
    CancelAccept,
    CancelReceive,
    CancelSend,
    /// Nothing waits for it.
    Ignored,
}

const KINDS: [Kind; 16] = [
    Kind::Accept,
    Kind::EventFdRead,
    Kind::Adopt,
    Kind::DialSocket,
    Kind::Connect,
    Kind::Receive,
    Kind::Send,
    Kind::Shutdown,
    Kind::Install,
    Kind::Peer,
    Kind::Unsent,
    Kind::Close,
    Kind::CancelAccept,
    Kind::CancelReceive,
    Kind::CancelSend,
    Kind::Ignored,
];

const GENERATION_MASK: u32 = (1 << 24) - 1;

pub(super) fn of_conn(kind: Kind, conn: ConnId) -> u64 {
    (kind as u64) << 56 | u64::from(conn.generation & GENERATION_MASK) << 32 | u64::from(conn.slot)
}

pub(super) fn of_index(kind: Kind, index: u32) -> u64 {
    (kind as u64) << 56 | u64::from(index)
}

pub(super) fn kind(user_data: u64) -> Kind {
    KINDS[(user_data >> 56) as usize]
}

pub(super) fn index(user_data: u64) -> u32 {
    user_data as u32
}

/// Whether `user_data` belongs to this use of the slot.
pub(super) fn is_of_generation(user_data: u64, generation: u32) -> bool {
    (user_data >> 32) as u32 & GENERATION_MASK == generation & GENERATION_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_in_parts() {
        for (place, kind_in) in KINDS.into_iter().enumerate() {
            assert_eq!(kind_in as usize, place);
            let conn = ConnId { slot: 19_899, generation: 0x0512_3456 };
            let tag = of_conn(kind_in, conn);
            assert_eq!((kind(tag), index(tag)), (kind_in, conn.slot));
            assert!(is_of_generation(tag, conn.generation));
            assert!(!is_of_generation(tag, conn.generation + 1));
        }
    }
}
