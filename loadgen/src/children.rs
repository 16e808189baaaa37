//! Further processes, for more connections than one may open: each holds its share and receives.
//!
//! The parent writes lines (`begin`, `end`, `finish N`), the child answers `connected` and, at last, its
//! [`Part`] as JSON. A child whose parent is gone reads the end of its input and ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};
use mio::Waker;
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::receive::latencies;
use crate::report::Errors;
use crate::session::{Part, Session};
use crate::target::Target;

/// The parent's side.
pub(crate) struct Children(Vec<(Child, BufReader<ChildStdout>)>);

/// A [`Part`] on its way between processes.
#[derive(Serialize, Deserialize)]
struct WirePart {
    seconds: f64,
    delivered: u64,
    reads: u64,
    pings: u64,
    cpu_share: f64,
    errors: Errors,
    /// Nanoseconds and how often.
    latencies: Vec<(u64, u64)>,
}

impl Children {
    /// Starts as many as the options ask for: none when one process is enough.
    pub(crate) fn start(options: &Options) -> Result<Self> {
        let mut children = Self(Vec::new());
        if options.processes == 1 {
            return Ok(children);
        }
        for index in 0..options.processes {
            let mut child = Command::new(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .args(["--child", &index.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting a further process")?;
            let answers = BufReader::new(child.stdout.take().expect("piped"));
            children.0.push((child, answers));
        }
        Ok(children)
    }

    pub(crate) fn await_connected(&mut self) -> Result<()> {
        for (_, answers) in &mut self.0 {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            if line.trim() != "connected" {
                bail!("a further process could not open its connections");
            }
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        for (child, _) in &mut self.0 {
            writeln!(child.stdin.as_mut().expect("piped"), "{line}").context("a further process is gone")?;
        }
        Ok(())
    }

    pub(crate) fn results(mut self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for (child, answers) in &mut self.0 {
            let mut line = String::new();
            answers.read_line(&mut line)?;
            let part: WirePart = serde_json::from_str(&line).context("a further process ended without a result")?;
            child.wait()?;
            parts.push(part.into());
        }
        Ok(parts)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            // Ended children are already reaped; the others must not outlive the run.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The child's side: process number `index`.
pub(crate) fn serve(options: &Options, index: usize) -> Result<()> {
    let target = Target::parse(&options.url)?;
    let mut session = Session::open(options, &target, options.clients_of(index), index)?;
    let waker = Waker::new(session.poll.registry(), session.waker_token())?;
    let (sender, commands) = mpsc::channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() || waker.wake().is_err() {
                return;
            }
        }
        drop(sender);
        drop(waker.wake());
    });
    println!("connected");
    loop {
        match commands.try_recv().as_deref() {
            Ok("begin") => session.begin(),
            Ok("end") => session.end(),
            Ok(finish) => {
                let published = finish.strip_prefix("finish ").context("an unknown command")?.parse()?;
                let part = session.finish(published, options.drain_timeout)?;
                println!("{}", serde_json::to_string(&WirePart::from(part))?);
                return Ok(());
            }
            Err(mpsc::TryRecvError::Disconnected) => bail!("the first process is gone"),
            Err(mpsc::TryRecvError::Empty) => session.turn(options.duration)?,
        }
    }
}

impl From<Part> for WirePart {
    fn from(part: Part) -> Self {
        let Part { seconds, delivered, reads, pings, cpu_share, errors, latencies } = part;
        let latencies =
            latencies.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        Self { seconds, delivered, reads, pings, cpu_share, errors, latencies }
    }
}

impl From<WirePart> for Part {
    fn from(part: WirePart) -> Self {
        let mut histogram = latencies();
        part.latencies.iter().for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
        let WirePart { seconds, delivered, reads, pings, cpu_share, errors, .. } = part;
        Self { seconds, delivered, reads, pings, cpu_share, errors, latencies: histogram }
    }
}
