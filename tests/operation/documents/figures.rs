//! The figures behind the metrics.

use mtun::metrics::{
    BindingFigures, BindingUpdateFigures, CopyFigures, Direction, DropFigures, FastPathFigures,
    FlowBindingFigures, FlowFigures, FlowMoveFigures, HomeFigures, LinkFigures, LinkStateFigures,
    MetricsInput, ProbeFigures, RouteFailureFigures, RouteFigures, RouteMessageFigures,
    RuleFigures, SourceFaultFigures, SourceFigures, StoreFigures, TunnelFigures,
};

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
            conversation_rtt_seconds: Some(0.0),
            flaps: Some(0),
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
