//! The values of options: how they are written, and what they mean.

use std::str::FromStr;
use std::time::Duration;

use crate::stamp::Sizes;

/// An open loop's rate, or none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rate {
    /// Per second.
    PerSecond(f64),
    /// As fast as it goes.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim_end_matches("/s").parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Self::PerSecond(rate)),
            _ => Err("a number per second above 0, or `max`".to_owned()),
        }
    }
}

/// A share of the clients.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "all" => Ok(Self(1.0)),
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self(share)),
            _ => Err("`all`, or a share from 0 to 1".to_owned()),
        }
    }
}

/// Which of several processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Portion {
    /// From 1.
    pub index: u32,
    /// Processes in all.
    pub of: u32,
}

impl Default for Portion {
    fn default() -> Self {
        Self { index: 1, of: 1 }
    }
}

impl Portion {
    /// How many of `all` are this process's, and how many lie before them.
    #[must_use]
    pub fn part(self, all: u64) -> (u64, u64) {
        let (index, of) = (u64::from(self.index - 1), u64::from(self.of));
        let first = all * index / of;
        (first, all * (index + 1) / of - first)
    }
}

impl FromStr for Portion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "two numbers such as 2/4".to_owned();
        let (index, of) = text.split_once('/').ok_or_else(wrong)?;
        let (index, of) = (index.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        // Each process has source addresses of its own: a block of 127.0.0.0/8.
        if index < 1 || index > of || of > 250 {
            return Err("the first number is from 1 to the second, the second at most 250".to_owned());
        }
        Ok(Self { index, of })
    }
}

/// Lengths of messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload(pub Sizes);

impl FromStr for Payload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| format!("{text:?} is no number of bytes"));
        if let Some((least, most)) = text.split_once("..") {
            let (least, most) = (number(least)?, number(most)?);
            return if least <= most {
                Ok(Self(Sizes::Range(least, most)))
            } else {
                Err("a range begins with the lesser".into())
            };
        }
        let sizes: Vec<_> = text.split(',').map(number).collect::<Result<_, _>>()?;
        Ok(Self(if let [one] = sizes[..] { Sizes::Fixed(one) } else { Sizes::Mixed(sizes) }))
    }
}

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Range(least, most) => write!(f, "{least}..{most}"),
            Sizes::Mixed(sizes) => {
                let sizes: Vec<_> = sizes.iter().map(u32::to_string).collect();
                write!(f, "{}", sizes.join(","))
            }
        }
    }
}

/// Longer times are mistakes.
const SECONDS_MAX: f64 = 366.0 * 86400.0;

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.trim_end_matches('s').parse().map_err(|_| "a number of seconds".to_owned())?;
    if seconds > SECONDS_MAX {
        return Err("a year at most".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
