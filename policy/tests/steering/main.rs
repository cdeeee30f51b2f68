//! Steering under a virtual clock: decision tables of the verbs, the link machine, the simulator.

mod flows;
mod home;
mod links;
mod memory;
mod properties;
mod recordings;
mod simulator;
mod verbs;
