//! The home agent's state over its own death: what was acknowledged is there when it comes back,
//! nothing that ended returns, and no update works twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::{Arguments, Daemon, Side};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};
use mtun::store::{Change, Database, FORMAT, Sealed, Store};
use redb::TableDefinition;

use crate::fixture::{Lab, PATIENCE, assert_alive, figure_11, programs};
use crate::fleet::{Fleet, home};
use crate::need_lab;

/// The bindings that an agent holds: home address, BID and care-of address.
fn held(status: &StatusDocument) -> BTreeSet<String> {
    let mobiles = status.mobiles.iter();
    let bindings = mobiles.flat_map(|mobile| {
        let name = mobile.home_address;
        mobile.bindings.iter().map(move |it| format!("{name} {:?} {:?}", it.bid, it.care_of))
    });
    bindings.collect()
}

/// Binding Updates that the mobile has sent so far.
fn updates(lab: &Lab) -> u64 {
    let figures = Lab::metrics(lab.mobile());
    let sent = figures.binding_updates.iter().filter(|it| it.status == "sent");
    sent.map(|it| it.updates).sum()
}

fn start_agent(lab: &mut Lab, arguments: &[&str]) {
    let arguments = Arguments(arguments.iter().map(|word| (*word).to_owned()).collect());
    let text = lab.text.clone();
    let agent = Daemon::start(&lab.world, &programs(), Side::Agent, &text, &arguments).unwrap();
    lab.agent = Some(agent);
}

/// req PS-01, PS-06, F-05: killed and started again, the agent holds what it had acknowledged
/// before anybody registered anew, and the flows go on.
#[test]
fn a_killed_agent_comes_back_with_its_bindings() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let before = held(&lab.agent().status().unwrap());
    assert_eq!(before.len(), 2, "{before:?}");
    let sent = updates(&lab);
    lab.agent.take().unwrap().process.kill().unwrap();
    start_agent(&mut lab, &[]);
    let after = lab.agent().status().unwrap();
    assert_eq!(held(&after), before, "{}", lab.agent().story());
    assert_eq!(after.mobiles[0].prefixes.len(), 1, "{:?}", after.mobiles[0]);
    assert_alive(&traffic);
    lab.settled(&traffic, figure_11);
    assert_eq!(updates(&lab), sent, "nobody registered anew");
    lab.assert_clean();
}

/// req PS-06: whoever gets the first answer of an agent that died finds everybody else reachable: the
/// tunnel and the routes of all that are bound stand before it leaves.
#[test]
fn routes_and_tunnels_stand_before_the_first_answer() {
    need_lab!();
    let mut text = PolicyText::default().with_virtual_home_link();
    let marker = "    allow \"2001:db8:100::43\"";
    assert!(text.agent.contains(marker));
    let allow = format!("    allow \"{}\" {{ security \"acme-sa\"; }}\n{marker}", home(1).0);
    text.agent = text.agent.replace(marker, &allow);
    let mut lab = Lab::start(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let mut fleet = Fleet::new(&lab.world);
    let way = |world: &World, to| world.ha.exec(&format!("ip -6 route get {to}"));
    let by_tunnel = |world: &World, to| way(world, to).is_ok_and(|way| way.contains("dev mtun0"));
    for round in 0..5 {
        lab.agent.take().unwrap().process.kill().unwrap();
        fleet.listen();
        // Not even what a killed daemon leaves behind is there.
        lab.world.ha.ip(&["link delete mtun0"]).unwrap();
        assert!(!by_tunnel(&lab.world, address::HOME));
        let (world, text) = (&lab.world, lab.text.clone());
        let (before, begun, none) = (fleet.acknowledged, Instant::now(), Arguments::default());
        let start = || Daemon::start(world, &programs(), Side::Agent, &text, &none).unwrap();
        let agent = std::thread::scope(|scope| {
            let starting = scope.spawn(start);
            while fleet.acknowledged == before {
                assert!(begun.elapsed() < PATIENCE, "round {round}: no answer");
                fleet.update_of(1);
                std::thread::sleep(Duration::from_millis(2));
                fleet.listen();
            }
            for to in [address::HOME, address::NODE] {
                assert!(by_tunnel(world, to), "round {round}: {to} goes {:?}", way(world, to));
            }
            starting.join().unwrap()
        });
        lab.agent = Some(agent);
    }
    assert_eq!(held(&lab.agent().status().unwrap()).len(), 3);
}

/// req PS-07: what ended while the agent was away does not come back, however it ended.
#[test]
fn what_was_ended_stays_ended() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    // A stop of the mobile de-registers.
    lab.mobile.take().unwrap().process.stop().unwrap();
    assert_eq!(held(&lab.agent().status().unwrap()), BTreeSet::new());
    lab.agent.take().unwrap().process.kill().unwrap();
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), BTreeSet::new());
    // And it is no obstacle to a new start of the same mobile.
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
}

/// req PS-04: a store that is damaged is told with its place and a way out, and nothing is lost by
/// the refusal.
#[test]
fn a_damaged_store_is_refused_and_can_be_salvaged() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let mut agent = lab.agent.take().unwrap();
    agent.process.kill().unwrap();
    let store = agent.policy().parent().unwrap().join("state").join("bindings.redb");
    let mut octets = std::fs::read(&store).unwrap();
    for octet in &mut octets[..4096] {
        *octet ^= 0x55;
    }
    std::fs::write(&store, &octets).unwrap();
    let text = lab.text.clone();
    let refused = Daemon::start(&lab.world, &programs(), Side::Agent, &text, &Arguments::default());
    let error = format!("{:#}", refused.unwrap_err());
    assert!(error.contains("bindings.redb is damaged"), "{error}");
    assert!(error.contains("--salvage-bindings"), "{error}");
    assert_eq!(std::fs::read(&store).unwrap(), octets, "left as it was");
    start_agent(&mut lab, &["--salvage-bindings"]);
    let story = lab.agent().story();
    assert!(story.contains("was salvaged"), "{story}");
}

/// Has a store say that it was written in this format, for versions from `readable` on.
fn set_format(file: &Path, format: u64, readable: u64) {
    let about = TableDefinition::<&str, u64>::new("about");
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    for (word, says) in [("format", format), ("readable", readable)] {
        transaction.open_table(about).unwrap().insert(word, says).unwrap();
    }
    transaction.commit().unwrap();
}

/// Adds to each record what only a later version knows, and may be lost.
fn add_later_extensions(file: &Path) {
    let mut store = Database::open(file).unwrap();
    let extended = store.load().unwrap().into_iter().map(|(key, sealed)| {
        let (moment, record) = sealed.open(key).expect("as it was sealed");
        let record = Sealed::seal(key, moment, |out| {
            out.extend_from_slice(record);
            out.extend_from_slice(&[0xff, 0xfe, 0, 3, 1, 2, 3]);
        });
        Change { key, record: Some(record) }
    });
    let extended: Vec<_> = extended.collect();
    assert!(!extended.is_empty());
    store.commit(&extended).unwrap();
}

/// PS-09, F-17: an upgrade finds the bindings of the version before, and going back finds those of the version
/// after; what this version must not read is told and not touched.
#[test]
fn a_store_goes_up_and_down_one_version() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let before = held(&lab.agent().status().unwrap());
    let sent = updates(&lab);
    let file = lab.world.directory().join("agent/state/bindings.redb");

    lab.agent.take().unwrap().process.kill().unwrap();
    set_format(&file, FORMAT - 1, FORMAT - 1);
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());

    lab.agent.take().unwrap().process.kill().unwrap();
    add_later_extensions(&file);
    set_format(&file, FORMAT + 1, FORMAT);
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());

    lab.agent.take().unwrap().process.kill().unwrap();
    set_format(&file, FORMAT + 1, FORMAT + 1);
    let none = Arguments::default();
    let refused = Daemon::start(&lab.world, &programs(), Side::Agent, &lab.text, &none);
    let words = format!("{:#}", refused.expect_err("a newer store"));
    assert!(words.contains("run the newer version"), "{words}");

    set_format(&file, FORMAT, FORMAT);
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());
    assert_eq!(updates(&lab), sent, "nobody registered anew");
}
