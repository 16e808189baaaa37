//! Where keys of tokens come from: the files of `[auth]`, and what was fetched from `keys-url`.
//!
//! Files are read whole and compared with what was read last, so that a replaced file, link or mounted secret is noticed
//! whatever its times say. What is wrong with a file, or with the keys of all sources together, changes nothing: the keys before
//! stay.
//!
//! Not responsible for fetching (`server/token_keys.rs`). Memory: at most [`FILE_BYTES_MAX`] at a time for reading, and the
//! keys.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::access::trusted_keys::TrustedKeys;
use crate::config::auth::{AuthTable, Located};

/// The longest file with keys, and the longest answer from `keys-url`, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where keys are fetched from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysUrl {
    /// `keys-url`.
    pub url: String,
    /// `keys-ca-file`: the authorities that its certificate is checked with.
    pub ca_file: Option<PathBuf>,
}

impl KeysUrl {
    /// What `[auth]` says, if it names an address.
    pub(crate) fn of(auth: &AuthTable) -> Option<Self> {
        let ca_file = auth.keys_ca_file.as_ref().map(|file| file.value.clone());
        auth.keys_url.as_ref().map(|url| Self { url: url.value.clone(), ca_file })
    }

    /// Whether the connection is protected.
    pub(crate) fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }
}

/// All sources.
#[derive(Debug, Default)]
pub(crate) struct KeySources {
    files: Vec<KeyFile>,
    fetched: TrustedKeys,
}

/// One file.
#[derive(Debug)]
struct KeyFile {
    setting: &'static str,
    path: PathBuf,
    source: String,
    /// Of what was read last, good or bad.
    seen: Option<[u8; 32]>,
    keys: TrustedKeys,
}

/// Something for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Whether something is wrong.
    pub is_error: bool,
    /// A sentence without a full stop.
    pub text: String,
}

impl KeySources {
    /// Reads every file.
    ///
    /// # Errors
    /// A sentence that names the line of the setting and the file.
    pub(crate) fn read(auth: Option<&AuthTable>) -> Result<Self, String> {
        let Some(auth) = auth else { return Ok(Self::default()) };
        let settings = [
            ("hs-secret-file", &auth.hs_secret_file),
            ("hs-previous-secret-file", &auth.hs_previous_secret_file),
            ("keys-file", &auth.keys_file),
        ];
        let set = settings.into_iter().filter_map(|(setting, file)| Some((setting, file.as_ref()?)));
        let mut files = Vec::new();
        for (setting, Located { value, source }) in set {
            let (path, source) = (value.clone(), source.clone());
            let mut file = KeyFile { setting, path, source, seen: None, keys: TrustedKeys::default() };
            let text = file.text()?;
            file.keys = file.keys_in(&text)?;
            files.push(file);
        }
        let sources = Self { files, fetched: TrustedKeys::default() };
        sources.united().map_err(|why| format!("{}: {why}", auth.source))?;
        Ok(sources)
    }

    /// The keys of all of them.
    pub(crate) fn united(&self) -> Result<TrustedKeys, String> {
        let files = self.files.iter().map(|file| file.keys.clone());
        TrustedKeys::unite(files.chain([self.fetched.clone()]))
    }

    /// Reads files again that have changed. True: the keys are others now.
    pub(crate) fn read_changed(&mut self, notices: &mut Vec<Notice>) -> bool {
        let mut is_changed = false;
        for at in 0..self.files.len() {
            let read = self.files[at].changed().transpose();
            let Some(read) = read else { continue };
            let replaced = read.and_then(|keys| {
                let before = std::mem::replace(&mut self.files[at].keys, keys);
                if let Err(why) = self.united() {
                    self.files[at].keys = before;
                    let file = &self.files[at];
                    return Err(format!("{}: {} {}: {why}", file.source, file.setting, file.path.display()));
                }
                Ok(!before.is_same(&self.files[at].keys))
            });
            let file = &self.files[at];
            match replaced {
                Ok(is_other) => {
                    is_changed |= is_other;
                    let keys = file.keys.len();
                    let text = format!("{} {} was read again: it has {keys} keys", file.setting, file.path.display());
                    notices.push(Notice { is_error: false, text });
                }
                Err(why) => notices.push(Notice { is_error: true, text: format!("the keys before stay: {why}") }),
            }
        }
        is_changed
    }

    /// Takes what was fetched. True: the keys are others now.
    ///
    /// # Errors
    /// The rest of a sentence; the keys before stay.
    pub(crate) fn take_fetched(&mut self, text: &[u8]) -> Result<bool, String> {
        let keys = TrustedKeys::read(text, true)?;
        if keys.is_same(&self.fetched) {
            return Ok(false);
        }
        let before = std::mem::replace(&mut self.fetched, keys);
        if let Err(why) = self.united() {
            self.fetched = before;
            return Err(why);
        }
        Ok(true)
    }

    /// Keeps what another has fetched.
    ///
    /// # Errors
    /// The rest of a sentence: those keys do not go with the ones here.
    pub(crate) fn keep_fetched(&mut self, other: &Self) -> Result<(), String> {
        self.fetched = other.fetched.clone();
        self.united().map(drop)
    }
}

impl KeyFile {
    /// The keys, if the file has changed since it was read last.
    fn changed(&mut self) -> Result<Option<TrustedKeys>, String> {
        let before = self.seen;
        let text = match self.text() {
            Ok(text) => text,
            // Said once, until it can be read again.
            Err(sentence) => {
                let is_new = before != Some([0; 32]);
                self.seen = Some([0; 32]);
                return if is_new { Err(sentence) } else { Ok(None) };
            }
        };
        if self.seen == before { Ok(None) } else { self.keys_in(&text).map(Some) }
    }

    /// Reads the file, and notes what was seen.
    fn text(&mut self) -> Result<Vec<u8>, String> {
        let text = read_bounded(&self.path).map_err(|why| self.sentence(&why))?;
        let mut seen = [0; 32];
        seen.copy_from_slice(digest(&SHA256, &text).as_ref());
        self.seen = Some(seen);
        Ok(text)
    }

    fn keys_in(&self, text: &[u8]) -> Result<TrustedKeys, String> {
        let keys = match self.setting {
            "keys-file" => TrustedKeys::read(text, false),
            _ => TrustedKeys::secret(text),
        };
        keys.map_err(|why| self.sentence(&why))
    }

    fn sentence(&self, why: &str) -> String {
        format!("{}: {} {}: {why}", self.source, self.setting, self.path.display())
    }
}

/// The content of a file of keys.
fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("it cannot be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX { Err("it is longer than 1 MiB".to_owned()) } else { Ok(bytes) }
}
