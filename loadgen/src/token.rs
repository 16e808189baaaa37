//! The tokens with which connections log in: given ones, or JSON Web Tokens that are signed here (RFC 7515 and 7519, HS256).
//!
//! A connection keeps its token over the whole run, so that one that comes back is known to the server. All signed tokens
//! of a run are of the time when it was planned.
//!
//! Not responsible for how a token is carried (`adapter`). Cost of a signed token: about 2 µs, when its client connects.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The shortest secret that HS256 allows (RFC 7518, section 3.2), in bytes.
const SECRET_MIN: usize = 32;

/// Where a token stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum TokenBy {
    /// In the first command, `connect` (v1)
    Connect,
    /// As subprotocol `ringyard.token.TOKEN`, which a page can send (raw, v1)
    Subprotocol,
    /// In `Authorization: Bearer TOKEN`
    Header,
}

/// Whose token it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// A client, by its number.
    Client(u64),
    /// A connection that only publishes, by its number.
    Publisher(u32),
}

/// The tokens of a run.
#[derive(Debug)]
pub enum Tokens {
    /// One for all.
    Same(String),
    /// Spread over the clients, and over the publishers.
    Listed(Vec<String>),
    /// Each connection its own.
    Signed(Box<Signer>),
}

impl Tokens {
    /// One token for all.
    ///
    /// # Errors
    /// When it cannot stand in a header.
    pub fn same(token: &str) -> Result<Self> {
        check(token).context("--token")?;
        Ok(Self::Same(token.to_owned()))
    }

    /// Those of a file, one in a line.
    ///
    /// # Errors
    /// When it cannot be read, or a line is no token: says which.
    pub fn listed(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("--token-file: reading {}", file.display()))?;
        let mut tokens = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let token = line.trim();
            if !token.is_empty() {
                check(token).with_context(|| format!("--token-file: {}, line {number}", file.display()))?;
                tokens.push(token.to_owned());
            }
        }
        ensure!(!tokens.is_empty(), "--token-file: {} contains no token", file.display());
        Ok(Self::Listed(tokens))
    }

    /// The token of a connection.
    #[must_use]
    pub fn of(&self, holder: Holder) -> Cow<'_, str> {
        match self {
            Self::Same(token) => token.into(),
            Self::Listed(tokens) => {
                let number = match holder {
                    Holder::Client(number) => number,
                    Holder::Publisher(number) => u64::from(number),
                };
                let at = number % tokens.len() as u64;
                (&tokens[at as usize]).into()
            }
            Self::Signed(signer) => signer.sign(holder).into(),
        }
    }
}

/// What may stand in a header and in a subprotocol's name (RFC 9110, section 5.6.2).
fn check(token: &str) -> Result<()> {
    ensure!(!token.is_empty(), "a token is not empty");
    let other = token.chars().find(|c| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c)));
    match other {
        Some(other) => bail!("a token has no {other:?}: it is a JWT, or a key that begins with rk_"),
        None => Ok(()),
    }
}

/// Signs tokens.
#[derive(Debug)]
pub struct Signer {
    key: hmac::Key,
    /// Every user's name begins with it.
    prefix: String,
    /// The claim `topics`.
    topics: Option<Value>,
    issued_s: u64,
    expires_s: u64,
}

impl Signer {
    /// With the secret in a file, as the broker reads it: white space around it does not count. `topics` is the claim of
    /// this name, as JSON. `now_s` is in seconds since 1970.
    ///
    /// # Errors
    /// When the secret cannot be read or is too short, or `topics` is no JSON object.
    pub fn new(file: &Path, prefix: &str, topics: Option<&str>, ttl: Duration, now_s: u64) -> Result<Self> {
        let secret = fs::read(file).with_context(|| format!("--token-secret-file: reading {}", file.display()))?;
        let secret = secret.trim_ascii();
        ensure!(
            secret.len() >= SECRET_MIN,
            "--token-secret-file: {} has {} bytes, HS256 needs at least {SECRET_MIN}",
            file.display(),
            secret.len()
        );
        let topics = topics.map(|text| serde_json::from_str::<Value>(text).context("--token-topics is no JSON"));
        let topics = topics.transpose()?;
        ensure!(
            topics.as_ref().is_none_or(Value::is_object),
            r#"--token-topics is an object such as {{"subscribe":["a/#"],"publish":["a/#"]}}"#
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self { key, prefix: prefix.to_owned(), topics, issued_s: now_s, expires_s: now_s + ttl.as_secs() })
    }

    fn sign(&self, holder: Holder) -> String {
        let user = match holder {
            Holder::Client(number) => format!("{}{number}", self.prefix),
            Holder::Publisher(number) => format!("{}publisher-{number}", self.prefix),
        };
        let mut claims = json!({ "sub": user, "iat": self.issued_s, "exp": self.expires_s });
        if let Some(topics) = &self.topics {
            claims["topics"] = topics.clone();
        }
        let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let tag = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(tag, &mut token);
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef\n";

    /// The signature is compared with the one that Python's `hmac` makes.
    #[test]
    fn signed_tokens_are_of_their_holders() {
        let topics = r#"{"subscribe":["a/#"]}"#;
        let signer = Signer::new(file(SECRET).path(), "u-", Some(topics), Duration::from_secs(60), 1000).unwrap();
        let tokens = Tokens::Signed(Box::new(signer));
        let token = tokens.of(Holder::Client(7)).into_owned();
        let parts: Vec<_> = token.split('.').collect();
        let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(text(parts[0]), r#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(text(parts[1]), r#"{"exp":1060,"iat":1000,"sub":"u-7","topics":{"subscribe":["a/#"]}}"#);
        assert_eq!(parts[2], "8AtFvRZeL7eoh3JkiyLouS_tz-S9yt_8RdKc6oGbN8s");
        assert_eq!(tokens.of(Holder::Client(7)), token, "the same when it comes back");
        check(&token).unwrap();
        let publisher = tokens.of(Holder::Publisher(7)).into_owned();
        assert!(text(publisher.split('.').nth(1).unwrap()).contains(r#""u-publisher-7""#));
    }

    #[test]
    fn given_tokens_are_spread() {
        let tokens = Tokens::listed(file("aa.bb.cc\n\n  rk_x-_ \n").path()).unwrap();
        let of = |number| tokens.of(Holder::Client(number)).into_owned();
        assert_eq!([of(0), of(1), of(2)], ["aa.bb.cc", "rk_x-_", "aa.bb.cc"]);
        assert_eq!(tokens.of(Holder::Publisher(1)), "rk_x-_");
        assert_eq!(Tokens::same("x").unwrap().of(Holder::Client(9)), "x");
    }

    #[test]
    fn what_is_no_token_is_refused_by_name() {
        let error = |result: Result<Tokens>| format!("{:#}", result.unwrap_err());
        assert!(error(Tokens::same("a b")).contains("--token: a token has no ' '"));
        assert!(Tokens::same("").is_err() && Tokens::same("a=").is_err() && Tokens::same("a\r\nX: y").is_err());
        assert!(error(Tokens::listed(file("ok\nno,\n").path())).contains("line 2"));
        assert!(error(Tokens::listed(file("\n").path())).contains("contains no token"));
        let signer = |secret: &str, topics| {
            let signer = Signer::new(file(secret).path(), "", topics, Duration::from_secs(1), 0);
            format!("{:#}", signer.unwrap_err())
        };
        assert!(signer("short\n", None).contains("has 5 bytes"));
        assert!(signer(SECRET, Some("[")).contains("--token-topics is no JSON"));
        assert!(signer(SECRET, Some("[]")).contains("--token-topics is an object"));
        assert!(Tokens::listed(Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
