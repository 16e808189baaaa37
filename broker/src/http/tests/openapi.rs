//! What the API says of itself, against what it answers.

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use serde_json::Value;

use crate::config::limits::Limits;
use crate::http::Operators;
use crate::http::routes::{admin_router, router};
use crate::http::tests::{app_for, ask, get};

async fn described(router: &Router) -> Vec<(String, String)> {
    let answer = get(router, "/api/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, Some("application/json")));
    let json = answer.json();
    assert_eq!(json["openapi"], "3.1.0");
    let mut operations = Vec::new();
    for (path, item) in json["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys().filter(|method| *method != "parameters") {
            operations.push((method.to_ascii_uppercase(), path.clone()));
        }
    }
    operations
}

/// Every operation of each listener is there, and another method is not.
#[tokio::test]
async fn what_is_described_is_answered() {
    for on_public_port in [true, false] {
        let (app, shared) = app_for(Limits::default(), Operators { on_public_port, fallback: None });
        let shards = super::FakeShards::start(&shared);
        for router in [router(app.clone()), admin_router(app)] {
            let operations = described(&router).await;
            for (method, path) in &operations {
                let target = path.replace("{topic}", "a").replace("{filter}", "a").replace("{user}", "a");
                let target = target.replace("{connection}", "0-0-0");
                let answer = ask(&router, method, &target, &[], Body::from("x")).await;
                // A topic may not be kept; then the answer is about it.
                let is_nothing = answer.status == StatusCode::NOT_FOUND && answer.sentence().contains("nothing at");
                let is_there = !is_nothing && answer.status != StatusCode::METHOD_NOT_ALLOWED;
                assert!(is_there, "{method} {path}: {}", answer.status);
                let other = ask(&router, "PATCH", &target, &[], Body::empty()).await;
                assert_eq!(other.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            }
            let has_counters = operations.iter().any(|(_, path)| path == "/api/stats");
            assert_eq!(has_counters, get(&router, "/api/stats").await.status == StatusCode::OK);
        }
        shards.finish();
    }
}

/// The codes that it lists are those that there are.
#[tokio::test]
async fn codes_are_listed() {
    let (app, _) = app_for(Limits::default(), Operators::default());
    let json = get(&router(app), "/api/openapi.json").await.json();
    let listed = &json["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
    let expected: Vec<Value> =
        crate::publishing::problem::Code::ALL.map(|code| serde_json::to_value(code).unwrap()).into();
    assert_eq!(listed.as_array(), Some(&expected));
}
