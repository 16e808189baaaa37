//! Keys that tokens are checked with: shared secrets, and public keys as a JWK set (RFC 7517) or as PEM.
//!
//! A key is for one algorithm, or for those of its kind and curve; a token finds keys by its `kid` and its algorithm. A
//! secret never comes from a set of public keys, so that nothing can be signed with what everybody may read.
//!
//! Not responsible for files and addresses that keys come from (`server/keys.rs`). Keys are in no error and no `Debug`.

use std::fmt;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;

/// Least length of a shared secret, in bytes (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// Most keys of one set: a token without `kid` is checked with each that fits.
const KEYS_MAX: usize = 32;

/// Keys by kind. See the file's head.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    kid: Option<String>,
    /// Algorithms that it is for.
    algorithms: &'static [Algorithm],
    /// The only one of them, if its owner says so.
    only: Option<Algorithm>,
    key: DecodingKey,
}

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED25519: &[Algorithm] = &[Algorithm::EdDSA];

/// A JWK set (RFC 7517 §5).
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// What is read of a JWK.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
}

impl KeySet {
    /// Those of a shared secret, white space around it left out.
    ///
    /// # Errors
    /// It is too short.
    pub fn secret(secret: &[u8]) -> Result<Self, String> {
        let secret = secret.trim_ascii();
        if secret.len() < SECRET_BYTES_MIN {
            let len = secret.len();
            return Err(format!("a secret has at least {SECRET_BYTES_MIN} bytes, and this one has {len}"));
        }
        let key = DecodingKey::from_secret(secret).map_err(|_| "this is no secret".to_owned())?;
        Ok(Self { keys: vec![Key { kid: None, algorithms: HMAC, only: None, key }] })
    }

    /// Those of a JWK set, or of public keys as PEM. Keys of a set that are for something else are left out.
    ///
    /// # Errors
    /// What is wrong.
    pub fn public(text: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(text).map_err(|_| "this is no text".to_owned())?;
        let keys = if text.trim_start().starts_with('{') { Self::of_set(text)? } else { Self::of_pem(text)? };
        if keys.is_empty() {
            return Err("there is no key in it that tokens could be checked with".to_owned());
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("there are {} keys in it; {KEYS_MAX} is the most", keys.len()));
        }
        let set = Self { keys };
        match set.repeated() {
            Some(kid) => Err(format!("two keys have the kid {kid:?}")),
            None => Ok(set),
        }
    }

    /// A key id that two keys of one kind have.
    fn repeated(&self) -> Option<&str> {
        self.keys.iter().enumerate().find_map(|(at, key)| {
            let kid = key.kid.as_deref()?;
            let is_same = |other: &Key| other.kid.as_deref() == Some(kid) && other.algorithms == key.algorithms;
            self.keys[..at].iter().any(is_same).then_some(kid)
        })
    }

    fn of_set(text: &str) -> Result<Vec<Key>, String> {
        let set: Set = serde_json::from_str(text).map_err(|_| "this is no JWK set: {\"keys\": [...]}".to_owned())?;
        let mut keys = Vec::new();
        for (at, value) in set.keys.into_iter().enumerate() {
            let jwk: Jwk = serde_json::from_value(value).map_err(|_| format!("keys[{at}] is no JWK"))?;
            if let Some(key) = key_of(jwk).map_err(|why| format!("keys[{at}] {why}"))? {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn of_pem(text: &str) -> Result<Vec<Key>, String> {
        let mut keys = Vec::new();
        for (at, block) in text.split("-----BEGIN ").skip(1).enumerate() {
            if block.split("-----").next().is_some_and(|label| label.contains("PRIVATE")) {
                return Err("a private key is in it: public keys are all that tokens are checked with".to_owned());
            }
            let pem = format!("-----BEGIN {block}");
            let pem = pem.as_bytes();
            let rsa = || DecodingKey::from_rsa_pem(pem).map(|key| (RSA, key));
            let ec = || DecodingKey::from_ec_pem(pem).map(|key| (curve_of(&key), key));
            let ed = || DecodingKey::from_ed_pem(pem).map(|key| (ED25519, key));
            let found = rsa().or_else(|_| ec()).or_else(|_| ed());
            let (algorithms, key) = found.map_err(|_| format!("public key {} in it is none that is known", at + 1))?;
            keys.push(Key { kid: None, algorithms, only: None, key });
        }
        match keys.is_empty() {
            true => Err("this is neither a JWK set nor PEM".to_owned()),
            false => Ok(keys),
        }
    }

    /// Those of both: of a `kid` that a secret and a public key would have, only the secret.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let is_taken = |key: &Key| {
            let of_secret = |own: &&Key| own.key.family() == AlgorithmFamily::Hmac;
            key.kid.is_some() && self.keys.iter().filter(of_secret).any(|own| own.kid == key.kid)
        };
        let others: Vec<_> = other.keys.into_iter().filter(|key| !is_taken(key)).collect();
        self.keys.extend(others);
        self
    }

    /// The same with these as well.
    ///
    /// # Errors
    /// A secret and a public key would have one `kid`.
    pub fn with(mut self, other: Self) -> Result<Self, String> {
        self.keys.extend(other.keys);
        let is_secret = |key: &Key| key.key.family() == AlgorithmFamily::Hmac;
        let clash = self.keys.iter().filter(|key| is_secret(key)).find_map(|secret| {
            let kid = secret.kid.as_deref()?;
            self.keys.iter().any(|key| !is_secret(key) && key.kid.as_deref() == Some(kid)).then(|| kid.to_owned())
        });
        match clash {
            Some(kid) => Err(format!("a secret and a public key have the kid {kid:?}")),
            None => Ok(self),
        }
    }

    /// Keys that a token with this `kid` and algorithm may be signed with: those of the `kid` or, if none has it, those
    /// without one; for a token without `kid`, all.
    pub(crate) fn fitting(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let is_for =
            move |key: &&Key| key.algorithms.contains(&algorithm) && key.only.is_none_or(|only| only == algorithm);
        let has_kid = kid.is_some_and(|kid| self.has(kid));
        let is_meant = move |key: &&Key| match kid {
            None => true,
            Some(kid) if has_kid => key.kid.as_deref() == Some(kid),
            Some(_) => key.kid.is_none(),
        };
        self.keys.iter().filter(is_for).filter(is_meant).map(|key| &key.key)
    }

    /// Whether a key has this id.
    #[must_use]
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Keeps the keys out of logs.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys.len()).finish()
    }
}

/// The curve of an elliptic key, by the length of its point: a byte, and two coordinates (SEC 1 §2.3.3).
fn curve_of(key: &DecodingKey) -> &'static [Algorithm] {
    match key.try_get_as_bytes().map(<[u8]>::len) {
        Ok(65) => P256,
        Ok(97) => P384,
        _ => &[],
    }
}

/// The key that a JWK is; `None`: it is for something else.
fn key_of(jwk: Jwk) -> Result<Option<Key>, String> {
    let Jwk { kty, kid, r#use, key_ops, alg, crv, n, e, x, y, d } = jwk;
    let is_for_signatures =
        r#use.is_none_or(|purpose| purpose == "sig") && key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if kty == "oct" {
        return Err("is a secret, which does not belong into a set of public keys: use hs-secret-file".to_owned());
    }
    if d.is_some() {
        return Err("is a private key: public keys are all that tokens are checked with".to_owned());
    }
    let unusable = || "lacks a member, or has a malformed one".to_owned();
    let (algorithms, key) = match (kty.as_str(), crv.as_deref(), n.as_deref(), e.as_deref(), x.as_deref(), y.as_deref())
    {
        ("RSA", _, Some(n), Some(e), ..) => (RSA, DecodingKey::from_rsa_components(n, e)),
        ("EC", Some("P-256"), _, _, Some(x), Some(y)) => (P256, DecodingKey::from_ec_components(x, y)),
        ("EC", Some("P-384"), _, _, Some(x), Some(y)) => (P384, DecodingKey::from_ec_components(x, y)),
        ("OKP", Some("Ed25519"), _, _, Some(x), _) => (ED25519, DecodingKey::from_ed_components(x)),
        ("RSA" | "EC" | "OKP", ..) if !matches!(crv.as_deref(), None | Some("P-256" | "P-384" | "Ed25519")) => {
            return Ok(None);
        }
        ("RSA" | "EC" | "OKP", ..) => return Err(unusable()),
        // RFC 7517 §5: kinds that are not known are left out.
        _ => return Ok(None),
    };
    let key = key.map_err(|_| unusable())?;
    let only = match alg {
        None => None,
        Some(alg) => match alg.parse().ok().filter(|alg| algorithms.contains(alg)) {
            Some(only) => Some(only),
            None => return Ok(None),
        },
    };
    Ok(is_for_signatures.then_some(Key { kid, algorithms, only, key }))
}
