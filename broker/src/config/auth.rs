//! The tables `[auth]`, `[[allow]]` and `[[key]]`: who may come in, and what each may do.
//!
//! Access control is on as soon as one of them is in the file. Not responsible for what stands in the files that they name,
//! nor for what follows from them: [`access::authority`](crate::access::authority) makes a policy of these tables.
//!
//! Invariant: in [`AccessTables`] every filter is valid, names of keys differ, and whatever a table needs is there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::provenance::Section;
use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{
    Bool, Choice, Filter, KeySource, List, Path, Sha256, SubjectName, Template, Time, WhoIsMeant, Word,
};
use crate::config::schema::{Group, Key, Table, key};
use crate::config::values;

/// The signature algorithms that can be listed.
const ALGORITHMS: &str = "HS256|HS384|HS512|RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|EdDSA";
/// Most tables of one kind, and most filters of one list.
const COUNT_MAX: usize = 10_000;

/// The schema of `[auth]`.
pub(super) const AUTH: Table = Table {
    name: "auth",
    is_array: false,
    help: "Tokens (JWT): who signs them and what is asked of them. Access control is on as soon as the file has [auth], \
           [[allow]] or [[key]]: then nobody may do what no [[allow]], no [[key]] and no token grants",
    groups: &[Group { heading: "", keys: AUTH_KEYS }],
    tables: &[],
};

const AUTH_KEYS: &[Key] = &[
    key("required", Bool, Fixed("true"), "0.1")
        .help("Whether everybody needs a token or a key; false: who has none is anonymous, and may do what [[allow]] says"),
    key("hs-secret-file", Path, Otherwise("none", "/run/secrets/hs"), "0.1")
        .help("File with the secret of HS256, HS384 and HS512, at least 32 bytes, read again when it changes"),
    key("hs-previous-secret-file", Path, Otherwise("none", "/run/secrets/hs-previous"), "0.1")
        .help("The same with the secret before, during a rotation: tokens of both are accepted"),
    key("keys-file", Path, Otherwise("none", "/etc/ringyard/jwks.json"), "0.1")
        .help("File with public keys, a JWK set or PEM, read again when it changes; a bad file keeps the old keys"),
    key("keys-url", KeySource, Otherwise("none", "https://id.example/jwks"), "0.1").help(
        "Address of a JWK set, asked every 5 minutes (Cache-Control is heeded, from 1 minute to 1 hour) and for an unknown \
         key, at most once in 10 s; https, or http on loopback",
    ),
    key("algorithms", List(&Choice(ALGORITHMS)), Otherwise("none, with a source of keys it is required", "HS256"), "0.1")
        .help("Signature algorithms that tokens may have"),
    key("issuer", Word, Otherwise("any", "https://id.example"), "0.1").help("What the claim iss must be"),
    key("audience", Word, Otherwise("any", "ringyard"), "0.1").help("What the claim aud must be or contain"),
    key("user-claim", Word, Fixed("sub"), "0.1").help("The claim that names the user"),
    key("topics-claim", Word, Fixed("topics"), "0.1").help(
        "The claim that grants topics: {\"subscribe\": [FILTER], \"publish\": [FILTER], \"rights\": [RIGHT], \"respond\": \
         [FILTER], \"lease\": [FILTER]}",
    ),
    key("leeway", Time(0), Fixed("30s"), "0.1").help("By how much clocks may differ, for exp, nbf and iat"),
    key("grace", Time(0), Fixed("25s"), "0.1")
        .help("How long after exp a connection stays open for a new token; then it is closed with code 4401"),
    key("query-token", Bool, Fixed("false"), "0.1")
        .help("Whether ?token= is read, for EventSource and long poll; proxies log addresses, so mind their logs"),
    key("cookie", SubjectName, Otherwise("none", "ringyard_token"), "0.1")
        .help("Name of a cookie that may carry the token; Origin is checked as always"),
    key("typ", Word, Otherwise("any", "at+jwt"), "0.1").help("What the header's typ must be, without application/"),
    key("max-age", Time(1), Otherwise("none: tokens need exp", "12h"), "0.1")
        .help("How long a connection may last whose token has no exp"),
    key("explain", Bool, Fixed("false"), "0.1")
        .help("Whether the error `forbidden` names the nearest grant, which helps whoever writes a page, and attackers"),
];

/// The schema of `[[allow]]`.
pub(super) const ALLOW: Table = Table {
    name: "allow",
    is_array: true,
    help: "What somebody may do: grants, which only add to one another and to the claim of the token",
    groups: &[Group { heading: "", keys: ALLOW_KEYS }],
    tables: &[],
};

const ALLOW_KEYS: &[Key] = &[
    key("principal", WhoIsMeant, Otherwise("none, it is required", "user"), "0.1").help(
        "Whom it is for: anonymous; user, everybody with a token; or claim:NAME=VALUE, users whose token has this claim, as \
         text or in a list",
    ),
    key("subscribe", List(&Template), Otherwise("none", "user/{sub}/#"), "0.1").help(
        "Filters that may be subscribed to, and whatever lies within one of them. {sub}, or another claim, stands for its \
         value: one level, else the filter grants nothing",
    ),
    key("publish", List(&Template), Otherwise("none", "chat/+"), "0.1").help("Filters of topics that may be published to"),
    key("rights", List(&Choice("presence|enter|history|request")), Otherwise("none", "history"), "0.1").help(
        "Rights for what is subscribed: presence, to see who is there; enter, to be seen; history, to ask for earlier \
         messages; request, to send requests",
    ),
    key("respond", List(&Template), Otherwise("none", "points/#"), "0.1").help("Filters of topics whose requests may be answered"),
    key("lease", List(&Template), Otherwise("none", "loco/+"), "0.1").help("Filters of topics whose lease may be held"),
];

/// The schema of `[[key]]`.
pub(super) const KEY: Table = Table {
    name: "key",
    is_array: true,
    help: "API keys, for back ends and operators: `ringyard key new NAME` prints a key once, and its table",
    groups: &[Group { heading: "", keys: KEY_KEYS }],
    tables: &[],
};

const KEY_KEYS: &[Key] = &[
    key("name", SubjectName, Otherwise("none, it is required", "shop-backend"), "0.1")
        .help("Its name in logs and in /api: letters, digits, - _ . and @"),
    key(
        "sha256",
        Sha256,
        Otherwise("none, it is required", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        "0.1",
    )
    .help("SHA-256 of the key in hexadecimal"),
    key("subscribe", List(&Filter), Otherwise("none", "orders/#"), "0.1").help("Filters that it may subscribe to"),
    key("publish", List(&Filter), Otherwise("none", "#"), "0.1").help("Filters of topics that it may publish to"),
    key("rights", List(&Choice("presence|enter|history|request")), Otherwise("none", "history"), "0.1")
        .help("Rights for what it subscribes to, as in [[allow]]"),
    key("respond", List(&Filter), Otherwise("none", "points/#"), "0.1").help("Filters of topics whose requests it may answer"),
    key("lease", List(&Filter), Otherwise("none", "loco/+"), "0.1").help("Filters of topics whose lease it may hold"),
    key("api", List(&Choice("topics|connections|metrics|inspect")), Otherwise("none", "topics"), "0.1").help(
        "Parts of the operators' interface that it may use: topics; connections, closing and revoking users too; metrics; \
         inspect, what goes through a topic",
    ),
];

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
    /// Whoever has no credential.
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
        algorithms: section.all("algorithms"),
        issuer: section.find("issuer"),
        audience: section.find("audience"),
        user_claim: section.get("user-claim"),
        topics_claim: section.get("topics-claim"),
        leeway: section.get("leeway"),
        grace: section.get("grace"),
        query_token: section.get("query-token"),
        cookie: section.find("cookie"),
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
            "--{name} ({}) does not go with [auth], [[allow]] and [[key]] ({place}): give a [[key]] with publish to whoever \
             had a key, and let [[allow]] say what others may publish",
            settings.source_of(name)
        )
    };
    set.map(sentence).collect()
}

/// What is wrong with the length of a table's lists.
fn too_long(section: &Section) -> Option<String> {
    let lists = section.table.keys().filter(|key| key.is_list());
    let long = lists.filter(|key| section.texts(key).len() > COUNT_MAX).next()?;
    Some(format!("{}: {} has more than {COUNT_MAX} values", section.source_of(long.name), long.name))
}
