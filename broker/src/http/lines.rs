//! `POST /pub` with `application/x-ndjson`: an item per line, for as long as the client likes, and a line with its result
//! for each, in the order of the lines, while more lines come.
//!
//! A line is published as soon as it is complete. One that is no item has an error as its result, and the stream goes on.
//! It ends with the body, or with a last line that says why: a line that is too long, a body that is broken or has to go
//! for others, a shutdown. What comes behind that is not read.
//!
//! Back-pressure: while as many messages as `items` allows are in flight, while a topic's publishers have to wait, and
//! while the client takes no results, no line is read. So a client has to read results while it sends.
//!
//! Bounds: a line has [`line_bytes_max`] bytes. A stream may be silent for any time; but when connections or memory are
//! short, one that is silent for long goes like any other body (`bodies`). Blank lines are skipped.
//!
//! Cost per line: two copies, out of the HTTP library's buffer and into the message.

use std::pin::pin;

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::capacity::budget::{Budget, Charge, Held, allocated};
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::bodies::{self, Entry};
use crate::http::error::HttpError;
use crate::http::items::{Form, Items};
use crate::http::written::{Pieces, Written};
use crate::observe::counters::Refused;
use crate::publishing::body::{broken, given_up, no_room};
use crate::publishing::item;
use crate::publishing::problem::Code;

/// The media type of lines and of their results.
pub(super) const CONTENT_TYPE: &str = "application/x-ndjson";
/// What a line may have besides its payload, in bytes: a thousand topics of 255 bytes, a key, names.
const OVERHEAD_BYTES: usize = 272 << 10;
/// Room for lines that an idle stream keeps, in bytes.
const KEPT_BYTES: usize = 16 << 10;

/// The handler.
pub(super) fn publish(app: App, head: Parts, body: Body) -> Response {
    let results = Written::by(|pieces| write(app, head, body, pieces));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(results)).into_response()
}

/// Longest line: a payload of `--max-message` in base64, and what an item has besides.
fn line_bytes_max(limits: &Limits) -> usize {
    let payload = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX / 4);
    payload.saturating_add(payload / 3).saturating_add(OVERHEAD_BYTES)
}

/// Publishes lines and writes their results until the stream ends.
async fn write(app: App, head: Parts, mut body: Body, pieces: Pieces) {
    let mut items = Items::new(&app, &head, pieces, Form::Lines, None);
    let ended = publish_all(&app, &mut body, &mut items).await;
    let is_whole = ended.is_ok();
    if let Err(error) = ended {
        items.fail(error).await;
    }
    items.complete().await;
    items.flush().await;
    if !is_whole {
        bodies::discard(&app, &head.headers, body).await;
    }
}

/// Publishes lines until the body ends, or the stream has to.
async fn publish_all(app: &App, body: &mut Body, items: &mut Items<'_>) -> Result<(), HttpError> {
    let entry = Entry::new(app.bodies(), Instant::now());
    let mut lines = Lines::new(app.limits(), &app.shared().budget);
    let mut closing = pin!(app.closing());
    loop {
        while let Some(line) = lines.next()? {
            publish_line(app, items, line).await;
        }
        lines.tidy(&entry);
        items.flush().await;
        tokio::select! {
            biased;
            () = entry.given_up() => return Err(given_up()),
            () = &mut closing => return Err(draining()),
            frame = body.frame() => match frame {
                None => break,
                Some(Err(_)) => return Err(broken()),
                Some(Ok(frame)) => {
                    entry.renew();
                    lines.push(frame.data_ref().map_or(&[][..], |data| data), &entry, &app.shared().budget)?;
                }
            },
            () = items.next(), if !items.is_idle() => {}
        }
    }
    publish_line(app, items, lines.rest()).await;
    Ok(())
}

async fn publish_line(app: &App, items: &mut Items<'_>, line: &mut [u8]) {
    if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
        return;
    }
    match item::prepare(line, app.limits(), &app.shared().budget) {
        Ok(item) => items.publish(item).await,
        Err(error) => items.fail(error).await,
    }
}

fn draining() -> HttpError {
    HttpError::unavailable("The broker is shutting down: send the rest to another one.")
        .coded(Code::Draining)
        .because(Refused::Draining)
}

/// What came of a body and was not taken as a line yet.
#[derive(Debug)]
struct Lines {
    held: Vec<u8>,
    /// Where the next line begins.
    from: usize,
    /// Up to where no line ends.
    seen: usize,
    bytes_max: usize,
    charge: Charge,
}

impl Lines {
    fn new(limits: &Limits, budget: &Budget) -> Self {
        let charge = Charge::new(budget.of_plane(), Held::Bodies, 0);
        Self { held: Vec::new(), from: 0, seen: 0, bytes_max: line_bytes_max(limits), charge }
    }

    /// Adds what came.
    fn push(&mut self, data: &[u8], entry: &Entry<'_>, budget: &Budget) -> Result<(), HttpError> {
        self.held.drain(..self.from);
        (self.from, self.seen) = (0, self.seen - self.from);
        let needed = self.held.len() + data.len();
        if needed > self.held.capacity() {
            let wanted = needed.max(2 * self.held.capacity()).min(needed.max(self.bytes_max));
            entry.grow(allocated(wanted), budget).map_err(|_| no_room())?;
            self.held.reserve_exact(wanted - self.held.len());
            self.charge.resize(allocated(self.held.capacity()));
        }
        self.held.extend_from_slice(data);
        Ok(())
    }

    /// The next whole line, without its end.
    fn next(&mut self) -> Result<Option<&mut [u8]>, HttpError> {
        let end = self.held[self.seen..].iter().position(|&byte| byte == b'\n').map(|at| self.seen + at);
        if end.unwrap_or(self.held.len()) - self.from > self.bytes_max {
            let sentence = format!("A line is longer than {} bytes (--max-message).", self.bytes_max);
            return Err(HttpError::new(413_u16, sentence));
        }
        let Some(end) = end else {
            self.seen = self.held.len();
            return Ok(None);
        };
        let from = std::mem::replace(&mut self.from, end + 1);
        self.seen = self.from;
        Ok(Some(&mut self.held[from..end]))
    }

    /// What stands behind the last whole line.
    fn rest(&mut self) -> &mut [u8] {
        &mut self.held[self.from..]
    }

    /// Gives memory back once nothing is held.
    fn tidy(&mut self, entry: &Entry<'_>) {
        if self.from == self.held.len() && self.held.capacity() > KEPT_BYTES {
            (self.held, self.from, self.seen) = (Vec::new(), 0, 0);
            self.charge.resize(0);
            entry.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::bodies::Bodies;

    /// However a body is cut, its lines are the same.
    #[tokio::test]
    async fn lines_are_found_however_they_come() {
        let (budget, limits) = (Budget::new(1, 1 << 20), Limits { message_bytes_max: 9, ..Limits::default() });
        let bodies = Bodies::new(&budget, 1 << 20);
        let text = b"one\n\ntwo\r\nthree\n\n\nfour";
        for cut in 1..text.len() {
            let entry = Entry::new(&bodies, Instant::now());
            let mut lines = Lines::new(&limits, &budget);
            let mut found = Vec::new();
            for piece in text.chunks(cut) {
                lines.push(piece, &entry, &budget).expect("room");
                while let Some(line) = lines.next().expect("short lines") {
                    found.push(line.to_vec());
                }
                lines.tidy(&entry);
            }
            found.push(lines.rest().to_vec());
            assert_eq!(found, [&b"one"[..], b"", b"two\r", b"three", b"", b"", b"four"], "{cut}");
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_line_has_its_bound_and_is_charged() {
        let (budget, limits) = (Budget::new(1, 1 << 24), Limits { message_bytes_max: 1200, ..Limits::default() });
        let bodies = Bodies::new(&budget, 1 << 20);
        let entry = Entry::new(&bodies, Instant::now());
        let mut lines = Lines::new(&limits, &budget);
        let max = 1600 + OVERHEAD_BYTES;
        for _ in 0..max / 16 {
            lines.push(&[b'x'; 16], &entry, &budget).expect("room");
            assert!(lines.next().is_ok_and(|line| line.is_none()));
        }
        assert!(budget.held(Held::Bodies) >= max as u64);
        lines.push(b"\n", &entry, &budget).expect("room");
        assert_eq!(lines.next().map(|line| line.map(|line| line.len())).ok(), Some(Some(max)));
        lines.push(&vec![b'x'; max + 1], &entry, &budget).expect("room");
        assert_eq!(lines.next().expect_err("too long").status(), 413);
        drop(lines);
        assert_eq!(budget.used(), 0);
    }
}
