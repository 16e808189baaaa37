//! Parts of a run's parameters, each drawn by itself.

use std::num::NonZeroU32;

use broker::config::limits::Limits;
use ring::Random;
use ring::sim::{Chance, Faults};

use super::{PINNED, Params, UNGUARDED, WITHOUT_LEASES, WITHOUT_PRESENCE, WITHOUT_REQUESTS};

/// Who may come in. Drawn from a generator of its own, which shifts nothing else.
pub(super) fn admission(limits: Limits, seed: u64) -> Limits {
    let mut rng = Random::new(seed ^ 0x0064_6f6f_7273);
    let proxies = if rng.one_in(4) { &["203.0.113.2/32", "2001:db8::/47", "127.0.0.0/8"][..] } else { &[] };
    Limits {
        connections_per_address_max: if rng.one_in(3) { NonZeroU32::new(rng.range(1, 4) as u32) } else { None },
        trusted_proxies: proxies.iter().map(|network| network.parse().expect("a network")).collect(),
        proxy_protocol: !proxies.is_empty() && rng.one_in(2),
        ..limits
    }
}

/// Faults of which each strikes at a rate of its own.
pub(super) fn mild(rng: &mut Random) -> Faults {
    let mut chance = |max: usize| if rng.one_in(2) { Chance(rng.range(1, max) as u16) } else { Chance(0) };
    Faults {
        short_send: chance(2_000),
        split_receive: chance(2_000),
        delay: chance(2_000),
        no_buffers: chance(500),
        receive_ended: chance(500),
        accept_ended: chance(500),
        table_full: chance(200),
        shuffle: true,
        ..Faults::NONE
    }
}

pub(super) fn topics(count: usize) -> Vec<String> {
    let name = |i: usize| match i % 4 {
        0 => format!("t{i}"),
        1 => format!("a/t{i}"),
        2 => format!("a/b/t{i}"),
        _ => format!("b/räum {i}"),
    };
    (0..count).map(name).collect()
}

impl Params {
    /// Sometimes clients are streams of events. Not with seeds that are named for what they showed before.
    pub(super) fn with_streams(self) -> Self {
        let named = [&PINNED[..], &UNGUARDED, &WITHOUT_REQUESTS, &WITHOUT_PRESENCE, &WITHOUT_LEASES].concat();
        let streams = self.seed % 3 == 1 && self.access.is_none() && !self.has_users() && !named.contains(&self.seed);
        Self { streams, ..self }
    }
}
