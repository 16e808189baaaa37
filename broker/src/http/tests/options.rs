//! What a publish asks for besides its body.

use std::sync::Arc;

use axum::http::StatusCode;

use crate::access::lock;
use crate::config::limits::Limits;
use crate::http::routes::router;
use crate::http::tests::{FakeShards, app, ask, published};
use crate::message::options::{Expected, LeaseClaim, PublishOptions, Refusal};
use crate::shard::shared::{ControlMessage, Published};

#[tokio::test]
async fn options_reach_the_sequencer() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let query = "/pub/a?key=user+7&retain=1&removed=0&ttl=10s&if_offset=41&lease=7&unknown=1";
    assert_eq!(ask(&router, "POST", query, &[("idempotency-key", "\"k-1\"")], "x").await.status, StatusCode::OK);
    assert_eq!(ask(&router, "POST", "/pub/a?unknown=%zz", &[], "x").await.status, StatusCode::OK);
    let all_options = Arc::clone(&shards.options);
    shards.finish();
    let expected = PublishOptions {
        key: Some("user 7".into()),
        retain: true,
        removed: false,
        ttl_ms: Some(10_000),
        idempotency_key: Some("k-1".into()),
        is_key_holder: false,
        if_offset: Some(Expected::Offset(41)),
        lease: LeaseClaim::Number(7),
    };
    assert_eq!(*lock(&all_options), [Some(Box::new(expected)), None]);
}

#[tokio::test]
async fn malformed_options_are_refused() {
    let (app, shared) = app(Limits::default());
    let router = router(app);
    let key = "x".repeat(65);
    for (target, fields) in [
        ("/pub/a?retain=yes", &[][..]),
        ("/pub/a?ttl=10", &[]),
        ("/pub/a?if_offset=newest", &[]),
        ("/pub/a?lease=mine", &[]),
        ("/pub/a", &[("idempotency-key", &*key)]),
        ("/pub/a", &[("idempotency-key", "a"), ("idempotency-key", "a")]),
    ] {
        let answer = ask(&router, "POST", target, fields, "x").await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "bad-command".to_owned()), "{target}");
        answer.sentence();
    }
    assert_eq!(shared.plane.snapshot().refused_request, 6);
}

/// What a sequencer says is what the client is answered.
#[tokio::test]
async fn refusals_and_repetitions_are_answered() {
    let (app, shared) = app(Limits::default());
    let router = router(app);
    let answers = [
        Err(Refusal::Conflict { offset: 9 }),
        Err(Refusal::Unsupported("this topic retains nothing")),
        Err(Refusal::Limit("too many keys")),
        Ok(Published { duplicate: true, ..published(4) }),
    ];
    let shard = async {
        for answer in answers {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                let order = shared.inboxes.iter().find_map(|inbox| inbox.next_control());
                if let Some(ControlMessage::Publish { answer: way, .. }) = order {
                    way.send(answer).expect("somebody waits");
                    break;
                }
            }
        }
    };
    let client = async {
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(ask(&router, "POST", "/pub/a?if_offset=1", &[], "x").await);
        }
        answers
    };
    let (client, ()) = tokio::join!(client, shard);
    let said: Vec<_> = client.iter().map(|answer| (answer.status.as_u16(), answer.json())).collect();
    assert_eq!((said[0].0, &said[0].1["code"], &said[0].1["offset"]), (409, &"conflict".into(), &9.into()));
    assert_eq!((said[1].0, &said[1].1["code"]), (501, &"unsupported".into()));
    assert_eq!((said[2].0, &said[2].1["code"]), (429, &"limit".into()));
    assert_eq!((said[3].0, &said[3].1["offset"], &said[3].1["duplicate"]), (200, &4.into(), &true.into()));
}
