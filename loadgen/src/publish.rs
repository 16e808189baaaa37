//! The publisher: one connection, one pacing, one write per burst.
//!
//! Not responsible for receiving. A message's time is when it was handed to the socket, in an open loop when
//! it was due: a publisher that falls behind hides no waiting.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail};
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::now_ns;
use crate::options::{Options, Pace};
use crate::payload::{Filler, Stamp};
use crate::receive::Connection;

/// Messages per write of a publisher without pacing.
const MAX_BATCH: u64 = 64;
/// Bytes of unsent bursts after which an open loop waits for the socket; their due times stay.
const UNSENT_MAX: usize = 1 << 20;
/// Any key will do, as long as the server has to unmask (RFC 6455, section 5.3).
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x9e];

/// Publishes numbered messages.
pub(crate) struct Publisher {
    pub(crate) connection: Connection,
    pace: Pace,
    burst: u64,
    filler: Filler,
    /// Messages published so far.
    pub(crate) published: u64,
    /// When the next burst of an open loop is due.
    due_ns: u64,
    /// Nanoseconds between bursts of an open loop.
    interval_ns: f64,
    bursts: u64,
    begun_ns: u64,
    timer: OwnedFd,
    unsent: Vec<u8>,
    payload: Vec<u8>,
}

impl Publisher {
    pub(crate) fn new(connection: Connection, options: &Options, poll: &Poll, timer_token: Token) -> Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), timer_token, Interest::READABLE)?;
        let interval_ns = match options.pace() {
            Pace::Open { per_second } => 1e9 * f64::from(options.burst) / per_second,
            _ => 0.0,
        };
        let now = now_ns();
        Ok(Self {
            connection,
            pace: options.pace(),
            burst: u64::from(options.burst),
            filler: Filler::new(options.payload),
            published: 0,
            due_ns: now,
            interval_ns,
            bursts: 0,
            begun_ns: now,
            timer,
            unsent: Vec::new(),
            payload: Vec::new(),
        })
    }

    /// Publishes what is due, given how many messages everybody has. True: there is more, call again soon.
    pub(crate) fn pump(&mut self, completed: u64) -> Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        match self.pace {
            Pace::Closed { bursts } => {
                while self.published + self.burst <= completed + u64::from(bursts) * self.burst {
                    self.put_burst(self.burst, now_ns());
                }
                self.flush()?;
                Ok(false)
            }
            Pace::Open { .. } => {
                let now = now_ns();
                while self.due_ns <= now && self.unsent.len() < UNSENT_MAX {
                    self.put_burst(self.burst, self.due_ns);
                    self.bursts += 1;
                    self.due_ns = self.begun_ns + (self.bursts as f64 * self.interval_ns) as u64;
                }
                if self.flush()? {
                    self.set_timer()?;
                }
                Ok(false)
            }
            Pace::Max => {
                self.put_burst(self.burst.max(MAX_BATCH), now_ns());
                self.flush()
            }
        }
    }

    /// Asks for an event when the next burst is due.
    fn set_timer(&self) -> Result<()> {
        let time =
            Timespec { tv_sec: (self.due_ns / 1_000_000_000) as i64, tv_nsec: (self.due_ns % 1_000_000_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: time };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    fn put_burst(&mut self, messages: u64, sent_ns: u64) {
        for _ in 0..messages {
            self.payload.clear();
            self.filler.write(Stamp { seq: self.published, sent_ns }, &mut self.payload);
            put_masked_frame(&self.payload, &mut self.unsent);
            self.published += 1;
        }
    }

    /// Writes what waits. True when nothing waits any more.
    pub(crate) fn flush(&mut self) -> Result<bool> {
        let mut sent = 0;
        let taken_all = loop {
            if sent == self.unsent.len() {
                break true;
            }
            match self.connection.stream.write(&self.unsent[sent..]) {
                Ok(0) => bail!("the publisher's connection takes no bytes"),
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => bail!("the publisher's connection broke: {error}"),
            }
        };
        self.unsent.drain(..sent);
        Ok(taken_all)
    }
}

/// Appends a binary frame as a client sends it (RFC 6455, sections 5.2 and 5.3).
fn put_masked_frame(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x82);
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}
