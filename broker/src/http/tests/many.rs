//! Batches and lines through the router: what is published, the results, and what fails as a whole.

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::capacity::budget::Held;
use crate::config::limits::Limits;
use crate::http::routes::router;
use crate::http::tests::{Answer, FakeShards, app, ask, raw_frames};
use crate::topics::registry::Congestion;

// Media types are of any case (RFC 9110 §8.3.1).
const JSON: (&str, &str) = ("content-type", "Application/JSON");
const LINES: (&str, &str) = ("content-type", "application/X-NDJSON");

async fn batch(router: &Router, body: impl Into<Body>) -> Answer {
    ask(router, "POST", "/pub", &[JSON], body).await
}

async fn lines(router: &Router, body: impl Into<Body>) -> Vec<Value> {
    let answer = ask(router, "POST", "/pub", &[LINES], body).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = String::from_utf8(answer.body).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON value per line")).collect()
}

/// Of each result: its topic, or its code.
fn outcomes(results: &[Value]) -> Vec<String> {
    let outcome = |result: &Value| match (&result["results"], &result["code"]) {
        (Value::Array(of_topics), _) => outcomes(of_topics).join("+"),
        (_, Value::String(code)) => code.clone(),
        _ => result["topic"].as_str().expect("a topic").to_owned(),
    };
    results.iter().map(outcome).collect()
}

fn results(answer: &Answer) -> Vec<Value> {
    answer.json()["results"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn a_batch_is_published_item_by_item() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let body = json!({ "messages": [
        { "topic": "a", "data": "text" },
        { "topic": "b", "data": { "x": [1, 2] }, "key": "k" },
        { "topic": "a/+", "data": "x" },
        { "topics": ["c", "a", "$sys"], "data": "AAE=", "encoding": "base64" },
        { "topics": ["c", "a"], "data": "AAE=", "encoding": "base64" },
        { "topics": ["a"], "data": "x", "lease": 7 },
        7,
        { "topic": "a", "data": "last", "extra": 1 },
        { "topic": "a", "removed": true },
    ] });
    let answer = batch(&router, body.to_string()).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, Some("application/json")));
    let results = results(&answer);
    let expected = ["a", "b", "bad-topic", "forbidden", "c+a", "bad-command", "bad-command", "bad-command", "a"];
    assert_eq!(outcomes(&results), expected, "{results:?}");
    let offset = results[0]["offset"].clone();
    let first = json!({ "topic": "a", "epoch": "0000000000000abc", "offset": offset, "subscribers": 2 });
    assert_eq!(results[0], first, "as the answer to a single publish");
    let error = &results[2];
    assert_eq!(
        (&error["type"], &error["status"], &error["title"]),
        (&"about:blank".into(), &400.into(), &"Bad Request".into())
    );
    let (messages, _) = shards.finish();
    let frames = raw_frames(&messages);
    let of_topic = |name: &str| {
        frames.iter().filter(|(topic, _)| topic == name).map(|(_, frame)| frame.as_slice()).collect::<Vec<_>>()
    };
    assert_eq!(of_topic("a"), [&b"\x81\x04text"[..], b"\x82\x02\0\x01", b"\x81\x04null"]);
    assert_eq!(of_topic("b"), [b"\x81\x0b{\"x\":[1,2]}"]);
    assert_eq!(of_topic("c"), [b"\x82\x02\0\x01"]);
    let keys: Vec<_> = messages.iter().filter_map(|message| message.key()).collect();
    assert_eq!(keys, ["k"]);
    assert_eq!(shared.plane.snapshot().refused_request, 5, "each counts as a request of its own would");
    drop(messages);
    assert_eq!((shared.budget.held(Held::Bodies), shared.budget.held(Held::Messages)), (0, 0));
}

#[tokio::test]
async fn a_batch_fails_as_a_whole_for_its_form_alone() {
    let (app, shared) = app(Limits { message_bytes_max: 100, ..Limits::default() });
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let good = r#"{"topic":"a","data":"x"}"#;
    let many = |n: usize| format!(r#"{{"messages":[{}]}}"#, vec![good; n].join(","));
    for (body, status, code) in [
        (String::new(), 400, "bad-json"),
        ("[]".to_owned(), 400, "bad-command"),
        ("{}".to_owned(), 400, "bad-command"),
        (format!(r#"{{"messages":[{good}],"more":1}}"#), 400, "bad-command"),
        (format!(r#"{{"messages":[{good},{{"topic":"a","data":tru}}]}}"#), 400, "bad-json"),
        (format!(r#"{{"messages":[{good},]}}"#), 400, "bad-json"),
        (format!(r#"{{"messages":[{good}"#), 400, "bad-json"),
        (many(1001), 413, "too-big"),
        (format!(r#"{{"messages":[{good}{}]}}"#, " ".repeat(8 << 20)), 413, "too-big"),
    ] {
        let answer = batch(&router, body).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code));
        answer.sentence();
    }
    for (target, fields, status) in [
        ("/pub", &[][..], 415),
        ("/pub", &[("content-type", "text/plain")], 415),
        ("/pub", &[JSON, ("content-encoding", "gzip")], 415),
        ("/pub", &[JSON, ("idempotency-key", "a")], 400),
        ("/pub/", &[JSON], 400),
    ] {
        let answer = ask(&router, "POST", target, fields, many(1)).await;
        assert_eq!(answer.status.as_u16(), status, "{target} {fields:?}");
    }
    assert!(shards.finish().0.is_empty(), "nothing of it was published");
}

#[tokio::test]
async fn a_batch_has_so_many_items_and_its_results_may_be_long() {
    let (app, shared) = app(Limits { message_bytes_max: 100, ..Limits::default() });
    let shards = FakeShards::start(&shared);
    let router = router(app);
    assert_eq!(results(&batch(&router, r#"{"messages":[]}"#).await), [] as [Value; 0]);
    let topics: Vec<_> = (0..1000).map(|n| format!("{}{n}", "long/".repeat(40))).collect();
    let mut items = vec![json!({ "topics": topics, "data": "x" }); 3];
    items.extend(vec![json!({ "topic": "a", "data": "0".repeat(101) }); 997]);
    let answer = batch(&router, json!({ "messages": items }).to_string()).await;
    let results = results(&answer);
    assert_eq!(results.len(), 1000);
    let of_third: Vec<_> = results[2]["results"].as_array().expect("a list").iter().map(|one| &one["topic"]).collect();
    assert_eq!(of_third, topics.iter().collect::<Vec<_>>());
    assert!(results[3..].iter().all(|result| result["code"] == "too-big"));
    assert!(answer.header("content-length").is_none(), "sent while it was made");
    assert_eq!(shards.finish().0.len(), 3000);
    assert_eq!(shared.budget.held(Held::Messages), 0);
}

/// Each message counts, as one that is published alone.
#[tokio::test]
async fn limits_hold_for_each_item() {
    let limits = Limits { publish_rate_max: NonZeroU32::new(2), ..Limits::default() };
    let (app, shared) = app(limits);
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let items = vec![json!({ "topic": "a", "data": "x" }), json!({ "topics": ["a", "b", "c", "d"], "data": "x" })];
    let results = results(&batch(&router, json!({ "messages": items }).to_string()).await);
    assert_eq!(outcomes(&results)[0], "a");
    let of_topics: Vec<_> =
        results[1]["results"].as_array().expect("a list").iter().map(|one| one["status"].clone()).collect();
    assert_eq!(of_topics, [Value::Null, Value::Null, Value::Null, 429.into()], "two seconds' worth");
    assert_eq!(shared.plane.snapshot().commands_limited, 1);
    assert_eq!(shards.finish().0.len(), 4);
    let (app, shared) = super::app(Limits { topics_max: 1, ..Limits::default() });
    let shards = FakeShards::start(&shared);
    let _known = shared.registry.resolve("a");
    let results = lines(&super::router(app), "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"b\",\"data\":1}\n").await;
    assert_eq!(outcomes(&results), ["a", "busy"]);
    drop((_known, shards));
}

/// Items of a batch whose topic's publishers have to wait do so for five seconds in all; those of other topics go on.
#[tokio::test(start_paused = true)]
async fn a_batch_waits_once() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let congestion = Congestion::of(shared.registry.resolve("slow"));
    let slow = json!({ "topic": "slow", "data": "x" });
    let items = json!({ "messages": [slow, slow, { "topic": "a", "data": "x" }, slow] });
    let started = tokio::time::Instant::now();
    let results = results(&batch(&router, items.to_string()).await);
    assert_eq!(outcomes(&results), ["busy", "busy", "a", "busy"]);
    assert_eq!(started.elapsed().as_secs(), 5);
    drop(congestion);
    shards.finish();
}

#[tokio::test]
async fn lines_have_a_result_each_in_their_order() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let body = "{\"topic\":\"a\",\"data\":\"1\"}\n\r\n \n{\"topic\":\"a\",\"data\"\nnonsense\n\
                {\"topics\":[\"a\",\"b\"],\"data\":2}\r\n{\"topic\":\"+\",\"data\":2}\n{\"topic\":\"b\",\"data\":3}";
    let results = lines(&router, body).await;
    let expected = ["a", "bad-json", "bad-json", "a+b", "bad-topic", "b"];
    assert_eq!(outcomes(&results), expected, "{results:?}");
    assert_eq!(lines(&router, "").await, [] as [Value; 0]);
    assert_eq!(shards.finish().0.len(), 4);
}

/// More lines than may be in flight, cut anywhere.
#[tokio::test]
async fn many_lines_are_published_in_their_order() {
    let (app, shared) = app(Limits::default());
    let shards = FakeShards::start(&shared);
    let router = router(app);
    let text: String = (0..5000).map(|n| format!("{{\"topic\":\"t/{}\",\"data\":{n}}}\n", n % 7)).collect();
    let pieces: Vec<_> =
        text.as_bytes().chunks(1013).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
    let results = lines(&router, Body::from_stream(stream::iter(pieces))).await;
    assert_eq!(results.len(), 5000);
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result["topic"], format!("t/{}", n % 7));
    }
    let (messages, _) = shards.finish();
    for topic in 0..7 {
        let name = format!("t/{topic}");
        let of_topic = messages.iter().filter(|message| *message.topic == *name);
        let data: Vec<usize> =
            of_topic.map(|message| String::from_utf8_lossy(message.payload().bytes()).parse().unwrap()).collect();
        assert_eq!(data, (topic..5000).step_by(7).collect::<Vec<_>>());
    }
    drop(messages);
    assert_eq!((shared.budget.held(Held::Bodies), shared.budget.held(Held::Messages)), (0, 0));
}

#[tokio::test]
async fn a_stream_ends_with_a_reason() {
    let (app, shared) = app(Limits { message_bytes_max: 100, ..Limits::default() });
    let shards = FakeShards::start(&shared);
    let router = router(app.clone());
    let good = "{\"topic\":\"a\",\"data\":\"x\"}\n";
    let long = format!("{good}{}\n{good}", "x".repeat(300 << 10));
    let ended = lines(&router, long).await;
    assert_eq!(outcomes(&ended), ["a", "too-big"], "nothing behind it is published");
    let broken = stream::iter([Ok(Bytes::from(good)), Err(std::io::Error::other("gone"))]);
    assert_eq!(outcomes(&lines(&router, Body::from_stream(broken)).await), ["a", "bad-command"]);
    // Silent for longer than a body may be, and then the broker drains.
    let silent = stream::unfold(0, move |at| async move {
        match at {
            0 => Some((Ok::<_, Infallible>(Bytes::from(good)), 1)),
            _ => std::future::pending().await,
        }
    });
    let drain = async {
        sleep(Duration::from_millis(50)).await;
        app.close();
    };
    let (drained, ()) = tokio::join!(lines(&router, Body::from_stream(silent)), drain);
    assert_eq!(outcomes(&drained), ["a", "draining"]);
    assert_eq!(drained[1]["status"], 503);
    assert_eq!(shards.finish().0.len(), 3);
}
