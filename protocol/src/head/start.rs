//! Where a raw subscription begins, as the query of its handshake says: `?last=n`, `?since=EPOCH:OFFSET`, `?state=1`,
//! `?position=1`. Parameters that are not known are ignored, as servers in between may add some; a known one that is malformed,
//! or comes twice, is refused.

use std::borrow::Cow;

use super::Refusal;
use super::target::percent_decode;
use crate::topic::is_wildcard;
use crate::v1::Position;

/// What a raw subscription asks for besides its topic; by default nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RawStart {
    /// The newest so many messages first; at least 1.
    pub last: Option<u32>,
    /// Everything after this position first.
    pub since: Option<Position>,
    /// The topic's state first.
    pub state: bool,
    /// The first frame is to say where the subscription begins. With `since` it is.
    pub position: bool,
}

impl RawStart {
    /// Reads a query, which is not decoded, for a topic or filter.
    ///
    /// # Errors
    /// 400, with what is wrong.
    pub fn read(query: &str, filter: &str) -> Result<Self, Refusal> {
        let start = Self::parse(query)?;
        let start = Self { position: start.position || start.since.is_some(), ..start };
        start.check(is_wildcard(filter))?;
        Ok(start)
    }

    /// Reads the query of a stream of events, whose messages have ids if `has_ids`: they come from a single topic. Such a stream
    /// always says its position, and its messages need not be counted.
    ///
    /// # Errors
    /// 400, with what is wrong.
    pub(super) fn read_events(query: &str, has_ids: bool) -> Result<Self, Refusal> {
        let start = Self { position: false, ..Self::parse(query)? };
        let wrong = match start {
            Self { last: Some(_), since: Some(_), .. } => "The query has both last and since.",
            Self { last, since, .. } if !has_ids && (last.is_some() || since.is_some()) => {
                "last and since need a single topic without wildcards."
            }
            _ => return Ok(start),
        };
        Err(Refusal::new(400, wrong))
    }

    fn parse(query: &str) -> Result<Self, Refusal> {
        let (mut last, mut since, mut state, mut position) = (None, None, None, None);
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let is_new = match name {
                "last" => last.replace(count(&decoded(name, value)?)?).is_none(),
                "since" => since.replace(place(&decoded(name, value)?)?).is_none(),
                "state" => state.replace(switch(name, &decoded(name, value)?)?).is_none(),
                "position" => position.replace(switch(name, &decoded(name, value)?)?).is_none(),
                _ => true,
            };
            if !is_new {
                return Err(Refusal::new(400, format!("The query has {name} twice.")));
            }
        }
        Ok(Self { last, since, state: state.unwrap_or(false), position: position.unwrap_or(false) })
    }

    fn check(self, is_filter: bool) -> Result<(), Refusal> {
        let wrong = match self {
            Self { last: Some(_), since: Some(_), .. } => "The query has both last and since.",
            Self { last: Some(_), .. } if is_filter => "last needs a topic without wildcards.",
            Self { position: true, .. } if is_filter => "since and position need a topic without wildcards.",
            Self { position: true, state: true, .. } => {
                "state does not go with since or position: frames could not be counted."
            }
            _ => return Ok(()),
        };
        Err(Refusal::new(400, wrong))
    }
}

/// A parameter that is 1 or 0, of a query that is not decoded; false without it.
///
/// # Errors
/// 400, with what is wrong.
pub(super) fn flag(query: &str, wanted: &str) -> Result<bool, Refusal> {
    let mut found = None;
    for (name, value) in query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))) {
        if name == wanted && found.replace(switch(name, &decoded(name, value)?)?).is_some() {
            return Err(Refusal::new(400, format!("The query has {name} twice.")));
        }
    }
    Ok(found.unwrap_or(false))
}

fn decoded<'a>(name: &str, value: &'a str) -> Result<Cow<'a, str>, Refusal> {
    percent_decode(value).ok_or_else(|| Refusal::new(400, format!("{name} is not percent-encoded UTF-8.")))
}

fn count(value: &str) -> Result<u32, Refusal> {
    let count = number(value).and_then(|number| u32::try_from(number).ok()).filter(|count| *count > 0);
    count.ok_or_else(|| Refusal::new(400, "last is a number of messages, at least 1."))
}

/// A place as clients write it.
pub(super) fn place(value: &str) -> Result<Position, Refusal> {
    let wrong = || Refusal::new(400, "since is EPOCH:OFFSET, 16 hexadecimal digits in lower case and a number.");
    let (epoch, offset) = value.split_once(':').ok_or_else(wrong)?;
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let epoch = Some(epoch).filter(|epoch| epoch.len() == 16 && epoch.bytes().all(is_hex)).ok_or_else(wrong)?;
    let offset = number(offset).filter(|offset| *offset <= crate::v1::ID_NUMBER_MAX).ok_or_else(wrong)?;
    Ok(Position { epoch: u64::from_str_radix(epoch, 16).map_err(|_| wrong())?, offset })
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn switch(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "true" | "" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Refusal::new(400, format!("{name} is 1 or 0."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let read = |query| RawStart::read(query, "chat/7").map_err(|refusal| refusal.status);
        let none = RawStart::default();
        let position = Position { epoch: 0xab, offset: 7 };
        let since = Ok(RawStart { since: Some(position), position: true, ..none });
        assert_eq!(read(""), Ok(none));
        assert_eq!(read("last=20&utm=x"), Ok(RawStart { last: Some(20), ..none }));
        assert_eq!(read("last=%32%30"), Ok(RawStart { last: Some(20), ..none }));
        assert_eq!(read("state=%31&position=%30"), Ok(RawStart { state: true, ..none }));
        assert_eq!(read("since=00000000000000ab:7"), since);
        assert_eq!(read("since=00000000000000ab%3A7&position=0"), since);
        assert_eq!(read("state=1&last=1"), Ok(RawStart { state: true, last: Some(1), ..none }));
        assert_eq!(read("position&state=0"), Ok(RawStart { position: true, ..none }));
        for bad in [
            "last=0",
            "last=-1",
            "last=x",
            "last=",
            "last=4294967296",
            "last=1&last=2",
            "since=",
            "since=7",
            "since=00000000000000AB:7",
            "since=ab:7",
            "since=00000000000000ab:",
            "since=00000000000000ab:-1",
            "since=00000000000000ab:9007199254740992",
            "since=00000000000000ab:7&last=1",
            "state=2",
            "position=yes",
            "position=1&state=1",
            "since=00000000000000ab:7&state=1",
            "since=%ff",
            "last=%ff",
            "last=%30",
            "state=%32",
            "since=00000000000000ab:1:2",
        ] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
        for bad in ["last=1", "position=1", "since=00000000000000ab:7"] {
            assert_eq!(RawStart::read(bad, "chat/+").map_err(|refusal| refusal.status), Err(400), "{bad}");
        }
        assert_eq!(RawStart::read("state=1", "chat/+").map(|start| start.state), Ok(true));
    }
}
