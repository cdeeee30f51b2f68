//! The way down: what a home agent is told decides as the mobile does.

#[path = "../support/random.rs"]
mod random;

mod entries;
mod numbers;
mod property;
mod readers;
mod sample;
mod worlds;
