//! What goes over the Unix socket between two brokers once one has taken over from the other: the users that the successor
//! revokes, for as long as the predecessor drains its clients.
//!
//! The successor writes one line for each change, with everybody who is revoked ([`Revoked`]), and one at first. So whatever is
//! lost of several changes in a row, the last line says it all. Either end is closed with its process: a predecessor that
//! does not listen, because it is of an earlier version, has closed it at once. With several brokers in a row each passes on to
//! the one before it what it hears of the one behind it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::WriteHalf;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::access::authority::Authority;
use crate::access::revocations::Revoked;
use crate::server::takeover::{REVOKED_BYTES_MAX, line, refuse};

/// How long after a line the next one may come: changes in between share it.
const PAUSE: Duration = Duration::from_millis(50);

/// One end of it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) socket: UnixStream,
}

impl Link {
    /// The successor's side: tells the predecessor who is revoked, until that one has ended.
    pub(crate) async fn tell(mut self, authority: Arc<Authority>) {
        let (mut end, socket) = self.socket.split();
        tokio::select! {
            // It says nothing: only its end comes.
            _ = end.read_u8() => {}
            // Whoever does not listen has ended as well, or is of an earlier version.
            _ = tell_all(socket, &authority) => {}
        }
    }

    /// The predecessor's side: refuses whom the successor refuses, until that one has ended. Shards that drain do not sleep for
    /// long, and look whether the authority has changed in every turn.
    pub(crate) async fn heed(self, authority: Arc<Authority>) {
        let mut lines = BufReader::new(self.socket);
        loop {
            let mut text = Vec::new();
            match (&mut lines).take(REVOKED_BYTES_MAX).read_until(b'\n', &mut text).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            match serde_json::from_slice::<Revoked>(&text) {
                Ok(revoked) => {
                    refuse(&authority, &revoked);
                    info!(revoked = revoked.len(), "the successor has revoked users: their connections end here too");
                }
                Err(error) => return warn!("the successor says something else than who is revoked: {error}"),
            }
        }
    }
}

/// Says who is revoked at first, if anybody is, and after every change.
async fn tell_all(mut socket: WriteHalf<'_>, authority: &Authority) -> io::Result<()> {
    if authority.revoked_users() == 0 {
        authority.revocations_changed().await;
    }
    loop {
        socket.write_all(&line(&authority.revoked())?).await?;
        sleep(PAUSE).await;
        authority.revocations_changed().await;
    }
}
