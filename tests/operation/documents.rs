//! What the owner task answers: a mobile router whose WLAN has just died, and its home agent.

use std::net::Ipv6Addr;

use mtun::control::documents::*;
use mtun::metrics::{
    BindingFigures, BindingUpdateFigures, CopyFigures, Direction, DropFigures, FastPathFigures,
    FlowBindingFigures, FlowFigures, FlowMoveFigures, HomeFigures, LinkFigures, LinkStateFigures,
    MetricsInput, ProbeFigures, RouteFailureFigures, RouteFigures, RouteMessageFigures,
    RuleFigures, SourceFaultFigures, SourceFigures, StoreFigures, TunnelFigures,
};
use mtun::tunnel_interface::Backend;
use mtun_policy::{
    Bid, CareOfAddress, FlowId, FlowPriority, HomeAddress, HomeAgentAddress, MobileNetworkPrefix,
    ReturningHome, Role, RouteOptimizationStart,
};

pub fn bid(number: u16) -> Bid {
    Bid::new(number).unwrap()
}

pub fn care_of(text: &str) -> CareOfAddress {
    text.parse::<Ipv6Addr>().unwrap().into()
}

fn prefix(text: &str) -> MobileNetworkPrefix {
    MobileNetworkPrefix::new(text.parse().unwrap()).unwrap()
}

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
            recovers_in_seconds: None,
            metered: false,
            quota: None,
            load: None,
            rtt_ms: None,
            rtt_p95_ms: None,
            jitter_ms: None,
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
            recovers_in_seconds: None,
            metered: true,
            quota: None,
            load: None,
            rtt_ms: None,
            rtt_p95_ms: None,
            jitter_ms: None,
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

pub fn policy() -> PolicyDocument {
    let rule = |name: &str, line, says: &str| RuleDocument {
        home: "acme".into(),
        name: name.into(),
        file: "bus.kdl".to_owned(),
        line,
        says: says.to_owned(),
        links: vec!["wlan0".into(), "wwan0".into()],
        otherwise: Vec::new(),
    };
    PolicyDocument {
        name: "city-bus".to_owned(),
        role: Role::MobileRouter,
        file: Some("/etc/mtun/bus.kdl".into()),
        text: Some("policy \"city-bus\"\n".to_owned()),
        rules: vec![
            rule("ssh", 44, "prefer wwan0 wlan0"),
            rule("default", 50, "prefer wlan0 wwan0, else any"),
        ],
        homes: vec![PolicyHomeDocument {
            home: "acme".into(),
            route_optimization: Some(RouteOptimizationStart::Traffic),
            returning_home: ReturningHome::Home,
        }],
        correspondent: vec!["2001:db8:100::42".parse().unwrap()],
        added: None,
    }
}

/// The present policy of the history, as it waits for being confirmed.
pub fn history_entry() -> PolicyHistoryEntry {
    PolicyHistoryEntry {
        entry: 4,
        name: "city-bus".to_owned(),
        file: Some("/etc/mtun/bus.kdl".into()),
        applied_ms: 1_795_317_258_500,
        uid: Some(0),
        cause: PolicyCause::Apply,
        rules: 2,
        state: PolicyEntryState::Unconfirmed,
        confirm_within_seconds: Some(42),
    }
}

/// The policies that were in force: the present one, its predecessor, one taken back.
pub fn history() -> PolicyHistoryDocument {
    let before = PolicyHistoryEntry {
        entry: 3,
        state: PolicyEntryState::Replaced,
        cause: PolicyCause::Unconfirmed,
        uid: None,
        confirm_within_seconds: None,
        ..history_entry()
    };
    let taken_back = PolicyHistoryEntry {
        entry: 2,
        name: "trial".to_owned(),
        state: PolicyEntryState::RolledBack,
        cause: PolicyCause::Apply,
        uid: Some(1000),
        file: None,
        ..before.clone()
    };
    PolicyHistoryDocument { entries: vec![history_entry(), before, taken_back], text: None }
}

/// What another policy would change: every ssh flow would leave wwan0.
pub fn diff() -> PolicyDiffDocument {
    let rule = |name: &str, line| RuleReference {
        name: name.into(),
        file: Some("new.kdl".to_owned()),
        line: Some(line),
    };
    PolicyDiffDocument {
        from: "city-bus".to_owned(),
        to: "city-bus".to_owned(),
        added: vec![rule("voice", 40)],
        removed: vec![],
        changed: vec![rule("ssh", 44)],
        kept: 1,
        mobiles_added: Vec::new(),
        mobiles_removed: Vec::new(),
        mobiles_changed: Vec::new(),
        beside_the_file: 0,
        flows: 12,
        moving: 3,
        moving_bytes_per_second: Some(1_250_000),
        other_rule: 2,
        moves: vec![DiffMoveDocument {
            home: "acme".into(),
            rule_before: Some("ssh".into()),
            rule: Some("ssh".into()),
            from: mtun_policy::End::Via("wwan0".into()),
            to: mtun_policy::End::Via("wlan0".into()),
            flows: 3,
            bytes_per_second: Some(1_250_000),
            example: flows()[0].key.clone(),
        }],
    }
}

/// Figures of a daemon that has just started: everything is named and nothing has happened.
pub fn first_figures() -> MetricsInput {
    let mut input = MetricsInput { policy_last_reload_success: true, ..MetricsInput::default() };
    let home = || "acme".into();
    input.homes.push(HomeFigures { home: home(), generation: 0, agent_bindings: 0 });
    input.routes.push(RouteFigures { home: home(), bindings: 0 });
    let message = "home-test-init".to_owned();
    input.route_messages.push(RouteMessageFigures { home: home(), message, messages: 0 });
    let reason = "headers-eaten".to_owned();
    input.route_failures.push(RouteFailureFigures { home: home(), reason, failures: 0 });
    input.correspondent_bindings = Some(0);
    for state in ["pending", "active", "inactive", "refused"] {
        let (home, state) = (home(), state.to_owned());
        input.flow_bindings.push(FlowBindingFigures { home, state, flow_bindings: 0 });
    }
    input.store =
        Some(StoreFigures { failures: vec![("full".to_owned(), 0)], ..StoreFigures::default() });
    for reason in ["no-usable-binding", "not-ours"] {
        let (home, reason) = ("acme".to_owned(), reason.to_owned());
        input.drops.push(DropFigures { home, reason, packets: 0 });
    }
    for link in ["wlan0", "wwan0"] {
        input.links.push(LinkFigures {
            link: link.into(),
            up: false,
            usable: false,
            loss_ratio: Some(0.0),
            rtt_seconds: Some(0.0),
            rtt_p95_seconds: Some(0.0),
            jitter_seconds: Some(0.0),
            signal_dbm: Some(0),
            path_mtu: Some(0),
        });
        for result in ["sent", "answered", "lost", "late"] {
            let (link, result) = (link.into(), result.to_owned());
            input.probes.push(ProbeFigures { link, result, probes: 0 });
        }
        input.sources.push(SourceFigures { of: link.to_owned(), telling: false });
        let (of, reason) = (link.to_owned(), "unreadable".to_owned());
        input.source_faults.push(SourceFaultFigures { of, reason, count: 0 });
        for (state, reason) in [("up", "configured"), ("down", "carrier-lost")] {
            let (state, reason) = (state.to_owned(), reason.to_owned());
            input.link_states.push(LinkStateFigures {
                link: link.into(),
                state,
                reason,
                changes: 0,
            });
        }
        let expires_timestamp_seconds = 0.0;
        let binding = BindingFigures { home: home(), link: link.into(), expires_timestamp_seconds };
        input.bindings.push(binding);
        for status in ["accepted", "128 (reason unspecified)"] {
            let (link, status) = (link.to_owned(), status.to_owned());
            input.binding_updates.push(BindingUpdateFigures {
                home: home(),
                link,
                status,
                updates: 0,
            });
        }
        input.flows.push(FlowFigures { home: home(), link: link.to_owned(), flows: 0 });
        for direction in [Direction::Up, Direction::Down] {
            let link = link.to_owned();
            input.tunnels.push(TunnelFigures {
                home: home(),
                link: link.clone(),
                direction,
                bytes: 0,
                packets: 0,
            });
            input.straight.push(input.tunnels[input.tunnels.len() - 1].clone());
            let rule = "ssh".into();
            input.rules.push(RuleFigures { home: home(), rule, link, direction, bytes: 0 });
        }
    }
    input.copies.push(CopyFigures { home: home(), event: "removed".to_owned(), count: 0 });
    input.fast_path.push(FastPathFigures { home: home(), outcome: "sent".to_owned(), packets: 0 });
    input.flow_moves.push(FlowMoveFigures {
        from: "wlan0".to_owned(),
        to: "wwan0".to_owned(),
        reason: "link-down".to_owned(),
        moves: 0,
    });
    input
}
