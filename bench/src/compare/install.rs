//! Installs the brokers that come as packages: Debian's by apt-get, node's by npm. Only when asked to.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::peer::{Peer, Words, find};

/// Installs what is missing, and nothing else.
pub(super) fn run(peers: &[Peer], words: &Words) -> Result<()> {
    let missing: Vec<_> = peers.iter().filter(|peer| peer.missing(words).is_some()).collect();
    let packages: Vec<_> = missing.iter().flat_map(|peer| peer.packages.iter().map(String::as_str)).collect();
    if !packages.is_empty() {
        apt_get(&["update", "-q"])?;
        apt_get(&[&["install", "-qy", "--no-install-recommends"][..], &packages].concat())?;
        println!("Debian starts a service for some of them; a comparison does not need those services.");
    }
    for peer in missing {
        if let Some(folder) = &peer.npm {
            let folder = peer.words(words).put_into(folder);
            command("npm", &["ci", "--no-audit", "--no-fund", "--prefix", &folder])?;
        }
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return command("env", &[&["DEBIAN_FRONTEND=noninteractive", "apt-get"], arguments].concat());
    }
    command("sudo", &[&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"], arguments].concat())
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let path = find(program).with_context(|| format!("there is no {program}, which installs peers"))?;
    let status = Command::new(path).args(arguments).status()?;
    ensure!(status.success(), "{program} {} failed: {status}", arguments.join(" "));
    Ok(())
}
