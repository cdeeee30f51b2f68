//! The lab: real packets through real programs in network namespaces.
//!
//! Each test builds a world of its own (the topology is drawn in `mtun::lab::world`), so tests
//! run side by side. Without root they are skipped, loudly.

mod administration;
mod agent_mobiles;
mod beyond;
mod breakout;
mod churn;
mod copies;
mod correspondents;
mod dashboard;
mod demo;
mod detector;
mod documents;
mod downlink;
mod engine;
mod errors;
mod exhaustion;
mod facts;
mod failback;
mod fast_path;
mod figures;
mod fixture;
mod flaps;
mod fleet;
mod full_disk;
mod ground;
mod handover;
mod home_agent;
mod home_prefix;
mod homecoming;
mod hotplug;
mod kills;
mod leftovers;
mod messages;
mod moves;
mod nested;
mod offload;
mod optimization;
mod outlive;
mod pages;
mod passive;
mod power;
mod quota;
mod relay;
mod restart;
mod rights;
mod roles;
mod routability;
mod routers;
mod scripted;
mod security;
mod service;
mod several;
mod shortcut;
mod silent;
mod sockets;
mod storm;
mod strangers;
mod texts;
mod trial;
mod verbs;
mod world;

#[path = "../support/prometheus.rs"]
mod prometheus;
#[path = "../support/schema.rs"]
mod schema;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/stand_ins.rs"]
mod stand_ins;
#[path = "../operation/users.rs"]
mod users;

/// Ends the calling test with a message when the lab cannot run here.
macro_rules! need_lab {
    () => {
        if let Err(reason) = mtun::lab::able() {
            crate::skip::skip(&reason.to_string());
            return;
        }
    };
}
pub(crate) use need_lab;
