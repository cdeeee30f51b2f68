//! Steering under a virtual clock: decision tables of the verbs, the link machine, the simulator.

mod home;
mod links;
mod verbs;
