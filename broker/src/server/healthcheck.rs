//! `ringyard healthcheck`: asks a running broker for `/healthz`, for container engines whose image has no shell and
//! no curl. One request over a blocking socket, with one deadline for all of it.
//!
//! Not responsible for what healthy means: the broker answers that, with 200 or something else.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::config::url::Url;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Enough of an answer for its first line.
const ANSWER_BYTES: usize = 256;

/// Asks at each of `urls` until one says that the broker is healthy, and says so.
///
/// # Errors
/// Why none did, in one line.
pub fn check(urls: &[Url]) -> Result<String, String> {
    let end = Instant::now() + PATIENCE;
    let mut failures = Vec::new();
    for (at, url) in urls.iter().enumerate() {
        // One that is silent leaves time for those behind it.
        let now = Instant::now();
        let share = end.saturating_duration_since(now) / (urls.len() - at) as u32;
        match ask(url, now + share) {
            Ok(200) => return Ok(format!("healthy: {url} answers 200")),
            Ok(status) => failures.push(format!("{url} answers {status}")),
            Err(error) => failures.push(format!("{url}: {error}")),
        }
    }
    Err(format!("not healthy: {}", failures.join("; ")))
}

/// The status of the answer.
fn ask(url: &Url, deadline: Instant) -> io::Result<u16> {
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        left => Ok(left),
    };
    if url.host.ends_with(":0") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the kernel chose the port: give it with --url"));
    }
    let mut connected = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in url.host.to_socket_addrs()? {
        connected = TcpStream::connect_timeout(&address, left()?);
        if connected.is_ok() {
            break;
        }
    }
    let mut stream = connected?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.host_field());
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; ANSWER_BYTES];
    while answer.len() < ANSWER_BYTES && !answer.contains(&b'\n') {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&piece[..len]),
            // Asked again, `left` tells whether there is time.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    status(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers there speaks no HTTP"))
}

/// The status in an answer's first line (RFC 9112 §4).
fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\n').next()?).ok()?;
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers one request with `answer`, in pieces.
    fn server(answer: &'static [&'static str]) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::health(listener.local_addr().unwrap()).remove(0);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let len = stream.read(&mut request).unwrap();
            assert!(request[..len].starts_with(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"));
            for piece in answer {
                stream.write_all(piece.as_bytes()).unwrap();
            }
            if answer.is_empty() {
                // Silent until the other side goes.
                let _ = stream.read(&mut request);
            }
        });
        url
    }

    fn nobody() -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Url::health(listener.local_addr().unwrap()).remove(0)
    }

    #[test]
    fn a_port_that_the_kernel_chose_is_named() {
        assert!(check(&[Url::parse("http://127.0.0.1:0").unwrap()]).unwrap_err().contains("--url"));
    }

    #[test]
    fn one_that_is_silent_leaves_time_for_the_next() {
        let (silent, good) = (server(&[]), server(&["HTTP/1.1 200 OK\r\n\r\n"]));
        assert!(check(&[silent, good]).is_ok());
    }

    #[test]
    fn only_200_is_healthy() {
        assert!(check(&[server(&["HTTP/1.1 2", "00 OK\r\n\r\n{}"])]).unwrap().contains("answers 200"));
        assert!(check(&[server(&["HTTP/1.1 503 Service Unavailable\r\n\r\n"])]).unwrap_err().contains("answers 503"));
        assert!(check(&[server(&["SSH-2.0-x\r\n"])]).unwrap_err().contains("no HTTP"));
        assert!(check(&[nobody()]).unwrap_err().contains("refused"));
    }

    #[test]
    fn the_second_address_is_asked_when_the_first_is_silent() {
        let second = server(&["HTTP/1.1 200 OK\r\n\r\n"]);
        assert!(check(&[nobody(), second.clone()]).unwrap().contains(&second.host));
    }

    #[test]
    fn a_broker_that_hangs_is_not_healthy() {
        let begun = Instant::now();
        assert!(check(&[server(&[])]).unwrap_err().contains("no answer in time"));
        assert!(begun.elapsed() < PATIENCE * 2);
    }
}
