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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::pin;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tokio::time::timeout;

    use super::*;
    use crate::config::tls::KeyExchange;

    /// A pair of this name whose certificate ends with a year.
    fn write(folder: &Path, name: &str, last_year: i32) -> TlsTable {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(last_year + 1, 1, 1);
        let (cert_file, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert_file, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        TlsTable { source: "a.toml:1".to_owned(), cert: cert_file, key: key_file, names: Vec::new() }
    }

    /// The years with which the certificates in force end.
    fn years(server: &Server) -> Vec<u64> {
        server.expiries().into_iter().map(|(_, expires_s)| 1969 + expires_s / (365 * 86_400)).collect()
    }

    /// Without a signal, again and again, and those files that the tables name by then.
    #[tokio::test(start_paused = true)]
    async fn files_are_looked_at_every_half_minute() {
        let folder = tempfile::tempdir().unwrap();
        let table = write(folder.path(), "a", 2040);
        let server = Arc::new(Server::new(std::slice::from_ref(&table), false, KeyExchange::Classic).unwrap());
        let tables = Rc::new(RefCell::new(vec![table]));
        let watch = Watch { server: Some(Arc::clone(&server)), tables };
        let mut looking = pin!(watch.clone().run());
        for year in [2041, 2042, 2043] {
            write(folder.path(), "a", year);
            assert!(timeout(Duration::from_secs(28), &mut looking).await.is_err(), "it never ends");
            assert_eq!(years(&server), [year - 1].map(|year| year as u64), "before it is time");
            assert!(timeout(Duration::from_secs(2), &mut looking).await.is_err(), "it never ends");
            assert_eq!(years(&server), [year as u64], "after half a minute");
        }
        watch.take(vec![write(folder.path(), "b", 2050)]);
        assert_eq!(years(&server), [2050], "other tables are looked at at once");
        write(folder.path(), "a", 2044);
        write(folder.path(), "b", 2051);
        assert!(timeout(Duration::from_secs(30), &mut looking).await.is_err(), "it never ends");
        assert_eq!(years(&server), [2051], "and they are those that are looked at from then on");
    }
}
