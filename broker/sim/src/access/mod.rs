//! Access control of a run: with what the broker is configured, and what it therefore grants to whom. Grants are worked out a
//! second time here, on purpose: nothing of the broker's own judgement is asked.
//!
//! | file | what it is |
//! | --- | --- |
//! | `mod` | tables, and what they grant |
//! | `token` | tokens, good and bad |

mod token;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::config::auth::{AccessTables, AllowTable, AuthTable, GrantLists, Located, Who};
use ring::Random;

use crate::model::contains;
pub(crate) use token::time_of_day;
pub use token::{Claims, Token, Verdicts};

/// The time of day when the clock of the simulation is 0, in seconds since 1970.
pub(crate) const EPOCH_S: u64 = 1_900_000_000;
/// Whose tokens there are.
pub(crate) const USERS: [&str; 3] = ["ann", "bob", "cyn"];

/// Filters, and whether what they match may be read from the past.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Grants {
    /// What may be subscribed to.
    pub subscribe: Vec<String>,
    /// What may be published to.
    pub publish: Vec<String>,
    /// The right `history` for `subscribe`.
    pub history: bool,
}

/// What the broker is configured with.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether everybody needs a token.
    pub required: bool,
    /// How long a token is accepted after its end, in milliseconds.
    pub leeway_ms: u64,
    /// How long a connection may stay after its token's end, in milliseconds.
    pub grace_ms: u64,
    /// Whether refusals name the nearest grant.
    pub explain: bool,
    /// What tokens that were seen may take, in bytes.
    pub cache_bytes: u64,
    /// What every user may do; `{sub}` is its name.
    pub user: Grants,
    /// What users with the role `admin` may do besides.
    pub admin: Grants,
    /// What clients without a token may do.
    pub anonymous: Grants,
    /// In ten-thousandths per round: an operator revokes or closes a user, or has the same rules read again.
    pub operators: usize,
}

impl Access {
    /// Access control of a seed's own, from a generator of its own.
    pub(crate) fn draw(rng: &mut Random) -> Self {
        let required = rng.one_in(2);
        let user = Grants { history: rng.percent(70), ..some(rng, &["+", "a/#", "b/+", "u/+/x"], 70, true) };
        let admin = Grants { history: rng.one_in(2), ..some(rng, &["#", "a/#", "a/+", "u/#"], 60, false) };
        let anonymous = if required { Grants::default() } else { some(rng, &["+", "a/#", "b/#", "u/+/x"], 50, false) };
        let anonymous = Grants { history: rng.one_in(2) && !anonymous.subscribe.is_empty(), ..anonymous };
        Self {
            required,
            leeway_ms: rng.pick(&[0, 0, 1_000, 30_000]),
            grace_ms: rng.pick(&[0, 500, 3_000, 25_000]),
            explain: rng.one_in(2),
            cache_bytes: rng.pick(&[0, 20_000, 1 << 20]),
            user,
            admin,
            anonymous,
            operators: rng.pick(&[0, 50, 200, 500]),
        }
    }

    /// The broker's tables, with the secret in a file.
    pub(crate) fn tables(&self, secret: &Path) -> AccessTables {
        let source = || "run.toml:1".to_owned();
        let auth = AuthTable {
            source: source(),
            required: self.required,
            hs_secret_file: Some(Located { value: secret.to_owned(), source: source() }),
            algorithms: vec!["HS256".to_owned()],
            leeway: Duration::from_millis(self.leeway_ms),
            grace: Duration::from_millis(self.grace_ms),
            explain: self.explain,
            ..AuthTable::default()
        };
        let admin = Who::Claim { name: "role".to_owned(), value: "admin".to_owned() };
        let rows = [(Who::User, &self.user), (admin, &self.admin), (Who::Anonymous, &self.anonymous)];
        let row = |(principal, grants): (Who, &Grants)| AllowTable {
            source: source(),
            principal,
            grants: GrantLists {
                subscribe: grants.subscribe.clone(),
                publish: grants.publish.clone(),
                rights: if grants.history { vec!["history".to_owned()] } else { Vec::new() },
                ..GrantLists::default()
            },
        };
        let rows = rows.into_iter().filter(|(principal, _)| !self.required || *principal != Who::Anonymous);
        AccessTables { auth: Some(auth), allows: rows.map(row).collect(), keys: Vec::new() }
    }

    /// What somebody may do; `None`: who has no token.
    pub(crate) fn rights(&self, claims: Option<&Claims>) -> Rights {
        let mut rights = Rights::default();
        match claims {
            None => rights.add(&self.anonymous, ""),
            Some(claims) => {
                let user = USERS[claims.user];
                rights.add(&self.user, user);
                rights.add(&claims.own, user);
                if claims.is_admin {
                    rights.add(&self.admin, user);
                }
            }
        }
        rights
    }
}

/// Some of these filters, and perhaps `u/{sub}/#`.
fn some(rng: &mut Random, filters: &[&str], percent: usize, own: bool) -> Grants {
    let mut list = || {
        let mut list: Vec<_> =
            filters.iter().filter(|_| rng.percent(percent)).map(|&filter| filter.to_owned()).collect();
        if own && !rng.one_in(4) {
            list.push("u/{sub}/#".to_owned());
        }
        list
    };
    let (mut subscribe, publish) = (list(), list());
    if subscribe.is_empty() {
        // The right `history` needs something to be a right for.
        subscribe.push("t0".to_owned());
    }
    Grants { subscribe, publish, history: false }
}

/// What one principal may do.
#[derive(Clone, Default, Debug)]
pub(crate) struct Rights {
    subscribe: Vec<(String, bool)>,
    publish: Vec<String>,
}

impl Rights {
    fn add(&mut self, grants: &Grants, user: &str) {
        let named = |filter: &String| filter.replace("{sub}", user);
        self.subscribe.extend(grants.subscribe.iter().map(|filter| (named(filter), grants.history)));
        self.publish.extend(grants.publish.iter().map(named));
    }

    /// Whether this filter lies within one that is granted.
    pub(crate) fn subscribes(&self, filter: &str) -> bool {
        self.subscribe.iter().any(|(granted, _)| contains(granted, filter))
    }

    /// The same with the right to read what was published before.
    pub(crate) fn reads(&self, filter: &str) -> bool {
        self.subscribe.iter().any(|(granted, history)| *history && contains(granted, filter))
    }

    pub(crate) fn publishes(&self, topic: &str) -> bool {
        self.publish.iter().any(|granted| contains(granted, topic))
    }
}

/// The file with the secret, which goes with the run.
#[derive(Debug)]
pub(crate) struct SecretFile(PathBuf);

impl SecretFile {
    /// A file of its own for each run of this process.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringyard-sim-{}-{number}", std::process::id()));
        std::fs::write(&path, token::SECRET).expect("a file for the secret");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        // It is a file of a test: what is left of it harms nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}
