//! The ring forbids itself whatever the driver does not do (`IORING_REGISTER_RESTRICTIONS`): an attacker who takes over
//! this thread can open no file, run no command and make no connection through the ring, although the process may
//! use io_uring. It cannot be taken back.
//!
//! What is set up before needs no permission: the descriptor table, the receive buffers, the ring's own name. The
//! check of a submission is a look at a bitmap.

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode};

/// `IORING_UNREGISTER_FILES`: the end of the driver closes its connections at once.
const UNREGISTER_FILES: u8 = 3;
/// `IORING_REGISTER_PBUF_RING`: the buffers of the first discard.
const REGISTER_PBUF_RING: u8 = 22;

/// What every driver does.
const OPERATIONS: [u8; 11] = [
    opcode::AcceptMulti::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::AsyncCancel2::CODE,
    opcode::Shutdown::CODE,
    opcode::Close::CODE,
    opcode::FilesUpdate::CODE,
    opcode::Read::CODE,
    opcode::FixedFdInstall::CODE,
    opcode::SetSockOpt::CODE,
];

/// How it does it: by the descriptor table, into provided buffers, a shutdown before a close, and no completion
/// for a cancellation that found what it was meant for.
const FLAGS: Flags = Flags::FIXED_FILE.union(Flags::BUFFER_SELECT).union(Flags::IO_HARDLINK).union(Flags::SKIP_SUCCESS);

/// Restricts a ring that is not enabled yet; with `dials`, to what [`Dial`](crate::Dial) needs besides. Says
/// whether the kernel has agreed: where it does not know all that is listed here, the ring stays as it is.
pub(super) fn restrict(ring: &IoUring, dials: bool) -> bool {
    let mut allowed: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
    allowed.push(Restriction::register_op(UNREGISTER_FILES));
    allowed.push(Restriction::sqe_flags_allowed(FLAGS.bits()));
    if dials {
        allowed.push(Restriction::sqe_op(opcode::Connect::CODE));
        allowed.push(Restriction::register_op(REGISTER_PBUF_RING));
    }
    ring.submitter().register_restrictions(&mut allowed).is_ok()
}
