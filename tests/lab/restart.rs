//! The home agent's state over its own death: what was acknowledged is there when it comes back,
//! nothing that ended returns, and no update works twice.

use std::collections::BTreeSet;
use std::path::Path;

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::{Arguments, Daemon, Side};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use mtun::store::FORMAT;
use redb::TableDefinition;

use crate::fixture::{Lab, assert_alive, figure_11, programs};
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

/// Has a store say that it was written in this format.
fn set_format(file: &Path, format: u64) {
    let about = TableDefinition::<&str, u64>::new("about");
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(about).unwrap().insert("format", format).unwrap();
    transaction.commit().unwrap();
}

/// F-17: an upgrade finds the bindings of the version before, and what a newer one has written is told
/// and not touched, so that going back to it finds everything.
#[test]
fn a_store_goes_up_and_down_one_version() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let before = held(&lab.agent().status().unwrap());
    let sent = updates(&lab);
    let file = lab.world.directory().join("agent/state/bindings.redb");

    lab.agent.take().unwrap().process.kill().unwrap();
    set_format(&file, FORMAT - 1);
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());

    lab.agent.take().unwrap().process.kill().unwrap();
    set_format(&file, FORMAT + 1);
    let none = Arguments::default();
    let refused = Daemon::start(&lab.world, &programs(), Side::Agent, &lab.text, &none);
    let words = format!("{:#}", refused.expect_err("a newer store"));
    assert!(words.contains("run the newer version"), "{words}");

    set_format(&file, FORMAT);
    start_agent(&mut lab, &[]);
    assert_eq!(held(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());
    assert_eq!(updates(&lab), sent, "nobody registered anew");
}
