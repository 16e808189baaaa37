//! The names of topics on the wire, written and read without a table and without allocating.
//!
//! The name of a single topic is the prefix; the names of several are prefix, separator and number, from 0. Names are read
//! in canonical form only: `loadgen/7` is a topic, `loadgen/07` is none.
//!
//! Not responsible for which characters a protocol allows in a name, nor for quoting them.

use super::Topics;

/// The topics of a run: how many, and what they are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// One topic is called this; several are this, the protocol's separator, and a number.
    pub prefix: String,
    /// At least 1.
    pub count: u32,
}

/// The topics of a run under one protocol's names.
#[derive(Clone, Debug)]
pub(super) struct Called {
    /// What all names begin with, the separator included when there are several.
    front: Box<str>,
    /// At least 1.
    count: u32,
}

impl Called {
    pub(super) fn new(names: &Names, separator: char) -> Self {
        let mut front = names.prefix.clone();
        if names.count > 1 {
            front.push(separator);
        }
        Self { front: front.into(), count: names.count.max(1) }
    }

    /// The same topics, with what all names begin with quoted in some way.
    pub(super) fn quoted(&self, quote: impl Fn(&str) -> String) -> Self {
        Self { front: quote(&self.front).into(), count: self.count }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The beginning of all names.
    pub(super) fn front(&self) -> &str {
        &self.front
    }

    /// Whether names end in a number.
    pub(super) fn numbered(&self) -> bool {
        self.count > 1
    }

    /// The topic of a stream.
    pub(super) fn of_stream(&self, stream: u32) -> u32 {
        stream % self.count
    }

    /// Bytes of a name.
    pub(super) fn len(&self, topic: u32) -> usize {
        self.front.len() + if self.numbered() { decimals(u64::from(topic)) } else { 0 }
    }

    /// The longest name's bytes.
    pub(super) fn len_max(&self) -> usize {
        self.len(self.count - 1)
    }

    /// Appends a name.
    pub(super) fn put(&self, topic: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.front.as_bytes());
        if self.numbered() {
            put_number(u64::from(topic), out);
        }
    }

    /// A name as text.
    pub(super) fn name(&self, topic: u32) -> String {
        if self.numbered() { format!("{}{topic}", self.front) } else { self.front.to_string() }
    }

    /// The topic with this name.
    pub(super) fn topic(&self, name: &[u8]) -> Option<u32> {
        let number = name.strip_prefix(self.front.as_bytes())?;
        if self.numbered() { self.numbered_topic(number) } else { number.is_empty().then_some(0) }
    }

    /// The topic that has this number, as it stands in a name.
    pub(super) fn numbered_topic(&self, digits: &[u8]) -> Option<u32> {
        let canonical = matches!(digits, [b'0'] | [b'1'..=b'9', ..]);
        let number = number(digits).filter(|_| canonical)?;
        u32::try_from(number).ok().filter(|topic| *topic < self.count)
    }
}

impl Topics {
    /// Each of them, of `total` topics.
    pub fn iter(self, total: u32) -> impl ExactSizeIterator<Item = u32> + Clone {
        let total = u64::from(total.max(1));
        (0..self.count).map(move |i| ((u64::from(self.first) + u64::from(i) * u64::from(self.step)) % total) as u32)
    }

    /// Whether `topic` is one of them, of `total` topics. Constant time for steps of 0 and 1.
    #[must_use]
    pub fn contains(self, topic: u32, total: u32) -> bool {
        match (self.count, self.step) {
            (0, _) => false,
            (1, _) | (_, 0) => topic == self.first % total,
            (count, 1) => {
                let behind = (u64::from(topic) + u64::from(total) - u64::from(self.first % total)) % u64::from(total);
                behind < u64::from(count) && topic < total
            }
            _ => self.iter(total).any(|one| one == topic),
        }
    }
}

/// A decimal number; nothing when it is none or exceeds 64 bits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then(|| number.checked_mul(10)?.checked_add(u64::from(digit)))?
    })
}

/// Digits of a number.
pub(super) fn decimals(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Appends a number in decimal.
pub(super) fn put_number(mut number: u64, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + decimals(number), b'0');
    for digit in out[from..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Percent-encodes what is not unreserved, apart from slashes (RFC 3986, section 2.3).
pub(super) fn percent_encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(prefix: &str, count: u32) -> Called {
        Called::new(&Names { prefix: prefix.to_owned(), count }, '/')
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for (count, topics) in [(1, vec![0]), (2, vec![0, 1]), (u32::MAX, vec![0, 9, 10, 99, 100, u32::MAX - 1])] {
            let called = called("a/b", count);
            for topic in topics {
                let mut name = Vec::new();
                called.put(topic, &mut name);
                assert_eq!(called.topic(&name), Some(topic));
                assert_eq!((name.len(), &name[..]), (called.len(topic), called.name(topic).as_bytes()));
            }
        }
        let several = called("a", 12);
        for name in ["a", "a/", "a/12", "a/01", "a/00", "a/+1", "a/1 ", "b/1", "a/4294967297", "a/99999999999999999999"]
        {
            assert_eq!(several.topic(name.as_bytes()), None, "{name}");
        }
        assert_eq!(called("a", 1).topic(b"a/0"), None);
    }

    #[test]
    fn topics_contain_what_they_list() {
        for total in [1, 2, 7, 30] {
            for (first, step, count) in [(0, 1, 3), (5, 1, 4), (29, 1, 30), (3, 0, 1), (3, 0, 2), (2, 7, 5), (40, 3, 0)]
            {
                let topics = Topics { first, step, count };
                let listed: Vec<u32> = topics.iter(total).collect();
                for topic in 0..40 {
                    assert_eq!(topics.contains(topic, total), listed.contains(&topic), "{topics:?} {total} {topic}");
                }
            }
        }
        let far = Topics { first: u32::MAX, step: u32::MAX, count: 3 };
        assert!(far.iter(u32::MAX).all(|topic| topic == 0));
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "-1", "1a", " 1"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
        let mut out = Vec::new();
        [0, 9, 10, u64::MAX].into_iter().for_each(|number| put_number(number, &mut out));
        assert_eq!(out, b"091018446744073709551615");
    }

    /// RFC 3986, section 2.1.
    #[test]
    fn percent() {
        assert_eq!(percent_encoded("räum/a b?%~"), "r%C3%A4um/a%20b%3F%25~");
    }
}
