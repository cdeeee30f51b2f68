//! The kernel's fast path under real traffic: it is used, it takes the ways that the rules say, and
//! everything that is told of its packets stays true.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use mtun::lab::daemons::Daemon;
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, address};
use mtun_dataplane::abi::FastOutcome;

use crate::fixture::{Lab, PATIENCE, figure_11};
use crate::need_lab;

/// Octets of one transfer: enough for superpackets of every size.
const TRANSFER: usize = 16 << 20;

pub fn outcome(daemon: &Daemon, outcome: FastOutcome) -> u64 {
    let figures = Lab::metrics(daemon).fast_path;
    let of = figures.iter().filter(|it| it.outcome == outcome.as_str());
    of.map(|it| it.packets).sum()
}

/// Whether this machine has a fast path; says so if not.
pub fn has_fast_path(daemon: &Daemon) -> bool {
    let status = daemon.status().unwrap();
    match &status.homes[0].tunnel.no_fast_path {
        None => true,
        Some(reason) => {
            crate::skip::skip(&format!("fast path in the lab: {reason}"));
            false
        }
    }
}

/// The octet at a position.
fn octet(at: usize) -> u8 {
    (at.wrapping_mul(0x9e37_79b1) >> 13) as u8
}

/// A service that takes [`TRANSFER`] octets, sends as many back, and says how many came wrong.
fn service(namespace: &Namespace, port: u16) -> thread::JoinHandle<usize> {
    let listener =
        namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).expect("a free port");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let wrong = receive(&mut stream);
        send(&mut stream);
        wrong
    })
}

fn send(stream: &mut TcpStream) {
    let octets: Vec<u8> = (0..TRANSFER).map(octet).collect();
    stream.write_all(&octets).expect("the other end reads");
}

fn receive(stream: &mut TcpStream) -> usize {
    let mut octets = vec![0; TRANSFER];
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("not zero");
    stream.read_exact(&mut octets).expect("the other end writes");
    octets.iter().enumerate().filter(|(at, got)| **got != octet(*at)).count()
}

/// Sends [`TRANSFER`] octets to the correspondent and back; none may come wrong.
pub fn exchange(correspondent: &Namespace, from: &Namespace, port: u16) {
    exchange_with((correspondent, address::CORRESPONDENT), from, port);
}

/// The same with anybody.
pub fn exchange_with((to, address): (&Namespace, Ipv6Addr), from: &Namespace, port: u16) {
    let service = service(to, port);
    let mut stream = from.run(|| TcpStream::connect((address, port))).expect("it listens");
    send(&mut stream);
    assert_eq!(receive(&mut stream), 0, "octets back");
    assert_eq!(service.join().unwrap(), 0, "octets there");
    assert_eq!((damaged(to), damaged(from)), (0, 0));
}

/// Segments that a namespace's TCP found to be damaged.
fn damaged(namespace: &Namespace) -> u64 {
    let text = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let of = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "InCsumErrors");
    of.unwrap().1.parse().unwrap()
}

#[test]
fn flows_of_figure_11_are_carried_by_the_kernel() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    if !has_fast_path(lab.mobile()) {
        return;
    }
    let traffic = lab.traffic();
    for daemon in [lab.mobile(), lab.agent()] {
        // Those of the node behind the router leave the tunnel interface aside.
        let used = |[at_tunnel, past_it]: [FastOutcome; 2]| {
            let carried = || outcome(daemon, at_tunnel) + outcome(daemon, past_it);
            wait_for("the fast path", PATIENCE, || (carried() > 500).then_some(()))
        };
        let story = || format!("{:?}\n{}", Lab::metrics(daemon).fast_path, daemon.story());
        let out = [FastOutcome::Sent, FastOutcome::ShortcutSent];
        assert!(used(out).is_ok(), "{}", story());
        let back = [FastOutcome::Received, FastOutcome::ShortcutReceived];
        assert!(used(back).is_ok(), "{}", story());
    }
    // By the links that the rules say, as captured on the wire.
    lab.settled(&traffic, figure_11);
    for daemon in [lab.mobile(), lab.agent()] {
        assert_eq!(outcome(daemon, FastOutcome::Broken), 0);
    }
    drop(traffic);
    lab.assert_clean();
}

#[test]
fn superpackets_arrive_whole_and_are_counted() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    if !has_fast_path(lab.mobile()) {
        return;
    }
    for (port, namespace, source) in
        [(7001, &lab.world.mr, address::HOME), (7002, &lab.world.mnn, address::NODE)]
    {
        let service = service(&lab.world.cn, port);
        let mut stream = namespace
            .run(|| TcpStream::connect((address::CORRESPONDENT, port)))
            .expect("it listens");
        let from = stream.local_addr().unwrap().port();
        send(&mut stream);
        assert_eq!(receive(&mut stream), 0, "octets down to {source}");
        assert_eq!(service.join().unwrap(), 0, "octets up from {source}");
        let flows = lab.mobile().flows().unwrap();
        let flow = flows.iter().find(|flow| flow.key.source_port == Some(from)).expect("known");
        // Every octet travelled at least once, in packets with headers of their own.
        let least = TRANSFER as u64 + TRANSFER as u64 / 1440 * 60;
        for carried in [flow.bytes_out, flow.bytes_in] {
            assert!((least..2 * least).contains(&carried), "{carried} of at least {least}");
        }
        let on_the_wire = Flow::to_correspondent(6, (source, from), port);
        assert!(lab.observatory.packets(&on_the_wire, Way::Out, "wlan0") > 0, "tunnelled");
    }
    for daemon in [lab.mobile(), lab.agent()] {
        let (sent, received) = (
            outcome(daemon, FastOutcome::Sent) + outcome(daemon, FastOutcome::ShortcutSent),
            outcome(daemon, FastOutcome::Received) + outcome(daemon, FastOutcome::ShortcutReceived),
        );
        assert!(sent > 1000 && received > 1000, "{sent} {received}");
        assert_eq!(outcome(daemon, FastOutcome::Broken), 0);
    }
    for namespace in [&lab.world.mr, &lab.world.mnn, &lab.world.cn] {
        assert_eq!(damaged(namespace), 0);
    }
    lab.assert_clean();
}

#[test]
fn switched_off_it_is_said_and_nothing_passes_by() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.start_mobile(&["--fast-path", "off"]);
    let status = lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(status.homes[0].tunnel.no_fast_path.as_deref(), Some("switched off"));
    let _traffic = lab.traffic();
    assert!(Lab::metrics(lab.mobile()).fast_path.is_empty());
}
