//! Listening sockets: one per shard on the same port, so that the kernel spreads connections over shards.
//!
//! `SO_REUSEPORT` has a trap: a second broker of the same user would silently join the group and take half
//! of the connections. [`group`] therefore binds the port once without it, which fails if anyone listens
//! there, before the group is made.
//!
//! `[::]` means every address of both families: a socket takes IPv4 too whatever the sysctl `net.ipv6.bindv6only`
//! says, and where the kernel has no IPv6 it is `0.0.0.0`.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::socket::{self, Address, check};

/// Connections that wait to be accepted, per listener; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Why there is no listener. `Display` is one sentence that says what to change.
#[derive(Debug)]
pub enum ListenError {
    /// `EADDRINUSE`.
    PortInUse(SocketAddr),
    /// `EACCES`: a port below 1024 (`net.ipv4.ip_unprivileged_port_start`) without the right to it.
    NotPermitted(SocketAddr),
    /// `EADDRNOTAVAIL`: no interface has this address.
    NoSuchAddress(SocketAddr),
    /// Anything else.
    Other {
        /// The address asked for.
        addr: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse(addr) => write!(
                f,
                "{addr} is in use by another program (perhaps another ringyard): stop it or choose another port"
            ),
            Self::NotPermitted(addr) => write!(
                f,
                "port {} needs a privilege this process lacks: choose a port from 1024 up, or grant \
                 CAP_NET_BIND_SERVICE",
                addr.port()
            ),
            Self::NoSuchAddress(addr) => write!(
                f,
                "no interface of this machine has the address {}: choose one of its own, or [::] for all",
                addr.ip()
            ),
            Self::Other { addr, error } => write!(f, "cannot listen on {addr}: {error}"),
        }
    }
}

impl std::error::Error for ListenError {}

/// `shards` listeners on one port, with [`BACKLOG`]. With port 0 the kernel picks the port of the first and
/// the others join it; ask [`local_addr`] which it is.
///
/// # Errors
/// [`ListenError::PortInUse`] also if the listener there would share the port.
pub fn group(addr: SocketAddr, shards: usize) -> Result<Vec<OwnedFd>, ListenError> {
    if addr.port() != 0 {
        // Bound and gone again: `SO_REUSEADDR` lets the group follow at once, past old connections.
        bound(addr, false)?;
    }
    widen(Vec::with_capacity(shards), addr, shards)
}

/// Adds to `listeners`, which listen at `addr` already, until there are `shards`.
///
/// # Errors
/// [`ListenError`], also if the listeners there are another user's.
pub fn widen(mut listeners: Vec<OwnedFd>, addr: SocketAddr, shards: usize) -> Result<Vec<OwnedFd>, ListenError> {
    let mut addr = addr;
    while listeners.len() < shards {
        let listener = tcp(addr, BACKLOG, true)?;
        addr = local_addr(&listener).map_err(|error| ListenError::Other { addr, error })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// One non-blocking listener. Connections inherit its `TCP_NODELAY`. With `share_port`, others of the same
/// user may listen on the same port; see the module's head for why [`group`] is the way in.
///
/// # Errors
/// [`ListenError`], each with a sentence that says what to change.
pub fn tcp(addr: SocketAddr, backlog: i32, share_port: bool) -> Result<OwnedFd, ListenError> {
    let socket = bound(addr, share_port)?;
    // SAFETY: the call takes no pointers, and the descriptor is open.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map_err(|error| listen_error(addr, error))?;
    Ok(socket)
}

/// The address a socket is bound to.
///
/// # Errors
/// If `socket` is no IP socket.
pub fn local_addr(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let mut name = socket::no_name();
    let mut len = socket::V6_BYTES;
    // SAFETY: the kernel writes at most `len` bytes to `name`; both live through the call.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut name).cast(), &raw mut len) })?;
    socket::decode(&name).map_err(io::Error::from_raw_os_error)
}

/// How long a port may be in use by a program that has ended: the kernel takes a ring apart a little later than its process, and
/// only then closes what the ring had.
const IN_USE_MAX: Duration = Duration::from_secs(1);
/// And how long until the next try.
const IN_USE_RETRY: Duration = Duration::from_millis(20);

/// A socket bound to `addr`. A port that is in use may be given up within [`IN_USE_MAX`].
fn bound(addr: SocketAddr, share_port: bool) -> Result<OwnedFd, ListenError> {
    let begun = Instant::now();
    loop {
        match bound_now(addr, share_port) {
            Err(ListenError::PortInUse(_)) if begun.elapsed() < IN_USE_MAX => thread::sleep(IN_USE_RETRY),
            result => return result,
        }
    }
}

/// A socket bound to `addr`; to `0.0.0.0` where that is `[::]` and there is no IPv6.
fn bound_now(addr: SocketAddr, share_port: bool) -> Result<OwnedFd, ListenError> {
    match bound_to(addr, share_port) {
        Err(error) if addr.is_ipv6() && addr.ip().is_unspecified() && error.is_without_ipv6() => {
            bound_to((Ipv4Addr::UNSPECIFIED, addr.port()).into(), share_port)
        }
        result => result,
    }
}

fn bound_to(addr: SocketAddr, share_port: bool) -> Result<OwnedFd, ListenError> {
    let failed = |error| listen_error(addr, error);
    let socket = socket::tcp(addr).map_err(failed)?;
    if addr.is_ipv6() {
        socket::switch(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, false).map_err(failed)?;
    }
    socket::switch_on(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR).map_err(failed)?;
    socket::switch_on(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY).map_err(failed)?;
    if share_port {
        socket::switch_on(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT).map_err(failed)?;
    }
    socket::bind(&socket, &Address::from(addr)).map_err(failed)?;
    Ok(socket)
}

impl ListenError {
    /// Whether it failed because the kernel has no IPv6 (`ipv6.disable=1`), or none on any interface.
    fn is_without_ipv6(&self) -> bool {
        match self {
            Self::NoSuchAddress(_) => true,
            Self::Other { error, .. } => {
                matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT))
            }
            Self::PortInUse(_) | Self::NotPermitted(_) => false,
        }
    }
}

fn listen_error(addr: SocketAddr, error: io::Error) -> ListenError {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ListenError::PortInUse(addr),
        Some(libc::EACCES | libc::EPERM) => ListenError::NotPermitted(addr),
        Some(libc::EADDRNOTAVAIL) => ListenError::NoSuchAddress(addr),
        _ => ListenError::Other { addr, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn any_port(host: &str) -> SocketAddr {
        SocketAddr::new(host.parse().unwrap(), 0)
    }

    #[test]
    fn a_group_shares_one_port() {
        for host in ["127.0.0.1", "::1"] {
            let listeners = group(any_port(host), 3).unwrap();
            let addrs: Vec<_> = listeners.iter().map(|fd| local_addr(fd).unwrap()).collect();
            assert_ne!(addrs[0].port(), 0);
            assert!(addrs.iter().all(|addr| *addr == addrs[0]));
            TcpStream::connect(addrs[0]).unwrap();
        }
    }

    #[test]
    fn every_address_is_of_both_families() {
        let listeners = group(any_port("::"), 2).unwrap();
        let port = local_addr(&listeners[0]).unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect(SocketAddr::new(host.parse().unwrap(), port)).unwrap();
        }
    }

    /// Where containers forbid the family, or the kernel was started with `ipv6.disable=1`.
    #[test]
    fn without_ipv6_every_address_is_every_address_of_ipv4() {
        std::thread::spawn(|| {
            crate::sandbox::forbid_ipv6().unwrap();
            let listeners = group(any_port("::"), 2).unwrap();
            let addr = local_addr(&listeners[1]).unwrap();
            assert_eq!(addr.ip(), Ipv4Addr::UNSPECIFIED);
            TcpStream::connect((Ipv4Addr::LOCALHOST, addr.port())).unwrap();
            // An address of its own is not silently another one.
            let error = group(any_port("::1"), 1).unwrap_err();
            assert!(error.to_string().contains("[::1]"), "{error}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_second_broker_does_not_join_the_first() {
        let first = group(any_port("127.0.0.1"), 2).unwrap();
        let addr = local_addr(&first[0]).unwrap();
        let error = group(addr, 2).unwrap_err();
        assert!(matches!(error, ListenError::PortInUse(at) if at == addr), "{error}");
        drop(first);
        group(addr, 2).expect("the port is free again");
    }

    #[test]
    fn a_group_that_was_handed_over_grows() {
        let first = group(any_port("127.0.0.1"), 2).unwrap();
        let addr = local_addr(&first[0]).unwrap();
        let wider = widen(first, addr, 4).unwrap();
        assert!(wider.len() == 4 && wider.iter().all(|fd| local_addr(fd).unwrap() == addr));
    }

    #[test]
    fn a_port_with_old_connections_is_free() {
        let first = group(any_port("127.0.0.1"), 1).unwrap();
        let addr = local_addr(&first[0]).unwrap();
        let client = TcpStream::connect(addr).unwrap();
        let listener = std::net::TcpListener::from(first.into_iter().next().unwrap());
        let (served, _) = listener.accept().unwrap();
        drop((served, listener));
        group(addr, 1).expect("connections in FIN_WAIT do not hold the port");
        drop(client);
    }

    #[test]
    fn an_address_of_nobody_is_named() {
        let error = group("192.0.2.1:8080".parse().unwrap(), 1).unwrap_err();
        assert!(matches!(error, ListenError::NoSuchAddress(_)), "{error}");
    }
}
