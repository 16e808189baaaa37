//! The network's side of a simulated driver. A turn has three steps: queued operations reach the network,
//! connections advance as far as they can (each filling a lane of events), and the lanes are emptied into the
//! caller's list, as far and in the order that the faults say. Within a lane the order is kept.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::backlog::{Accept, Backlog};
use super::buffers::{Buf, Buffers};
use super::conn::{Conn, Lane, Receive, Sending};
use super::{ClientId, Network};
use crate::{ACCEPTS_PER_TURN, AcceptEnd, ConnId, Counters, Event, Gather, ReceiveEnd};

pub(super) struct Host {
    pub(super) capacity: u32,
    pub(super) accept: Accept,
    pub(super) operations: VecDeque<Operation>,
    pub(super) counters: Counters,
    pub(super) waker: Arc<AtomicBool>,
    buffers: Buffers,
    backlog: Backlog,
    slots: Vec<Slot>,
    used: u32,
    /// `Accepted` and `AcceptEnded`.
    accept_lane: Lane,
    /// `Adopted`.
    adopt_lane: Lane,
    listening: bool,
}

/// Something the caller asked for since the last turn.
pub(super) enum Operation {
    Accept,
    AcceptStop,
    Adopt(OwnedFd, u64),
    Receive(ConnId),
    ReceiveStop(ConnId),
    Send(ConnId, Gather, usize),
    SendProgress(ConnId),
    Unsent(ConnId),
    Shutdown(ConnId),
    /// The flag: a receive or send was under way.
    Install(ConnId, bool),
    Peer(ConnId),
    Close(ConnId),
}

#[derive(Default)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

impl Host {
    pub(super) fn new(capacity: u32, buffers: u32, buffer_bytes: usize) -> Self {
        assert!(capacity > 0 && buffers > 0 && buffer_bytes > 0, "a driver without room");
        Self {
            capacity,
            accept: Accept::Idle,
            operations: VecDeque::new(),
            counters: Counters::default(),
            waker: Arc::default(),
            buffers: Buffers { count_max: buffers, bytes_max: buffer_bytes, lent: Rc::default() },
            backlog: Backlog::default(),
            slots: Vec::new(),
            used: 0,
            accept_lane: Lane::new(),
            adopt_lane: Lane::new(),
            listening: true,
        }
    }

    /// A client arrives at the listener. Not `notifies`: somebody else is notified.
    pub(super) fn connect(&mut self, client: ClientId, notifies: bool, net: &mut Network) {
        if self.listening {
            self.backlog.push(client, notifies);
        } else {
            net.link(client).reset = true;
        }
    }

    /// The connection, if it lives and is not being closed. Counts it as stale otherwise.
    pub(super) fn live(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(conn.slot as usize);
        let live = slot
            .filter(|slot| slot.generation == conn.generation)
            .and_then(|slot| slot.conn.as_mut())
            .filter(|live| !live.closing);
        if live.is_none() {
            self.counters.stale += 1;
        }
        live
    }

    /// Whether a driver's slot holds the server's end of `client`.
    pub(super) fn holds(&self, client: ClientId) -> bool {
        self.slots.iter().any(|slot| slot.conn.as_ref().is_some_and(|conn| conn.client == client))
    }

    pub(super) fn turn(&mut self, net: &mut Network, events: &mut Vec<Event<Buf>>) {
        self.counters.enters += 1;
        if self.waker.swap(false, Ordering::AcqRel) {
            events.push(Event::Woken);
        }
        for operation in mem::take(&mut self.operations) {
            self.apply(operation, net);
        }
        self.advance(net);
        self.deliver(net, events);
    }

    /// Whether a turn would report nothing.
    pub(super) fn is_idle(&self, net: &Network) -> bool {
        let acceptable = self.accept == Accept::Running && self.backlog.is_ready();
        let all_reported = self.accept_lane.is_empty() && self.adopt_lane.is_empty();
        let conns = || self.slots.iter().filter_map(|slot| slot.conn.as_ref());
        self.operations.is_empty()
            && all_reported
            && !acceptable
            && !self.waker.load(Ordering::Acquire)
            && conns().all(|conn| conn.is_idle(&net.links[conn.client.0]))
    }

    /// The driver is gone, and with it the server's end of all its connections.
    pub(super) fn end(&mut self, net: &mut Network) {
        self.listening = false;
        while let Some(client) = self.backlog.pop() {
            net.link(client).reset = true;
        }
        for conn in self.slots.drain(..).filter_map(|slot| slot.conn) {
            net.link(conn.client).server_close();
        }
        self.operations.clear();
        self.accept_lane.clear();
        self.adopt_lane.clear();
        self.waker.store(false, Ordering::Release);
        self.accept = Accept::Idle;
    }

    // ---- operations

    fn apply(&mut self, operation: Operation, net: &mut Network) {
        match operation {
            Operation::Accept if self.is_full() => self.end_accept(AcceptEnd::TableFull),
            Operation::Accept => self.begin_accept(),
            Operation::AcceptStop if self.accept == Accept::Running => {
                self.end_accept(AcceptEnd::Stopped);
            }
            Operation::AcceptStop => {}
            Operation::Adopt(socket, token) => self.adopt(&socket, token, net),
            Operation::Receive(conn) => {
                if let Some(live) = self.unclosed(conn) {
                    live.receive = Receive::Running;
                }
            }
            Operation::ReceiveStop(conn) => {
                if let Some(live) = self.unclosed(conn)
                    && live.receive == Receive::Running
                {
                    live.end_receive(conn, ReceiveEnd::Stopped);
                }
            }
            Operation::Send(conn, gather, from) => self.send(conn, gather, from, net),
            Operation::SendProgress(conn) => {
                if let Some(send) = self.unclosed(conn).and_then(|live| live.send.as_mut()) {
                    send.progress_asked = true;
                }
            }
            Operation::Unsent(conn) => {
                if let Some(live) = self.unclosed(conn) {
                    let result = Ok(net.link(live.client).to_client.len());
                    live.lane.push_back(Event::Unsent { conn, result });
                }
            }
            Operation::Shutdown(conn) => {
                if let Some(live) = self.unclosed(conn) {
                    net.link(live.client).server_fin = true;
                }
            }
            Operation::Install(conn, busy) => {
                if let Some(live) = self.unclosed(conn) {
                    let result = if busy {
                        Err(io::Error::from_raw_os_error(libc::EBUSY))
                    } else {
                        Ok(net.stand_in(live.client))
                    };
                    live.lane.push_back(Event::Installed { conn, result });
                }
            }
            Operation::Peer(conn) => {
                if let Some(live) = self.unclosed(conn) {
                    let result = Ok(net.link(live.client).address);
                    live.lane.push_back(Event::Peer { conn, result });
                }
            }
            Operation::Close(conn) => self.close(conn, net),
        }
    }

    /// Like [`Host::live`], for an operation that was not stale when it was queued.
    fn unclosed(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.slots[conn.slot as usize].conn.as_mut().filter(|live| !live.closing)
    }

    fn send(&mut self, conn: ConnId, gather: Gather, from: usize, net: &mut Network) {
        // Even when a close is already queued behind it: the kernel would take what there is room for.
        let live = self.slots[conn.slot as usize].conn.as_mut().expect("closed later than this");
        live.send = Some(Sending { gather, from, done: 0, progress_asked: false });
        let link = net.link(live.client);
        if live.closing && !link.reset {
            live.push_some(link, usize::MAX);
        }
    }

    fn close(&mut self, conn: ConnId, net: &mut Network) {
        let live = self.slots[conn.slot as usize].conn.as_mut().expect("a slot is closed once");
        live.send = None;
        live.receive = Receive::Idle;
        for event in live.lane.drain(..) {
            // An installed descriptor that is never reported is closed.
            if let Event::Installed { result: Ok(socket), .. } = event {
                net.sockets.remove(&socket.as_raw_fd());
                net.link(live.client).installed = false;
            }
        }
        net.link(live.client).server_close();
        live.lane.push_back(Event::Closed { conn });
    }

    fn adopt(&mut self, socket: &OwnedFd, token: u64, net: &mut Network) {
        let result = match net.sockets.remove(&socket.as_raw_fd()) {
            None => Err(libc::ENOTSOCK),
            Some(client) => {
                net.link(client).installed = false;
                if self.is_full() {
                    net.link(client).server_close();
                    Err(libc::ENFILE)
                } else {
                    Ok(self.open(client))
                }
            }
        };
        self.adopt_lane.push_back(Event::Adopted { token, result });
    }

    fn is_full(&self) -> bool {
        self.used == self.capacity
    }

    /// The lowest vacant slot becomes `client`'s.
    fn open(&mut self, client: ClientId) -> ConnId {
        let vacant = self.slots.iter().position(|slot| slot.conn.is_none());
        let index = vacant.unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.used += 1;
        let slot = &mut self.slots[index];
        slot.conn = Some(Conn {
            receive: Receive::Idle,
            sending: false,
            shutdown_wanted: false,
            closing: false,
            asking: false,
            unsent_asked: false,
            lane: Lane::new(),
            client,
            send: None,
        });
        ConnId { slot: index as u32, generation: slot.generation }
    }

    fn begin_accept(&mut self) {
        self.accept = Accept::Running;
        self.backlog.look();
    }

    fn end_accept(&mut self, end: AcceptEnd) {
        self.accept = Accept::Ended;
        self.accept_lane.push_back(Event::AcceptEnded { end });
    }

    // ---- progress

    fn advance(&mut self, net: &mut Network) {
        while self.accept == Accept::Running
            && self.backlog.is_ready()
            && self.accept_lane.len() < ACCEPTS_PER_TURN as usize
        {
            self.accept_one(net);
        }
        let Network { random, faults, links, .. } = net;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(live) = slot.conn.as_mut().filter(|live| !live.closing) else {
                continue;
            };
            let conn = ConnId { slot: index as u32, generation: slot.generation };
            let link = &mut links[live.client.0];
            live.send_on(conn, link, faults, random);
            live.answer_progress(conn, faults, random);
            while live.receive == Receive::Running && link.is_readable() {
                live.receive_one(conn, link, faults, random, &self.buffers, &mut self.counters);
            }
        }
    }

    fn accept_one(&mut self, net: &mut Network) {
        if net.faults.accept_ended.strikes(&mut net.random) {
            self.counters.multishots_ended += 1;
            return self.end_accept(AcceptEnd::Stopped);
        }
        if self.used > 0 && net.faults.table_full.strikes(&mut net.random) {
            return self.end_accept(AcceptEnd::TableFull);
        }
        let Some(client) = self.backlog.pop() else {
            return;
        };
        let conn = self.open(client);
        let is_second = net.link(client).is_second;
        self.accept_lane.push_back(Event::Accepted { conn, is_second });
        if self.is_full() {
            self.end_accept(AcceptEnd::TableFull);
        }
    }

    // ---- delivery

    fn deliver(&mut self, net: &mut Network, events: &mut Vec<Event<Buf>>) {
        let mut order = Vec::new();
        let lanes = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let conn = slot.conn.as_ref()?;
            Some((LaneId::Conn(index), conn.lane.len()))
        });
        let shared = [(LaneId::Accept, self.accept_lane.len()), (LaneId::Adopt, self.adopt_lane.len())];
        for (lane, len) in shared.into_iter().chain(lanes) {
            let due = (0..len).take_while(|_| !net.faults.delay.strikes(&mut net.random)).count();
            order.extend(std::iter::repeat_n(lane, due));
        }
        if net.faults.shuffle {
            net.random.shuffle(&mut order);
        }
        for lane in order {
            let event = match lane {
                LaneId::Accept => self.accept_lane.pop_front(),
                LaneId::Adopt => self.adopt_lane.pop_front(),
                LaneId::Conn(index) => self.slots[index].conn.as_mut().and_then(|conn| conn.lane.pop_front()),
            };
            let event = event.expect("counted above");
            self.reported(&event, net);
            events.push(event);
        }
    }

    /// The caller gets `event`, and may do from now on what it allows.
    fn reported(&mut self, event: &Event<Buf>, net: &mut Network) {
        match event {
            Event::AcceptEnded { .. } => self.accept = Accept::Idle,
            Event::ReceiveEnded { conn, .. } => self.reported_conn(*conn).receive = Receive::Idle,
            Event::Peer { conn, .. } => self.reported_conn(*conn).asking = false,
            Event::Unsent { conn, .. } => self.reported_conn(*conn).unsent_asked = false,
            Event::Sent { conn, .. } => {
                let live = self.reported_conn(*conn);
                live.sending = false;
                if live.shutdown_wanted {
                    net.link(live.client).server_fin = true;
                }
            }
            Event::Closed { conn } => {
                let slot = &mut self.slots[conn.slot as usize];
                slot.conn = None;
                slot.generation += 1;
                self.used -= 1;
            }
            Event::Accepted { .. }
            | Event::Adopted { .. }
            | Event::Received { .. }
            | Event::Installed { .. }
            | Event::Woken => {}
            Event::Dialled { .. } | Event::Discarded { .. } => unreachable!("a simulated host never dials"),
        }
    }

    fn reported_conn(&mut self, conn: ConnId) -> &mut Conn {
        self.slots[conn.slot as usize].conn.as_mut().expect("the connection of an event lives")
    }
}

#[derive(Clone, Copy)]
enum LaneId {
    Accept,
    Adopt,
    Conn(usize),
}
