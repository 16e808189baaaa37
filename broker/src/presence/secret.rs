//! What a client brings to go on with its session: 128 random bits, behind the number of the session's home, in base64url.
//!
//! The home is no secret. It is part of the text so that any shard finds the session without asking the others.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::Random;

use crate::ids::ShardId;

/// Random bytes of a secret.
const RANDOM_LEN: usize = 16;
/// All bytes of a secret.
const LEN: usize = size_of::<u16>() + RANDOM_LEN;

/// See the file's head. Compared in full; equal secrets name one session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Secret([u8; LEN]);

impl Secret {
    fn new(home: ShardId, random: [u8; RANDOM_LEN]) -> Self {
        let mut bytes = [0; LEN];
        bytes[..size_of::<u16>()].copy_from_slice(&home.0.to_be_bytes());
        bytes[size_of::<u16>()..].copy_from_slice(&random);
        Self(bytes)
    }

    /// The shard that would have its session. There may be none of this number.
    #[must_use]
    pub fn home(self) -> ShardId {
        ShardId(u16::from_be_bytes([self.0[0], self.0[1]]))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Keeps the secret out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The text is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSecret;

impl FromStr for Secret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Self, NoSecret> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NoSecret)?;
        bytes.try_into().map(Self).map_err(|_| NoSecret)
    }
}

/// Where secrets come from.
#[derive(Debug, Default)]
pub enum Secrets {
    /// The operating system.
    #[default]
    System,
    /// A seed: a simulation's.
    Seeded(Mutex<Random>),
}

impl Secrets {
    /// Secrets that `seed` decides. Not for a broker that anybody can reach.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Mutex::new(Random::new(seed)))
    }

    /// A secret for a session of this home. `None`: the operating system has no random bytes.
    #[must_use]
    pub fn draw(&self, home: ShardId) -> Option<Secret> {
        let mut random = [0; RANDOM_LEN];
        match self {
            Self::System => aws_lc_rs::rand::fill(&mut random).ok()?,
            Self::Seeded(numbers) => {
                let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
                random.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&numbers.draw().to_be_bytes()));
            }
        }
        Some(Secret::new(home, random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_written_and_does_not_show_in_logs() {
        for secrets in [Secrets::System, Secrets::seeded(7)] {
            let secret = secrets.draw(ShardId(513)).expect("random bytes");
            let text = secret.to_string();
            assert_eq!((text.len(), text.parse(), secret.home()), (24, Ok(secret), ShardId(513)));
            assert_ne!(secrets.draw(ShardId(513)), Some(secret));
            assert_eq!(format!("{secret:?}"), "Secret");
        }
        for text in ["", "AAB4", "not base64!", &"A".repeat(25), &"A".repeat(32)] {
            assert_eq!(text.parse::<Secret>(), Err(NoSecret), "{text}");
        }
    }
}
