//! A certificate for 127.0.0.1 and localhost, made when it is needed: ECDSA P-256, its own authority.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;

/// Its files, which are removed when it is dropped.
pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)?.self_signed(&key)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("cert.pem"), certificate.pem())?;
        fs::write(folder.path().join("key.pem"), key.serialize_pem())?;
        let made = Self { folder };
        fs::write(made.folder.path().join("broker.toml"), made.tables()?)?;
        Ok(made)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The certificate, which is also the authority that clients have to trust.
    pub(crate) fn cert(&self) -> Result<String> {
        self.file("cert.pem")
    }

    pub(crate) fn key(&self) -> Result<String> {
        self.file("key.pem")
    }

    /// The broker's settings for it.
    pub(crate) fn tables(&self) -> Result<String> {
        Ok(format!("[[tls]]\ncert = {:?}\nkey = {:?}\n", self.cert()?, self.key()?))
    }

    /// A configuration file of the broker with this certificate.
    pub(crate) fn configuration(&self) -> Result<String> {
        self.file("broker.toml")
    }

    fn file(&self, name: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        Ok(path.to_str().context("a path in UTF-8")?.to_owned())
    }
}
