//! The crate's promise: no sockets, threads, clock or randomness, no unsafe, and few dependencies.

use std::path::{Path, PathBuf};

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_source_reaches_outside() {
    let forbidden =
        ["net", "os", "fs", "env", "process", "thread", "time", "sync::mpsc", "random", "hash::RandomState"]
            .map(|module| format!("std::{module}"));
    let words = ["Instant", "SystemTime", "HashMap", "HashSet", "async ", "unsafe ", "extern ", "static mut"];
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 15, "only {} files found", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file");
        // Comments may speak of what the code does not do.
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for word in forbidden.iter().map(String::as_str).chain(words) {
                assert!(!line.contains(word), "{} uses {word}: {line} ({number})", file.display());
            }
        }
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    assert!(include_str!("../src/lib.rs").contains("#![forbid(unsafe_code)]"));
}

/// A dependency that brings sockets or a clock would undo what the sources promise.
#[test]
fn dependencies_are_the_known_ones() {
    let manifest = include_str!("../Cargo.toml");
    let (_, after) = manifest.split_once("[dependencies]").expect("dependencies");
    let (section, _) = after.split_once("\n[").expect("a section behind them");
    let names: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with(char::is_alphabetic))
        .filter_map(|line| line.split([' ', '.', '=']).next())
        .collect();
    assert_eq!(names, ["base64", "bytes", "httparse", "sha1", "simd-json", "simdutf8"]);
}
