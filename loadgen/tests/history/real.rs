//! The real broker, in a process of its own. `cargo test --workspace` builds it; where only this package is tested and it is
//! missing, it is built here.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::mini::File;

/// A running broker with two shards. Dropping it kills the process.
pub(crate) struct Broker {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    _config: File,
}

impl Broker {
    /// Starts one with these topic rules.
    pub(crate) fn start(rules: &str) -> Self {
        let config = File::with("toml", rules);
        let mut child = Command::new(program())
            .args(["--config", config.path(), "--listen", "127.0.0.1:0", "--admin-listen", "off", "--shards", "2"])
            .args(["--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the broker names no address: {:?}", child.wait());
            if let Some(address) = line.split([' ', '/', ',']).find_map(|word| word.parse().ok()) {
                break address;
            }
        };
        // Nobody reads further lines; the pipe must not fill up.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address, _config: config }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The broker's program, which lies beside the load generator's.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_BIN_EXE_ringyard-loadgen")).with_file_name("ringyard");
        if !program.exists() {
            let folder = program.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap();
            let profile = if folder == "debug" { "dev" } else { folder };
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--package", "ringyard-broker", "--bin", "ringyard", "--profile", profile])
                .status()
                .unwrap();
            assert!(built.success() && program.exists(), "{} cannot be built", program.display());
        }
        program
    })
}
