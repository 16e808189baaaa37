//! Slow, large and many bodies, in virtual time.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream;
use tokio::time::{Instant, sleep};

use crate::capacity::budget::Held;
use crate::config::limits::Limits;
use crate::http::Operators;
use crate::http::routes::router;
use crate::http::tests::{Answer, EPOCH, FakeShards, app, app_on, ask};
use crate::shard::shared::SharedState;

/// `pieces` of `len` bytes, one each `pause`.
fn body(pieces: usize, len: usize, pause: Duration) -> Body {
    Body::from_stream(stream::unfold(0, move |at| async move {
        if at == pieces {
            return None;
        }
        sleep(pause).await;
        Some((Ok::<_, Infallible>(Bytes::from(vec![b'x'; len])), at + 1))
    }))
}

async fn post(router: &Router, body: Body) -> Answer {
    ask(router, "POST", "/pub/a", &[], body).await
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_least_rate_and_a_deadline() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    // A byte every three seconds: too slow after five.
    let started = Instant::now();
    let answer = post(&router, body(1000, 1, ms(3000))).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert!(answer.sentence().contains("--message-timeout"));
    assert_eq!(started.elapsed().as_secs(), 5);
    // A kibibyte at once saves up one second.
    let started = Instant::now();
    let first_then_nothing = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; 1024]))]);
    let silent = stream::pending();
    let answer = post(&router, Body::from_stream(futures_util::StreamExt::chain(first_then_nothing, silent))).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(started.elapsed().as_secs(), 6);
    // Fast enough, but for too long.
    let started = Instant::now();
    assert_eq!(post(&router, body(1000, 200, ms(100))).await.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(started.elapsed().as_secs(), 30);
    // Slow, and just fast enough.
    let answer = post(&router, body(25, 1024, ms(1000))).await;
    assert_eq!((answer.status, shared.budget.held(Held::Bodies)), (StatusCode::OK, 0));
    assert_eq!(shards.finish().0.len(), 1);
}

/// At any time bodies hold their share of the budget at most, and a small one gets in.
#[tokio::test(start_paused = true)]
async fn bodies_share_a_budget() {
    const BUDGET: u64 = 16 << 20;
    let shared = SharedState::new(2, 1, EPOCH).within(BUDGET);
    let (app, shared) = app_on(shared, Limits::default(), Operators::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let large: Vec<_> = (0..20)
        .map(|_| {
            let router = router.clone();
            tokio::spawn(async move { post(&router, body(9, 100_000, ms(100))).await.status })
        })
        .collect();
    let mut most = 0;
    for _ in 0..80 {
        sleep(ms(10)).await;
        most = most.max(shared.budget.held(Held::Bodies));
    }
    // Twenty of them would need 18 MB; one that was given up may still hold its memory for a moment.
    let share = shared.budget.share(Held::Bodies);
    assert!(most > share / 2 && most <= share + (1 << 20), "{most}");
    let answer = post(&router, body(3, 100, ms(10))).await;
    assert_eq!(answer.status, StatusCode::OK, "a small one among large ones");
    let mut published = 0;
    for answer in large {
        match answer.await.unwrap() {
            StatusCode::OK => published += 1,
            status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
        }
    }
    assert!((1..=3).contains(&published), "{published} of 900 kB fit into two MiB");
    assert_eq!(shared.budget.held(Held::Bodies), 0);
    assert_eq!(shards.finish().0.len(), published + 1);
}

/// A body that is refused is read on for so long and so far, not further.
#[tokio::test(start_paused = true)]
async fn what_is_discarded_is_bounded() {
    let (app, shared) = app(Limits { message_bytes_max: 100, ..Limits::default() });
    let router = router(app);
    let started = Instant::now();
    assert_eq!(post(&router, body(1000, 101, ms(1000))).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(started.elapsed().as_secs(), 3);
    let started = Instant::now();
    assert_eq!(post(&router, body(1000, 1 << 20, ms(1))).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(started.elapsed() < ms(20), "eight of a thousand are read");
    assert_eq!(shared.budget.used(), 0);
}
