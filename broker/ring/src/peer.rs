//! Who is at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
//!
//! The kernel remembers the credentials of the moment in which the peer connected or listened.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::socket::check;

/// A process, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id in this process's namespace; 0 if it is in another one.
    pub pid: i32,
    /// Its effective user, as this process's namespace maps it.
    pub user: u32,
}

/// The process that connected `socket`, or listened for it.
///
/// # Errors
/// If `socket` is no Unix socket.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    let value = (&raw mut credentials).cast();
    // SAFETY: the kernel writes at most `len` bytes to `credentials`; both live through the call.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, value, &raw mut len) })?;
    Ok(Peer { pid: credentials.pid, user: credentials.uid })
}

/// This process's effective user.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: geteuid(2) takes nothing and always succeeds.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_process_is_its_own_peer() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer(&one).unwrap(), Peer { pid: std::process::id() as i32, user: user() });
    }

    #[test]
    fn over_tcp_nobody_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(peer(&stream).map_or(true, |peer| peer.user == u32::MAX));
    }
}
