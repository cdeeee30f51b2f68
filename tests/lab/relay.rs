//! From one mobile to another: their agent exchanges one outer header for the other, once the kernel
//! has forwarded packets of the flow both ways.
//!
//! ```text
//!  n1 -- mr1 --\             /-- mr2 -- n2
//!               >-- core ---<
//!                    |
//!                   ha
//! ```

use mtun::lab::namespace::wait_for;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe};
use mtun::lab::world::address::CORRESPONDENT;
use mtun_dataplane::abi::FastOutcome;
use serde_json::Value;

use crate::fast_path::{exchange_with, has_fast_path, outcome};
use crate::fixture::PATIENCE;
use crate::ground::Ground;
use crate::need_lab;
use crate::shortcut::story;
use crate::texts::{agent, mobile, networks};

/// More than a flow needs before it is sent on by the shortcut.
const MANY: u32 = 300;
/// The networks behind the two routers; n2 has the address that probes are sent to.
const FIRST: &str = "2001:db8:100:4200::/64";
const SECOND: &str = "2001:db8:c::/64";

struct Two {
    probe: Probe,
    _echo: Echo,
    ground: Ground,
}

/// Two routers and their agent. The second one's uplink takes as many octets as said.
fn two_routers(mtu: u32, prepare: impl FnOnce(&Ground)) -> Ground {
    let mut ground = Ground::new();
    ground.bystanders(&["n1", "n2"], &["core", "ha"]);
    ground.mobiles(&["mr1", "mr2"]);
    ground.cable(
        ("core", "a0", &["2001:db8:f0::1/64"]),
        ("ha", "core0", &["2001:db8:f0::2/64", "2001:db8:100::1/128"]),
    );
    ground.routes("core", &["2001:db8:100::/48 via 2001:db8:f0::2"]);
    ground
        .routes("ha", &["default via 2001:db8:f0::1", "unreachable 2001:db8:100::/48 metric 4000"]);
    for (number, router, node) in [(1, "mr1", "n1"), (2, "mr2", "n2")] {
        let (near, far) = (format!("2001:db8:{number}::1"), format!("2001:db8:{number}::7/64"));
        let end = format!("r{number}");
        ground.cable(("core", &end, &[&format!("{near}/64")]), (router, "wlan0", &[&far]));
        let (lan, own) = match number {
            1 => ("2001:db8:100:4200::1/64", "2001:db8:100:4200::10/64".to_owned()),
            _ => ("2001:db8:c::1/64", format!("{CORRESPONDENT}/64")),
        };
        ground.cable((router, "lan0", &[lan]), (node, "eth0", &[&own]));
        ground.routes(router, &[&format!("default via {near} dev wlan0 metric 1024")]);
        ground.routes(node, &[&format!("default via {}", lan.trim_end_matches("/64"))]);
    }
    for (machine, interface) in [("core", "r2"), ("mr2", "wlan0")] {
        ground.at(machine).ip(&[&format!("link set {interface} mtu {mtu}")]).unwrap();
    }
    prepare(&ground);
    ground.share_key("h.key", &["ha", "mr1", "mr2"]);
    ground.start("ha", &agent(0x100, &[(0x42, &[FIRST]), (0x43, &[SECOND])]));
    for (router, host, prefix) in [("mr1", 0x42, FIRST), ("mr2", 0x43, SECOND)] {
        let network = networks(&[prefix], "on=lan0");
        ground.start(router, &mobile("mobile-router", 0x100, host, &network));
        ground.registered(router, &["wlan0"]);
    }
    ground
}

impl Two {
    /// A conversation between the nodes that the agent sends on both ways.
    fn start(mtu: u32, prepare: impl FnOnce(&Ground)) -> Option<Self> {
        let ground = two_routers(mtu, prepare);
        if !has_fast_path(ground.daemon("ha")) {
            return None;
        }
        let echo = Echo::start(ground.at("n2")).unwrap();
        let probe = Probe::start(ground.at("n1"), &echo, INTERVAL, &Bound::Nowhere).unwrap();
        let two = Self { probe, _echo: echo, ground };
        two.takes_it("at first");
        Some(two)
    }

    fn relayed(&self) -> u64 {
        outcome(self.ground.daemon("ha"), FastOutcome::ShortcutRelayed)
    }

    /// Nearly all packets that the agent has are sent on so.
    fn takes_it(&self, when: &str) {
        let rises = wait_for("the shortcut", PATIENCE, || {
            let (before, mark) = (self.relayed(), self.probe.mark());
            self.let_run(MANY);
            let sent = u64::from(self.probe.mark() - mark);
            (self.relayed() > before + sent * 3 / 2).then_some(())
        });
        let carried = || self.probe.tally_since(0);
        assert!(rises.is_ok(), "{when}: {:?}\n{}", carried(), story(self.ground.daemon("ha")));
    }

    /// Waits until so many further packets were sent.
    fn let_run(&self, count: u32) {
        let mark = self.probe.mark();
        let sent = || (self.probe.mark() >= mark + count).then_some(());
        wait_for("packets", PATIENCE, sent).unwrap();
    }

    /// What is sent on is shown as what came from the one and as what left for the other.
    fn counts_for_both(&self) {
        let mark = u64::from(self.probe.mark());
        let flows = self.ground.daemon("ha").mtun_ok(&["flows"]).unwrap();
        for (end, far) in [("destination", "packets_out"), ("source", "packets_in")] {
            let of_probe = |flow: &&Value| {
                let key = &flow["key"];
                let port = &key[format!("{end}_port")];
                (&key[end], port) == (&CORRESPONDENT.to_string().into(), &PORT.into())
            };
            let flow = flows["flows"].as_array().unwrap().iter().find(of_probe).unwrap();
            assert!(flow[far].as_u64().unwrap() >= mark, "{mark} {flow}");
        }
    }

    fn comes_back(&self) {
        let mark = self.probe.mark();
        self.probe.wait_for_echo_after(mark + MANY, PATIENCE).unwrap();
    }
}

/// Neither are packets lost when the agent begins with it, nor does a stream of superpackets take
/// harm; and it counts for both mobiles.
#[test]
fn packets_between_mobiles_are_sent_on_in_their_place() {
    need_lab!();
    let Some(two) = Two::start(1500, |_| {}) else { return };
    let mark = two.probe.mark();
    let before = two.relayed();
    let at = |name| two.ground.at(name);
    exchange_with((at("n2"), CORRESPONDENT), at("n1"), 7031);
    two.takes_it("beside a stream");
    assert!(two.relayed() > before + u64::from(MANY), "{before} {}", two.relayed());
    let tally = two.probe.tally_since(mark);
    assert_eq!((tally.outbound.lost, tally.inbound.lost), (0, 0), "{tally:?}");
    assert_eq!(outcome(two.ground.daemon("ha"), FastOutcome::Broken), 0);
    two.counts_for_both();
}

/// What the owner's rules say between two mobiles counts from the moment they say it.
#[test]
fn a_rule_of_the_agents_owner_is_obeyed_between_mobiles() {
    need_lab!();
    let strict = "ct state established,related accept\n  ct state invalid drop\n  \
                  ip6 nexthdr icmpv6 accept\n  iifname \"mtun0\" oifname \"mtun0\" accept\n  drop";
    let chain = "type filter hook forward priority 0; policy accept;";
    let table = |rules: &str| {
        format!("table inet owner {{\n chain forward {{\n  {chain}\n  {rules}\n }}\n}}\n")
    };
    let Some(two) = Two::start(1500, |ground| ground.at("ha").nft(&table(strict)).unwrap()) else {
        return;
    };
    let at = |name| two.ground.at(name);
    exchange_with((at("n2"), CORRESPONDENT), at("n1"), 7032);
    let drops = format!("insert rule inet owner forward udp dport {PORT} drop\n");
    at("ha").nft(&drops).unwrap();
    let silent = || {
        let mark = two.probe.mark();
        two.let_run(MANY);
        (two.probe.tally_since(mark).outbound.received == 0).then_some(())
    };
    wait_for("silence", PATIENCE, silent).unwrap();
    at("ha").nft("delete table inet owner\n").unwrap();
    two.comes_back();
    two.takes_it("without the rule");
}

/// What one link takes and the other does not is answered, never lost: TCP goes on.
#[test]
fn a_smaller_link_behind_the_agent_is_told() {
    need_lab!();
    let Some(two) = Two::start(1400, |_| {}) else { return };
    let at = |name| two.ground.at(name);
    exchange_with((at("n2"), CORRESPONDENT), at("n1"), 7033);
    two.takes_it("beside a stream");
}
