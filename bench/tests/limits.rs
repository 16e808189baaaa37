//! What `bench scale` raises it puts back, however it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);
const FILES: [(&str, &str, &str); 3] = [
    ("sys/net/ipv4/tcp_mem", "100 200 300", "4000 6000 8000"),
    ("sys/fs/file-max", "1000", "104000"),
    ("sys/net/netfilter/nf_conntrack_max", "262", "103000"),
];

/// `bench scale` with limits in a folder, and a broker that is this script.
fn scale(folder: &Path, broker: &str) -> Child {
    for (name, before, _) in FILES {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, before).unwrap();
    }
    let script = folder.join("broker");
    fs::write(&script, format!("#!/bin/sh\n{broker}\n")).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["scale", "--clients", "1000,2000", "--proc"]).arg(folder).arg("--broker").arg(script);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn now(folder: &Path) -> Vec<String> {
    FILES.iter().map(|(name, ..)| fs::read_to_string(folder.join(name)).unwrap()).collect()
}

fn wait_for(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < PATIENCE, "it takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_signal_puts_the_limits_back() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().unwrap();
        // It says nothing, so that `scale` waits for its address.
        let mut scale = scale(folder.path(), "exec sleep 60");
        wait_for(|| now(folder.path()) == FILES.map(|(.., raised)| raised));
        kill_process(Pid::from_raw(scale.id().try_into().unwrap()).unwrap(), signal).unwrap();
        assert_eq!(scale.wait().unwrap().code(), Some(130), "{signal:?}");
        assert_eq!(now(folder.path()), FILES.map(|(_, before, _)| before), "{signal:?}");
    }
}

#[test]
fn an_error_puts_the_limits_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut scale = scale(folder.path(), "exit 1");
    assert_eq!(scale.wait().unwrap().code(), Some(2));
    assert_eq!(now(folder.path()), FILES.map(|(_, before, _)| before));
}
