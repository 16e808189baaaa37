//! The pairs in force: chosen by the name that a client asks for, and replaced one by one when their files change.
//!
//! Each table is judged alone. One whose files are bad keeps the pair that it had, with its names; one that never had a
//! pair has none until its files are good. At least one pair is always in force.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::tls::TlsTable;
use crate::tls::certificates::{self, Fault, Pair, lower};

/// See the module's head.
#[derive(Debug)]
pub(super) struct InForce(ArcSwap<Tables>);

/// What became of the tables at the last look.
#[derive(Debug)]
struct Tables {
    pairs: Vec<Pair>,
    refused: Vec<Refused>,
}

/// A table whose files are bad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// `cert` of the table.
    pub file: PathBuf,
    /// What is wrong.
    pub fault: Fault,
    /// Whether the pair that the table had before is still in force.
    pub is_kept: bool,
}

/// What a look at the files has changed.
#[derive(Default, Debug)]
pub struct Change {
    /// Pairs that are in force from now on.
    pub taken: Vec<Pair>,
    /// Tables that are bad, and were not, or not in that way.
    pub refused: Vec<Refused>,
    /// `cert` of the tables that were bad and are good.
    pub mended: Vec<PathBuf>,
}

impl ResolvesServerCert for InForce {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        choose(&self.0.load().pairs, hello.server_name())
    }
}

impl InForce {
    /// All of them are good.
    pub(super) fn new(pairs: Vec<Pair>) -> Self {
        Self(ArcSwap::from_pointee(Tables { pairs, refused: Vec::new() }))
    }

    /// Reads the files of `tables`, and puts those pairs in force that are good.
    pub(super) fn read_again(&self, tables: &[TlsTable], provider: &CryptoProvider, now_s: u64) -> Change {
        let old = self.0.load();
        let (mut pairs, mut refused, mut change) = (Vec::new(), Vec::new(), Change::default());
        for table in tables {
            match certificates::read(table, provider, now_s) {
                Ok(pair) => {
                    if !old.pairs.iter().any(|old| old.is_same(&pair)) {
                        change.taken.push(pair.clone());
                    }
                    pairs.push(pair);
                }
                Err(fault) => {
                    let kept = before(&old.pairs, table);
                    refused.push(Refused { file: table.cert.clone(), fault, is_kept: kept.is_some() });
                    pairs.extend(kept.cloned());
                }
            }
        }
        if pairs.is_empty() {
            pairs.clone_from(&old.pairs);
        }
        change.refused = refused.iter().filter(|now| !old.refused.contains(now)).cloned().collect();
        let is_good = |file: &PathBuf| {
            tables.iter().any(|table| table.cert == *file) && !refused.iter().any(|bad| bad.file == *file)
        };
        change.mended = old.refused.iter().map(|bad| bad.file.clone()).filter(is_good).collect();
        self.0.store(Arc::new(Tables { pairs, refused }));
        change
    }

    /// Files of the certificates in force, each once, and when each ends, in seconds since 1970.
    pub(super) fn expiries(&self) -> Vec<(String, u64)> {
        let tables = self.0.load();
        let pairs = first_of_each(&tables.pairs, |pair| &pair.file);
        pairs.map(|pair| (pair.file.display().to_string(), pair.expires_s)).collect()
    }

    /// Tables whose files were bad at the last look, one for each file.
    pub(super) fn refused(&self) -> Vec<Refused> {
        first_of_each(&self.0.load().refused, |bad| &bad.file).cloned().collect()
    }
}

/// The first item of each file.
fn first_of_each<T>(items: &[T], file: fn(&T) -> &PathBuf) -> impl Iterator<Item = &T> {
    let is_new = move |at: usize, item: &T| !items[..at].iter().any(|earlier| file(earlier) == file(item));
    items.iter().enumerate().filter(move |(at, item)| is_new(*at, item)).map(|(_, item)| item)
}

/// The pair that a table had: the one of its file, with its names if there are several, else the one of its names.
fn before<'a>(old: &'a [Pair], table: &TlsTable) -> Option<&'a Pair> {
    let names = lower(&table.names);
    let of_file = || old.iter().filter(|pair| pair.file == table.cert);
    let exact = of_file().find(|pair| pair.names == names).or_else(|| of_file().next());
    exact.or_else(|| old.iter().find(|pair| !names.is_empty() && pair.names == names))
}

/// The pair for a client that asks for `name`: one that names it, else one with a wildcard for it, else the first.
fn choose(pairs: &[Pair], name: Option<&str>) -> Option<Arc<CertifiedKey>> {
    let chosen = name.and_then(|name| {
        let name = name.to_ascii_lowercase();
        // A wildcard stands for one label (RFC 9525 §6.3).
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let covers = |pattern: &String| pattern.strip_prefix("*.").is_some_and(|suffix| Some(suffix) == parent);
        let exact = pairs.iter().find(|pair| pair.names.contains(&name));
        exact.or_else(|| pairs.iter().find(|pair| pair.names.iter().any(covers)))
    });
    chosen.or(pairs.first()).map(|pair| Arc::clone(&pair.key))
}
