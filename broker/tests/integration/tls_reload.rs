//! Which certificate is served for which name while the files of `[[tls]]` change, by handshakes with real sockets.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::sync::Arc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use crate::broker::{Broker, command};
use crate::http::PATIENCE;
use crate::tls::{Tls, free_address, hang_up, metric, open_on, trusting, until};

/// The names of the tables, in their order.
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];

/// A broker with a table for each name.
struct Served {
    broker: Broker,
    address: SocketAddr,
    directory: TempDir,
    said: JoinHandle<String>,
}

/// A certificate for `name` and its key, as PEM, and what clients see of it.
fn pair(name: &str, last_year: i32) -> (String, String, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(last_year, 1, 1);
    let cert = params.self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem(), cert.der().clone())
}

fn all_of(mut stderr: ChildStderr) -> String {
    let mut text = String::new();
    stderr.read_to_string(&mut text).unwrap();
    text
}

fn serve() -> (Served, [CertificateDer<'static>; 3]) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, kind: &str| directory.path().join(format!("{name}.{kind}"));
    let mut tables = String::new();
    let certs = NAMES.map(|name| {
        let (cert, key) = (file(name, "pem"), file(name, "key"));
        tables.push_str(&format!("[[tls]]\ncert = {cert:?}\nkey = {key:?}\nnames = ['{name}']\n"));
        renew(directory.path(), name)
    });
    let settings = directory.path().join("ringyard.toml");
    fs::write(&settings, tables).unwrap();
    let (address, settings) = (free_address(), settings.display().to_string());
    let listen = address.to_string();
    let mut child = command(&["--config", &settings, "--tls-listen", &listen, "--log-level", "info"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let said = spawn(move || all_of(stderr));
    (Served { broker: Broker::of(child), address, directory, said }, certs)
}

/// Writes a fresh pair, and returns its certificate.
fn renew(directory: &Path, name: &str) -> CertificateDer<'static> {
    let (cert, key, der) = pair(name, 2100);
    fs::write(directory.join(format!("{name}.pem")), cert).unwrap();
    fs::write(directory.join(format!("{name}.key")), key).unwrap();
    der
}

impl Served {
    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{kind}"))
    }

    /// A full handshake with a client that trusts `cert` and asks for `name`.
    fn handshake(&self, name: &str, cert: &CertificateDer<'static>) -> Result<Tls, std::io::Error> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let config: Arc<ClientConfig> = trusting(cert.clone());
        let mut connection = ClientConnection::new(config, name.to_owned().try_into().unwrap()).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    /// Whether that is the certificate for `name` now.
    fn serves(&self, name: &str, cert: &CertificateDer<'static>) -> bool {
        self.handshake(name, cert).is_ok_and(|tls| tls.conn.peer_certificates().unwrap()[0] == *cert)
    }

    fn refused(&self, name: &str, cause: &str) -> bool {
        let file = self.file(name, "pem");
        let sample = format!("ringyard_tls_certificate_refused{{file=\"{}\",cause=\"{cause}\"}}", file.display());
        metric(&self.broker, &sample) == Some(1.0)
    }
}

/// It still works, and has the certificate that it began with.
fn lives(open: &mut WebSocket<Tls>, cert: &CertificateDer<'static>, message: &str) {
    open.send(Message::text(message)).unwrap();
    assert_eq!(open.read().unwrap(), Message::text(message));
    assert_eq!(open.get_ref().conn.peer_certificates().unwrap()[0], *cert);
}

#[test]
fn a_bad_pair_keeps_its_certificate_and_the_good_ones_are_replaced() {
    let (served, [first, mut second, third]) = serve();
    let [a, b, c] = NAMES;
    let connect = |name: &str, cert: &CertificateDer<'static>, topic: &str| {
        open_on(served.handshake(name, cert).unwrap(), &format!("/bus/{topic}"))
    };
    let mut opened =
        vec![(connect(a, &first, "first"), first.clone()), (connect(b, &second, "second"), second.clone())];
    let (good_cert, good_key) = (served.file(a, "pem"), served.file(a, "key"));
    let (cert_before, key_before) = (fs::read(&good_cert).unwrap(), fs::read(&good_key).unwrap());
    let (other_cert, other_key, other) = pair(a, 2100);
    let (old_cert, old_key, _) = pair(a, 2001);

    let remove_key: &dyn Fn() = &|| fs::remove_file(&good_key).unwrap();
    let bad_pem: &dyn Fn() = &|| fs::write(&good_cert, "-----BEGIN CERTIFICATE-----\n!\n").unwrap();
    let mismatch: &dyn Fn() = &|| fs::write(&good_cert, &other_cert).unwrap();
    let expired: &dyn Fn() = &|| {
        fs::write(&good_cert, &old_cert).unwrap();
        fs::write(&good_key, &old_key).unwrap();
    };
    let cases = [("malformed", bad_pem), ("mismatch", mismatch), ("expired", expired), ("unreadable", remove_key)];
    for (round, (cause, break_it)) in cases.into_iter().enumerate() {
        break_it();
        second = renew(served.directory.path(), b);
        hang_up(&served.broker);
        // Both were judged at one look: once the good one is served, the bad one has been refused.
        until("the renewed certificate is served", || served.serves(b, &second));
        assert!(served.serves(a, &first), "{cause}: the bad pair keeps its certificate");
        assert!(served.serves(c, &third), "{cause}: the third table is as it was");
        assert!(served.refused(a, cause), "{cause}");
        // The same once more is not complained of again. It has been looked at when the next certificate is served.
        second = renew(served.directory.path(), b);
        hang_up(&served.broker);
        until("the next certificate is served", || served.serves(b, &second));
        opened.push((connect(b, &second, &format!("round-{round}")), second.clone()));
        opened.iter_mut().for_each(|(open, cert)| lives(open, cert, cause));
        fs::write(&good_cert, &cert_before).unwrap();
        fs::write(&good_key, &key_before).unwrap();
    }

    // Good again, with another certificate.
    fs::write(&good_cert, &other_cert).unwrap();
    fs::write(&good_key, &other_key).unwrap();
    hang_up(&served.broker);
    until("the mended pair is served", || served.serves(a, &other));
    assert!(!served.serves(a, &first) && served.serves(b, &second) && served.serves(c, &third));
    assert!(!served.refused(a, "unreadable"));
    opened.iter_mut().for_each(|(open, cert)| lives(open, cert, "after all"));

    drop(opened);
    let Served { mut broker, said, directory, .. } = served;
    broker.child.kill().unwrap();
    let said = said.join().unwrap();
    let causes = ["malformed", "mismatch", "expired", "unreadable"];
    for cause in causes {
        let lines: Vec<_> = said.lines().filter(|line| line.contains(&format!("cause=\"{cause}\""))).collect();
        assert_eq!(lines.len(), 1, "{cause}: {said}");
        let file = directory.path().join(if cause == "unreadable" { "a.example.key" } else { "a.example.pem" });
        assert!(lines[0].contains(" ERROR ") && lines[0].contains(&*file.to_string_lossy()), "{}", lines[0]);
    }
    assert_eq!(said.matches("are good again").count(), 1, "{said}");
}

/// Nobody sends a signal: the files are looked at every 30 seconds.
#[test]
fn a_certificate_that_is_renewed_on_disk_is_served_within_half_a_minute() {
    const LOOK_EVERY: Duration = Duration::from_secs(30);
    let (served, [first, ..]) = serve();
    let [a, ..] = NAMES;
    assert!(served.serves(a, &first));
    let second = renew(served.directory.path(), a);
    let begin = Instant::now();
    while !served.serves(a, &second) {
        assert!(begin.elapsed() < LOOK_EVERY + PATIENCE, "the files were not looked at");
        sleep(Duration::from_millis(100));
    }
    assert!(!served.serves(a, &first));
}

/// In seconds since 1970, for each file that of the certificate in force.
#[test]
fn metrics_tell_when_each_certificate_ends() {
    const YEAR_2050: f64 = 2_524_608_000.0;
    const YEAR_2100: f64 = 4_102_444_800.0;
    let (served, [_, _, third]) = serve();
    let [a, b, c] = NAMES;
    let expires = |name: &str| {
        let file = served.file(name, "pem");
        metric(&served.broker, &format!("ringyard_tls_certificate_expires_seconds{{file=\"{}\"}}", file.display()))
    };
    assert_eq!([a, b, c].map(expires), [Some(YEAR_2100); 3]);
    let (cert, key, sooner) = pair(b, 2050);
    fs::write(served.file(b, "pem"), cert).unwrap();
    fs::write(served.file(b, "key"), key).unwrap();
    // One that is refused says nothing of the one in force.
    fs::write(served.file(c, "pem"), pair(c, 2001).0).unwrap();
    hang_up(&served.broker);
    until("the other certificate is served", || served.serves(b, &sooner));
    assert_eq!([a, b, c].map(expires), [Some(YEAR_2100), Some(YEAR_2050), Some(YEAR_2100)]);
    assert!(served.serves(c, &third));
}
