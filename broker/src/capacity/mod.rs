//! What fits on this machine: descriptors, memory, locked memory, and the account of what is held for clients.

pub mod budget;
pub mod buffer;
pub mod connections;
pub mod doctor;
pub mod machine;
pub mod memlock;
pub mod memory;
