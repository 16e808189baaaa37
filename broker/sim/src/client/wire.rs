//! A client's end of one connection: bytes out at its pace, frames in, and how it ended.

use protocol::frame::{Opcode, put_client_fragment, put_client_frame};
use ring::Random;
use ring::sim::{ClientEnd, ClientId, World};

use crate::model::{MessageId, Model};

/// How fast a client moves bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    /// All there is.
    Fast,
    /// So many at a time, at most.
    Pieces(usize),
    /// So many, every now and then.
    Seldom(usize),
    /// Nothing.
    Never,
}

impl Pace {
    fn bytes(self, rng: &mut Random) -> usize {
        match self {
            Self::Fast => usize::MAX,
            Self::Pieces(max) => rng.range(1, max),
            Self::Seldom(max) => {
                if rng.one_in(8) {
                    max
                } else {
                    0
                }
            }
            Self::Never => 0,
        }
    }
}

/// One whole frame from the broker.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) id: ClientId,
    pub(crate) reads: Pace,
    pub(crate) writes: Pace,
    out: Vec<u8>,
    /// Where in the stream `out` begins.
    out_from: u64,
    /// Messages on their way, by the stream positions of their first byte and their end.
    marks: Vec<(u64, u64, MessageId)>,
    /// Messages whose first byte went out.
    begun: usize,
    /// Messages that went out whole.
    pub(crate) written: Vec<MessageId>,
    pub(crate) input: Vec<u8>,
    /// Nothing more is written.
    pub(crate) shut: bool,
    /// Since when something has been waiting to be written.
    waits_since: Option<u64>,
    /// The longest that something waited, in nanoseconds.
    waited_max: u64,
}

impl Wire {
    pub(crate) fn new(id: ClientId, reads: Pace, writes: Pace) -> Self {
        Self {
            id,
            reads,
            writes,
            out: Vec::new(),
            out_from: 0,
            marks: Vec::new(),
            begun: 0,
            written: Vec::new(),
            input: Vec::new(),
            shut: false,
            waits_since: None,
            waited_max: 0,
        }
    }

    // ---- out

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if !self.shut {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Bytes that publish a message, if `id` names one.
    pub(crate) fn put_marked(&mut self, bytes: &[u8], id: Option<MessageId>) {
        let from = self.out_from + self.out.len() as u64;
        self.put(bytes);
        if let Some(id) = id
            && !self.shut
        {
            self.marks.push((from, self.out_from + self.out.len() as u64, id));
        }
    }

    pub(crate) fn put_frame(&mut self, opcode: Opcode, payload: &[u8], rng: &mut Random) {
        let mask = (rng.draw() as u32).to_le_bytes();
        if !self.shut {
            put_client_frame(&mut self.out, opcode, payload, mask);
        }
    }

    /// A data message, sometimes in fragments with a ping between them. `id`: what it publishes.
    pub(crate) fn put_message(&mut self, text: bool, payload: &[u8], id: Option<MessageId>, rng: &mut Random) {
        if self.shut {
            return;
        }
        let from = self.out_from + self.out.len() as u64;
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        if rng.one_in(6) {
            let mut rest = payload;
            let mut opcode = opcode;
            while rng.one_in(2) || rest.len() > 100 << 10 {
                let (part, behind) = rest.split_at(rng.below(rest.len() + 1));
                let mask = (rng.draw() as u32).to_le_bytes();
                put_client_fragment(&mut self.out, false, opcode, part, mask);
                (rest, opcode) = (behind, Opcode::Continuation);
                if rng.one_in(3) {
                    self.put_frame(Opcode::Ping, b"between", rng);
                }
            }
            put_client_fragment(&mut self.out, true, opcode, rest, (rng.draw() as u32).to_le_bytes());
        } else {
            self.put_frame(opcode, payload, rng);
        }
        if let Some(id) = id {
            self.marks.push((from, self.out_from + self.out.len() as u64, id));
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.out.len()
    }

    /// The longest that something has waited to be written, in nanoseconds: no message took longer.
    pub(crate) fn waited_max(&self, now: u64) -> u64 {
        self.waits_since.map_or(0, |since| now - since).max(self.waited_max)
    }

    /// Writes what its pace and the socket allow.
    pub(crate) fn write(&mut self, world: &World, model: &mut Model, rng: &mut Random) -> usize {
        let taken = self.write_some(world, model, rng);
        self.waited_max = self.waited_max(world.now());
        self.waits_since = if self.out.is_empty() { None } else { self.waits_since.or(Some(world.now())) };
        taken
    }

    fn write_some(&mut self, world: &World, model: &mut Model, rng: &mut Random) -> usize {
        let max = if self.out.is_empty() { 0 } else { self.writes.bytes(rng).min(self.out.len()) };
        if max == 0 {
            return 0;
        }
        let taken = world.client_write(self.id, &self.out[..max]);
        self.went(taken, model);
        taken
    }

    /// Takes some of what waits, as if it had been written.
    pub(crate) fn take_some(&mut self, model: &mut Model, rng: &mut Random) -> Vec<u8> {
        let some = self.out[..rng.below(self.out.len() + 1)].to_vec();
        self.went(some.len(), model);
        some
    }

    /// The first `taken` bytes are on their way.
    fn went(&mut self, taken: usize, model: &mut Model) {
        self.out.drain(..taken);
        self.out_from += taken as u64;
        while let Some(&(from, _, id)) = self.marks.get(self.begun) {
            if from >= self.out_from {
                break;
            }
            model.written(id);
            self.begun += 1;
        }
        while let Some(&(_, end, id)) = self.marks.get(self.written.len()) {
            if end > self.out_from {
                break;
            }
            self.written.push(id);
        }
    }

    /// Every message that it was to publish.
    pub(crate) fn messages(&self) -> impl Iterator<Item = MessageId> {
        self.marks.iter().map(|&(_, _, id)| id)
    }

    /// Gives up what was not written.
    pub(crate) fn discard(&mut self) {
        self.out.clear();
        self.shut = true;
    }

    // ---- in

    /// Reads what its pace allows; says how many bytes came.
    pub(crate) fn read(&mut self, world: &World, rng: &mut Random) -> usize {
        let max = self.reads.bytes(rng);
        let came = if max == 0 { Vec::new() } else { world.client_read(self.id, max) };
        self.input.extend_from_slice(&came);
        came.len()
    }

    /// The next whole frame. `Err`: the broker broke RFC 6455.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, String> {
        let Some((header_len, len)) = header(&self.input)? else { return Ok(None) };
        if self.input.len() < header_len + len {
            return Ok(None);
        }
        let opcode = Opcode::from_bits(self.input[0]).ok_or("a reserved opcode")?;
        let mut payload: Vec<u8> = self.input.drain(..header_len + len).collect();
        payload.drain(..header_len);
        Ok(Some(Frame { opcode, payload }))
    }

    pub(crate) fn end(&self, world: &World) -> Option<ClientEnd> {
        if self.reads == Pace::Never { None } else { world.client_end(self.id) }
    }
}

/// Length of a frame's header and of its payload. The broker sends whole, unmasked frames only.
fn header(input: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let [first, second, rest @ ..] = input else { return Ok(None) };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame begins with {first:02x} {second:02x}"));
    }
    Ok(match second & 0x7f {
        126 => rest.first_chunk().map(|&len| (4, usize::from(u16::from_be_bytes(len)))),
        127 => rest.first_chunk().map(|&len| (10, u64::from_be_bytes(len) as usize)),
        len => Some((2, usize::from(len))),
    })
}
