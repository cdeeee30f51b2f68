//! A server that mobiles reach without going by way of their agent.

use mtun::control::documents::*;
use mtun::tunnel_interface::Backend;
use mtun_policy::{HomeAddress, Role};

use super::mobile::status;
use super::{bid, care_of};

/// The status of a node that is a correspondent and nothing else.
pub fn correspondent_status() -> StatusDocument {
    let mobile = BoundMobileDocument {
        correspondent: "2001:db8:ffff::1".parse().unwrap(),
        home_address: HomeAddress("2001:db8:100::42".parse().unwrap()),
        bid: Some(bid(1)),
        care_of: care_of("2001:db8:1::7"),
        expires_seconds: 391,
    };
    StatusDocument {
        health: Health::judge(&[], &[], &[], Vec::new()),
        role: Role::Correspondent,
        policy: "correspondent".to_owned(),
        homes: Vec::new(),
        links: Vec::new(),
        vehicle: None,
        bindings: Vec::new(),
        overrides: Vec::new(),
        flow_bindings: Vec::new(),
        routes: Vec::new(),
        correspondent: Some(CorrespondentDocument {
            addresses: vec![mobile.correspondent],
            tunnel: Some(TunnelDocument {
                name: "mtun0".into(),
                ifindex: 7,
                mtu: 1460,
                backend: Backend::Bpf,
                no_kmod: Some("this kernel has no link kind mtun".to_owned()),
                no_fast_path: None,
                no_shortcut: None,
                no_pins: None,
            }),
            mobiles: vec![
                mobile.clone(),
                BoundMobileDocument {
                    bid: Some(bid(2)),
                    care_of: care_of("2001:db8:2::7"),
                    ..mobile
                },
            ],
        }),
        ..status()
    }
}
