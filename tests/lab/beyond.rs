//! Messages beyond RFC 6275 between real daemons, and tshark's opinion of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::{Daemon, Place, cached, registered};
use mtun::lab::namespace::{Process, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};

use crate::fixture::{Lab, PATIENCE, assert_alive, programs};
use crate::need_lab;

const MOBILE: &str = "2001:db8:100::42";

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
        command.args(["-i", "any", "-U", "-Z", "root", "-w"]).arg(&file).arg("ip6");
        let process = world.core.start(command, &world.directory().join("tcpdump.log")).unwrap();
        wait_for("the capture", PATIENCE, || process.log().contains("listening").then_some(()))
            .unwrap();
        Some(Self { process, file })
    }

    /// The MH Types that tshark finds, none of them malformed.
    fn types(mut self) -> Vec<u8> {
        self.process.stop().unwrap();
        read(&self.file)
    }
}

fn read(file: &Path) -> Vec<u8> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args([
        "-n",
        "-Y",
        "mip6.mhtype",
        "-T",
        "fields",
        "-E",
        "separator=/t",
    ]);
    for key in ["frame.number", "_ws.malformed", "mip6.bogus_header_length", "mip6.mhtype"] {
        tshark.args(["-e", key]);
    }
    let output = tshark.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    lines
        .map(|fields| {
            let kind: u8 = fields[3].split(',').next().unwrap_or_default().parse().unwrap();
            assert_eq!(fields[1..3], ["", ""], "frame {}: {text}", fields[0]);
            kind
        })
        .collect()
}

fn with_extensions(text: &str, says: &str) -> String {
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

/// RFC 5846: the mobile hears at once that a binding was taken back, and the agent that it was
/// heard.
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
        let types = capture.types();
        assert!(types.iter().filter(|it| **it == 16).count() >= 2, "{types:?}");
    }
    lab.assert_clean();
}

/// RFC 5142: sent to another agent, the mobile goes; what it had here ends by its own word.
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
}
