//! What the tests of the machines share: a world in virtual time, and messages as text.
#![allow(dead_code, reason = "every test program uses another part of it")]

pub mod arithmetic;
pub mod by_hand;
pub mod flow_text;
pub mod route;
pub mod route_world;
pub mod script;
pub mod settings;
pub mod text;
pub mod world;

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{
    Bid, CareOfAddress, HomeAddress, HomeAgentAddress, MobileNetworkPrefix, PrefixMode,
    ReturningHome,
};
use mtun_signaling::agent::HomeLink;
use mtun_signaling::auth::{Algorithm, Secret, SecurityAssociation};
use mtun_signaling::{AgentConfig, AgentMobile, MobileConfig, NtpTime, Timestamp};

/// The home agent of every test.
pub const AGENT: &str = "2001:db8:100::1";
/// The home network of every test.
pub const HOME_NETWORK: &str = "2001:db8:100::/64";
/// The mobile of every test.
pub const HOME_ADDRESS: &str = "2001:db8:100::42";
/// The other mobile that the agent serves.
pub const OTHER_HOME_ADDRESS: &str = "2001:db8:100::43";
/// The prefix of that other mobile.
pub const OTHER_PREFIX: &str = "2001:db8:4300::/56";
/// Time of day when every test begins, in seconds of the Unix clock.
pub const EPOCH: u64 = 1_790_000_000;

pub fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no IPv6 address"))
}

pub fn home() -> HomeAddress {
    HomeAddress(address(HOME_ADDRESS))
}

pub fn agent_address() -> HomeAgentAddress {
    HomeAgentAddress(address(AGENT))
}

pub fn bid(number: u16) -> Bid {
    Bid::new(number).expect("not zero")
}

pub fn care_of(text: &str) -> CareOfAddress {
    address(text).into()
}

pub fn prefix(text: &str) -> MobileNetworkPrefix {
    let net = text.parse().unwrap_or_else(|_| panic!("{text} is no prefix"));
    MobileNetworkPrefix::new(net).expect("no host bits")
}

pub fn key(spi: u32, octet: u8) -> SecurityAssociation {
    let secret = Secret::new(vec![octet; 32]).expect("a good length");
    SecurityAssociation::new(spi, Algorithm::HmacSha256, secret).expect("not reserved")
}

/// The association of [`HOME_ADDRESS`].
pub fn our_key() -> SecurityAssociation {
    key(256, 1)
}

/// A mobile node with that association.
pub fn mobile_config() -> MobileConfig {
    MobileConfig {
        home: "acme".into(),
        home_address: home(),
        agent: agent_address(),
        mobile_networks: Vec::new(),
        prefix_mode: PrefixMode::Explicit,
        lifetime: Duration::from_secs(420),
        multiple_coa: true,
        bulk: true,
        returning_home: ReturningHome::Home,
        extensions: mtun_policy::Extensions::default(),
        protection: Some(our_key()),
        initial_sequence: 1,
    }
}

/// An agent that serves it, and another mobile.
pub fn agent_config() -> AgentConfig {
    let mobile = |address, prefixes, protection| AgentMobile {
        address,
        prefixes,
        protection: Some(protection),
        max_bindings: 16,
        max_flows: 64,
        max_copies: 4,
        reflect: true,
        copies: true,
        refused: false,
        refused_bids: Vec::new(),
    };
    let other = HomeAddress(address(OTHER_HOME_ADDRESS));
    AgentConfig {
        address: agent_address(),
        prefix: HOME_NETWORK.parse().expect("a prefix"),
        home_link: HomeLink::Virtual,
        max_lifetime: Duration::from_secs(3600),
        refresh_advice: None,
        refresh_requests: false,
        multiple_coa: true,
        bulk: true,
        flow_bindings: true,
        extensions: mtun_policy::Extensions::default(),
        restart_counter: 1,
        mobiles: vec![
            mobile(home(), Vec::new(), our_key()),
            mobile(other, vec![prefix(OTHER_PREFIX)], key(257, 2)),
        ],
    }
}

/// An instant `since` the start, on a clock that read `unix` then.
pub fn at(since: Duration, unix: u64) -> Timestamp {
    Timestamp {
        monotonic: since,
        wall: NtpTime::from_unix(Duration::from_secs(unix).saturating_add(since)),
    }
}
