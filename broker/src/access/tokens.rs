//! Tokens (JWT in its compact form, RFC 7515 §3.1, RFC 7519): signature and claims.
//!
//! The algorithm comes from the list of `[auth]` and from the key's family; the header only picks among those. Nothing of a
//! payload is read before its signature is checked, and everything is read strictly: base64url without padding and without
//! loose bits, JSON with no member twice, claims of the types that RFC 7519 gives them. Times are compared with the
//! caller's clock.
//!
//! Not responsible for revocation, nor for whether a token is over: its end is compared last, by the code that
//! knows that all else is right. Nothing of a token is in any error.
//!
//! Memory: what is kept of a token is at most a constant times [`TOKEN_BYTES_MAX`]. Cost: one signature check for a token that
//! names its key; at most [`KEYS_MAX`](crate::access::trusted_keys::KEYS_MAX) for each source otherwise.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use base64::{DecodeSliceError, Engine};
use jsonwebtoken::Algorithm;
use memchr::memchr_iter;
use protocol::topic::check_filter;

use crate::access::info;
use crate::access::json::{Json, Members, member, object};
use crate::access::permissions::{Grant, Operation, Right, Rights, in_order};
use crate::access::principal::{Cause, TokenOrigin};
use crate::access::templates::ClaimValues;
use crate::access::trusted_keys::{KeyId, MAC_BYTES_MAX, Signature, TrustedKeys};

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Most filters that a token grants.
pub const FILTERS_MAX: usize = 64;
/// The longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 255;
/// The latest time that a claim may name, in seconds since 1970: milliseconds stay exact.
const TIME_MAX_S: f64 = 9e12;

/// What `[auth]` asks of tokens.
#[derive(Debug)]
pub(crate) struct Demands {
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) user_claim: String,
    pub(crate) topics_claim: String,
    pub(crate) typ: Option<String>,
    pub(crate) leeway_ms: u64,
    pub(crate) max_age_ms: Option<u64>,
    /// The header of the first token that was good. Tokens of one issuer begin alike, so that it need not be read again.
    pub(crate) usual_header: OnceLock<Header>,
}

/// A header that was read.
pub(crate) struct Header {
    text: Box<[u8]>,
    algorithm: Algorithm,
    kid: Option<Box<str>>,
}

impl fmt::Debug for Header {
    /// Without the text: nothing of a token is shown anywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// What a good token says.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) user: Arc<str>,
    pub(crate) issued_at_s: Option<u64>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) origin: TokenOrigin,
}

/// A token of which only the header was read. Nothing that it says is believed.
pub(crate) struct Unverified<'a> {
    /// What is signed: header, a full stop, payload.
    message: &'a [u8],
    payload: &'a [u8],
    signature: Signature<'a>,
    header: MaybeUsual<'a>,
}

/// The header that the issuer's tokens have, or another.
enum MaybeUsual<'a> {
    Usual(&'a Header),
    Other(Header),
}

impl MaybeUsual<'_> {
    fn get(&self) -> &Header {
        match self {
            Self::Usual(header) => header,
            Self::Other(header) => header,
        }
    }
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is no token, or none by an algorithm that is wanted.
    pub(crate) fn read(token: &'a [u8], demands: &'a Demands) -> Result<Self, Cause> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Cause::TooLong);
        }
        let mut ends = memchr_iter(b'.', token);
        let (Some(head_end), Some(end), None) = (ends.next(), ends.next(), ends.next()) else {
            return Err(Cause::Malformed);
        };
        let (message, head, payload) = (&token[..end], &token[..head_end], &token[head_end + 1..end]);
        let header = match demands.usual_header.get().filter(|usual| *usual.text == *head) {
            Some(usual) => MaybeUsual::Usual(usual),
            None => MaybeUsual::Other(header(head, demands)?),
        };
        let signature = signature(&token[end + 1..], header.get().algorithm)?;
        Ok(Self { message, payload, signature, header })
    }

    /// The first 32 bytes of its HMAC, if it says that it has one. Once [`Unverified::signer`] has found it right, nobody has
    /// another token with the same.
    pub(crate) fn mac(&self) -> Option<[u8; 32]> {
        match &self.signature {
            Signature::Mac(bytes, _) => bytes.first_chunk().copied(),
            Signature::Public(_) => None,
        }
    }

    /// The trusted key that its signature is of. What it takes to find out is added to `cost`, in units of about 100 ns of
    /// processor time.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn signer(&self, keys: &TrustedKeys, cost: &mut u32) -> Result<KeyId, Cause> {
        let Header { algorithm, kid, .. } = self.header.get();
        let mut is_known = false;
        for candidate in keys.candidates(*algorithm, kid.as_deref()) {
            is_known = true;
            *cost += cost_of(*algorithm);
            if candidate.has_signed(self.message, &self.signature, *algorithm) {
                return Ok(candidate.id);
            }
        }
        Err(if is_known { Cause::Signature } else { Cause::UnknownKey })
    }

    /// Checks everything else but revocation and the token's end. `kept` are the claims that are kept.
    ///
    /// # Errors
    /// What is wrong first.
    pub(crate) fn claims(
        self,
        signer: KeyId,
        demands: &Demands,
        kept: &[Arc<str>],
        now_ms: u64,
    ) -> Result<Verified, Cause> {
        if let MaybeUsual::Other(header) = self.header {
            // Of two, the first stays.
            let _ = demands.usual_header.set(header);
        }
        let json = BASE64_URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| Cause::Malformed)?;
        let members = object(&json).ok_or(Cause::Malformed)?;
        let mut verified = claims(&members, demands, signer, kept, now_ms)?;
        if member(&members, info::CLAIM).is_some() {
            verified.origin.info = info::info_in(&json);
        }
        Ok(verified)
    }
}

/// What [`Unverified::read`] costs, in units of about 100 ns of processor time.
pub(crate) const COST_OF_READING: u32 = 5;
/// What [`Unverified::claims`] costs, in the same units.
pub(crate) const COST_OF_CLAIMS: u32 = 30;

/// What a signature check costs, in the same units.
fn cost_of(algorithm: Algorithm) -> u32 {
    use Algorithm::{ES256, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
    match algorithm {
        HS256 | HS384 | HS512 => 15,
        RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => 500,
        ES256 => 1200,
        EdDSA => 800,
        // ES384.
        _ => 4000,
    }
}

/// Reads the signature of a token by this algorithm.
fn signature(text: &[u8], algorithm: Algorithm) -> Result<Signature<'_>, Cause> {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            let mut bytes = [0; MAC_BYTES_MAX];
            let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes);
            let length = decoded.map_err(|error| match error {
                DecodeSliceError::DecodeError(_) => Cause::Malformed,
                DecodeSliceError::OutputSliceTooSmall => Cause::Signature,
            })?;
            Ok(Signature::Mac(bytes, length))
        }
        _ => {
            BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Cause::Malformed)?;
            std::str::from_utf8(text).map(Signature::Public).map_err(|_| Cause::Malformed)
        }
    }
}

/// Reads a header: the algorithm and `kid` that it asks for.
fn header(text: &[u8], demands: &Demands) -> Result<Header, Cause> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Cause::Malformed)?;
    let head = &object(&json).ok_or(Cause::Malformed)?;
    let name = member(head, "alg").and_then(Json::text).ok_or(Cause::Algorithm)?;
    let algorithm: Algorithm = name.parse().map_err(|_| Cause::Algorithm)?;
    if !demands.algorithms.contains(&algorithm) {
        return Err(Cause::Algorithm);
    }
    if member(head, "crit").is_some() {
        return Err(Cause::Critical);
    }
    if let Some(wanted) = &demands.typ {
        let short = |typ: &str| typ.to_ascii_lowercase().trim_start_matches("application/").to_owned();
        if member(head, "typ").and_then(Json::text).is_none_or(|typ| short(typ) != short(wanted)) {
            return Err(Cause::Type);
        }
    }
    let kid = match member(head, "kid") {
        None => None,
        Some(Json::Text(kid)) => Some(kid.as_ref().into()),
        Some(_) => return Err(Cause::Malformed),
    };
    Ok(Header { text: text.into(), algorithm, kid })
}

/// Checks the claims of a token whose signature is right.
fn claims(
    members: &Members,
    demands: &Demands,
    signed_by: KeyId,
    kept: &[Arc<str>],
    now_ms: u64,
) -> Result<Verified, Cause> {
    let [expires_ms, not_before_ms, issued_at_ms] = ["exp", "nbf", "iat"].map(|name| time_ms(members, name));
    let (expires_ms, not_before_ms, issued_at_ms) = (expires_ms?, not_before_ms?, issued_at_ms?);
    addressed(members, demands)?;
    let user = member(members, &demands.user_claim).and_then(Json::text).ok_or(Cause::User)?;
    if user.is_empty() || user.len() > USER_BYTES_MAX || user.chars().any(char::is_control) {
        return Err(Cause::User);
    }
    let grants = match member(members, &demands.topics_claim) {
        None => Arc::default(),
        Some(Json::Object(topics)) => grants(topics)?,
        Some(_) => return Err(Cause::Topics),
    };
    if expires_ms.is_none() && demands.max_age_ms.is_none() {
        return Err(Cause::NoExpiry);
    }
    let latest_ms = now_ms.saturating_add(demands.leeway_ms);
    if [not_before_ms, issued_at_ms].into_iter().flatten().any(|time_ms| time_ms > latest_ms) {
        return Err(Cause::NotYet);
    }
    let claims = kept.iter().filter_map(|name| Some((Arc::clone(name), values(member(members, name)?))));
    Ok(Verified {
        user: user.into(),
        issued_at_s: issued_at_ms.map(|time_ms| time_ms / 1000),
        expires_ms,
        origin: TokenOrigin { signed_by, grants, claims: claims.collect(), info: None },
    })
}

/// The time that a claim names, in milliseconds since 1970. Fractions of a second are allowed (RFC 7519 §2).
fn time_ms(members: &Members, name: &str) -> Result<Option<u64>, Cause> {
    match member(members, name) {
        None => Ok(None),
        Some(Json::Number(time_s)) if (0.0..=TIME_MAX_S).contains(time_s) => Ok(Some((time_s * 1000.0) as u64)),
        Some(_) => Err(Cause::Claims),
    }
}

/// Whether a token comes from whom it should, and is meant for this broker.
fn addressed(members: &Members, demands: &Demands) -> Result<(), Cause> {
    let issuer = match member(members, "iss") {
        None => None,
        Some(Json::Text(issuer)) => Some(issuer.as_ref()),
        Some(_) => return Err(Cause::Claims),
    };
    if demands.issuer.is_some() && demands.issuer.as_deref() != issuer {
        return Err(Cause::Issuer);
    }
    let audiences = match member(members, "aud") {
        None => Vec::new(),
        Some(Json::Text(audience)) => vec![audience.as_ref()],
        Some(Json::List(list)) => list.iter().map(Json::text).collect::<Option<_>>().ok_or(Cause::Claims)?,
        Some(_) => return Err(Cause::Claims),
    };
    match &demands.audience {
        Some(audience) if !audiences.contains(&audience.as_str()) => Err(Cause::Audience),
        _ => Ok(()),
    }
}

/// What the claim with topics grants.
fn grants(topics: &Members) -> Result<Arc<[Grant]>, Cause> {
    let (mut grants, mut rights) = (Vec::new(), Rights::default());
    for (name, value) in topics {
        let Json::List(list) = value else { return Err(Cause::Topics) };
        let texts = || list.iter().map(|value| value.text().ok_or(Cause::Topics));
        if name == "rights" {
            for text in texts() {
                let text = text?;
                let right = Right::ALL.into_iter().find(|right| right.name() == text).ok_or(Cause::Topics)?;
                rights = rights.with(right);
            }
            continue;
        }
        let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name).ok_or(Cause::Topics)?;
        grants.reserve(list.len().min(FILTERS_MAX));
        for filter in texts() {
            let filter = filter?;
            check_filter(filter, TOKEN_BYTES_MAX).map_err(|_| Cause::Topics)?;
            grants.push(Grant { operation, filter: filter.into(), rights: Rights::default(), is_template: false });
        }
    }
    if grants.len() > FILTERS_MAX {
        return Err(Cause::Topics);
    }
    for grant in grants.iter_mut().filter(|grant| grant.operation == Operation::Subscribe) {
        grant.rights = rights;
    }
    in_order(&mut grants);
    Ok(grants.into())
}

/// The values of a claim as text.
fn values(claim: &Json) -> ClaimValues {
    match claim {
        Json::List(list) => list.iter().filter_map(value).collect(),
        claim => value(claim).into_iter().collect(),
    }
}

fn value(claim: &Json) -> Option<Box<str>> {
    /// Up to here every whole number has a value of its own.
    const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;
    match claim {
        Json::Text(text) => Some(text.as_ref().into()),
        Json::Bool(value) => Some(value.to_string().into()),
        Json::Number(number) if number.fract() == 0.0 && number.abs() <= WHOLE_MAX => {
            Some(format!("{number:.0}").into())
        }
        Json::Null | Json::Number(_) | Json::List(_) | Json::Object(_) => None,
    }
}
