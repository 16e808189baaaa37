//! The message to a service manager, where one listens (`$NOTIFY_SOCKET`, sd_notify(3)): that the broker is ready, and that
//! it is the main process of its service now, for it may be the successor of another one.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;

use tracing::warn;

/// Clients are served.
pub(crate) fn ready() {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&socket, &format!("READY=1\nMAINPID={}\n", process::id())) {
        warn!("the service manager does not get the message that the broker is ready: {error}");
    }
}

fn send(name: &OsStr, text: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_it_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("ringyard-test/{}", process::id());
        let (at_path, abstract_name) = (path.clone().into_os_string(), format!("@{name}"));
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), at_path.as_os_str()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                OsStr::new(&abstract_name),
            ),
        ];
        for (manager, name) in managers {
            send(name, "READY=1\n").unwrap();
            let mut heard = [0; 32];
            let len = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], b"READY=1\n");
        }
        assert!(send(OsStr::new("/nowhere/notify"), "READY=1").is_err());
    }
}
