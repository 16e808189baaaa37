//! Shutdown: refuse newcomers, close every WebSocket with 1001 over a while, deliver what was accepted, end.
//!
//! **The window.** Clients that are all closed in one instant come back in one instant, wherever they go. So they are
//! closed in a shuffled order, evenly spread over the window. Clients that are still there are served as before: they
//! publish, and receive what others publish. Newcomers are answered with 503; other requests are still handed over.
//!
//! No client is closed before it has received what was accepted, on any shard, before the drain began. Every shard sends
//! every sequencer a mark behind its publishes. A sequencer that has the marks of all shards sends each shard a mark
//! behind its deliveries. A shard that has the marks of all sequencers has everything, and each client is first sent
//! what is pending for it.
//!
//! **The end.** After that, or at once without a window, the shards go on together, a phase at a time, because a message
//! accepted on one may have its sequencer on a second and its subscribers on a third. With no WebSocket left, the window
//! is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use protocol::frame::close_code;
use ring::{ConnId, Driver, Nanos, Random};

use crate::ids::ShardId;
use crate::observe::counters::Reason;
use crate::shard::Shard;
use crate::shard::shared::{Delivery, Request};
use crate::shard::time::nanos;
use crate::shard::transport::accept::Accepting;
use crate::shard::transport::connection::{Flags, State};

/// How often a shard looks whether the others are as far, and which clients are due.
const POLL_NANOS: Nanos = 10_000_000;

/// How far the shutdown is.
#[derive(Default, Debug)]
pub(super) struct Drain {
    phase: Phase,
    /// When the window began, and how long it is.
    began: Nanos,
    window: Nanos,
    /// Clients that are still to be closed, the next one last, and how many there were.
    staying: Vec<ConnId>,
    clients: usize,
    /// Marks of shards that this sequencer has.
    marks: u16,
    /// Marks of sequencers that this shard has.
    marked: u16,
    /// All that came before is in its logs.
    appended: bool,
    /// When the shard ends whatever is left.
    deadline: Nanos,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Phase {
    /// No shutdown.
    #[default]
    Running,
    /// Clients are closed, a few at a time.
    Window,
    /// Nothing is published any more; what was goes to its sequencers.
    Forward,
    /// Every shard has forwarded: sequencers sequence and pass on.
    Sequence,
    /// Every sequencer has passed on: subscribers are sent what waits.
    Deliver,
    /// Close frames are out.
    Close,
}

impl Drain {
    /// Whether newcomers are refused.
    pub(super) fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Whether nothing is published any more.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.phase, Phase::Running | Phase::Window)
    }

    /// How many of the clients should have been closed by `now`: the first at once, the last a step before the end.
    fn due(&self, now: Nanos) -> usize {
        let elapsed = u128::from(now.saturating_sub(self.began));
        let due = self.clients as u128 * elapsed / u128::from(self.window.max(1)) + 1;
        usize::try_from(due).unwrap_or(usize::MAX).min(self.clients)
    }
}

impl<D: Driver> Shard<D> {
    /// Begins the shutdown; a second call changes nothing.
    pub(super) fn begin_drain(&mut self, window: Duration) {
        if self.drain.has_begun() {
            return;
        }
        (self.drain.began, self.drain.window) = (self.now, nanos(window));
        if window.is_zero() {
            self.begin_end();
            return;
        }
        let mut clients: Vec<ConnId> = self.conns.ids();
        clients.retain(|&id| self.conns.get(id).is_some_and(|conn| conn.state == State::Open));
        shuffle(&mut clients, self.shared.epoch_base.0 ^ u64::from(self.id.0));
        self.drain.clients = clients.len();
        self.drain.staying = clients;
        self.drain.phase = Phase::Window;
        for sequencer in ShardId::all(self.shards()) {
            self.mailbox.request(sequencer, Request::Mark);
        }
    }

    /// A shard has begun to drain.
    pub(super) fn on_mark(&mut self) {
        self.drain.marks += 1;
        if self.drain.marks == self.shards() {
            for shard in ShardId::all(self.shards()) {
                self.mailbox.deliver(shard, Delivery::Marked);
            }
        }
    }

    /// A sequencer has passed on what was accepted before.
    pub(super) fn on_marked(&mut self) {
        self.drain.marked += 1;
    }

    /// Goes on with the shutdown. Returns whether it is complete.
    pub(super) fn advance_drain(&mut self) -> bool {
        if !self.drain.has_begun() {
            return false;
        }
        let all = self.shared.inboxes.len();
        let late = self.now >= self.drain.deadline;
        // Half the time is for delivering, half for closing.
        let hurry = self.now + nanos(self.limits.shutdown_grace) / 2 >= self.drain.deadline;
        match self.drain.phase {
            Phase::Running => {}
            Phase::Window => self.close_due(),
            Phase::Forward => {
                if hurry || self.mailbox.has_forwarded() {
                    self.shared.forwarded.fetch_add(1, Ordering::AcqRel);
                    self.enter_phase(Phase::Sequence);
                }
            }
            Phase::Sequence => {
                let forwarded = self.shared.forwarded.load(Ordering::Acquire) == all;
                if hurry || (forwarded && self.mailbox.has_sequenced()) {
                    self.shared.sequenced.fetch_add(1, Ordering::AcqRel);
                    self.enter_phase(Phase::Deliver);
                }
            }
            Phase::Deliver => {
                let sequenced = self.shared.sequenced.load(Ordering::Acquire) == all;
                let idle = self.mailbox.has_taken_deliveries()
                    && self.fanout.appends.is_empty()
                    && self.fanout.has_delivered()
                    && self.fanout.log_bytes == 0;
                if hurry || (sequenced && idle) {
                    self.close_all();
                    self.enter_phase(Phase::Close);
                    // With nobody connected nothing would ever wake the shard to say so.
                    return self.is_deserted();
                }
            }
            Phase::Close if self.is_deserted() => return true,
            Phase::Close if late => {
                self.cut_all();
                return true;
            }
            Phase::Close => {}
        }
        false
    }

    pub(super) fn drain_deadline(&self) -> Option<Nanos> {
        match self.drain.phase {
            Phase::Running => None,
            Phase::Close => Some(self.drain.deadline),
            _ => Some(self.now + POLL_NANOS),
        }
    }

    /// Closes the clients that are due. The window is over when its time is, or when nobody is left anywhere: a
    /// shard without clients waits for the others, because the kernel still deals it newcomers.
    fn close_due(&mut self) {
        if self.now >= self.drain.began + self.drain.window || self.shared.admission.open() == 0 {
            self.begin_end();
            return;
        }
        if self.drain.marked < self.shards() {
            return;
        }
        // What has come may still be on its way into logs.
        self.drain.appended |= self.fanout.appends.is_empty();
        if !self.drain.appended {
            return;
        }
        let gone = self.drain.clients - self.drain.staying.len();
        for _ in gone..self.drain.due(self.now) {
            if let Some(id) = self.drain.staying.pop() {
                self.drain_connection(id);
            }
        }
    }

    /// Nothing new from here on.
    fn begin_end(&mut self) {
        if self.acceptor.accepting == Accepting::Armed {
            self.driver.accept_stop();
        }
        self.acceptor.accepting = Accepting::Stopped;
        self.drain.staying = Vec::new();
        self.drain.deadline = self.now + nanos(self.limits.shutdown_grace);
        self.enter_phase(Phase::Forward);
    }

    fn is_deserted(&self) -> bool {
        self.conns.len() == 0 && !self.acceptor.is_adopting()
    }

    fn enter_phase(&mut self, phase: Phase) {
        self.drain.phase = phase;
        for inbox in &self.shared.inboxes {
            inbox.wake();
        }
    }

    fn close_all(&mut self) {
        for id in self.conns.ids() {
            let state = self.conns.get(id).map(|conn| conn.state);
            match state {
                Some(State::Open) => self.close_for_shutdown(id),
                Some(State::Arriving | State::Proxied | State::Handshake) => {
                    let rejection = self.shared.admission.draining();
                    self.refuse(id, &rejection);
                }
                _ => {}
            }
        }
    }

    /// Has a WebSocket closed as soon as it was sent what waits for it.
    pub(super) fn drain_connection(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get(id).filter(|conn| conn.state == State::Open) {
            conn.flags.set(Flags::LEAVING);
            self.make_ready(id);
        }
    }

    pub(super) fn close_for_shutdown(&mut self, id: ConnId) {
        self.close_with(id, close_code::GOING_AWAY.into(), "the broker is shutting down", Reason::Shutdown);
    }

    /// The time is up: whoever is left is cut off, and counted.
    fn cut_all(&mut self) {
        for id in self.conns.ids() {
            let was_sent_all = self.conns.get(id).is_none_or(|conn| {
                conn.state == State::Gone || !conn.flags.has(Flags::SENDING) && conn.outbox_len() == 0
            });
            self.stats().cut_off.add(u64::from(!was_sent_all));
            self.abort(id, Reason::Shutdown);
            self.on_closed(id);
        }
        self.publish_gauges();
    }
}

/// A shuffle that `seed` decides (Fisher and Yates).
fn shuffle(ids: &mut [ConnId], seed: u64) {
    let mut random = Random::new(seed);
    for left in (2..=ids.len()).rev() {
        ids.swap(left - 1, (random.draw() % left as u64) as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::v1::PayloadKind;
    use ring::sim::{Faults, SimDriver, World};
    use tokio::sync::oneshot;

    use super::*;
    use crate::access::address::AddressLease;
    use crate::capacity::budget::Held;
    use crate::capacity::buffer::Buffer;
    use crate::config::limits::Limits;
    use crate::ids::{Epoch, Offset};
    use crate::message::{Encoding, Message, Payload};
    use crate::shard::ShardSetup;
    use crate::shard::handover::{Adopt, Purpose, Upgrade};
    use crate::shard::shared::{ControlMessage, SharedState};

    fn shard(world: &World) -> (Shard<SimDriver>, Arc<SharedState>) {
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)));
        let setup = ShardSetup { id: ShardId(0), shared: Arc::clone(&shared), limits: Arc::new(Limits::default()) };
        (Shard::new(world.driver(4, 4, 64), setup), shared)
    }

    #[test]
    fn paused_publishers_do_not_keep_a_shutdown_awake() {
        let (mut shard, _) = shard(&World::new(1, Faults::default()));
        shard.input.yielded.push_back(ConnId { slot: 0, generation: 0 });
        assert_eq!(shard.wait_until(), None, "there is somebody to resume");
        shard.begin_drain(Duration::ZERO);
        assert!(shard.wait_until().is_some(), "nobody is resumed any more");
    }

    #[test]
    fn a_socket_adopted_when_all_were_closed_is_closed_as_well() {
        let world = World::new(1, Faults::default());
        let (mut shard, shared) = shard(&world);
        let _silent = world.connect(0);
        shard.step().unwrap();
        shared.send_control(ShardId(0), ControlMessage::Shutdown { window: Duration::ZERO }).unwrap();
        while shard.drain.phase != Phase::Close {
            assert!(shard.step().unwrap());
        }
        let (late, socket) = world.socket();
        let adopt = Adopt {
            socket,
            upgrade: Upgrade { purpose: Purpose::Subscribe("t".to_owned()), accept: [b'='; 28], subprotocol: None }
                .into(),
            read: Buffer::new(shared.budget.of_plane(), Held::Http),
            lease: AddressLease::default(),
        };
        shared.admission.enter(0).unwrap();
        shared.send_control(ShardId(0), ControlMessage::Adopt(adopt)).unwrap();
        for _ in 0..5 {
            assert!(shard.step().unwrap());
        }
        let read = world.client_read(late, 256);
        let frames = read.windows(4).position(|four| four == b"\r\n\r\n").map(|end| &read[end + 4..]);
        assert_eq!(frames.and_then(|frames| frames.get(2..4)), Some(&1001_u16.to_be_bytes()[..]), "{read:?}");
    }

    /// Ten clients over ten seconds: about one a second, in no order of their coming, and then it ends.
    #[test]
    fn clients_are_closed_one_by_one_over_the_window_in_a_shuffled_order() {
        let world = World::new(1, Faults::default());
        let shared = Arc::new(SharedState::new(1, 1, Epoch(1)));
        let setup = ShardSetup { id: ShardId(0), shared: Arc::clone(&shared), limits: Arc::new(Limits::default()) };
        let mut shard = Shard::new(world.driver(64, 8, 512), setup);
        const HEAD: &[u8] = b"GET /sub/t HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let clients: Vec<_> = (0..10).map(|_| world.connect(0)).collect();
        clients.iter().for_each(|&client| assert_eq!(world.client_write(client, HEAD), HEAD.len()));
        for _ in 0..10 {
            shard.step().unwrap();
        }
        assert_eq!(shared.admission.open(), 10);
        clients.iter().for_each(|&client| drop(world.client_read(client, 4096)));
        shared.send_control(ShardId(0), ControlMessage::Shutdown { window: Duration::from_secs(10) }).unwrap();
        let mut closed = Vec::new();
        for half_second in 0..20 {
            for _ in 0..6 {
                shard.step().unwrap();
            }
            for (at, &client) in clients.iter().enumerate() {
                let read = world.client_read(client, 4096);
                if !read.is_empty() {
                    assert_eq!(read.get(2..4), Some(&1001_u16.to_be_bytes()[..]), "{read:?}");
                    closed.push(at);
                }
            }
            assert_eq!(closed.len(), half_second / 2 + 1, "after {half_second} half seconds");
            world.advance(500_000_000);
        }
        assert_eq!(closed.len(), 10);
        assert!(!closed.is_sorted(), "{closed:?}");
        clients.iter().for_each(|&client| world.client_close(client));
        let ended = (0..50).any(|_| !shard.step().unwrap());
        assert!(ended, "with nobody left it ends");
        let counted = shared.stats[0].snapshot();
        assert_eq!((counted.closed, counted.closed_shutdown), (10, 10));
    }

    /// What another shard accepted just before the drain, that shard being slower to look.
    #[test]
    fn nobody_goes_before_the_other_shards_have_marked_what_they_accepted() {
        nobody_goes_without_what_was_accepted_before(100, false);
    }

    /// More waits for a client that does not read than one send takes.
    #[test]
    fn nobody_goes_before_it_was_sent_what_waits() {
        nobody_goes_without_what_was_accepted_before(100_000, true);
    }

    /// `blocked`: the first half of the messages fills the client's socket.
    fn nobody_goes_without_what_was_accepted_before(payload_bytes: usize, blocked: bool) {
        const MESSAGES: usize = 12;
        let world = World::new(1, Faults::default());
        world.set_socket_buffer(30_000);
        let shared = Arc::new(SharedState::new(2, 1, Epoch(1)));
        let limits = Arc::new(Limits::default());
        let shard = |id| {
            let setup = ShardSetup { id, shared: Arc::clone(&shared), limits: Arc::clone(&limits) };
            Shard::new(world.driver(64, 8, 512), setup)
        };
        let mut shards: Vec<Shard<SimDriver>> = vec![shard(ShardId(0)), shard(ShardId(1))];
        let (name, topic) = (0..)
            .map(|n: u32| (format!("t{n}"), shared.registry.resolve(&format!("t{n}"))))
            .find(|(_, topic)| topic.sequencer == ShardId(1))
            .expect("names are many");
        let client = world.connect(0);
        let head = format!(
            "GET /sub/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        world.client_write(client, head.as_bytes());
        let mut read = Vec::new();
        for _ in 0..10 {
            shards.iter_mut().for_each(|shard| assert!(shard.step().unwrap()));
            read.extend(world.client_read(client, 4096));
        }
        assert!(read.starts_with(b"HTTP/1.1 101 "), "{}", read.escape_ascii());
        read.clear();
        let payload = Payload::copy_of(PayloadKind::Text, &vec![b'x'; payload_bytes], shared.budget.of_plane());
        let frame = Message::new(topic.key(), Offset(1), payload.clone(), 0).frame(
            Encoding::Raw,
            shared.budget.of_plane(),
            true,
        );
        let publish = |_| {
            let order = ControlMessage::Publish {
                topic: topic.clone(),
                payload: payload.clone(),
                answer: oneshot::channel().0,
            };
            shared.send_control(ShardId(1), order).unwrap();
        };
        (0..MESSAGES / 2).for_each(publish);
        if blocked {
            for _ in 0..5 {
                shards.iter_mut().for_each(|shard| assert!(shard.step().unwrap()));
            }
        }
        (0..MESSAGES / 2).for_each(publish);
        for shard in ShardId::all(2) {
            shared.send_control(shard, ControlMessage::Shutdown { window: Duration::from_secs(10) }).unwrap();
        }
        for _ in 0..5 {
            shards[0].step().unwrap();
            world.advance(400_000_000);
        }
        assert_eq!(shared.stats[0].closed_shutdown.get(), 0, "closed before it has everything");
        for _ in 0..2000 {
            shards.iter_mut().for_each(|shard| drop(shard.step()));
            read.extend(world.client_read(client, 2000));
            world.advance(1_000_000);
        }
        let frames = frame.repeat(MESSAGES);
        assert!(read.starts_with(&frames), "{} bytes of {}", read.len(), frames.len());
        assert_eq!(read.get(frames.len() + 2..frames.len() + 4), Some(&1001_u16.to_be_bytes()[..]));
    }
}
