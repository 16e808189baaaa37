//! Filters of `[[allow]]` tables, which may have `{claim}` in them: the value of that claim of a user's token stands there.
//!
//! Not responsible for which values a claim may have to be filled in (`access/rules.rs`).

use protocol::topic::check_filter;

/// The longest filter that may be granted, in bytes.
pub const FILTER_BYTES_MAX: usize = 1024;

/// Whether a filter has `{claim}` in it.
#[must_use]
pub fn is_template(filter: &str) -> bool {
    filter.contains(['{', '}'])
}

/// Whether this is a filter once its claims are filled in.
///
/// # Errors
/// What is wrong, as a reason.
pub fn check(filter: &str) -> Result<(), String> {
    let filled = replace(filter, |_| Some("x".to_owned())).ok_or("its braces are not those of {claim}")?;
    let fault = |error: protocol::topic::TopicError| error.to_string().trim_end_matches('.').to_owned();
    check_filter(&filled, FILTER_BYTES_MAX).map_err(fault)
}

/// The text with every `{name}` replaced; `None`: a brace is out of place, or there is no value.
pub fn replace(template: &str, value_of: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (mut filled, mut rest) = (String::with_capacity(template.len()), template);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        if before.contains('}') || name.is_empty() || name.contains('{') {
            return None;
        }
        filled.push_str(before);
        filled.push_str(&value_of(name)?);
        rest = after;
    }
    (!rest.contains('}')).then(|| filled + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filters_once_they_are_filled_in() {
        for good in ["user/{sub}/#", "{a}/{b}", "chat/+", "x{sub}", "#", "$count/+"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["{", "}", "{}", "{a", "a}", "{a{b}}", "}{", "{sub}+", "#/{sub}", ""] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
