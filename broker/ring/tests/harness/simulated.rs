//! The simulated driver: once in a network without faults, once in one that loses no connection but does
//! everything else that it may.

use std::os::fd::OwnedFd;

use ring::sim::{Chance, ClientEnd, ClientId, Faults, SimDriver, World};

use super::{End, Harness, Options};

pub struct Simulated<const ROUGH: bool> {
    world: World,
    driver: Option<SimDriver>,
}

pub type Calm = Simulated<false>;
pub type Rough = Simulated<true>;

impl<const ROUGH: bool> Harness for Simulated<ROUGH> {
    type Driver = SimDriver;
    type Client = ClientId;
    const WAITS: bool = false;

    fn new(options: Options) -> Self {
        // Cases that fill the table say themselves when it is full.
        let rough = Faults {
            table_full: Chance(0),
            ..Faults::ROUGH
        };
        let world = World::new(0x5eed, if ROUGH { rough } else { Faults::NONE });
        let driver = world.driver(
            options.capacity,
            options.buffers.into(),
            options.buffer_bytes as usize,
        );
        Self {
            world,
            driver: Some(driver),
        }
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
        assert_eq!(
            self.world.client_write(*client, bytes),
            bytes.len(),
            "it fits the socket buffer"
        );
    }

    fn read(&mut self, client: &mut ClientId) -> Vec<u8> {
        self.world.client_read(*client, usize::MAX)
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
