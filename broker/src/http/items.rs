//! Many messages of one request: sent to their sequencers one after the other, without waiting for answers in between,
//! and a result for each, in the order of the items.
//!
//! Messages of one topic keep their order, since each is sent before the next and a sequencer takes them in that order.
//! Limits hold for each message as for a request that publishes only that one.
//!
//! Invariants: at most [`IN_FLIGHT_MAX`] messages wait for their sequencers; results are in the order of the items, those of an item in that of its topics. What waits is charged to the budget.
//!
//! Cost per message: that of `sequence`, and an entry in a queue.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::request::Parts;
use bytes::Bytes;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, sleep};

use crate::capacity::budget::{Charge, Held, allocated};
use crate::http::QUEUE_PAUSE;
use crate::http::app::App;
use crate::http::error::HttpError;
use crate::http::sequence::{self, Answered, Content, Sent, admit, exempted, scoped};
use crate::http::written::Pieces;
use crate::message::options::Refusal;
use crate::publishing::item::{Prepared, Topics};
use crate::publishing::{Answer, QUEUE_PATIENCE, overloaded};
use crate::shard::shared::Published;

/// Messages that may wait for their sequencers before the next item is taken.
const IN_FLIGHT_MAX: usize = 1024;
/// Results are sent when so many bytes are written, or when there is nothing else to do.
const PIECE_BYTES: usize = 16 << 10;
/// Results that an idle stream keeps room for.
const KEPT_RESULTS: usize = 64;

/// How results are written one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// A line each.
    Lines,
    /// As members of one list, whose brackets are somebody else's.
    List,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Items<'a> {
    app: &'a App,
    head: &'a Parts,
    pieces: Pieces,
    form: Form,
    /// Until when all messages together may wait for room; `None`: each waits for itself.
    deadline: Option<Instant>,
    waiting: VecDeque<Waiting>,
    out: Vec<u8>,
    /// Whether something was written before: among all results, and in the list of the item that is written now.
    has_before: [bool; 2],
    /// Whether results of one item are written now.
    is_in_list: bool,
    charge: Charge,
}

/// What is to be written once all before it is.
#[derive(Debug)]
enum Waiting {
    /// The result of a message.
    Answer(Arc<str>, Answered),
    /// The result of what was not sent.
    Failed(Box<HttpError>),
    /// The results of one item begin.
    Begin,
    /// They end.
    End,
}

impl<'a> Items<'a> {
    pub(super) fn new(app: &'a App, head: &'a Parts, pieces: Pieces, form: Form, deadline: Option<Instant>) -> Self {
        let charge = Charge::new(app.shared().budget.of_plane(), Held::Bodies, 0);
        let (waiting, out) = (VecDeque::new(), Vec::new());
        Self { app, head, pieces, form, deadline, waiting, out, has_before: [false; 2], is_in_list: false, charge }
    }

    /// Sends an item's messages on their way.
    pub(super) async fn publish(&mut self, item: Prepared) {
        let Prepared { topics, payload, options } = item;
        let options = scoped(self.app, self.head, options);
        match topics {
            Topics::One(topic) => {
                let options = exempted(self.app, self.head, &topic, options);
                self.send(&topic, Content { payload, options }).await;
            }
            Topics::Many(list) => {
                self.waiting.push_back(Waiting::Begin);
                for topic in list.iter() {
                    let payload = payload.again(self.app.shared().budget.of_plane());
                    let options = exempted(self.app, self.head, topic, options.clone());
                    self.send(topic, Content { payload, options }).await;
                }
                self.waiting.push_back(Waiting::End);
            }
        }
    }

    /// An item is not published, for this reason.
    pub(super) async fn fail(&mut self, error: HttpError) {
        self.make_room().await;
        self.push_error(error);
    }

    /// Writes what stands around the results.
    pub(super) fn put(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    async fn make_room(&mut self) {
        while self.waiting.len() >= IN_FLIGHT_MAX {
            self.next().await;
            self.send_full().await;
        }
    }

    fn push_error(&mut self, error: HttpError) {
        self.waiting.push_back(Waiting::Failed(Box::new(error)));
    }

    async fn send(&mut self, topic: &str, mut content: Content) {
        self.make_room().await;
        if let Err(error) = admit(self.app, self.head, topic) {
            return self.push_error(error);
        }
        let mut deadline = self.deadline;
        loop {
            match sequence::send(self.app, topic, content) {
                Ok(Sent::Sent(name, answered)) => {
                    return self.waiting.push_back(Waiting::Answer(name, answered));
                }
                Ok(Sent::MustWait(back)) => content = back,
                Err(error) => return self.push_error(error),
            }
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + QUEUE_PATIENCE) {
                return self.push_error(overloaded());
            }
            self.flush().await;
            sleep(QUEUE_PAUSE).await;
        }
    }

    /// Whether nothing waits for a result.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for the next result, if one is to come, and writes it. Given up half-way it loses nothing.
    pub(super) async fn next(&mut self) {
        if let Some(Waiting::Answer(_, answered)) = self.waiting.front_mut() {
            let answer = answered.await.ok();
            self.write_answer(answer);
        }
        self.write_ready();
    }

    /// Writes and sends whatever has its result.
    pub(super) async fn flush(&mut self) {
        self.write_ready();
        self.send_out().await;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT_RESULTS);
        }
        self.recharge();
    }

    /// Waits for all results and writes them; the last may still be to be sent.
    pub(super) async fn complete(&mut self) {
        while !self.is_idle() {
            self.next().await;
            self.send_full().await;
        }
    }

    /// Sends what was written if it is enough for a piece.
    async fn send_full(&mut self) {
        if self.out.len() >= PIECE_BYTES {
            self.recharge();
            self.send_out().await;
        }
    }

    async fn send_out(&mut self) {
        if !self.out.is_empty() {
            // Nobody reads any more: then this future ends with the answer.
            let _ = self.pieces.send(Bytes::from(std::mem::take(&mut self.out))).await;
        }
    }

    fn recharge(&mut self) {
        let queue = allocated(self.waiting.capacity() * size_of::<Waiting>());
        self.charge.resize(queue + allocated(self.out.capacity()));
    }

    fn write_ready(&mut self) {
        while let Some(front) = self.waiting.front_mut() {
            match front {
                Waiting::Answer(_, answered) => match answered.try_recv() {
                    Ok(answer) => self.write_answer(Some(answer)),
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Closed) => self.write_answer(None),
                },
                Waiting::Failed(_) => {
                    let Some(Waiting::Failed(error)) = self.waiting.pop_front() else { unreachable!("it is in front") };
                    self.write_error(&error);
                }
                Waiting::Begin => {
                    self.waiting.pop_front();
                    self.begin();
                    self.out.extend_from_slice(b"{\"results\":[");
                    (self.is_in_list, self.has_before[1]) = (true, false);
                }
                Waiting::End => {
                    self.waiting.pop_front();
                    self.out.extend_from_slice(b"]}");
                    self.is_in_list = false;
                    self.end();
                }
            }
        }
    }

    /// Writes the result of the message in front.
    fn write_answer(&mut self, answer: Option<Result<Published, Refusal>>) {
        let Some(Waiting::Answer(topic, _)) = self.waiting.pop_front() else { unreachable!("a message is in front") };
        match sequence::outcome(answer) {
            Ok(Published { epoch, offset, subscribers, duplicate }) => {
                self.begin();
                Answer::new(&topic, epoch, offset, subscribers, duplicate).write_to(&mut self.out);
                self.end();
            }
            Err(error) => self.write_error(&error),
        }
    }

    /// Writes the result of something that was not published.
    fn write_error(&mut self, error: &HttpError) {
        self.app.shared().plane.count_refusal(error.cause());
        self.begin();
        error.write_body(&mut self.out);
        self.end();
    }

    /// Before a result.
    fn begin(&mut self) {
        let has_before = &mut self.has_before[usize::from(self.is_in_list)];
        if std::mem::replace(has_before, true) && (self.is_in_list || self.form == Form::List) {
            self.out.push(b',');
        }
    }

    /// After a result.
    fn end(&mut self) {
        if !self.is_in_list && self.form == Form::Lines {
            self.out.push(b'\n');
        }
    }
}
