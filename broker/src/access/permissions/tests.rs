//! Containment against enumeration, and what permissions answer.

use proptest::prelude::*;
use protocol::topic::{check_filter, matches};

use super::*;
use crate::access::templates::ClaimValues;

fn permissions(grants: &[(Operation, &str, &[Right])]) -> Permissions {
    let grant = |&(operation, filter, rights): &(Operation, &str, &[Right])| Grant {
        operation,
        filter: filter.into(),
        rights: rights.iter().copied().fold(Rights::default(), Rights::with),
        is_template: false,
    };
    Permissions::new(grants.iter().map(grant).collect(), &[])
}

#[test]
fn examples_of_containment() {
    for (grant, filter, expected) in [
        ("chat/#", "chat/+", true),
        ("chat/+", "chat/#", false),
        ("chat/#", "chat", true),
        ("chat/#", "chat/", true),
        ("chat/#", "chats", false),
        ("chat/+", "chat/", true),
        ("chat/+", "chat", false),
        ("+", "a", true),
        ("+", "/", false),
        ("+/+", "/", true),
        ("#", "#", true),
        ("#", "+/a/#", true),
        ("#", "$sys/load", false),
        ("#", "$sys/#", false),
        ("+/#", "$sys/#", false),
        ("+/load", "$sys/load", false),
        ("$sys/#", "$sys/load", true),
        ("$sys/+", "$sys/#", false),
        ("a/$b/+", "a/$b/c", true),
        ("a/#", "a/$b", true),
        ("+/#", "#", true),
        ("/+/#", "/#", true),
        ("+/+/#", "/#", true),
        ("a/+/#", "a/#", false),
        ("a", "+", false),
        ("a", "a", true),
        ("a/b", "a/+", false),
        ("räume/+", "räume/ü", true),
    ] {
        assert_eq!(covers(grant, filter), expected, "{grant} covers {filter}");
    }
}

#[test]
fn grants_do_not_combine_across_operations_or_filters() {
    use Operation::{Lease, Publish, Respond, Subscribe};
    let granted =
        permissions(&[(Subscribe, "a/b", &[]), (Subscribe, "a/c", &[]), (Publish, "p/+", &[]), (Lease, "l", &[])]);
    assert!(
        granted.allows(&[], Subscribe, "a/b") && granted.allows(&[], Publish, "p/1") && granted.allows(&[], Lease, "l")
    );
    assert!(
        !granted.allows(&[], Subscribe, "a/+")
            && !granted.allows(&[], Subscribe, "p/1")
            && !granted.allows(&[], Publish, "a/b")
    );
    assert!(!granted.allows(&[], Respond, "l") && !granted.allows(&[], Lease, "a/b"));
    let nothing = permissions(&[]);
    assert!(Operation::ALL.into_iter().all(|operation| !nothing.allows(&[], operation, "a")));
    assert!(Permissions::everything().allows(&[], Publish, "a") && Permissions::everything().api(Scope::Metrics));
}

#[test]
fn rights_hold_for_what_their_table_subscribes() {
    let granted = permissions(&[
        (Operation::Subscribe, "own/#", &[Right::History]),
        (Operation::Subscribe, "chat/+", &[Right::Presence]),
        (Operation::Subscribe, "chat/+", &[Right::Enter]),
        (Operation::Publish, "pub/#", &[]),
    ]);
    assert!(granted.has(&[], Right::History, "own/1") && !granted.has(&[], Right::History, "chat/1"));
    assert!(
        granted.has(&[], Right::Presence, "chat/1") && granted.has(&[], Right::Enter, "chat/1"),
        "equal filters are united"
    );
    assert!(!granted.has(&[], Right::Presence, "chat/#") && !granted.has(&[], Right::Request, "own/1"));
    assert!(!granted.has(&[], Right::History, "pub/1"));
    assert_eq!(granted.filters(&[], Operation::Subscribe).count(), 2);
}

#[test]
fn scopes() {
    let key = Permissions::new(Vec::new(), &[Scope::Topics, Scope::Inspect]);
    let allowed: Vec<_> = Scope::ALL.into_iter().filter(|scope| key.api(*scope)).collect();
    assert_eq!(allowed, [Scope::Topics, Scope::Inspect]);
    assert!(!key.allows(&[], Operation::Subscribe, "a"));
}

#[test]
fn what_is_for_operators_is_granted_by_scopes_alone() {
    let subscribes = |who: &Permissions, name| who.allows(&[], Operation::Subscribe, name);
    let grant =
        Grant { operation: Operation::Subscribe, filter: "$sys/#".into(), rights: Rights::ALL, is_template: false };
    let user = Permissions::new(vec![grant], &[]);
    assert!(subscribes(&user, "$sys/load") && subscribes(&Permissions::everything(), "$sys/load"));
    for name in ["$sys/topics", "$sys/closed"] {
        assert!(!subscribes(&user, name) && !subscribes(&Permissions::everything(), name), "{name}");
    }
    let topics = Permissions::new(Vec::new(), &[Scope::Topics]);
    let metrics = Permissions::new(Vec::new(), &[Scope::Metrics]);
    let read = |who: &Permissions| ["$sys/load", "$sys/topics", "$sys/closed", "a"].map(|name| subscribes(who, name));
    assert_eq!((read(&topics), read(&metrics)), ([false, true, false, false], [true, false, true, false]));
    assert!(metrics.has(&[], Right::History, "$sys/load") && !topics.has(&[], Right::History, "$sys/load"));
    assert!(!metrics.allows(&[], Operation::Publish, "$sys/closed"));
}

#[test]
fn the_nearest_grant_shares_most_levels() {
    let granted = permissions(&[
        (Operation::Publish, "chat/7", &[]),
        (Operation::Publish, "chat/+/typing", &[]),
        (Operation::Publish, "x/#", &[]),
    ]);
    assert_eq!(granted.nearest(&[], Operation::Publish, "chat/8/typing/x").as_deref(), Some("chat/+/typing"));
    assert_eq!(granted.nearest(&[], Operation::Subscribe, "chat/8"), None);
    assert_eq!(granted.granting(&[], Operation::Publish, "x/y").as_deref(), Some("x/#"));
    assert_eq!(granted.granting(&[], Operation::Publish, "y"), None);
}

#[test]
fn equal_content_is_equal_in_any_order() {
    let one = permissions(&[(Operation::Publish, "a", &[]), (Operation::Subscribe, "b", &[Right::Enter])]);
    let other = permissions(&[
        (Operation::Subscribe, "b", &[]),
        (Operation::Publish, "a", &[]),
        (Operation::Subscribe, "b", &[Right::Enter]),
    ]);
    assert_eq!(one, other);
    assert_ne!(one, permissions(&[(Operation::Publish, "a", &[])]));
}

/// A level of which no filter of these tests has the text, so that it stands for all other levels.
const OTHER: &str = "z";
/// Levels of names.
const LEVELS: [&str; 5] = ["", "a", "b", "$", OTHER];
/// Most levels of filters in these tests.
const FILTER_LEVELS: usize = 3;

/// Every name of up to one level more than a filter has.
fn names() -> Vec<String> {
    let mut all = Vec::new();
    let mut longest = vec![String::new()];
    for level in 0..=FILTER_LEVELS {
        let extend = |name: &String, next: &str| if level == 0 { next.to_owned() } else { format!("{name}/{next}") };
        longest = longest.iter().flat_map(|name| LEVELS.map(|next| extend(name, next))).collect();
        all.extend(longest.iter().filter(|name| !name.is_empty()).cloned());
    }
    all
}

/// Every valid filter of up to so many levels.
fn filters() -> Vec<String> {
    let levels = ["", "a", "b", "$", "+", "#"];
    let mut all = Vec::new();
    let mut longest = vec![None::<String>];
    for _ in 0..FILTER_LEVELS {
        let extend = |filter: &Option<String>, next| match filter {
            None => String::from(next),
            Some(filter) => format!("{filter}/{next}"),
        };
        longest = longest.iter().flat_map(|filter| levels.map(|next| Some(extend(filter, next)))).collect();
        all.extend(longest.iter().flatten().filter(|filter| check_filter(filter, 255).is_ok()).cloned());
    }
    all
}

#[test]
fn one_filter_covers_another_exactly_if_it_matches_every_name() {
    let (names, filters) = (names(), filters());
    let sets: Vec<Vec<bool>> =
        filters.iter().map(|filter| names.iter().map(|name| matches(filter, name)).collect()).collect();
    for (grant, granted) in filters.iter().zip(&sets) {
        for (filter, wanted) in filters.iter().zip(&sets) {
            let expected = wanted.iter().zip(granted).all(|(wanted, granted)| *granted || !*wanted);
            assert_eq!(covers(grant, filter), expected, "{grant:?} covers {filter:?}");
        }
    }
    assert!(filters.len() > 150 && names.len() > 700);
}

proptest! {
    #[test]
    fn several_grants_allow_exactly_what_one_of_them_covers(
        seeds in prop::collection::vec(0_usize..1 << 16, 0..6),
        asked in 0_usize..1 << 16,
    ) {
        let (names, filters) = (names(), filters());
        let grants: Vec<_> = seeds.iter().map(|seed| &filters[seed % filters.len()]).collect();
        let filter = &filters[asked % filters.len()];
        let list: Vec<_> = grants.iter().map(|grant| (Operation::Subscribe, grant.as_str(), &[][..])).collect();
        let covered = |grant: &str| names.iter().all(|name| !matches(filter, name) || matches(grant, name));
        let expected = grants.iter().any(|grant| covered(grant));
        prop_assert_eq!(permissions(&list).allows(&[], Operation::Subscribe, filter), expected, "{:?} {}", grants, filter);
    }

    #[test]
    fn a_name_is_covered_exactly_if_it_is_matched(grant in "([ab$]{0,2}|\\+)(/([ab$]{0,2}|\\+)){0,3}(/#)?", name in "[ab$]{0,2}(/[ab$]{0,2}){0,4}") {
        prop_assume!(check_filter(&grant, 255).is_ok() && !name.is_empty());
        prop_assert_eq!(covers(&grant, &name), matches(&grant, &name));
    }
}

/// What the broker's topics say of others goes with those, for claims too, and not with each other.
#[test]
fn members_and_counts_are_granted_with_their_topics() {
    use Right::{History, Presence};
    let mut grants = permissions(&[(Operation::Subscribe, "user/{sub}/#", &[Presence])]).content.grants.to_vec();
    grants[0].is_template = true;
    grants.push(Grant { filter: "plain".into(), rights: Rights::default(), is_template: false, ..grants[0].clone() });
    let permissions = Permissions::new(grants, &[]);
    let claims: [(Arc<str>, ClaimValues); 1] = [("sub".into(), ["ann".into()].into())];
    let subscribes = |name: &str| permissions.allows(&claims, Operation::Subscribe, name);
    for (name, expected) in [
        ("$presence/user/ann/x", true),
        ("$presence/user/ann/#", true),
        ("$count/user/ann/x", true),
        ("$presence/user/bob/x", false),
        ("$count/user/bob/x", false),
        ("$presence/plain", false),
        ("$count/plain", true),
        ("$presence/#", false),
        ("$presence/$presence/user/ann/x", false),
        ("$count/$count/user/ann/x", false),
    ] {
        assert_eq!(subscribes(name), expected, "{name}");
    }
    assert!(!permissions.allows(&claims, Operation::Publish, "$count/plain"));
    assert!(permissions.has(&claims, Presence, "$count/user/ann/x"));
    assert!(!permissions.has(&claims, History, "$presence/user/ann/x"));
}
