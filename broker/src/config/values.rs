//! Values: how a text becomes a number of bytes, a time, an address.
//!
//! Not responsible for ranges ([`Kind`](crate::config::schema::Kind)) nor for rules between settings
//! ([`rules`](crate::config::rules)). An error is the rest of a sentence that begins with the value and the name of its
//! setting. White space around a value is ignored, except a filter's.
//!
//! Units: sizes in bytes with an optional `k`, `m` or `g` (powers of 1024); durations with `ms`, `s`, `m` or `h`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use ipnet::IpNet;

use crate::config::Admin;

/// Longest duration that may be configured.
const DURATION_TOP: Duration = Duration::from_secs(1000 * 3600);
/// Most bytes that may be configured: sums of a few sizes fit into 64 bits.
pub(super) const SIZE_TOP: u64 = u64::MAX >> 4;

/// The longest text that is compared with a claim or names one.
const WORD_BYTES_MAX: usize = 1024;

/// Bytes as the command line writes them.
pub(super) struct Size(pub(super) u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(30, "g"), (20, "m"), (10, "k")];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

macro_rules! value {
    ($($variant:ident($type:ty)),+) => {
        /// A value of any type that a setting may have.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub(super) enum Value {
            $($variant($type)),+
        }

        $(impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                if let Value::$variant(value) = value { Some(value.clone()) } else { None }
            }
        })+
    };
}

value!(Bool(bool), Number(u64), Time(Duration), Text(String), Address(SocketAddr), Admin(Admin), Network(IpNet));

/// A type that a setting may have.
pub(super) trait FromValue: Sized {
    /// `None`: the value has another type.
    fn from_value(value: &Value) -> Option<Self>;
}

/// `true`, `no`, `1`, in any case.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("it must be true or false".to_owned()),
    }
}

/// `64`, `1024`.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "it must be a whole number, such as 4".into())
}

/// `64k`, `16m`, `1g`, `1000`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => {
            return Err("a size is a number of bytes with an optional k, m or g, such as 64k or 16m".into());
        }
    };
    let number: u64 = number.parse().map_err(|_| "a size is a whole number, such as 4096, 64k or 16m")?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| *bytes <= SIZE_TOP);
    bytes.ok_or_else(|| "that is more than any machine can hold".into())
}

/// `500ms`, `10s`, `2m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err("a time needs its unit, ms, s, m, h or d, such as 500ms or 10s".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a time is a whole number with its unit, such as 500ms or 10s")?;
    let time = number.checked_mul(unit_ms).map(Duration::from_millis).filter(|time| *time <= DURATION_TOP);
    time.ok_or_else(|| format!("the longest time is {}h", DURATION_TOP.as_secs() / 3600))
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A host name without a port, or `*.` before one.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    let name = text.trim().to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let is_good = |label: &str| {
        let characters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(characters)
    };
    if name.len() > 253 || !labels.split('.').all(is_good) {
        return Err("a name is one such as example.org, or *.example.org for all one level below".to_owned());
    }
    Ok(name)
}

/// `example.org`, `example.org:8080`, `*`.
pub(super) fn host(text: &str) -> Result<String, String> {
    let wrong = || "a host is a name with or without a port, such as example.org or example.org:8080, or *".to_owned();
    let host = text.trim().to_ascii_lowercase();
    if host == "*" {
        return Ok(host);
    }
    let authority = host.parse::<axum::http::uri::Authority>().map_err(|_| wrong())?;
    let name = authority.host();
    let port = authority.as_str().strip_prefix(name).ok_or_else(wrong)?;
    if name.is_empty() || name.contains(['*', '@']) || !(port.is_empty() || authority.port_u16().is_some()) {
        return Err(wrong());
    }
    Ok(host)
}

/// `10.0.0.0/8`, `::1`.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        "a network is an address with or without a prefix length, such as 10.0.0.0/8 or 192.168.1.5".to_owned()
    })
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(canonical(address));
    }
    let sentence = || "an address is host:port, such as 127.0.0.1:8080, [::1]:8080 or localhost:8080".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(sentence)?;
    if host.is_empty() || host.contains([':', '/', ' ']) || port.parse::<u16>().is_err() {
        return Err(sentence());
    }
    let resolved = text
        .to_socket_addrs()
        .map_err(|_| format!("the host '{host}' is not known to this machine: give one of its names or addresses"))?;
    let mut resolved: Vec<_> = resolved.collect();
    // Where a name means both, the printed address, 127.0.0.1 in scripts and `localhost` all work with IPv4.
    resolved.sort_by_key(SocketAddr::is_ipv6);
    resolved.first().copied().ok_or_else(sentence)
}

/// An IPv4 address that is written as one of IPv6 (`::ffff:127.0.0.1`, RFC 4291 §2.5.5.2) as itself.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, address.port()).into(),
        // Whole, with its zone.
        IpAddr::V6(_) => address,
    }
}

/// `chat/#`, `+/typing`. Its length is a matter of `max-topic`.
pub(super) fn filter(text: &str) -> Result<String, String> {
    match protocol::topic::check_filter(text, usize::MAX) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string().trim_end_matches('.').to_owned()),
    }
}

/// `chat/7`. Its length is a matter of `max-topic`.
pub(super) fn topic(text: &str) -> Result<String, String> {
    match protocol::topic::check_name(text, usize::MAX) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string().trim_end_matches('.').to_owned()),
    }
}

/// `user/{sub}/#`: a filter in which names of claims stand in braces.
pub(super) fn template(text: &str) -> Result<String, String> {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let inside = rest[at..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((name, after)) = inside.filter(|(name, _)| !name.is_empty() && !name.contains(['{', '/', '+', '#']))
        else {
            return Err("a claim stands in braces, such as {sub}".to_owned());
        };
        word(name)?;
        plain.push_str(&rest[..at]);
        plain.push('x');
        rest = after;
    }
    plain.push_str(rest);
    filter(&plain).map(|_| text.to_owned())
}

/// Any text.
pub(super) fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > WORD_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("it must be a text of 1 to {WORD_BYTES_MAX} bytes without control characters"));
    }
    Ok(text.to_owned())
}

/// `shop-backend`.
pub(super) fn subject_name(text: &str) -> Result<String, String> {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(is_sign) {
        return Err("a name has 1 to 64 letters, digits, -, _, . and @".to_owned());
    }
    Ok(text.to_owned())
}

/// `ringyard_token`, or nothing.
pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.len() > 64 || !text.bytes().all(is_sign) {
        return Err("the name of a cookie has at most 64 letters, digits and signs such as - and _".to_owned());
    }
    Ok(text.to_owned())
}

/// `anonymous`, `user`, `claim:role=admin`.
pub(super) fn who_is_meant(text: &str) -> Result<String, String> {
    let claim = text.strip_prefix("claim:").and_then(|rest| rest.split_once('='));
    if matches!(text, "anonymous" | "user") || claim.is_some_and(|(name, value)| !name.is_empty() && !value.is_empty())
    {
        return word(text);
    }
    Err("it must be anonymous, user, or claim:NAME=VALUE such as claim:role=admin".to_owned())
}

/// `https://id.example/jwks`, `http://127.0.0.1:9000/jwks`.
pub(super) fn key_source(text: &str) -> Result<String, String> {
    let wrong = || "it must be an address such as https://id.example/jwks, or http:// on loopback".to_owned();
    let uri: axum::http::Uri = text.parse().map_err(|_| wrong())?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    match uri.scheme_str() {
        // However the scheme is written: others look at it too.
        Some("https") if is_plain && !host.is_empty() => Ok(format!("https{}", &text["https".len()..])),
        Some("http") if is_plain && is_loopback => Ok(text.to_owned()),
        Some("http") if is_plain => {
            Err("keys that come over http can be replaced on their way: it must be https".to_owned())
        }
        _ => Err(wrong()),
    }
}

/// 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    match digest(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it must be 64 hexadecimal digits, as `ringyard key new NAME` prints them".to_owned()),
    }
}

/// The bytes of a SHA-256 in hexadecimal.
pub(super) fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

/// `time`.
pub(super) fn stamp(text: &str) -> Result<String, String> {
    match text {
        "time" => Ok(text.to_owned()),
        "from" => Err("that is not built yet: the broker writes only time".to_owned()),
        _ => Err("it must be time".to_owned()),
    }
}

/// `127.0.0.1:8081`, `public`, `off`.
pub(super) fn admin(text: &str) -> Result<Admin, String> {
    match text.trim() {
        "public" => Ok(Admin::Public),
        "off" => Ok(Admin::Off),
        text => address(text).map(Admin::At).map_err(|sentence| format!("{sentence}; or it is public, or off")),
    }
}

/// Whether an address is of this machine alone, however it is written: `127.0.0.0/8`, `::1`, or the former inside IPv6.
pub(crate) const fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("77", 77), ("64k", 64 << 10), ("16M", 16 << 20), ("1g", 1 << 30), ("2 KiB", 2048)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "1.5m", "1t", "0x10", "99999999999999999999", "18446744073709551615k"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(
            [Size(0), Size(1000), Size(8 << 10), Size(3 << 20), Size(1 << 30)].map(|s| s.to_string()),
            ["0", "1000", "8k", "3m", "1g"]
        );
    }

    #[test]
    fn durations() {
        let cases =
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1w", "42d", "1001h", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn truths() {
        for (text, expected) in [(" True", true), ("OFF", false), ("1 ", true), ("n", false)] {
            assert_eq!(truth(text), Ok(expected), "{text}");
        }
        assert!(truth("maybe").is_err() && truth("").is_err());
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("[::1]:81", "[::1]:81"),
            ("[::]:8080\n", "[::]:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("[::ffff:0.0.0.0]:80", "0.0.0.0:80"),
            ("[fe80::1%2]:80", "[fe80::1%2]:80"),
        ] {
            assert_eq!(address(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "8080", ":8080", "localhost", "::1:8080", "127.0.0.1:99999", "http://localhost:8080", "a b:1"]
        {
            assert!(address(text).unwrap_err().contains("host"), "{text}");
        }
    }

    #[test]
    fn the_admin_listener_has_an_address_or_a_word() {
        assert_eq!(admin("public"), Ok(Admin::Public));
        assert_eq!(admin("off"), Ok(Admin::Off));
        assert_eq!(admin("[::1]:9"), Ok(Admin::At("[::1]:9".parse().unwrap())));
        assert!(admin("on").unwrap_err().contains("public"));
    }

    #[test]
    fn hosts_and_networks() {
        for (text, expected) in [("Example.org", "example.org"), ("a.b:8080", "a.b:8080"), ("*", "*")] {
            assert_eq!(host(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "http://a", "a/b", "*.a", "u@a", "a:b", "a:99999"] {
            assert!(host(text).is_err(), "{text}");
        }
        for (text, expected) in [("10.0.0.0/8", "10.0.0.0/8"), ("::1", "::1/128"), ("192.168.1.5", "192.168.1.5/32")] {
            assert_eq!(network(text).map(|net| net.to_string()).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "10.0.0.0/33", "example.org", "10.0.0"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
