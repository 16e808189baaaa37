//! Where simulated clients connect from: few addresses, so that several share one, of every kind that differs for
//! a server. Addresses are those reserved for documentation (RFC 5737, RFC 3849).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Random;

/// The address of a world's client number `index`. Drawn from the seed and the number alone, not from the
/// world's generator: it shifts nothing else.
pub(super) fn of(seed: u64, index: usize) -> SocketAddr {
    let mut random = Random::new(seed.rotate_left(32) ^ index as u64);
    let host = random.range(1, 3) as u8;
    let v4 = Ipv4Addr::new(203, 0, 113, host);
    let ip: IpAddr = match random.below(8) {
        0 => Ipv4Addr::new(127, 0, 0, host).into(),
        1 => Ipv6Addr::LOCALHOST.into(),
        // As a listener on `::` sees an IPv4 client.
        2 => v4.to_ipv6_mapped().into(),
        // Several hosts of one network, and several networks.
        3 => Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host.into()).into(),
        4 => Ipv6Addr::new(0x2001, 0xdb8, 0, host.into(), 0, 0, 0, 1).into(),
        _ => v4.into(),
    };
    SocketAddr::new(ip, 1024 + (index % 60_000) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_clients_of_every_kind_and_several_of_each() {
        let addresses: Vec<_> = (0..200).map(|index| of(7, index)).collect();
        let loopback = addresses.iter().filter(|address| address.ip().to_canonical().is_loopback()).count();
        assert!((20..100).contains(&loopback), "{loopback}");
        let mut ips: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        ips.sort();
        ips.dedup();
        assert!((8..20).contains(&ips.len()), "{ips:?}");
        assert_eq!(addresses[3], of(7, 3));
        assert_ne!(addresses, (0..200).map(|index| of(8, index)).collect::<Vec<_>>());
    }
}
