//! What the broker says while it runs: one line per event on standard error, for people or as JSON.
//!
//! Nobody who logs ever waits: lines go through a bounded queue to a thread that writes them. Standard error may be a
//! pipe that nobody reads, a full disk or closed; then lines are dropped and counted, and the count is logged as soon
//! as lines can be written again. Shards do not log at all: they count.
//!
//! Bound: `LINES_MAX` lines wait. [`finish`] writes what waits before the process ends, within `FLUSH_TIMEOUT`.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::level_filters::LevelFilter;
use tracing::warn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Lines that wait to be written. A storm of events is one line per cause and second, so this is minutes of them.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits for lines that wait.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts at a standard error that is full and does not block.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

static QUEUE: OnceLock<Queue> = OnceLock::new();
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// From now on events are written, as `log` says. To be called once.
///
/// # Errors
/// A sentence: the thread that writes cannot start.
pub fn start(log: Log) -> Result<(), String> {
    let (queue, waiting) = Queue::new(LINES_MAX);
    let queue = QUEUE.get_or_init(|| queue);
    let write = move || {
        queue.write(waiting, &mut io::stderr(), |lost| warn!(lost, "lines of the log could not be written in time"));
    };
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(write)
        .map_err(|error| format!("the thread of the log cannot start ({error}): allow more threads"))?;
    let (filter, level) = reload::Layer::new(filter(log.level));
    let _ = LEVEL.set(level);
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(move || queue)
        // It would complain of a closed standard error on standard error, and panic.
        .log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(())
}

/// From now on what matters less than `level` is not logged.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // It fails only when the log is gone.
        let _ = handle.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// Waits until what was logged so far is written, or for [`FLUSH_TIMEOUT`]. Before [`start`] there is nothing.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// The way of a line to the thread that writes it.
#[derive(Debug)]
struct Queue {
    entries: Sender<Entry>,
    /// Lines dropped since that was logged.
    lost: AtomicU64,
}

#[derive(Debug)]
enum Entry {
    /// With its line feed.
    Line(Box<[u8]>),
    /// Whoever sent it is waiting for everything before it.
    Flush(Sender<()>),
}

impl Queue {
    fn new(lines_max: usize) -> (Self, Receiver<Entry>) {
        let (entries, waiting) = bounded(lines_max);
        (Self { entries, lost: AtomicU64::new(0) }, waiting)
    }

    /// Takes a line, or counts it. Never waits.
    fn put(&self, line: &[u8]) {
        if self.entries.try_send(Entry::Line(line.into())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (done, written) = bounded(1);
        if self.entries.send_deadline(Entry::Flush(done), deadline).is_ok() {
            let _ = written.recv_deadline(deadline);
        }
    }

    /// Writes what comes for as long as the process lives. `report` logs how many lines were lost, when one was
    /// written again and there is room.
    fn write(&self, waiting: impl IntoIterator<Item = Entry>, out: &mut impl Write, report: impl Fn(u64)) {
        // A line of which only a part was written.
        let mut is_torn = false;
        for entry in waiting {
            let line = match entry {
                Entry::Line(line) => line,
                Entry::Flush(done) => {
                    let _ = done.try_send(());
                    continue;
                }
            };
            let mended = if is_torn { write_whole(out, b"\n") } else { Ok(()) };
            match mended.and_then(|()| write_whole(out, &line)) {
                Ok(()) => {
                    is_torn = false;
                    if self.lost.load(Ordering::Relaxed) > 0 && !self.entries.is_full() {
                        report(self.lost.swap(0, Ordering::Relaxed));
                    }
                }
                Err(written) => {
                    is_torn |= written > 0;
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Writes all of `bytes`, or says how many were written before an error.
fn write_whole(out: &mut impl Write, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another program made the pipe or terminal that is shared with it non-blocking. This thread may wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

/// The formatter writes each event as a whole, with one call.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes what its script says, a step per write: so many bytes, or an error.
    struct Scripted<'a> {
        steps: std::vec::IntoIter<Result<usize, io::ErrorKind>>,
        written: &'a Mutex<Vec<u8>>,
    }

    impl Write for Scripted<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = self.steps.next().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of these lines, and what was reported as lost.
    fn written(lines: &[&str], steps: Vec<Result<usize, io::ErrorKind>>) -> (String, Vec<u64>) {
        let (queue, waiting) = Queue::new(lines.len().max(1));
        lines.iter().for_each(|line| queue.put(line.as_bytes()));
        let (kept, reported) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let mut out = Scripted { steps: steps.into_iter(), written: &kept };
        queue.write(waiting.try_iter(), &mut out, |lost| reported.lock().unwrap().push(lost));
        (String::from_utf8(kept.into_inner().unwrap()).unwrap(), reported.into_inner().unwrap())
    }

    #[test]
    fn lines_are_written_in_order_and_whole() {
        use io::ErrorKind::{Interrupted, WouldBlock};
        assert_eq!(written(&["a\n", "b\n"], vec![]), ("a\nb\n".to_owned(), vec![]));
        let steps = vec![Ok(1), Err(Interrupted), Err(WouldBlock), Ok(1)];
        assert_eq!(written(&["ab\n", "c\n"], steps), ("ab\nc\n".to_owned(), vec![]));
    }

    #[test]
    fn what_a_full_disk_refuses_is_counted_and_reported_when_there_is_room() {
        use io::ErrorKind::{BrokenPipe, StorageFull};
        let steps = vec![Err(StorageFull), Err(BrokenPipe)];
        assert_eq!(written(&["a\n", "b\n", "c\n", "d\n"], steps), ("c\nd\n".to_owned(), vec![2]));
        // Of the first line a part is there: the next begins on a line of its own.
        assert_eq!(written(&["abc\n", "d\n"], vec![Ok(2), Err(StorageFull)]), ("ab\nd\n".to_owned(), vec![1]));
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (queue, waiting) = Queue::new(2);
        for line in 0..5 {
            queue.put(format!("{line}\n").as_bytes());
        }
        assert_eq!(queue.lost.load(Ordering::Relaxed), 3);
        let begun = Instant::now();
        queue.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(waiting.len(), 2);
    }

    #[test]
    fn a_flush_waits_for_what_was_logged_before_it() {
        let (queue, waiting) = Queue::new(8);
        let queue: &'static Queue = Box::leak(Box::new(queue));
        let kept: &'static Mutex<Vec<u8>> = Box::leak(Box::default());
        thread::spawn(move || {
            let steps = vec![Err(io::ErrorKind::WouldBlock); 3].into_iter();
            queue.write(waiting, &mut Scripted { steps, written: kept }, |_| {});
        });
        queue.put(b"last\n");
        queue.flush(Duration::from_secs(20));
        assert_eq!(kept.lock().unwrap().as_slice(), b"last\n");
    }
}
