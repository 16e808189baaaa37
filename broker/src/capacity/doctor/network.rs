//! The kernel's limits of TCP that a crowd of clients meets.

use crate::capacity::doctor::report::grouped;
use crate::capacity::doctor::{Finding, Look};
use crate::capacity::machine::Share;

/// Fewer ports than this are too few for a proxy or a load generator with one address.
const PORTS_FEW: u64 = 20_000;
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack";

impl Look<'_> {
    pub(crate) fn network(&self) -> Vec<Finding> {
        vec![self.backlog(), self.ports(), self.tcp_memory(), self.tracking(), self.congestion()]
    }

    fn backlog(&self) -> Finding {
        let name = "net.core.somaxconn";
        let Some(most) = self.machine.number("/proc/sys/net/core/somaxconn") else {
            return Finding::ok(name, "not known");
        };
        let wanted = ring::listen::BACKLOG as u64;
        if most >= wanted {
            return Finding::ok(name, format!("{}: the backlog of {} fits", grouped(most), grouped(wanted)));
        }
        Finding::warning(
            name,
            format!("{}: cuts the backlog of {} of each shard, clients that come at once wait longer", most, wanted),
            format!("sysctl -w net.core.somaxconn={wanted} (containers: --sysctl net.core.somaxconn={wanted})"),
        )
    }

    fn ports(&self) -> Finding {
        let name = "net.ipv4.ip_local_port_range";
        let [first, last] = self.machine.sysctl_numbers(name)[..] else { return Finding::ok(name, "not known") };
        let ports = (last + 1).saturating_sub(first);
        let value = format!("{} connections from one address of this machine to one address", grouped(ports));
        if ports >= PORTS_FEW {
            return Finding::ok(name, value);
        }
        Finding::warning(
            name,
            format!("{value}: few for a proxy or a load generator"),
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
        )
    }

    /// Pages that all TCP sockets together may have. One that was used keeps up to a page for a while.
    pub(crate) fn tcp_pages_max(&self) -> Option<u64> {
        self.machine.sysctl_numbers("net.ipv4.tcp_mem").get(2).copied()
    }

    fn tcp_memory(&self) -> Finding {
        let name = "net.ipv4.tcp_mem";
        let Some(pages) = self.tcp_pages_max() else {
            return Finding::ok(name, "not visible here: containers do not see it; ask on the host");
        };
        let connections = self.connections();
        let value = format!("{} pages", grouped(pages));
        if connections <= pages {
            return Finding::ok(name, format!("{value}, a page each for {} connections", grouped(connections)));
        }
        Finding::warning(
            name,
            format!("{value}, but {} connections may need one each: sockets beyond fail", grouped(connections)),
            format!("sysctl -w net.ipv4.tcp_mem='{connections} {} {}'", connections * 3 / 2, connections * 2),
        )
    }

    /// Connections that the firewall may track and does, if it tracks any.
    pub(crate) fn tracked(&self) -> Option<Share> {
        let limit = self.machine.number(&format!("{CONNTRACK}_max"))?;
        Some(Share { limit, used: self.machine.number(&format!("{CONNTRACK}_count")).unwrap_or(0) })
    }

    fn tracking(&self) -> Finding {
        let name = "connection tracking";
        let Some(share) = self.tracked() else { return Finding::ok(name, "not loaded") };
        let value = format!("{} of {} connections tracked", grouped(share.used), grouped(share.limit));
        let connections = self.connections();
        if share.left() >= connections {
            return Finding::ok(name, value);
        }
        let enough = share.used + connections * 5 / 4;
        Finding::warning(
            name,
            format!("{value}: no room for {} more, whose packets would be dropped", grouped(connections)),
            format!("sysctl -w net.netfilter.nf_conntrack_max={enough}"),
        )
    }

    fn congestion(&self) -> Finding {
        let name = "net.ipv4.tcp_congestion_control";
        Finding::ok(name, self.machine.sysctl(name).unwrap_or_else(|| "not known".to_owned()))
    }
}
