//! Which page sent a request that is refused: `Origin` and `Host`, read from a head that may be incomplete, too long or
//! malformed. Good enough to decide whether the page may read the refusal (Fetch standard, 3.2), and for nothing else.

/// What a head says of the page that sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page<'a> {
    /// The one `Origin`: visible ASCII, so it can be repeated in an answer.
    pub origin: &'a str,
    /// The one `Host`, or empty.
    pub host: &'a str,
}

/// Looks for it in the complete lines of `head`. `None`: no page sent it, or more than one says so.
#[must_use]
pub fn page(head: &[u8]) -> Option<Page<'_>> {
    let (mut origin, mut host) = (None, None);
    let mut lines = head.split_inclusive(|&byte| byte == b'\n').skip_while(|line| line.trim_ascii().is_empty());
    lines.next()?;
    for line in lines {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let place = match name {
            _ if name.eq_ignore_ascii_case(b"origin") => &mut origin,
            _ if name.eq_ignore_ascii_case(b"host") => &mut host,
            _ => continue,
        };
        let value = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
        if place.replace(value).is_some() {
            return None;
        }
    }
    Some(Page { origin: origin?, host: host.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_in_heads_that_are_refused() {
        let expected = Some(Page { origin: "https://a.example", host: "b:80" });
        let line = "POST /pub/a HTTP/1.1\r\n";
        let fields = "hOST: b:80\r\nORIGIN:\thttps://a.example \r\n";
        assert_eq!(page(format!("{line}{fields}\r\nOrigin: x\r\n").as_bytes()), expected);
        assert_eq!(page(format!("\r\n{line}{fields}X: {}", "x".repeat(9000)).as_bytes()), expected);
        assert_eq!(page(format!("{line}{fields}X: \u{1}\nno colon\n").as_bytes()), expected);
        assert_eq!(page(b"GET / HTTP/1.1\r\nOrigin: null\r\n\r\n"), Some(Page { origin: "null", host: "" }));
    }

    #[test]
    fn nobody_can_say() {
        for head in [
            "",
            "Origin: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nOrigin: a\r\nOrigin: b\r\n\r\n",
            "GET / HTTP/1.1\r\nOrigin: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nOrigin: ä\r\n\r\n",
            "GET / HTTP/1.1\r\nOrigin: http://cut",
        ] {
            assert_eq!(page(head.as_bytes()), None, "{head}");
        }
    }
}
