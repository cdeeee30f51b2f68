//! Its home agent, and the mobiles there.

use mtun::control::documents::*;
use mtun_policy::{Bid, HomeAddress, Role};

use super::mobile::{bindings, flow_bindings, homes, status};
use super::{bid, care_of, prefix};

/// The agent's status: all is well.
pub fn agent_status() -> StatusDocument {
    let mut homes = homes();
    homes[0].home_address = None;
    homes[0].served = Some("2001:db8:100::/64".parse().unwrap());
    homes[0].downlink = None;
    let binding = |number, address, priority| BindingDocument {
        link: None,
        bid: Some(bid(number)),
        care_of: Some(care_of(address)),
        priority,
        ..bindings()[1].clone()
    };
    let bus = MobileDocument {
        home: "acme".into(),
        home_address: HomeAddress("2001:db8:100::42".parse().unwrap()),
        name: Some("bus-7".to_owned()),
        prefixes: vec![prefix("2001:db8:100:4200::/64")],
        router: true,
        bindings: vec![binding(1, "2001:db8:1::7", 20), binding(2, "2001:db8:2::7", 10)],
        flow_bindings: flow_bindings()
            .into_iter()
            .take(2)
            .map(|flow| FlowBindingDocument {
                links: Vec::new(),
                rule: None,
                status: None,
                state: FlowBindingState::Active,
                ..flow
            })
            .collect(),
        reflect: true,
        copies: false,
        last_seen_seconds: Some(12),
    };
    let silent = MobileDocument {
        home_address: HomeAddress("2001:db8:100::43".parse().unwrap()),
        name: None,
        prefixes: Vec::new(),
        router: false,
        bindings: Vec::new(),
        flow_bindings: Vec::new(),
        reflect: false,
        last_seen_seconds: None,
        ..bus.clone()
    };
    StatusDocument {
        health: Health::judge(&homes, &[], &[], Vec::new()),
        role: Role::HomeAgent,
        homes,
        links: Vec::new(),
        vehicle: None,
        bindings: Vec::new(),
        overrides: Vec::new(),
        mobiles: vec![bus, silent],
        flow_bindings: Vec::new(),
        routes: Vec::new(),
        store: Some(StoreDocument {
            file: "/var/lib/mtun/bindings.redb".into(),
            failing: None,
            commits: 1200,
            records: 5000,
            largest_batch: 31,
            waiting: 2,
            failures: 3,
            last_failure: Some("/var/lib/mtun/bindings.redb: no space left".to_owned()),
            unanswered: 4,
        }),
        ..status()
    }
}

/// A mobile of the agent, as `mtun agent` shows it.
pub fn agent_mobile() -> AgentMobileDocument {
    let bus = agent_status().mobiles[0].clone();
    AgentMobileDocument {
        home: bus.home,
        home_address: bus.home_address,
        name: bus.name,
        allowed_by: AllowedBy::Added,
        state: AgentMobileState::Bound,
        security: Some("added.2001-db8-100--42".into()),
        mobile_networks: bus.prefixes,
        max_bindings: 16,
        refused_bids: vec![bid(3)],
        bindings: bus.bindings,
        last_heard_seconds: Some(12),
        updates_accepted: 40,
        updates_refused: 2,
        updates_forged: 1,
    }
}

/// The mobiles of the agent.
pub fn agent_list() -> AgentListDocument {
    let silent = AgentMobileDocument {
        home_address: HomeAddress("2001:db8:100::43".parse().unwrap()),
        name: None,
        allowed_by: AllowedBy::Policy,
        state: AgentMobileState::Refused,
        security: None,
        mobile_networks: Vec::new(),
        refused_bids: Vec::new(),
        bindings: Vec::new(),
        last_heard_seconds: None,
        updates_accepted: 0,
        updates_refused: 0,
        updates_forged: 0,
        ..agent_mobile()
    };
    AgentListDocument { mobiles: vec![agent_mobile(), silent] }
}

/// What became of one of them.
pub fn agent_changed(done: AgentChange, number: Option<Bid>) -> AgentChangedDocument {
    let mobile = (done != AgentChange::Removed).then(agent_mobile);
    AgentChangedDocument {
        done,
        mobile,
        home_address: agent_mobile().home_address,
        bid: number,
        ended: usize::from(matches!(done, AgentChange::Removed | AgentChange::Revoked)),
        file: "/var/lib/mtun/mobiles.kdl".into(),
    }
}
