//! Tokens, good and bad, and how the broker has to judge them at which time. Times of tokens are milliseconds since 1970.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::Random;
use serde_json::{Value, json};

use super::{EPOCH_S, Grants, USERS};

pub(super) const SECRET: &str = "a secret of the simulation, more than 32 bytes";
const OTHER: &str = "the secret of somebody else, more than 32 bytes";

/// What a token says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Index of its user.
    pub user: usize,
    /// Whether its role is `admin`.
    pub is_admin: bool,
    /// What it grants by itself.
    pub own: Grants,
    /// `iat`.
    pub issued_ms: u64,
    /// `nbf`.
    pub not_before_ms: Option<u64>,
    /// `exp`.
    pub expires_ms: u64,
}

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it says.
    pub claims: Claims,
    /// It is not as it was signed.
    pub forged: bool,
    /// As it is sent.
    pub text: String,
}

/// As what a token may be judged within some time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Verdicts {
    /// It is accepted.
    pub good: bool,
    /// It is refused.
    pub bad: bool,
    /// It is refused for nothing but its end.
    pub expired: bool,
}

/// The time of day at a time of the simulation, in milliseconds.
pub(crate) fn time_of_day(nanos: u64) -> u64 {
    EPOCH_S * 1000 + nanos / 1_000_000
}

impl Token {
    /// A token of a user: mostly a good one.
    pub(crate) fn draw(rng: &mut Random, user: usize, leeway_ms: u64, now_ms: u64) -> Self {
        let now_s = now_ms / 1000;
        let age_s = if rng.one_in(3) { rng.range(0, 10) as u64 } else { 0 };
        let mut claims = Claims {
            user,
            is_admin: rng.percent(40),
            own: own(rng),
            issued_ms: (now_s - age_s) * 1000,
            not_before_ms: None,
            expires_ms: (now_s + rng.pick(&[2, 4, 8, 20, 90, 300, 100_000])) * 1000 + rng.pick(&[0, 500]),
        };
        let leeway_s = leeway_ms / 1000;
        let mut forged = false;
        match rng.below(16) {
            // Over, or soon.
            0 => claims.expires_ms = (now_s - leeway_s) * 1000 - rng.pick(&[0, 500, 3000]),
            1 => claims.expires_ms = (now_s - leeway_s + rng.range(1, 3) as u64) * 1000,
            // Not yet, but perhaps soon.
            2 => claims.not_before_ms = Some((now_s + leeway_s + rng.range(1, 4) as u64) * 1000),
            3 => claims.issued_ms = (now_s + leeway_s + rng.range(1, 4) as u64) * 1000,
            4 => forged = true,
            5 => claims.not_before_ms = Some(claims.issued_ms),
            _ => {}
        }
        claims.expires_ms = claims.expires_ms.max(1000);
        let text = if forged { forge(&claims, rng) } else { sign(SECRET, &claims.json()) };
        Self { claims, forged, text }
    }

    /// A good one that says who somebody is, and lasts.
    pub(crate) fn lasting(user: usize, now_ms: u64) -> Self {
        let issued_ms = now_ms / 1000 * 1000;
        let expires_ms = issued_ms + 1_000_000_000;
        let own = Grants::default();
        let claims = Claims { user, is_admin: false, own, issued_ms, not_before_ms: None, expires_ms };
        Self { text: sign(SECRET, &claims.json()), claims, forged: false }
    }

    /// As what it may be judged from one time to another.
    pub(crate) fn verdicts(&self, leeway_ms: u64, (from_ms, to_ms): (u64, u64), revoked: (bool, bool)) -> Verdicts {
        if self.forged {
            return Verdicts { bad: true, ..Verdicts::default() };
        }
        let Claims { issued_ms, not_before_ms, expires_ms, .. } = self.claims;
        let begins_ms = issued_ms.max(not_before_ms.unwrap_or(0)).saturating_sub(leeway_ms);
        let ends_ms = expires_ms + leeway_ms;
        let (was_revoked, is_revoked) = revoked;
        let first_ms = from_ms.max(begins_ms);
        Verdicts {
            good: !was_revoked && first_ms <= to_ms && first_ms < ends_ms,
            bad: from_ms < begins_ms || is_revoked,
            expired: !was_revoked && to_ms >= ends_ms.max(begins_ms),
        }
    }
}

impl Claims {
    fn json(&self) -> Value {
        let seconds = |ms: u64| if ms.is_multiple_of(1000) { json!(ms / 1000) } else { json!(ms as f64 / 1000.0) };
        let mut claims = json!({
            "sub": USERS[self.user],
            "iat": seconds(self.issued_ms),
            "exp": seconds(self.expires_ms),
        });
        if let Some(ms) = self.not_before_ms {
            claims["nbf"] = seconds(ms);
        }
        if self.is_admin {
            claims["role"] = "admin".into();
        }
        if self.own != Grants::default() {
            let rights = if self.own.history { &["history"][..] } else { &[] };
            claims["topics"] = json!({"subscribe": self.own.subscribe, "publish": self.own.publish, "rights": rights});
        }
        claims
    }
}

fn own(rng: &mut Random) -> Grants {
    if !rng.one_in(4) {
        return Grants::default();
    }
    let mut list = || {
        let filters = [rng.pick(&["a/#", "+", "u/+/x", "b/+", "#"]), rng.pick(&["t0", "a/t1"])];
        filters[..rng.range(1, 2)].iter().map(|&filter| filter.to_owned()).collect()
    };
    let (subscribe, publish) = (list(), list());
    Grants { subscribe, publish, history: rng.one_in(2) }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(secret: &str, claims: &Value) -> String {
    let message = format!("{}.{}", encode(&json!({"alg": "HS256", "typ": "JWT"})), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

/// A token that says this, and is none.
fn forge(claims: &Claims, rng: &mut Random) -> String {
    let claims = claims.json();
    let good = sign(SECRET, &claims);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    match rng.below(5) {
        0 => sign(OTHER, &claims),
        1 => format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&claims)),
        2 => {
            let mut others = claims;
            others["role"] = "admin".into();
            others["iat"] = 1.into();
            let (head, _) = message.split_once('.').expect("two parts");
            format!("{head}.{}.{signature}", encode(&others))
        }
        3 => "no-token".to_owned(),
        _ => message.to_owned(),
    }
}
