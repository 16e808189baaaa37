//! What a single publish asks for besides its body: members of the query, and `Idempotency-Key`.
//!
//! Not responsible for what the options mean to a topic ([`PublishOptions`]). Query members that are not known are
//! ignored; what is known and malformed is an error. The query is form-encoded, as programs write it: `+` is a space.

use std::borrow::Cow;
use std::str;

use protocol::head::percent_decode;

use crate::config;
use crate::message::options::{Expected, IDEMPOTENCY_KEY_BYTES_MAX, KEY_BYTES_MAX, LeaseClaim, PublishOptions};
use crate::publishing::problem::Problem;

/// The highest offset that a JSON number holds exactly.
const OFFSET_MAX: u64 = (1 << 53) - 1;

/// The options of a request; `None`: it has none. `idempotency_keys` are the values of that field.
pub(crate) fn of_request<'a>(
    query: Option<&str>,
    idempotency_keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Box<PublishOptions>>, Problem> {
    let mut members = [None, None, None, None, None, None];
    for member in query.unwrap_or_default().split('&').filter(|member| !member.is_empty()) {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        let Some(at) = NAMES.iter().position(|known| *known == name) else { continue };
        let value = percent_decode(&value.replace('+', " ")).map(Cow::into_owned);
        let value = value.ok_or_else(|| Problem::bad(format_args!("{name} is not percent-encoded UTF-8.")))?;
        if members[at].replace(value).is_some() {
            return Err(Problem::bad(format_args!("The query has {name} twice.")));
        }
    }
    let [key, retain, removed, ttl, if_offset, lease] = members;
    let options = PublishOptions {
        key: key.filter(|key| !key.is_empty()).map(text_key).transpose()?,
        retain: flag("retain", retain)?,
        removed: flag("removed", removed)?,
        ttl_ms: ttl.as_deref().map(ttl_ms).transpose()?,
        idempotency_key: idempotency_key(idempotency_keys)?,
        is_key_holder: false,
        if_offset: if_offset.as_deref().map(expected).transpose()?,
        lease: LeaseClaim::of(lease.as_deref().map(lease_number).transpose()?),
    };
    Ok((options != PublishOptions::default()).then(|| Box::new(options)))
}

/// The members of a query that are known, in the order in which [`of_request`] takes them apart.
const NAMES: [&str; 6] = ["key", "retain", "removed", "ttl", "if_offset", "lease"];

fn text_key(key: String) -> Result<Box<str>, Problem> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Problem::bad(format_args!("key has at most {KEY_BYTES_MAX} bytes.")));
    }
    Ok(key.into())
}

fn flag(name: &str, value: Option<String>) -> Result<bool, Problem> {
    match value.as_deref() {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(Problem::bad(format_args!("{name} is 1 or 0."))),
    }
}

fn ttl_ms(text: &str) -> Result<u64, Problem> {
    let wrong = |error: &str| Problem::bad(format_args!("ttl is no time that a message may have: {error}."));
    let ttl = config::duration(text).map_err(|error| wrong(&error))?;
    match u64::try_from(ttl.as_millis()) {
        Ok(ms @ 1..) => Ok(ms),
        _ => Err(wrong("it is at least 1ms")),
    }
}

/// A number that JSON holds exactly.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number <= OFFSET_MAX)
}

fn lease_number(text: &str) -> Result<u64, Problem> {
    let lease = number(text).filter(|lease| *lease > 0);
    lease.ok_or_else(|| Problem::bad("lease is the number of a lease, 1 to 2^53-1."))
}

fn expected(text: &str) -> Result<Expected, Problem> {
    if text == "absent" {
        return Ok(Expected::Absent);
    }
    number(text).map(Expected::Offset).ok_or_else(|| Problem::bad("if_offset is an offset, 0 to 2^53-1, or absent."))
}

/// The one value of `Idempotency-Key`: a string of RFC 8941 §3.3.3, or the same without its quotes. Only a string can have
/// quotes in it: elsewhere one is a mistake.
fn idempotency_key<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Result<Option<Box<str>>, Problem> {
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(Problem::bad("The request has Idempotency-Key twice."));
    }
    let wrong = || {
        Problem::bad(format_args!(
            "Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of UTF-8, with or without quotes around them; a quote \
             among them is written \\\", and needs those around."
        ))
    };
    let field = str::from_utf8(field.trim_ascii()).map_err(|_| wrong())?;
    let key = match field.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(wrong)?,
        None if field.contains('"') => return Err(wrong()),
        None => field.to_owned(),
    };
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(wrong());
    }
    Ok(Some(key.into()))
}

/// What stands before the closing quote, which must be the end.
fn unquoted(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => key.push(chars.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            other => key.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, keys: &[&str]) -> Result<Option<PublishOptions>, u16> {
        let options = of_request(Some(query), keys.iter().map(|key| key.as_bytes()));
        options.map(|options| options.map(|options| *options)).map_err(|problem| problem.status())
    }

    #[test]
    fn queries() {
        assert_eq!(of_request(None, [].into_iter()), Ok(None));
        let none = ["", "&", "x=1", "retain=0", "key=", "removed=false&y", "retain=0&retain"];
        for query in &none[..6] {
            assert_eq!(read(query, &[]), Ok(None), "{query}");
        }
        let options = PublishOptions::default();
        let all = PublishOptions {
            key: Some("ä b+".into()),
            retain: true,
            removed: true,
            ttl_ms: Some(10_000),
            idempotency_key: Some("k".into()),
            is_key_holder: false,
            if_offset: Some(Expected::Offset(7)),
            lease: LeaseClaim::Number(9),
        };
        let query = "key=%C3%A4+b%2B&retain=1&removed=true&ttl=10s&if_offset=7&lease=9&other=%zz";
        assert_eq!(read(query, &["k"]), Ok(Some(all)));
        for (query, expected) in [
            ("key=a", PublishOptions { key: Some("a".into()), ..options.clone() }),
            ("ttl=1ms", PublishOptions { ttl_ms: Some(1), ..options.clone() }),
            ("if_offset=absent", PublishOptions { if_offset: Some(Expected::Absent), ..options.clone() }),
            ("if_offset=0", PublishOptions { if_offset: Some(Expected::Offset(0)), ..options.clone() }),
        ] {
            assert_eq!(read(query, &[]), Ok(Some(expected)), "{query}");
        }
        let long = format!("key={}", "x".repeat(255));
        assert!(read(&long, &[]).is_ok());
        let too_long = format!("{long}x");
        for query in [
            &*too_long,
            "key=%ff",
            "key=%z",
            "key=a&key=b",
            "retain",
            "retain=yes",
            "removed=2",
            "ttl=",
            "ttl=5",
            "ttl=0s",
            "ttl=-1s",
            "ttl=9999h",
            "if_offset=",
            "if_offset=+1",
            "if_offset=-1",
            "if_offset=1.0",
            "if_offset=Absent",
            "if_offset=9007199254740992",
            "if_offset=1&if_offset=1",
            "lease=",
            "lease=0",
            "lease=x",
            "lease=9007199254740992",
        ] {
            assert_eq!(read(query, &[]), Err(400), "{query}");
        }
    }

    #[test]
    fn idempotency_keys() {
        let key = |field: &str| {
            read("", &[field]).map(|options| options.and_then(|options| options.idempotency_key).map(String::from))
        };
        for (field, expected) in
            [("8e03978e", "8e03978e"), ("\"8e03978e\"", "8e03978e"), (" \"a b\" ", "a b"), ("\"a\\\"b\\\\\"", "a\"b\\")]
        {
            assert_eq!(key(field), Ok(Some(expected.to_owned())), "{field}");
        }
        assert!(key(&"x".repeat(64)).is_ok() && key(&format!("\"{}\"", "x".repeat(64))).is_ok());
        for field in ["a\"", "a\"b", "", "\"\"", "\"a", "\"a\"b", "\"a\\b\"", "\"a\\", &"x".repeat(65)] {
            assert_eq!(key(field), Err(400), "{field}");
        }
        assert_eq!(read("", &["a", "a"]), Err(400));
    }
}
