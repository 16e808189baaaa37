//! The system calls on sockets, none of which waits. An error is its `errno`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::gather::Tail;
use crate::socket::{self, Address};

/// Sends what `tail` names, as far as the socket has room.
pub(super) fn send(socket: BorrowedFd<'_>, tail: &Tail<'_>) -> Result<usize, i32> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let fd = socket.as_raw_fd();
    let message = match tail {
        Tail::Contiguous(bytes) => {
            // SAFETY: the kernel reads the slice, which is borrowed through the call.
            return result_of(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) });
        }
        Tail::Whole(message) => message,
        Tail::Trimmed(message) => &**message,
    };
    // SAFETY: the kernel reads the message head and the ranges it names; the head is borrowed through the call,
    // and the gather that `tail` borrows keeps the ranges.
    result_of(unsafe { libc::sendmsg(fd, message.as_ptr(), flags) })
}

/// Receives into `room`. 0 is the end of the stream.
pub(super) fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: the kernel writes at most `room.len()` bytes to `room`, which is borrowed through the call.
    result_of(unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) })
}

/// Throws away what was received, up to so many bytes. 0 is the end of the stream.
pub(super) fn discard(socket: BorrowedFd<'_>, most: usize) -> Result<usize, i32> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with this flag TCP writes nothing (tcp(7)); any other socket finds that null is no place to write to.
    result_of(unsafe { libc::recv(socket.as_raw_fd(), ptr::null_mut(), most, flags) })
}

/// Starts a handshake. Often it is over at once; else it goes on, and `EINPROGRESS` says so.
pub(super) fn connect(socket: BorrowedFd<'_>, to: &Address) -> Result<(), i32> {
    // SAFETY: the kernel reads the address, of exactly that length, which is borrowed through the call.
    result_of(unsafe { libc::connect(socket.as_raw_fd(), to.as_ptr(), to.len()) } as isize).map(drop)
}

/// What went wrong with the socket since this was last asked: how a handshake ended, once it has.
pub(super) fn error_of(socket: BorrowedFd<'_>) -> Result<(), i32> {
    let (mut error, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let (fd, error_at) = (socket.as_raw_fd(), (&raw mut error).cast());
    // SAFETY: the kernel writes at most the four bytes of `error` and their number; both live through the call.
    result_of(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, error_at, &raw mut len) } as isize)?;
    if error == 0 { Ok(()) } else { Err(error) }
}

/// The address of the peer's end. Unlike getpeername(2) this works when the connection is over, too.
pub(super) fn peer(socket: BorrowedFd<'_>) -> Result<SocketAddr, i32> {
    let mut name = socket::no_name();
    let mut ask = |mut len: libc::socklen_t| {
        let (fd, name_at) = (socket.as_raw_fd(), (&raw mut name).cast());
        // SAFETY: the kernel writes at most `len` bytes to `name`, which has room for them; both live through the
        // call.
        result_of(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERNAME, name_at, &raw mut len) } as isize)
    };
    // A name that is shorter than the room for it is refused.
    match ask(socket::V6_BYTES) {
        Err(libc::EINVAL) => ask(socket::V4_BYTES)?,
        other => other?,
    };
    socket::decode(&name)
}

/// Bytes in the send queue that the peer has not acknowledged (tcp(7)).
pub(super) fn unsent(socket: BorrowedFd<'_>) -> Result<usize, i32> {
    /// `SIOCOUTQ`, which has the number of the terminals' `TIOCOUTQ`.
    const SIOCOUTQ: libc::Ioctl = libc::TIOCOUTQ;
    let mut bytes = 0i32;
    // SAFETY: the kernel writes the four bytes of `bytes`, which lives through the call.
    result_of(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQ, &raw mut bytes) } as isize)?;
    usize::try_from(bytes).map_err(|_| libc::EIO)
}

/// The next peer that waits at the listener, as a non-blocking socket.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, i32> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: with null pointers the kernel writes no address.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
    let fd = result_of(fd as isize)?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Ends the sending direction.
pub(super) fn shut_down(socket: BorrowedFd<'_>) {
    // SAFETY: the call takes no pointers. It fails only where there is no such direction any more.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_WR) };
}

pub(super) fn result_of(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
