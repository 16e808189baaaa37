//! A small broker with Ringyard's raw endpoints that can be told to misbehave, and the load generator's binary run
//! against it. What waits does so for [`PATIENCE`] at most; a server ends with the test's process.

pub(crate) mod tls;
pub(crate) mod v1;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use loadgen::Outcome;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// No run here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the broker does wrong. Messages of a topic are counted from 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fault {
    None,
    /// Of each hundred messages, the last is not sent, sent twice, sent after its successor, damaged, or sent to all
    /// topics but its own.
    Drop,
    Double,
    Swap,
    Damage,
    Elsewhere,
    /// With message 20, the first subscriber is closed with 1011.
    CloseOne,
    /// With message 20, everything is closed without a word, and nobody listens for a moment.
    Restart,
    /// Who does not keep up is closed with 1013.
    Shed,
    /// The first so many upgrades are refused with 503, to be tried again after a second.
    Busy(u32),
    /// After so many upgrades, all others are refused with 503, to be tried again after a second.
    Full(u32),
    /// Upgrades of all, of every fifth, of publishers are refused with 403.
    Forbidden,
    ForbiddenFifth,
    ForbiddenPublishers,
    /// Upgrades are never answered.
    Silent,
    /// What is sent is no WebSocket frame from message 20 on.
    Nonsense,
}

/// What a subscriber's task is to do.
enum Order {
    Send(Bytes),
    Close(CloseCode),
    Nonsense,
}

#[derive(Default)]
struct Topic {
    subscribers: Vec<Subscriber>,
    /// Messages published.
    count: u64,
    /// Kept back, for [`Fault::Swap`].
    kept: Option<Bytes>,
}

struct Subscriber {
    orders: mpsc::UnboundedSender<Order>,
    /// Orders that were not carried out yet.
    behind: Arc<AtomicU32>,
}

struct Broker {
    fault: Fault,
    topics: Mutex<HashMap<String, Topic>>,
    upgrades: AtomicU32,
    restart: Notify,
}

/// Starts a broker on a thread of its own.
pub(crate) fn broker(fault: Fault) -> SocketAddr {
    let (report, reported) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut fault = fault;
        loop {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                if fault == Fault::Shed {
                    socket.set_send_buffer_size(32 << 10).unwrap();
                }
                socket.bind(address).unwrap();
                let listener = socket.listen(1024).unwrap();
                address = listener.local_addr().unwrap();
                report.send(address).unwrap_or_default();
                let broker = Arc::new(Broker {
                    fault,
                    topics: Mutex::default(),
                    upgrades: AtomicU32::new(0),
                    restart: Notify::new(),
                });
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            if let Ok((stream, _)) = accepted {
                                tokio::spawn(serve(stream, Arc::clone(&broker)));
                            }
                        }
                        () = broker.restart.notified() => break,
                    }
                }
            });
            drop(runtime);
            fault = Fault::None;
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    reported.recv_timeout(PATIENCE).unwrap()
}

async fn serve(stream: TcpStream, broker: Arc<Broker>) {
    if broker.fault == Fault::Silent {
        // Held until the peer has enough of it.
        let mut byte = [0];
        while stream.readable().await.is_ok() && !matches!(stream.try_read(&mut byte), Ok(0)) {}
        return;
    }
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().path().to_owned();
        let number = broker.upgrades.fetch_add(1, Ordering::Relaxed);
        let status = match broker.fault {
            Fault::Busy(first) if number < first => 503,
            Fault::Full(first) if number >= first => 503,
            Fault::Forbidden => 403,
            Fault::ForbiddenFifth if path.starts_with("/sub/") && number.is_multiple_of(5) => 403,
            Fault::ForbiddenPublishers if path.starts_with("/pub/") => 403,
            _ => return Ok(response),
        };
        let refusal = tokio_tungstenite::tungstenite::http::Response::builder().status(status);
        let refusal = if status == 503 { refusal.header("Retry-After", "1") } else { refusal };
        Err(refusal.body(None).unwrap())
    };
    let Ok(mut socket) = accept_hdr_async(stream, look).await else { return };
    let (role, topic) = path[1..].split_once('/').unwrap_or_default();
    let (subscribes, publishes) = (role != "pub", role != "sub");
    let (orders, mut inbox) = mpsc::unbounded_channel();
    let behind = Arc::new(AtomicU32::new(0));
    if subscribes {
        let subscriber = Subscriber { orders, behind: Arc::clone(&behind) };
        broker.topics.lock().unwrap().entry(topic.to_owned()).or_default().subscribers.push(subscriber);
        if socket.send(Message::Ping(Bytes::new())).await.is_err() {
            return;
        }
    }
    loop {
        tokio::select! {
            Some(order) = inbox.recv(), if subscribes => {
                // Frames that nobody reads pile up: then the peer is told why it is closed, as soon as it reads again.
                let overrun = broker.fault == Fault::Shed && behind.load(Ordering::Relaxed) > 20;
                let sent = match order {
                    _ if overrun => {
                        let frame = CloseFrame { code: CloseCode::Again, reason: "too slow".into() };
                        let _ = socket.close(Some(frame)).await;
                        return;
                    }
                    Order::Send(data) => socket.send(Message::Binary(data)).await,
                    Order::Close(code) => {
                        let _ = socket.close(Some(CloseFrame { code, reason: "".into() })).await;
                        return;
                    }
                    Order::Nonsense => {
                        use tokio::io::AsyncWriteExt;
                        let _ = socket.get_mut().write_all(&[0xff; 64]).await;
                        return;
                    }
                };
                behind.fetch_sub(1, Ordering::Relaxed);
                if sent.is_err() {
                    return;
                }
            }
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                if publishes && (message.is_text() || message.is_binary()) {
                    broker.publish(topic, message.into_data());
                }
            }
        }
    }
}

impl Broker {
    fn publish(&self, name: &str, data: Bytes) {
        let mut topics = self.topics.lock().unwrap();
        let topic = topics.entry(name.to_owned()).or_default();
        let number = topic.count;
        topic.count += 1;
        let hundredth = number % 100 == 99;
        match self.fault {
            Fault::Drop if hundredth => {}
            Fault::Double if hundredth => {
                topic.send(&data);
                topic.send(&data);
            }
            Fault::Swap if hundredth => topic.kept = Some(data),
            Fault::Damage if hundredth => {
                let mut bytes = data.to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                topic.send(&bytes.into());
            }
            Fault::Elsewhere if hundredth => {
                topics.iter_mut().filter(|(other, _)| *other != name).for_each(|(_, topic)| topic.send(&data));
            }
            Fault::CloseOne if number == 20 => {
                let _ = topic.subscribers[0].orders.send(Order::Close(CloseCode::Error));
                topic.send(&data);
            }
            // Messages behind it may be here already; they must not be sent before the restart takes place.
            Fault::Restart if number >= 20 => self.restart.notify_one(),
            Fault::Nonsense if number == 20 => topic.order(|| Order::Nonsense),
            _ => {
                topic.send(&data);
                if let Some(kept) = topic.kept.take() {
                    topic.send(&kept);
                }
            }
        }
    }
}

impl Topic {
    fn send(&mut self, data: &Bytes) {
        self.order(|| Order::Send(data.clone()));
    }

    fn order(&mut self, order: impl Fn() -> Order) {
        self.subscribers.retain(|subscriber| {
            subscriber.behind.fetch_add(1, Ordering::Relaxed);
            subscriber.orders.send(order()).is_ok()
        });
    }
}

// ---- the load generator

/// A file in a folder of its own, which is removed at the end.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl File {
    pub(crate) fn new(extension: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join(format!("file.{extension}")), _folder: folder }
    }

    pub(crate) fn with(extension: &str, text: &str) -> Self {
        let file = Self::new(extension);
        std::fs::write(&file.path, text).unwrap();
        file
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// A run under way.
pub(crate) struct Run {
    pub(crate) child: Child,
    /// What it writes, if it was told to.
    pub(crate) json: Option<File>,
}

/// What a run left behind.
pub(crate) struct Done {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Nothing when the run could not take place.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) json: Option<File>,
}

impl Done {
    #[track_caller]
    pub(crate) fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().unwrap_or_else(|| panic!("no outcome: {self}"))
    }

    /// Everything went well.
    #[track_caller]
    pub(crate) fn is_good(&self) -> &Outcome {
        let outcome = self.outcome();
        assert!(outcome.good() && self.status == Some(0), "{:?} {self}", outcome.errors);
        assert!(!self.stdout.contains("FAILED"), "{self}");
        outcome
    }

    /// The run took place, and something was wrong.
    #[track_caller]
    pub(crate) fn is_failed(&self) -> &Outcome {
        let outcome = self.outcome();
        assert!(!outcome.good() && self.status == Some(1), "{:?} {self}", outcome.errors);
        assert!(self.stdout.contains("FAILED"), "{self}");
        outcome
    }

    /// A signal ended the run; nothing had gone wrong.
    #[track_caller]
    pub(crate) fn is_interrupted(&self) -> &Outcome {
        let outcome = self.outcome();
        assert!(outcome.good() && outcome.interrupted && self.status == Some(130), "{self}");
        assert!(self.stdout.contains("\nINTERRUPTED") && !self.stdout.contains("\nvalid"), "{self}");
        outcome
    }

    /// The same of a run whose output nobody read.
    #[track_caller]
    pub(crate) fn is_good_silently(&self) {
        assert!(self.outcome().good() && self.status == Some(0), "{self}");
    }

    /// The run could not take place, and said so.
    #[track_caller]
    pub(crate) fn is_refused(&self, sentence: &str) {
        assert!(self.status == Some(2) && self.outcome.is_none(), "{self}");
        assert!(self.stderr.contains(sentence), "{sentence:?} is not in {self}");
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {:?}\n{}\n{}", self.status, self.stdout, self.stderr)
    }
}

/// The binary, with what all runs here have in common.
pub(crate) fn command(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard-loadgen"));
    command.args(["--url", url, "--clients", "20", "--warmup", "0.1", "--duration", "0.5", "--quiet"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn start(mut command: Command, arguments: &str) -> Run {
    let json = File::new("json");
    command.args(["--json", json.path()]);
    Run { json: Some(json), ..start_without_json(command, arguments) }
}

pub(crate) fn start_without_json(mut command: Command, arguments: &str) -> Run {
    Run { child: command.args(arguments.split_whitespace()).spawn().unwrap(), json: None }
}

impl Run {
    pub(crate) fn wait(mut self) -> Done {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                let Output { stdout, stderr, .. } = self.child.wait_with_output().unwrap();
                let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
                panic!("the run does not end: {stdout}\n{stderr}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let Output { status, stdout, stderr } = self.child.wait_with_output().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let text = self.json.as_ref().and_then(|json| std::fs::read_to_string(&json.path).ok()).unwrap_or_default();
        let outcome = (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap());
        Done { status: status.code(), stdout, stderr, outcome, json: self.json }
    }
}

/// Does it with each, some at a time: most of a run is waiting.
pub(crate) fn with_each<T: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let mut items: Vec<_> = items.into_iter().collect();
    while !items.is_empty() {
        let some = items.split_off(items.len().saturating_sub(4));
        std::thread::scope(|scope| some.into_iter().for_each(|item| drop(scope.spawn(|| work(item)))));
    }
}

/// One run against a broker.
pub(crate) fn run(address: SocketAddr, arguments: &str) -> Done {
    start(command(&format!("ws://{address}")), arguments).wait()
}
