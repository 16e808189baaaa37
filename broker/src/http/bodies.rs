//! Request bodies under way: how long each may take, and how much memory all may.
//!
//! A body has to come in time, as [`publishing::body`](crate::publishing::body) says; else 408. All bodies together hold at most their share of `--max-memory`, or one message of
//! `--max-message` if that is more; when there is no
//! room for more, those that hold most are given up (503), of equal ones the oldest, so that a newcomer with a small
//! body gets in and a large one does not push out many small ones.
//!
//! Invariant: `bytes` is the sum over all bodies that were not given up; every body is charged to the budget with the
//! capacity of its buffer.
//!
//! Cost: a map entry and a timer per body. It is copied once, out of the HTTP library's buffer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use protocol::frame::HEADER_MAX;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::access::lock;
use crate::capacity::budget::{Budget, Charge, Held, allocated, longest_message};
use crate::config::limits::Limits;
use crate::http::app::App;
use crate::http::error::HttpError;
use crate::publishing::body::{broken, due_after, given_up, no_room, too_long, too_slow};

/// How old a body has to be before it is given up for somebody else's connection.
const YOUNG: Duration = Duration::from_secs(1);
/// How long the rest of a body that is refused is read, so that the client reads why.
const DISCARD_PATIENCE: Duration = Duration::from_secs(2);
/// And how much of it, in bytes.
const DISCARD_BYTES_MAX: usize = 8 << 20;
/// Capacity set aside before a body's first byte; more only as bytes come.
const FIRST_ROOM: usize = 4 << 10;

/// The bodies that are waited for.
#[derive(Debug)]
pub(crate) struct Bodies {
    bytes_max: u64,
    under_way: Mutex<UnderWay>,
}

#[derive(Default, Debug)]
struct UnderWay {
    /// Held by bodies that were not given up.
    bytes: u64,
    /// Held by bodies that were, until they notice.
    leaving: u64,
    next: u64,
    /// By age, the oldest first.
    bodies: BTreeMap<u64, UnderWayBody>,
}

#[derive(Debug)]
struct UnderWayBody {
    since: Instant,
    bytes: u64,
    given_up: bool,
    end: Arc<Notify>,
}

/// There is no room for so much.
#[derive(Debug)]
pub(crate) struct NoRoom;

impl Bodies {
    /// Within their share of a budget; there is always room for one message of `message_bytes_max`.
    pub(crate) fn new(budget: &Budget, message_bytes_max: u64) -> Self {
        let bytes_max = budget.share(Held::Bodies).max(longest_message(message_bytes_max));
        Self { bytes_max, under_way: Mutex::default() }
    }

    /// Gives up the body that is longest under way; false if none is old enough.
    pub(crate) fn give_up_longest(&self) -> bool {
        let under_way = &mut *lock(&self.under_way);
        let all = under_way.bodies.iter().filter(|(_, body)| !body.given_up);
        let oldest = all.min_by_key(|(_, body)| body.since);
        match oldest.filter(|(_, body)| body.since.elapsed() >= YOUNG).map(|(at, _)| *at) {
            Some(at) => {
                under_way.give_up(at);
                true
            }
            None => false,
        }
    }
}

impl UnderWay {
    fn give_up(&mut self, at: u64) {
        let body = self.bodies.get_mut(&at).expect("a body under way");
        body.given_up = true;
        body.end.notify_one();
        self.bytes -= body.bytes;
        self.leaving += body.bytes;
    }

    /// Makes the body at `at` one of `bytes`, at the cost of larger ones if there is no room.
    fn grow(&mut self, at: u64, bytes: u64, bytes_max: u64, budget: &Budget) -> Result<(), NoRoom> {
        let before = self.bodies[&at].bytes;
        let more = bytes.saturating_sub(before);
        let fits = |under_way: &Self| {
            let leaving = under_way.leaving;
            under_way.bytes + more <= bytes_max && budget.has_room_for_request(more.saturating_sub(leaving))
        };
        if !fits(self) {
            let larger = self.bodies.iter().filter(|(_, body)| !body.given_up && body.bytes > bytes);
            let mut larger: Vec<(u64, u64)> = larger.map(|(at, body)| (body.bytes, *at)).collect();
            if larger.iter().map(|(bytes, _)| bytes).sum::<u64>() < more {
                return Err(NoRoom);
            }
            // The largest first, of equal ones the oldest.
            larger.sort_unstable_by_key(|&(bytes, at)| (std::cmp::Reverse(bytes), at));
            for (_, at) in larger {
                self.give_up(at);
                if fits(self) {
                    break;
                }
            }
            if !fits(self) {
                return Err(NoRoom);
            }
        }
        self.resize(at, bytes);
        Ok(())
    }

    fn resize(&mut self, at: u64, bytes: u64) {
        let body = self.bodies.get_mut(&at).expect("a body under way");
        let sum = if body.given_up { &mut self.leaving } else { &mut self.bytes };
        *sum = *sum - body.bytes + bytes;
        body.bytes = bytes;
    }
}

/// A body's entry; removes it when dropped.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    bodies: &'a Bodies,
    at: u64,
    end: Arc<Notify>,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(bodies: &'a Bodies, since: Instant) -> Self {
        let under_way = &mut *lock(&bodies.under_way);
        let (at, end) = (under_way.next, Arc::new(Notify::new()));
        under_way.next += 1;
        under_way.bodies.insert(at, UnderWayBody { since, bytes: 0, given_up: false, end: Arc::clone(&end) });
        Self { bodies, at, end }
    }

    /// Holds so many bytes from now on.
    pub(crate) fn grow(&self, bytes: u64, budget: &Budget) -> Result<(), NoRoom> {
        lock(&self.bodies.under_way).grow(self.at, bytes, self.bodies.bytes_max, budget)
    }
}

impl Entry<'_> {
    /// Holds nothing from now on.
    pub(crate) fn shrink(&self) {
        lock(&self.bodies.under_way).resize(self.at, 0);
    }

    /// Is waited for anew from now on: what came was worked off.
    pub(crate) fn renew(&self) {
        if let Some(body) = lock(&self.bodies.under_way).bodies.get_mut(&self.at) {
            body.since = Instant::now();
        }
    }

    /// Waits until it has to go for others.
    pub(crate) async fn given_up(&self) {
        self.end.notified().await;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let under_way = &mut *lock(&self.bodies.under_way);
        if let Some(body) = under_way.bodies.remove(&self.at) {
            let sum = if body.given_up { &mut under_way.leaving } else { &mut under_way.bytes };
            *sum -= body.bytes;
        }
    }
}

/// A whole body, behind room for a frame's header.
#[derive(Debug)]
pub(crate) struct Collected {
    /// [`HEADER_MAX`] bytes without meaning, then the body.
    pub(crate) room: Vec<u8>,
    /// Stands for the buffer.
    pub(crate) charge: Charge,
}

/// Reads a body to its end. Of a body that is refused the rest is [discarded](discard), unless it was slow or had to go
/// for others: then its connection ends at once.
pub(crate) async fn collect(
    app: &App,
    headers: &HeaderMap,
    mut body: Body,
    bound: Bound,
) -> Result<Collected, HttpError> {
    match read(app, headers, &mut body, bound).await {
        Ok(collected) => Ok(collected),
        Err(Failure::Late(error)) => Err(error),
        Err(Failure::Refused(error)) => {
            discard(app, headers, body).await;
            Err(error)
        }
    }
}

/// How long a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) bytes_max: usize,
    /// The answer to a longer one.
    pub(crate) too_long: fn(&Limits) -> HttpError,
}

impl Bound {
    /// That of one message.
    pub(crate) fn message(limits: &Limits) -> Self {
        Self { bytes_max: usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX), too_long }
    }
}

/// Why there is no whole body.
enum Failure {
    /// It is not wanted; its sender may still be sending it.
    Refused(HttpError),
    /// It took too long.
    Late(HttpError),
}

impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        Self::Refused(error)
    }
}

async fn read(app: &App, headers: &HeaderMap, body: &mut Body, bound: Bound) -> Result<Collected, Failure> {
    let (limits, budget) = (app.limits(), &app.shared().budget);
    let max = bound.bytes_max;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > max) {
        return Err((bound.too_long)(limits).into());
    }
    let started = Instant::now();
    let entry = Entry::new(app.bodies(), started);
    let first = HEADER_MAX + FIRST_ROOM.min(announced.unwrap_or(0));
    entry.grow(allocated(first), budget).map_err(|NoRoom| no_room())?;
    let mut room = Vec::with_capacity(first);
    room.resize(HEADER_MAX, 0);
    let mut charge = Charge::new(budget.of_plane(), Held::Bodies, allocated(room.capacity()));
    loop {
        let received = room.len() - HEADER_MAX;
        let next = tokio::select! {
            biased;
            () = entry.end.notified() => return Err(Failure::Late(given_up())),
            next = timeout_at(due(started, received, limits), body.frame()) => next.map_err(|_| Failure::Late(too_slow(limits)))?,
        };
        let Some(frame) = next else { break };
        let frame = frame.map_err(|_| broken())?;
        let Ok(data) = frame.into_data() else { continue }; // trailers
        if Instant::now() > due(started, received + data.len(), limits) {
            return Err(Failure::Late(too_slow(limits)));
        }
        if data.len() > max - received {
            return Err((bound.too_long)(limits).into());
        }
        if data.len() > room.capacity() - room.len() {
            let needed = room.len() + data.len();
            let wanted = needed.max((2 * room.capacity()).min(HEADER_MAX + announced.unwrap_or(max)));
            // If there is no room for twice as much, just as much may do.
            let granted = match entry.grow(allocated(wanted), budget) {
                Ok(()) => wanted,
                Err(NoRoom) => entry.grow(allocated(needed), budget).map(|()| needed).map_err(|NoRoom| no_room())?,
            };
            room.reserve_exact(granted - room.len());
            charge.resize(allocated(room.capacity()));
        }
        room.extend_from_slice(&data);
    }
    Ok(Collected { room, charge })
}

/// When a body that began at `started` has to have brought more than `received` bytes.
fn due(started: Instant, received: usize, limits: &Limits) -> Instant {
    started + due_after(received, limits)
}

/// Reads on for a while: a connection closed with unread bytes is reset, and the answer lost with it.
pub(crate) async fn discard(app: &App, headers: &HeaderMap, mut body: Body) {
    // Who waits for `100 Continue` sends nothing and needs no reader.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let entry = Entry::new(app.bodies(), Instant::now());
    let all = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        () = entry.end.notified() => {}
        _ = timeout(DISCARD_PATIENCE, all) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries<'a>(bodies: &'a Bodies, budget: &Budget, sizes: &[u64]) -> Vec<Entry<'a>> {
        let entry = |&bytes: &u64| {
            let entry = Entry::new(bodies, Instant::now());
            entry.grow(bytes, budget).expect("room");
            entry
        };
        sizes.iter().map(entry).collect()
    }

    fn given_up(bodies: &Bodies) -> Vec<bool> {
        lock(&bodies.under_way).bodies.values().map(|body| body.given_up).collect()
    }

    #[tokio::test]
    async fn the_largest_make_room_for_the_smaller() {
        let budget = Budget::new(1, 4000);
        let bodies = Bodies::new(&Budget::new(1, 8000), 0);
        let held = entries(&bodies, &budget, &[300, 400, 200, 100]);
        let small = Entry::new(&bodies, Instant::now());
        small.grow(50, &budget).expect("room for a small one");
        assert_eq!(given_up(&bodies), [false, true, false, false, false]);
        // Larger than all that are left.
        let large = Entry::new(&bodies, Instant::now());
        assert!(large.grow(700, &budget).is_err());
        drop(held);
        large.grow(700, &budget).expect("room after the others have gone");
        drop((small, large));
        let under_way = lock(&bodies.under_way);
        assert_eq!((under_way.bytes, under_way.leaving, under_way.bodies.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn what_others_hold_leaves_less_room() {
        let budget = Budget::new(1, 4000);
        let bodies = Bodies::new(&Budget::new(1, 8000), 0);
        let _messages = Charge::new(budget.of_shard(0), Held::Messages, 3800);
        let held = entries(&bodies, &budget, &[30]);
        let entry = Entry::new(&bodies, Instant::now());
        assert!(entry.grow(200, &budget).is_err(), "nobody holds more");
        assert_eq!(given_up(&bodies), [false, false], "nobody goes in vain");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_under_way_makes_place() {
        let budget = Budget::new(1, 1 << 20);
        let bodies = Bodies::new(&Budget::new(1, 1 << 21), 0);
        let held = entries(&bodies, &budget, &[1, 1000]);
        assert!(!bodies.give_up_longest(), "both have only begun");
        tokio::time::sleep(YOUNG).await;
        assert!(bodies.give_up_longest() && bodies.give_up_longest() && !bodies.give_up_longest());
        drop(held);
    }
}
