//! A mobile router whose WLAN has just died.

use mtun::control::documents::*;
use mtun::tunnel_interface::Backend;
use mtun_policy::{FlowId, FlowPriority, HomeAddress, HomeAgentAddress, Role};

use super::{bid, care_of, prefix};

pub fn bindings() -> Vec<BindingDocument> {
    vec![
        BindingDocument {
            home: "acme".into(),
            bid: Some(bid(1)),
            care_of: None,
            priority: 20,
            link: Some("wlan0".into()),
            phase: BindingPhase::Idle,
            usable: false,
            granted_seconds: None,
            expires_seconds: None,
            status: None,
            retries: 0,
        },
        BindingDocument {
            home: "acme".into(),
            bid: Some(bid(2)),
            care_of: Some(care_of("2001:db8:2::7")),
            priority: 10,
            link: Some("wwan0".into()),
            phase: BindingPhase::Registered,
            usable: true,
            granted_seconds: Some(420),
            expires_seconds: Some(300),
            status: Some(StatusCode { code: 0, name: "accepted".to_owned() }),
            retries: 0,
        },
    ]
}

pub fn links() -> Vec<LinkDocument> {
    vec![
        LinkDocument {
            interface: "wlan0".into(),
            ifindex: Some(3),
            bid: Some(bid(1)),
            priority: 20,
            state: LinkState::Down,
            care_of: None,
            home_link: false,
            router: None,
            reason: Some("carrier-lost".to_owned()),
            since_seconds: Some(75),
            flaps: 3,
            recovers_in_seconds: None,
            metered: false,
            quota: None,
            load: None,
            rtt_ms: None,
            rtt_p95_ms: None,
            jitter_ms: None,
            conversation_rtt_ms: None,
            loss_ratio: None,
            signal_dbm: None,
            radio: None,
            mtu: None,
            path_mtu: None,
        },
        LinkDocument {
            interface: "wwan0".into(),
            ifindex: Some(4),
            bid: Some(bid(2)),
            priority: 10,
            state: LinkState::Up,
            care_of: Some(care_of("2001:db8:2::7")),
            home_link: false,
            router: None,
            reason: None,
            since_seconds: None,
            flaps: 0,
            recovers_in_seconds: None,
            metered: true,
            quota: None,
            load: None,
            rtt_ms: None,
            rtt_p95_ms: None,
            jitter_ms: None,
            conversation_rtt_ms: None,
            loss_ratio: None,
            signal_dbm: None,
            radio: None,
            mtu: None,
            path_mtu: None,
        },
    ]
}

pub fn homes() -> Vec<HomeDocument> {
    vec![HomeDocument {
        home_link: None,
        name: "acme".into(),
        agent: HomeAgentAddress("2001:db8:100::1".parse().unwrap()),
        home_address: Some(HomeAddress("2001:db8:100::42".parse().unwrap())),
        mobile_networks: vec![prefix("2001:db8:100:4200::/64")],
        served: None,
        tunnel: TunnelDocument {
            name: "mtun0".into(),
            ifindex: 7,
            mtu: 1460,
            backend: Backend::Bpf,
            no_kmod: Some("this kernel has no link kind mtun".to_owned()),
            no_fast_path: None,
            no_shortcut: None,
            no_pins: None,
        },
        generation: 5,
        security: Some("acme-sa".into()),
        downlink: Some(DownlinkDocument {
            taken: FlowBindingsTaken::Yes,
            reflect: true,
            copies: true,
            held: 2,
            pending: 0,
            refused: 1,
            digest: DigestState::Agrees,
        }),
    }]
}

/// What the agent was told: ssh by wwan0 or wlan0, one more that it does not take.
pub fn flow_bindings() -> Vec<FlowBindingDocument> {
    let ssh = |fid, priority, bid, link: &str, state| FlowBindingDocument {
        home: "acme".into(),
        fid: FlowId::new(fid).unwrap(),
        priority: FlowPriority::new(priority).unwrap(),
        packets: "ipv6 tcp from port 22".to_owned(),
        bids: vec![self::bid(bid)],
        links: vec![link.into()],
        rule: Some("ssh".into()),
        state,
        status: Some(StatusCode { code: 0, name: "flow binding successful".to_owned() }),
    };
    let refused = FlowBindingDocument {
        packets: "ipv6 udp".to_owned(),
        bids: vec![bid(1), bid(2)],
        links: vec!["wlan0".into(), "wwan0".into()],
        rule: Some("voice".into()),
        status: Some(StatusCode { code: 128, name: "administratively prohibited".to_owned() }),
        ..ssh(3, 48, 1, "wlan0", FlowBindingState::Refused)
    };
    vec![
        ssh(1, 16, 2, "wwan0", FlowBindingState::Active),
        ssh(2, 32, 1, "wlan0", FlowBindingState::Inactive),
        refused,
    ]
}

pub fn steered() -> OverrideDocument {
    OverrideDocument {
        id: 61440,
        filter: "proto tcp and dport 22".to_owned(),
        via: "wwan0".into(),
        bid: bid(2),
        remaining_seconds: 600,
        reason: Some("demo".to_owned()),
        uid: Some(0),
    }
}

/// The mobile's status: degraded, since a link is down.
pub fn status() -> StatusDocument {
    let (homes, links, bindings) = (homes(), links(), bindings());
    let refused = HealthReason::FlowBindingsRefused {
        home: "acme".into(),
        count: 1,
        status: "128 (administratively prohibited)".to_owned(),
    };
    StatusDocument {
        health: Health::judge(&homes, &links, &bindings, vec![refused]),
        role: Role::MobileRouter,
        policy: "city-bus".to_owned(),
        daemon_version: "0.1.0".to_owned(),
        uptime_seconds: 7384,
        homes,
        links,
        vehicle: None,
        bindings,
        overrides: vec![steered()],
        mobiles: Vec::new(),
        flow_bindings: flow_bindings(),
        routes: routes(),
        correspondent: None,
        dropped: Vec::new(),
        store: None,
    }
}

/// The mobile's routes past its agent.
pub fn routes() -> Vec<RouteDocument> {
    let straight = RouteDocument {
        home: "acme".into(),
        correspondent: "2001:db8:ffff::1".parse().unwrap(),
        bid: Some(bid(2)),
        link: Some("wwan0".into()),
        state: RouteState::Straight,
        care_of: Some(care_of("2001:db8:2::7")),
        expires_seconds: Some(391),
        status: Some(StatusCode { code: 0, name: "accepted".to_owned() }),
        reason: None,
        why: None,
    };
    let eaten = RouteDocument {
        correspondent: "2001:db8:ffff::2".parse().unwrap(),
        state: RouteState::Resting,
        care_of: None,
        expires_seconds: None,
        reason: Some("headers-eaten".to_owned()),
        why: Some(
            "between uplink 2 and 2001:db8:ffff::2 something eats the Home Address option or the \
             type 2 routing header; next try in 30s"
                .to_owned(),
        ),
        ..straight.clone()
    };
    vec![straight, eaten]
}
