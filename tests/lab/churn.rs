//! Links, policies and flows that come and go at random under load. Between two changes every packet
//! of every flow is held against a reading of the rules and the links that this file makes by
//! itself: which uplink it had to take, both ways, as captured on the wire.
//!
//! `MTUN_CHURN_SECONDS` is how long, a quarter of a minute by default; `MTUN_SEED` tells another
//! story.

use std::collections::HashMap;
use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};

use mtun::lab::flows::{self, Kind, TcpFlow};
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe;
use mtun::lab::traffic::Traffic;
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, assert_alive};
use crate::need_lab;

const LINKS: [&str; 2] = ["wlan0", "wwan0"];

/// What rules and links say at a moment.
#[derive(Clone, Copy, Debug)]
struct World {
    wlan: bool,
    wwan: bool,
    /// Whether the policy has its rule that probes take W-CDMA.
    probes_by_wwan: bool,
    /// Whether an operator has said that SSH takes the WLAN.
    ssh_by_wlan: bool,
}

impl World {
    /// The uplink that every packet of a flow has to take.
    fn uplink(&self, flow: &Flow) -> &'static str {
        let wwan_first = match (flow.protocol, flow.peer.1) {
            (6, flows::SSH) => !self.ssh_by_wlan,
            (17, probe::PORT) => self.probes_by_wwan,
            _ => false,
        };
        match (self.wlan, self.wwan, wwan_first) {
            (true, true, false) | (true, false, _) => "wlan0",
            _ => "wwan0",
        }
    }
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % below
    }
}

/// Short flows: asked and answered, and never seen again.
fn passers_by(from: &Namespace, count: usize) {
    for _ in 0..count {
        let socket = from.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        socket.connect((address::CORRESPONDENT, probe::PORT)).unwrap();
        // What comes back is looked at on the wire.
        for _ in 0..8 {
            let _ = socket.send(&[0xa5; 40]);
        }
    }
}

/// Packets of every flow, each way and on each uplink.
type Counts = HashMap<(Flow, bool), [u64; 2]>;

fn counts(lab: &Lab) -> Counts {
    let observatory = &lab.observatory;
    let of = |flow: Flow, way| LINKS.map(|link| observatory.packets(&flow, way, link));
    let flows = observatory.flows().into_iter();
    let ways = flows
        .flat_map(|flow| [((flow, false), of(flow, Way::Out)), ((flow, true), of(flow, Way::In))]);
    ways.collect()
}

/// The story so far, and the world as it should be.
struct Story {
    lab: Lab,
    world: World,
    steered: Option<String>,
    files: [String; 2],
    told: Vec<String>,
}

impl Story {
    /// Something changes; returns when the daemon knows of it.
    fn change(&mut self, dice: &mut Dice) {
        let World { wlan, wwan, probes_by_wwan, ssh_by_wlan } = self.world;
        let (lab, mobile) = (&self.lab, self.lab.mobile());
        match dice.next(4) {
            0 if wlan && wwan => {
                lab.world.wlan_down().unwrap();
                self.world.wlan = false;
            }
            0 if !wlan => {
                lab.world.wlan_up().unwrap();
                self.world.wlan = true;
            }
            1 if wlan => {
                lab.world.wwan_wire().unwrap().set_carrier(!wwan).unwrap();
                self.world.wwan = !wwan;
            }
            2 => {
                let file = &self.files[usize::from(!probes_by_wwan)];
                mobile.mtun_ok(&["policy", "apply", file]).unwrap();
                self.world.probes_by_wwan = !probes_by_wwan;
            }
            3 if ssh_by_wlan => {
                let id = self.steered.take().expect("steered");
                mobile.mtun_ok(&["steer", "undo", &id]).unwrap();
                self.world.ssh_by_wlan = false;
            }
            3 => {
                let words = ["steer", "proto tcp and dport 22", "via", "wlan0", "--for", "10m"];
                let steered = mobile.mtun_ok(&words).unwrap();
                self.steered = steered["override"]["id"].as_u64().map(|id| id.to_string());
                self.world.ssh_by_wlan = true;
            }
            _ => return,
        }
        self.told.push(format!("{:?}", self.world));
        let up = [self.world.wlan, self.world.wwan];
        let up: Vec<_> = LINKS.into_iter().zip(up).filter(|it| it.1).map(|it| it.0).collect();
        self.lab.registered(&up);
    }

    /// Waits until the flows that last are where they belong, and what was under way has arrived.
    fn settles(&self, traffic: &Traffic) {
        let keys = traffic.keys();
        let at = |flow: &Flow, way| self.lab.observatory.uplink(flow, way);
        let settled = wait_for("flows at their uplinks", PATIENCE, || {
            let is_there = |flow: &Flow| {
                let wanted = self.world.uplink(flow);
                [Way::Out, Way::In].iter().all(|way| at(flow, *way).as_deref() == Some(wanted))
            };
            keys.iter().all(|(.., flow)| is_there(flow)).then_some(())
        });
        let found = || {
            keys.iter().map(|(.., it)| (*it, at(it, Way::Out), at(it, Way::In))).collect::<Vec<_>>()
        };
        assert!(settled.is_ok(), "{:?}\n{:?}\n{}", self.told, found(), self.lab.mobile().story());
        traffic.let_run(300).unwrap();
        traffic.all_progress(PATIENCE).unwrap();
    }

    /// Lets old flows go on and short ones come, and judges all their packets; returns how many.
    fn judges(&self, traffic: &Traffic, dice: &mut Dice) -> u64 {
        let before = counts(&self.lab);
        let world = &self.lab.world;
        for from in [&world.mr, &world.mnn] {
            passers_by(from, 1 + dice.next(20));
            let kind = if dice.next(2) == 0 { Kind::Ssh } else { Kind::Bulk };
            let flow = TcpFlow::connect(from, kind, PATIENCE).unwrap();
            flow.wait_for_progress(PATIENCE).unwrap();
        }
        traffic.let_run(300).unwrap();
        let mut judged = 0;
        for ((flow, back), packets) in counts(&self.lab) {
            let old = before.get(&(flow, back)).copied().unwrap_or_default();
            let more = [packets[0] - old[0], packets[1] - old[1]];
            let wanted = self.world.uplink(&flow);
            let other = more[usize::from(wanted == LINKS[0])];
            judged += more[0] + more[1];
            let way = if back { "back" } else { "out" };
            assert_eq!(
                other,
                0,
                "{flow} {way} has to take {wanted}: {LINKS:?} {more:?}\n{:?}\n{}",
                self.told,
                self.lab.mobile().story()
            );
        }
        judged
    }
}

#[test]
fn no_packet_goes_where_rules_and_links_do_not_say() {
    need_lab!();
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let length = Duration::from_secs(number("MTUN_CHURN_SECONDS").unwrap_or(15));
    let mut dice = Dice(number("MTUN_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15).max(1));
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&LINKS);
    let usual = lab.mobile().policy().to_path_buf();
    let other = usual.with_file_name("other.kdl");
    let rule = format!("match proto=udp dport={}\n        prefer wwan0", probe::PORT);
    std::fs::write(&other, lab.text.clone().with_rule("probes", &rule).mobile).unwrap();
    let files = [usual, other].map(|file| file.display().to_string());
    let traffic = lab.traffic();
    let world = World { wlan: true, wwan: true, probes_by_wwan: false, ssh_by_wlan: false };
    let mut story = Story { lab, world, steered: None, files, told: Vec::new() };
    let (start, mut rounds, mut judged) = (Instant::now(), 0, 0);
    while start.elapsed() < length || rounds < 4 {
        story.change(&mut dice);
        story.settles(&traffic);
        judged += story.judges(&traffic, &mut dice);
        rounds += 1;
    }
    println!("{rounds} changes, {judged} packets judged, none misjudged");
    assert!(judged > 1000 * rounds, "{judged} in {rounds}");
    assert_alive(&traffic);
    drop(traffic);
    story.lab.assert_clean();
}
