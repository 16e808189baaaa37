//! Filters of `[[allow]]` with claims in them: `user/{sub}/#` stands for a filter of each user's own.
//!
//! They are kept as they are written, so that all users share them, and are filled in when they are asked about. In place of a
//! claim's name in braces stands its value, which must be one level: text without `/`, wildcards and control characters, not
//! empty, and not what makes a topic one of the broker's own. Otherwise, and if the token has not the claim or has a list of
//! several values there, the filter grants nothing.
//!
//! Cost: one copy of a filter whose text before the first claim begins the name that is asked about; for others a comparison.

use std::borrow::Cow;
use std::sync::Arc;

use protocol::topic::{check_filter, covers, is_reserved};

/// The value of a claim as text, or the values of a list.
pub(crate) type ClaimValues = Box<[Box<str>]>;
/// Claims and their values.
pub(crate) type Claims = [(Arc<str>, ClaimValues)];

/// The values of a claim, one if it is not a list.
pub(crate) fn values_of<'a>(claims: &'a Claims, claim: &str) -> &'a [Box<str>] {
    claims.iter().find(|(name, _)| &**name == claim).map_or(&[], |(_, values)| values)
}

/// Whether a filter has claims in it.
pub(crate) fn is_template(filter: &str) -> bool {
    filter.split_once('{').is_some_and(|(_, rest)| rest.contains('}'))
}

/// The names of the claims in a filter.
pub(crate) fn claims_in(filter: &str) -> impl Iterator<Item = &str> {
    filter.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

/// Whether a template covers a name or filter for somebody with these claims.
pub(crate) fn template_covers(template: &str, claims: &Claims, name: &str) -> bool {
    let before = template.split('{').next().unwrap_or_default();
    let may_cover = before.contains('+') || name.starts_with(before);
    may_cover && expand(template, claims).is_some_and(|filter| covers(&filter, name))
}

/// A filter of `[[allow]]` for somebody with these claims; `None`: it grants nothing.
pub(crate) fn expanded<'a>(filter: &'a str, claims: &Claims) -> Option<Cow<'a, str>> {
    if is_template(filter) { expand(filter, claims).map(Cow::Owned) } else { Some(Cow::Borrowed(filter)) }
}

fn expand(template: &str, claims: &Claims) -> Option<String> {
    let (mut filter, mut rest) = (String::with_capacity(template.len() + 32), template);
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, inside)| Some((before, inside.split_once('}')?)))
    {
        let [value] = values_of(claims, name) else { return None };
        if value.is_empty() || value.contains(['/', '+', '#']) {
            return None;
        }
        filter.push_str(before);
        filter.push_str(value);
        rest = after;
    }
    filter.push_str(rest);
    let is_as_meant = is_reserved(&filter) == is_reserved(template) && check_filter(&filter, usize::MAX).is_ok();
    is_as_meant.then_some(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(claims: &[(&str, &[&str])]) -> Vec<(Arc<str>, ClaimValues)> {
        let values = |values: &[&str]| values.iter().map(|value| (*value).into()).collect();
        claims.iter().map(|(name, of_it)| ((*name).into(), values(of_it))).collect()
    }

    #[test]
    fn a_value_is_one_level_or_grants_nothing() {
        let cases = [
            ("user/{sub}/#", "ann", Some("user/ann/#")),
            ("user/{sub}/#", "ann@example.org", Some("user/ann@example.org/#")),
            ("{sub}", "$", None),
            ("{sub}/#", "$sys", None),
            ("x{sub}/#", "$sys", Some("x$sys/#")),
            ("$presence/{sub}", "ann", Some("$presence/ann")),
            ("u/{sub}", "", None),
            ("u/{sub}", "a/b", None),
            ("u/{sub}", "/", None),
            ("u/{sub}", "+", None),
            ("u/{sub}", "#", None),
            ("u/{sub}", "a+", None),
            ("u/{sub}", "a\nb", None),
            ("u/{sub}", "a\u{85}b", None),
            ("u/{sub}", "{sub}", Some("u/{sub}")),
            ("{sub}/{sub}", "a", Some("a/a")),
            ("u/{team}", "a", None),
            ("plain/#", "a", Some("plain/#")),
        ];
        for (template, value, expected) in cases {
            assert_eq!(expanded(template, &claims(&[("sub", &[value])])).as_deref(), expected, "{template} {value:?}");
        }
        assert_eq!(expanded("u/{sub}", &claims(&[("sub", &["a", "b"])])), None, "one of two values");
        assert_eq!(expanded("u/{sub}", &claims(&[("sub", &[])])), None);
    }

    #[test]
    fn a_template_covers_what_its_filter_covers_once_filled_in() {
        let names =
            ["user/ann/x", "user/ann", "user/bob/x", "user/+/x", "#", "+/x", "use", "ann/x", "a/ann", "$sys/ann", ""];
        for template in
            ["user/{sub}/#", "{sub}/#", "+/{sub}", "user/{sub}", "u{x}er/{sub}/+", "{sub}{sub}", "$sys/{sub}"]
        {
            for value in ["ann", "bob", "$sys", "a/b", "+"] {
                let claims = claims(&[("sub", &[value]), ("x", &["s"])]);
                let filled = expanded(template, &claims);
                for name in names {
                    let expected = filled.as_ref().is_some_and(|filter| covers(filter, name));
                    assert_eq!(template_covers(template, &claims, name), expected, "{template} {value} {name}");
                }
            }
        }
    }
}
