//! On the road nobody is there to help: the power goes at any moment, and the disk may take nothing.
//! Whatever is left of the files, a mobile starts; what an agent has promised it still holds.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, cached};
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::Traffic;
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, programs};
use crate::need_lab;

/// The daemon on a machine that was started for the `number`th time.
pub fn started(directory: &Path, number: u32) -> Programs {
    let boot = directory.join(format!("boot-{number}"));
    std::fs::write(&boot, format!("{number:08x}-0000-4000-8000-000000000000\n")).unwrap();
    let script = directory.join(format!("started-{number}"));
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c \
         'mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"' sh {} \"$@\"\n",
        boot.display(),
        programs().mtund.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    Programs { mtund: script, ..programs() }
}

/// Starts both daemons.
fn start(lab: &mut Lab, programs: &Programs) {
    let none = Arguments::default();
    let agent = Daemon::start(&lab.world, programs, Side::Agent, &lab.text, &none).unwrap();
    lab.agent = Some(agent);
    let mobile = Daemon::start(&lab.world, programs, Side::Mobile, &lab.text, &none).unwrap();
    lab.mobile = Some(mobile);
}

/// Takes from the kernel what it loses with the power; how it forwards is what it is configured to.
fn forget(namespace: &Namespace, forwards: &str) {
    namespace.ip(&["link del mtun0"]).unwrap();
    namespace.exec("nft flush ruleset").unwrap();
    for rule in namespace.ip_json("-6 rule show").unwrap().as_array().unwrap() {
        let place = rule["priority"].as_u64().unwrap();
        if ![0, 32_766].contains(&place) {
            namespace.ip(&[&format!("rule del pref {place}")]).unwrap();
        }
    }
    namespace.set_sysctl("ipv6/conf/all/forwarding", forwards).unwrap();
}

/// F-06, PS-01, L6: the power goes at both ends. Bindings are those of before; what the machines are
/// configured to do since is theirs, also when the daemon stops.
#[test]
fn the_power_goes_at_both_ends() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let directory = lab.world.directory().to_owned();
    drop(lab.agent.take());
    lab.world.mr.set_sysctl("ipv6/conf/all/forwarding", "0").unwrap();
    start(&mut lab, &started(&directory, 1));
    lab.registered(&["wlan0", "wwan0"]);
    let before = cached(&lab.agent().status().unwrap());
    assert_eq!(before.len(), 2, "{before:?}");

    for mut daemon in [lab.mobile.take().unwrap(), lab.agent.take().unwrap()] {
        daemon.process.kill().unwrap();
    }
    // Meanwhile somebody has made the router a router by itself.
    forget(&lab.world.mr, "1");
    forget(&lab.world.ha, "1");
    let none = Arguments::default();
    let again = started(&directory, 2);
    let agent = Daemon::start(&lab.world, &again, Side::Agent, &lab.text, &none).unwrap();
    lab.agent = Some(agent);
    assert_eq!(cached(&lab.agent().status().unwrap()), before, "{}", lab.agent().story());

    let mobile = Daemon::start(&lab.world, &again, Side::Mobile, &lab.text, &none).unwrap();
    lab.mobile = Some(mobile);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    assert_alive(&traffic);
    drop(traffic);
    lab.assert_clean();
    let mut mobile = lab.mobile.take().unwrap();
    assert!(mobile.process.stop().unwrap().success(), "{}", mobile.story());
    assert_eq!(lab.world.mr.sysctl("ipv6/conf/all/forwarding").unwrap(), "1", "its own");
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// A world with one uplink, of which is written down what it carried.
fn counting() -> (Plan, PolicyText) {
    let text = PolicyText::default().with_statement("wwan0", "quota \"10GB\" per=month");
    (Plan { wlan: false, ..Plan::default() }, text)
}

/// What disks and file systems leave of a file that was being written: none of it, half of it, its
/// length in zeros; and drafts that were never put in its place.
#[test]
fn whatever_the_power_left_of_its_files_a_mobile_starts() {
    need_lab!();
    let (plan, text) = counting();
    let mut lab = Lab::start(plan, text);
    lab.registered(&["wwan0"]);
    let traffic = Traffic::start(&lab.world, PATIENCE).unwrap();
    let state = lab.world.directory().join("mobile/state");
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 3] = [
        ("empty", |_| Vec::new()),
        ("half", |octets| octets[..octets.len() / 2].to_vec()),
        ("zeros", |octets| vec![0; octets.len()]),
    ];
    for (before, (what, damage)) in damages.into_iter().enumerate() {
        wait_for("its files", PATIENCE, || {
            let there = |name: &str| state.join(name).exists();
            let all = ["quota.json", "policies/history.json"].map(there);
            (all == [true; 2]).then_some(())
        })
        .unwrap();
        lab.mobile.take().unwrap().process.kill().unwrap();
        for file in files(&state) {
            let octets = std::fs::read(&file).unwrap();
            std::fs::write(format!("{}.new", file.display()), &octets).unwrap();
            std::fs::write(&file, damage(octets)).unwrap();
        }
        lab.start_mobile(&[]);
        lab.registered(&["wwan0"]);
        let story = lab.mobile().story();
        let told = story.matches("QUOTAS START FROM NOTHING").count();
        assert_eq!(told, before + 1, "{what}: {story}");
    }
    lab.settled(&traffic, all_wwan);
    assert_alive(&traffic);
    lab.assert_clean();
}

/// A disk that takes nothing; unmounted when dropped.
struct Closed(PathBuf);

impl Closed {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "ro", "mtun-test"]).arg(&at);
        assert!(command.status().unwrap().success(), "mount");
        Self(at)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A mobile promises nobody anything, so it needs no disk: packets go, the log says what is not
/// written down, and a stop leaves the machine as it was.
#[test]
fn a_mobile_needs_no_disk() {
    need_lab!();
    let (plan, text) = counting();
    let mut disk = None;
    let mut lab = Lab::with_agent_prepared(plan, text, |world| {
        disk = Some(Closed::mount(world.directory().join("mobile/state")));
    });
    let forwards = |lab: &Lab| lab.world.mr.sysctl("ipv6/conf/all/forwarding").unwrap();
    let before = forwards(&lab);
    lab.start_mobile(&[]);
    lab.registered(&["wwan0"]);
    assert_ne!(forwards(&lab), before, "the daemon does change something");
    let traffic = Traffic::start(&lab.world, PATIENCE).unwrap();
    lab.settled(&traffic, all_wwan);
    assert_alive(&traffic);
    for unwritten in [
        "the history of policies cannot be written",
        "what is counted of quotas cannot be written down",
        "what this machine's settings were is not written down",
    ] {
        let told = || lab.mobile().process.log().contains(unwritten).then_some(());
        wait_for(unwritten, PATIENCE, told).unwrap();
    }
    drop(traffic);
    let mut mobile = lab.mobile.take().unwrap();
    assert!(mobile.process.stop().unwrap().success(), "{}", mobile.story());
    assert_eq!(forwards(&lab), before);
    drop(mobile);
    drop(disk);
}
