//! Strict JSON of tokens and key sets: no member twice, a bounded depth.
//!
//! `serde_json` alone takes the last of two members of one name, so that two readers may see two tokens in one text.
//!
//! Not responsible for lengths: the code that reads bounds them first. Memory: at most a constant times the text; texts without
//! escapes are those of the input, and not copied.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Most levels of arrays and objects.
pub(crate) const DEPTH_MAX: usize = 8;

/// A JSON value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Members<'a>),
}

/// The members of an object, whose names differ.
pub(crate) type Members<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// Members that an object has room for at first: as many as most tokens have.
const MEMBERS_USUAL: usize = 8;
/// Up to so many names are compared each with each.
const COMPARED_MAX: usize = 16;

impl Json<'_> {
    /// Its text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The value of a member.
pub(crate) fn member<'m, 'a>(members: &'m Members<'a>, name: &str) -> Option<&'m Json<'a>> {
    members.iter().find(|(other, _)| other == name).map(|(_, value)| value)
}

/// Reads an object. `None`: it is none, has a member twice, or is too deep.
pub(crate) fn object(text: &[u8]) -> Option<Members<'_>> {
    // Checked once as a whole, and not once more for each string in it.
    let mut reader = serde_json::Deserializer::from_str(std::str::from_utf8(text).ok()?);
    let value = AtDepth(0).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match value {
        Json::Object(members) => Some(members),
        _ => None,
    }
}

/// A value within so many arrays and objects.
#[derive(Clone, Copy)]
struct AtDepth(usize);

impl AtDepth {
    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.0 < DEPTH_MAX { Ok(Self(self.0 + 1)) } else { Err(E::custom("too deep")) }
    }
}

impl<'de> DeserializeSeed<'de> for AtDepth {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AtDepth {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json<'de>, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element_seed(inner)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let inner = self.inner()?;
        let mut members = Members::with_capacity(MEMBERS_USUAL);
        while let Some(name) = map.next_key_seed(Name)? {
            let value = map.next_value_seed(inner)?;
            members.push((name, value));
        }
        if has_twice(&members) {
            return Err(Error::custom("a member twice"));
        }
        Ok(Json::Object(members))
    }
}

/// Whether two members have the same name.
fn has_twice(members: &Members) -> bool {
    if members.len() <= COMPARED_MAX {
        return members.iter().enumerate().any(|(at, (name, _))| members[..at].iter().any(|(other, _)| other == name));
    }
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// The name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let members = object(br#"{"a":[1,-2,1.5,null,true],"b":{"a":"\u00e9"}}"#).expect("an object");
        let list = [1.0, -2.0, 1.5].map(Json::Number).into_iter().chain([Json::Null, Json::Bool(true)]).collect();
        assert_eq!(member(&members, "a"), Some(&Json::List(list)));
        let inner = vec![("a".into(), Json::Text("é".into()))];
        assert_eq!(member(&members, "b"), Some(&Json::Object(inner)));
        assert_eq!(member(&members, "c"), None);
        let deep = |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(object(deep(DEPTH_MAX).as_bytes()).is_some() && object(deep(DEPTH_MAX + 1).as_bytes()).is_none());
        for wrong in [
            "",
            "[]",
            "1",
            "{",
            "{}x",
            "{} {}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"x\":{\"a\":1,\"b\":2,\"a\":3}}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":01}",
            "\u{feff}{}",
        ] {
            assert_eq!(object(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None);
        for (count, twice) in [(COMPARED_MAX, 3), (COMPARED_MAX + 1, 3), (200, 100)] {
            let names = (0..count).map(|n| format!("\"{n}\":{{}},"));
            let text = format!("{{{}\"x\":1", names.collect::<String>());
            assert_eq!(object(format!("{text}}}").as_bytes()).map(|members| members.len()), Some(count + 1));
            assert_eq!(object(format!("{text},\"{twice}\":1}}").as_bytes()), None, "{count}");
        }
        let borrowed = object(br#"{"a":"b","\u0061b":"\n"}"#).expect("an object");
        let is_borrowed = |text: &Cow<str>| matches!(text, Cow::Borrowed(_));
        let texts: Vec<_> = borrowed.iter().map(|(name, _)| is_borrowed(name)).collect();
        assert_eq!(texts, [true, false], "nothing is copied that has no escape");
    }
}
