//! The edge: everything that touches the machine this program runs on.
//!
//! [`movement`] and [`routes`] are pure: what the kernel reports becomes movements, and what the
//! daemon knows becomes the rules and routes that should exist. [`netlink`] brings both to the
//! kernel, [`nft`] keeps packets away from a kernel that would answer them, [`sysctl`] changes
//! settings and puts them back, those of a link by [`ethtool`]. [`neighbours`] speaks for addresses
//! that the kernel does not have, [`home_link`] does so for mobiles that are away.
//! [`watch`] runs the reports for the daemon. [`sources`] asks who tells of radios
//! and the vehicle. [`state_file`] writes what a restart needs. [`alarm`] wakes the owner by
//! [`clock`].

pub mod alarm;
pub mod carrier;
pub mod clock;
pub mod ethtool;
pub mod home_link;
pub mod looks;
pub mod movement;
pub mod neighbours;
pub mod netlink;
pub mod nft;
pub mod per_packet;
pub mod random;
pub mod routes;
pub mod sources;
pub mod state_file;
pub mod sysctl;
pub mod watch;
