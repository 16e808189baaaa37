//! The page at `/` and what it loads, the JavaScript client for everybody's pages, the demos, and documents, all built
//! into the binary.
//!
//! Not responsible for which origins may read them: see [`cors`](crate::http::cors). An answer copies nothing: bodies are
//! static.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::app::App;
use crate::http::readable::readable;

/// Nothing from elsewhere, nothing inline; WebSockets also to brokers elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// Markdown, which browsers show as text only if it is called that.
const TEXT: &str = "text/plain; charset=utf-8";

struct Asset {
    path: &'static str,
    media: &'static str,
    body: &'static str,
}

static ASSETS: [Asset; 29] = [
    Asset { path: "/", media: HTML, body: include_str!("../web/index.html") },
    Asset { path: "/page.css", media: STYLE, body: include_str!("../web/page.css") },
    Asset { path: "/page.js", media: SCRIPT, body: include_str!("../web/page.js") },
    Asset { path: "/page-feed.js", media: SCRIPT, body: include_str!("../web/page-feed.js") },
    Asset { path: "/page-values.js", media: SCRIPT, body: include_str!("../web/page-values.js") },
    Asset { path: "/page-absence.js", media: SCRIPT, body: include_str!("../web/page-absence.js") },
    Asset { path: "/page-link.js", media: SCRIPT, body: include_str!("../web/page-link.js") },
    Asset { path: "/page-facts.js", media: SCRIPT, body: include_str!("../web/page-facts.js") },
    Asset { path: "/page-token.js", media: SCRIPT, body: include_str!("../web/page-token.js") },
    Asset { path: "/icon.svg", media: "image/svg+xml", body: include_str!("../web/icon.svg") },
    // The client, as a module and as a script that sets `globalThis.ringyard`.
    Asset { path: "/ringyard.js", media: SCRIPT, body: include_str!("../../../protocol/js/ringyard.min.mjs") },
    Asset { path: "/ringyard.min.js", media: SCRIPT, body: include_str!("../../../protocol/js/ringyard.min.js") },
    // The demos, whose publishers and topic rules are in deploy/demos.
    Asset { path: "/demos/", media: HTML, body: include_str!("../web/demos/index.html") },
    Asset { path: "/demos/demos.css", media: STYLE, body: include_str!("../web/demos/demos.css") },
    Asset { path: "/demos/chat", media: HTML, body: include_str!("../web/demos/chat.html") },
    Asset { path: "/demos/game", media: HTML, body: include_str!("../web/demos/game.html") },
    Asset { path: "/demos/status", media: HTML, body: include_str!("../web/demos/status.html") },
    Asset { path: "/demos/railway", media: HTML, body: include_str!("../web/demos/railway.html") },
    Asset { path: "/demos/chat.js", media: SCRIPT, body: include_str!("../web/demos/chat.js") },
    Asset { path: "/demos/game.js", media: SCRIPT, body: include_str!("../web/demos/game.js") },
    Asset { path: "/demos/status.js", media: SCRIPT, body: include_str!("../web/demos/status.js") },
    Asset { path: "/demos/railway.js", media: SCRIPT, body: include_str!("../web/demos/railway.js") },
    Asset { path: "/demos/demo.js", media: SCRIPT, body: include_str!("../web/demos/demo.js") },
    Asset { path: "/demos/plot.js", media: SCRIPT, body: include_str!("../web/demos/plot.js") },
    Asset { path: "/demos/steer.js", media: SCRIPT, body: include_str!("../web/demos/steer.js") },
    // Documents, at the paths that they have in the sources: what they name relative to themselves is there as well.
    Asset { path: "/README.md", media: TEXT, body: include_str!("../../../README.md") },
    Asset { path: "/protocol/js/README.md", media: TEXT, body: include_str!("../../../protocol/js/README.md") },
    Asset { path: "/protocol/RINGYARD-V1.md", media: TEXT, body: include_str!("../../../protocol/RINGYARD-V1.md") },
    Asset {
        path: "/protocol/vectors/v1.json",
        media: "application/json",
        body: include_str!("../../../protocol/vectors/v1.json"),
    },
];

/// A route per asset.
pub(crate) fn routes() -> Router<App> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = format!("\"{:016x}\"", fingerprint(asset.body.as_bytes()));
        router.route(asset.path, readable(move |headers: HeaderMap| async move { answer(asset, &tag, &headers) }))
    })
}

fn answer(asset: &Asset, tag: &str, headers: &HeaderMap) -> Response {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let fields = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache"), // ask again, but do not load again
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    if known.any(|known| known == tag || known == "*") {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, [(header::CONTENT_TYPE, asset.media)], asset.body).into_response()
}

/// FNV-1a: tells one build's file from another's.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
