//! Memory that rings lock: the kernel counts a ring and its buffers against the user's limit of locked memory
//! (`RLIMIT_MEMLOCK`), unless the process is privileged. One ring may fit where those of all shards do not, so a probe
//! with one says too little.

use crate::capacity::machine::Machine;

/// What the ring of a shard and its buffers lock, measured with a margin.
const SHARD_BYTES: u64 = 300 << 10;
/// And the ring of the control plane.
const CONTROL_BYTES: u64 = 64 << 10;
/// The capability that lifts the limit.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// What the limit allows, and what is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemlockDeficit {
    /// The soft limit, in bytes.
    pub limit: u64,
    /// What the rings of all shards and the control plane need, in bytes.
    pub needed: u64,
}

/// Whether the limit is too low for that many shards on io_uring. Other programs of the user count too; of them
/// nothing is known.
#[must_use]
pub fn deficit(machine: &Machine, shards: u16) -> Option<MemlockDeficit> {
    let (limit, _) = machine.limit("Max locked memory")?;
    let needed = SHARD_BYTES * u64::from(shards) + CONTROL_BYTES;
    (limit < needed && !is_exempt(machine)).then_some(MemlockDeficit { limit, needed })
}

/// Whether the process may lock what it likes.
#[must_use]
pub fn is_exempt(machine: &Machine) -> bool {
    let capabilities = machine.status("CapEff").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    capabilities.is_some_and(|mask| mask & CAP_IPC_LOCK != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::machine::fixture::Fixture;

    #[test]
    fn the_rings_of_all_shards_count_unless_privileged() {
        let limits =
            ("/proc/self/limits", "Max locked memory         1048576              8388608              bytes\n");
        let user = Fixture::new(&[limits, ("/proc/self/status", "CapEff:\t0000000000000000\n")]);
        assert_eq!(deficit(&user.machine(), 3), None);
        assert_eq!(deficit(&user.machine(), 4), Some(MemlockDeficit { limit: 1 << 20, needed: 1_264 << 10 }));
        let root = Fixture::new(&[limits, ("/proc/self/status", "CapEff:\t000001ffffffffff\n")]);
        assert_eq!(deficit(&root.machine(), 64), None);
        assert_eq!(deficit(&Fixture::new(&[]).machine(), 64), None);
    }
}
