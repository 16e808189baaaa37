//! Addresses as the kernel reads them, and the few system calls that make a socket of one. What is done with
//! the socket is its owner's affair.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A `sockaddr`. Whoever hands out [`Address::as_ptr`] keeps it in place until the kernel has read it.
pub(crate) enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(addr) => Self::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            }),
        }
    }
}

impl Address {
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        match self {
            Self::V4(addr) => (&raw const *addr).cast(),
            Self::V6(addr) => (&raw const *addr).cast(),
        }
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        match self {
            Self::V4(addr) => size_of_val(addr) as libc::socklen_t,
            Self::V6(addr) => size_of_val(addr) as libc::socklen_t,
        }
    }
}

/// A new TCP socket for `addr`'s family, non-blocking.
pub(crate) fn tcp(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes no pointers.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket on its way to `to`, with its options and its source, not yet connected.
pub(crate) fn dialling(to: SocketAddr, source: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let socket = tcp(to)?;
    switch_on(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    if let Some(source) = source {
        if source.port() == 0 {
            // The port is chosen when the other end is known, so that it may be in use towards others.
            switch_on(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)?;
        }
        bind(&socket, &source.into())?;
    }
    Ok(socket)
}

pub(crate) fn bind(socket: &OwnedFd, addr: &Address) -> io::Result<()> {
    // SAFETY: the kernel reads the address, of exactly that length, which lives through the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), addr.as_ptr(), addr.len()) }).map(drop)
}

/// Sets a switch among the options of a socket.
pub(crate) fn switch_on(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on = 1i32;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `on`, which lives through the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    check(done).map(drop)
}

pub(crate) fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
