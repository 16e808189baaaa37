//! What may go wrong in the simulated network, and how often.

use crate::Random;

/// A probability in ten-thousandths.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Chance(pub u16);

impl Chance {
    /// Draws only if there is a chance at all, so that switching one fault off leaves few traces.
    pub(super) fn strikes(self, random: &mut Random) -> bool {
        self.0 > 0 && random.below(10_000) < usize::from(self.0)
    }
}

/// How often each fault strikes. Every draw comes from the world's seeded generator, so that a seed and the
/// same calls replay a run exactly.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// A send takes only some of the bytes although there is room for all.
    pub short_send: Chance,
    /// A receive yields 1 to n of the bytes that are there.
    pub split_receive: Chance,
    /// An event, and those of its connection behind it, is reported in a later turn.
    pub delay: Chance,
    /// Events of different connections come in random order.
    pub shuffle: bool,
    /// A receive finds no buffer although there are some.
    pub no_buffers: Chance,
    /// A receive ends for no reason.
    pub receive_ended: Chance,
    /// An accept ends for no reason.
    pub accept_ended: Chance,
    /// The connection breaks after any byte, in either direction.
    pub reset: Chance,
    /// A send fails, and with it the connection.
    pub send_error: Chance,
    /// The table claims to be full although it is not. Only while a connection is open, whose close is the
    /// signal to accept again.
    pub table_full: Chance,
}

impl Faults {
    /// A network without faults: what a test of order and content starts from.
    pub const NONE: Self = Self {
        short_send: Chance(0),
        split_receive: Chance(0),
        delay: Chance(0),
        shuffle: false,
        no_buffers: Chance(0),
        receive_ended: Chance(0),
        accept_ended: Chance(0),
        reset: Chance(0),
        send_error: Chance(0),
        table_full: Chance(0),
    };

    /// Everything that loses no connection, often.
    pub const ROUGH: Self = Self {
        short_send: Chance(2_000),
        split_receive: Chance(4_000),
        delay: Chance(3_000),
        shuffle: true,
        no_buffers: Chance(500),
        receive_ended: Chance(500),
        accept_ended: Chance(500),
        table_full: Chance(200),
        ..Self::NONE
    };

    /// [`Faults::ROUGH`], and connections break.
    pub const HARSH: Self = Self { reset: Chance(50), send_error: Chance(50), ..Self::ROUGH };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chance_strikes_about_that_often() {
        let mut random = Random::new(1);
        let strikes = (0..10_000).filter(|_| Chance(2_500).strikes(&mut random)).count();
        assert!((2_300..2_700).contains(&strikes), "{strikes}");
        assert!(!Chance(0).strikes(&mut random));
        assert!(Chance(10_000).strikes(&mut random));
    }
}
