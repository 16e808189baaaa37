//! Resources that can be read and nothing else: GET, HEAD and OPTIONS.

use axum::handler::Handler;
use axum::routing::{MethodRouter, get};

use crate::http::app::App;
use crate::http::cors::allowed;

/// A resource that can be read, and says so when asked with OPTIONS.
pub(crate) fn readable<H, T>(handler: H) -> MethodRouter<App>
where
    H: Handler<T, App>,
    T: 'static,
{
    get(handler).options(|| async { allowed("GET,HEAD,OPTIONS") })
}
