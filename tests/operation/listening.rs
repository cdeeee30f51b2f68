//! Those who listen to the mobility socket and cannot keep up, over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtun::control::documents::SubscriptionBody;
use mtun::control::{Client, Heard, Limits, Request, Response};
use mtun_policy::{Bid, HomeAddress, HomeName};
use mtun_signaling::mobility_socket::{
    CachedBinding, Facts, Filter, MdCommand, MdInfo, MobilityMessage,
};

use super::owner::{Owner, Plan};

fn binding(mobile: u32, at: u32) -> MobilityMessage {
    MobilityMessage::BcAdd(CachedBinding {
        home: Some(HomeName::new("acme")),
        correspondent: None,
        home_address: HomeAddress(format!("2001:db8:100::{mobile:x}").parse().unwrap()),
        bid: Bid::new(1),
        care_of: format!("2001:db8:1::{at:x}").parse::<std::net::Ipv6Addr>().unwrap().into(),
        priority: 1,
        router: true,
        prefixes: vec![
            format!("2001:db8:200:{mobile:x}::/64")
                .parse()
                .map(|net| mtun_policy::MobileNetworkPrefix::new(net).unwrap())
                .unwrap(),
        ],
        expires_ms: u64::from(at),
    })
}

/// Reads until it knows this of mobile 0, whose binding is said last.
fn reconstruct(listening: impl Iterator<Item = Heard>, last: &MobilityMessage) -> (Facts, u64) {
    let (mut facts, mut lost) = (Facts::default(), 0);
    let mut shown = false;
    for heard in listening {
        match heard.body().expect("only messages were asked for") {
            SubscriptionBody::State(message) | SubscriptionBody::Message(message) => {
                facts.apply(&Arc::new((**message).clone()));
            }
            SubscriptionBody::Present { .. } => shown = true,
            SubscriptionBody::Overflow { lost: missed } => {
                lost += missed;
                (facts, shown) = (Facts::default(), false);
            }
        }
        let key = last.fact().unwrap();
        if shown && facts.get(&key).is_some_and(|known| **known == *last) {
            break;
        }
    }
    (facts, lost)
}

/// J3: a client that does not read costs nobody anything, is told of what it missed, and knows all
/// that stands afterwards.
#[test]
fn sixty_four_slow_clients_cost_nobody_anything() {
    // In a process of its own: what other tests take meanwhile is not what these clients cost.
    const ALONE: &str = "MTUN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return slow_clients();
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let name = "listening::sixty_four_slow_clients_cost_nobody_anything";
    let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn slow_clients() {
    const SLOW: usize = 64;
    let limits = Limits { monitors: SLOW + 1, ..Limits::default() };
    let owner = Owner::start(Plan { limits, events: 64, ..Plan::default() });
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(Client::connect(&owner.socket()).unwrap().subscribe(Filter::default()).unwrap());
    }
    let none = Client::connect(&owner.socket()).unwrap().subscribe(Filter::default());
    let mut prompt = none.unwrap();
    assert!(matches!(
        prompt.next().unwrap().unwrap().body(),
        Some(SubscriptionBody::Present { .. })
    ));
    let mut other = Client::connect(&owner.socket()).unwrap();
    let before = resident();
    // Far more than the queues and the socket buffers of the slow ones hold.
    let mut stands = Facts::default();
    for at in 0..20_000 {
        let message = binding(1 + at % 50, at);
        stands.apply(&Arc::new(message.clone()));
        owner.listeners.say(message);
        if at % 16 == 15 {
            // Who reads is not held up and misses nothing.
            for _ in 0..16 {
                let heard = prompt.next().unwrap().unwrap();
                assert!(matches!(heard.body(), Some(SubscriptionBody::Message(_))), "{heard:?}");
            }
        }
        if at % 4000 == 0 {
            assert!(matches!(other.ask(Request::Status {}), Ok(Response::Status(_))));
        }
    }
    let last = binding(0, 0xffff);
    stands.apply(&Arc::new(last.clone()));
    owner.listeners.say(last.clone());
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} octets more for {SLOW} slow clients");
    for slow in slow {
        let (knows, lost) = reconstruct(slow.map(|heard| heard.unwrap()), &last);
        assert!(lost > 0, "it did miss some");
        assert_eq!(knows, stands);
    }
}

/// Octets of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn one_that_listens_may_leave_at_any_moment() {
    let limits = Limits { monitors: 1, ..Limits::default() };
    let owner = Owner::start(Plan { limits, events: 8, ..Plan::default() });
    for round in 0..50 {
        // The place of the one before is free once the node has noticed.
        let mut listening = (0..4000)
            .find_map(|_| {
                let client = Client::connect(&owner.socket()).unwrap();
                client.subscribe(Filter::default()).ok().or_else(|| {
                    std::thread::yield_now();
                    None
                })
            })
            .expect("a place");
        for at in 0..20 * round {
            owner.listeners.say(binding(at, at));
        }
        listening.next().unwrap().unwrap();
    }
    assert!(matches!(
        Client::connect(&owner.socket()).unwrap().ask(Request::Status {}),
        Ok(Response::Status(_))
    ));
}

#[test]
fn nothing_is_built_while_nobody_listens() {
    let owner = Owner::start(Plan::default());
    assert!(!owner.listeners.is_listened());
    let listening = Client::connect(&owner.socket()).unwrap().subscribe(Filter::default()).unwrap();
    assert!(owner.listeners.is_listened());
    drop(listening);
    let deadline = Instant::now() + Duration::from_secs(20);
    while owner.listeners.is_listened() {
        assert!(Instant::now() < deadline, "it has left");
        std::thread::yield_now();
    }
}

#[test]
fn one_that_drives_a_link_may_be_silent() {
    let limits = Limits { clients: 4, idle: Duration::from_millis(50), ..Limits::default() };
    let owner = Owner::start(Plan { limits, ..Plan::default() });
    let moved = |command| {
        let link = Some("wlan0".into());
        MobilityMessage::MdInfo(MdInfo { link, ..MdInfo::new(command) })
    };
    let mut detector = Client::connect(&owner.socket()).unwrap();
    let sent = detector.send(moved(MdCommand::DeregForeign)).unwrap();
    assert_eq!(sent.claimed, Some("wlan0".into()));
    // Another that says nothing is sent away meanwhile, and much later this one is still here.
    let mut idle = UnixStream::connect(owner.socket()).unwrap();
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).unwrap(), 0);
    assert!(detector.send(moved(MdCommand::ReReg)).is_ok());
}

#[test]
fn a_client_that_never_reads_its_answers_is_sent_away() {
    let limits = Limits { write: Duration::from_millis(100), ..Limits::default() };
    let owner = Owner::start(Plan { limits, ..Plan::default() });
    let mut deaf = UnixStream::connect(owner.socket()).unwrap();
    let request = b"{\"version\":1,\"id\":1,\"request\":{\"command\":\"status\"}}\n";
    let closed = (0..100_000).any(|_| deaf.write_all(request).is_err());
    assert!(closed);
    let mut lines = BufReader::new(deaf).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("\"ok\":true"))));
}
