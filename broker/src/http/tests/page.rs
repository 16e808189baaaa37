//! The page, the JavaScript client and the documents that are built into the broker.

use std::io::Read;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;

use super::*;

/// What the binary carries of them, in bytes, at most: compressed.
const BYTES_MAX: usize = 200_000;

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
        ("/ringyard-sse.js", "text/javascript; charset=utf-8"),
        ("/ringyard-yjs.js", "text/javascript; charset=utf-8"),
        ("/yjs.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/compare", "text/html; charset=utf-8"),
        ("/compare.css", "text/css; charset=utf-8"),
        ("/compare.js", "text/javascript; charset=utf-8"),
        ("/compare-ways.js", "text/javascript; charset=utf-8"),
        ("/compare-uses.js", "text/javascript; charset=utf-8"),
        ("/compare.json", "application/json"),
        ("/dashboard", "text/html; charset=utf-8"),
        ("/dashboard/style.css", "text/css; charset=utf-8"),
        ("/dashboard/main.js", "text/javascript; charset=utf-8"),
        ("/dashboard/link.js", "text/javascript; charset=utf-8"),
        ("/dashboard/overview.js", "text/javascript; charset=utf-8"),
        ("/dashboard/topics.js", "text/javascript; charset=utf-8"),
        ("/dashboard/connections.js", "text/javascript; charset=utf-8"),
        ("/dashboard/causes.js", "text/javascript; charset=utf-8"),
        ("/demos/", "text/html; charset=utf-8"),
        ("/demos/demos.css", "text/css; charset=utf-8"),
        ("/demos/editor.css", "text/css; charset=utf-8"),
        ("/demos/ringyard.toml", "text/plain; charset=utf-8"),
        ("/demos/chat", "text/html; charset=utf-8"),
        ("/demos/editor", "text/html; charset=utf-8"),
        ("/demos/game", "text/html; charset=utf-8"),
        ("/demos/status", "text/html; charset=utf-8"),
        ("/demos/railway", "text/html; charset=utf-8"),
        ("/demos/chat.js", "text/javascript; charset=utf-8"),
        ("/demos/editor.js", "text/javascript; charset=utf-8"),
        ("/demos/game.js", "text/javascript; charset=utf-8"),
        ("/demos/status.js", "text/javascript; charset=utf-8"),
        ("/demos/railway.js", "text/javascript; charset=utf-8"),
        ("/demos/ask.js", "text/javascript; charset=utf-8"),
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
        bytes += packed(&router, target, &changed.body, &tag).await;
    }
    assert!((1..BYTES_MAX).contains(&bytes), "{bytes} bytes");
}

/// Sees that whoever takes gzip gets the same, and how many bytes that is.
async fn packed(router: &Router, target: &str, body: &[u8], tag: &str) -> usize {
    let asked = [("accept-encoding", "br, GZIP;q=0.5")];
    let answer = ask(router, "GET", target, &asked, "").await;
    assert_eq!((answer.status, answer.header("content-encoding")), (StatusCode::OK, Some("gzip")), "{target}");
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    let own_tag = answer.header("etag").unwrap();
    assert_ne!(own_tag, tag, "another body has another tag");
    let mut unpacked = Vec::new();
    GzDecoder::new(&*answer.body).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == body, "{target}");
    let again = ask(router, "GET", target, &[asked[0], ("if-none-match", own_tag)], "").await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    for refused in ["", "br", "identity", "gzip;q=0", "gzip; q=0.0"] {
        let answer = ask(router, "GET", target, &[("accept-encoding", refused)], "").await;
        assert_eq!(answer.header("content-encoding"), None, "{refused}");
        assert!(answer.body == body, "{target}, {refused}");
    }
    answer.body.len()
}

/// Pages allow no inline script but their own import map.
#[tokio::test]
async fn the_policy_names_the_import_map_of_a_page() {
    let router = router(app(Limits::default()).0);
    let page = String::from_utf8(get(&router, "/demos/editor").await.body.clone()).unwrap();
    let (_, map) = page.split_once(r#"<script type="importmap">"#).unwrap();
    let (map, _) = map.split_once("</script>").unwrap();
    let hash = BASE64_STANDARD.encode(digest(&SHA256, map.as_bytes()));
    for (target, wanted) in
        [("/demos/editor", format!("script-src 'self' 'sha256-{hash}';")), ("/", "script-src 'self';".to_owned())]
    {
        let answer = get(&router, target).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains(&wanted), "{policy}");
    }
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
        ("/ringyard-sse.js", "ringyard-sse.min.mjs", "as fallback"),
        ("/ringyard-yjs.js", "ringyard-yjs.min.mjs", "as RingyardProvider"),
        ("/yjs.js", "vendor/yjs.min.mjs", "as applyAwarenessUpdate"),
    ] {
        let build = std::fs::read(folder.join(file)).unwrap();
        assert!(build.windows(begins.len()).any(|part| part == begins.as_bytes()), "{file} has no {begins}");
        let answer = get(&router, target).await;
        assert!(answer.body == build, "{target} is not the committed build");
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
            let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
            assert_eq!(vary, ["Accept-Encoding", "Origin"]);
        }
    }
}
