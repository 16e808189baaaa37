//! Where operators ask: a listener of their own with its own connections, the public port, or nowhere.
//!
//! Not responsible for the answers (`routes`, `stats`, `metrics`). The listener is served on the control plane's
//! thread, but not through the shards: however many connections the public port has, operators have
//! `CONNECTIONS_MAX` besides. More wait in the listen backlog. Each has a descriptor of its own as well, held by a
//! `Reserve` from the start: where all others are taken, it gives one up and the connection takes that.
//!
//! It is served until the process ends: whoever watches a broker that shuts down sees it to the end, and is cut off
//! there. A successor that takes over gets the listener; connections stay.

use std::fs::File;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::access::address::AddressLease;
use crate::capacity::budget::Held;
use crate::capacity::buffer::Buffer;
use crate::capacity::connections::DESCRIPTORS_OPERATORS;
use crate::config::Admin;
use crate::config::is_loopback;
use crate::http::app::App;
use crate::http::connection::Connection;
use crate::http::routes::admin_router;
use crate::http::serve;

/// Operators' connections at the same time. `room` leaves descriptors free for them.
const CONNECTIONS_MAX: usize = DESCRIPTORS_OPERATORS as usize;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What [`Admin`] became.
#[derive(Debug)]
pub enum AdminListener {
    /// A listener of the operators' own.
    Own {
        /// Listens already.
        listener: std::net::TcpListener,
        /// Where.
        address: SocketAddr,
    },
    /// They ask on the public port.
    Public,
    /// Nothing is answered.
    Closed,
}

impl AdminListener {
    /// Listens, where that is asked for; on `inherited` if that listens there already.
    ///
    /// # Errors
    /// A sentence that names `--admin-listen` and says what to change.
    pub fn open(admin: Admin, inherited: Option<OwnedFd>) -> Result<Self, String> {
        let at = match admin {
            Admin::At(at) => at,
            Admin::Public => return Ok(Self::Public),
            Admin::Off => return Ok(Self::Closed),
        };
        let inherited = inherited.filter(|listener| ring::listen::local_addr(listener).is_ok_and(|own| own == at));
        let listener = match inherited {
            Some(listener) => listener,
            None => ring::listen::tcp(at, BACKLOG, false)
                .map_err(|error| format!("cannot listen for operators as --admin-listen says: {error}"))?,
        };
        let address = ring::listen::local_addr(&listener)
            .map_err(|error| format!("the address of the operators' listener cannot be read: {error}"))?;
        Ok(Self::Own { listener: listener.into(), address })
    }

    /// The listener's address, if it is one of their own.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Own { address, .. } => Some(*address),
            Self::Public | Self::Closed => None,
        }
    }

    /// Whether operators' requests are answered on the public port.
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Public)
    }

    /// The address at which other machines reach what is for operators, if they do; `public` is the other listener's.
    #[must_use]
    pub fn exposed(&self, public: SocketAddr) -> Option<SocketAddr> {
        let address = match self {
            Self::Own { address, .. } => *address,
            Self::Public => public,
            Self::Closed => return None,
        };
        let ip: IpAddr = address.ip().to_canonical();
        (!ip.is_loopback()).then_some(address)
    }

    /// The listener, if it is one of their own.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Own { listener, .. } => Some(listener.as_fd()),
            Self::Public | Self::Closed => None,
        }
    }

    /// Serves the listener on this runtime, if there is one, until [`Accepting::stop`].
    ///
    /// # Errors
    /// A sentence: the runtime does not take the listener.
    pub(crate) fn serve(self, app: &App) -> Result<Accepting, String> {
        let Self::Own { listener, address } = self else { return Ok(Accepting(None)) };
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map_err(|error| format!("the operators' listener at {address} cannot be served: {error}"))?;
        Ok(Accepting(Some(tokio::task::spawn_local(accept(app.clone(), listener)).abort_handle())))
    }
}

/// The task that accepts operators' connections.
#[derive(Debug)]
pub(crate) struct Accepting(Option<AbortHandle>);

impl Accepting {
    /// Accepts no more. Connections that there are go on.
    pub(crate) fn stop(&self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

async fn accept(app: App, listener: TcpListener) {
    let router = admin_router(app.clone());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut reserve = Reserve::default();
    loop {
        reserve.fill(permits.available_permits());
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = match listener.accept().await {
            Err(_) if reserve.give_up() => listener.accept().await,
            accepted => accepted,
        };
        match accepted {
            Ok((socket, _)) => drop(tokio::task::spawn_local(serve_one(app.clone(), router.clone(), socket, permit))),
            // The peer is gone already, or somebody was quicker.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Descriptors that stand for nothing: what holds them can have a connection instead when the process may open no
/// more (`EMFILE`).
#[derive(Debug, Default)]
struct Reserve(Vec<File>);

impl Reserve {
    /// Holds `places`, or as many as can be had now.
    fn fill(&mut self, places: usize) {
        while self.0.len() < places {
            let more = self.0.first().map_or_else(|| File::open("/dev/null"), File::try_clone);
            match more {
                Ok(file) => self.0.push(file),
                Err(_) => return,
            }
        }
    }

    /// Frees one; whether there was one.
    fn give_up(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

async fn serve_one(app: App, router: axum::Router, socket: TcpStream, _permit: OwnedSemaphorePermit) {
    let is_near = socket.peer_addr().is_ok_and(|peer| is_loopback(peer.ip()));
    let connection = Connection::new(AddressLease::default(), || None, app.limits()).of_operators().near(is_near);
    let read = Buffer::new(app.shared().budget.of_plane(), Held::Http);
    serve::connection(&app, router, socket, read, &Arc::new(connection), true, pending()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port(host: &str) -> Admin {
        Admin::At(SocketAddr::new(host.parse().unwrap(), 0))
    }

    #[test]
    fn an_address_in_use_is_a_sentence_that_names_the_option() {
        let first = AdminListener::open(any_port("127.0.0.1"), None).unwrap();
        let address = first.address().unwrap();
        let sentence = AdminListener::open(Admin::At(address), None).unwrap_err();
        for part in ["--admin-listen", "in use", &address.to_string()] {
            assert!(sentence.contains(part), "{part}: {sentence}");
        }
    }

    #[test]
    fn a_reserve_holds_what_it_may_give_up() {
        let mut reserve = Reserve::default();
        reserve.fill(3);
        assert_eq!(reserve.0.len(), 3);
        assert!(reserve.give_up());
        reserve.fill(1);
        assert_eq!(reserve.0.len(), 2, "more than is needed is kept");
        assert!(reserve.give_up() && reserve.give_up() && !reserve.give_up());
    }

    #[test]
    fn what_other_machines_reach_is_known() {
        let public: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let local: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(AdminListener::open(any_port("127.0.0.1"), None).unwrap().exposed(public), None);
        assert_eq!(AdminListener::open(any_port("::1"), None).unwrap().exposed(public), None);
        let everywhere = AdminListener::open(any_port("0.0.0.0"), None).unwrap();
        assert_eq!(everywhere.exposed(local), everywhere.address());
        assert_eq!(AdminListener::open(Admin::Public, None).unwrap().exposed(public), Some(public));
        assert_eq!(AdminListener::open(Admin::Public, None).unwrap().exposed(local), None);
        assert_eq!(AdminListener::open(Admin::Off, None).unwrap().exposed(public), None);
    }
}
