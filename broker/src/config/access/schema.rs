//! The keys of the tables of access control, each with its type, default and help.

use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{Bool, Choice, Grant, List, Path, Text, Time};
use crate::config::schema::{Group, Key, Table, key};

const ALGORITHMS: &str = "HS256|HS384|HS512|RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|EdDSA";
const RIGHTS: &str = "presence|enter|history|request";
const SCOPES: &str = "topics|connections|metrics|inspect";

pub(in crate::config) const AUTH: Table = Table {
    name: "auth",
    is_array: false,
    help: "Access control: whom clients' tokens (JWT) are taken from. With [auth], [[allow]] or [[key]] nobody may do \
           anything that is not granted",
    groups: &[Group { heading: "", keys: AUTH_KEYS }],
    tables: &[],
};

const AUTH_KEYS: &[Key] = &[
    key("required", Bool, Fixed("true"), "0.1")
        .help("Whether a client needs a token or a key; without, one that brings none is anonymous"),
    key("hs-secret-file", Path, Otherwise("none", "/run/secrets/hs"), "0.1")
        .help("File with the secret of the HS algorithms, at least 32 bytes; looked at every 5 s and at SIGHUP"),
    key("hs-previous-secret-file", Path, Otherwise("none", "/run/secrets/hs-previous"), "0.1")
        .help("The secret before it, while tokens that were signed with that are still about"),
    key("keys-file", Path, Otherwise("none", "/etc/ringyard/jwks.json"), "0.1")
        .help("File with public keys, a JWK set or PEM; looked at every 5 s and at SIGHUP; a bad file changes nothing"),
    key("keys-url", Text, Otherwise("none", "https://id.example/jwks"), "0.1").help(
        "Address of a JWK set: https, or http on loopback; asked every 5m, or as its Cache-Control says, 1m to 1h",
    ),
    key("algorithms", List(&Choice(ALGORITHMS)), Otherwise("none", "ES256"), "0.1")
        .help("Algorithms that a token may be signed with; needed with a secret or public keys"),
    key("issuer", Text, Otherwise("none, any", "https://id.example"), "0.1").help("What a token's iss has to be"),
    key("audience", Text, Otherwise("none, any", "ringyard"), "0.1").help("What a token's aud has to have"),
    key("typ", Text, Otherwise("none, any", "JWT"), "0.1").help("What a token's typ has to be"),
    key("user-claim", Text, Fixed("sub"), "0.1").help("Claim that names the user"),
    key("topics-claim", Text, Fixed("topics"), "0.1").help("Claim that says what the token itself grants"),
    key("leeway", Time(0), Fixed("30s"), "0.1").help("How far clocks may differ, up to 10m"),
    key("grace", Time(0), Fixed("25s"), "0.1")
        .help("How long a connection may stay once its token has ended, up to 10m; then it is closed with 4401"),
    key("max-age", Time(1), Otherwise("none, tokens need exp", "1h"), "0.1")
        .help("How long a connection may last whose token has no exp"),
    key("query-token", Bool, Fixed("false"), "0.1")
        .help("Whether requests over HTTP may have their token in the query, as ?token=; addresses end up in logs"),
    key("cookie", Text, Otherwise("none", "ringyard"), "0.1").help("Name of a cookie that may have the token"),
    key("explain", Bool, Fixed("false"), "0.1").help("Whether a refusal names the grant that comes nearest"),
];

pub(in crate::config) const ALLOW: Table = Table {
    name: "allow",
    is_array: true,
    help: "Grants: what a token's owner, or a client without one, may do. They add up; nothing takes away. {claim} in a \
           filter is the value of that claim of the token",
    groups: &[Group { heading: "", keys: ALLOW_KEYS }],
    tables: &[],
};

const ALLOW_KEYS: &[Key] = &[
    key("principal", Text, Otherwise("none, it is required", "user"), "0.1").help(
        "Whom it is for: anonymous, clients without a token; user, everybody with one; claim:NAME=VALUE, everybody whose \
         token says so",
    ),
    key("subscribe", List(&Grant), Otherwise("none", "chat/+"), "0.1").help("Filters that may be subscribed to"),
    key("publish", List(&Grant), Otherwise("none", "chat/+"), "0.1").help("Topics that may be published to, as filters"),
    key("rights", List(&Choice(RIGHTS)), Otherwise("none", "history"), "0.1")
        .help("What is allowed in topics that may be subscribed to; history: read what they remember"),
    key("respond", List(&Grant), Otherwise("none", "points/#"), "0.1").help("Topics whose requests may be answered"),
    key("lease", List(&Grant), Otherwise("none", "loco/+"), "0.1").help("Topics that may be held as a lease"),
];

pub(in crate::config) const KEY: Table = Table {
    name: "key",
    is_array: true,
    help: "API keys of back ends and operators; `ringyard key new NAME` makes one",
    groups: &[Group { heading: "", keys: KEY_KEYS }],
    tables: &[],
};

const KEY_KEYS: &[Key] = &[
    key("name", Text, Otherwise("none, it is required", "shop-backend"), "0.1").help("As whom its holder is known"),
    key(
        "sha256",
        Text,
        Otherwise("none, it is required", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        "0.1",
    )
    .help("SHA-256 of the key, as 64 hexadecimal digits"),
    key("subscribe", List(&Grant), Otherwise("none", "#"), "0.1").help("Filters that may be subscribed to"),
    key("publish", List(&Grant), Otherwise("none", "#"), "0.1").help("Topics that may be published to, as filters"),
    key("rights", List(&Choice(RIGHTS)), Otherwise("none", "history"), "0.1")
        .help("What is allowed in topics that may be subscribed to"),
    key("respond", List(&Grant), Otherwise("none", "#"), "0.1").help("Topics whose requests may be answered"),
    key("lease", List(&Grant), Otherwise("none", "#"), "0.1").help("Topics that may be held as a lease"),
    key("api", List(&Choice(SCOPES)), Otherwise("none", "metrics"), "0.1").help(
        "What may be asked of operators' endpoints: topics, list them and forget their messages; connections, list and \
         close those of users, revoke tokens; metrics; inspect, look into one topic",
    ),
];
