//! The schedule with a clock of its own, and the thread.

use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::access::principal::Cause;
use crate::config::auth::{AccessTables, AuthTable, Located};
use crate::server::token_keys::fixture::{PrivateAuthority, answering, serve_tls, source, with_body};

#[test]
fn the_schedule_heeds_answers_failures_and_unknown_keys() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let (a, b) = (source("http://a"), source("http://b"));
    let hold = |seconds| Ok(Some(Duration::from_secs(seconds)));
    let mut schedule = Schedule::new(start);
    assert!(schedule.fetch(at(0), false, &a), "at once");
    schedule.fetched(at(0), Ok(None));
    assert!(!schedule.fetch(at(299), false, &a) && schedule.fetch(at(300), false, &a));
    schedule.fetched(at(300), hold(1));
    assert!(!schedule.fetch(at(359), false, &a) && schedule.fetch(at(360), false, &a), "a minute at least");
    schedule.fetched(at(360), hold(1_000_000));
    assert!(!schedule.fetch(at(360 + 3599), false, &a));
    // An unknown key asks at once, also just after a fetch that none asked for, but not again within 10 s.
    assert_eq!(schedule.rest(at(361), true).as_secs(), 0);
    assert!(schedule.fetch(at(400), true, &a));
    schedule.fetched(at(400), hold(3600));
    assert!(!schedule.fetch(at(409), true, &a) && !schedule.cool_down(at(409)));
    assert_eq!(schedule.rest(at(409), true).as_secs(), 0, "files are due");
    assert!(schedule.look_at_files(at(409)) && !schedule.look_at_files(at(413)));
    assert_eq!(schedule.rest(at(409), true).as_secs(), 1);
    assert_eq!(schedule.rest(at(409), false).as_secs(), 1, "the next unknown key is worth a fetch then");
    assert!(schedule.cool_down(at(410)) && !schedule.cool_down(at(410)));
    assert_eq!(schedule.rest(at(410), false).as_secs(), 4, "files are due");
    assert!(schedule.fetch(at(410), true, &a));
    schedule.fetched(at(410), Err("gone".to_owned()));
    assert_eq!(schedule.said.as_deref(), Some("gone"));
    assert!(!schedule.fetch(at(469), false, &a) && schedule.fetch(at(470), false, &a), "a minute after a failure");
    schedule.fetched(at(470), hold(3600));
    assert_eq!(schedule.said, None);
    assert!(schedule.fetch(at(471), false, &b), "another address is asked at once");
    let trusting = KeysUrl { ca_file: Some("ca.pem".into()), ..b };
    assert!(schedule.fetch(at(472), false, &trusting), "so is the same one with other authorities");
}

/// Tables whose keys come from an address, and what the vectors of tokens are.
fn fetching(source: KeysUrl) -> (AccessTables, serde_json::Value) {
    let vectors = serde_json::from_str(include_str!("../../../tests/tokens/vectors.json")).expect("JSON");
    let located = |value: PathBuf| Located { value, source: "a.toml:3".to_owned() };
    let auth = AuthTable {
        keys_url: Some(Located { value: source.url, source: "a.toml:2".to_owned() }),
        keys_ca_file: source.ca_file.map(located),
        algorithms: vec!["ES256".to_owned()],
        leeway: Duration::ZERO,
        grace: Duration::ZERO,
        ..AuthTable::default()
    };
    (AccessTables { auth: Some(auth), ..AccessTables::default() }, vectors)
}

fn authority(tables: &AccessTables) -> Arc<Authority> {
    Arc::new(Authority::new(tables, &Arc::default(), 0).expect("an authority"))
}

/// What becomes of the vector of this name.
fn use_token(authority: &Authority, vectors: &serde_json::Value, name: &str) -> Result<(), Cause> {
    let vector = vectors["tokens"].as_array().unwrap().iter().find(|vector| vector["name"] == name).expect("a vector");
    let now_ms = vectors["now_s"].as_u64().unwrap() * 1000;
    let token = vector["token"].as_str().unwrap().as_bytes();
    authority.identify(token, now_ms).result.map(drop).map_err(|denial| denial.cause)
}

const GOOD: &str = "PyJWT: good ES256";
const UNKNOWN: &str = "PyJWT: kid of another family";

#[test]
fn whatever_a_server_says_later_the_keys_before_stay() {
    let ca = PrivateAuthority::new();
    let answer = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&answer);
    let (source, requests) = serve_tls(&ca, move |stream| _ = stream.write_all(&said.lock().unwrap()));
    let (tables, vectors) = fetching(source);
    let authority = authority(&tables);
    let good = with_body("200 OK", "cache-control: max-age=600\r\n", vectors["jwks"].to_string().as_bytes());
    let html = b"<!doctype html><title>Sign in</title>";
    let redirect = with_body("302 Found", "location: https://localhost/\r\n", b"");
    let wrong: [(&str, Vec<u8>, &str); 8] = [
        ("HTML", with_body("200 OK", "content-type: text/html\r\n", html), "not a JSON object"),
        ("HTML as JSON", with_body("200 OK", "content-type: application/json\r\n", html), "not a JSON object"),
        ("no keys", with_body("200 OK", "", b"{\"keys\":[]}"), "no key that can be used"),
        ("half a set", good[..good.len() / 2].to_vec(), "cannot be read"),
        ("a redirect", redirect, "redirects are not followed"),
        ("an error", with_body("503 Service Unavailable", "", b""), "503"),
        ("too much", with_body("200 OK", "", &vec![b' '; (1 << 20) + 1]), "at most 1 MiB"),
        ("nothing", Vec::new(), "the request failed"),
    ];
    let (start, mut schedule) = (Instant::now(), Schedule::new(Instant::now()));
    let turn = |seconds, schedule: &mut Schedule| {
        schedule.turn(&authority, || start + Duration::from_secs(seconds), TIMEOUT);
        (requests.try_iter().count(), schedule.said.clone().unwrap_or_default())
    };
    // Whatever it calls itself, it is a set of keys.
    *answer.lock().unwrap() =
        with_body("200 OK", "content-type: text/plain\r\n", vectors["jwks"].to_string().as_bytes());
    assert_eq!(turn(1, &mut schedule), (1, String::new()));
    assert_eq!((authority.trusted_keys(), use_token(&authority, &vectors, GOOD)), (5, Ok(())));
    assert_eq!(use_token(&authority, &vectors, UNKNOWN), Err(Cause::UnknownKey));
    assert_eq!(turn(2, &mut schedule).0, 1, "the first unknown key is worth a fetch");
    let mut at = 2;
    for (name, text, part) in wrong {
        *answer.lock().unwrap() = text;
        assert_eq!(use_token(&authority, &vectors, UNKNOWN), Err(Cause::UnknownKey));
        assert_eq!(turn(at + 9, &mut schedule).0, 0, "{name}: within 10 s nobody is asked again");
        at += 10;
        let (asked, sentence) = turn(at, &mut schedule);
        assert!(asked == 1 && sentence.contains(part), "{name}: {sentence}");
        assert_eq!((authority.trusted_keys(), use_token(&authority, &vectors, GOOD)), (5, Ok(())), "{name}");
        // A failure does not make the next unknown key ask earlier, nor does it ask by itself within a minute.
        assert_eq!(turn(at + 1, &mut schedule).0, 0, "{name}");
    }
    *answer.lock().unwrap() = good;
    assert_eq!(turn(at + 59, &mut schedule).0, 0);
    assert_eq!(turn(at + 60, &mut schedule), (1, String::new()), "a minute after a failure");
    assert_eq!((turn(at + 60 + 599, &mut schedule).0, turn(at + 60 + 600, &mut schedule).0), (0, 1), "max-age");
}

#[test]
fn the_thread_fetches_keys_and_ends_with_its_authority() {
    let ca = PrivateAuthority::new();
    let set = serde_json::from_str::<serde_json::Value>(include_str!("../../../tests/tokens/vectors.json"));
    let answer = with_body("200 OK", "", set.expect("JSON")["jwks"].to_string().as_bytes());
    let (source, requests) = serve_tls(&ca, move |stream| {
        thread::sleep(Duration::from_millis(200));
        let _ = stream.write_all(&answer);
    });
    let (tables, vectors) = fetching(source);
    let authority = authority(&tables);
    start(&authority).expect("a thread");
    assert_eq!(authority.trusted_keys(), 5, "the start waits for them");
    assert_eq!(requests.try_iter().count(), 1);
    // Many unknown keys at once ask for one fetch, and for nothing more within the cool-down.
    let is_awaited = || authority.key_fetch().is_awaited(vectors["now_s"].as_u64().unwrap() * 1000);
    let use_many = || {
        for _ in 0..100 {
            assert_eq!(use_token(&authority, &vectors, UNKNOWN), Err(Cause::UnknownKey));
        }
    };
    use_many();
    assert!(is_awaited());
    let begin = Instant::now();
    while is_awaited() {
        assert!(begin.elapsed() < Duration::from_secs(30), "the fetch does not end");
        thread::yield_now();
    }
    assert_eq!(requests.try_iter().count(), 1);
    use_many();
    assert!(!is_awaited() && authority.key_fetch().is_wanted());
    assert!(requests.recv_timeout(Duration::from_millis(300)).is_err());
    let kept = Arc::downgrade(&authority);
    drop(authority);
    let begin = Instant::now();
    while kept.strong_count() > 0 && begin.elapsed() < Duration::from_secs(30) {
        thread::yield_now();
    }
    assert_eq!(kept.strong_count(), 0);
}

#[test]
fn a_start_goes_on_without_keys_and_not_without_authorities() {
    let (source, _requests) = answering("500 Internal Server Error", "", b"");
    let authority_without_keys = authority(&fetching(source).0);
    start(&authority_without_keys).expect("it is asked again");
    assert_eq!(authority_without_keys.trusted_keys(), 0);
    let ca_file = Some(PathBuf::from("/nowhere/ca.pem"));
    let nobody = KeysUrl { url: "https://localhost:1/".to_owned(), ca_file };
    let sentence = start(&authority(&fetching(nobody).0)).expect_err("a file that is not there");
    assert!(sentence.starts_with("keys-ca-file, /nowhere/ca.pem, has no certificate"), "{sentence}");
}
