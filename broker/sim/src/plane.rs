//! The control plane's part: publishes by HTTP, purges, requests handed over, sockets to adopt.

use broker::ids::Epoch;
use broker::message::Payload;
use broker::message::options::Refusal;
use broker::shard::handover::{Entry, Purpose, Upgrade};
use broker::shard::shared::{ControlMessage, Published, SharedState};
use protocol::head::accept_key;
use protocol::v1::{PayloadKind, SUBPROTOCOL};
use ring::sim::World;
use tokio::sync::oneshot::{Receiver, channel, error::TryRecvError};

use crate::client::{KEY, Role};
use crate::model::{MessageId, Model, Options, Position, Violation};
use crate::payload::{self, Kind};
use crate::report::Coverage;
use crate::trace::Trace;

/// The publisher that HTTP requests count as: control messages of one topic are carried out in their order.
const HTTP: usize = usize::MAX;

/// What the control plane of the simulation answers to publishes.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// HTTP publishes that wait for their answers.
#[derive(Default, Debug)]
pub(crate) struct Plane {
    waiting: Vec<(MessageId, Receiver<Result<Published, Refusal>>)>,
    /// Purges that do, by the model's numbers.
    purges: Vec<(usize, Receiver<Option<Epoch>>)>,
}

impl Plane {
    /// Publishes by HTTP. False if the shard's queue is full.
    pub(crate) fn publish(
        &mut self,
        topic: usize,
        kind: Kind,
        len: usize,
        shared: &SharedState,
        topics: &[String],
        model: &mut Model,
    ) {
        let id = match model.rule(topic).may_refuse() {
            true => model.publish_with(HTTP, topic, kind, len, Options::default()),
            false => model.publish(HTTP, topic, kind, len),
        };
        let bytes = payload::build(id, kind, len);
        let kind = if kind == Kind::Binary { PayloadKind::Binary } else { PayloadKind::Text };
        let (answer, receiver) = channel();
        let topic = shared.registry.resolve(&topics[topic]);
        let sequencer = topic.sequencer;
        model.written(id);
        let order = ControlMessage::Publish {
            topic,
            payload: Payload::copy_of(kind, &bytes, shared.budget.of_plane()),
            options: None,
            answer,
        };
        assert!(shared.send_control(sequencer, order).is_ok(), "thousands of control messages wait");
        self.waiting.push((id, receiver));
    }

    /// Purges a topic, if the broker knows it.
    pub(crate) fn purge(&mut self, topic: usize, shared: &SharedState, topics: &[String], model: &mut Model) {
        let Some(found) = shared.registry.find(&topics[topic]) else { return };
        let (answer, receiver) = channel();
        let sequencer = found.sequencer;
        let order = ControlMessage::Purge { topic: found, answer };
        assert!(shared.send_control(sequencer, order).is_ok(), "thousands of control messages wait");
        self.purges.push((model.purging(topic), receiver));
    }

    /// Takes the answers that are there.
    pub(crate) fn answers(
        &mut self,
        going_down: bool,
        model: &mut Model,
        coverage: &mut Coverage,
    ) -> Result<(), Violation> {
        for (id, mut receiver) in std::mem::take(&mut self.waiting) {
            match receiver.try_recv() {
                Ok(Ok(Published { epoch, offset, .. })) => {
                    coverage.http_published += 1;
                    model.acknowledged(id, Position { epoch: epoch.0, offset: offset.0 })?;
                }
                Ok(Err(Refusal::Limit(_))) if model.rule(model.topic_of(id)).may_refuse() => {
                    coverage.state_refused += 1;
                    model.refused_publish(id, "limit", None)?;
                }
                Ok(Err(Refusal::NotHolder)) if model.rule(model.topic_of(id)).exclusive => {
                    coverage.leases_kept_out += 1;
                    model.refused_publish(id, "not-holder", None)?;
                }
                Ok(Err(refusal)) => {
                    let what = format!("{}: {refusal:?}", model.describe(id));
                    return Err(Violation::new("a publish without options is not refused", what));
                }
                Err(TryRecvError::Empty) => self.waiting.push((id, receiver)),
                // Refused, and said so.
                Err(TryRecvError::Closed) if going_down => {}
                Err(TryRecvError::Closed) => {
                    return Err(Violation::new("an HTTP publish is answered", model.describe(id)));
                }
            }
        }
        for (number, mut receiver) in std::mem::take(&mut self.purges) {
            match receiver.try_recv() {
                Ok(epoch) => model.purged(number, epoch.map(|epoch| epoch.0))?,
                Err(TryRecvError::Empty) => self.purges.push((number, receiver)),
                Err(TryRecvError::Closed) if going_down => {}
                Err(TryRecvError::Closed) => {
                    return Err(Violation::new("a purge is answered", format!("purge {number}")));
                }
            }
        }
        Ok(())
    }

    /// How many publishes and purges wait for their answers.
    pub(crate) fn unanswered(&self) -> usize {
        self.waiting.len() + self.purges.len()
    }
}

/// Answers requests that were handed over, and hangs up.
pub(crate) fn serve(
    shared: &SharedState,
    world: &World,
    coverage: &mut Coverage,
    trace: &Trace,
) -> Result<(), Violation> {
    while let Some(mut handover) = shared.handovers.try_next() {
        handover.read.extend(&world.socket_read(&handover.socket, usize::MAX));
        let text = String::from_utf8_lossy(handover.read.as_ref());
        if text.starts_with("POST /pub/") {
            // There was no place for it with the shard, or it was refused before all of it had come.
            coverage.posts_handed_over += 1;
            world.socket_write(&handover.socket, BUSY);
            world.socket_close(handover.socket);
            continue;
        }
        if !text.starts_with("GET /api/stats?") || !text.ends_with("\r\n\r\n") {
            let broken = world.client_of(&handover.socket).is_none_or(|client| world.client_end(client).is_some());
            if !broken {
                return Err(Violation::new("a request is handed over whole", text.into_owned()));
            }
        }
        coverage.handed_over += 1;
        trace.say(|| format!("handed over: {text:?}"));
        world.socket_write(&handover.socket, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        world.socket_close(handover.socket);
    }
    Ok(())
}

/// What the head of a client says, and as whom it was judged.
pub(crate) fn upgrade(role: &Role, topics: &[String], entry: Entry) -> Upgrade {
    let purpose = match role {
        Role::Subscriber(filter) => Purpose::Subscribe(filter.clone()),
        Role::Publisher(topic) => Purpose::Publish(topics[*topic].clone()),
        Role::Bus(topic) => Purpose::Bus(topics[*topic].clone()),
        Role::Events(listening) => Purpose::Events(Box::new(listening.stream())),
        _ => Purpose::V1Session,
    };
    let subprotocol = (purpose == Purpose::V1Session).then_some(SUBPROTOCOL);
    Upgrade {
        purpose,
        accept: accept_key(KEY.as_bytes()),
        subprotocol,
        entry,
        has_key: false,
        start: protocol::head::RawStart::default(),
    }
}
