//! JSON Web Tokens (RFC 7519) as signed text (RFC 7515): taken apart, checked against keys, and read.
//!
//! | step | what is refused |
//! | --- | --- |
//! | [`Token::parse`] | more than [`TOKEN_BYTES_MAX`], not three parts of base64url, a header that is no strict JSON object, `crit` |
//! | [`Token::verify`] | an algorithm that is not in our list (`none` never is), a key id that nobody knows, keys of another kind, a wrong signature |
//! | [`Claims::check`] | claims of the wrong type, no `exp`, `nbf`, issuer, audience, type, a missing user |
//!
//! The algorithm is never taken from the token alone: it has to be in the configured list, and a key of its family has to
//! fit (RFC 8725 §3.1). Keys come from the configuration only; `jku`, `jwk` and `x5u` of a header are not looked at.
//!
//! Time is an argument. Nothing of a token is in an error, a log line or `Debug`.
//!
//! Cost: one signature check per fitting key, which is one in all but odd configurations.

mod json;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::access::keyset::KeySet;

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4 << 10;
/// The longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 256;

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)+) => {
        /// Why a token or key is refused: for the log, `/metrics` and `ringyard auth check`. A client gets one answer for
        /// all of them.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Cause { $($(#[$doc])* $variant,)+ }

        impl Cause {
            /// All there are: `ALL[i] as usize == i`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in `/metrics` and in the log.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

causes! {
    /// A request brings more than one token or key, of which each could be meant.
    Ambiguous = "ambiguous",
    /// It is longer than [`TOKEN_BYTES_MAX`].
    TooLong = "too_long",
    /// It is no token: not three parts of base64url, or its header is no strict JSON object.
    Malformed = "malformed",
    /// Its algorithm is not in the configured list, or it asks for an extension.
    Algorithm = "algorithm",
    /// There is no key that it could be signed with.
    UnknownKey = "unknown_key",
    /// Its signature is wrong.
    Signature = "signature",
    /// Its claims are no strict JSON object, or one of them is of the wrong type.
    Claims = "claims",
    /// It has no end, and nothing bounds its connection.
    NoExpiry = "no_expiry",
    /// It has ended.
    Expired = "expired",
    /// It does not hold yet.
    NotYetValid = "not_yet_valid",
    /// It is of another issuer.
    Issuer = "issuer",
    /// It is for somebody else.
    Audience = "audience",
    /// It is a token of another type.
    Type = "type",
    /// It names no user.
    User = "user",
    /// What it says about topics is malformed.
    Topics = "topics",
    /// An operator revoked it.
    Revoked = "revoked",
    /// It begins as an API key and is none.
    ApiKey = "api_key",
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ambiguous => "the request brings more than one token or key",
            Self::TooLong => "the token is longer than 4 KiB",
            Self::Malformed => {
                "this is no token: it takes three parts in base64url, of which the first is a JSON object"
            }
            Self::Algorithm => "the token's algorithm is not in `algorithms`, or it needs an extension (`crit`)",
            Self::UnknownKey => "there is no key for the token's `kid` and algorithm",
            Self::Signature => "the signature does not fit the key",
            Self::Claims => "the claims are not a JSON object without repetitions, or one is of the wrong type",
            Self::NoExpiry => "the token has no `exp`, and there is no `max-age`",
            Self::Expired => "the token has ended (`exp`)",
            Self::NotYetValid => "the token does not hold yet (`nbf`)",
            Self::Issuer => "the token's `iss` is not the configured issuer",
            Self::Audience => "the token's `aud` does not have the configured audience",
            Self::Type => "the token's `typ` is not the configured one",
            Self::User => "the claim of `user-claim` is missing, or not a text of 1 to 256 visible bytes",
            Self::Topics => "the claim of `topics-claim` is malformed",
            Self::Revoked => "an operator revoked the user's tokens from before",
            Self::ApiKey => "there is no such API key",
        })
    }
}

/// A token, taken apart; nothing of it is checked but its form.
pub(crate) struct Token<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
    /// Header and claims, which are signed.
    message: &'a [u8],
    claims: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub(crate) fn parse(token: &'a [u8]) -> Result<Self, Cause> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Cause::TooLong);
        }
        let token = str::from_utf8(token).map_err(|_| Cause::Malformed)?;
        let (message, signature) = token.rsplit_once('.').ok_or(Cause::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Cause::Malformed)?;
        if claims.contains('.') || claims.is_empty() || BASE64.decode(signature).is_err() {
            return Err(Cause::Malformed);
        }
        let header = BASE64.decode(header).ok().and_then(|header| json::object(&header)).ok_or(Cause::Malformed)?;
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Cause::Malformed),
        };
        // An algorithm that the library does not know, `none` before all, is not in any list.
        let algorithm = text("alg")?.ok_or(Cause::Algorithm)?.parse().map_err(|_| Cause::Algorithm)?;
        // RFC 7515 §4.1.11: an extension that is not understood.
        if header.contains_key("crit") {
            return Err(Cause::Algorithm);
        }
        Ok(Self { algorithm, kid: text("kid")?, typ: text("typ")?, message: message.as_bytes(), claims, signature })
    }

    /// The key that it asks for.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Checks the signature, and reads the claims. With the number of signatures that were checked.
    pub(crate) fn verify(&self, keys: &KeySet, algorithms: &[Algorithm]) -> (Result<Claims, Cause>, u32) {
        if !algorithms.contains(&self.algorithm) {
            return (Err(Cause::Algorithm), 0);
        }
        let mut checked = 0;
        for key in keys.fitting(self.kid(), self.algorithm) {
            checked += 1;
            // A key that the library refuses is as good as one that does not fit.
            if jsonwebtoken::crypto::verify(self.signature, self.message, key, self.algorithm).unwrap_or(false) {
                return (self.claims(), checked);
            }
        }
        (Err(if checked == 0 { Cause::UnknownKey } else { Cause::Signature }), checked)
    }

    fn claims(&self) -> Result<Claims, Cause> {
        let text = BASE64.decode(self.claims).map_err(|_| Cause::Malformed)?;
        let members = json::object(&text).ok_or(Cause::Claims)?;
        Ok(Claims { members, typ: self.typ.clone() })
    }
}

/// The algorithm's cost, in units of 100 ns of processor time: what checking one signature takes, roughly.
pub(crate) fn cost_of(token: &Token<'_>) -> u32 {
    match token.algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => 40,
        Algorithm::ES256 | Algorithm::EdDSA => 1000,
        Algorithm::ES384 => 4000,
        _ => 400,
    }
}

/// What a token has to say, and when. Times are in milliseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expectations {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) typ: Option<String>,
    pub(crate) user_claim: String,
    pub(crate) leeway_ms: u64,
    /// Whether a token may have no end, because its connection has one.
    pub(crate) may_lack_expiry: bool,
}

/// The claims of a token whose signature is right.
pub(crate) struct Claims {
    pub(crate) members: Map<String, Value>,
    typ: Option<String>,
}

/// What the registered claims say. Times are in seconds, and `expires_ms` in milliseconds, since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Registered {
    pub(crate) user: String,
    pub(crate) issued_at_s: Option<u64>,
    pub(crate) expires_ms: Option<u64>,
}

impl Claims {
    /// Checks what the broker expects of every token (RFC 7519 §4.1) at a time of day, but whether it has ended.
    pub(crate) fn check(&self, expected: &Expectations, now_ms: u64) -> Result<Registered, Cause> {
        let expires_ms = self.time_ms("exp")?;
        let not_before_ms = self.time_ms("nbf")?;
        let issued_at_s = self.time_ms("iat")?.map(|ms| ms / 1000);
        if let Some(issuer) = &expected.issuer
            && self.members.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Cause::Issuer);
        }
        if let Some(audience) = &expected.audience
            && !self.is_for(audience)
        {
            return Err(Cause::Audience);
        }
        if let Some(typ) = &expected.typ
            && !self.typ.as_deref().is_some_and(|own| is_type(own, typ))
        {
            return Err(Cause::Type);
        }
        if not_before_ms.is_some_and(|from| now_ms.saturating_add(expected.leeway_ms) < from) {
            return Err(Cause::NotYetValid);
        }
        let user = self.user(&expected.user_claim)?;
        if expires_ms.is_none() && !expected.may_lack_expiry {
            return Err(Cause::NoExpiry);
        }
        Ok(Registered { user, issued_at_s, expires_ms })
    }

    /// A `NumericDate` (RFC 7519 §2): a number of seconds that need not be whole. Nothing else is one.
    fn time_ms(&self, name: &str) -> Result<Option<u64>, Cause> {
        const SECONDS_MAX: f64 = 1e12;
        let Some(value) = self.members.get(name) else { return Ok(None) };
        let seconds = match value {
            Value::Number(number) => number.as_f64().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds)),
            _ => None,
        };
        Ok(Some((seconds.ok_or(Cause::Claims)? * 1000.0) as u64))
    }

    /// RFC 7519 §4.1.3: a text, or a list of them.
    fn is_for(&self, audience: &str) -> bool {
        match self.members.get("aud") {
            Some(Value::String(own)) => own == audience,
            Some(Value::Array(all)) => {
                all.iter().all(Value::is_string) && all.iter().any(|own| own.as_str() == Some(audience))
            }
            _ => false,
        }
    }

    fn user(&self, claim: &str) -> Result<String, Cause> {
        let user = match self.members.get(claim) {
            Some(Value::String(user)) => user.clone(),
            Some(Value::Number(number)) if number.is_u64() => number.to_string(),
            _ => return Err(Cause::User),
        };
        let is_fine = (1..=USER_BYTES_MAX).contains(&user.len()) && !user.chars().any(char::is_control);
        if is_fine { Ok(user) } else { Err(Cause::User) }
    }
}

/// RFC 7515 §4.1.9: a media type, of which `application/` may be left out, in any case.
fn is_type(own: &str, expected: &str) -> bool {
    let short = |typ: &str| {
        let lower = typ.to_ascii_lowercase();
        lower.strip_prefix("application/").map(str::to_owned).unwrap_or(lower)
    };
    short(own) == short(expected)
}
