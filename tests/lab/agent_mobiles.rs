//! `mtun agent`: mobiles that come and go while the home agent serves others.

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::{Arguments, Daemon, Side, cached};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;
use serde_json::Value;

use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless, programs};
use crate::fleet::{Fleet, home};
use crate::need_lab;

const MOBILE: &str = "2001:db8:100::42";

fn start_agent(lab: &mut Lab) {
    let text = lab.text.clone();
    let agent =
        Daemon::start(&lab.world, &programs(), Side::Agent, &text, &Arguments::default()).unwrap();
    lab.agent = Some(agent);
}

/// One mobile as `mtun agent list` shows it.
fn listed(agent: &Daemon, address: &str) -> Option<Value> {
    let list = agent.mtun_ok(&["agent", "list"]).unwrap();
    let mut mobiles = list["mobiles"].as_array().unwrap().iter();
    mobiles.find(|it| it["home_address"] == address).cloned()
}

/// Has one mobile of the fleet send until it is answered; whether it was accepted.
fn answered(fleet: &mut Fleet, mobile: u16) -> bool {
    let before = (fleet.acknowledged, fleet.refused);
    wait_for("an answer", PATIENCE, || {
        fleet.update_of(mobile);
        std::thread::sleep(std::time::Duration::from_millis(50));
        fleet.listen();
        (before != (fleet.acknowledged, fleet.refused)).then_some(())
    })
    .unwrap();
    fleet.acknowledged > before.0
}

fn of_42(status: &StatusDocument) -> usize {
    let ours = status.mobiles.iter().filter(|it| it.home_address.0.to_string() == MOBILE);
    ours.map(|it| it.bindings.len()).sum()
}

fn updates(lab: &Lab) -> u64 {
    let figures = Lab::metrics(lab.mobile());
    let sent = figures.binding_updates.iter().filter(|it| it.status == "sent");
    sent.map(|it| it.updates).sum()
}

/// HA-12: who may register is a matter of the moment, and nobody else's bindings are touched.
#[test]
fn mobiles_come_and_go_and_the_others_notice_nothing() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default().with_virtual_home_link());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let mut fleet = Fleet::new(&lab.world);
    let (one, two) = (home(1).to_string(), home(2).to_string());
    let mark = traffic.mark();
    let sent = updates(&lab);
    let agent = lab.agent();

    // A stranger gets nothing at all.
    let strangers = Lab::drops(agent, "signaling-unknown-home-address");
    fleet.update_of(1);
    agent
        .wait_until("silence", PATIENCE, |_| {
            Lab::drops(agent, "signaling-unknown-home-address") > strangers
        })
        .unwrap();
    fleet.listen();
    assert_eq!((fleet.acknowledged, fleet.refused), (0, 0));

    // Added, it is served; with its caps.
    let added =
        ["agent", "add", &one, "--name", "tram-1", "--security", "acme-sa", "--bindings", "1"];
    let document = agent.mtun_ok(&added).unwrap();
    assert_eq!(document["mobile"]["state"], "unbound", "{document}");
    assert!(answered(&mut fleet, 1));
    let mobile = listed(agent, &one).unwrap();
    assert_eq!(mobile["allowed_by"], "added");
    assert_eq!(mobile["state"], "bound");
    assert_eq!((&mobile["max_bindings"], &mobile["updates_accepted"]), (&1.into(), &1.into()));
    assert!(mobile["last_heard_seconds"].is_u64(), "{mobile}");
    // Twice is a slip; another grant has to be asked for, and keeps what fits.
    let again = agent.mtun(&added).unwrap();
    assert_eq!((&again["ok"], &again["error"]["code"]), (&false.into(), &"refused".into()));
    let replace = ["agent", "add", &one, "--security", "acme-sa", "--bindings", "2", "--replace"];
    assert_eq!(agent.mtun_ok(&replace).unwrap()["ended"], 0);
    // What the policy file cannot stand beside is refused with its place, and nothing is changed.
    let overlaps = [
        "agent",
        "add",
        &two,
        "--security",
        "acme-sa",
        "--mobile-network",
        "2001:db8:100:4200::/63",
    ];
    let refused = agent.mtun(&overlaps).unwrap();
    assert_eq!(refused["error"]["code"], "policy-faults", "{refused}");
    let fault = &refused["error"]["faults"][0];
    assert!(fault["file"].as_str().unwrap().ends_with("mobiles.kdl"), "{fault}");
    assert!(fault["message"].as_str().unwrap().contains("home-agent.kdl:"), "{fault}");
    assert_eq!(listed(agent, &two), None);
    let key = ["agent", "add", &two, "--spi", "0x2002", "--key-file", "/nonexistent/key"];
    assert_eq!(agent.mtun(&key).unwrap()["error"]["code"], "refused");

    // Its own key file works too.
    let directory = agent.policy().parent().unwrap().to_owned();
    let file = directory.join("acme.key").display().to_string();
    let own = ["agent", "add", &two, "--spi", "0x1001", "--key-file", &file];
    agent.mtun_ok(&own).unwrap();
    assert!(answered(&mut fleet, 2));

    // Revoked, it is told why; permitted, it is back.
    assert_eq!(agent.mtun_ok(&["agent", "revoke", &one]).unwrap()["ended"], 1);
    assert!(!answered(&mut fleet, 1));
    assert_eq!(fleet.refusals.last(), Some(&129));
    assert_eq!(listed(agent, &one).unwrap()["state"], "refused");
    agent.mtun_ok(&["agent", "permit", &one]).unwrap();
    assert!(answered(&mut fleet, 1));
    assert_eq!(agent.mtun(&["agent", "permit", &one]).unwrap()["error"]["code"], "not-found");
    let of_file = agent.mtun(&["agent", "remove", MOBILE]).unwrap();
    assert_eq!(of_file["error"]["code"], "refused", "{of_file}");

    // The policy says what came from elsewhere.
    let shown = agent.mtun_ok(&["policy", "show"]).unwrap();
    assert_eq!(shown["added"]["mobiles"], 2, "{shown}");
    let file = agent.policy().display().to_string();
    let diff = agent.mtun_ok(&["policy", "diff", &file]).unwrap();
    assert_eq!(
        (&diff["beside_the_file"], &diff["mobiles_removed"]),
        (&2.into(), &Value::Array(vec![]))
    );

    // Nobody else noticed: no packet lost, no update sent.
    assert_alive(&traffic);
    lab.settled(&traffic, crate::fixture::figure_11);
    assert_lossless(&traffic, &mark, "while others came and went");
    assert_eq!(updates(&lab), sent);
    assert_eq!(of_42(&lab.agent().status().unwrap()), 2);

    // It outlives the agent, bindings and refusals too.
    lab.agent().mtun_ok(&["agent", "revoke", &two]).unwrap();
    lab.agent.take().unwrap().process.kill().unwrap();
    start_agent(&mut lab);
    let agent = lab.agent();
    assert_eq!(listed(agent, &one).unwrap()["state"], "bound");
    assert_eq!(listed(agent, &two).unwrap()["state"], "refused");
    assert!(!answered(&mut fleet, 2));
    // Removed, it is a stranger, and no restart brings its binding back.
    assert_eq!(agent.mtun_ok(&["agent", "remove", &one]).unwrap()["ended"], 1);
    agent.mtun_ok(&["agent", "add", &one, "--security", "acme-sa"]).unwrap();
    lab.agent.take().unwrap().process.kill().unwrap();
    start_agent(&mut lab);
    assert_eq!(listed(lab.agent(), &one).unwrap()["state"], "unbound");
    assert_eq!(of_42(&lab.agent().status().unwrap()), 2);
    lab.assert_clean();
}

/// One link's binding is taken back: its flows move at once, and the mobile learns why.
#[test]
fn one_binding_is_taken_back_and_given_again() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default().with_virtual_home_link());
    lab.registered(&["wlan0", "wwan0"]);
    // Having registered a moment ago, the mobile would not hear of it again.
    let old = |it: &mtun::control::documents::BindingDocument| {
        let granted = it.granted_seconds.zip(it.expires_seconds);
        granted.is_some_and(|(granted, left)| left + 12 < granted)
    };
    lab.mobile().wait_until("some age", PATIENCE, |it| it.bindings.iter().all(old)).unwrap();
    let traffic = lab.traffic();
    let document = lab.agent().mtun_ok(&["agent", "revoke", MOBILE, "--bid", "2"]).unwrap();
    assert_eq!(document["ended"], 1, "{document}");
    assert_eq!(cached(&lab.agent().status().unwrap()).len(), 1);
    let refused = |status: &StatusDocument| {
        let of = |it: &mtun::control::documents::BindingDocument| {
            it.status.as_ref().map(|status| status.code)
        };
        status.bindings.iter().any(|it| of(it) == Some(129))
    };
    lab.mobile().wait_until("status 129", PATIENCE, refused).unwrap();
    lab.settled(&traffic, |_, _| "wlan0");
    assert_alive(&traffic);
    lab.agent().mtun_ok(&["agent", "permit", MOBILE, "--bid", "2"]).unwrap();
    // The operator of the mobile, told of it, has it ask again.
    let file = lab.mobile().policy().display().to_string();
    lab.mobile().mtun_ok(&["policy", "apply", &file]).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, crate::fixture::figure_11);
    lab.assert_clean();
}

/// What was added and what the file says later are held against each other.
#[test]
fn a_policy_file_that_says_otherwise_is_refused_with_its_place() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default().with_virtual_home_link());
    let one = home(1).to_string();
    lab.agent()
        .mtun_ok(&["agent", "add", &one, "--security", "acme-sa", "--bindings", "3"])
        .unwrap();
    let file = lab.agent().policy().to_owned();
    let says = |bindings: u16| {
        let allow =
            format!("    allow \"{one}\" {{ security \"acme-sa\"; bindings {bindings}; }}\n");
        let marker = "    allow \"2001:db8:100::43\"";
        lab.text.agent.replace(marker, &format!("{allow}{marker}"))
    };
    std::fs::write(&file, says(4)).unwrap();
    let name = file.display().to_string();
    for words in [["policy", "apply", &name], ["policy", "diff", &name]] {
        let refused = lab.agent().mtun(&words).unwrap();
        let fault = &refused["error"]["faults"][0];
        assert_eq!(fault["code"], "conflict", "{refused}");
        assert!(fault["message"].as_str().unwrap().contains("home-agent.kdl:"), "{fault}");
        assert!(fault["help"].as_str().unwrap().contains("mtun agent remove"), "{fault}");
    }
    // The same grant is the file's from then on, and stays when the addition goes.
    std::fs::write(&file, says(3)).unwrap();
    lab.agent().mtun_ok(&["policy", "apply", &name]).unwrap();
    let removed = lab.agent().mtun_ok(&["agent", "remove", &one]).unwrap();
    assert_eq!(removed["mobile"]["allowed_by"], "policy", "{removed}");
    // A mobile that leaves the file by an apply goes as it came.
    std::fs::write(&file, &lab.text.agent).unwrap();
    lab.agent().mtun_ok(&["policy", "apply", &name]).unwrap();
    assert_eq!(listed(lab.agent(), &one), None);

    // A start is refused as well, and says where.
    lab.agent()
        .mtun_ok(&["agent", "add", &one, "--security", "acme-sa", "--bindings", "3"])
        .unwrap();
    let other = says(4);
    drop(lab.agent.take());
    let before = std::mem::replace(&mut lab.text.agent, other);
    let text = lab.text.clone();
    let refused = Daemon::start(&lab.world, &programs(), Side::Agent, &text, &Arguments::default());
    let error = format!("{:#}", refused.unwrap_err());
    assert!(error.contains("mobiles.kdl") && error.contains("home-agent.kdl:"), "{error}");
    lab.text.agent = before;
    start_agent(&mut lab);
    assert!(listed(lab.agent(), &one).is_some());
}
