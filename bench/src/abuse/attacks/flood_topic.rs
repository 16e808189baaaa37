//! One publisher without a limit of its own, on a topic with many fast readers: other topics of the shard must still be
//! served.

use anyhow::Result;

use super::large_messages::flood;
use crate::abuse::abuser::Abuser;

const TOPIC: &str = "abuse/flooded";
const LEN: usize = 100;
/// Messages per write.
const BATCH: usize = 64;

pub(super) fn run(abuser: &mut Abuser<'_>) -> Result<()> {
    let readers = abuser.target.scale.counts.flood_readers;
    // A server's frame of this length has a header of two bytes (RFC 6455, section 5.2).
    flood(abuser, TOPIC, readers, LEN, LEN + 2, BATCH)
}
