//! `bench`: measures the broker, and compares it with the kernel's floor and with other brokers.
//!
//! | file | what it is |
//! | --- | --- |
//! | `measure` | measures and judges the figures that the broker must reach, one file per kind |
//! | `abuse` | abusive clients beside well-behaved ones, which must notice nothing |
//! | `compare` | the broker and other brokers: the same work, in turn |
//! | `scale` | as many subscribers as the machine holds, and one broadcast to all |
//! | `broadcaster` | a minimal broker for the comparison: what one writes oneself with tokio and tungstenite |
//! | `protocols` | short poll, long poll, server-sent events and WebSockets, for some uses of messages in pages |
//! | `limits` | limits of the kernel that `scale` raises while it runs |
//! | `floor` | processor time of the sends alone: the least that any broker pays |
//! | `tls` | certificates, a bare TLS server in memory, and nginx with TLS in front of a broker |
//! | `micro` | the table of `cargo bench` |
//! | `process` | servers and clients as child processes, each on its own core |
//! | `machine` | what a figure was measured on |
//! | `results` | raw data as JSON, and the table made of it |
//!
//! The server under test and the client are always other processes than this one; the client is the load
//! generator, started through the hidden command `client`, so that one binary is enough.

mod abuse;
mod broadcaster;
mod compare;
mod floor;
mod limits;
mod machine;
mod measure;
mod micro;
mod process;
mod protocols;
mod results;
mod scale;
mod tls;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Measures the broker against the kernel and against its goals.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The kernel alone: processor time per send, by method, sockets and bytes.
    Floor(floor::Options),
    /// The figures that the broker must reach, each with its bound.
    Figures(measure::Options),
    /// Abusive clients beside well-behaved ones, which must notice nothing.
    #[command(alias = "withstand")]
    Abuse(abuse::Options),
    /// The broker and every other broker that is installed.
    #[command(visible_alias = "race")]
    Compare(compare::Options),
    /// As many subscribers as this machine holds, and one broadcast to all of them.
    Scale(scale::Options),
    /// Short poll, long poll, server-sent events and WebSockets, for some uses.
    Protocols(protocols::Options),
    /// The table of the last cargo bench.
    Micro(micro::Options),
    /// The load generator.
    #[command(hide = true)]
    Client(Client),
    /// The clients of one run of `protocols`.
    #[command(hide = true)]
    ProtocolsClient(protocols::ClientOptions),
    /// The bare sender, as a server for the load generator.
    #[command(hide = true)]
    FloorServer(floor::ServerOptions),
    /// Sockets that throw away what the floor sends.
    #[command(hide = true)]
    FloorReceivers(floor::ReceiverOptions),
    /// TLS in memory, without sockets: what rustls alone takes.
    #[command(hide = true)]
    TlsFloor(tls::FloorOptions),
    /// A minimal broker on tokio and tungstenite, for the comparison.
    #[command(hide = true)]
    Broadcaster(broadcaster::Options),
}

#[derive(Args)]
struct Client {
    /// As `ringyard-loadgen` takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let good = match Command::parse().what {
        What::Floor(options) => floor::run(&options),
        What::Figures(options) => measure::run(&options),
        What::Abuse(options) => abuse::run(&options),
        What::Compare(options) => compare::run(&options),
        What::Scale(options) => scale::run(&options),
        What::Protocols(options) => protocols::run(&options),
        What::Micro(options) => micro::run(&options),
        What::Client(client) => {
            return loadgen::command::execute(["loadgen".to_owned()].into_iter().chain(client.arguments).collect());
        }
        What::ProtocolsClient(options) => protocols::run_client(&options).map(|()| true),
        What::FloorServer(options) => floor::serve(&options).map(|()| true),
        What::FloorReceivers(options) => floor::receive(&options).map(|()| true),
        What::TlsFloor(options) => tls::floor(&options).map(|()| true),
        What::Broadcaster(options) => broadcaster::serve(&options).map(|()| true),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
