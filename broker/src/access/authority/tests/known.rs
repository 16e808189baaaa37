//! Tokens that were seen before, and what is held of tokens.

use super::*;

#[test]
fn a_known_token_ends_when_it_says_and_costs_little() {
    let (tables, _folder) = tables();
    let authority = authority(&tables);
    let token = token("ann");
    let first = authority.identify(token.as_bytes(), NOW_MS);
    let second = authority.identify(token.as_bytes(), NOW_MS);
    assert!(second.cost <= 20 && first.cost > second.cost);
    let (first, second) = (first.result.expect("good"), second.result.expect("good"));
    assert!(Arc::ptr_eq(&first, &second));
    let end_ms = NOW_MS + 3_600_000 + 30_000;
    assert!(authority.identify(token.as_bytes(), end_ms - 1).result.is_ok());
    let over = authority.identify(token.as_bytes(), end_ms).result.expect_err("over");
    assert!(over.is_expired());
    assert_eq!(authority.renew(&first, Some(end_ms)).map(drop), Err(Denial::of(Cause::Expired)));
    assert!(authority.counts().any(|count| count == (Cause::Expired, 2)));
}

#[test]
fn a_known_token_does_not_let_another_in() {
    let (tables, _folder) = tables();
    let authority = authority(&tables);
    let ann = token("ann");
    identify(&authority, &ann).expect("good");
    let (message, mac) = ann.rsplit_once('.').expect("three parts");
    let bob = token("bob");
    let (other, other_mac) = bob.rsplit_once('.').expect("three parts");
    let long = format!("{mac}{}", &other_mac[..40]);
    for (message, mac) in [(other, mac), (message, other_mac), (message, &mac[..20]), (message, &long), (message, "")] {
        let forged = format!("{message}.{mac}");
        assert_eq!(identify(&authority, &forged).unwrap_err(), Cause::Signature, "{forged}");
    }
    assert_eq!(&*identify(&authority, &bob).expect("good").name, "bob");
}

#[test]
fn grants_of_a_token_alone_are_kept_once() {
    let (mut tables, _folder) = tables();
    let filters: Vec<_> = (0..20).map(|n| format!("room/{n}")).collect();
    let of = |user: &str| {
        let claims = json!({"sub": user, "exp": NOW_S + 3600, "topics": {"publish": filters, "subscribe": filters}});
        token_by(SECRET, &claims)
    };
    tables.allows.clear();
    let account = Arc::default();
    let authority = Authority::new(&tables, &account, 0).expect("an authority");
    let held = || account.used();
    let before = held();
    let ann = identify(&authority, &of("ann")).expect("good");
    let one = held() - before;
    let bob = identify(&authority, &of("bob")).expect("good");
    assert!(ann.allows(Operation::Publish, "room/7") && !bob.allows(Operation::Subscribe, "room/20"));
    let lists = [&ann, &bob].map(|principal| match &principal.origin {
        Origin::Token(origin) => Arc::as_ptr(&origin.grants),
        _ => unreachable!("both have tokens"),
    });
    assert!(
        std::ptr::addr_eq(lists[0], lists[1]) && std::ptr::addr_eq(lists[0], Arc::as_ptr(ann.permissions.grants()))
    );
    let (both, grants) = (held() - before, ann.permissions.bytes());
    assert!(
        grants > 1000 && both - one == one - grants,
        "{one} for one, {both} for both, of which {grants} are grants"
    );
    drop((ann, bob));
    assert_eq!(held(), before);
}

#[test]
fn equal_rights_are_one_allocation_and_memory_comes_back() {
    let (mut tables, _folder) = tables();
    tables.allows = vec![allow(Who::User, lists(&["chat/+", "user/{sub}/#"], &["chat/+"], &[]))];
    let account = Arc::default();
    let authority = Authority::new(&tables, &account, 0).expect("an authority");
    let before = account.used();
    let (ann, bob) = (identify(&authority, &token("ann")).unwrap(), identify(&authority, &token("bob")).unwrap());
    assert!(Arc::ptr_eq(&ann.permissions, &bob.permissions));
    let used = account.used() - before;
    assert!(used > ann.bytes() + bob.bytes() && used < 2048, "{used}");
    let with_two = account.used();
    let eve = identify(&authority, &token("eve")).unwrap();
    assert_eq!(
        account.used() - with_two,
        eve.bytes(),
        "what tables grant costs nothing more, with a claim in it or not"
    );
    assert!(eve.allows(Operation::Subscribe, "user/eve/x") && !eve.allows(Operation::Subscribe, "user/ann/x"));
    drop((ann, bob, eve));
    assert_eq!(account.used(), before, "nothing is remembered where the cache has no bytes");
}

#[test]
fn the_cache_is_bounded() {
    let (tables, _folder) = tables();
    let account = Arc::default();
    let authority = Authority::new(&tables, &account, 1 << 20).expect("an authority");
    for user in 0..6000 {
        identify(&authority, &token(&user.to_string())).expect("good");
    }
    let (entries, bytes) = authority.cache.size();
    assert!(entries > 500 && entries < 6000 && bytes <= 1 << 20, "{entries} {bytes}");
    assert!(account.used() < 2 << 20, "{}", account.used());
    identify(&authority, "x.y.z").expect_err("forged");
    assert_eq!(authority.cache.size().0, entries, "forged tokens are not remembered");
}
