//! The edge: everything that touches the machine this program runs on.

pub mod clock;
pub mod random;
pub mod sysctl;
