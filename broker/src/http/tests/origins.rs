//! Pages of other origins: what they may ask for, and which answers they can read (CORS).

use super::*;

#[tokio::test]
async fn pages_of_other_origins_may_not_publish() {
    let (app, shared) = app(Limits { origins: vec!["https://app.example".to_owned()], ..Limits::default() });
    let shards = FakeShards::start(&shared);
    let router = router(app);
    for origin in ["https://evil.example", "null", "http://localhost:8081"] {
        let answer = ask(&router, "POST", "/pub/a", &[("origin", origin)], "x").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert!(answer.sentence().contains("--allow-origin"));
        let asked = ask(&router, "OPTIONS", "/pub/a", &[("origin", origin)], "").await;
        assert_eq!((asked.status, asked.header("access-control-allow-origin")), (StatusCode::FORBIDDEN, None));
    }
    for origin in ["http://localhost:8080", "https://app.example"] {
        let answer = ask(&router, "POST", "/pub/a", &[("origin", origin)], "x").await;
        assert_eq!(answer.status, StatusCode::OK, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("vary"), Some("Origin"));
        let asked = ask(&router, "OPTIONS", "/pub/a", &[("origin", origin)], "").await;
        assert_eq!(asked.status, StatusCode::NO_CONTENT);
        assert_eq!(asked.header("access-control-allow-methods"), Some("GET, POST"));
        assert_eq!(asked.header("access-control-allow-headers"), Some("Content-Type, Authorization"));
        assert_eq!(asked.header("access-control-allow-private-network"), None);
    }
    assert_eq!(shards.finish().0.len(), 2);
}

/// Fetch standard, 3.2: a preflight is answered as it asks, as far as it is one.
#[tokio::test]
async fn an_allowed_page_may_send_the_fields_that_it_asks_for() {
    let (app, _) = app(Limits { origins: vec!["https://app.example".to_owned()], ..Limits::default() });
    let router = router(app);
    let long = "x".repeat(3000);
    for (asked, allowed) in [
        ("authorization", "authorization"),
        ("content-type,traceparent, x-request-id", "content-type,traceparent, x-request-id"),
        ("authorization", "authorization"),
        ("x y", "Content-Type, Authorization"),
        ("x,,y", "Content-Type, Authorization"),
        ("x:y", "Content-Type, Authorization"),
        (&long, "Content-Type, Authorization"),
    ] {
        let headers = [
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", asked),
            ("access-control-request-private-network", "true"),
        ];
        let answer = ask(&router, "OPTIONS", "/pub/a", &headers, "").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("access-control-allow-headers"), Some(allowed), "{asked}");
        assert_eq!(answer.header("access-control-allow-private-network"), Some("true"));
        assert!(answer.header("access-control-max-age").is_some());
        let vary: Vec<_> = answer.headers.get_all("vary").iter().map(|value| value.to_str().unwrap()).collect();
        let vary = vary.join(", ");
        for name in ["Origin", "Access-Control-Request-Headers", "Access-Control-Request-Private-Network"] {
            assert!(vary.contains(name), "{vary}");
        }
    }
}

/// Whatever is refused, a page of an allowed origin can read why, and when to come back.
#[tokio::test]
async fn refusals_are_readable_for_allowed_pages() {
    const PAGE: &str = "https://app.example";
    let limits = Limits { origins: vec![PAGE.to_owned()], message_bytes_max: 10, topics_max: 0, ..Limits::default() };
    let (app, _) = app(limits);
    let (public, admin) = (router(app.clone()), admin_router(app));
    type Sent<'a> = (&'a Router, &'a str, &'a str, &'a [(&'a str, &'a str)], &'static str, u16);
    let coded = [("content-encoding", "gzip")];
    let json = [("content-type", "application/json")];
    let requests: [Sent<'_>; 12] = [
        (&public, "POST", "/pub/a/+", &[], "x", 400),
        (&public, "POST", "/pub/a", &json, "{", 400),
        (&public, "POST", "/pub/$a", &[], "x", 403),
        (&public, "GET", "/nothing", &[], "", 404),
        (&public, "PUT", "/pub/a", &[], "", 405),
        (&public, "POST", "/pub/a", &[], "more than ten", 413),
        (&public, "POST", "/pub/a", &coded, "x", 415),
        (&public, "GET", "/bus/a", &[], "", 426),
        (&public, "POST", "/pub/a", &[], "x", 503),
        (&public, "POST", "http://elsewhere.example/pub/a", &[], "x", 421),
        (&admin, "GET", "/nothing", &[], "", 404),
        (&admin, "GET", "http://elsewhere.example/healthz", &[], "", 421),
    ];
    for (router, method, target, fields, body, status) in requests {
        let mut all = vec![("origin", PAGE)];
        all.extend_from_slice(fields);
        let answer = ask(router, method, target, &all, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{status}");
        assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After"), "{status}");
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("Origin")), "{status}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{status}");
        assert_eq!(answer.header("accept-encoding"), (status == 415).then_some("identity"), "{status}");
    }
}
