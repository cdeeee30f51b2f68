//! The home agent's state over its own death: what was acknowledged is there when it comes back,
//! nothing that ended returns, and no update works twice.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::{Arguments, Daemon, Side, cached, write_keys};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};
use mtun::store::{Change, Database, FORMAT, NEEDS, Sealed, Store};
use redb::TableDefinition;

use crate::fixture::{Lab, PATIENCE, assert_alive, figure_11, programs};
use crate::fleet::{Fleet, home};
use crate::need_lab;
use crate::power::started;

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

/// Has a store say that it was written in this format, for versions that know at least `needs`.
fn set_format(file: &Path, format: u64, needs: u64) {
    let about = TableDefinition::<&str, u64>::new("about");
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    for (word, number) in [("format", format), ("needs", needs)] {
        transaction.open_table(about).unwrap().insert(word, number).unwrap();
    }
    transaction.commit().unwrap();
}

/// Makes of a store what the next version leaves: its format, and something in each record that
/// others skip.
fn as_the_next_one_writes(file: &Path) {
    let mut store = Database::open(file).unwrap();
    let records = store.load().unwrap();
    let changes = records.iter().map(|(key, sealed)| {
        let (taken, record) = sealed.open(*key).unwrap();
        let more = Sealed::seal(*key, taken, |out| {
            out.extend_from_slice(record);
            out.extend_from_slice(&[0xff, 0xff, 0, 2, 1, 2]);
        });
        Change { key: *key, record: Some(more) }
    });
    store.commit(&changes.collect::<Vec<_>>()).unwrap();
    drop(store);
    set_format(file, FORMAT + 1, FORMAT);
}

/// PS-09, F-17: an upgrade finds the bindings of the version before, a downgrade those of the one after, and
/// what neither may read is told and not touched, so that going on finds everything.
#[test]
fn a_store_goes_up_and_down_one_version() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let before = held(&lab.agent().status().unwrap());
    let sent = updates(&lab);
    let file = lab.world.directory().join("agent/state/bindings.redb");

    type Neighbour = fn(&Path);
    let neighbours: [(&str, Neighbour); 2] = [
        ("the one before", |file| set_format(file, FORMAT - 1, FORMAT - 1)),
        ("the next one", as_the_next_one_writes),
    ];
    for (what, written) in neighbours {
        lab.agent.take().unwrap().process.kill().unwrap();
        written(&file);
        start_agent(&mut lab, &[]);
        let now = held(&lab.agent().status().unwrap());
        assert_eq!(now, before, "{what}: {}", lab.agent().story());
    }

    lab.agent.take().unwrap().process.kill().unwrap();
    set_format(&file, FORMAT + 1, FORMAT + 1);
    let none = Arguments::default();
    let refused = Daemon::start(&lab.world, &programs(), Side::Agent, &lab.text, &none);
    let words = format!("{:#}", refused.expect_err("a newer store"));
    assert!(words.contains("run the newer version"), "{words}");

    set_format(&file, FORMAT, NEEDS);
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());
    assert_eq!(updates(&lab), sent, "nobody registered anew");
    assert_alive(&traffic);
    lab.assert_clean();
}

/// F-17: a build from before flow bindings were kept has written this file (tests/fixtures/README.md).
/// Its machine is gone and so is the time in between, as far as this one knows.
#[test]
fn what_an_older_build_has_written_is_held() {
    need_lab!();
    let world = World::build(Plan::default()).unwrap();
    write_keys(&world).unwrap();
    let directory = world.directory().to_owned();
    let state = directory.join("agent/state");
    std::fs::create_dir_all(&state).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/older-bindings.redb");
    std::fs::copy(fixture, state.join("bindings.redb")).unwrap();
    let ago = Arguments(["--clock-offset", "-315360000"].map(str::to_owned).to_vec());
    let (later, text) = (started(&directory, 2), PolicyText::default());
    let agent = Daemon::start(&world, &later, Side::Agent, &text, &ago).unwrap();
    let status = agent.status().unwrap();
    let care_of = cached(&status);
    assert_eq!(care_of, [address::WLAN, address::WWAN].map(IpAddr::V6), "{}", agent.story());
    assert_eq!(status.mobiles[0].home_address.0, address::HOME);
    assert_eq!(status.mobiles[0].prefixes.len(), 1, "{:?}", status.mobiles[0]);
}
