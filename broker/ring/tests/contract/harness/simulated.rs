//! The simulated driver: once in a network without faults, once in one that loses no connection but does
//! everything else that it may.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use ring::sim::{Chance, ClientEnd, ClientId, Faults, SimDriver, World};

use super::{End, Harness, Options};

pub(crate) struct Simulated<const ROUGH: bool> {
    world: World,
    driver: Option<SimDriver>,
}

pub(crate) type Calm = Simulated<false>;
pub(crate) type Rough = Simulated<true>;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Runs a case once per seed; the last one printed is the one that failed.
pub(crate) fn with_seeds(case: impl Fn()) {
    for seed in 0..25 {
        println!("seed {seed}");
        SEED.set(seed);
        case();
    }
}

impl<const ROUGH: bool> Harness for Simulated<ROUGH> {
    type Driver = SimDriver;
    type Client = ClientId;
    const WAITS: bool = false;
    const QUEUES: bool = false;
    const HUGE_BYTES: usize = 256 << 10;

    fn new(options: Options) -> Self {
        // Cases that fill the table say themselves when it is full.
        let rough = Faults { table_full: Chance(0), ..Faults::ROUGH };
        let world = World::new(SEED.get(), if ROUGH { rough } else { Faults::NONE });
        let driver = world.driver(options.capacity, options.buffers.into(), options.buffer_bytes as usize);
        Self { world, driver: Some(driver) }
    }

    fn driver(&mut self) -> &mut SimDriver {
        self.driver.as_mut().expect("not dropped yet")
    }

    fn drop_driver(&mut self) {
        self.driver = None;
    }

    fn connect(&mut self) -> ClientId {
        self.world.connect(0)
    }

    fn write(&mut self, client: &mut ClientId, bytes: &[u8]) {
        assert_eq!(self.world.client_write(*client, bytes), bytes.len(), "it fits the socket buffer");
    }

    fn address(&self, client: &ClientId) -> SocketAddr {
        self.world.client_address(*client)
    }

    fn read_some(&mut self, client: &mut ClientId, max: usize) -> Vec<u8> {
        self.world.client_read(*client, max)
    }

    fn end(&mut self, client: &mut ClientId) -> Option<End> {
        self.world.client_end(*client).map(|end| match end {
            ClientEnd::EndOfStream => End::Stream,
            ClientEnd::Reset => End::Reset,
        })
    }

    fn half_close(&mut self, client: &mut ClientId) {
        self.world.client_half_close(*client);
    }

    fn reset(&mut self, client: &mut ClientId) {
        self.world.client_reset(*client);
    }

    fn socket(&mut self) -> (ClientId, OwnedFd) {
        self.world.socket()
    }

    fn socket_write(&mut self, socket: &OwnedFd, bytes: &[u8]) {
        assert_eq!(self.world.socket_write(socket, bytes), bytes.len());
    }
}
