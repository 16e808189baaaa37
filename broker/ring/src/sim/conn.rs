//! One connection of a simulated driver: how its send and its receive progress on the link, and which faults
//! they meet.

use std::collections::VecDeque;

use super::buffers::{Buf, Buffers};
use super::link::Link;
use super::{ClientId, Faults};
use crate::{ConnId, Counters, Event, Gather, Random, ReceiveEnd};

/// Events that keep their order among themselves.
pub(super) type Lane = VecDeque<Event<Buf>>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Receive {
    Idle,
    Called,
    Running,
    /// Over, but not reported yet.
    Ended,
}

pub(super) struct Conn {
    pub(super) receive: Receive,
    /// From the call to the event.
    pub(super) sending: bool,
    pub(super) shutdown_wanted: bool,
    pub(super) closing: bool,
    /// The peer's address is asked for.
    pub(super) asking: bool,
    /// The length of the socket's send queue is asked for.
    pub(super) unsent_asked: bool,
    pub(super) lane: Lane,
    pub(super) client: ClientId,
    /// What the network works on.
    pub(super) send: Option<Sending>,
}

pub(super) struct Sending {
    pub(super) gather: Gather,
    pub(super) from: usize,
    pub(super) done: usize,
    /// The caller wants to know how far it has got.
    pub(super) progress_asked: bool,
}

impl Conn {
    pub(super) fn is_idle(&self, link: &Link) -> bool {
        let receives = self.receive == Receive::Running && link.is_readable();
        let sends = self.send.as_ref().is_some_and(|send| send.progress_asked || link.is_writable());
        self.lane.is_empty() && !receives && !sends
    }

    pub(super) fn end_receive(&mut self, conn: ConnId, end: ReceiveEnd) {
        self.receive = Receive::Ended;
        self.lane.push_back(Event::ReceiveEnded { conn, end });
    }

    /// Moves up to `max` bytes of the send in flight into the socket.
    pub(super) fn push_some(&mut self, link: &mut Link, max: usize) {
        let Some(send) = &mut self.send else { return };
        let mut skip = send.from + send.done;
        let mut left = max.min(link.to_client.room());
        for part in send.gather.parts() {
            let bytes = &part[skip.min(part.len())..];
            skip -= part.len() - bytes.len();
            let bytes = &bytes[..bytes.len().min(left)];
            link.to_client.put(bytes);
            left -= bytes.len();
            send.done += bytes.len();
        }
    }

    pub(super) fn send_on(&mut self, conn: ConnId, link: &mut Link, faults: &Faults, random: &mut Random) {
        if !link.is_writable() {
            return;
        }
        let Some(send) = &self.send else { return };
        let todo = send.gather.len() - send.from - send.done;
        if link.server_fin {
            return self.end_send(conn, Err(libc::EPIPE));
        }
        if link.reset || link.client_gone || faults.send_error.strikes(random) {
            link.break_now(random);
            let errno = if random.below(2) == 0 { libc::EPIPE } else { libc::ECONNRESET };
            return self.end_send(conn, Err(errno));
        }
        let mut max = todo.min(link.to_client.room());
        let breaks = faults.reset.strikes(random);
        let stops_short = max == todo && max > 1 && faults.short_send.strikes(random);
        if breaks || stops_short {
            max = random.range(1, max);
        }
        self.push_some(link, max);
        if breaks {
            link.break_now(random);
        }
        if stops_short || max == todo {
            self.end_send(conn, Ok(()));
        }
    }

    /// Ends the send in flight where it has got to, if that was asked for; now or, late, in a later turn.
    pub(super) fn answer_progress(&mut self, conn: ConnId, faults: &Faults, random: &mut Random) {
        if self.send.as_ref().is_some_and(|send| send.progress_asked) && !faults.delay.strikes(random) {
            self.end_send(conn, Ok(()));
        }
    }

    pub(super) fn end_send(&mut self, conn: ConnId, result: Result<(), i32>) {
        let Some(Sending { gather, from, done, .. }) = self.send.take() else {
            return;
        };
        // As the kernel does: bytes that went out count, the error comes with the next send.
        let result = if done > 0 { Ok(done) } else { result.map(|()| done) };
        self.lane.push_back(Event::Sent { conn, gather, from, result });
    }

    /// One completion of the receive that is running on a readable connection.
    pub(super) fn receive_one(
        &mut self,
        conn: ConnId,
        link: &mut Link,
        faults: &Faults,
        random: &mut Random,
        buffers: &Buffers,
        counters: &mut Counters,
    ) {
        if link.to_server.is_empty() {
            let end = if link.reset { ReceiveEnd::Failed(libc::ECONNRESET) } else { ReceiveEnd::EndOfStream };
            return self.end_receive(conn, end);
        }
        if buffers.is_empty() || faults.no_buffers.strikes(random) {
            counters.no_buffers += 1;
            return self.end_receive(conn, ReceiveEnd::NoBuffers);
        }
        if faults.receive_ended.strikes(random) {
            counters.multishots_ended += 1;
            return self.end_receive(conn, ReceiveEnd::Stopped);
        }
        let mut len = link.to_server.len().min(buffers.bytes_max);
        let breaks = faults.reset.strikes(random);
        if breaks || faults.split_receive.strikes(random) {
            len = random.range(1, len);
        }
        let buf = buffers.lend(link.to_server.take(len));
        self.lane.push_back(Event::Received { conn, buf });
        if breaks {
            link.break_now(random);
        }
    }
}
