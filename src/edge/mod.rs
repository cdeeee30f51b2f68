//! The edge: everything that touches the machine this program runs on.

pub mod clock;
pub mod movement;
pub mod netlink;
pub mod random;
pub mod routes;
pub mod sysctl;
pub mod watch;
