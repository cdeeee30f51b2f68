//! Operation: the control socket, the command line and the metrics, without a network.
//!
//! The real server and the real `mtun` talk to an owner task that answers from fixed documents;
//! the lab proves the same against the real daemon. Tests that need other user ids need root and
//! skip loudly without.

mod alerts;
mod alone;
mod archive;
mod cli;
mod control;
mod dashboard;
mod doctor;
mod documents;
mod files;
mod forwarding;
mod import;
mod listening;
mod metrics;
mod mobility_page;
mod owner;
mod pages;
#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/schema.rs"]
mod schema;
mod schemas;
mod shells;
#[path = "../support/skip.rs"]
mod skip;
mod states;
mod top;
mod transcripts;
mod users;
