//! The real drivers, io_uring and epoll, over loopback TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use ring::epoll::{self, EpollDriver};
use ring::uring::{self, UringDriver};
use ring::{Driver, listen};

use super::{End, Harness, Options};

/// A kind of real driver.
pub(crate) trait Kind {
    type Driver: Driver;
    /// Operations wait in a queue that can be full.
    const QUEUES: bool;

    fn make(listener: OwnedFd, options: Options) -> Self::Driver;
}

pub(crate) struct OnUring;

impl Kind for OnUring {
    type Driver = UringDriver;
    const QUEUES: bool = true;

    fn make(listener: OwnedFd, options: Options) -> UringDriver {
        let setup = uring::Setup {
            second: None,
            listener: Some(listener.into()),
            capacity: options.capacity,
            receive_buffers: options.buffers,
            receive_buffer_bytes: options.buffer_bytes,
            submission_entries: options.submission_entries,
            dials: true,
        };
        UringDriver::new(setup).unwrap_or_else(|error| panic!("{error}"))
    }
}

pub(crate) struct OnEpoll;

impl Kind for OnEpoll {
    type Driver = EpollDriver;
    const QUEUES: bool = false;

    fn make(listener: OwnedFd, options: Options) -> EpollDriver {
        let setup = epoll::Setup {
            second: None,
            listener: Some(listener.into()),
            capacity: options.capacity,
            receive_buffers: options.buffers,
            receive_buffer_bytes: options.buffer_bytes,
        };
        EpollDriver::new(setup).unwrap_or_else(|error| panic!("{error}"))
    }
}

pub(crate) struct Loopback<K: Kind> {
    driver: Option<K::Driver>,
    addr: SocketAddr,
}

pub(crate) type Uring = Loopback<OnUring>;
pub(crate) type Epoll = Loopback<OnEpoll>;

pub(crate) struct Client {
    stream: TcpStream,
    end: Option<End>,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, end: None }
    }
}

impl<K: Kind> Harness for Loopback<K> {
    type Driver = K::Driver;
    type Client = Client;
    const WAITS: bool = true;
    const QUEUES: bool = K::QUEUES;
    const HUGE_BYTES: usize = 24 << 20;

    fn new(options: Options) -> Self {
        let listener = listen::group("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
        let addr = listen::local_addr(&listener).unwrap();
        Self { driver: Some(K::make(listener, options)), addr }
    }

    fn driver(&mut self) -> &mut K::Driver {
        self.driver.as_mut().expect("not dropped yet")
    }

    fn drop_driver(&mut self) {
        self.driver = None;
    }

    fn connect(&mut self) -> Client {
        Client::new(TcpStream::connect(self.addr).unwrap())
    }

    fn write(&mut self, client: &mut Client, bytes: &[u8]) {
        client.stream.write_all(bytes).expect("it fits the socket buffer");
    }

    fn address(&self, client: &Client) -> SocketAddr {
        client.stream.local_addr().unwrap()
    }

    fn read_some(&mut self, client: &mut Client, max: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 256 * 1024];
        while client.end.is_none() && bytes.len() < max {
            let room = chunk.len().min(max - bytes.len());
            match client.stream.read(&mut chunk[..room]) {
                Ok(0) => client.end = Some(End::Stream),
                Ok(n) => bytes.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => client.end = Some(End::Reset),
                Err(error) => panic!("{error}"),
            }
        }
        bytes
    }

    fn end(&mut self, client: &mut Client) -> Option<End> {
        client.end
    }

    fn half_close(&mut self, client: &mut Client) {
        client.stream.shutdown(Shutdown::Write).unwrap();
    }

    fn reset(&mut self, client: &mut Client) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let (at, len) = ((&raw const linger).cast(), size_of::<libc::linger>() as libc::socklen_t);
        let fd = client.stream.as_raw_fd();
        // SAFETY: the kernel reads the `linger`, which lives through the call.
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, at, len) };
        // The last descriptor goes, with a reset instead of an orderly end.
        let spare = TcpListener::bind("127.0.0.1:0").unwrap();
        let unconnected = TcpStream::connect(spare.local_addr().unwrap()).unwrap();
        client.stream = unconnected;
        client.end = Some(End::Reset);
    }

    fn socket(&mut self) -> (Client, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        (Client::new(client), served.into())
    }

    fn socket_write(&mut self, socket: &OwnedFd, bytes: &[u8]) {
        let mut stream = TcpStream::from(socket.try_clone().unwrap());
        stream.write_all(bytes).unwrap();
    }
}
