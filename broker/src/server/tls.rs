//! TLS at start and while it runs: the certificates in force, and a look at their files every 30 seconds and with SIGHUP.
//!
//! A bad pair changes nothing: the one in force stays, and the log says why, once for each cause.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;
use tracing::{error, info};

use crate::config::Config;
use crate::config::tls::TlsTable;
use crate::shard::shared::SharedState;
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
    /// What the last look complained of.
    complaint: Rc<RefCell<String>>,
}

impl Watch {
    pub(crate) fn new(shared: &SharedState, tables: Vec<TlsTable>) -> Self {
        let complaint = Rc::default();
        Self { server: shared.tls.clone(), tables: Rc::new(RefCell::new(tables)), complaint }
    }

    /// Other tables are in force from now on, if their pairs are good; the files are looked at in any case.
    pub(crate) fn take(&self, tables: Vec<TlsTable>) {
        if let Some(server) = &self.server
            && !tables.is_empty()
        {
            let is_good = self.look_at(server, &tables);
            if is_good {
                *self.tables.borrow_mut() = tables;
            }
        }
    }

    /// Looks again and again. Never ends.
    pub(crate) async fn run(self) {
        let Some(server) = &self.server else { return };
        loop {
            sleep(LOOK_EVERY).await;
            self.look_at(server, &self.tables.borrow());
        }
    }

    fn look_at(&self, server: &Server, tables: &[TlsTable]) -> bool {
        match server.read_again(tables) {
            Ok(has_changed) => {
                self.complaint.borrow_mut().clear();
                if has_changed {
                    for (file, expires_s) in server.expiries() {
                        info!(file, days_left = days_left(expires_s), "a certificate is in force for new connections");
                    }
                }
                true
            }
            Err(why) => {
                if self.complaint.replace(why.clone()) != why {
                    error!("the certificates that were in force stay: {why}");
                }
                false
            }
        }
    }
}

fn days_left(expires_s: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    expires_s.saturating_sub(now) / 86_400
}
