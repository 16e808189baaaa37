//! The page, the JavaScript client and the documents that are built into the broker.

use super::*;

/// What the binary carries of them, in bytes, at most.
const BYTES_MAX: usize = 300_000;

#[tokio::test]
async fn the_page_and_its_assets() {
    let router = router(app(Limits::default()).0);
    let mut bytes = 0;
    for (target, media) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page-absence.js", "text/javascript; charset=utf-8"),
        ("/page-facts.js", "text/javascript; charset=utf-8"),
        ("/page-feed.js", "text/javascript; charset=utf-8"),
        ("/page-link.js", "text/javascript; charset=utf-8"),
        ("/page-token.js", "text/javascript; charset=utf-8"),
        ("/page-values.js", "text/javascript; charset=utf-8"),
        ("/ringyard.js", "text/javascript; charset=utf-8"),
        ("/ringyard.min.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/demos/", "text/html; charset=utf-8"),
        ("/demos/demos.css", "text/css; charset=utf-8"),
        ("/demos/chat", "text/html; charset=utf-8"),
        ("/demos/game", "text/html; charset=utf-8"),
        ("/demos/status", "text/html; charset=utf-8"),
        ("/demos/railway", "text/html; charset=utf-8"),
        ("/demos/chat.js", "text/javascript; charset=utf-8"),
        ("/demos/game.js", "text/javascript; charset=utf-8"),
        ("/demos/status.js", "text/javascript; charset=utf-8"),
        ("/demos/railway.js", "text/javascript; charset=utf-8"),
        ("/demos/demo.js", "text/javascript; charset=utf-8"),
        ("/demos/plot.js", "text/javascript; charset=utf-8"),
        ("/demos/steer.js", "text/javascript; charset=utf-8"),
        ("/README.md", "text/plain; charset=utf-8"),
        ("/protocol/js/README.md", "text/plain; charset=utf-8"),
        ("/protocol/RINGYARD-V1.md", "text/plain; charset=utf-8"),
        ("/protocol/vectors/v1.json", "application/json"),
    ] {
        let answer = get(&router, target).await;
        assert_eq!(answer.status, StatusCode::OK, "{target}");
        assert_eq!(answer.header("content-type"), Some(media), "{target}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert!(answer.header("content-security-policy").unwrap().contains("default-src 'none'"));
        let tag = answer.header("etag").unwrap().to_owned();
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = ask(&router, "GET", target, &[("if-none-match", &known)], "").await;
            assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
            assert_eq!(again.header("etag"), Some(&*tag));
        }
        let changed = ask(&router, "GET", target, &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(changed.status, StatusCode::OK);
        bytes += changed.body.len();
    }
    assert!((1..BYTES_MAX).contains(&bytes), "{bytes} bytes");
}

/// `import { connect } from "/ringyard.js"` and `<script src="/ringyard.min.js">` get the committed builds.
#[tokio::test]
async fn the_client_is_the_committed_build() {
    let limits = Limits { origins: vec!["https://app.example".to_owned()], ..Limits::default() };
    let router = router(app(limits).0);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/js");
    for (target, file, begins) in [
        ("/ringyard.js", "ringyard.min.mjs", "as connect"),
        ("/ringyard.min.js", "ringyard.min.js", "globalThis.ringyard"),
    ] {
        let build = std::fs::read(folder.join(file)).unwrap();
        assert!(build.windows(begins.len()).any(|part| part == begins.as_bytes()), "{file} has no {begins}");
        let answer = get(&router, target).await;
        assert_eq!(answer.body, build, "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        let head = ask(&router, "HEAD", target, &[], "").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!(
            (head.header("etag"), head.header("content-type")),
            (answer.header("etag"), answer.header("content-type"))
        );
        let options = ask(&router, "OPTIONS", target, &[], "").await;
        assert_eq!((options.status, options.header("allow")), (StatusCode::NO_CONTENT, Some("GET,HEAD,OPTIONS")));
        assert_eq!(ask(&router, "POST", target, &[], "x").await.status, StatusCode::METHOD_NOT_ALLOWED);
        // A module of another origin is loaded only if the answer names that origin.
        for (origin, named) in [("https://app.example", Some("https://app.example")), ("https://evil.example", None)] {
            let answer = ask(&router, "GET", target, &[("origin", origin)], "").await;
            assert_eq!(answer.header("access-control-allow-origin"), named);
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
    }
}
