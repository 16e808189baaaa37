//! Requests to servers that are good, slow, huge, wrong, gone, or not who they say.

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::*;
use crate::server::token_keys::fixture::{PrivateAuthority, answering, serve, serve_tls, source, with_body};

/// Long enough for a machine that is busy, and much shorter than a request that nothing bounds.
const SHORT: Duration = Duration::from_millis(400);

#[test]
fn an_answer_comes_with_the_time_for_which_it_holds() {
    let (url, requests) = answering("200 OK", "cache-control: public, max-age=120\r\n", b"{}");
    let fetched = fetch(&url, TIMEOUT).expect("an answer");
    assert_eq!((fetched.text, fetched.max_age), (b"{}".to_vec(), Some(Duration::from_secs(120))));
    let request = requests.recv().expect("a request").to_ascii_lowercase();
    assert!(request.starts_with("get /jwks http/1.1\r\n") && request.contains("application/jwk-set+json"), "{request}");
    for (header, expected) in [
        ("max-age=0", Some(0)),
        ("private, Max-Age=\"60\"", Some(60)),
        ("no-store, max-age=60", Some(0)),
        ("no-cache", Some(0)),
        ("max-age=-1", None),
        ("s-maxage=60", None),
        ("max-age=99999999999999999999", None),
        ("", None),
    ] {
        assert_eq!(max_age(header), expected.map(Duration::from_secs), "{header}");
    }
}

#[test]
fn bad_answers_are_sentences() {
    let big = vec![b' '; FILE_BYTES_MAX as usize + 1];
    for (status, headers, body, part) in [
        ("404 Not Found", "", Vec::new(), "404"),
        ("500 Internal Server Error", "", b"{}".to_vec(), "500"),
        ("204 No Content", "", Vec::new(), "204"),
        ("302 Found", "location: http://127.0.0.1:1/\r\n", Vec::new(), "redirects are not followed"),
        ("200 OK", "", big, "at most 1 MiB"),
    ] {
        let (url, _requests) = answering(status, headers, &body);
        let sentence = fetch(&url, TIMEOUT).expect_err(status);
        assert!(sentence.contains(part), "{status}: {sentence}");
    }
    let (url, _requests) = serve(|stream| _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"));
    assert!(fetch(&url, TIMEOUT).expect_err("half an answer").contains("cannot be read"));
    let (url, _requests) = serve(|stream| _ = stream.write_all(b"hello\r\n\r\n"));
    assert!(fetch(&url, TIMEOUT).expect_err("no HTTP").contains("the request failed"));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    assert!(
        fetch(&source(&format!("http://{free}/")), TIMEOUT).expect_err("nobody there").contains("the request failed")
    );
}

#[test]
fn an_endless_answer_ends_at_its_greatest_length() {
    let (url, _requests) = serve(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while stream.write_all(b"400\r\n").and_then(|()| stream.write_all(&[b' '; 1024])).is_ok() {
            if stream.write_all(b"\r\n").is_err() {
                return;
            }
        }
    });
    assert!(fetch(&url, TIMEOUT).expect_err("endless").contains("at most 1 MiB"));
}

#[test]
fn a_server_of_a_private_authority_is_trusted_by_its_file_alone() {
    let (authority, stranger) = (PrivateAuthority::new(), PrivateAuthority::new());
    let (trusted, requests) = serve_tls(&authority, |stream| _ = stream.write_all(&with_body("200 OK", "", b"{}")));
    let fetched = fetch(&trusted, TIMEOUT).expect("a trusted server");
    assert_eq!(fetched.text, b"{}");
    assert!(requests.recv().expect("a request").starts_with("GET /jwks HTTP/1.1\r\n"));

    for ca_file in [None, Some(stranger.file())] {
        let sentence = fetch(&KeysUrl { ca_file, ..trusted.clone() }, TIMEOUT).expect_err("an unknown authority");
        assert!(sentence.contains("the request failed") && sentence.contains("certificate"), "{sentence}");
    }
    let other_name = KeysUrl { url: trusted.url.replace("localhost", "127.0.0.1"), ..trusted.clone() };
    let sentence = fetch(&other_name, TIMEOUT).expect_err("the certificate of another name");
    assert!(sentence.contains("certificate"), "{sentence}");
    assert!(requests.try_recv().is_err(), "nobody who is not trusted was asked for anything");

    std::fs::write(stranger.file(), std::fs::read(authority.file()).expect("a file")).expect("a file");
    let replaced = KeysUrl { ca_file: Some(stranger.file()), ..trusted };
    fetch(&replaced, TIMEOUT).expect("the file is read for each request");
}

#[test]
fn half_an_answer_over_https_is_none() {
    let authority = PrivateAuthority::new();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\":[";
    let (source, _requests) = serve_tls(&authority, move |stream| _ = stream.write_all(half));
    assert!(fetch(&source, TIMEOUT).expect_err("half an answer").contains("cannot be read"));
}

/// What a request says that is over within its time, give or take a busy machine.
fn bounded(source: &KeysUrl) -> String {
    let begin = Instant::now();
    let sentence = fetch(source, SHORT).expect_err("no answer in time");
    let took = begin.elapsed();
    assert!(took >= SHORT && took < SHORT + Duration::from_secs(5), "{took:?}: {sentence}");
    sentence
}

#[test]
fn a_request_has_a_time_in_which_it_ends_whatever_the_server_does() {
    let rest = || thread::sleep(Duration::from_millis(20));
    let (silent, _requests) = serve(|_| thread::sleep(Duration::from_secs(60)));
    assert!(bounded(&silent).contains("timeout"));
    let (dripping_head, _requests) = serve(move |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\na: ");
        while stream.write_all(b"a").is_ok() {
            rest();
        }
    });
    bounded(&dripping_head);
    let (dripping_body, _requests) = serve(move |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            rest();
        }
    });
    assert!(bounded(&dripping_body).contains("within 400ms"));
    // The connection is made, and no TLS handshake comes.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    bounded(&source(&format!("https://{}/", mute.local_addr().expect("an address"))));
    // The queue of connections is full, so that the kernel answers nobody.
    let full = TcpListener::bind("127.0.0.1:0").expect("a port");
    rustix::net::listen(&full, 0).expect("a shorter queue");
    let address = full.local_addr().expect("an address");
    let _first = TcpStream::connect(address).expect("there is room for one");
    assert!(bounded(&source(&format!("http://{address}/"))).contains("timeout"));
    assert_eq!(TIMEOUT, Duration::from_secs(10), "what is promised");
}

#[test]
fn authorities_are_those_of_the_file_that_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&path, certificate.cert.pem()).expect("a file");
    let named = Some(("keys-ca-file", &*path));
    assert!(matches!(roots(named, &[]), Ok(RootCerts::Specific(found)) if found.len() == 1));
    std::fs::write(&path, "nothing").expect("a file");
    assert!(roots(named, &[]).expect_err("no certificate").starts_with("keys-ca-file, /"));
    assert!(check(&KeysUrl { url: "https://a/".to_owned(), ca_file: Some(path.clone()) }).is_err());
    assert!(check(&source("https://a/")).is_ok());
    // Where a system has none at all, the built-in ones do their work.
    let path = path.to_str().expect("a path");
    let built_in = roots(None, &["/nowhere", path]).expect("built in");
    assert!(matches!(built_in, RootCerts::WebPki));
    let authority = PrivateAuthority::new();
    let (private, _requests) = serve_tls(&authority, |_| ());
    let tls = TlsConfig::builder().provider(TlsProvider::Rustls).root_certs(built_in);
    let tls = tls.unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider())).build();
    let agent = Agent::new_with_config(Agent::config_builder().tls_config(tls).proxy(None).build());
    let error = agent.get(&private.url).call().expect_err("an authority that is not built in").to_string();
    assert!(error.contains("certificate"), "{error}");
}
