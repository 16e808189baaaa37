//! The page at `/` and what it loads, the JavaScript client for everybody's pages, the comparison of protocols, the demos,
//! documents, and the operators' dashboard, all built into the binary.
//!
//! The build compresses them (`build.rs`), and browsers get them so. Whoever does not take gzip gets an unpacked copy.
//!
//! Not responsible for which origins may read them: see [`cors`](crate::http::cors).

use std::io::Read;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;

use crate::http::app::App;
use crate::http::readable::readable;

/// Nothing from elsewhere; nothing inline but import maps, which cannot be in files; WebSockets also to brokers elsewhere.
const POLICY: [&str; 2] = [
    "default-src 'none'; script-src 'self'",
    "; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
        frame-ancestors 'none'",
];
const IMPORT_MAP: &str = r#"<script type="importmap">"#;

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
/// Markdown, which browsers show as text only if it is called that.
const TEXT: &str = "text/plain; charset=utf-8";

struct Asset {
    path: &'static str,
    media: &'static str,
    /// Compressed with gzip.
    packed: &'static [u8],
}

/// A file of the repository, compressed by the build.
macro_rules! packed {
    ($file:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $file, ".gz"))
    };
}

static ASSETS: [Asset; 43] = [
    Asset { path: "/", media: HTML, packed: packed!("broker/src/web/index.html") },
    Asset { path: "/page.css", media: STYLE, packed: packed!("broker/src/web/page.css") },
    Asset { path: "/page.js", media: SCRIPT, packed: packed!("broker/src/web/page.js") },
    Asset { path: "/page-feed.js", media: SCRIPT, packed: packed!("broker/src/web/page-feed.js") },
    Asset { path: "/page-values.js", media: SCRIPT, packed: packed!("broker/src/web/page-values.js") },
    Asset { path: "/page-absence.js", media: SCRIPT, packed: packed!("broker/src/web/page-absence.js") },
    Asset { path: "/page-link.js", media: SCRIPT, packed: packed!("broker/src/web/page-link.js") },
    Asset { path: "/page-facts.js", media: SCRIPT, packed: packed!("broker/src/web/page-facts.js") },
    Asset { path: "/page-token.js", media: SCRIPT, packed: packed!("broker/src/web/page-token.js") },
    Asset { path: "/icon.svg", media: "image/svg+xml", packed: packed!("broker/src/web/icon.svg") },
    // The client, as a module and as a script that sets `globalThis.ringyard`.
    Asset { path: "/ringyard.js", media: SCRIPT, packed: packed!("protocol/js/ringyard.min.mjs") },
    Asset { path: "/ringyard.min.js", media: SCRIPT, packed: packed!("protocol/js/ringyard.min.js") },
    // What it loads where WebSockets are blocked.
    Asset { path: "/ringyard-sse.js", media: SCRIPT, packed: packed!("protocol/js/ringyard-sse.min.mjs") },
    // The provider for Yjs, and Yjs itself for pages without a bundler.
    Asset { path: "/ringyard-yjs.js", media: SCRIPT, packed: packed!("protocol/js/ringyard-yjs.min.mjs") },
    Asset { path: "/yjs.js", media: SCRIPT, packed: packed!("protocol/js/vendor/yjs.min.mjs") },
    // Protocols compared, live and by the figures of `bench protocols`.
    Asset { path: "/compare", media: HTML, packed: packed!("broker/src/web/compare.html") },
    Asset { path: "/compare.css", media: STYLE, packed: packed!("broker/src/web/compare.css") },
    Asset { path: "/compare.js", media: SCRIPT, packed: packed!("broker/src/web/compare.js") },
    Asset { path: "/compare-ways.js", media: SCRIPT, packed: packed!("broker/src/web/compare-ways.js") },
    Asset { path: "/compare-uses.js", media: SCRIPT, packed: packed!("broker/src/web/compare-uses.js") },
    Asset { path: "/compare.json", media: JSON, packed: packed!("broker/src/web/compare.json") },
    // The demos, whose publishers are in deploy/demos.
    Asset { path: "/demos/", media: HTML, packed: packed!("broker/src/web/demos/index.html") },
    Asset { path: "/demos/demos.css", media: STYLE, packed: packed!("broker/src/web/demos/demos.css") },
    Asset { path: "/demos/editor.css", media: STYLE, packed: packed!("broker/src/web/demos/editor.css") },
    Asset { path: "/demos/ringyard.toml", media: TEXT, packed: packed!("broker/src/web/demos/ringyard.toml") },
    Asset { path: "/demos/chat", media: HTML, packed: packed!("broker/src/web/demos/chat.html") },
    Asset { path: "/demos/editor", media: HTML, packed: packed!("broker/src/web/demos/editor.html") },
    Asset { path: "/demos/game", media: HTML, packed: packed!("broker/src/web/demos/game.html") },
    Asset { path: "/demos/status", media: HTML, packed: packed!("broker/src/web/demos/status.html") },
    Asset { path: "/demos/railway", media: HTML, packed: packed!("broker/src/web/demos/railway.html") },
    Asset { path: "/demos/chat.js", media: SCRIPT, packed: packed!("broker/src/web/demos/chat.js") },
    Asset { path: "/demos/editor.js", media: SCRIPT, packed: packed!("broker/src/web/demos/editor.js") },
    Asset { path: "/demos/game.js", media: SCRIPT, packed: packed!("broker/src/web/demos/game.js") },
    Asset { path: "/demos/status.js", media: SCRIPT, packed: packed!("broker/src/web/demos/status.js") },
    Asset { path: "/demos/railway.js", media: SCRIPT, packed: packed!("broker/src/web/demos/railway.js") },
    Asset { path: "/demos/ask.js", media: SCRIPT, packed: packed!("broker/src/web/demos/ask.js") },
    Asset { path: "/demos/demo.js", media: SCRIPT, packed: packed!("broker/src/web/demos/demo.js") },
    Asset { path: "/demos/plot.js", media: SCRIPT, packed: packed!("broker/src/web/demos/plot.js") },
    Asset { path: "/demos/steer.js", media: SCRIPT, packed: packed!("broker/src/web/demos/steer.js") },
    // Documents, at the paths that they have in the sources: what they name relative to themselves is there as well.
    Asset { path: "/README.md", media: TEXT, packed: packed!("README.md") },
    Asset { path: "/protocol/js/README.md", media: TEXT, packed: packed!("protocol/js/README.md") },
    Asset { path: "/protocol/RINGYARD-V1.md", media: TEXT, packed: packed!("protocol/RINGYARD-V1.md") },
    Asset { path: "/protocol/vectors/v1.json", media: JSON, packed: packed!("protocol/vectors/v1.json") },
];

/// The operators' dashboard, which loads [`SHARED`] of the others too.
static DASHBOARD: [Asset; 8] = [
    Asset { path: "/dashboard", media: HTML, packed: packed!("broker/src/web/dashboard/index.html") },
    Asset { path: "/dashboard/style.css", media: STYLE, packed: packed!("broker/src/web/dashboard/style.css") },
    Asset { path: "/dashboard/main.js", media: SCRIPT, packed: packed!("broker/src/web/dashboard/main.js") },
    Asset { path: "/dashboard/link.js", media: SCRIPT, packed: packed!("broker/src/web/dashboard/link.js") },
    Asset { path: "/dashboard/overview.js", media: SCRIPT, packed: packed!("broker/src/web/dashboard/overview.js") },
    Asset { path: "/dashboard/topics.js", media: SCRIPT, packed: packed!("broker/src/web/dashboard/topics.js") },
    Asset {
        path: "/dashboard/connections.js",
        media: SCRIPT,
        packed: packed!("broker/src/web/dashboard/connections.js"),
    },
    Asset { path: "/dashboard/causes.js", media: SCRIPT, packed: packed!("broker/src/web/dashboard/causes.js") },
];

/// What both listeners have.
const SHARED: [&str; 2] = ["/ringyard.js", "/icon.svg"];

impl Asset {
    fn unpacked(&self) -> Vec<u8> {
        let mut body = Vec::new();
        GzDecoder::new(self.packed).read_to_end(&mut body).expect("what the build compressed");
        body
    }
}

/// The page, the client, the demos and the documents.
pub(crate) fn routes() -> Router<App> {
    each(ASSETS.iter())
}

/// The dashboard.
pub(crate) fn dashboard() -> Router<App> {
    each(DASHBOARD.iter())
}

/// What the dashboard loads besides, for a listener without [`routes`].
pub(crate) fn shared() -> Router<App> {
    each(ASSETS.iter().filter(|asset| SHARED.contains(&asset.path)))
}

/// A route per asset.
fn each(assets: impl Iterator<Item = &'static Asset>) -> Router<App> {
    assets.fold(Router::new(), |router, asset| {
        let tag = fingerprint(asset.packed);
        let policy = policy(asset);
        let answer = move |headers: HeaderMap| async move { answer(asset, tag, &policy, &headers) };
        router.route(asset.path, readable(answer))
    })
}

/// The policy for a file: that of a page allows the import map in it, by its hash.
fn policy(asset: &Asset) -> String {
    let text =
        if asset.media == HTML { String::from_utf8(asset.unpacked()).expect("a page is text") } else { String::new() };
    let map = text.split_once(IMPORT_MAP).and_then(|(_, map)| map.split_once("</script>")).map(|(map, _)| map);
    let hash = map.map(|map| format!(" 'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, map.as_bytes()))));
    POLICY.join(&hash.unwrap_or_default())
}

fn answer(asset: &'static Asset, tag: u64, policy: &str, headers: &HeaderMap) -> Response {
    let is_packed = accepts_gzip(headers);
    let tag = format!("\"{tag:016x}{}\"", if is_packed { "-gzip" } else { "" });
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let is_known = known.any(|known| known == tag || known == "*");
    let fields = [
        (header::ETAG, &*tag),
        (header::CACHE_CONTROL, "no-cache"), // ask again, but do not load again
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::VARY, "Accept-Encoding"),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    let media = [(header::CONTENT_TYPE, asset.media)];
    if is_packed {
        return (fields, media, [(header::CONTENT_ENCODING, "gzip")], asset.packed).into_response();
    }
    (fields, media, asset.unpacked()).into_response()
}

/// Whether a client has named gzip among what it takes.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut items = values.flat_map(|value| value.split(',')).map(|item| item.split_once(';').unwrap_or((item, "")));
    let refuses = |weight: &str| weight.trim().trim_start_matches("q=").parse() == Ok(0.0);
    items.any(|(name, weight)| name.trim().eq_ignore_ascii_case("gzip") && !refuses(weight))
}

/// FNV-1a: tells one build's file from another's.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
