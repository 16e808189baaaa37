//! `POST /pub` with `application/json`: a batch of items, `{"messages": [...]}`, and a list of their results.
//!
//! All items are read before the first is published: the request fails as a whole if it is no batch, or one of its items
//! is no JSON. Whatever else is wrong with an item is its result, and the others go on.
//!
//! Bounds: [`ITEMS_MAX`] items, [`BATCH_BYTES_MAX`] bytes. Memory: the body, and the frames of its messages, which are made
//! one by one. Cost: each byte is looked at once to find the items, and read once as an item of a line is.

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use protocol::frame::HEADER_MAX;
use protocol::v1::split;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::http::app::App;
use crate::http::bodies::{self, Bound, Collected};
use crate::http::error::HttpError;
use crate::http::items::{Form, Items};
use crate::http::written::{Pieces, Written};
use crate::publishing::QUEUE_PATIENCE;
use crate::publishing::item::{self, Prepared};
use crate::publishing::problem::Code;

/// The media type of a batch and of its results.
pub(super) const CONTENT_TYPE: &str = "application/json";
/// Items of one batch.
const ITEMS_MAX: usize = 1000;
/// Length of a batch, in bytes.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// After so many bytes of items others have their turn.
const TURN_BYTES: usize = 256 << 10;
/// Results up to this length, in bytes, are sent at once, and the answer says their length.
const WHOLE_BYTES_MAX: usize = 256 << 10;

/// The handler.
pub(super) async fn publish(app: App, head: Parts, body: Body) -> Result<Response, HttpError> {
    let bound = Bound {
        bytes_max: BATCH_BYTES_MAX,
        too_long: |_| HttpError::new(413_u16, "A batch has at most 8 MiB: send more of them, or application/x-ndjson."),
    };
    let collected = bodies::collect(&app, &head.headers, body, bound).await?;
    let items = prepare(&app, collected).await?;
    let mut results = Written::by(|pieces| write(app, head, items, pieces));
    let mut whole = Vec::new();
    while let Some(piece) = results.next().await {
        whole.extend_from_slice(&piece);
        if whole.len() > WHOLE_BYTES_MAX {
            let body = Body::new(results.after(Bytes::from(whole)));
            return Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response());
        }
    }
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], whole).into_response())
}

/// What is to be published, in the order of the batch.
async fn prepare(app: &App, mut body: Collected) -> Result<Vec<Result<Prepared, HttpError>>, HttpError> {
    let text = &mut body.room[HEADER_MAX..];
    let ranges = split(text, ITEMS_MAX).map_err(HttpError::from)?;
    let mut items = Vec::with_capacity(ranges.len());
    let mut left = TURN_BYTES;
    for (at, range) in ranges.into_iter().enumerate() {
        let len = range.len();
        match item::prepare(&mut text[range], app.limits(), &app.shared().budget) {
            Err(error) if error.code() == Code::BadJson => return Err(error.of_item(at)),
            item => items.push(item),
        }
        if len >= left {
            yield_now().await;
            left = TURN_BYTES;
        } else {
            left -= len;
        }
    }
    Ok(items)
}

/// Publishes the items and writes their results.
async fn write(app: App, head: Parts, items: Vec<Result<Prepared, HttpError>>, pieces: Pieces) {
    let deadline = Instant::now() + QUEUE_PATIENCE;
    let mut results = Items::new(&app, &head, pieces, Form::List, Some(deadline));
    results.put(b"{\"results\":[");
    for item in items {
        match item {
            Ok(item) => results.publish(item).await,
            Err(error) => results.fail(error).await,
        }
    }
    results.complete().await;
    results.put(b"]}");
    results.flush().await;
}
