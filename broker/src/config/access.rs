//! The tables of access control, `[auth]`, `[[allow]]` and `[[key]]`: who may do what.
//!
//! With any of them there is access control. Each table is complete: what it leaves out has its default. What could never
//! apply is an error, as is everything that contradicts something else; nothing is read and then ignored.
//!
//! Not responsible for files that the tables name (`server/access.rs`), nor for what is granted by them
//! (`access/rules.rs`).

mod schema;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::provenance::{Section, Source};
use crate::config::schema::Table;
use crate::config::url::Url;

pub(super) use schema::{ALLOW, AUTH, KEY};

/// Greatest value of `leeway` and of `grace`.
const SLACK_TOP: Duration = Duration::from_secs(600);

/// All three kinds of tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessTables {
    /// `[auth]`.
    pub auth: Option<AuthTable>,
    /// `[[allow]]`.
    pub allow: Vec<AllowTable>,
    /// `[[key]]`.
    pub keys: Vec<KeyTable>,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthTable {
    /// Whether a client needs a token or a key.
    pub required: bool,
    /// The secret of the HS algorithms.
    pub hs_secret_file: Option<PathBuf>,
    /// The one before it.
    pub hs_previous_secret_file: Option<PathBuf>,
    /// Public keys.
    pub keys_file: Option<PathBuf>,
    /// Where public keys are fetched.
    pub keys_url: Option<String>,
    /// Names of algorithms.
    pub algorithms: Vec<String>,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to have.
    pub audience: Option<String>,
    /// What `typ` has to be.
    pub typ: Option<String>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that says what the token grants.
    pub topics_claim: String,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// How long a connection may stay once its token has ended.
    pub grace: Duration,
    /// How long a connection may last whose token has no end.
    pub max_age: Option<Duration>,
    /// Whether plain requests may have their token in the query.
    pub query_token: bool,
    /// The cookie that may have it.
    pub cookie: Option<String>,
    /// Whether a refusal names the nearest grant.
    pub explain: bool,
}

/// What a table grants, as the file writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantLists {
    /// Filters.
    pub subscribe: Vec<String>,
    /// Filters.
    pub publish: Vec<String>,
    /// Filters.
    pub respond: Vec<String>,
    /// Filters.
    pub lease: Vec<String>,
    /// Names of rights.
    pub rights: Vec<String>,
    /// Names of scopes.
    pub api: Vec<String>,
}

/// `[[allow]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowTable {
    /// Whom it is for.
    pub principal: PrincipalPattern,
    /// What it grants.
    pub grants: GrantLists,
    /// Where the table begins: `FILE:LINE`.
    pub source: String,
}

/// The value of `principal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalPattern {
    /// Clients without a token.
    Anonymous,
    /// Everybody with one.
    User,
    /// Everybody whose token has this claim with this value.
    Claim(String, String),
}

/// `[[key]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTable {
    /// As whom its holder is known.
    pub name: String,
    /// The SHA-256 of the key.
    pub sha256: [u8; 32],
    /// What it grants.
    pub grants: GrantLists,
    /// Where the table begins: `FILE:LINE`.
    pub source: String,
}

impl AccessTables {
    /// Whether there is access control.
    #[must_use]
    pub fn are_any(&self) -> bool {
        self.auth.is_some() || !self.allow.is_empty() || !self.keys.is_empty()
    }

    /// Whether every client needs a token or a key.
    #[must_use]
    pub fn require_credentials(&self) -> bool {
        self.are_any() && self.auth.as_ref().is_none_or(|auth| auth.required)
    }
}

impl Default for AuthTable {
    /// What holds without the table.
    fn default() -> Self {
        Self::new(&Section::new(&AUTH, Source::Default))
    }
}

impl AuthTable {
    fn new(section: &Section) -> Self {
        let path = |name: &str| section.find::<String>(name).map(PathBuf::from);
        Self {
            required: section.get("required"),
            hs_secret_file: path("hs-secret-file"),
            hs_previous_secret_file: path("hs-previous-secret-file"),
            keys_file: path("keys-file"),
            keys_url: section.find("keys-url"),
            algorithms: section.all("algorithms"),
            issuer: section.find("issuer"),
            audience: section.find("audience"),
            typ: section.find("typ"),
            user_claim: section.get("user-claim"),
            topics_claim: section.get("topics-claim"),
            leeway: section.get("leeway"),
            grace: section.get("grace"),
            max_age: section.find("max-age"),
            query_token: section.get("query-token"),
            cookie: section.find("cookie"),
            explain: section.get("explain"),
        }
    }

    /// Whether tokens can be checked.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.hs_secret_file.is_some() || self.keys_file.is_some() || self.keys_url.is_some()
    }
}

/// The tables of a file.
///
/// # Errors
/// A sentence for everything that is wrong, in the order of the file.
pub(super) fn read(settings: &Section) -> Result<AccessTables, Vec<String>> {
    let of = |table: &'static Table| settings.tables.iter().filter(move |section| section.table.name == table.name);
    let auth = of(&AUTH).next();
    let mut wrong = Vec::new();
    let table = auth.map(AuthTable::new);
    if let (Some(section), Some(table)) = (auth, &table) {
        wrong.extend(wrong_auth(section, table, of(&KEY).next().is_some()));
    }
    let without = AuthTable::default();
    let of_auth = table.as_ref().unwrap_or(&without);
    let allow: Vec<_> = of(&ALLOW).filter_map(|section| note(allow(section, of_auth), &mut wrong)).collect();
    let keys: Vec<_> = of(&KEY).filter_map(|section| note(key_table(section), &mut wrong)).collect();
    wrong.extend(repeated(&keys));
    let any = auth.or_else(|| of(&ALLOW).next()).or_else(|| of(&KEY).next());
    wrong.extend(any.into_iter().flat_map(|section| superseded(settings, section)));
    if wrong.is_empty() { Ok(AccessTables { auth: table, allow, keys }) } else { Err(wrong) }
}

fn note<T>(read: Result<T, String>, wrong: &mut Vec<String>) -> Option<T> {
    read.map_err(|sentence| wrong.push(sentence)).ok()
}

fn wrong_auth(section: &Section, auth: &AuthTable, has_keys: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let at = |name: &str| match section.source_of(name) {
        Source::Default => section.source.to_string(),
        source => source.to_string(),
    };
    let is_hs = |name: &String| name.starts_with("HS");
    let mut complain = |name: &str, why: &str| wrong.push(format!("{}: {why}", at(name)));
    if auth.takes_tokens() && auth.algorithms.is_empty() {
        complain("algorithms", "[auth] needs algorithms: the ones that tokens are signed with, such as [\"ES256\"]");
    }
    if auth.algorithms.iter().any(is_hs) && auth.hs_secret_file.is_none() {
        complain("algorithms", "an HS algorithm needs hs-secret-file");
    }
    let has_public_keys = auth.keys_file.is_some() || auth.keys_url.is_some();
    if auth.algorithms.iter().any(|name| !is_hs(name)) && !has_public_keys {
        complain("algorithms", "algorithms other than HS need keys-file or keys-url");
    }
    if auth.hs_secret_file.is_some() && !auth.algorithms.is_empty() && !auth.algorithms.iter().any(is_hs) {
        complain("hs-secret-file", "hs-secret-file needs an HS algorithm in algorithms");
    }
    if has_public_keys && !auth.algorithms.is_empty() && auth.algorithms.iter().all(is_hs) {
        complain("keys-file", "public keys need an algorithm other than HS in algorithms");
    }
    if auth.hs_previous_secret_file.is_some() && auth.hs_secret_file.is_none() {
        complain("hs-previous-secret-file", "hs-previous-secret-file needs hs-secret-file beside it");
    }
    if auth.required && !auth.takes_tokens() && !has_keys {
        complain(
            "required",
            "nobody could connect: [auth] needs hs-secret-file, keys-file or keys-url, or there must be a [[key]] table, \
             or required = false",
        );
    }
    if let Some(url) = &auth.keys_url
        && let Err(why) = check_keys_url(url)
    {
        complain("keys-url", &format!("invalid value '{url}' for keys-url: {why}"));
    }
    if let Some(cookie) = &auth.cookie
        && !cookie.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    {
        complain("cookie", &format!("invalid value '{}' for cookie: it is no name of a cookie", cookie.escape_debug()));
    }
    for (name, slack) in [("leeway", auth.leeway), ("grace", auth.grace)] {
        if slack > SLACK_TOP {
            complain(name, &format!("invalid value for {name}: it must be at most 10m"));
        }
    }
    wrong
}

/// Keys come over TLS, or from this machine.
fn check_keys_url(url: &str) -> Result<(), String> {
    if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Ok(());
    }
    let wrong = "it must begin with https://, or with http:// and an address of this machine such as 127.0.0.1";
    let url = Url::parse(url).map_err(|_| wrong.to_owned())?;
    if url.is_loopback() { Ok(()) } else { Err(wrong.to_owned()) }
}

fn grants(section: &Section) -> GrantLists {
    let all = |name: &str| if section.table.key(name).is_some() { section.all(name) } else { Vec::new() };
    GrantLists {
        subscribe: all("subscribe"),
        publish: all("publish"),
        respond: all("respond"),
        lease: all("lease"),
        rights: all("rights"),
        api: all("api"),
    }
}

fn allow(section: &Section, auth: &AuthTable) -> Result<AllowTable, String> {
    let source = &section.source;
    let Some(text) = section.find::<String>("principal") else {
        return Err(format!("{source}: the table [[allow]] needs principal: anonymous, user or claim:NAME=VALUE"));
    };
    let at = section.source_of("principal");
    let principal = match text.as_str() {
        "anonymous" => PrincipalPattern::Anonymous,
        "user" => PrincipalPattern::User,
        other => match other.strip_prefix("claim:").and_then(|rest| rest.split_once('=')) {
            Some((name, value)) if !name.is_empty() => PrincipalPattern::Claim(name.to_owned(), value.to_owned()),
            _ => {
                let shown = other.escape_debug();
                return Err(format!(
                    "{at}: invalid value '{shown}' for principal: it must be anonymous, user or claim:NAME=VALUE"
                ));
            }
        },
    };
    let grants = grants(section);
    if principal == PrincipalPattern::Anonymous {
        if auth.required {
            return Err(format!("{at}: nobody is anonymous: that needs required = false in [auth]"));
        }
        let lists = [&grants.subscribe, &grants.publish, &grants.respond, &grants.lease];
        if let Some(template) = lists.into_iter().flatten().find(|filter| super::template::is_template(filter)) {
            return Err(format!("{source}: '{template}' has a claim of a token, and anonymous clients have none"));
        }
    } else if !auth.takes_tokens() {
        return Err(format!("{at}: nobody has a token: that needs [auth] with hs-secret-file, keys-file or keys-url"));
    }
    if grants == GrantLists::default() {
        return Err(format!(
            "{source}: the table [[allow]] grants nothing: it needs subscribe, publish or another list"
        ));
    }
    Ok(AllowTable { principal, grants, source: source.to_string() })
}

fn key_table(section: &Section) -> Result<KeyTable, String> {
    let source = &section.source;
    let name = section.find::<String>("name");
    let name = name.ok_or_else(|| format!("{source}: the table [[key]] needs name: as whom its holder is known"))?;
    if name.chars().any(char::is_control) || name.len() > 256 {
        return Err(format!(
            "{}: invalid value for name: it has from 1 to 256 visible bytes",
            section.source_of("name")
        ));
    }
    let sha256 = section.find::<String>("sha256");
    let sha256 =
        sha256.ok_or_else(|| format!("{source}: the table [[key]] needs sha256: see `ringyard key new {name}`"))?;
    let sha256 = digest(&sha256).ok_or_else(|| {
        let at = section.source_of("sha256");
        format!("{at}: invalid value for sha256: it must be the 64 hexadecimal digits of `ringyard key new {name}`")
    })?;
    let grants = grants(section);
    let lists = [&grants.subscribe, &grants.publish, &grants.respond, &grants.lease];
    if let Some(template) = lists.into_iter().flatten().find(|filter| super::template::is_template(filter)) {
        return Err(format!("{source}: '{template}' has a claim of a token, and a key has none"));
    }
    if grants == GrantLists::default() {
        return Err(format!(
            "{source}: the key {name} grants nothing: it needs publish, subscribe, api or another list"
        ));
    }
    Ok(KeyTable { name, sha256, grants, source: source.to_string() })
}

/// 64 hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

/// Each key has a name of its own, and one table.
fn repeated(keys: &[KeyTable]) -> Vec<String> {
    let (mut names, mut digests) = (HashMap::new(), HashMap::new());
    let mut wrong = Vec::new();
    for KeyTable { name, sha256, source, .. } in keys {
        if let Some(first) = names.insert(name, source) {
            wrong.push(format!("{source}: {first} has the same name {name:?}"));
        }
        if let Some(first) = digests.insert(sha256, source) {
            wrong.push(format!("{source}: {first} has the same sha256: a key has one table"));
        }
    }
    wrong
}

/// Settings that access control takes the place of.
fn superseded(settings: &Section, section: &Section) -> Vec<String> {
    let header = section.table.header();
    let names = ["publish-key", "client-publish"].into_iter();
    names
        .filter(|name| !settings.source_of(name).is_default())
        .map(|name| {
            format!(
                "--{name} ({}) does not go with {header} ({}): use [[key]] for back ends, and [[allow]] for clients",
                settings.source_of(name),
                section.source
            )
        })
        .collect()
}
