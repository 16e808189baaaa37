//! The system calls on sockets, none of which waits. An error is its `errno`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::gather::Tail;

/// Sends what `tail` names, as far as the socket has room.
pub(super) fn send(socket: BorrowedFd<'_>, tail: &Tail<'_>) -> Result<usize, i32> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let fd = socket.as_raw_fd();
    let message = match tail {
        Tail::Contiguous(bytes) => {
            // SAFETY: the kernel reads the slice, which is borrowed through the call.
            return told(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) });
        }
        Tail::Whole(message) => message,
        Tail::Trimmed(message) => &**message,
    };
    // SAFETY: the kernel reads the message head and the ranges it names; the head is borrowed through the call,
    // and the gather that `tail` borrows keeps the ranges.
    told(unsafe { libc::sendmsg(fd, message.as_ptr(), flags) })
}

/// Receives into `room`. 0 is the end of the stream.
pub(super) fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`, which is borrowed through the call.
    told(unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) })
}

/// The next peer that waits at the listener, as a non-blocking socket.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, i32> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: with null pointers the kernel writes no address.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
    let fd = told(fd as isize)?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Ends the sending direction.
pub(super) fn shut_down(socket: BorrowedFd<'_>) {
    // SAFETY: the call takes no pointers. It fails only where there is no such direction any more.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

pub(super) fn told(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
