//! Request heads: what is a handshake, what is plain HTTP, what is refused and when (RFC 6455 §4, 9110, 9112).

use proptest::prelude::*;
use proptest::sample::Index;
use protocol::head::{
    BodyLength, Endpoint, Head, HeadLimits, Plain, Publish, Refusal, Upgrade, accept_key, is_worth_parsing, parse,
};

/// RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &[u8; 28] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The fields of a handshake that breaks no rule.
const FIELDS: [(&str, &str); 5] = [
    ("Host", "broker.example:8080"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
];

fn head(line: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = format!("{line}\r\n");
    for (name, value) in fields {
        out += &format!("{name}: {value}\r\n");
    }
    (out + "\r\n").into_bytes()
}

/// The handshake with one field's lines replaced.
fn with(name: &str, values: &[&str]) -> Vec<u8> {
    let mut fields: Vec<_> = FIELDS.into_iter().filter(|field| field.0 != name).collect();
    fields.extend(values.iter().map(|value| (name, *value)));
    head("GET /sub/a HTTP/1.1", &fields)
}

fn verdict(bytes: &[u8]) -> Result<Head<'_>, Refusal> {
    parse(bytes, &HeadLimits::default())
}

fn upgrade(bytes: &[u8]) -> Upgrade<'_> {
    match verdict(bytes) {
        Ok(Head::Upgrade(upgrade)) => upgrade,
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

fn status(bytes: &[u8]) -> u16 {
    match verdict(bytes) {
        Err(refusal) => refusal.status,
        other => panic!("{other:?} for {}", bytes.escape_ascii()),
    }
}

#[test]
fn a_handshake_and_the_first_frames_in_one_read() {
    let mut bytes = with("Origin", &["http://broker.example:8080"]);
    let head_len = bytes.len();
    bytes.extend_from_slice(&[0x81, 0x80, 0, 0, 0, 0, b'\n']);
    let expected = Upgrade {
        head_len,
        accept: *ACCEPT,
        endpoint: Endpoint::Subscribe("a".into()),
        start: protocol::head::RawStart::default(),
        origin: Some("http://broker.example:8080"),
        host: "broker.example:8080",
        subprotocol: None,
        token: None,
    };
    assert_eq!(upgrade(&bytes), expected);
    assert_eq!(accept_key(KEY.as_bytes()), *ACCEPT);
}

/// RFC 9110 §5.3, §5.6.1, §7.6.1, §7.8: lists in all their forms.
#[test]
fn token_lists() {
    let cases: [(&str, &[&str]); 6] = [
        ("Connection", &["keep-alive, Upgrade"]),
        ("Connection", &["keep-alive", "uPGRADE"]),
        ("Connection", &[",, upgrade ,\t,"]),
        ("Upgrade", &["foo/2, WebSocket"]),
        ("Upgrade", &["h2c", "", "websocket"]),
        ("Sec-WebSocket-Version", &["  13\t"]),
    ];
    for (name, values) in cases {
        assert_eq!(upgrade(&with(name, values)).accept, *ACCEPT, "{name}: {values:?}");
    }
}

/// RFC 9110 §7.8: an upgrade that is not asked for properly is not asked for.
#[test]
fn plain_http() {
    let cases = [
        head("GET / HTTP/1.1", &[("Host", "a")]),
        head("POST /pub/a HTTP/1.1", &[("Host", "a"), ("Content-Length", "5")]),
        head("GET /sub/a HTTP/1.0", &FIELDS),
        with("Connection", &["keep-alive"]),
        with("Connection", &[]),
        with("Upgrade", &["h2c"]),
        with("Upgrade", &["websockets"]),
        with("Upgrade", &[]),
    ];
    for bytes in cases {
        assert!(matches!(verdict(&bytes), Ok(Head::Http(_))), "{}", bytes.escape_ascii());
    }
    // Empty lines in front are skipped (RFC 9112 §2.2).
    assert!(matches!(verdict(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Head::Http(_))));
}

/// RFC 9112 §6.3: where the body of a plain request ends.
#[test]
fn bodies_of_plain_requests() {
    let body = |fields: &[(&str, &str)]| {
        let bytes = head("POST /pub/a HTTP/1.1", &[&[("Host", "a")], fields].concat());
        match verdict(&bytes) {
            Ok(Head::Http(plain)) => {
                assert_eq!(plain.head_len, bytes.len());
                Ok(plain.body)
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.status),
        }
    };
    assert_eq!(body(&[]), Ok(BodyLength::Bytes(0)));
    assert_eq!(body(&[("Content-Length", " 12 ")]), Ok(BodyLength::Bytes(12)));
    assert_eq!(body(&[("transfer-encoding", "Chunked")]), Ok(BodyLength::Chunked));
    for length in ["", "-1", "+1", "1 2", "1, 1", "0x1", "99999999999999999999", "18446744073709551615"] {
        assert_eq!(body(&[("Content-Length", length)]), Err(400), "{length:?}");
    }
    assert_eq!(body(&[("Content-Length", "1"), ("Content-Length", "1")]), Err(400));
    assert_eq!(body(&[("Content-Length", "1"), ("Transfer-Encoding", "chunked")]), Err(400));
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity", ""] {
        assert_eq!(body(&[("Transfer-Encoding", coding)]), Err(501), "{coding:?}");
    }
    assert_eq!(status(&head("POST / HTTP/1.0", &[("Transfer-Encoding", "chunked")])), 400);
}

/// What is answered without an HTTP server: a publish in its usual form, and nothing else.
#[test]
fn single_publishes() {
    let line = "POST /pub/a%2Fb HTTP/1.1";
    let usual = [("Host", "b:80"), ("Content-Length", "3")];
    let publish = |line: &str, more: &[(&str, &str)]| match verdict(&head(line, &[&usual, more].concat())) {
        Ok(Head::Http(plain)) => plain.publish.map(|publish| format!("{publish:?}")),
        other => panic!("{other:?}"),
    };
    let expected = |content_type: Option<&str>, origin: Option<&str>| {
        let (path, host, body_len) = ("/pub/a%2Fb", "b:80", 3);
        let content_type = content_type.map(str::as_bytes);
        let (query, idempotency_key) = (None, None);
        Some(format!("{:?}", Publish { path, query, idempotency_key, host, origin, content_type, body_len }))
    };
    let optional = publish("POST /pub/a?key=%20&?b HTTP/1.1", &[("Idempotency-Key", " k ")]).expect("a publish");
    assert!(optional.contains(r#"path: "/pub/a", query: Some("key=%20&?b")"#), "{optional}");
    assert!(optional.contains(&format!("idempotency_key: Some({:?})", b"k")), "{optional}");
    assert_eq!(publish(line, &[("Idempotency-Key", "a"), ("idempotency-key", "a")]), None);
    assert_eq!(publish(line, &[]), expected(None, None));
    let two_types = [("content-TYPE", "\ttext/plain "), ("Content-Type", "a/b"), ("ORIGIN", "http://a")];
    assert_eq!(publish(line, &two_types), expected(Some("text/plain"), Some("http://a")));
    for (name, value) in
        [("Connection", "keep-alive"), ("Connection", " ,Keep-Alive,"), ("Contention", "close"), ("TE", "x")]
    {
        assert_eq!(publish(line, &[(name, value)]), expected(None, None), "{name}: {value}");
    }
    let others = [
        ("Connection", "close"),
        ("connection", "keep-alive, upgrade"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("Content-Encoding", "identity"),
        ("Origin", "http://ä"),
    ];
    for other in others {
        assert_eq!(publish(line, &[other]), None, "{other:?}");
    }
    let lines = [
        "PUT /pub/a HTTP/1.1",
        "post /pub/a HTTP/1.1",
        "POST /pub HTTP/1.1",
        "POST /sub/a HTTP/1.1",
        "POST http://b:80/pub/a HTTP/1.1",
        "POST /pub/a HTTP/1.0",
    ];
    for line in lines {
        assert_eq!(publish(line, &[]), None, "{line}");
    }
    for fields in [&[("Host", "b")][..], &[("Host", "b"), ("Transfer-Encoding", "chunked")]] {
        let bytes = head(line, fields);
        assert!(matches!(verdict(&bytes), Ok(Head::Http(Plain { publish: None, .. }))), "{fields:?}");
    }
    // Two lengths, or a length beside chunks: a reader that believed one of them could be made to read a hidden request.
    for more in [("Content-Length", "3"), ("Content-Length", "4"), ("Transfer-Encoding", "chunked")] {
        assert_eq!(status(&head(line, &[usual[0], usual[1], more])), 400, "{more:?}");
    }
}

/// RFC 9112 §3.2, RFC 9110 §7.2: what is refused of a handshake is refused of any other request too.
#[test]
fn refused_plain_requests() {
    let with = |line: &str, fields: &[(&str, &str)]| status(&head(line, fields));
    let get = "GET / HTTP/1.1";
    assert_eq!(with(get, &[]), 400);
    for host in ["", "a b", "a/b", "u@a", "a:x", "a:99999", "a,b", "[::1"] {
        assert_eq!(with(get, &[("Host", host)]), 400, "{host:?}");
    }
    assert_eq!(with(get, &[("Host", "a"), ("Host", "a")]), 400);
    assert_eq!(with(get, &[("Host", "a"), ("Origin", "http://a"), ("Origin", "http://b")]), 400);
    for target in ["a", "*", "ftp://a/", "http:///", "http://u@a/", "/#", "/<", "/a>", "/`", "/?\"", "a:80"] {
        assert_eq!(with(&format!("GET {target} HTTP/1.1"), &[("Host", "a")]), 400, "{target}");
    }
    assert_eq!(with("CONNECT a:80 HTTP/1.1", &[("Host", "a")]), 501);
    assert!(verdict(&head("OPTIONS * HTTP/1.1", &[("Host", "a")])).is_ok());
    assert!(verdict(&head("GET / HTTP/1.0", &[])).is_ok());
}

/// RFC 9110 §15.5.15 and RFC 6585 §5 are for different parts of a head that is too long.
#[test]
fn too_long_is_the_target_or_the_head() {
    let long = "x".repeat(9000);
    assert_eq!(status(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), 414);
    assert_eq!(status(format!("\r\nGET /sub/{long}").as_bytes()), 414);
    assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n").as_bytes()), 431);
    assert_eq!(status(long.as_bytes()), 501);
}

/// A head is worth a look when a line has ended, and when no more of it is read.
#[test]
fn looks_at_a_head_are_few() {
    let bytes = with("Origin", &["http://a"]);
    let limits = HeadLimits::default();
    let looks = (1..=bytes.len()).filter(|&len| is_worth_parsing(len, &bytes[len - 1..len], &limits)).count();
    assert_eq!(looks, 1 + bytes.iter().filter(|&&byte| byte == b'\n').count());
    assert!(is_worth_parsing(bytes.len(), &bytes, &limits), "the last byte of a head ends a line");
    assert!(is_worth_parsing(8192, b"x", &limits));
}

/// RFC 6455 §4.2.1, §4.4; RFC 9112 §3.2.
#[test]
fn refused_handshakes() {
    let cases: [(u16, &str, &[&str]); 19] = [
        (400, "Host", &[]),
        (400, "Host", &["a", "a"]),
        (400, "Host", &[""]),
        (400, "Host", &["a b"]),
        (400, "Host", &["a/b"]),
        (400, "Sec-WebSocket-Key", &[]),
        (400, "Sec-WebSocket-Key", &[KEY, KEY]),
        (400, "Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ"]),
        (400, "Sec-WebSocket-Key", &["SGVsbG8sIHdvcmxkIQ=="]),
        (400, "Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25j*Q=="]),
        (426, "Sec-WebSocket-Version", &[]),
        (426, "Sec-WebSocket-Version", &["8"]),
        (426, "Sec-WebSocket-Version", &["013"]),
        (400, "Sec-WebSocket-Version", &["13, 8"]),
        (400, "Sec-WebSocket-Version", &["8", "13"]),
        (400, "Content-Length", &["1"]),
        (400, "Content-Length", &["0", "0"]),
        (400, "Transfer-Encoding", &["chunked"]),
        (400, "Origin", &["http://a", "http://b"]),
    ];
    for (expected, name, values) in cases {
        assert_eq!(status(&with(name, values)), expected, "{name}: {values:?}");
    }
    assert_eq!(upgrade(&with("Content-Length", &["0"])).accept, *ACCEPT);
    assert_eq!(status(&head("POST /sub/a HTTP/1.1", &FIELDS)), 405);
    assert_eq!(status(&head("GET /other HTTP/1.1", &FIELDS)), 404);
    assert_eq!(status(&head("GET /sub/a/+b HTTP/1.1", &FIELDS)), 400);
    assert_eq!(status(&head("GET /pub/$sys HTTP/1.1", &FIELDS)), 403);
}

/// RFC 6455 §4.2.2: the raw endpoints select nothing, `/ws` only its own.
#[test]
fn subprotocols() {
    let ws = |offers: &[&str]| {
        let mut fields = FIELDS.to_vec();
        fields.extend(offers.iter().map(|offer| ("Sec-WebSocket-Protocol", *offer)));
        head("GET /ws?x=1 HTTP/1.1", &fields)
    };
    for offers in [&["ringyard.v1"][..], &["mqtt, ringyard.v1"], &["a", "ringyard.v1,b"]] {
        let bytes = ws(offers);
        let upgrade = upgrade(&bytes);
        assert_eq!(upgrade.endpoint, Endpoint::V1Session);
        assert_eq!(upgrade.subprotocol, Some("ringyard.v1"));
    }
    for offers in [&[][..], &["Ringyard.v1"], &["ringyard.v2"], &["ringyard.v1.x"]] {
        let bytes = ws(offers);
        let refusal = verdict(&bytes).expect_err("no sub-protocol");
        assert_eq!(refusal.status, 400);
        assert!(refusal.reason.contains("ringyard.v1"), "{refusal}");
    }
    assert_eq!(upgrade(&with("Sec-WebSocket-Protocol", &["ringyard.v1"])).subprotocol, None);
}

/// A token is offered as a sub-protocol, beside the one that is chosen, and never chosen itself.
#[test]
fn tokens_as_subprotocols() {
    let ws = |path: &str, offers: &str| {
        let mut fields = FIELDS.to_vec();
        fields.push(("Sec-WebSocket-Protocol", offers));
        head(&format!("GET {path} HTTP/1.1"), &fields)
    };
    for (path, offers, chosen, token) in [
        ("/ws", "ringyard.v1, ringyard.token.e30.e30.AA", "ringyard.v1", Some("e30.e30.AA")),
        ("/ws", "ringyard.token.,ringyard.v1", "ringyard.v1", Some("")),
        ("/ws", "ringyard.v1,ringyard.token", "ringyard.v1", None),
        ("/sub/a", "ringyard.token.x,ringyard.raw", "ringyard.raw", Some("x")),
        ("/bus/a", "ringyard.raw", "ringyard.raw", None),
    ] {
        let bytes = ws(path, offers);
        let upgrade = upgrade(&bytes);
        assert_eq!((upgrade.subprotocol, upgrade.token), (Some(chosen), token), "{path} {offers}");
    }
    for (path, offers) in [
        ("/ws", "ringyard.token.x"),
        ("/ws", "ringyard.v1,ringyard.token.x,ringyard.token.x"),
        ("/ws", "ringyard.raw,ringyard.token.x"),
        ("/pub/a", "ringyard.token.x"),
        ("/pub/a", "ringyard.v1,ringyard.token.x"),
    ] {
        let bytes = ws(path, offers);
        assert_eq!(status(&bytes), 400, "{path} {offers}");
    }
}

/// RFC 9112 §3.2.2: an absolute target's authority is the host.
#[test]
fn absolute_targets() {
    let bytes = head("GET http://other.example/bus/a?q HTTP/1.1", &FIELDS);
    let upgrade = upgrade(&bytes);
    assert_eq!(upgrade.host, "other.example");
    assert_eq!(upgrade.endpoint, Endpoint::Bus("a".into()));
}

/// RFC 9112 §2.2, §5.1, §5.2, and what is no HTTP at all: refused at the byte that makes it certain.
#[test]
fn malformed_heads_are_refused_early() {
    let cases: [&[u8]; 11] = [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n ",
        b"GET / HTTP/1.1\r\nHost ",
        b"GET / HTTP/1.1\r\nA: b\0",
        b"GET / HTTP/1.1\rx",
        b"GET / HTTP/1.2",
        b"PRI * HTTP/2",
        b"\0",
        b"\x16",
    ];
    for bytes in cases {
        assert_eq!(status(bytes), 400, "{}", bytes.escape_ascii());
        let before = &bytes[..bytes.len() - 1];
        assert_eq!(verdict(before), Ok(Head::Partial), "{}", before.escape_ascii());
    }
    let tls = verdict(b"\x16\x03\x01\x02\x00").expect_err("TLS");
    assert!(tls.reason.contains("TLS"));
}

/// RFC 6585 §5.
#[test]
fn large_heads() {
    let limits = HeadLimits { head_bytes_max: 200, headers_max: 5, ..HeadLimits::default() };
    let status = |bytes: &[u8]| match parse(bytes, &limits) {
        Ok(_) => 0,
        Err(refusal) => refusal.status,
    };
    let line = "GET /sub/a HTTP/1.1";
    assert_eq!(status(&head(line, &FIELDS)), 0);
    let six = [&FIELDS[..], &[("A", "b")]].concat();
    assert_eq!(status(&head(line, &six)), 431);
    let long = "x".repeat(200);
    let bytes = head(line, &[("A", &long)]);
    assert_eq!(status(&bytes[..199]), 0);
    assert_eq!(status(&bytes[..200]), 431);
    assert_eq!(status(&bytes), 431);
    // Exactly as long as allowed, with frames behind it.
    let fit = "x".repeat(200 - head(line, &[("Host", "a"), ("A", "")]).len());
    let bytes = [head(line, &[("Host", "a"), ("A", &fit)]), vec![0; 50]].concat();
    assert_eq!(status(&bytes), 0);
}

/// The same field names and list tokens in another case.
fn recased(text: &str, upper: &[bool]) -> String {
    let flipped = |(c, &up): (char, &bool)| {
        if up { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
    };
    text.chars().zip(upper.iter().cycle()).map(flipped).collect()
}

proptest! {
    /// Order and case of fields mean nothing, nor do other fields and white space among them.
    #[test]
    fn order_and_case_do_not_matter(
        order in Just(FIELDS.to_vec()).prop_shuffle(),
        upper in proptest::collection::vec(any::<bool>(), 1..20),
        others in proptest::collection::vec("X-[A-Za-z]{1,8}", 0..5),
        blank in "[ \t]{0,3}",
    ) {
        let mut out = String::from("GET /sub/a HTTP/1.1\r\n");
        for (i, (name, value)) in order.iter().enumerate() {
            let tokens = ["Upgrade", "Connection"].contains(name);
            let value = if tokens { recased(value, &upper) } else { (*value).to_owned() };
            out += &format!("{}:{blank}{value}{blank}\r\n", recased(name, &upper));
            if let Some(other) = others.get(i) {
                out += &format!("{other}: upgrade, websocket\r\n");
            }
        }
        out += "\r\n";
        let upgrade = upgrade(out.as_bytes());
        prop_assert_eq!(&upgrade.accept, ACCEPT);
        prop_assert_eq!(upgrade.host, "broker.example:8080");
    }

    /// A verdict once given stands: no front of a good head is complete or refused, and a refusal of a
    /// front is one of every longer front.
    #[test]
    fn split_at_every_byte(
        target in "/(sub|pub|bus|ws)(/[a-z+%#$]{0,4}){0,2}",
        drop in any::<Option<Index>>(),
        damage in any::<Option<(Index, u8)>>(),
    ) {
        let mut fields = FIELDS.to_vec();
        if let Some(drop) = drop {
            fields.remove(drop.index(FIELDS.len()));
        }
        let mut bytes = head(&format!("GET {target} HTTP/1.1"), &fields);
        if let Some((at, byte)) = damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = verdict(&bytes);
        let mut refused = false;
        for end in 0..bytes.len() {
            match verdict(&bytes[..end]) {
                Ok(Head::Partial) => prop_assert!(!refused),
                Ok(complete) => {
                    prop_assert!(damage.is_some(), "complete at {}", end);
                    prop_assert_eq!(Ok(complete), whole.clone());
                }
                Err(_) => {
                    refused = true;
                    prop_assert!(whole.is_err());
                }
            }
        }
    }

    /// Order, case and white space mean nothing, other fields neither, and every front of the head is incomplete.
    #[test]
    fn a_publish_is_found_whatever_the_order_of_its_fields(
        order in Just([("Host", "b:80"), ("Content-Length", "12"), ("Content-Type", "text/plain")].to_vec()).prop_shuffle(),
        upper in proptest::collection::vec(any::<bool>(), 1..20),
        others in proptest::collection::vec("X-[A-Za-z]{1,14}", 0..4),
        topic in "[a-z0-9%/+.$]{1,20}",
        body in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut out = format!("POST /pub/{topic} HTTP/1.1\r\n");
        for (i, (name, value)) in order.iter().enumerate() {
            out += &format!("{}: {value} \r\n", recased(name, &upper));
            if let Some(other) = others.get(i) {
                out += &format!("{other}: close, upgrade\r\n");
            }
        }
        let bytes = [format!("{out}\r\n").as_bytes(), &body].concat();
        let head_len = bytes.len() - body.len();
        for end in 0..head_len {
            prop_assert_eq!(verdict(&bytes[..end]), Ok(Head::Partial));
        }
        let path = format!("/pub/{topic}");
        let publish = Publish {
            path: &path,
            query: None,
            idempotency_key: None,
            host: "b:80",
            origin: None,
            content_type: Some(b"text/plain"),
            body_len: 12,
        };
        let expected = Plain { head_len, body: BodyLength::Bytes(12), publish: Some(publish) };
        prop_assert_eq!(verdict(&bytes), Ok(Head::Http(expected)));
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = verdict(&bytes);
        let _ = verdict(&[b"GET ", &bytes[..]].concat());
        let _ = verdict(&[b"GET /sub/", &bytes[..], b" HTTP/1.1\r\n\r\n"].concat());
    }
}
