//! Header fields as the standard means them: names in any case, lists that may be spread over several
//! lines with empty members between (RFC 9110 §5.2, §5.3, §5.6.1), fields that may come only once.

use httparse::Header;

/// The fields of one request.
#[derive(Clone, Copy)]
pub(super) struct Fields<'h, 'a> {
    headers: &'h [Header<'a>],
}

/// A field that may come once came again, or is not text.
#[derive(Debug)]
pub(super) struct NotOneText;

impl<'h, 'a> Fields<'h, 'a> {
    pub(super) fn new(headers: &'h [Header<'a>]) -> Self {
        Self { headers }
    }

    /// Every line of this name, without the white space around its value.
    pub(super) fn lines(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// Is the field there at all?
    pub(super) fn has(self, name: &str) -> bool {
        self.lines(name).next().is_some()
    }

    /// The members of a list, over all its lines, without the empty ones.
    pub(super) fn list(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.lines(name)
            .flat_map(|line| line.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// Does the list have this token, in any case?
    pub(super) fn list_has(self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// A field that may be there once.
    pub(super) fn at_most_one(self, name: &str) -> Result<Option<&'a str>, NotOneText> {
        let mut lines = self.lines(name);
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => std::str::from_utf8(line).map(Some).map_err(|_| NotOneText),
            (Some(_), Some(_)) => Err(NotOneText),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(name: &'a str, value: &'a str) -> Header<'a> {
        Header { name, value: value.as_bytes() }
    }

    /// RFC 9110 §5.3 and §5.6.1: several lines are one list, and members may be empty.
    #[test]
    fn lists_span_lines_and_have_holes() {
        let headers = [header("A", " ,x ,, Y,"), header("b", "no"), header("a", ""), header("a", "\tz\t")];
        let fields = Fields::new(&headers);
        let members: Vec<&[u8]> = fields.list("a").collect();
        assert_eq!(members, [b"x", b"Y", b"z"]);
        assert!(fields.list_has("a", "y"));
        assert!(!fields.list_has("a", "x ,"));
        assert!(fields.has("B") && !fields.has("c"));
    }

    #[test]
    fn single_fields() {
        let headers = [header("a", " 1 "), header("b", "1"), header("B", "1")];
        let fields = Fields::new(&headers);
        assert!(matches!(fields.at_most_one("a"), Ok(Some("1"))));
        assert!(matches!(fields.at_most_one("c"), Ok(None)));
        assert!(fields.at_most_one("b").is_err());
    }
}
