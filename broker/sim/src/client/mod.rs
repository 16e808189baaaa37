//! One simulated client: what it is, and what it does in a round.
//!
//! | file | what it does |
//! | --- | --- |
//! | `door` | where it comes from |
//! | `wire` | bytes in and out, at the client's pace |
//! | `greet` | request heads, good and bad, and their answers |
//! | `talk`, `arrive` | publishes, commands, and what comes back |
//! | `post` | publishes over HTTP, and their answers |
//! | `events` | streams of server-sent events |
//! | `unasked` | what comes without a command |
//! | `standing`, `judged` | tokens, and what they are answered |
//! | `calls` | requests, and answers to them |
//! | `past` | what it asks of the broker's memory |
//! | `present`, `members`, `watch` | sessions and presence, and what watchers learn |
//! | `holder`, `panel`, `wills` | leases, what watchers of those learn, and last wills |
//! | `part` | the ways a client leaves, fair and foul |

mod arrive;
mod calls;
mod door;
pub(crate) mod events;
mod greet;
mod holder;
mod judged;
mod members;
mod panel;
mod part;
mod past;
mod post;
mod present;
mod standing;
mod talk;
mod unasked;
mod watch;
mod wills;
mod wire;

use std::collections::{BTreeMap, VecDeque};

use protocol::v1::CommandType;
use ring::Random;
use ring::sim::{ClientEnd, ClientId, World};

use crate::access::Rights;
use crate::model::{MessageId, Model, Moment, Page, StreamId, TokenId, Violation, WillId};
use crate::params::Params;
use crate::report::Coverage;
use crate::trace::Trace;

use door::Door;
pub(crate) use greet::KEY;
use part::Unexplained;
use post::Expected;
pub(crate) use standing::Brings;
use standing::{Holder, Standing};
pub(crate) use talk::length;
use wire::{Pace, Wire};

/// What clients act upon.
pub(crate) struct Stage<'a> {
    pub(crate) world: &'a World,
    pub(crate) params: &'a Params,
    pub(crate) model: &'a mut Model,
    pub(crate) rng: &'a mut Random,
    pub(crate) coverage: &'a mut Coverage,
    pub(crate) trace: &'a mut Trace,
    /// Whether clients begin anything new, or only finish, read and answer.
    pub(crate) busy: bool,
}

/// What a client connected for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// `/sub/{filter}`.
    Subscriber(String),
    /// `/pub/{topic}`.
    Publisher(usize),
    /// `/bus/{topic}`.
    Bus(usize),
    /// `/ws`.
    V1,
    /// `/sub` over HTTP: server-sent events.
    Events(events::Listening),
    /// `POST /pub/{topic}`, again and again.
    Poster,
    /// A request that is no upgrade.
    Http,
    /// Something that earns this status, or one of these.
    Refused(Vec<u16>),
    /// A head that never ends.
    Slowloris,
}

impl Role {
    /// Whether these rights cover the path that it asks for.
    pub(crate) fn is_within(&self, rights: &Rights, topics: &[String]) -> bool {
        match self {
            Self::Subscriber(filter) => rights.subscribes(filter),
            Self::Publisher(topic) => rights.publishes(&topics[*topic]),
            Self::Bus(topic) => rights.subscribes(&topics[*topic]) && rights.publishes(&topics[*topic]),
            _ => true,
        }
    }
}

/// Where its connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Waits for the answer to its head.
    Head,
    /// A WebSocket.
    Open,
    /// The broker's close frame came, or a refusal; its end of stream is to come.
    Ending,
    /// Gone.
    Over,
}

/// What a client has done that ends its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parting {
    /// Nothing.
    None,
    /// Broke a rule that is answered with this code.
    Violation(u16),
    /// Sent a close frame with this code.
    Close(u16),
    /// Ended its direction.
    HalfClose,
    /// Went away.
    Gone,
}

/// A `ringyard.v1` command that waits for its answer.
#[derive(Clone, Debug)]
enum Command {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    Publish(MessageId),
    History(Page),
    Snapshot(MessageId),
    Call(calls::Call),
    Visit(present::Visit),
    Hold(holder::Hold),
    Will(WillId),
    Ping,
    Connect,
    /// `connect` with a token.
    Token(TokenId),
    /// Must fail with this code.
    Bad(&'static str),
}

impl Command {
    /// What it is if it is carried out; none if it must fail.
    fn command_type(&self) -> Option<CommandType> {
        match self {
            Self::Subscribe(_) => Some(CommandType::Subscribe),
            Self::Unsubscribe(_) => Some(CommandType::Unsubscribe),
            Self::Publish(_) => Some(CommandType::Publish),
            Self::History(_) => Some(CommandType::History),
            Self::Snapshot(_) => Some(CommandType::Snapshot),
            Self::Call(call) => Some(call.command_type()),
            Self::Visit(visit) => Some(visit.command_type()),
            Self::Hold(hold) => Some(hold.command_type()),
            Self::Will(_) => Some(CommandType::Will),
            Self::Ping => Some(CommandType::Ping),
            Self::Connect | Self::Token(_) => Some(CommandType::Connect),
            Self::Bad(_) => None,
        }
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) wire: Wire,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) parting: Parting,
    /// The close code that the broker sent.
    pub(crate) closed_with: Option<u16>,
    pub(crate) unexplained: Option<Unexplained>,
    pub(crate) door: Door,
    /// On which it is.
    shard: usize,
    /// Where access control is on.
    standing: Option<Box<Standing>>,
    /// As whom the command was carried out whose answer is being heard.
    judged_as: Option<Holder>,
    stream: Option<StreamId>,
    answers_pings: bool,
    /// Answers a close frame, and then waits for the end of the stream.
    polite: bool,
    /// Writes frames before its head was answered.
    eager: bool,
    commands: BTreeMap<u64, Command>,
    next_command: u64,
    /// Its subscriptions may begin in the past.
    recovers: bool,
    /// Filters asked for and not given back.
    filters: Vec<String>,
    /// Requests that wait for their answers, in their order.
    requests: VecDeque<Expected>,
    /// The place of its last message on each topic.
    answered: BTreeMap<String, (u64, u64)>,
    /// What it answers requests for.
    serving: calls::Serving,
    visitor: present::Visitor,
    leasing: holder::Leasing,
    /// A request of it was answered.
    was_heard: bool,
    /// Of a stream of events.
    decoder: events::Decoder,
    /// It was asked to come back later: the broker shuts down.
    told_to_go: bool,
}

impl Client {
    /// A client on a fresh connection; its head is on the way.
    pub(crate) fn connect((index, shard): (usize, usize), conn: ClientId, role: Role, stage: &mut Stage<'_>) -> Self {
        let mut client = Self { shard, ..Self::new(index, conn, role, stage) };
        client.door = Door::of(stage.world.client_address(conn), index, stage.params);
        if client.role == Role::Poster && !client.door.forwarded.is_empty() {
            // Such a connection may carry requests of many clients: only WebSockets count.
            client.door.counts_as = None;
        }
        stage.coverage.proxied += u64::from(!client.door.preamble.is_empty() || !client.door.forwarded.is_empty());
        client.greet(stage);
        client
    }

    /// A client whose head the control plane has read, and whose socket a shard adopts.
    pub(crate) fn adopted(
        (index, shard): (usize, usize),
        conn: ClientId,
        role: Role,
        brings: Option<(Brings, Moment)>,
        stage: &mut Stage<'_>,
    ) -> Self {
        let mut client = Self { shard, ..Self::new(index, conn, role, stage) };
        if let Some((brings, began)) = brings {
            client.begin_standing(brings, began, stage);
        }
        client.open_stream(stage);
        client
    }

    /// Frames that came with the head, and were read with it.
    pub(crate) fn first_words(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        if self.eager {
            self.speak(stage);
        }
        self.wire.take_some(stage.model, stage.rng)
    }

    fn new(index: usize, conn: ClientId, role: Role, stage: &mut Stage<'_>) -> Self {
        let rng = &mut *stage.rng;
        let sluggish = rng.percent(stage.params.sluggish_percent);
        let reads = match rng.below(4) {
            _ if !sluggish => Pace::Fast,
            0 => Pace::Pieces(3),
            1 => Pace::Pieces(400),
            2 => Pace::Seldom(4000),
            _ => Pace::Never,
        };
        let writes = match rng.below(6) {
            0 => Pace::Pieces(1),
            1 => Pace::Pieces(60),
            2 => Pace::Seldom(2000),
            _ => Pace::Fast,
        };
        Self {
            index,
            wire: Wire::new(conn, reads, writes),
            role,
            phase: Phase::Head,
            parting: Parting::None,
            closed_with: None,
            unexplained: None,
            door: Door::default(),
            shard: 0,
            standing: None,
            judged_as: None,
            stream: None,
            answers_pings: !rng.one_in(6),
            polite: !rng.one_in(8),
            eager: rng.one_in(3),
            commands: BTreeMap::new(),
            next_command: 1,
            recovers: rng.one_in(2),
            filters: Vec::new(),
            requests: VecDeque::new(),
            answered: BTreeMap::new(),
            serving: calls::Serving::default(),
            visitor: present::Visitor::default(),
            leasing: holder::Leasing::default(),
            was_heard: false,
            decoder: events::Decoder::default(),
            told_to_go: false,
        }
    }

    /// One round of this client. Returns whether anything happened.
    pub(crate) fn act(&mut self, stage: &mut Stage<'_>) -> Result<bool, Violation> {
        if self.phase == Phase::Over {
            return Ok(false);
        }
        let came = self.wire.read(stage.world, stage.rng);
        if came > 0 {
            stage.trace.bytes(self.index, &self.wire.input[self.wire.input.len() - came..]);
            self.hear(stage)?;
        }
        self.watch_standing(came, stage)?;
        if let Some(end) = self.wire.end(stage.world) {
            stage.trace.event(self.index as u64, 1 + u64::from(end == ClientEnd::Reset));
            self.on_end(end, stage)?;
            return Ok(true);
        }
        if stage.busy {
            self.change_pace(stage);
            self.speak(stage);
            self.part(stage);
        } else {
            self.reply_to_all(stage);
        }
        if self.phase == Phase::Over {
            return Ok(true);
        }
        let went = self.wire.write(stage.world, stage.model, stage.rng);
        if self.parting == Parting::HalfClose && self.wire.waiting() == 0 && !self.wire.shut {
            self.wire.shut = true;
            stage.world.client_half_close(self.wire.id);
        }
        stage.trace.event(self.index as u64, 16 + went as u64);
        Ok(came > 0 || went > 0)
    }

    /// From now on it reads and writes at once, and answers.
    pub(crate) fn calm_down(&mut self) {
        self.wire.reads = Pace::Fast;
        self.wire.writes = Pace::Fast;
        self.answers_pings = true;
        self.polite = true;
    }

    /// Whether its subscriptions, or what it publishes, must get through.
    pub(crate) fn is_well(&self) -> bool {
        self.phase == Phase::Open && self.parting == Parting::None
    }

    /// Whether it may not have been accepted yet: the shard has no room for it, perhaps.
    pub(crate) fn may_be_waiting(&self) -> bool {
        self.phase == Phase::Head || (self.role == Role::Poster && !self.was_heard)
    }

    /// Its commands that wait for an answer.
    pub(crate) fn unanswered(&self) -> Option<String> {
        let command = self.commands.iter().next().map(|(id, command)| format!("command {id}, {command:?}"));
        let unanswered = command.or_else(|| self.requests.front().map(|request| format!("request {request:?}")))?;
        Some(format!("client {}: {unanswered}", self.index))
    }

    /// All that it has written is certain to count.
    pub(crate) fn accept_written(&self, model: &mut Model) {
        // A request may be refused: of those, answers say what counts.
        let certain = if self.role == Role::Poster { &[][..] } else { &self.wire.written };
        for &id in certain {
            model.accepted(id);
        }
    }

    /// The same when everything has come to rest: what was refused without an answer has ended its publisher.
    pub(crate) fn accept_all_written(&self, model: &mut Model) {
        self.accept_written(model);
        if matches!(self.role, Role::Publisher(_) | Role::Bus(_)) {
            for &id in &self.wire.written {
                model.not_refused(id);
            }
        }
    }

    fn change_pace(&mut self, stage: &mut Stage<'_>) {
        if stage.rng.below(100) < 1 && self.wire.reads != Pace::Fast {
            self.wire.reads = stage.rng.pick(&[Pace::Fast, Pace::Never, Pace::Pieces(2000)]);
        }
    }

    /// Whether its head asks for a WebSocket, in order.
    fn wants_upgrade(&self) -> bool {
        matches!(self.role, Role::Subscriber(_) | Role::Publisher(_) | Role::Bus(_) | Role::V1)
    }

    /// Its role for people.
    pub(crate) fn name(&self) -> String {
        format!("client {} ({:?})", self.index, self.role)
    }
}
