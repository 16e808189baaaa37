//! The schedule with a clock of its own, and requests to servers that are slow, huge, wrong or gone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use super::*;
use crate::config::auth::{AccessTables, AuthTable, Located};

/// A server that answers each request with what `answer` writes; the address, and a line for each request.
fn serve(answer: impl Fn(&mut TcpStream) + Send + 'static) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, requests) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            if sender.send(String::from_utf8_lossy(&head).into_owned()).is_err() {
                return;
            }
            answer(&mut stream);
        }
    });
    (format!("http://{address}/jwks"), requests)
}

fn with_body(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn answering(status: &'static str, headers: &'static str, body: Vec<u8>) -> (String, mpsc::Receiver<String>) {
    serve(move |stream| _ = stream.write_all(&with_body(status, headers, &body)))
}

#[test]
fn an_answer_comes_with_the_time_for_which_it_holds() {
    let (url, requests) = answering("200 OK", "cache-control: public, max-age=120\r\n", b"{}".to_vec());
    let fetched = fetch(&url).expect("an answer");
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
        let (url, _requests) = answering(status, headers, body);
        let sentence = fetch(&url).expect_err(status);
        assert!(sentence.contains(part), "{status}: {sentence}");
    }
    let (url, _requests) = serve(|stream| _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"));
    assert!(fetch(&url).expect_err("half an answer").contains("cannot be read"));
    let (url, _requests) = serve(|stream| _ = stream.write_all(b"hello\r\n\r\n"));
    assert!(fetch(&url).expect_err("no HTTP").contains("the request failed"));
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    assert!(fetch(&format!("http://{free}/")).expect_err("nobody there").contains("the request failed"));
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
    assert!(fetch(&url).expect_err("endless").contains("at most 1 MiB"));
}

#[test]
fn the_schedule_heeds_answers_failures_and_unknown_keys() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let hold = |seconds| Ok(Some(Duration::from_secs(seconds)));
    let mut schedule = Schedule::new(start);
    assert!(schedule.fetch(at(0), false, "a"), "at once");
    schedule.fetched(at(0), Ok(None));
    assert!(!schedule.fetch(at(299), false, "a") && schedule.fetch(at(300), false, "a"));
    schedule.fetched(at(300), hold(1));
    assert!(!schedule.fetch(at(359), false, "a") && schedule.fetch(at(360), false, "a"), "a minute at least");
    schedule.fetched(at(360), hold(1_000_000));
    assert!(!schedule.fetch(at(360 + 3599), false, "a"));
    // An unknown key asks at once, but not again within 10 s.
    assert!(schedule.fetch(at(400), true, "a"));
    schedule.fetched(at(400), hold(3600));
    assert!(!schedule.fetch(at(409), true, "a"));
    assert_eq!(schedule.rest(at(409), true).as_secs(), 0, "files are due");
    assert!(schedule.look_at_files(at(409)) && !schedule.look_at_files(at(413)));
    assert_eq!(schedule.rest(at(409), true).as_secs(), 1);
    assert_eq!(schedule.rest(at(409), false).as_secs(), 5);
    assert!(schedule.fetch(at(410), true, "a"));
    schedule.fetched(at(410), Err("gone".to_owned()));
    assert_eq!(schedule.said.as_deref(), Some("gone"));
    assert!(!schedule.fetch(at(469), false, "a") && schedule.fetch(at(470), false, "a"), "a minute after a failure");
    schedule.fetched(at(470), hold(3600));
    assert_eq!(schedule.said, None);
    assert!(schedule.fetch(at(471), false, "b"), "another address is asked at once");
}

#[test]
fn authorities_are_those_of_the_file_that_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("roots.pem");
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&path, certificate.cert.pem()).expect("a file");
    assert!(matches!(roots(Some(&path)), Ok(RootCerts::Specific(found)) if found.len() == 1));
    std::fs::write(&path, "nothing").expect("a file");
    assert!(roots(Some(&path)).expect_err("no certificate").contains("roots.pem"));
    assert!(roots(None).is_ok());
}

#[test]
fn the_thread_fetches_keys_and_ends_with_its_authority() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/tokens/vectors.json")).expect("JSON");
    let (url, requests) = answering("200 OK", "", vectors["jwks"].to_string().into_bytes());
    let auth = AuthTable {
        keys_url: Some(Located { value: url, source: "a.toml:2".to_owned() }),
        algorithms: vec!["ES256".to_owned()],
        leeway: Duration::ZERO,
        grace: Duration::ZERO,
        ..AuthTable::default()
    };
    let tables = AccessTables { auth: Some(auth), ..AccessTables::default() };
    let authority = Arc::new(Authority::new(&tables, &Arc::default(), 0).expect("an authority"));
    start(&authority).expect("a thread");
    requests.recv_timeout(Duration::from_secs(30)).expect("a request at start");
    let begin = Instant::now();
    while authority.trusted_keys() == 0 && begin.elapsed() < Duration::from_secs(30) {
        thread::yield_now();
    }
    assert_eq!(authority.trusted_keys(), 5);
    // Many unknown keys within the cool-down ask for nothing more.
    let name = |vector: &&serde_json::Value| vector["name"] == "PyJWT: kid of another family";
    let forged = vectors["tokens"].as_array().unwrap().iter().find(name).expect("a vector");
    for _ in 0..100 {
        authority.identify(forged["token"].as_str().unwrap().as_bytes(), 0).result.expect_err("forged");
    }
    assert!(authority.wants_keys() && requests.recv_timeout(Duration::from_millis(300)).is_err());
    let kept = Arc::downgrade(&authority);
    drop(authority);
    let begin = Instant::now();
    while kept.strong_count() > 0 && begin.elapsed() < Duration::from_secs(30) {
        thread::yield_now();
    }
    assert_eq!(kept.strong_count(), 0);
}
