//! The options about TLS and tokens.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use super::values::seconds;
use crate::adapter::Protocol;
use crate::clock::Clock;
use crate::token::{Signer, TokenBy, Tokens};

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Switch {
    On,
    #[default]
    Off,
}

/// How connections are encrypted, and how they log in.
#[derive(Args, Clone, Debug, Default)]
pub struct AccessOptions {
    /// PEM file with the authorities that sign the server's certificate, for wss:// [default: those that browsers trust]
    #[arg(long, value_name = "FILE", conflicts_with = "tls_insecure", help_heading = "TLS")]
    pub tls_ca: Option<PathBuf>,
    /// Do not check the server's certificate
    #[arg(long, help_heading = "TLS")]
    pub tls_insecure: bool,
    /// Resume earlier handshakes, as browsers do that come back; off: every handshake is a full one
    #[arg(long, value_enum, default_value_t, help_heading = "TLS")]
    pub tls_resume: Switch,

    /// The token with which every connection logs in
    #[arg(long, value_name = "TOKEN", group = "tokens", help_heading = "Tokens")]
    pub token: Option<String>,
    /// File with tokens, one a line: client N logs in with the one in line N, and so on from the beginning
    #[arg(long, value_name = "FILE", group = "tokens", help_heading = "Tokens")]
    pub token_file: Option<PathBuf>,
    /// File with the secret of the server (HS256): every client and publisher gets a token of its own, as another user
    #[arg(long, value_name = "FILE", group = "tokens", help_heading = "Tokens")]
    pub token_secret_file: Option<PathBuf>,
    /// What the names of the users begin with; the client's number follows
    #[arg(long, value_name = "TEXT", default_value = "user-", help_heading = "Tokens")]
    pub token_user_prefix: String,
    /// The claim `topics` of signed tokens: {"subscribe":["a/#"],"publish":["a/#"]} [default: none]
    #[arg(long, value_name = "JSON", requires = "token_secret_file", help_heading = "Tokens")]
    pub token_topics: Option<String>,
    /// How long signed tokens are valid, from the beginning of the run
    #[arg(long, default_value = "3600", value_parser = seconds, value_name = "SECONDS", help_heading = "Tokens")]
    pub token_ttl: Duration,
    /// Where tokens stand [default: connect with v1, else header]
    #[arg(long, value_enum, requires = "tokens", help_heading = "Tokens")]
    pub token_by: Option<TokenBy>,
    /// Clients that log in at once, in the scenario login-storm [default: 10000]
    #[arg(long, value_name = "CLIENTS", help_heading = "Tokens")]
    pub logins: Option<u64>,
    /// They log in with tokens that the server has seen: those of the clients that are there
    #[arg(long, requires = "tokens", help_heading = "Tokens")]
    pub token_reuse: bool,
}

impl AccessOptions {
    /// The tokens of a run; nothing when nobody logs in.
    ///
    /// # Errors
    /// When a file or a token cannot be used.
    pub(crate) fn tokens(&self, clock: &Clock) -> Result<Option<Tokens>> {
        let now_s = clock.unix(crate::clock::monotonic()) / 1_000_000_000;
        Ok(match (&self.token, &self.token_file, &self.token_secret_file) {
            (Some(token), ..) => Some(Tokens::same(token)?),
            (_, Some(file), _) => Some(Tokens::listed(file)?),
            (.., Some(file)) => {
                let topics = self.token_topics.as_deref();
                let signer = Signer::new(file, &self.token_user_prefix, topics, self.token_ttl, now_s)?;
                Some(Tokens::Signed(Box::new(signer)))
            }
            _ => None,
        })
    }

    /// Where tokens stand; nothing when nobody logs in.
    ///
    /// # Errors
    /// When the protocol has no such place.
    pub(crate) fn carried(&self, protocol: Protocol) -> Result<Option<TokenBy>> {
        if self.token.is_none() && self.token_file.is_none() && self.token_secret_file.is_none() {
            return Ok(None);
        }
        let usual = if protocol == Protocol::V1 { TokenBy::Connect } else { TokenBy::Header };
        let by = self.token_by.unwrap_or(usual);
        let can = match by {
            TokenBy::Connect => protocol == Protocol::V1,
            TokenBy::Subprotocol => matches!(protocol, Protocol::V1 | Protocol::Raw),
            TokenBy::Header => true,
        };
        let name = by.to_possible_value().expect("none is hidden");
        ensure!(can, "--token-by {}: {} has no such place; a header always works", name.get_name(), protocol.name());
        Ok(Some(by))
    }
}
