//! What may go wrong in the simulated network, how often, and the one source of randomness.

/// A probability in ten-thousandths.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Chance(pub u16);

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

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform below `bound`, which is at least 1.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Uniform from 1 to `max`, which is at least 1.
    pub(super) fn one_to(&mut self, max: usize) -> usize {
        1 + self.below(max)
    }

    /// Draws only if there is a chance at all, so that switching one fault off leaves few traces.
    pub(super) fn strikes(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.below(10_000) < usize::from(chance.0)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.next()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        // The generator's published first output for seed 0.
        assert_eq!(Random::new(0).next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn a_chance_strikes_about_that_often() {
        let mut random = Random::new(1);
        let strikes = (0..10_000).filter(|_| random.strikes(Chance(2_500))).count();
        assert!((2_300..2_700).contains(&strikes), "{strikes}");
        assert!(!random.strikes(Chance(0)));
        assert!(random.strikes(Chance(10_000)));
    }
}
