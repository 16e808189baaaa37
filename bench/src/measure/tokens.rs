//! What it costs to find out whose a token is: the broker's access control against a bare loop that decodes a token, checks
//! its signature and parses its claims. In this process, without a broker.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::access::authority::Authority;
use broker::config::auth::{AccessTables, AuthTable, Located};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Deserialize;

use super::{Bench, median};
use crate::results::Figure;

const RATIO_MAX: f64 = 1.25;
/// A known token may cost this part of one that ES256 signed.
const KNOWN_SHARE: f64 = 60.0;
const SECRET: &[u8] = b"the figures' secret, 32 bytes or more";
/// When the tokens are looked at, in seconds since 1970, and until when they are valid.
const NOW_S: u64 = 1_800_000_000;
const EXPIRES_S: u64 = NOW_S + 3600;
/// Enough for all tokens of a pass.
const CACHE_BYTES: u64 = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Algorithm {
    Hs256,
    Es256,
}

/// What signs and what checks.
enum Keys {
    Hs256(Box<hmac::Key>),
    Es256(Box<EcdsaKeyPair>, SystemRandom, UnparsedPublicKey<Vec<u8>>),
}

/// What a bare loop reads of a token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    topics: BTreeMap<String, Vec<String>>,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
        }
    }
}

/// Tokens of one algorithm, the keys, and the broker's access control with them.
struct Setting {
    algorithm: Algorithm,
    keys: Keys,
    tokens: Vec<String>,
    folder: tempfile::TempDir,
}

impl Setting {
    fn new(algorithm: Algorithm, tokens: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let keys = match algorithm {
            Algorithm::Hs256 => {
                fs::write(folder.path().join("key"), SECRET)?;
                Keys::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, SECRET)))
            }
            Algorithm::Es256 => {
                let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                fs::write(folder.path().join("key"), made.public_key_pem())?;
                let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &made.serialize_der())
                    .map_err(|error| anyhow!("the key was refused: {error}"))?;
                let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signer.public_key().as_ref().to_vec());
                Keys::Es256(Box::new(signer), SystemRandom::new(), public)
            }
        };
        let mut setting = Self { algorithm, keys, tokens: Vec::new(), folder };
        setting.tokens = (0..tokens).map(|user| setting.sign(user)).collect::<Result<_>>()?;
        Ok(setting)
    }

    fn sign(&self, user: usize) -> Result<String> {
        let head = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, self.algorithm.name());
        let claims = format!(
            r#"{{"sub":"user-{user}","iat":{NOW_S},"exp":{EXPIRES_S},"topics":{{"subscribe":["chat/7"],"publish":["chat/7"]}}}}"#
        );
        let mut token = URL_SAFE_NO_PAD.encode(head);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = match &self.keys {
            Keys::Hs256(key) => hmac::sign(key, token.as_bytes()).as_ref().to_vec(),
            Keys::Es256(key, random, _) => {
                let signed = key.sign(random, token.as_bytes()).map_err(|_| anyhow!("signing failed"))?;
                signed.as_ref().to_vec()
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// What any verifier has to do.
    fn check(&self, token: &str) -> Result<Claims> {
        let (signed, signature) = token.rsplit_once('.').context("a token has three parts")?;
        let signature = decoded(signature)?;
        let (head, claims) = signed.split_once('.').context("a token has three parts")?;
        let head: BTreeMap<String, String> = serde_json::from_slice(&decoded(head)?)?;
        ensure!(head.get("alg").is_some_and(|name| name == self.algorithm.name()), "another algorithm");
        let good = match &self.keys {
            Keys::Hs256(key) => hmac::verify(key, signed.as_bytes(), &signature),
            Keys::Es256(.., public) => public.verify(signed.as_bytes(), &signature),
        };
        good.map_err(|_| anyhow!("a wrong signature"))?;
        let claims: Claims = serde_json::from_slice(&decoded(claims)?)?;
        ensure!(claims.exp > NOW_S && !claims.sub.is_empty() && !claims.topics.is_empty(), "expired, or nobody's");
        Ok(claims)
    }

    /// Access control that has seen no token.
    fn authority(&self) -> Result<Authority> {
        let file = |path: &Path| Some(Located { value: path.join("key"), source: "figure".to_owned() });
        let (secret, public) = match self.algorithm {
            Algorithm::Hs256 => (file(self.folder.path()), None),
            Algorithm::Es256 => (None, file(self.folder.path())),
        };
        let auth = AuthTable {
            hs_secret_file: secret,
            keys_file: public,
            algorithms: vec![self.algorithm.name().to_owned()],
            ..AuthTable::default()
        };
        let tables = AccessTables { auth: Some(auth), ..AccessTables::default() };
        Authority::new(&tables, &Arc::default(), CACHE_BYTES).map_err(|why| anyhow!(why))
    }

    /// Nanoseconds of processor time per token: bare, new to the broker, and known to it.
    fn pass(&self) -> Result<[f64; 3]> {
        let per_token = |nanos: u64| nanos as f64 / self.tokens.len() as f64;
        let from = ring::floor::thread_cpu_ns();
        for token in &self.tokens {
            black_box(self.check(token)?);
        }
        let bare = ring::floor::thread_cpu_ns() - from;
        let authority = self.authority()?;
        let identify = || -> Result<u64> {
            let from = ring::floor::thread_cpu_ns();
            for token in &self.tokens {
                let identified = black_box(authority.identify(token.as_bytes(), NOW_S * 1000));
                ensure!(identified.result.is_ok(), "a good token was refused");
            }
            Ok(ring::floor::thread_cpu_ns() - from)
        };
        let new = identify()?;
        let known = identify()?;
        Ok([bare, new, known].map(per_token))
    }
}

fn decoded(part: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).map_err(|error| anyhow!("no base64url: {error}"))
}

/// New tokens of both algorithms, and known ones.
pub(crate) fn verification(bench: &Bench) -> Result<Figure> {
    let (tokens, passes) = bench.pick((5000, 21), (50, 1));
    let (mut ratios, mut remarks, mut es256, mut known) = (Vec::new(), Vec::new(), 0.0, 0.0);
    for algorithm in [Algorithm::Hs256, Algorithm::Es256] {
        let setting = Setting::new(algorithm, tokens)?;
        let all = (0..passes).map(|_| setting.pass()).collect::<Result<Vec<_>>>()?;
        let [bare, new, seen] = [0, 1, 2].map(|at| median(all.iter().map(|pass| pass[at]).collect()));
        let name = algorithm.name();
        ratios.push(format!("{name} {:.2} x ({:.1} us against {:.1} us)", new / bare, new / 1e3, bare / 1e3));
        remarks.push((new / bare, format!("{name}: a token that was seen before {:.2} us", seen / 1e3)));
        es256 = bare;
        known = seen;
    }
    let worst = remarks.iter().map(|(ratio, _)| *ratio).fold(0.0, f64::max);
    let share = es256 / known;
    Ok(Figure {
        key: "p-tokens".to_owned(),
        what: "processor time to verify a token, against a bare loop of signature check and claim parsing".to_owned(),
        measured: format!("{}; one seen before 1/{share:.0} of ES256", ratios.join(", ")),
        bound: Some(format!("at most {RATIO_MAX:.2} x, and 1/{KNOWN_SHARE:.0} of ES256")),
        reached: worst <= RATIO_MAX && share >= KNOWN_SHARE,
        remarks: remarks.into_iter().map(|(_, remark)| remark).collect(),
        runs: Vec::new(),
    })
}
