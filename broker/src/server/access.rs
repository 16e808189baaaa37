//! Access control of the configuration: made into the rules and keys that [`Authority`] works with.
//!
//! | what | where it comes from |
//! | --- | --- |
//! | rules and API keys ([`setup`]) | the tables of the file |
//! | keys that tokens are signed with ([`Sources::load`]) | the files that `[auth]` names |
//! | public keys of an identity provider | `keys-url`, see `server/keys.rs` |
//!
//! Not responsible for reading the tables (`config/access.rs`), nor for tokens (`access`). A sentence about a file never has
//! anything of its content.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::authority::{KeyRule, Setup};
use crate::access::grants::{Grants, Operation, Right, Scope};
use crate::access::keyset::KeySet;
use crate::access::rules::{AllowRule, Whom};
use crate::config::access::{AccessTables, AuthTable, GrantLists, PrincipalPattern};

/// Longest file with keys, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the tables say; `None`: there is no access control.
///
/// # Panics
/// If a name is not one that the configuration was checked for.
pub(crate) fn setup(tables: &AccessTables) -> Option<Setup> {
    if !tables.are_any() {
        return None;
    }
    let auth = tables.auth.clone().unwrap_or_default();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let allow = tables.allow.iter().map(|table| AllowRule {
        whom: match &table.principal {
            PrincipalPattern::Anonymous => Whom::Anonymous,
            PrincipalPattern::User => Whom::User,
            PrincipalPattern::Claim(name, value) => Whom::Claim { name: name.clone(), value: value.clone() },
        },
        grants: grants(&table.grants),
        source: table.source.clone(),
    });
    let keys = tables.keys.iter().map(|table| KeyRule {
        name: table.name.clone(),
        sha256: table.sha256,
        grants: grants(&table.grants),
        source: table.source.clone(),
    });
    Some(Setup {
        required: auth.required,
        algorithms: auth.algorithms.iter().map(|name| name.parse().expect("a checked name")).collect(),
        issuer: auth.issuer,
        audience: auth.audience,
        typ: auth.typ,
        user_claim: auth.user_claim,
        topics_claim: auth.topics_claim,
        leeway_ms: millis(auth.leeway),
        grace_ms: millis(auth.grace),
        max_age_ms: auth.max_age.map(millis),
        query_token: auth.query_token,
        cookie: auth.cookie.map(Into::into),
        explain: auth.explain,
        allow: allow.collect(),
        keys: keys.collect(),
    })
}

fn grants(lists: &GrantLists) -> Grants {
    let mut grants = Grants::default();
    let of = [
        (Operation::Subscribe, &lists.subscribe),
        (Operation::Publish, &lists.publish),
        (Operation::Respond, &lists.respond),
        (Operation::Lease, &lists.lease),
    ];
    for (operation, filters) in of {
        filters.iter().for_each(|filter| grants.grant(operation, filter.as_str()));
    }
    grants.rights = lists.rights.iter().map(|name| Right::named(name).expect("a checked name")).collect();
    grants.scopes = lists.api.iter().map(|name| Scope::named(name).expect("a checked name")).collect();
    grants
}

/// The files that keys come from.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Sources {
    secret: Option<PathBuf>,
    previous_secret: Option<PathBuf>,
    public: Option<PathBuf>,
}

impl Sources {
    pub(crate) fn of(auth: Option<&AuthTable>) -> Self {
        let Some(auth) = auth else { return Self::default() };
        Self {
            secret: auth.hs_secret_file.clone(),
            previous_secret: auth.hs_previous_secret_file.clone(),
            public: auth.keys_file.clone(),
        }
    }

    /// The keys in all files.
    ///
    /// # Errors
    /// A sentence that names the file, and nothing of its content.
    pub(crate) fn load(&self) -> Result<KeySet, String> {
        let mut all = KeySet::default();
        let secrets = [("hs-secret-file", &self.secret), ("hs-previous-secret-file", &self.previous_secret)];
        for (name, path) in secrets {
            if let Some(path) = path {
                all = join(all, name, path, KeySet::secret)?;
            }
        }
        match &self.public {
            Some(path) => join(all, "keys-file", path, KeySet::public),
            None => Ok(all),
        }
    }
}

fn join(
    all: KeySet,
    name: &str,
    path: &Path,
    parse: impl Fn(&[u8]) -> Result<KeySet, String>,
) -> Result<KeySet, String> {
    let shown = path.display();
    let bytes = read(path).map_err(|error| format!("{name}: {shown} cannot be read: {error}"))?;
    let keys = parse(&bytes).map_err(|why| format!("{name}: {shown}: {why}"))?;
    all.with(keys).map_err(|why| format!("{name}: {shown}: {why}"))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other("it is longer than 1 MiB")),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_the_configuration_takes_is_known() {
        let lists = GrantLists {
            subscribe: vec!["a".to_owned()],
            rights: ["presence", "enter", "history", "request"].map(str::to_owned).to_vec(),
            api: ["topics", "connections", "metrics", "inspect"].map(str::to_owned).to_vec(),
            ..GrantLists::default()
        };
        let made = grants(&lists);
        assert!(Right::ALL.iter().all(|right| made.rights.has(*right)));
        assert!(Scope::ALL.iter().all(|scope| made.scopes.has(*scope)));
        assert_eq!(made.filters(Operation::Subscribe), ["a".into()]);
    }

    #[test]
    fn a_file_that_is_wrong_is_named_without_its_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let load = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            let sources = Sources { secret: Some(path.clone()), ..Sources::default() };
            sources.load().map(|keys| keys.len())
        };
        assert_eq!(load("0123456789abcdef0123456789abcdef\n"), Ok(1));
        let sentence = load("hunter2").expect_err("it is short");
        assert!(sentence.starts_with("hs-secret-file: ") && sentence.contains("at least 32"), "{sentence}");
        assert!(!sentence.contains("hunter2"));
        let missing = Sources { public: Some("/nowhere/jwks.json".into()), ..Sources::default() };
        let sentence = missing.load().expect_err("no file");
        assert!(sentence.contains("/nowhere/jwks.json cannot be read"), "{sentence}");
    }
}
