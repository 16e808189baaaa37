//! Topics: the grammar of names and filters, and which filter matches which name.
//!
//! A name is 1 to `len_max` bytes of UTF-8 without control characters, split by `/` into levels, which may
//! be empty: `/a`, `a/`, `a//b` and `a/b` are four different names. A filter is a name in which a whole level
//! may be `+` (any one level, also an empty one) and the last may be `#` (all that follows, also nothing: `a/#`
//! matches `a`). These are MQTT's rules (MQTT 5.0 §4.7). Names that begin with `$` are the broker's own: nobody
//! else publishes there, and a wildcard in first place does not match them (§4.7.2).
//!
//! Not here: which connection subscribes to what, and how long a topic lives. Nothing here allocates;
//! every function is linear in its arguments. Lengths are bytes.

use std::fmt;

/// The longest topic when nothing else is configured, in bytes.
pub const TOPIC_LEN_MAX_DEFAULT: usize = 255;

/// Why a name or filter is refused. `Display` gives a sentence for the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopicError {
    /// No bytes at all.
    Empty,
    /// More bytes than allowed.
    TooLong {
        /// The limit, in bytes.
        len_max: usize,
    },
    /// A control character, NUL included.
    Control,
    /// A wildcard where one topic must be named.
    WildcardInName,
    /// `+` or `#` beside other characters in a level.
    WildcardNotAlone,
    /// `#` before the last level.
    HashNotLast,
    /// A name that begins with `$`: only the broker publishes there.
    Reserved,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("The topic is empty."),
            Self::TooLong { len_max } => write!(f, "The topic is longer than {len_max} bytes."),
            Self::Control => f.write_str("The topic contains a control character."),
            Self::WildcardInName => f.write_str("The topic contains '+' or '#', which only subscriptions may use."),
            Self::WildcardNotAlone => f.write_str("The wildcards '+' and '#' must stand alone in their level."),
            Self::HashNotLast => f.write_str("The wildcard '#' must be the last level."),
            Self::Reserved => {
                f.write_str("Topics that begin with '$' belong to the broker; nobody else may publish there.")
            }
        }
    }
}

impl std::error::Error for TopicError {}

/// Checks a topic that a client publishes to: no wildcards, not the broker's own.
///
/// # Errors
/// The first rule the name breaks.
pub fn check_name(name: &str, len_max: usize) -> Result<(), TopicError> {
    check_common(name, len_max)?;
    if name.contains(['+', '#']) {
        return Err(TopicError::WildcardInName);
    }
    if is_reserved(name) {
        return Err(TopicError::Reserved);
    }
    Ok(())
}

/// Checks what a client subscribes to: a name, the broker's own included, or a pattern with wildcards.
///
/// # Errors
/// The first rule the filter breaks.
pub fn check_filter(filter: &str, len_max: usize) -> Result<(), TopicError> {
    check_common(filter, len_max)?;
    let mut rest = filter.as_bytes();
    let mut before = b'/';
    while let [byte, after @ ..] = rest {
        if matches!(byte, b'+' | b'#') {
            if before != b'/' || !matches!(after, [] | [b'/', ..]) {
                return Err(TopicError::WildcardNotAlone);
            }
            if *byte == b'#' && !after.is_empty() {
                return Err(TopicError::HashNotLast);
            }
        }
        (before, rest) = (*byte, after);
    }
    Ok(())
}

/// What names and filters have in common.
fn check_common(topic: &str, len_max: usize) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > len_max {
        return Err(TopicError::TooLong { len_max });
    }
    let mut before = 0;
    for &byte in topic.as_bytes() {
        // C0, DEL, and C1, which is U+0080 to U+009F.
        if byte < 0x20 || byte == 0x7f || before == 0xc2 && byte < 0xa0 {
            return Err(TopicError::Control);
        }
        before = byte;
    }
    Ok(())
}

/// Does the filter, already checked, match more than the one topic it spells?
#[must_use]
pub fn is_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// How the names of the broker's topics begin that list the members of another topic, whose name follows.
pub const PRESENCE: &str = "$presence/";

/// How the names of the broker's topics begin that count the subscribers and members of another topic, whose name follows.
pub const COUNT: &str = "$count/";

/// How the names of the broker's topics begin that say who has the lease of another topic, whose name follows.
pub const LEASE: &str = "$lease/";

/// Where the broker says what it does, for everybody.
pub const LOAD: &str = "$sys/load";

/// Where it tells operators which topics are busiest.
pub const BUSIEST: &str = "$sys/topics";

/// Where it tells operators why connections ended and requests were refused.
pub const ENDS: &str = "$sys/closed";

/// Is this a topic of the broker's own that only operators may read? No filter with wildcards matches it: who reads it has
/// named it.
#[must_use]
pub fn is_for_operators(name: &str) -> bool {
    matches!(name, BUSIEST | ENDS)
}

/// Is this one of the broker's own topics?
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with('$')
}

/// Does `filter` match the topic `name`? Both are already checked.
#[must_use]
pub fn matches(filter: &str, name: &str) -> bool {
    if is_reserved(name) && (filter.starts_with(['+', '#']) || is_for_operators(name) && is_wildcard(filter)) {
        return false;
    }
    let (mut filter, mut name) = (filter.as_bytes(), name.as_bytes());
    loop {
        (filter, name) = match (filter, name) {
            // Wildcards are whole levels, and no name has one.
            ([b'#'], _) | ([b'/', b'#'], []) | ([], []) => return true,
            // An empty level too: what is left of the name begins where a level does.
            ([b'+', after @ ..], _) => {
                let level_len = name.iter().take_while(|byte| **byte != b'/').count();
                (after, &name[level_len..])
            }
            ([a, filter @ ..], [b, name @ ..]) if a == b => (filter, name),
            _ => return false,
        };
    }
}

/// Does `outer` match every topic that `inner` matches? Both are already checked; a name is a filter too. This is how a grant
/// covers a subscription: as a whole, or not at all.
#[must_use]
pub fn covers(outer: &str, inner: &str) -> bool {
    if is_reserved(inner) && outer.starts_with(['+', '#']) {
        return false;
    }
    // `#` also stands for no level at all. In these two places it cannot, since no name is empty.
    let is_never_empty = |at: usize| at == 0 || at == 1 && inner.starts_with('/');
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    for at in 0.. {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some("#")) => return is_never_empty(at) && outer.next() == Some("#"),
            (Some("+"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
    unreachable!("filters have an end")
}

/// Is there a topic that both filters match? Both are already checked.
#[must_use]
pub fn overlap(a: &str, b: &str) -> bool {
    // Only the other filter's text can demand a `$` at the start; wildcards never reach there.
    if is_reserved(a) && b.starts_with(['+', '#']) || is_reserved(b) && a.starts_with(['+', '#']) {
        return false;
    }
    // All that both would match is one empty level, which is no name.
    if matches!((a, b), ("/#", "+") | ("+", "/#")) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            // `#` takes whatever the other asks for, also nothing.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "+" || y == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN_MAX: usize = 20;

    #[test]
    fn what_is_for_operators_is_matched_by_its_name_alone() {
        for name in [BUSIEST, ENDS] {
            assert!(is_for_operators(name) && is_reserved(name) && matches(name, name));
            for filter in ["#", "$sys/#", "$sys/+", "+/+", &format!("{name}/#")] {
                assert!(!matches(filter, name), "{filter} {name}");
            }
        }
        assert!(!is_for_operators(LOAD) && matches("$sys/#", LOAD) && matches("$sys/+", LOAD));
    }

    #[test]
    fn names() {
        let cases = [
            ("a", Ok(())),
            ("chat/räume/1", Ok(())),
            ("a b/ c", Ok(())),
            ("12345678901234567890", Ok(())),
            ("a$", Ok(())),
            ("a/$b", Ok(())),
            ("", Err(TopicError::Empty)),
            ("123456789012345678901", Err(TopicError::TooLong { len_max: LEN_MAX })),
            ("/a", Ok(())),
            ("a/", Ok(())),
            ("a//b", Ok(())),
            ("/", Ok(())),
            ("/$a", Ok(())),
            ("a\0", Err(TopicError::Control)),
            ("a\u{7f}", Err(TopicError::Control)),
            ("a\u{85}b", Err(TopicError::Control)),
            ("a/+", Err(TopicError::WildcardInName)),
            ("a#", Err(TopicError::WildcardInName)),
            ("$sys/load", Err(TopicError::Reserved)),
        ];
        for (name, expected) in cases {
            assert_eq!(check_name(name, LEN_MAX), expected, "{name:?}");
        }
    }

    #[test]
    fn filters() {
        let cases = [
            ("a/b", Ok(())),
            ("+", Ok(())),
            ("#", Ok(())),
            ("+/a/+/#", Ok(())),
            ("$sys/#", Ok(())),
            ("a+", Err(TopicError::WildcardNotAlone)),
            ("a/#b", Err(TopicError::WildcardNotAlone)),
            ("++", Err(TopicError::WildcardNotAlone)),
            ("#/a", Err(TopicError::HashNotLast)),
            ("#/#", Err(TopicError::HashNotLast)),
            ("+/", Ok(())),
            ("//+//#", Ok(())),
            ("/#/", Err(TopicError::HashNotLast)),
            ("a//b+", Err(TopicError::WildcardNotAlone)),
            ("", Err(TopicError::Empty)),
        ];
        for (filter, expected) in cases {
            assert_eq!(check_filter(filter, LEN_MAX), expected, "{filter:?}");
        }
    }

    /// MQTT 5.0 §4.7.1 and §4.7.2: the standard's own examples, and names that differ by an empty level.
    #[test]
    fn matching() {
        for name in ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/x"] {
            assert!(matches("sport/tennis/player1/#", name));
        }
        let yes = [("sport/#", "sport"), ("+", "a"), ("+/+", "a/b"), ("#", "a/b/c"), ("a/+/c", "a/b/c")];
        let yes_empty = [("+/+", "/finance"), ("/+", "/finance"), ("sport/+", "sport/"), ("sport/#", "sport/")];
        let yes_empty = yes_empty.into_iter().chain([("a/+/b", "a//b"), ("#", "/"), ("+/+", "/"), ("/#", "//a")]);
        let yes_reserved = [("$SYS/#", "$SYS"), ("$SYS/#", "$SYS/x"), ("$SYS/monitor/+", "$SYS/monitor/C")];
        let no = [("sport/+", "sport"), ("+", "a/b"), ("a/b", "a"), ("a", "a/b"), ("a/#", "ab")];
        let no_empty =
            [("+", "/finance"), ("a/b", "a//b"), ("a/b", "/a/b"), ("a/b", "a/b/"), ("a/+", "a"), ("/#", "a")];
        let no_reserved = [("#", "$SYS/x"), ("+/x", "$SYS/x"), ("+", "$SYS"), ("+/#", "$SYS")];
        for (filter, name) in yes.into_iter().chain(yes_empty).chain(yes_reserved) {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in no.into_iter().chain(no_empty).chain(no_reserved) {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    /// A filter over an alphabet small enough that every name it could tell apart can be listed.
    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => Just("a"), 2 => Just("b"), 2 => Just("$a"), 2 => Just(""), 3 => Just("+")];
        (proptest::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, hash)| {
            if hash || levels.iter().all(|level| level.is_empty()) && levels.len() < 2 {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    /// Every name of up to five levels over that alphabet and one letter no filter spells.
    fn names_all() -> Vec<String> {
        let alphabet = ["a", "b", "$a", "z", ""];
        let mut names: Vec<String> = alphabet.map(str::to_owned).to_vec();
        let mut longest = names.clone();
        for _ in 1..5 {
            longest = longest.iter().flat_map(|name| alphabet.map(|level| format!("{name}/{level}"))).collect();
            names.extend_from_slice(&longest);
        }
        // One empty level is no name.
        names.retain(|name| !name.is_empty());
        names
    }

    /// The rules as the file's head has them, level by level.
    fn check_filter_naive(filter: &str) -> Result<(), TopicError> {
        if filter.is_empty() {
            return Err(TopicError::Empty);
        }
        if filter.len() > LEN_MAX {
            return Err(TopicError::TooLong { len_max: LEN_MAX });
        }
        if filter.chars().any(char::is_control) {
            return Err(TopicError::Control);
        }
        let levels: Vec<_> = filter.split('/').collect();
        for (at, level) in levels.iter().enumerate() {
            if level.contains(['+', '#']) && level.len() > 1 {
                return Err(TopicError::WildcardNotAlone);
            }
            if *level == "#" && at + 1 < levels.len() {
                return Err(TopicError::HashNotLast);
            }
        }
        Ok(())
    }

    fn matches_naive(filter: &str, name: &str) -> bool {
        let (filter, name): (Vec<_>, Vec<_>) = (filter.split('/').collect(), name.split('/').collect());
        let hash = filter.last() == Some(&"#");
        let levels = if hash { &filter[..filter.len() - 1] } else { &filter[..] };
        (name.len() == levels.len() || hash && name.len() > levels.len())
            && levels.iter().zip(&name).all(|(pattern, level)| *pattern == "+" || pattern == level)
            && !(is_reserved(name[0]) && matches!(filter[0], "+" | "#"))
    }

    proptest! {
        #[test]
        fn filters_are_checked_like_level_by_level(filter in "[a/+#\u{7f}\u{80}\u{9f}\u{a0}€à]{0,8}") {
            prop_assert_eq!(check_filter(&filter, LEN_MAX), check_filter_naive(&filter));
        }

        #[test]
        fn matches_is_like_level_by_level(
            filter in filter(),
            name in prop_oneof!["[ab]{1,2}(/[ab]{0,2}){0,3}", "[$]?a(/[$]?a){0,3}", "/[ab/]{0,6}"],
        ) {
            prop_assert_eq!(matches(&filter, &name), matches_naive(&filter, &name));
        }

        #[test]
        fn overlap_is_what_brute_force_finds(a in filter(), b in filter()) {
            let found = names_all().iter().any(|name| matches(&a, name) && matches(&b, name));
            prop_assert_eq!(overlap(&a, &b), found);
            prop_assert_eq!(overlap(&b, &a), found);
        }

        #[test]
        fn covering_is_what_brute_force_finds(outer in filter(), inner in filter()) {
            let found = names_all().iter().all(|name| !matches(&inner, name) || matches(&outer, name));
            prop_assert_eq!(covers(&outer, &inner), found);
        }

        #[test]
        fn a_name_is_covered_by_what_matches_it(outer in filter(), name in "[ab$/]{1,5}") {
            prop_assert_eq!(covers(&outer, &name), matches(&outer, &name));
        }

        #[test]
        fn a_name_matches_itself_only(a in "[ab/]{1,4}", b in "[ab/]{1,4}") {
            prop_assert_eq!(matches(&a, &b), a == b);
            prop_assert_eq!(overlap(&a, &b), a == b);
        }

        #[test]
        fn checks_never_panic_and_names_are_filters(text in any::<String>()) {
            if check_name(&text, TOPIC_LEN_MAX_DEFAULT).is_ok() {
                prop_assert_eq!(check_filter(&text, TOPIC_LEN_MAX_DEFAULT), Ok(()));
                prop_assert!(!is_wildcard(&text) && !is_reserved(&text));
            }
        }
    }
}
