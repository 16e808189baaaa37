//! The settings of TLS: what they become, and what does not go together.

use super::{Kept, config, read_with, refused};
use crate::config::tls::KeyExchange;
use crate::config::{Config, Task};

const TABLE: &str = "[[tls]]\ncert = 'a.pem'\nkey = 'a.key'\n";

/// Options behind a file with a table.
fn with_table(file: &Kept, options: &[&str]) -> Vec<String> {
    let beginning = ["--config", file.path(), "--allow-anonymous"];
    beginning.iter().chain(options).map(|word| (*word).to_owned()).collect()
}

fn config_of(words: &[String]) -> Config {
    config(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn tls_only_keeps_the_plain_port_to_this_machine() {
    let file = Kept::new("tls-only", TABLE);
    let listen = |address: &str, is_only: &str| {
        let options = ["--tls-listen=0.0.0.0:8443", "--listen", address, is_only];
        config_of(&with_table(&file, &options)).listen.to_string()
    };
    for (asked, becomes) in [
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[::ffff:0.0.0.0]:8080", "127.0.0.1:8080"),
        ("127.0.0.1:90", "127.0.0.1:90"),
        ("[::1]:90", "[::1]:90"),
    ] {
        assert_eq!(listen(asked, "--tls-only"), becomes);
    }
    for asked in ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:90"] {
        assert_eq!(listen(asked, "--tls-only=false"), asked);
    }
}

#[test]
fn tls_only_contradicts_an_address_of_other_machines() {
    let file = Kept::new("tls-contradiction", &format!("listen = '10.0.0.1:80'\n{TABLE}"));
    let said = |options: &[&str]| {
        let words = with_table(&file, options);
        refused(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let sentence = said(&["--tls-only", "--tls-listen=0.0.0.0:8443"]);
    let place = format!("--listen 10.0.0.1:80 ({}:1)", file.path());
    assert!(sentence.contains("--tls-only (flag) contradicts") && sentence.contains(&place), "{sentence}");
    for (address, shown) in [("[2001:db8::1]:80", "[2001:db8::1]:80"), ("[::ffff:10.0.0.1]:80", "10.0.0.1:80")] {
        let sentence = said(&["--tls-only", "--tls-listen=0.0.0.0:8443", "--listen", address]);
        assert!(sentence.contains(&format!("contradicts --listen {shown} (flag)")), "{sentence}");
    }
    assert!(said(&["--tls-only", "--listen=127.0.0.1:80"]).contains("--tls-only (flag) needs --tls-listen"));
    // The port with TLS is one that strangers reach.
    let strangers = ["--config", file.path(), "--tls-only", "--tls-listen=0.0.0.0:8443", "--listen=127.0.0.1:80"];
    let sentence = refused(&strangers);
    assert!(sentence.contains("--tls-listen 0.0.0.0:8443 (flag) can be reached from other machines"), "{sentence}");
}

/// From each source, and what holds where none says anything.
#[test]
fn version_and_key_exchange_are_those_that_were_asked_for() {
    let read = |config: &Config| (config.tls_only_13, config.tls_exchange);
    let usual = (false, KeyExchange::Hybrid);
    assert_eq!(read(&config(&[])), usual);
    let cases = [
        ("tls-min", "1.2", usual),
        ("tls-min", "1.3", (true, KeyExchange::Hybrid)),
        ("tls-key-exchange", "hybrid", usual),
        ("tls-key-exchange", "classic", (false, KeyExchange::Classic)),
    ];
    for (name, value, expected) in cases {
        assert_eq!(read(&config(&[&format!("--{name}"), value])), expected, "{name} {value}");
        let file = Kept::new(&format!("{name}-{value}"), &format!("{name} = '{value}'\n"));
        assert_eq!(read(&config(&["--config", file.path()])), expected, "{name} = {value}");
        let variable = format!("RINGYARD_{}", name.to_uppercase().replace('-', "_"));
        match read_with(&[], &[(&variable, value)]) {
            Ok(Task::Serve(config)) => assert_eq!(read(&config), expected, "{variable}={value}"),
            other => panic!("{variable}: {other:?}"),
        }
    }
    assert!(refused(&["--tls-min", "1.1"]).contains("--tls-min"));
}
