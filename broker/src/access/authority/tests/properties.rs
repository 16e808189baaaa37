//! Whatever comes instead of a good token.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::access::vectors::authority as of_vectors;

/// One of the vectors' authorities and a good token for it.
static MIXED: LazyLock<Vec<(Authority, Vec<u8>)>> = LazyLock::new(|| {
    let vectors = vectors();
    let good =
        |vector: &&Value| vector["expected"] == "ok" && vector["name"].as_str().unwrap().starts_with("PyJWT: good ");
    let tokens = vectors["tokens"].as_array().unwrap().iter().filter(good);
    tokens
        .map(|vector| {
            let authority = of_vectors(&vectors, vector["settings"].as_str().unwrap());
            (authority, vector["token"].as_str().unwrap().as_bytes().to_vec())
        })
        .collect()
});

proptest! {
    #[test]
    fn whatever_comes_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (authority, _) = &MIXED[0];
        prop_assert!(authority.identify(&bytes, NOW_MS).result.is_err());
    }

    #[test]
    fn whatever_stands_in_three_parts_is_refused(head in ".{0,60}", payload in ".{0,60}", signature in prop::collection::vec(any::<u8>(), 0..80)) {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let token = format!("{}.{}.{}", encode(head.as_bytes()), encode(payload.as_bytes()), encode(&signature));
        prop_assert!(MIXED[0].0.identify(token.as_bytes(), NOW_MS).result.is_err());
    }

    #[test]
    fn a_changed_token_is_refused(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..4) {
        let (authority, token) = &MIXED[which.index(MIXED.len())];
        let at = at.index(token.len());
        let mut changed = token.clone();
        match how {
            0 => changed[at] = byte,
            1 => changed.insert(at, byte),
            2 => _ = changed.remove(at),
            _ => changed.truncate(at),
        }
        prop_assume!(changed != *token);
        prop_assert!(authority.identify(&changed, NOW_MS).result.is_err());
        prop_assert!(authority.identify(token, NOW_MS).result.is_ok());
    }

    #[test]
    fn parts_of_two_tokens_do_not_mix(one in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), at in any::<prop::sample::Index>()) {
        let ((authority, one), (_, other)) = (&MIXED[one.index(MIXED.len())], &MIXED[other.index(MIXED.len())]);
        let at = at.index(one.len().min(other.len()));
        let mixed = [&one[..at], &other[at..]].concat();
        prop_assume!(mixed != *one && mixed != *other);
        prop_assert!(authority.identify(&mixed, NOW_MS).result.is_err());
    }

    #[test]
    fn every_claim_is_read_without_a_panic(claims in "\\{(\"(exp|nbf|iat|aud|iss|sub|topics)\":(1|\"a\"|\\[\\]|\\{\\}|null|1e400|-0|[0-9]{1,20}|\\{\"subscribe\":\\[\"[a/+#$]{0,4}\"\\]\\}),?){0,4}\\}") {
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode("{\"alg\":\"HS256\"}"), encode(&claims));
        let key = EncodingKey::from_secret(vectors()["secret"].as_str().unwrap().as_bytes()).expect("a key");
        let signature = crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
        let identified = MIXED[0].0.identify(format!("{message}.{signature}").as_bytes(), NOW_MS);
        prop_assert!(identified.result.is_err(), "issuer and audience are missing: {}", claims);
    }
}
