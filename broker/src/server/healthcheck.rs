//! `ringyard healthcheck`: asks a running broker for `/healthz`, for container engines whose image has no shell and
//! no curl. One request over a blocking socket, with one deadline for all of it.
//!
//! Not responsible for what healthy means: the broker answers that, with 200 or something else.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Enough of an answer for its first line.
const ANSWER_BYTES: usize = 256;

/// Where to ask: `http://host:port/path`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// With its port, as the request names it.
    host: String,
    path: String,
}

impl Url {
    /// `/healthz` of the broker that listens at `address`, seen from this machine, in the order to ask at. For every
    /// address of both families there are two: on either loopback it may be that nothing can be reached.
    #[must_use]
    pub fn health(address: SocketAddr) -> Vec<Self> {
        let first = from_here(address);
        let other = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port());
        let is_both = address.is_ipv6() && address.ip().is_unspecified();
        let all = [Some(first), is_both.then_some(other)];
        all.into_iter().flatten().map(|at| Self { host: at.to_string(), path: "/healthz".to_owned() }).collect()
    }

    /// The field Host: the address without its zone, which is this machine's affair (RFC 6874 §1).
    fn host_field(&self) -> String {
        match self.host.parse() {
            Ok(SocketAddr::V6(address)) => format!("[{}]:{}", address.ip(), address.port()),
            _ => self.host.clone(),
        }
    }

    /// Reads `http://host[:port][/path]`; without a path it is `/healthz`, without a port 80.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sentence = || "a URL is http://host:port, such as http://127.0.0.1:8081".to_owned();
        let rest = text.trim().strip_prefix("http://").ok_or_else(sentence)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let authority = host.parse::<axum::http::uri::Authority>().map_err(|_| sentence())?;
        let port = authority.as_str().strip_prefix(authority.host()).ok_or_else(sentence)?;
        if authority.host().is_empty() || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(sentence());
        }
        let host = match (port, authority.port_u16()) {
            ("", _) => format!("{host}:80"),
            (_, Some(_)) => host.to_owned(),
            (_, None) => return Err(sentence()),
        };
        Ok(Self { host, path: if path.len() > 1 { path } else { "/healthz" }.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

/// Where this machine reaches what listens at `address`: an unspecified address is no destination. `[::]` is both
/// families, of which the loopback of IPv4 is there in a network of IPv6 only too.
#[must_use]
pub fn from_here(address: SocketAddr) -> SocketAddr {
    if address.ip().to_canonical().is_unspecified() {
        return (Ipv4Addr::LOCALHOST, address.port()).into();
    }
    address
}

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
    fn urls() {
        for (text, expected) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081/healthz"),
            ("http://localhost", "http://localhost:80/healthz"),
            ("http://[::1]:80/readyz", "http://[::1]:80/readyz"),
            ("http://a:1/", "http://a:1/healthz"),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "https://a", "a:1", "http://", "http://:1", "http://a:b", "http://a:99999", "http://a/ b"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        for (address, expected) in [
            ("0.0.0.0:8", &["127.0.0.1:8"][..]),
            ("[::]:8", &["127.0.0.1:8", "[::1]:8"]),
            ("[::1]:8", &["[::1]:8"]),
            ("10.0.0.1:8", &["10.0.0.1:8"]),
            ("[::ffff:10.0.0.1]:8", &["[::ffff:10.0.0.1]:8"]),
        ] {
            let hosts: Vec<_> = Url::health(address.parse().unwrap()).into_iter().map(|url| url.host).collect();
            assert_eq!(hosts, expected, "{address}");
        }
    }

    #[test]
    fn a_zone_is_not_told_to_the_broker() {
        let of = |address: &str| Url::health(address.parse().unwrap()).remove(0);
        assert_eq!(of("[fe80::1%2]:8").host_field(), "[fe80::1]:8");
        assert_eq!(of("[fe80::1%2]:8").host, "[fe80::1%2]:8");
        assert_eq!(of("127.0.0.1:8").host_field(), "127.0.0.1:8");
        assert_eq!(Url::parse("http://name:8").unwrap().host_field(), "name:8");
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
