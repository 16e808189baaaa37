//! The binary `ringyard`: options, start, run, exit code. Everything it says to the operator is said here.

use std::env;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use broker::config::{Config, Stop};
use broker::control::shards::{Shards, capacity};
use broker::control::{self, crash};
use broker::shard::link::Links;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    crash::abort_on_panic();
    // Refused, it costs memory and nothing else.
    ring::limits::forgo_huge_pages();
    let config = match Config::from_args(env::args_os()) {
        Ok(config) => config,
        Err(Stop::Shown(text)) => return say(&text),
        Err(Stop::Refused(sentence)) => return complain(&sentence, 2),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => complain(&sentence, 1),
    }
}

/// Starts everything, and runs until a signal has ended it.
fn run(config: Config) -> Result<(), String> {
    let features = ring::uring::probe().map_err(|error| error.to_string())?;
    if !features.install {
        return Err("this kernel cannot hand a ring's socket over to the HTTP server (IORING_OP_FIXED_FD_INSTALL): \
                    run Linux 6.8 or newer"
            .to_owned());
    }
    let (descriptors, _) = ring::limits::raise_descriptors();
    let capacity = capacity(config.connections_max, config.shards, descriptors)?;
    let listeners = ring::listen::group(config.listen, usize::from(config.shards))
        .map_err(|error| format!("cannot listen as --listen says: {error}"))?;
    let address = ring::listen::local_addr(&listeners[0])
        .map_err(|error| format!("the address of the listener cannot be read: {error}"))?;
    let start_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let links = Arc::new(Links::new(config.shards, start_ns, start_ns));
    let limits = Arc::new(config.limits);
    let shards = Shards::start(listeners, capacity, &links, &limits)?;
    control::run(links, limits, shards, || announce(config.shards, address))
}

fn announce(shards: u16, address: SocketAddr) {
    let plural = if shards == 1 { "" } else { "s" };
    let page = page_address(address);
    say(&format!(
        "ringyard {}: {shards} shard{plural} on io_uring, http://{page}/\n\
         Open that page in two tabs, or try: curl -d 'hello' http://{page}/pub/demo\n",
        env!("CARGO_PKG_VERSION")
    ));
    if !address.ip().to_canonical().is_loopback() {
        eprintln!(
            "ringyard: warning: {address} can be reached from other machines, and there is no authentication yet: \
             whoever reaches it may publish and subscribe"
        );
    }
}

/// Where a browser on this machine finds the page: an unspecified address is no destination.
fn page_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// To standard output, where nobody need listen.
fn say(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

fn complain(sentence: &str, code: u8) -> ExitCode {
    eprintln!("ringyard: {sentence}");
    ExitCode::from(code)
}
