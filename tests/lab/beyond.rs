//! Messages by which an agent speaks first, most of them beyond RFC 6275, between real daemons, and
//! tshark's opinion of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use mtun::control::documents::{BindingPhase, StatusDocument};
use mtun::lab::daemons::{Daemon, Place, Side, cached, registered};
use mtun::lab::namespace::{Process, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};

use crate::fixture::{Lab, PATIENCE, assert_alive, programs};
use crate::need_lab;

const MOBILE: &str = "2001:db8:100::42";
const AGENT: &str = "2001:db8:100::1";

/// MH Types.
const REQUEST: u8 = 0;
const UPDATE: u8 = 5;
const SWITCH: u8 = 12;
const HEARTBEAT: u8 = 13;
const REVOCATION: u8 = 16;

/// What passes the core of the world, kept for tshark.
struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    fn start(world: &World) -> Option<Self> {
        let able = ["tcpdump", "tshark"]
            .iter()
            .all(|it| crate::skip::runs(Command::new(it).arg("--version")));
        if !able {
            crate::skip::skip("capture: tcpdump or tshark is not installed");
            return None;
        }
        let file = world.directory().join("core.pcap");
        let mut command = world.core.command("tcpdump");
        // The kernel hands packets over in blocks that may wait for a second, and what waits is lost
        // when tcpdump ends: each at once instead, without a place of the largest size for each.
        let words = ["-i", "any", "-U", "--immediate-mode", "-s", "2048", "-B", "16384"];
        command.args(words).args(["-Z", "root", "-w"]).arg(&file).arg("ip6");
        let process = world.core.start(command, &world.directory().join("tcpdump.log")).unwrap();
        wait_for("the capture", PATIENCE, || process.log().contains("listening").then_some(()))
            .unwrap();
        Some(Self { process, file })
    }

    /// The Mobility Headers seen so far.
    fn so_far(&self) -> Vec<Seen> {
        read(&self.file)
    }

    /// The Mobility Headers of these types, none of them malformed, when nothing more is to come.
    fn finish(mut self, mh_type: u8) -> Vec<Seen> {
        self.process.stop().unwrap();
        let mut seen = read(&self.file);
        seen.retain(|it| it.mh_type == mh_type);
        // tshark 4.0 looks for the options of a Home Agent Switch inside its last address (RFC 5142
        // §4 has them behind it), and so calls each that has some malformed.
        let sound = |it: &Seen| mh_type == SWITCH || !it.malformed;
        assert!(seen.iter().all(sound), "{seen:?}");
        seen
    }
}

/// A Mobility Header as tshark reads it. Each is seen where it comes in and where it goes out.
#[derive(Clone, Debug)]
struct Seen {
    mh_type: u8,
    /// Of the outer header.
    source: String,
    malformed: bool,
    /// What is to be seen of its own: the Restart Counter's or the agents' fields.
    response: bool,
    agents: String,
    /// The BIDs that it names, separated by commas.
    bids: String,
}

fn read(file: &Path) -> Vec<Seen> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-n", "-Y", "mip6.mhtype"]);
    tshark.args(["-T", "fields", "-E", "separator=/t"]);
    let keys = [
        "mip6.mhtype",
        "ipv6.src",
        "_ws.malformed",
        "mip6.bogus_header_length",
        "mip6.hb.r_flag",
        "mip6.has.address",
        "mip6.bi.bid",
    ];
    for key in keys {
        tshark.args(["-e", key]);
    }
    let output = tshark.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let first = |field: &str| field.split(',').next().unwrap_or_default().to_owned();
    lines
        .map(|fields| Seen {
            mh_type: first(fields[0]).parse().unwrap(),
            source: first(fields[1]),
            malformed: fields[2..4] != ["", ""],
            response: ["1", "True"].contains(&first(fields[4]).as_str()),
            agents: fields[5].to_owned(),
            bids: fields[6].to_owned(),
        })
        .collect()
}

/// A policy whose home, or served home, has these extensions.
pub fn with_extensions(text: &str, says: &str) -> String {
    let tunnel = "    tunnel mtun0\n";
    assert!(text.contains(tunnel));
    text.replacen(tunnel, &format!("{tunnel}    extensions {says}\n"), 1)
}

/// Both files with these extensions, on a virtual home link.
fn text(says: &str) -> PolicyText {
    let mut text = PolicyText::default();
    text.mobile = with_extensions(&text.mobile, says);
    text.agent = with_extensions(&text.agent, says);
    text
}

/// req MC-19 (RFC 5648 §5.7, §6.4): a binding that is about to end is asked for by its number, and
/// the mobile refreshes that one.
#[test]
fn a_mobile_is_asked_for_one_binding_and_refreshes_that_one() {
    need_lab!();
    // Without bulk registration an update is for one binding; asked for 8 s before its end, which
    // is before the mobile would refresh it. Flow bindings would be told with a refresh of W-CDMA's
    // as soon as there is another link, and both would end at about the same time.
    let text = PolicyText::default().with_virtual_home_link().with_lifetime(24);
    let alone = "bulk=#false mode=explicit flow-bindings=#false";
    let text = text.with("bulk=#true mode=explicit", alone);
    let mut lab = Lab::with_agent(Plan { wlan: false, ..Plan::default() }, text);
    let Some(capture) = Capture::start(&lab.world) else { return };
    lab.start_mobile(&[]);
    lab.registered(&["wwan0"]);
    let old = |status: &StatusDocument| {
        status.bindings.iter().any(|it| {
            let granted = it.granted_seconds.zip(it.expires_seconds);
            granted.is_some_and(|(granted, left)| left + 4 <= granted)
        })
    };
    lab.mobile().wait_until("some age", PATIENCE, old).unwrap();
    lab.world.attach_wlan().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    wait_for("a request for W-CDMA's and the update that follows", PATIENCE, || {
        let seen = capture.so_far();
        let asked = seen.iter().position(|it| it.mh_type == REQUEST && it.bids == "2")?;
        let mut after = seen[asked..].iter();
        after.find(|it| it.mh_type == UPDATE && it.bids == "2").map(drop)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", capture.so_far()));
    let requests = capture.finish(REQUEST);
    assert!(requests.iter().all(|it| it.source == AGENT), "{requests:?}");
    // The other has four seconds more.
    assert_eq!(requests[0].bids, "2", "{requests:?}");
    lab.registered(&["wlan0", "wwan0"]);
    lab.assert_clean();
}

/// req BR-01 (RFC 5846): the mobile hears at once that a binding was taken back, and the agent that
/// it was heard.
#[test]
fn a_mobile_is_told_that_its_binding_was_taken_back() {
    need_lab!();
    let mut lab =
        Lab::with_agent(Plan::default(), text("revocation=#true").with_virtual_home_link());
    let capture = Capture::start(&lab.world);
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    lab.agent().mtun_ok(&["agent", "revoke", MOBILE, "--bid", "2"]).unwrap();
    lab.mobile()
        .wait_until("one link", PATIENCE, |status| registered(status) == ["wlan0"])
        .unwrap();
    assert!(Lab::drops(lab.mobile(), "signaling-revoked") > 0);
    lab.agent()
        .wait_until("its confirmation", PATIENCE, |_| {
            Lab::drops(lab.agent(), "signaling-revocation-heard") == 1
        })
        .unwrap();
    lab.settled(&traffic, |_, _| "wlan0");
    assert_alive(&traffic);
    if let Some(capture) = capture {
        let seen = capture.finish(REVOCATION);
        assert!(seen.iter().any(|it| it.source == AGENT), "the indication: {seen:?}");
        assert!(seen.iter().any(|it| it.source != AGENT), "the acknowledgement: {seen:?}");
    }
    lab.assert_clean();
}

/// HS-01 (RFC 5142): sent to another agent, the mobile goes; what it had here ends by its own word.
#[test]
fn a_mobile_is_sent_to_another_agent() {
    need_lab!();
    let text = text("agent-switch=#true")
        .with_preference(20)
        .with("agent \"2001:db8:100::1\"", "agent discover");
    let second = text.agent.replace(
        "agent=\"2001:db8:100::1\" on=home0 preference=20",
        "agent=\"2001:db8:100::2\" on=eth0 preference=10",
    );
    assert_ne!(second, text.agent);
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, |world| {
        for (key, value) in [
            ("ipv6/conf/home0/accept_dad", "1"),
            ("ipv6/conf/home0/dad_transmits", "1"),
            ("ipv6/neigh/home0/retrans_time_ms", "200"),
        ] {
            world.ha.set_sysctl(key, value).unwrap();
        }
    });
    let capture = Capture::start(&lab.world);
    let world = &lab.world;
    let directory = world.directory().join("second");
    std::fs::create_dir_all(&directory).unwrap();
    for key in ["acme.key", "laptop.key"] {
        std::fs::copy(world.directory().join("agent").join(key), directory.join(key)).unwrap();
    }
    world.home.ip(&["address add 2001:db8:100::2/64 dev eth0 nodad"]).unwrap();
    let place = Place { namespace: &world.home, directory: &directory, file: "agent.kdl" };
    let other =
        Daemon::start_at(place, &programs(), &second, &mtun::lab::daemons::Arguments::default())
            .unwrap();
    lab.start_mobile(&[]);
    let status = lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(status.homes[0].agent.0, address::AGENT);
    let sent = ["agent", "switch", MOBILE, "--to", "2001:db8:100::2"];
    assert_eq!(lab.agent().mtun_ok(&sent).unwrap()["bindings"], 2);
    let there = |status: &StatusDocument| {
        status.homes[0].agent.0.to_string() == "2001:db8:100::2"
            && registered(status) == ["wlan0", "wwan0"]
    };
    lab.mobile().wait_until("the other agent", PATIENCE, there).unwrap();
    assert_eq!(cached(&other.status().unwrap()).len(), 2);
    lab.agent().wait_until("no binding", PATIENCE, |it| cached(it).is_empty()).unwrap();
    let nobody = lab.agent().mtun(&sent).unwrap();
    assert_eq!(nobody["error"]["code"], "refused", "it is not bound any more: {nobody}");
    if let Some(capture) = capture {
        let seen = capture.finish(SWITCH);
        assert!(!seen.is_empty(), "no Home Agent Switch was seen");
        let named = |it: &Seen| it.source == AGENT && it.agents.contains("2001:db8:100::2");
        assert!(seen.iter().all(named), "{seen:?}");
    }
}

/// Waits until the agent has answered so many heartbeats.
fn answered(capture: &Capture, so_many: usize) {
    wait_for("answered heartbeats", PATIENCE, || {
        let seen = capture.so_far();
        let answer =
            |it: &&Seen| (it.mh_type, it.response, it.source.as_str()) == (HEARTBEAT, true, AGENT);
        // Each is seen twice.
        (seen.iter().filter(answer).count() >= 2 * so_many).then_some(())
    })
    .unwrap();
}

/// Kills the agent; the mobile is not told.
fn kill_agent(lab: &mut Lab) {
    lab.agent.take().unwrap().process.kill().unwrap();
}

fn start_agent(lab: &mut Lab) {
    let none = mtun::lab::daemons::Arguments::default();
    let agent = Daemon::start(&lab.world, &programs(), Side::Agent, &lab.text, &none).unwrap();
    lab.agent = Some(agent);
}

/// RFC 5847 §3.1: an agent that dies is noticed by its silence, minutes before a binding is due to
/// be refreshed; one that comes back with all that it held is no news.
#[test]
fn a_mobile_notices_by_missing_heartbeats_that_its_agent_died() {
    need_lab!();
    let says = "heartbeat=#true heartbeat-every=\"1s\" heartbeats-missing=2";
    let mut lab = Lab::with_agent(Plan::default(), text(says).with_virtual_home_link());
    let Some(capture) = Capture::start(&lab.world) else { return };
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    answered(&capture, 2);
    let count = |lab: &Lab, reason: &str| Lab::drops(lab.mobile(), reason);
    assert_eq!(count(&lab, "signaling-agent-silent"), 0);
    kill_agent(&mut lab);
    let silent = |_: &StatusDocument| count(&lab, "signaling-agent-silent") > 0;
    lab.mobile().wait_until("its silence to be noticed", PATIENCE, silent).unwrap();
    // Everything is asked for again, and has an answer as soon as somebody is there.
    let all = |status: &StatusDocument, phase| status.bindings.iter().all(|it| it.phase == phase);
    let asked = |status: &StatusDocument| all(status, BindingPhase::Refreshing);
    lab.mobile().wait_until("updates without an answer", PATIENCE, asked).unwrap();
    start_agent(&mut lab);
    let held = |status: &StatusDocument| all(status, BindingPhase::Registered);
    lab.mobile().wait_until("answers", PATIENCE, held).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    let before = capture.so_far().iter().filter(|it| it.mh_type == HEARTBEAT).count();
    answered(&capture, before / 2 + 2);
    assert_eq!(count(&lab, "signaling-agent-restarted"), 0, "it lost nothing");
    assert!(capture.finish(HEARTBEAT).len() > before);
}

/// RFC 5847 §3.2: an agent that comes back without its store has another Restart Counter, and gets
/// everything again that it has lost.
#[test]
fn an_agent_that_lost_its_bindings_gets_them_again() {
    need_lab!();
    let says = "heartbeat=#true heartbeat-every=\"1s\" heartbeats-missing=16";
    let mut lab = Lab::with_agent(Plan::default(), text(says).with_virtual_home_link());
    let Some(capture) = Capture::start(&lab.world) else { return };
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    answered(&capture, 2);
    kill_agent(&mut lab);
    std::fs::remove_file(lab.world.directory().join("agent/state/bindings.redb")).unwrap();
    start_agent(&mut lab);
    lab.agent().wait_until("both bindings", PATIENCE, |it| cached(it).len() == 2).unwrap();
    let count = |reason: &str| Lab::drops(lab.mobile(), reason);
    assert_eq!(count("signaling-agent-restarted"), 1);
    assert_eq!(count("signaling-agent-silent"), 0, "it was not the silence");
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    assert_alive(&traffic);
    lab.assert_clean();
}
