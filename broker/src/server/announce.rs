//! What a broker says when it has started: its addresses, its limits, and which addresses other machines reach.

use std::net::SocketAddr;
use std::process;
use std::thread;

use ring::Io;
use tracing::{field, info, warn};

use crate::capacity::connections::Capacity;
use crate::config::is_loopback;
use crate::config::limits::Limits;
use crate::config::url::from_here;
use crate::server::output::write_out;

/// Where to find it, on standard output: the public address comes first, the operators' next. On a thread of its own:
/// standard output may be a pipe that is full and that nobody reads.
pub(crate) fn announce(
    io: Io,
    shards: u16,
    (address, tls_address): (SocketAddr, Option<SocketAddr>),
    operators: Option<SocketAddr>,
) {
    let plural = if shards == 1 { "" } else { "s" };
    let page = from_here(address);
    let operators = operators.map_or_else(String::new, |at| format!(", operators: http://{}/metrics", from_here(at)));
    let tls = tls_address.map_or_else(String::new, |at| format!(", TLS: https://{}/", from_here(at)));
    let text = format!(
        "ringyard {}: {shards} shard{plural} on {io}, http://{page}/{operators}{tls}\n\
         Open that page in two tabs, or try: curl -d 'hello' http://{page}/pub/demo\n",
        env!("CARGO_PKG_VERSION")
    );
    let write = move || drop(write_out(&text));
    if thread::Builder::new().name("announce".to_owned()).spawn(write).is_err() {
        warn!("the addresses cannot be written to standard output: no thread can be started");
    }
}

/// What runs, and within which limits.
pub(crate) fn log_start(
    shards: u16,
    (address, tls_address): (SocketAddr, Option<SocketAddr>),
    operators: Option<SocketAddr>,
    room: &Capacity,
    limits: &Limits,
) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        driver = room.io.name(),
        shards,
        listen = %address,
        tls_listen = tls_address.map(field::display),
        admin = operators.map(field::display),
        connections_max = room.connections_max,
        connections_per_address_max = limits.connections_per_address_max,
        accept_rate_max = limits.accept_rate_max,
        publish_rate_max = limits.publish_rate_max,
        message_bytes_max = limits.message_bytes_max,
        topics_max = limits.topics_max,
        memory_bytes_max = room.memory.budget_bytes,
        resident_bytes_max = room.resident_bytes_max(),
        pid = process::id(),
        "started"
    );
}

/// Which addresses other machines may reach, and what they find there. `rights` says what
/// anyone who reaches one of `addresses` may do.
pub(crate) fn warn_of_strangers(addresses: &[Option<SocketAddr>], rights: &str, exposed: Option<SocketAddr>) {
    for address in addresses.iter().flatten().filter(|address| !is_loopback(address.ip())) {
        warn!(
            listen = %address,
            "{address} can be reached from other machines: anyone who reaches it may {rights}"
        );
    }
    if let Some(exposed) = exposed {
        warn!(
            admin = %exposed,
            "{exposed} can be reached from other machines, and what is for operators is there, as --admin-listen says: \
             anyone who reaches it may do there what needs no key"
        );
    }
}
