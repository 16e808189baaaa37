//! TLS at start and while it runs: the certificates in force, and a look at their files every 30 seconds and with SIGHUP.
//!
//! Each pair is judged alone: instead of a bad one that which was in force stays, and the log says why, once for each cause.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;
use tracing::{error, info};

use crate::config::Config;
use crate::config::tls::TlsTable;
use crate::shard::shared::SharedState;
use crate::tls::in_force::{Change, Refused};
use crate::tls::server::Server;

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What connections of `--tls-listen` share, if there is such a port.
///
/// # Errors
/// A sentence about the first pair that is not good.
pub(crate) fn server(config: &Config) -> Result<Option<Arc<Server>>, String> {
    let Some(address) = config.tls_listen else { return Ok(None) };
    let server = Server::new(&config.tls_tables, config.tls_only_13, config.tls_exchange);
    server.map(|server| Some(Arc::new(server))).map_err(|why| format!("cannot serve --tls-listen {address}: {why}"))
}

/// Looks at the files of the tables.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    server: Option<Arc<Server>>,
    tables: Rc<RefCell<Vec<TlsTable>>>,
}

impl Watch {
    pub(crate) fn new(shared: &SharedState, tables: Vec<TlsTable>) -> Self {
        Self { server: shared.tls.clone(), tables: Rc::new(RefCell::new(tables)) }
    }

    /// Other tables hold from now on; their files are looked at.
    pub(crate) fn take(&self, tables: Vec<TlsTable>) {
        if let Some(server) = &self.server
            && !tables.is_empty()
        {
            look_at(server, &tables);
            *self.tables.borrow_mut() = tables;
        }
    }

    /// Looks again and again. Never ends.
    pub(crate) async fn run(self) {
        let Some(server) = &self.server else { return };
        loop {
            sleep(LOOK_EVERY).await;
            look_at(server, &self.tables.borrow());
        }
    }
}

fn look_at(server: &Server, tables: &[TlsTable]) {
    let Change { taken, refused, mended } = server.read_again(tables);
    for pair in taken {
        let (file, days_left) = (pair.file.display(), days_left(pair.expires_s));
        info!(%file, days_left, "a certificate is in force for new connections");
    }
    for Refused { file, fault, is_kept } in refused {
        let (file, cause, sentence) = (file.display(), fault.cause.name(), fault.sentence);
        if is_kept {
            error!(%file, cause, "the certificate that was in force stays: {sentence}");
        } else {
            error!(%file, cause, "there is no certificate for this table yet: {sentence}");
        }
    }
    for file in mended {
        info!(file = %file.display(), "the files of this [[tls]] table are good again");
    }
}

fn days_left(expires_s: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    expires_s.saturating_sub(now) / 86_400
}
