//! nginx with TLS in front of a broker without: what people do with a broker that has no TLS.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Certificate, free_port};
use crate::process::bound;

/// Debian's package puts it there.
const PROGRAM: &str = "/usr/sbin/nginx";
const CONFIGURATION: &str = include_str!("../../peers/nginx-tls.conf");
/// From the start until it listens.
const READY: Duration = Duration::from_secs(10);

/// It is killed when it is dropped.
pub(crate) struct Front {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Front {
    /// Whether nginx is installed.
    pub(crate) fn is_there() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// In front of `broker`, on this core, with the files of `certificate`, beside which it keeps its own.
    pub(crate) fn start(broker: SocketAddr, certificate: &Certificate, core: Option<u32>) -> Result<Self> {
        let port = free_port()?;
        let folder = certificate.folder().to_str().context("a path in UTF-8")?;
        let (descriptors, _) = ring::limits::raise_descriptors();
        let words = [
            ("{port}", port.to_string()),
            ("{dir}", folder.to_owned()),
            ("{cert}", certificate.cert()?),
            ("{key}", certificate.key()?),
            ("{broker}", broker.to_string()),
            ("{descriptors}", descriptors.to_string()),
        ];
        let text = words.iter().fold(CONFIGURATION.to_owned(), |text, (word, value)| text.replace(word, value));
        let path = certificate.folder().join("nginx.conf");
        fs::write(&path, text)?;
        let child = bound(Path::new(PROGRAM), core)
            .arg("-c")
            .arg(&path)
            .args(["-p", folder, "-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting nginx")?;
        let mut front = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        let begun = Instant::now();
        while TcpStream::connect(front.address).is_err() {
            if let Some(status) = front.child.try_wait()? {
                bail!("nginx ended: {status}");
            }
            if begun.elapsed() > READY {
                bail!("nginx does not listen after {READY:?}");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(front)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
