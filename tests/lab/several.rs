//! Several homes of one mobile.

use std::net::Ipv6Addr;

use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, Probe};
use mtun::lab::world::{Plan, address};
use mtun_policy::HomeName;

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

const UMBRELLA: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 0x42);

/// Waits until the probe's packets come back, and tells what becomes of the next ones.
fn assert_carried(probe: &Probe, what: &str) {
    let echoed = probe.wait_for_echo_after(probe.mark(), PATIENCE);
    assert!(echoed.is_ok(), "{what}: {:#}", echoed.unwrap_err());
    let mark = probe.mark();
    probe.wait_for_echo_after(mark + 100, PATIENCE).unwrap();
    let tally = probe.tally_since(mark);
    assert_eq!((tally.outbound.lost, tally.inbound.lost), (0, 0), "{what}: {tally:?}");
}

#[test]
fn two_homes_have_two_tunnels_and_nothing_crosses() {
    need_lab!();
    let mut lab = Lab::with_agent_prepared(
        Plan::default(),
        PolicyText::default().with_second_home(),
        |world| {
            world.ha.ip(&["address add 2001:db8:200::1/64 dev home0 nodad"]).unwrap();
            let route = "route add 2001:db8:200::/48 via 2001:db8:f0::2";
            world.core.ip(&[route]).unwrap();
        },
    );
    lab.start_mobile(&[]);
    let status = lab
        .mobile()
        .wait_until("both homes", PATIENCE, |status| {
            status.bindings.iter().filter(|binding| binding.usable).count() == 4
        })
        .unwrap();
    let tunnels: Vec<_> = status.homes.iter().map(|home| home.tunnel.name.as_str()).collect();
    assert_eq!(tunnels, ["mtun0", "mtun1"]);

    let echo = Echo::start(&lab.world.cn).unwrap();
    let of = |address| Probe::start(&lab.world.mr, &echo, INTERVAL, &Bound::Address(address));
    let (acme, umbrella) = (of(address::HOME).unwrap(), of(UMBRELLA).unwrap());
    assert_carried(&acme, "acme");
    assert_carried(&umbrella, "umbrella");
    let flows = lab.mobile().flows().unwrap();
    for (port, home, link) in
        [(acme.port(), "acme", "wlan0"), (umbrella.port(), "umbrella", "wwan0")]
    {
        let found: Vec<_> =
            flows.iter().filter(|flow| flow.key.source_port == Some(port)).collect();
        assert_eq!(found.len(), 1, "in one home only: {found:?}");
        assert_eq!(found[0].home, HomeName::from(home));
        let out = found[0].outbound.as_ref().and_then(|path| path.link.as_ref());
        assert_eq!(out.map(|link| link.as_str()), Some(link), "{home}");
    }
    lab.assert_clean();
}
