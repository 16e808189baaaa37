//! Keys that let their holders publish: the file of `--publish-key`, and whether a request has one of them.
//!
//! The file has one key a line: at least [`KEY_BYTES_MIN`] visible ASCII characters. Several lines are several keys, all of
//! them valid, so that a key can be replaced without a moment in which neither the old nor the new one is taken. Empty
//! lines, and lines that begin with `#`, say nothing. White space around a key does not belong to it.
//!
//! [`PublishKeys::reload`] reads the file again, for a signal for example. The new keys hold from the next request or
//! handshake on; connections that are open stay as they are. A file that is wrong changes nothing.
//!
//! Not responsible for what a key is needed for: see `policy`. A key appears in no error, no log line and no `Debug`.
//! Cost: one shared lock and one comparison per key and request; nothing where there is no file.

use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// The shortest key, in bytes.
pub const KEY_BYTES_MIN: usize = 16;
/// The longest one: a request head has to hold it.
const KEY_BYTES_MAX: usize = 1024;
/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Everybody on the machine may read the file.
const READABLE_BY_ALL: u32 = 0o004;

/// See the file's head. Shared by all threads of a broker. By default there is no file, and nobody needs a key.
#[derive(Default)]
pub struct PublishKeys {
    path: Option<PathBuf>,
    current: RwLock<Keys>,
}

/// The keys of a file.
type Keys = Arc<[Box<[u8]>]>;

/// What a request says about its right to publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Credential {
    /// There are no keys.
    Unneeded,
    /// There are keys, and it brings none.
    Missing,
    /// It brings one that is none of them.
    Wrong,
    /// It brings one of them.
    Valid,
}

/// What was read of a file of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// How many keys it has.
    pub keys: usize,
    /// What an operator should change about it, as a sentence.
    pub warning: Option<String>,
}

/// A key that a request brought, until it is compared.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(Box<[u8]>);

impl Bearer {
    /// The key that [`protocol::head::bearer`] found.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(key.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl PublishKeys {
    /// Reads the keys in the file at `path`.
    ///
    /// # Errors
    /// A sentence that names the file and, of a key that is none, its line.
    pub fn load(path: &Path) -> Result<(Self, Loaded), String> {
        let (keys, loaded) = read(path)?;
        Ok((Self { path: Some(path.to_owned()), current: RwLock::new(keys) }, loaded))
    }

    /// Reads the file again: its keys take the place of those before. `None`: there is no file.
    ///
    /// # Errors
    /// As of [`PublishKeys::load`]; the keys before still hold.
    pub fn reload(&self) -> Result<Option<Loaded>, String> {
        let Some(path) = &self.path else { return Ok(None) };
        let (keys, loaded) = read(path)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(Some(loaded))
    }

    /// Whether publishing needs a key.
    #[must_use]
    pub fn are_needed(&self) -> bool {
        self.path.is_some()
    }

    /// Compares what a request brings with every key, in a time that depends on neither of them but for their lengths.
    #[must_use]
    pub fn judge(&self, bearer: Option<&[u8]>) -> Credential {
        if !self.are_needed() {
            return Credential::Unneeded;
        }
        let Some(bearer) = bearer else { return Credential::Missing };
        let keys = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let is_one = keys.iter().fold(false, |is_one, key| is_one | is_equal(key, bearer));
        if is_one { Credential::Valid } else { Credential::Wrong }
    }
}

/// Keeps the keys out of logs.
impl fmt::Debug for PublishKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishKeys").field("path", &self.path).finish_non_exhaustive()
    }
}

fn is_equal(key: &[u8], other: &[u8]) -> bool {
    let mut difference = u8::from(key.len() != other.len());
    for (at, byte) in key.iter().enumerate() {
        difference |= byte ^ other.get(at).copied().unwrap_or_default();
    }
    // Or the compiler might end the loop at the first difference.
    black_box(difference) == 0
}

/// The keys in a file.
fn read(path: &Path) -> Result<(Keys, Loaded), String> {
    let name = path.display();
    let unreadable = |error| format!("the file of --publish-key, {name}, cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file of --publish-key, {name}, is longer than {} KiB", FILE_BYTES_MAX >> 10));
    }
    let keys = parse(&bytes).map_err(|(line, why)| format!("{name}:{line}: {why} (the file of --publish-key)"))?;
    if keys.is_empty() {
        return Err(format!(
            "the file of --publish-key, {name}, has no key: write one of at least {KEY_BYTES_MIN} characters"
        ));
    }
    let warning = (mode & READABLE_BY_ALL != 0).then(|| {
        format!("everybody on this machine may read {name}, the file of --publish-key: chmod o-r makes it private")
    });
    let loaded = Loaded { keys: keys.len(), warning };
    Ok((keys.into(), loaded))
}

/// The keys in a text; or the line, from 1, that is none, and why.
fn parse(text: &[u8]) -> Result<Vec<Box<[u8]>>, (usize, String)> {
    let mut keys = Vec::new();
    for (line, key) in (1..).zip(text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii)) {
        if key.is_empty() || key.starts_with(b"#") {
            continue;
        }
        if let Some(at) = key.iter().position(|byte| !byte.is_ascii_graphic()) {
            let what = if key[at] == b' ' { "a space" } else { "a character that is not visible ASCII" };
            return Err((line, format!("a key must be one word of visible ASCII characters, and this one has {what}")));
        }
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            let (len, least, most) = (key.len(), KEY_BYTES_MIN, KEY_BYTES_MAX);
            return Err((line, format!("a key must have from {least} to {most} characters, and this one has {len}")));
        }
        keys.push(key.into());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const FIRST: &str = "0123456789abcdef";
    const SECOND: &str = "another-key/of+24=chars!";

    /// A file with this text and mode, in a folder that is gone with it.
    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        (folder, path)
    }

    fn error(text: &[u8]) -> String {
        let (_folder, path) = file(text, 0o600);
        PublishKeys::load(&path).expect_err("no keys")
    }

    #[test]
    fn every_line_is_a_key_but_comments_and_empty_ones() {
        let (_folder, path) = file(format!("# first\n {FIRST}\t\r\n\n{SECOND}").as_bytes(), 0o600);
        let (keys, loaded) = PublishKeys::load(&path).expect("keys");
        assert_eq!(loaded, Loaded { keys: 2, warning: None });
        let cases = [
            (Some(FIRST), Credential::Valid),
            (Some(SECOND), Credential::Valid),
            (Some("0123456789abcdeF"), Credential::Wrong),
            (Some("0123456789abcdef0"), Credential::Wrong),
            (Some("0123456789abcde"), Credential::Wrong),
            (Some("# first"), Credential::Wrong),
            (Some(""), Credential::Wrong),
            (None, Credential::Missing),
        ];
        for (bearer, expected) in cases {
            assert_eq!(keys.judge(bearer.map(str::as_bytes)), expected, "{bearer:?}");
        }
        assert_eq!(PublishKeys::default().judge(Some(FIRST.as_bytes())), Credential::Unneeded);
    }

    #[test]
    fn a_file_that_everybody_may_read_is_worth_a_warning() {
        let (_folder, path) = file(FIRST.as_bytes(), 0o644);
        let warning = PublishKeys::load(&path).expect("keys").1.warning.expect("a warning");
        assert!(warning.contains("chmod o-r") && warning.contains(path.to_str().expect("text")), "{warning}");
        assert!(!warning.contains(FIRST));
    }

    #[test]
    fn what_is_wrong_is_a_sentence_with_file_and_line_and_without_the_key() {
        for (text, part) in [
            (&b""[..], "has no key"),
            (b"\n# 0123456789abcdef\n \n", "has no key"),
            (b"\nsecretsecret", "keys:2: "),
            (b"secretsecretsecret\nsecret secret secret", "a space"),
            (b"secretsecretsecret\xff", "keys:1: "),
            (b"secretsecretsecret\x01", "not visible ASCII"),
            (&[b's'; 1025], "has 1025"),
            (&[b'\n'; 65 << 10], "64 KiB"),
        ] {
            let sentence = error(text);
            assert!(sentence.contains(part) && sentence.contains("--publish-key"), "{sentence}");
            assert!(!sentence.contains("secret"), "{sentence}");
        }
        let missing = PublishKeys::load(Path::new("/nowhere/keys")).expect_err("no file");
        assert!(missing.contains("/nowhere/keys") && missing.contains("cannot be read"), "{missing}");
        assert!(PublishKeys::load(Path::new("/")).expect_err("a folder").contains("cannot be read"));
    }

    #[test]
    fn a_file_that_is_read_again_replaces_its_keys_or_changes_nothing() {
        let (_folder, path) = file(FIRST.as_bytes(), 0o600);
        let (keys, _) = PublishKeys::load(&path).expect("keys");
        let judged = |key: &str| keys.judge(Some(key.as_bytes()));
        fs::write(&path, "short").expect("a file");
        assert!(keys.reload().expect_err("no key").contains("keys:1: "));
        assert_eq!(judged(FIRST), Credential::Valid);
        fs::write(&path, format!("{FIRST}\n{SECOND}\n")).expect("a file");
        assert_eq!(keys.reload(), Ok(Some(Loaded { keys: 2, warning: None })));
        assert_eq!((judged(FIRST), judged(SECOND)), (Credential::Valid, Credential::Valid));
        fs::write(&path, SECOND).expect("a file");
        keys.reload().expect("keys");
        assert_eq!((judged(FIRST), judged(SECOND)), (Credential::Wrong, Credential::Valid));
        assert_eq!(PublishKeys::default().reload(), Ok(None));
    }

    #[test]
    fn keys_stay_out_of_what_is_printed() {
        let (_folder, path) = file(FIRST.as_bytes(), 0o600);
        let (keys, _) = PublishKeys::load(&path).expect("keys");
        assert!(!format!("{keys:?} {:?}", Bearer::new(FIRST.as_bytes())).contains(FIRST));
    }

    proptest! {
        #[test]
        fn equal_is_equal(a in prop::collection::vec(0_u8..3, 0..6), b in prop::collection::vec(0_u8..3, 0..6)) {
            prop_assert_eq!(is_equal(&a, &b), a == b);
        }
    }
}
