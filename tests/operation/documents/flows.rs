//! Flows, and why one of them goes where it goes.

use mtun::control::documents::*;
use mtun_policy::FlowId;

use super::mobile::flow_bindings;
use super::{bid, care_of};

pub fn flows() -> Vec<FlowDocument> {
    let key = FlowKeyDocument {
        protocol: 6,
        source: "2001:db8:100:4200::10".parse().unwrap(),
        destination: "2001:db8:ffff::1".parse().unwrap(),
        source_port: Some(40_000),
        destination_port: Some(22),
        dscp: 0,
        ingress: "other".to_owned(),
        flow_label: None,
        spi: None,
        icmp_type: None,
        uid: None,
    };
    let wwan = FlowPath::tunnel(Some(bid(2)), Some("wwan0".into()));
    let ssh = FlowDocument {
        home: "acme".into(),
        key: key.clone(),
        rule: Some("ssh".into()),
        outbound: Some(wwan.clone()),
        inbound: Some(wwan.clone()),
        downlink: Some(FlowDownDocument {
            path: wwan,
            fid: FlowId::new(1),
            why: "flow-binding".to_owned(),
        }),
        bytes_out: 1_234_567,
        bytes_in: 999,
        packets_out: 1200,
        packets_in: 7,
        idle_seconds: 0.25,
        bytes_per_second: Some(125_000),
        moves: Vec::new(),
    };
    let ping = FlowDocument {
        key: FlowKeyDocument { protocol: 58, source_port: None, destination_port: None, ..key },
        rule: None,
        outbound: None,
        inbound: None,
        downlink: None,
        bytes_out: 0,
        bytes_in: 0,
        packets_out: 0,
        packets_in: 0,
        idle_seconds: 30.0,
        bytes_per_second: None,
        ..ssh.clone()
    };
    vec![ssh, ping]
}

pub fn explanation() -> ExplainDocument {
    let reference = |name: &str, line| RuleReference {
        name: name.into(),
        file: Some("bus.kdl".to_owned()),
        line: Some(line),
    };
    ExplainDocument {
        flow: flows()[0].key.clone(),
        home: Some("acme".into()),
        generation: Some(5),
        given: vec!["wlan0=down".to_owned()],
        links: Vec::new(),
        passed: vec![PassedRuleDocument {
            rule: reference("voice", 40),
            field: Some(mtun_policy::Field::Protocol),
            why: "protocol is tcp, not udp".to_owned(),
        }],
        passed_over: 0,
        rule: Some(reference("ssh", 44)),
        unmet: Vec::new(),
        candidates: vec![
            CandidateDocument {
                bid: bid(2),
                link: Some("wwan0".into()),
                usable: true,
                verdict: "chosen".to_owned(),
                why: "chosen".to_owned(),
            },
            CandidateDocument {
                bid: bid(1),
                link: Some("wlan0".into()),
                usable: false,
                verdict: "down".to_owned(),
                why: "down: no carrier or no care-of address".to_owned(),
            },
        ],
        verdict: ExplainVerdict::Forward {
            bid: Some(bid(2)),
            link: Some("wwan0".into()),
            care_of: Some(care_of("2001:db8:2::7")),
            peer: Some("2001:db8:100::1".parse().unwrap()),
            encapsulation: "ipv6-in-ipv6".to_owned(),
            next_hop: None,
            otherwise: false,
        },
        notes: vec!["the flow keeps its link for 10 min after the last packet".to_owned()],
        moves: vec![MoveDocument {
            from: FlowPath::tunnel(Some(bid(1)), Some("wlan0".into())),
            to: FlowPath::tunnel(Some(bid(2)), Some("wwan0".into())),
            reason: "link-down".to_owned(),
            ago_seconds: 75.2,
        }],
        at_agent: Some(AtAgentDocument {
            flow: FlowKeyDocument {
                source: "2001:db8:ffff::1".parse().unwrap(),
                destination: "2001:db8:100:4200::10".parse().unwrap(),
                source_port: Some(22),
                destination_port: Some(40_000),
                ..flows()[0].key.clone()
            },
            taken: FlowBindingsTaken::Yes,
            digest: DigestState::Agrees,
            entries: flow_bindings().into_iter().take(2).collect(),
            fid: FlowId::new(1),
            verdict: ExplainVerdict::Forward {
                bid: Some(bid(2)),
                link: Some("wwan0".into()),
                care_of: Some(care_of("2001:db8:2::7")),
                peer: Some("2001:db8:100::1".parse().unwrap()),
                encapsulation: "ipv6-in-ipv6".to_owned(),
                next_hop: None,
                otherwise: false,
            },
            as_uplink: Some(true),
            notes: vec!["it takes the binding of the way up".to_owned()],
        }),
    }
}
