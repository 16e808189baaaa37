//! The ways a client leaves, and how its connection ends.

use protocol::frame::Opcode;
use ring::sim::ClientEnd;

use super::{Client, Parting, Phase, Role, Stage};
use crate::model::Violation;
use crate::params::Params;

/// A connection ended, and not by the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unexplained {
    /// Before its head was answered.
    pub(crate) greeting: bool,
}

impl Client {
    /// Leaves, now and then: fair or foul, at any byte.
    pub(super) fn part(&mut self, stage: &mut Stage<'_>) {
        if self.parting != Parting::None {
            return;
        }
        if stage.rng.below(10_000) < stage.params.churn {
            match stage.rng.below(4) {
                0 => self.reset(stage),
                1 => self.go(stage),
                2 if self.phase == Phase::Open => self.say_goodbye(stage),
                _ if self.phase == Phase::Open => self.parting = Parting::HalfClose,
                _ => {}
            }
        } else if self.phase == Phase::Open
            && self.role != Role::Poster
            && !self.is_listening()
            && stage.rng.below(10_000) < stage.params.hostile_percent * 3
        {
            self.violate(stage);
        }
    }

    /// Breaks the connection.
    pub(crate) fn reset(&mut self, stage: &mut Stage<'_>) {
        stage.coverage.resets += 1;
        stage.world.client_reset(self.wire.id);
        self.over(stage);
    }

    /// Closes its socket without a word.
    pub(crate) fn go(&mut self, stage: &mut Stage<'_>) {
        stage.world.client_close(self.wire.id);
        self.over(stage);
    }

    /// Sends a close frame and waits for the answer.
    pub(crate) fn say_goodbye(&mut self, stage: &mut Stage<'_>) {
        if self.role == Role::Poster || self.is_listening() {
            self.go(stage);
            return;
        }
        // A tab that is closed says 1001.
        let is_tab = self.role == Role::V1 && stage.params.presence.is_some();
        let leaves = is_tab && self.index.is_multiple_of(2);
        let code = if leaves { 1001 } else { 4000 + (self.index % 900) as u16 };
        self.wire.put_frame(Opcode::Close, &code.to_be_bytes(), stage.rng);
        self.wire.shut = true;
        self.parting = Parting::Close(code);
        self.end_stream(stage);
    }

    fn over(&mut self, stage: &mut Stage<'_>) {
        self.phase = Phase::Over;
        if self.parting == Parting::None {
            self.parting = Parting::Gone;
        }
        self.wire.discard();
        self.end_stream(stage);
    }

    pub(super) fn end_stream(&self, stage: &mut Stage<'_>) {
        if let Some(stream) = self.stream {
            stage.model.ended(stream);
        }
    }

    fn violate(&mut self, stage: &mut Stage<'_>) {
        let rng = &mut *stage.rng;
        let code = match rng.below(9) {
            0 => {
                self.wire.put(&[0x81, 2, b'h', b'i']);
                1002
            }
            1 => {
                self.wire.put(&[0xc1, 0x80, 1, 2, 3, 4]);
                1002
            }
            2 => {
                self.wire.put(&[0x83, 0x80, 1, 2, 3, 4]);
                1002
            }
            3 => {
                self.wire.put(&[0x80, 0x80, 1, 2, 3, 4]);
                1002
            }
            // A subscription refuses data of any kind, as soon as it comes.
            4 if !matches!(self.role, Role::Subscriber(_)) => {
                self.wire.put_frame(Opcode::Text, b"ab\xff\xfe", rng);
                1007
            }
            5 => {
                self.wire.put(&[0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 1, 2, 3, 4]);
                1009
            }
            6 => {
                self.wire.put_frame(Opcode::Close, &[3], rng);
                1002
            }
            7 => {
                self.wire.put_frame(Opcode::Close, &1005_u16.to_be_bytes(), rng);
                1002
            }
            _ => match self.role {
                Role::V1 => {
                    self.wire.put_frame(Opcode::Binary, b"binary", rng);
                    1003
                }
                Role::Subscriber(_) => {
                    self.wire.put_frame(Opcode::Text, b"data", rng);
                    1008
                }
                _ => return,
            },
        };
        // Whatever comes behind is not to be read.
        if rng.one_in(2) {
            self.wire.put(&[0x82, 0x81, 1, 2, 3, 4, 5]);
        }
        self.parting = Parting::Violation(code);
        self.wire.shut = true;
        self.end_stream(stage);
    }

    /// The broker's close frame.
    pub(super) fn hear_close(&mut self, payload: &[u8], stage: &mut Stage<'_>) -> Result<(), Violation> {
        let code = payload.first_chunk().map_or(1005, |&code| u16::from_be_bytes(code));
        let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
        stage.trace.say(|| format!("{} was closed with {code}: {reason}", self.name()));
        let due = match self.parting {
            Parting::Violation(due) | Parting::Close(due) => Some(due),
            _ => None,
        };
        let of_access = self.hear_access_closed(code, stage)?;
        match code {
            _ if of_access => {}
            1001 if due == Some(1001) && !self.told_to_go => self.accept_written(stage.model),
            4409 if stage.model.presence.may_be_taken(self.index) => {
                stage.coverage.close_4409 += 1;
                stage.model.wills.taken(self.index);
            }
            1001 if self.role == Role::V1 && !self.told_to_go => {
                return Err(Violation::new(
                    "a client is asked to come back before it is closed with 1001",
                    self.name(),
                ));
            }
            1001 => {
                stage.coverage.close_1001 += 1;
                if self.told_to_go && self.parting == Parting::None {
                    stage.coverage.wills_drained += stage.model.wills.drained(self.index);
                }
            }
            1013 => stage.coverage.close_1013 += 1,
            1008 if reason.starts_with("limit: ") || reason.starts_with("not-holder: ") => self.hear_refusal(stage)?,
            // A message that was long under way: because its client was slow, or the shard, or the clock leapt.
            1008 if due != Some(1008) => {
                let timeout = stage.params.limits.message_timeout.as_nanos() as u64;
                let waited = self.wire.waited_max(stage.world.now());
                let Params { leap, stall, buffers, faults, .. } = stage.params;
                let steady = *leap == 0 && *stall == 0 && *buffers > 8 && faults.no_buffers.0 == 0;
                if waited < timeout / 4 && steady {
                    let evidence = format!("{} was closed with 1008, its writes took {waited} ns", self.name());
                    return Err(Violation::new("a message has the time that it may take", evidence));
                }
                stage.coverage.message_timeouts += 1;
            }
            _ if Some(code) == due => {
                if matches!(self.parting, Parting::Close(_)) {
                    stage.coverage.close_handshakes += 1;
                    self.accept_written(stage.model);
                } else {
                    stage.coverage.violations += 1;
                }
            }
            _ => {
                let evidence = format!("{} was closed with {code}, due was {due:?}", self.name());
                return Err(Violation::new("a close names its cause", evidence));
            }
        }
        self.closed_with = Some(code);
        self.phase = Phase::Ending;
        if code != 1001 {
            self.end_stream(stage);
        } else if let Some(stream) = self.stream {
            stage.model.told_to_go(stream);
        }
        let whole = self.wire.waiting() == 0;
        let answers = self.polite && whole && !self.is_listening();
        if matches!(self.parting, Parting::None | Parting::Close(1000)) && answers {
            self.wire.put_frame(Opcode::Close, &code.to_be_bytes(), stage.rng);
        }
        if self.parting == Parting::None {
            self.parting = Parting::Gone;
        }
        self.wire.shut = true;
        if !self.polite && stage.rng.one_in(2) {
            self.go(stage);
        }
        Ok(())
    }

    /// A message was refused, and its publisher has no commands that could be answered.
    fn hear_refusal(&self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        if let Role::Publisher(topic) | Role::Bus(topic) = self.role
            && stage.model.rule(topic).may_refuse()
        {
            stage.coverage.raw_refused += 1;
            return Ok(());
        }
        Err(Violation::new("a message is refused where state is bounded", self.name()))
    }

    /// Nothing more will come.
    pub(super) fn on_end(&mut self, end: ClientEnd, stage: &mut Stage<'_>) -> Result<(), Violation> {
        stage.trace.say(|| format!("{} met its end: {end:?} in {:?}, {:?}", self.name(), self.phase, self.parting));
        stage.coverage.resets += u64::from(end == ClientEnd::Reset);
        // Without a close frame, or the answer to its head or its parting: something else came first. A close
        // frame that finds no way out in time, because the clock leapt, is one of those, and not counted again.
        let parted = matches!(self.parting, Parting::Violation(_) | Parting::Close(_)) && stage.params.leap > 0;
        let open = self.phase == Phase::Open && self.parting != Parting::HalfClose && !parted;
        if self.role == Role::Poster {
            // Between two requests it may be closed; a shutdown may come before an answer.
            if open && !self.requests.is_empty() {
                self.unexplained = Some(Unexplained { greeting: true });
            }
        } else if self.phase == Phase::Head || open {
            self.unexplained = Some(Unexplained { greeting: self.phase == Phase::Head });
        }
        if self.closed_with == Some(1001) {
            self.phase = Phase::Over;
            stage.world.client_close(self.wire.id);
            self.wire.discard();
            return Ok(());
        }
        self.go(stage);
        Ok(())
    }
}
