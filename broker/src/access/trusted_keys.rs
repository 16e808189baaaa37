//! Keys that signatures of tokens are checked with: a secret, a JWK set, or PEM.
//!
//! A key belongs to one family, and has the algorithms of this family only: what a token says of itself never decides how
//! its key is used. A key with a `kid` checks only tokens with this `kid`; one without checks tokens with any, or none. A
//! token without `kid` is checked with a key that has one if no other key suits.
//!
//! Not responsible for where keys come from, nor for which algorithms are allowed. Keys appear in no error and no `Debug`.
//! Memory: at most [`KEYS_MAX`] keys for each source. RFC 7517, RFC 7518 §6, RFC 8037.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};

use crate::access::json::{Json, Members, member, object};

/// The shortest secret, in bytes: as long as what SHA-256 gives (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// Most keys of one source.
pub const KEYS_MAX: usize = 64;
/// Lengths of an RSA modulus in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Tells keys apart: the first half of the SHA-256 of what they consist of.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct KeyId([u8; 16]);

/// What kind of key it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Family {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Family {
    fn has(self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match algorithm {
            HS256 | HS384 | HS512 => self == Self::Secret,
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => self == Self::Rsa,
            ES256 => self == Self::P256,
            ES384 => self == Self::P384,
            EdDSA => self == Self::Ed25519,
            _ => false,
        }
    }
}

/// One key.
#[derive(Clone)]
pub(crate) struct TrustedKey {
    pub(crate) id: KeyId,
    kid: Option<Box<str>>,
    family: Family,
    /// The only algorithm that it may be used with, if its `alg` says so.
    only: Option<Algorithm>,
    check: Check,
}

/// What checks signatures.
#[derive(Clone)]
enum Check {
    /// A secret, made ready for HS256, HS384 and HS512.
    Secret(Arc<[hmac::Key; 3]>),
    Public(DecodingKey),
}

/// The signature of a token.
pub(crate) enum Signature<'a> {
    /// An HMAC, in its first so many bytes.
    Mac([u8; MAC_BYTES_MAX], usize),
    /// Of a public key, in base64url.
    Public(&'a str),
}

/// The longest HMAC, in bytes.
pub(crate) const MAC_BYTES_MAX: usize = 64;

/// Keeps keys out of logs.
impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedKey").field("kid", &self.kid).field("family", &self.family).finish_non_exhaustive()
    }
}

impl TrustedKey {
    fn public(family: Family, material: &[u8], key: DecodingKey) -> Self {
        Self::new(family, material, Check::Public(key))
    }

    fn secret(secret: &[u8]) -> Self {
        let algorithms = [hmac::HMAC_SHA256, hmac::HMAC_SHA384, hmac::HMAC_SHA512];
        let keys = algorithms.map(|algorithm| hmac::Key::new(algorithm, secret));
        Self::new(Family::Secret, secret, Check::Secret(Arc::new(keys)))
    }

    fn new(family: Family, material: &[u8], check: Check) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&digest(&SHA256, material).as_ref()[..16]);
        Self { id: KeyId(id), kid: None, family, only: None, check }
    }

    /// Whether this key made the signature of a message by an algorithm that suits it.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &Signature, algorithm: Algorithm) -> bool {
        let ([hs256, hs384, hs512], mac) = match (&self.check, signature) {
            (Check::Secret(keys), Signature::Mac(bytes, length)) => (&**keys, &bytes[..*length]),
            // An error is about the key or the length of the signature.
            (Check::Public(key), Signature::Public(text)) => {
                return crypto::verify(text, message, key, algorithm).unwrap_or(false);
            }
            _ => return false,
        };
        let key = match algorithm {
            Algorithm::HS256 => hs256,
            Algorithm::HS384 => hs384,
            Algorithm::HS512 => hs512,
            _ => return false,
        };
        hmac::verify(key, message, mac).is_ok()
    }

    fn suits(&self, algorithm: Algorithm) -> bool {
        self.family.has(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }
}

/// All keys.
#[derive(Clone, Default, Debug)]
pub(crate) struct TrustedKeys(Vec<TrustedKey>);

impl TrustedKeys {
    /// The keys of several sources.
    ///
    /// # Errors
    /// A sentence, if a `kid` is that of a secret and of a public key, or of two keys of one family.
    pub(crate) fn unite(sources: impl IntoIterator<Item = Self>) -> Result<Self, String> {
        let mut all: Vec<TrustedKey> = Vec::new();
        for key in sources.into_iter().flat_map(|source| source.0) {
            if all.iter().any(|other| other.id == key.id && other.kid == key.kid && other.only == key.only) {
                continue;
            }
            let same = all.iter().filter(|other| other.kid.is_some() && other.kid == key.kid);
            for other in same {
                let shown = key.kid.as_deref().unwrap_or_default().escape_debug();
                if other.family == key.family {
                    return Err(format!("two keys have the kid '{shown}'"));
                }
                if other.family == Family::Secret || key.family == Family::Secret {
                    return Err(format!("a secret and a public key have the kid '{shown}'"));
                }
            }
            all.push(key);
        }
        Ok(Self(all))
    }

    /// The keys that may have made a signature by this algorithm, under this `kid`.
    pub(crate) fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &TrustedKey> {
        let suiting = move || self.0.iter().filter(move |key| key.suits(algorithm));
        let has_name = |key: &TrustedKey| kid.is_some() && key.kid.as_deref() == kid;
        // None: whatever its name is.
        let name = if suiting().any(has_name) {
            Some(kid)
        } else if kid.is_none() && suiting().all(|key| key.kid.is_some()) && suiting().count() == 1 {
            None
        } else {
            Some(None)
        };
        suiting().filter(move |key| name.is_none_or(|name| key.kid.as_deref() == name))
    }

    /// Whether a key is still trusted.
    pub(crate) fn has(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether both have the same keys under the same names.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let facts = |keys: &Self| {
            let mut facts: Vec<_> = keys.0.iter().map(|key| (key.id.0, key.kid.clone())).collect();
            facts.sort();
            facts
        };
        facts(self) == facts(other)
    }

    /// The secret in a file. White space around it does not belong to it.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub(crate) fn secret(text: &[u8]) -> Result<Self, String> {
        let secret = text.trim_ascii();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!(
                "it has {} bytes, and a secret needs at least {SECRET_BYTES_MIN}: `openssl rand -base64 48` prints one",
                secret.len()
            ));
        }
        Ok(Self(vec![TrustedKey::secret(secret)]))
    }

    /// The keys in a JWK set, or in PEM. With `only_public`, a JWK set without secrets.
    ///
    /// # Errors
    /// The rest of a sentence.
    pub(crate) fn read(text: &[u8], only_public: bool) -> Result<Self, String> {
        let is_json = only_public || text.trim_ascii_start().starts_with(b"{");
        let keys = if is_json { jwk_set(text, only_public)? } else { pem(text)? };
        if keys.is_empty() {
            return Err("it has no key that can be used: RSA of at least 2048 bits, P-256, P-384 or Ed25519".to_owned());
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("it has {} keys: at most {KEYS_MAX}", keys.len()));
        }
        Self::unite([Self(keys)])
    }
}

/// Keys that can be used; others are for somebody else (RFC 7517 §5).
fn jwk_set(text: &[u8], only_public: bool) -> Result<Vec<TrustedKey>, String> {
    let set = object(text).ok_or("it is not a JSON object, or has a member twice")?;
    let Some(Json::List(list)) = member(&set, "keys") else {
        return Err("it has no list `keys`: a JWK set is {\"keys\": [...]}".to_owned());
    };
    let mut keys = Vec::new();
    for (number, jwk) in (1..).zip(list) {
        let Json::Object(jwk) = jwk else { return Err(format!("key {number} is not an object")) };
        keys.extend(self::jwk(jwk, only_public).map_err(|why| format!("key {number}: {why}"))?);
    }
    Ok(keys)
}

/// One key; `None`: it is for something else.
fn jwk(jwk: &Members, only_public: bool) -> Result<Option<TrustedKey>, String> {
    let text = |name| member(jwk, name).and_then(Json::text);
    let bytes = |name| text(name).and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    let is_for_others = text("use").is_some_and(|purpose| purpose != "sig");
    let cannot_verify = match member(jwk, "key_ops") {
        None => false,
        Some(Json::List(operations)) => !operations.iter().any(|operation| operation.text() == Some("verify")),
        Some(_) => true,
    };
    if is_for_others || cannot_verify {
        return Ok(None);
    }
    let kty = text("kty").ok_or("it has no kty")?;
    if kty != "oct" && member(jwk, "d").is_some() {
        return Err("it is a private key (it has d): only the public part belongs here".to_owned());
    }
    let point = |len: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        (x.len() == len && y.len() == len).then(|| [&[4][..], &x, &y].concat())
    };
    let of_point = |family, len| {
        let point = point(len).ok_or("x and y are not those of its curve")?;
        Ok::<_, String>(TrustedKey::public(family, &point, DecodingKey::from_ec_der(&point)))
    };
    let mut key = match (kty, text("crv")) {
        ("EC", Some("P-256")) => of_point(Family::P256, 32)?,
        ("EC", Some("P-384")) => of_point(Family::P384, 48)?,
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x").filter(|x| x.len() == 32).ok_or("x has not 32 bytes")?;
            TrustedKey::public(Family::Ed25519, &x, DecodingKey::from_ed_der(&x))
        }
        ("RSA", _) => match rsa(bytes("n"), bytes("e"))? {
            Some(key) => key,
            None => return Ok(None),
        },
        ("oct", _) if only_public => {
            return Err("it is a secret, which must not be where others can read it".to_owned());
        }
        ("oct", _) => {
            let secret = bytes("k").filter(|secret| secret.len() >= SECRET_BYTES_MIN);
            let secret = secret.ok_or_else(|| format!("k has not at least {SECRET_BYTES_MIN} bytes in base64url"))?;
            TrustedKey::secret(&secret)
        }
        _ => return Ok(None),
    };
    key.kid = match member(jwk, "kid") {
        None => None,
        Some(Json::Text(kid)) => Some(kid.as_ref().into()),
        Some(_) => return Err("its kid is not a text".to_owned()),
    };
    if let Some(name) = text("alg") {
        match name.parse::<Algorithm>() {
            Ok(algorithm) if key.family.has(algorithm) => key.only = Some(algorithm),
            Ok(_) => return Err("its alg is not one of its kty".to_owned()),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(key))
}

/// An RSA key; `None`: it is too short or too long.
fn rsa(n: Option<Vec<u8>>, e: Option<Vec<u8>>) -> Result<Option<TrustedKey>, String> {
    let (Some(n), Some(e)) = (n, e) else { return Err("it has no n or no e".to_owned()) };
    let n = &n[n.iter().take_while(|byte| **byte == 0).count()..];
    let key = DecodingKey::from_rsa_raw_components(n, &e);
    Ok(RSA_BYTES.contains(&n.len()).then(|| TrustedKey::public(Family::Rsa, n, key)))
}

/// The public keys in a PEM file.
fn pem(text: &[u8]) -> Result<Vec<TrustedKey>, String> {
    const BEGIN: &str = "-----BEGIN ";
    let text = std::str::from_utf8(text).map_err(|_| "it is neither a JWK set nor PEM".to_owned())?;
    let mut keys = Vec::new();
    for (number, block) in (1..).zip(text.split(BEGIN).skip(1)) {
        let label = block.split("-----").next().unwrap_or_default();
        if label.ends_with("PRIVATE KEY") {
            return Err(format!("key {number} is a private key: only the public part belongs here"));
        }
        if label != "PUBLIC KEY" {
            return Err(format!("key {number} is a {}, not a PUBLIC KEY", label.escape_debug()));
        }
        let end = block.find("-----END PUBLIC KEY-----").ok_or_else(|| format!("key {number} has no end"))?;
        let block = format!("{BEGIN}{}-----END PUBLIC KEY-----\n", &block[..end]);
        keys.push(public_key(block.as_bytes()).ok_or_else(|| {
            format!("key {number} cannot be used: it must be RSA of at least 2048 bits, P-256, P-384 or Ed25519")
        })?);
    }
    if keys.is_empty() { Err("it is neither a JWK set nor PEM".to_owned()) } else { Ok(keys) }
}

fn public_key(block: &[u8]) -> Option<TrustedKey> {
    if let Ok(key) = DecodingKey::from_ed_pem(block) {
        let bytes = key.try_get_as_bytes().ok().filter(|bytes| bytes.len() == 32)?.to_vec();
        return Some(TrustedKey::public(Family::Ed25519, &bytes, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(block) {
        let bytes = key.try_get_as_bytes().ok()?.to_vec();
        let family = match bytes.len() {
            65 => Family::P256,
            97 => Family::P384,
            _ => return None,
        };
        return Some(TrustedKey::public(family, &bytes, key));
    }
    let key = DecodingKey::from_rsa_pem(block).ok()?;
    let parsed = aws_lc_rs::rsa::PublicKey::from_der(key.try_get_as_bytes().ok()?).ok()?;
    let n = aws_lc_rs::signature::RsaPublicKeyComponents::<Vec<u8>>::from(&parsed);
    rsa(Some(n.n), Some(n.e)).ok()?
}
