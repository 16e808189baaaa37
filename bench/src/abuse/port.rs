//! The port with TLS of a broker under attack: its certificate, and whether all clients use it.

use std::net::SocketAddr;

use anyhow::Result;
use loadgen::tls::Tls;

use super::peer::Address;
use crate::tls::{Certificate, free_port};

/// A port that the broker listens on beside the one without TLS.
pub(super) struct Port {
    certificate: Certificate,
    pub(super) socket: SocketAddr,
    /// Well-behaved clients and attackers come by this port only.
    is_for_all: bool,
}

impl Port {
    pub(super) fn new(is_for_all: bool) -> Result<Self> {
        let socket = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        Ok(Self { certificate: Certificate::new()?, socket, is_for_all })
    }

    /// The broker's argument.
    pub(super) fn argument(&self) -> String {
        format!("--tls-listen={}", self.socket)
    }

    /// Tables of the broker's configuration file.
    pub(super) fn tables(&self) -> Result<String> {
        self.certificate.tables()
    }

    /// Where the clients of a broker connect whose port without TLS is `plain`. Attacks are about bytes, not about who is
    /// trusted. Clients use tickets, as browsers do.
    pub(super) fn for_clients(port: Option<&Self>, plain: SocketAddr) -> Result<Address> {
        Ok(match port.filter(|port| port.is_for_all) {
            Some(port) => Address { socket: port.socket, tls: Some(Tls::new(None, true, true)?) },
            None => Address::plain(plain),
        })
    }
}
