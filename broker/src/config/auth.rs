//! The tables `[auth]`, `[[allow]]` and `[[key]]`: who may come in, and what each may do.
//!
//! Access control is on as soon as one of them is in the file. Not responsible for what stands in the files that they name,
//! nor for what follows from them: [`access::authority`](crate::access::authority) makes a policy of these tables.
//!
//! Invariant: in [`AccessTables`] every filter is valid, names of keys differ, and whatever a table needs is there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::auth_schema::AUTH;
use crate::config::provenance::{Section, Source};
use crate::config::values;

/// Most tables of one kind, and most filters of one list.
const COUNT_MAX: usize = 10_000;

/// A value with its place in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// `FILE:LINE`.
    pub source: String,
}

/// The three tables.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AccessTables {
    /// `[auth]`.
    pub auth: Option<AuthTable>,
    /// Every `[[allow]]`.
    pub allows: Vec<AllowTable>,
    /// Every `[[key]]`.
    pub keys: Vec<KeyTable>,
}

impl AccessTables {
    /// Whether there is no table, so that access control is off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.auth.is_none() && self.allows.is_empty() && self.keys.is_empty()
    }

    /// Whether everybody needs a token or a key.
    #[must_use]
    pub fn is_required(&self) -> bool {
        !self.is_empty() && self.auth.as_ref().is_none_or(|auth| auth.required)
    }
}

/// `[auth]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthTable {
    /// Where it begins: `FILE:LINE`.
    pub source: String,
    /// `required`.
    pub required: bool,
    /// `hs-secret-file`.
    pub hs_secret_file: Option<Located<PathBuf>>,
    /// `hs-previous-secret-file`.
    pub hs_previous_secret_file: Option<Located<PathBuf>>,
    /// `keys-file`.
    pub keys_file: Option<Located<PathBuf>>,
    /// `keys-url`.
    pub keys_url: Option<Located<String>>,
    /// `keys-ca-file`.
    pub keys_ca_file: Option<Located<PathBuf>>,
    /// `algorithms`.
    pub algorithms: Vec<String>,
    /// `issuer`.
    pub issuer: Option<String>,
    /// `audience`.
    pub audience: Option<String>,
    /// `user-claim`.
    pub user_claim: String,
    /// `topics-claim`.
    pub topics_claim: String,
    /// `leeway`.
    pub leeway: Duration,
    /// `grace`.
    pub grace: Duration,
    /// `query-token`.
    pub query_token: bool,
    /// `cookie`.
    pub cookie: Option<String>,
    /// `typ`.
    pub typ: Option<String>,
    /// `max-age`.
    pub max_age: Option<Duration>,
    /// `explain`.
    pub explain: bool,
}

impl Default for AuthTable {
    /// What an empty `[auth]` says.
    fn default() -> Self {
        auth(&Section::new(&AUTH, Source::Default))
    }
}

impl AuthTable {
    /// Whether there are keys that tokens are checked with.
    #[must_use]
    pub fn has_source_of_keys(&self) -> bool {
        self.hs_secret_file.is_some() || self.keys_file.is_some() || self.keys_url.is_some()
    }
}

/// Whom an `[[allow]]` is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// Clients without a credential.
    Anonymous,
    /// Everybody with a token.
    User,
    /// Users whose token has this claim.
    Claim {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Lists of filters and rights that `[[allow]]` and `[[key]]` have in common.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct GrantLists {
    /// `subscribe`.
    pub subscribe: Vec<String>,
    /// `publish`.
    pub publish: Vec<String>,
    /// `rights`.
    pub rights: Vec<String>,
    /// `respond`.
    pub respond: Vec<String>,
    /// `lease`.
    pub lease: Vec<String>,
}

/// One `[[allow]]`. Its filters may have `{claim}` in place of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowTable {
    /// Where it begins: `FILE:LINE`.
    pub source: String,
    /// `principal`.
    pub principal: Who,
    /// What it grants.
    pub grants: GrantLists,
}

/// One `[[key]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyTable {
    /// Where it begins: `FILE:LINE`.
    pub source: String,
    /// `name`.
    pub name: String,
    /// `sha256`.
    pub sha256: [u8; 32],
    /// What it grants.
    pub grants: GrantLists,
    /// `api`.
    pub api: Vec<String>,
}

/// The tables of a file, with a sentence for everything that is wrong with one table, or between two.
pub(super) fn read(settings: &Section) -> (AccessTables, Vec<String>) {
    let of = |table: &'static str| settings.tables.iter().filter(move |section| section.table.name == table);
    let mut wrong = Vec::new();
    let auths: Vec<_> = of("auth").map(auth).collect();
    let mut tables = AccessTables { auth: auths.into_iter().next(), ..AccessTables::default() };
    for section in of("allow") {
        wrong.extend(too_long(section));
        tables.allows.extend(allow(section, &mut wrong));
    }
    for section in of("key") {
        wrong.extend(too_long(section));
        tables.keys.extend(api_key(section, &mut wrong));
    }
    wrong.extend(wrong_auth(&tables));
    wrong.extend(wrong_principals(&tables));
    wrong.extend(equal_keys(&tables));
    wrong.extend(other_keys(&tables, settings));
    (tables, wrong)
}

fn auth(section: &Section) -> AuthTable {
    let located = |name| {
        let source = || section.source_of(name).to_string();
        section.find::<String>(name).map(|value| Located { value, source: source() })
    };
    let path = |name| located(name).map(|text| Located { value: PathBuf::from(text.value), source: text.source });
    AuthTable {
        source: section.source.to_string(),
        required: section.get("required"),
        hs_secret_file: path("hs-secret-file"),
        hs_previous_secret_file: path("hs-previous-secret-file"),
        keys_file: path("keys-file"),
        keys_url: located("keys-url"),
        keys_ca_file: path("keys-ca-file"),
        algorithms: section.all("algorithms"),
        issuer: section.find("issuer"),
        audience: section.find("audience"),
        user_claim: section.get("user-claim"),
        topics_claim: section.get("topics-claim"),
        leeway: section.get("leeway"),
        grace: section.get("grace"),
        query_token: section.get("query-token"),
        cookie: Some(section.get::<String>("cookie")).filter(|name| !name.is_empty()),
        typ: section.find("typ"),
        max_age: section.find("max-age"),
        explain: section.get("explain"),
    }
}

fn grants(section: &Section) -> GrantLists {
    GrantLists {
        subscribe: section.all("subscribe"),
        publish: section.all("publish"),
        rights: section.all("rights"),
        respond: section.all("respond"),
        lease: section.all("lease"),
    }
}

fn allow(section: &Section, wrong: &mut Vec<String>) -> Option<AllowTable> {
    let source = section.source.to_string();
    let Some(principal) = section.find::<String>("principal") else {
        wrong.push(format!("{source}: the table [[allow]] needs principal: anonymous, user or claim:NAME=VALUE"));
        return None;
    };
    let principal = match principal.strip_prefix("claim:").and_then(|rest| rest.split_once('=')) {
        Some((name, value)) => Who::Claim { name: name.to_owned(), value: value.to_owned() },
        None if principal == "user" => Who::User,
        None => Who::Anonymous,
    };
    let grants = grants(section);
    if !grants.rights.is_empty() && grants.subscribe.is_empty() {
        wrong.push(rights_without_filters(section));
    }
    if principal == Who::Anonymous
        && (["subscribe", "publish", "respond", "lease"].iter())
            .any(|name| section.all::<String>(name).iter().any(|filter| filter.contains('{')))
    {
        wrong.push(format!(
            "{source}: the table [[allow]] is for anonymous, who has no claims to put in place of {{…}}"
        ));
    }
    Some(AllowTable { source, principal, grants })
}

fn api_key(section: &Section, wrong: &mut Vec<String>) -> Option<KeyTable> {
    let source = section.source.to_string();
    let (name, sha256) = (section.find::<String>("name"), section.find::<String>("sha256"));
    let grants = grants(section);
    if !grants.rights.is_empty() && grants.subscribe.is_empty() {
        wrong.push(rights_without_filters(section));
    }
    match (name, sha256.as_deref().and_then(values::digest)) {
        (Some(name), Some(sha256)) => Some(KeyTable { source, name, sha256, grants, api: section.all("api") }),
        (name, _) => {
            let missing = if name.is_none() { "name" } else { "sha256" };
            wrong.push(format!(
                "{source}: the table [[key]] needs {missing}: `ringyard key new NAME` prints a whole table"
            ));
            None
        }
    }
}

fn rights_without_filters(section: &Section) -> String {
    let source = section.source_of("rights");
    format!("{source}: rights are for what is subscribed, and {} has no subscribe", section.table.header())
}

/// What is wrong with `[auth]` as a whole.
fn wrong_auth(tables: &AccessTables) -> Vec<String> {
    let Some(auth) = &tables.auth else { return Vec::new() };
    let (source, mut wrong) = (&auth.source, Vec::new());
    let of_hs = auth.algorithms.iter().filter(|name| name.starts_with("HS")).count();
    let has_public = auth.keys_file.is_some() || auth.keys_url.is_some();
    if auth.has_source_of_keys() && auth.algorithms.is_empty() {
        wrong.push(format!("{source}: [auth] has a source of keys and needs algorithms: a list such as [\"ES256\"]"));
    }
    if !auth.has_source_of_keys() && !auth.algorithms.is_empty() {
        wrong.push(format!("{source}: [auth] has algorithms and needs hs-secret-file, keys-file or keys-url"));
    }
    if let (Some(file), None) = (&auth.hs_previous_secret_file, &auth.hs_secret_file) {
        wrong.push(format!("{}: hs-previous-secret-file is for a rotation and needs hs-secret-file", file.source));
    }
    if let (Some(file), false, 0) = (&auth.hs_secret_file, auth.algorithms.is_empty(), of_hs) {
        wrong.push(format!("{}: hs-secret-file is of no use: algorithms has none of HS256, HS384, HS512", file.source));
    }
    if has_public && !auth.algorithms.is_empty() && of_hs == auth.algorithms.len() && auth.keys_file.is_none() {
        wrong.push(format!("{source}: keys-url gives public keys, and algorithms has only HS, which need a secret"));
    }
    if let Some(file) = &auth.keys_ca_file
        && !auth.keys_url.as_ref().is_some_and(|url| url.value.starts_with("https:"))
    {
        wrong.push(format!("{}: keys-ca-file is of no use: keys-url names no https address", file.source));
    }
    if of_hs > 0 && auth.hs_secret_file.is_none() && auth.keys_file.is_none() && has_public {
        wrong.push(format!("{source}: algorithms has {}, and there is no hs-secret-file", auth.algorithms[0]));
    }
    wrong
}

/// Grants that nobody can have.
fn wrong_principals(tables: &AccessTables) -> Vec<String> {
    let has_tokens = tables.auth.as_ref().is_some_and(AuthTable::has_source_of_keys);
    let wrong = tables.allows.iter().filter_map(|allow| match allow.principal {
        Who::Anonymous if tables.is_required() => Some(format!(
            "{}: the table [[allow]] is for anonymous, and everybody needs a token or a key: write required = false in [auth]",
            allow.source
        )),
        Who::User | Who::Claim { .. } if !has_tokens => Some(format!(
            "{}: the table [[allow]] is for users, and [auth] has no source of keys for their tokens: hs-secret-file, \
             keys-file or keys-url",
            allow.source
        )),
        _ => None,
    });
    wrong.collect()
}

/// Keys with one name or one digest.
fn equal_keys(tables: &AccessTables) -> Vec<String> {
    let (mut names, mut digests, mut wrong) = (HashMap::new(), HashMap::new(), Vec::new());
    for KeyTable { source, name, sha256, .. } in &tables.keys {
        if let Some(first) = names.insert(name, source) {
            wrong.push(format!("{source}: {first} has a key named {name} too: names of keys differ"));
        }
        if let Some(first) = digests.insert(sha256, source) {
            wrong.push(format!("{source}: the table at {first} has the same sha256: each key has one table"));
        }
    }
    wrong
}

/// `--publish-key` and `--client-publish` beside these tables.
fn other_keys(tables: &AccessTables, settings: &Section) -> Vec<String> {
    let others = [
        ("publish-key", settings.find::<String>("publish-key").is_some()),
        ("client-publish", settings.get::<String>("client-publish") == "off"),
    ];
    let places = tables.auth.iter().map(|auth| &auth.source);
    let places = places.chain(tables.allows.iter().map(|allow| &allow.source));
    let Some(place) = places.chain(tables.keys.iter().map(|key| &key.source)).next() else { return Vec::new() };
    let set = others.iter().filter(|(_, is_set)| *is_set);
    let sentence = |(name, _): &(&str, bool)| {
        format!(
            "--{name} ({}) does not go with [auth], [[allow]] and [[key]] ({place}): give a [[key]] with publish to those who \
             had a key, and let [[allow]] say what others may publish",
            settings.source_of(name)
        )
    };
    set.map(sentence).collect()
}

/// What is wrong with the length of a table's lists.
fn too_long(section: &Section) -> Option<String> {
    let mut lists = section.table.keys().filter(|key| key.is_list());
    let long = lists.find(|key| section.texts(key).len() > COUNT_MAX)?;
    Some(format!("{}: {} has more than {COUNT_MAX} values", section.source_of(long.name), long.name))
}
