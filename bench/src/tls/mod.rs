//! What the TLS figures need beside the broker.
//!
//! | file | what it is |
//! | --- | --- |
//! | `certificate` | a certificate made for one run, and the broker's options for it |
//! | `bare` | rustls's server in memory: processor time of a handshake, memory of a connection |
//! | `front` | nginx with TLS in front of a broker without |

mod bare;
mod certificate;
mod front;

pub(crate) use bare::{FloorOptions, floor, handshake_bytes, handshake_ns, idle_bytes};
pub(crate) use certificate::Certificate;
pub(crate) use front::Front;

use std::net::TcpListener;

use anyhow::Result;

/// A port of 127.0.0.1 that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
