//! Where a client comes from, what the proxy in front of it says about that, if it comes by one, and as whom the
//! broker therefore has to count it.

use std::net::{IpAddr, SocketAddr};

use crate::params::Params;

/// See the file's head.
#[derive(Clone, Default, Debug)]
pub(crate) struct Door {
    /// A PROXY header, before everything else.
    pub(crate) preamble: Vec<u8>,
    /// The header is none, so the broker hangs up without a word.
    pub(crate) broken: bool,
    /// A line of the request head.
    pub(crate) forwarded: String,
    /// Who shares a limit with it: an IPv4 address, or the network of an IPv6 one. `None`: it is not counted.
    pub(crate) counts_as: Option<IpAddr>,
}

/// For whom proxies speak.
const BEHIND: [&str; 5] = ["198.51.100.1", "198.51.100.2", "2001:db8:7::1", "2001:db8:7::2", "127.0.0.1"];

impl Door {
    /// Of client number `index`, that connects from `address`.
    pub(crate) fn of(address: SocketAddr, index: usize, params: &Params) -> Self {
        let limits = &params.limits;
        let trusted = |ip: IpAddr| limits.trusted_proxies.iter().any(|network| network.contains(&ip.to_canonical()));
        let counted = |ip: IpAddr| Some(ip.to_canonical()).filter(|ip| !ip.is_loopback() && !trusted(*ip)).map(network);
        if !trusted(address.ip()) {
            return Self { counts_as: counted(address.ip()), ..Self::default() };
        }
        let client: IpAddr = BEHIND[index % BEHIND.len()].parse().expect("an address");
        if !limits.proxy_protocol {
            // What the client itself claims comes first; the proxy appends. A proxy before that one is believed in turn.
            let claimed: IpAddr = "203.0.113.1".parse().expect("an address");
            let forwarded = format!("X-Forwarded-For: {claimed}\r\nX-Forwarded-For: , {client}\r\n");
            let believed = if trusted(client) { claimed } else { client };
            return Self { forwarded, counts_as: counted(believed), ..Self::default() };
        }
        if params.hostile_percent > 0 && index % 6 == 5 {
            let preamble = match index % 4 {
                0 => Vec::new(),
                1 => header(0x23, 0x11, &[0; 12]),
                2 => header(0x21, 0x12, &[0; 12]),
                _ => header(0x21, 0x21, &[0; 35]),
            };
            return Self { preamble, broken: true, ..Self::default() };
        }
        if index.is_multiple_of(4) {
            // A health check of the proxy's own.
            return Self { preamble: header(0x20, 0x00, &[]), ..Self::default() };
        }
        let (family, ip) = match client {
            IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
            IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
        };
        let extension = vec![0xee; index % 30];
        let body = [ip.clone(), ip, vec![0x12, 0x34, 0x1f, 0x90], extension].concat();
        Self { preamble: header(0x21, family, &body), counts_as: counted(client), ..Self::default() }
    }
}

fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, body].concat()
}

/// The first 64 bits of an IPv6 address.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}
