//! Who may come in and how much one client may do: client addresses, hosts, origins, admission, rates, quotas.

pub mod address;
pub mod admission;
pub mod host;
pub mod origin;
pub mod quota;
pub(crate) mod rate;
