//! The brokers that can take part, read from `compare.toml` and files like it. Names in braces are replaced here.
//!
//! Not responsible for starting them (`server`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use loadgen::adapter::Protocol;
use serde::Deserialize;

use super::plan::{Point, Row};

/// Where daemons are that are on the path of root only.
const MORE_PATHS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Its fields are explained in `compare.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) files: Vec<PathBuf>,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(default)]
    pub(super) packages: Vec<String>,
    pub(super) npm: Option<String>,
    #[serde(default)]
    versions: Vec<Vec<String>>,
    pub(super) protocol: Protocol,
    pub(super) url: String,
    pub(super) publish_url: Option<String>,
    #[serde(default = "one")]
    pub(super) topics_per_connection: u32,
    rows: Option<Vec<Row>>,
    #[serde(default)]
    pub(super) settings: String,
    #[serde(default)]
    pub(super) documentation: Vec<String>,
    pub(super) remark: Option<String>,
    /// The folder of the file that it came from.
    #[serde(skip)]
    pub(super) here: PathBuf,
}

fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    peer: Vec<Peer>,
}

/// What words in braces stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(BTreeMap<&'static str, String>);

impl Words {
    pub(super) fn with(mut self, word: &'static str, meaning: impl ToString) -> Self {
        self.0.insert(word, meaning.to_string());
        self
    }

    pub(super) fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, meaning)| text.replace(&format!("{{{word}}}"), meaning))
    }
}

/// The peers of a file, in its order.
pub(super) fn read(path: &Path) -> Result<Vec<Peer>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let here = path.canonicalize()?.parent().map(Path::to_owned).context("a file without a folder")?;
    let peers = parse(&text, &here).with_context(|| format!("{} does not describe peers", path.display()))?;
    Ok(peers)
}

fn parse(text: &str, here: &Path) -> Result<Vec<Peer>> {
    let mut peers = toml::from_str::<File>(text)?.peer;
    for peer in &mut peers {
        ensure!(!peer.command.is_empty(), "peer {} has no command", peer.name);
        ensure!(
            !peer.name.is_empty() && peer.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "{:?} is no name: letters, digits and hyphens",
            peer.name
        );
        peer.here = here.to_owned();
    }
    Ok(peers)
}

impl Peer {
    /// `words`, and those that depend on where it was described.
    pub(super) fn words(&self, words: &Words) -> Words {
        words.clone().with("here", self.here.display())
    }

    /// Why it cannot take part, if it cannot.
    pub(super) fn missing(&self, words: &Words) -> Option<String> {
        let words = self.words(words);
        let program = words.put_into(&self.command[0]);
        let needs = self.needs.iter().map(|file| words.put_into(file)).find(|file| !Path::new(file).exists());
        match (find(&program), needs) {
            (None, _) => Some(format!("there is no {program}")),
            (_, Some(file)) => Some(format!("there is no {file}")),
            _ => None,
        }
    }

    /// What it is, in its own words.
    pub(super) fn version(&self, words: &Words) -> String {
        let words = self.words(words);
        let lines: Vec<_> = self.versions.iter().filter_map(|command| first_line(command, &words)).collect();
        lines.join(", ")
    }

    /// Why this point is nothing for it, if it is not.
    pub(super) fn cannot(&self, point: &Point) -> Option<String> {
        if self.rows.as_ref().is_some_and(|rows| !rows.contains(&point.row)) {
            return Some("does not take part".to_owned());
        }
        (self.topics_per_connection < point.topics_per_client)
            .then(|| format!("its connections hold {} topic each", self.topics_per_connection))
    }
}

/// A program, looked for as the shell does and where daemons are.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let paths = std::env::var("PATH").unwrap_or_default();
    let paths = format!("{paths}:{MORE_PATHS}");
    std::env::split_paths(&paths).map(|path| path.join(program)).find(|path| path.is_file())
}

fn first_line(command: &[String], words: &Words) -> Option<String> {
    let mut command = command.iter().map(|word| words.put_into(word));
    let output = Command::new(find(&command.next()?)?).args(command).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty())?.to_owned();
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plan::points;

    fn ours() -> Vec<Peer> {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("compare.toml")).unwrap()
    }

    #[test]
    fn the_peers_of_this_repository_are_described_in_full() {
        let words = ["port", "dir", "here", "ringyard", "bench", "descriptors"]
            .iter()
            .fold(Words::default(), |words, word| words.with(word, "x"));
        for peer in ours() {
            assert!(!peer.settings.is_empty() && !peer.versions.is_empty(), "{}", peer.name);
            let files = peer.files.iter().map(|file| fs::read_to_string(peer.here.join(file)).unwrap());
            for text in peer.command.iter().cloned().chain([peer.url.clone()]).chain(files) {
                let left = words.put_into(&text);
                let inside = left.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
                let unknown: Vec<_> =
                    inside.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())).collect();
                assert!(unknown.is_empty(), "{}: {unknown:?}", peer.name);
            }
        }
    }

    #[test]
    fn many_topics_are_for_those_whose_connections_hold_them() {
        let points = points(false);
        let topics = points.iter().find(|point| point.row == Row::Topics).unwrap();
        let able: Vec<_> =
            ours().iter().filter(|peer| peer.cannot(topics).is_none()).map(|peer| peer.name.clone()).collect();
        assert_eq!(able, ["ringyard-v1", "nats", "mosquitto", "nchan"]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| format!("{:#}", parse(text, Path::new("/")).unwrap_err());
        let peer = "[[peer]]\nname = \"a\"\ntitle = \"A\"\nprotocol = \"raw\"\nurl = \"ws://x/\"\n";
        assert!(error(&format!("{peer}command = []\n")).contains("no command"));
        assert!(error(&format!("{peer}command = [\"a\"]\nport = 1\n")).contains("port"));
        assert!(error(&format!("{peer}command = [\"a\"]\nrows = [\"sprint\"]\n")).contains("sprint"));
        assert!(parse(&format!("{peer}command = [\"a\"]\nrows = [\"topics\"]\n"), Path::new("/")).is_ok());
    }

    #[test]
    fn words_are_replaced() {
        let words = Words::default().with("port", 80).with("dir", "/d");
        assert_eq!(words.put_into("{dir}/x:{port} {else}"), "/d/x:80 {else}");
        assert!(find("sh").is_some() && find("/no/such").is_none() && find("no-such-program").is_none());
    }
}
