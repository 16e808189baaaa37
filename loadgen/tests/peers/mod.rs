//! Servers of other projects, each started for one test on ports of its own; and a blocking client that uses an adapter.
//!
//! A server that is not installed is skipped, with a line on stderr; `RINGYARD_PEERS=required` in the environment makes
//! that a failure. Nothing waits longer than [`PATIENCE`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use loadgen::adapter::{Adapter, Duty, Inbound, Refused, Visit};
use loadgen::client::{self, upgrade_request};
use loadgen::stamp::Stamp;
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio_tungstenite::accept_async;

/// No server here needs a second for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where Debian puts the programs and modules.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A program in its own process group, with a folder for its files.
pub(crate) struct Server {
    child: Child,
    directory: TempDir,
    pub(crate) url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // nginx ends its workers when it is asked to; killed at once it would leave them behind.
            let _ = rustix::process::kill_process(group, rustix::process::Signal::TERM);
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(3) && matches!(self.child.try_wait(), Ok(None)) {
                sleep(Duration::from_millis(5));
            }
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a program with a configuration that is written for the ports it gets, until the first of them answers.
    fn start(
        program: &Path,
        arguments: impl Fn(&Path) -> Vec<String>,
        configuration: impl Fn(&Path, [u16; 2]) -> String,
    ) -> Self {
        let name = program.file_name().unwrap().to_str().unwrap();
        for attempt in 0..3 {
            let [first, second] = free_ports();
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("configuration");
            std::fs::write(&file, configuration(directory.path(), [first, second])).unwrap();
            let child = Command::new(program)
                .args(arguments(&file))
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(directory.path().join("stderr")).unwrap())
                .spawn()
                .unwrap();
            let mut server = Self { child, directory, url: format!("ws://127.0.0.1:{first}") };
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE {
                let answers = speaks_http(SocketAddr::from(([127, 0, 0, 1], first)));
                if server.child.try_wait().unwrap().is_some() {
                    break;
                }
                if answers {
                    return server;
                }
                sleep(Duration::from_millis(10));
            }
            // Somebody else may have taken the port meanwhile.
            let said = std::fs::read_to_string(server.directory.path().join("stderr")).unwrap_or_default();
            assert!(attempt < 2, "{name} does not start: {said}");
        }
        unreachable!("the last attempt returns or fails")
    }

    /// nats-server with a WebSocket listener, which came with 2.2.
    pub(crate) fn nats() -> Option<Self> {
        let program = program("nats-server", "nats-server")?;
        let version = Command::new(&program).arg("--version").output().unwrap();
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let numbers: Vec<u32> =
            version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        if numbers < vec![2, 2] {
            return absent(&format!("{} has no WebSocket", version.trim()));
        }
        let configuration = |_: &Path, [websocket, plain]: [u16; 2]| {
            format!("listen: \"127.0.0.1:{plain}\"\nwebsocket {{ listen: \"127.0.0.1:{websocket}\", no_tls: true }}\n")
        };
        Some(Self::start(&program, |file| vec!["-c".to_owned(), file.display().to_string()], configuration))
    }

    /// mosquitto with a WebSocket listener.
    pub(crate) fn mosquitto() -> Option<Self> {
        let program = program("mosquitto", "mosquitto")?;
        // 2.0.11 does not start with WebSocket listeners alone.
        let configuration = |_: &Path, [websocket, plain]: [u16; 2]| {
            format!(
                "listener {plain} 127.0.0.1\nlistener {websocket} 127.0.0.1\nprotocol websockets\nallow_anonymous true\npersistence false\n\
                 max_queued_messages 0\nlog_type error\n"
            )
        };
        Some(Self::start(&program, |file| vec!["-c".to_owned(), file.display().to_string()], configuration))
    }

    /// nginx with Nchan, its locations as the adapter wants them.
    pub(crate) fn nchan() -> Option<Self> {
        let program = program("nginx", "nginx")?;
        if !Path::new(NCHAN_MODULE).exists() {
            return absent("libnginx-mod-nchan is not installed");
        }
        let configuration = |directory: &Path, [port, _]: [u16; 2]| {
            let place = directory.display();
            let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|what| format!("{what}_temp_path {place}/{what};\n"))
                .concat();
            format!(
                "load_module {NCHAN_MODULE};\ndaemon off;\nworker_processes 1;\npid {place}/pid;\n\
                 error_log stderr error;\nevents {{ worker_connections 1024; }}\n\
                 http {{\n{temporary}access_log off;\nnchan_max_channel_id_length 4096;\n\
                 server {{\nlisten 127.0.0.1:{port};\n\
                 nchan_message_buffer_length 5000;\nnchan_subscriber_first_message newest;\n\
                 location = /sub {{ nchan_subscriber websocket; nchan_channel_id $arg_id;\n\
                 nchan_channel_id_split_delimiter \",\"; }}\n\
                 location = /pub {{ nchan_publisher websocket; nchan_channel_id $arg_id; }}\n\
                 location = /bus {{ nchan_pubsub websocket; nchan_channel_id $arg_id; }}\n}}\n}}\n"
            )
        };
        let arguments = |file: &Path| {
            let directory = file.parent().unwrap().display().to_string();
            ["-p", &directory, "-e", "stderr", "-c", &file.display().to_string()].map(str::to_owned).to_vec()
        };
        Some(Self::start(&program, arguments, configuration))
    }
}

/// Whether an upgrade is answered, with whatever status. An open port is not enough: mosquitto resets what comes to
/// it before it has begun to serve.
fn speaks_http(address: SocketAddr) -> bool {
    let mut request = Vec::new();
    upgrade_request(&address.to_string(), "/", Some("mqtt"), &mut request);
    TcpStream::connect(address).is_ok_and(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut client = client::Client::new(stream);
        client.send(&request).is_ok() && client.answer().is_ok()
    })
}

fn program(name: &str, package: &str) -> Option<PathBuf> {
    let found = PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.or_else(|| absent(&format!("the package {package} is not installed")))
}

/// Passed over, but not in silence.
fn absent<T>(why: &str) -> Option<T> {
    assert_ne!(std::env::var("RINGYARD_PEERS").as_deref(), Ok("required"), "{why}");
    // Not eprintln: the harness would keep it to itself.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "PASSED OVER: {why}").unwrap();
    None
}

/// Ports below those that the kernel gives to connections, so that none of a busy machine's has them.
fn free_ports() -> [u16; 2] {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    [(); 2].map(|()| {
        let begin = std::process::id().wrapping_mul(97);
        loop {
            let number = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
            let port = 20_000 + (number % 12_000) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// A server as a user would write it with tokio-tungstenite: everybody gets everything. It ends with the test's
/// process. Every message goes out in a frame of its own.
pub(crate) fn broadcaster() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (messages, _) = broadcast::channel(10_000);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Joined before the upgrade is accepted, so that the acceptance confirms it.
                let (inbox, messages) = (messages.subscribe(), messages.clone());
                tokio::spawn(async move {
                    if let Ok(socket) = accept_async(stream).await {
                        let (mut sink, mut source) = socket.split();
                        tokio::spawn(async move {
                            let mut inbox = inbox;
                            while let Ok(message) = inbox.recv().await {
                                if sink.send(message).await.is_err() {
                                    return;
                                }
                            }
                        });
                        while let Some(Ok(message)) = source.next().await {
                            if message.is_text() {
                                let _ = messages.send(message);
                            }
                        }
                    }
                });
            }
        });
    });
    format!("ws://{address}/")
}

/// What a client received.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ready: usize,
    pub(crate) messages: Vec<Stamp>,
    /// What should not be: damaged and foreign messages, broken streams.
    pub(crate) wrong: Vec<String>,
    pub(crate) closed: Option<u16>,
    replies: Vec<u8>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ready, messages, wrong, closed, .. } = self;
        write!(f, "ready {ready} times, {} messages, wrong: {wrong:?}, closed: {closed:?}", messages.len())
    }
}

impl Visit for Seen {
    fn ready(&mut self) {
        self.ready += 1;
    }
    fn message(&mut self, stamp: Stamp, intact: bool) {
        if intact {
            self.messages.push(stamp);
        } else {
            self.wrong.push(format!("damaged: {stamp:?}"));
        }
    }
    fn foreign(&mut self) {
        self.wrong.push("foreign".to_owned());
    }
    fn ping(&mut self) {}
    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend_from_slice(bytes);
    }
    fn close(&mut self, code: u16) {
        self.closed = Some(code);
    }
    fn broken(&mut self, why: &str) {
        self.wrong.push(format!("broken: {why}"));
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) adapter: Adapter,
    duty: Duty,
    stream: TcpStream,
    inbound: Inbound,
    pub(crate) seen: Seen,
    /// Bytes behind the acceptance.
    pub(crate) received: u64,
    /// The server closed its end.
    pub(crate) ended: bool,
}

impl Client {
    /// Connects, and waits until the subscriptions are in force.
    pub(crate) fn open(adapter: &Adapter, duty: Duty) -> Result<Self, Refused> {
        let subscribes = duty.subscribes.count > 0;
        let address = if subscribes { adapter.address() } else { adapter.publish_address() };
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut out = Vec::new();
        adapter.request(&duty, &mut out);
        stream.write_all(&out).unwrap();
        let mut head = Vec::new();
        let len = loop {
            match adapter.accepted_by(&duty, &head)? {
                Some(len) => break len,
                None => {
                    let mut chunk = [0; 512];
                    let len = stream.read(&mut chunk).unwrap();
                    assert_ne!(len, 0, "closed before the upgrade");
                    head.extend_from_slice(&chunk[..len]);
                }
            }
        };
        stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let mut client = Self {
            adapter: adapter.clone(),
            duty,
            stream,
            inbound: Inbound::default(),
            seen: Seen::default(),
            received: 0,
            ended: false,
        };
        client.send(|adapter, out| adapter.greet(&duty, out));
        client.feed(&head[len..]);
        if adapter.answers_greeting(&duty) {
            client.wait("ready", |client| client.seen.ready == 1);
        }
        Ok(client)
    }

    pub(crate) fn send(&mut self, say: impl FnOnce(&Adapter, &mut Vec<u8>)) {
        self.try_send(say).unwrap();
    }

    /// Where the server may hang up before it has all.
    pub(crate) fn try_send(&mut self, say: impl FnOnce(&Adapter, &mut Vec<u8>)) -> io::Result<()> {
        let mut out = Vec::new();
        say(&self.adapter, &mut out);
        self.stream.write_all(&out)
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        self.adapter.feed(&mut self.inbound, &self.duty, bytes, &mut self.seen);
        let replies = std::mem::take(&mut self.seen.replies);
        // The server may have left already.
        let _ = self.stream.write_all(&replies);
    }

    /// Takes what there is, waiting a moment for the first of it.
    pub(crate) fn pump(&mut self) {
        let mut chunk = [0; 64 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(len) => self.feed(&chunk[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.ended = true,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes what comes until it is enough.
    pub(crate) fn wait(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !enough(self) {
            assert!(begun.elapsed() < PATIENCE, "no {what}: {:?}", self.seen);
            assert!(!self.ended, "closed while waiting for {what}: {:?}", self.seen);
            self.pump();
        }
    }
}
