//! The `[[tls]]` tables of the file: certificates for `--tls-listen`.
//!
//! Not responsible for what is in the files that they name: `tls::certificates` reads those.

use std::path::PathBuf;

use crate::config::provenance::Section;
use crate::config::schema::DefaultValue::Otherwise;
use crate::config::schema::Kind::{List, Path, ServerName};
use crate::config::schema::{Group, Key, Table, key};

/// Most tables.
const TABLES_MAX: usize = 1000;

/// The schema of one table.
pub(super) const TLS: Table = Table {
    name: "tls",
    is_array: true,
    help: "Certificates for --tls-listen. Clients that ask for one of a table's names get its certificate, all others \
           that of the first table. The files are looked at every 30 seconds and with SIGHUP",
    groups: &[Group { heading: "", keys: KEYS }],
    tables: &[],
};

const KEYS: &[Key] = &[
    key("cert", Path, Otherwise("none, it is required", "/etc/ringyard/tls/fullchain.pem"), "0.1")
        .help("PEM file with the certificate, and behind it those that lead to its authority"),
    key("key", Path, Otherwise("none, it is required", "/etc/ringyard/tls/privkey.pem"), "0.1")
        .help("PEM file with its private key; ECDSA P-256 is recommended, a handshake costs a third of RSA's"),
    key("names", List(&ServerName), Otherwise("none", "broker.example.org"), "0.1")
        .help("Host names that clients ask for; *.example.org is every name one level below"),
];

/// One table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsTable {
    /// Where the table begins: `FILE:LINE`.
    pub source: String,
    /// `cert`.
    pub cert: PathBuf,
    /// `key`.
    pub key: PathBuf,
    /// `names`.
    pub names: Vec<String>,
}

/// The value of `--tls-key-exchange`: what is preferred of what clients offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyExchange {
    /// X25519 with ML-KEM-768, then the others.
    Hybrid,
    /// X25519, P-256, P-384.
    Classic,
}

/// The tables of a file, with a sentence for everything that is wrong with one.
pub(super) fn read(settings: &Section) -> (Vec<TlsTable>, Vec<String>) {
    let sections: Vec<_> = settings.tables.iter().filter(|section| section.table.name == TLS.name).collect();
    let (mut tables, mut wrong) = (Vec::new(), Vec::new());
    if let Some(section) = sections.get(TABLES_MAX) {
        wrong.push(format!("{}: there are {} [[tls]] tables: at most {TABLES_MAX}", section.source, sections.len()));
    }
    for section in sections {
        let file = |name: &str| {
            let file = section.find::<String>(name).map(PathBuf::from);
            file.ok_or_else(|| format!("{}: the table [[tls]] needs {name}: a PEM file", section.source))
        };
        match (file("cert"), file("key")) {
            (Ok(cert), Ok(key)) => {
                tables.push(TlsTable { source: section.source.to_string(), cert, key, names: section.all("names") });
            }
            (cert, key) => wrong.extend(cert.err().into_iter().chain(key.err())),
        }
    }
    (tables, wrong)
}
