//! What the owner task answers: a mobile router whose WLAN has just died, and its home agent.

mod agent;
mod correspondent;
mod figures;
mod flows;
mod mobile;
mod policies;

use std::net::Ipv6Addr;

use mtun_policy::{Bid, CareOfAddress, MobileNetworkPrefix};

pub use self::agent::{agent_changed, agent_list, agent_mobile, agent_status};
pub use self::correspondent::correspondent_status;
pub use self::figures::first_figures;
pub use self::flows::{explanation, flows};
pub use self::mobile::{status, steered};
pub use self::policies::{diff, history, history_entry, policy};

pub fn bid(number: u16) -> Bid {
    Bid::new(number).unwrap()
}

pub fn care_of(text: &str) -> CareOfAddress {
    text.parse::<Ipv6Addr>().unwrap().into()
}

fn prefix(text: &str) -> MobileNetworkPrefix {
    MobileNetworkPrefix::new(text.parse().unwrap()).unwrap()
}
