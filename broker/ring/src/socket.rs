//! Addresses as the kernel reads them, and the few system calls that make a socket of one. What is done with
//! the socket is its owner's affair.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A `sockaddr`. The caller of [`Address::as_ptr`] keeps it in place until the kernel has read it.
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

/// Room for a name that the kernel writes: as large as the longer of the two families.
pub(crate) type Name = libc::sockaddr_in6;

/// Length of an IPv4 name.
pub(crate) const V4_BYTES: libc::socklen_t = size_of::<libc::sockaddr_in>() as libc::socklen_t;
/// Length of an IPv6 name.
pub(crate) const V6_BYTES: libc::socklen_t = size_of::<Name>() as libc::socklen_t;

/// A name without anything in it.
pub(crate) fn no_name() -> Name {
    // SAFETY: `sockaddr_in6` is plain numbers, for which zero is a valid value.
    unsafe { std::mem::zeroed() }
}

/// What the kernel wrote. `EAFNOSUPPORT` if it is no IP address.
pub(crate) fn decode(name: &Name) -> Result<SocketAddr, i32> {
    match i32::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: a `sockaddr_in` is shorter than a `sockaddr_in6`, no more aligned, begins with the same
            // family, and is plain numbers.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Ok(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id)))
        }
        _ => Err(libc::EAFNOSUPPORT),
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
    switch(socket, level, option, true)
}

/// Sets a switch among the options of a socket, or clears it.
pub(crate) fn switch(socket: &OwnedFd, level: i32, option: i32, on: bool) -> io::Result<()> {
    let on = i32::from(on);
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `on`, which lives through the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    check(done).map(drop)
}

pub(crate) fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes calls on `socket` return `EAGAIN` instead of waiting (`O_NONBLOCK`).
pub(crate) fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // SAFETY: `F_GETFL` takes no pointers, and the descriptor is open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: `F_SETFL` takes no pointers, and the descriptor is open.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
