//! The schema of the tables `[auth]`, `[[allow]]` and `[[key]]`.
//!
//! Not responsible for what they become ([`auth`](crate::config::auth)).

use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{
    Bool, Choice, CookieName, Filter, KeySource, List, Path, Sha256, SubjectName, Template, Time, WhoIsMeant, Word,
};
use crate::config::schema::{Group, Key, Table, key};

/// The signature algorithms that can be listed.
const ALGORITHMS: &str = "HS256|HS384|HS512|RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|EdDSA";

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
    key("keys-ca-file", Path, Otherwise("the system's authorities", "/etc/ringyard/ca.pem"), "0.1").help(
        "File with the authorities (PEM) that the certificate of keys-url is checked with, instead of the system's: for an \
         authority of your own",
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
    key("cookie", CookieName, Fixed(""), "0.1")
        .help("Name of a cookie that may carry the token, or nothing; Origin is checked as always"),
    key("typ", Word, Otherwise("any", "at+jwt"), "0.1").help("What the header's typ must be, without application/"),
    key("max-age", Time(1), Otherwise("none: tokens need exp", "12h"), "0.1")
        .help("How long a connection may last whose token has no exp"),
    key("explain", Bool, Fixed("false"), "0.1")
        .help("Whether the error `forbidden` names the nearest grant, which helps those who write a page, and attackers"),
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
