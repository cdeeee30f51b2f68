//! Flows in the kernel's fast path go on when their daemon is killed: until the next one takes over,
//! or until nobody vouches for them any more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mtun::lab::daemons::{Arguments, Daemon, Side};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::Origin;
use mtun::lab::world::Plan;
use mtun_dataplane::abi::FastOutcome;

use crate::fast_path::{has_fast_path, outcome};
use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless, figure_11, programs};
use crate::need_lab;

/// A BPF file system of our own; unmounted when dropped.
struct FileSystem(PathBuf);

impl FileSystem {
    fn mount(directory: &Path) -> Self {
        let place = directory.join("bpf");
        std::fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&place).status();
        assert!(mounted.unwrap().success(), "no BPF file system at {}", place.display());
        Self(place)
    }

    fn pins(&self) -> String {
        self.0.join("mtun").display().to_string()
    }

    /// What is kept there.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join("mtun")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A world whose daemons keep their fast path there; `None` if there is none on this machine.
fn lab() -> Option<(Lab, FileSystem)> {
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let files = FileSystem::mount(lab.world.directory());
    lab.agent = None;
    start(&mut lab, Side::Agent, &files);
    start(&mut lab, Side::Mobile, &files);
    lab.registered(&["wlan0", "wwan0"]);
    has_fast_path(lab.mobile()).then_some((lab, files))
}

fn start(lab: &mut Lab, side: Side, files: &FileSystem) {
    let arguments = Arguments(vec!["--pins".into(), files.pins()]);
    let daemon = Daemon::start(&lab.world, &programs(), side, &lab.text, &arguments).unwrap();
    match side {
        Side::Mobile => lab.mobile = Some(daemon),
        _ => lab.agent = Some(daemon),
    }
}

/// Packets of flows that a daemon's own programs have carried.
fn carried(daemon: &Daemon) -> u64 {
    let ways = [FastOutcome::Sent, FastOutcome::ShortcutSent];
    ways.into_iter().map(|way| outcome(daemon, way)).sum()
}

/// Waits until a daemon's own programs carry the probes.
fn carries(daemon: &Daemon) {
    let goal = carried(daemon) + 1000;
    let carries = wait_for("the fast path", PATIENCE, || (carried(daemon) > goal).then_some(()));
    assert!(carries.is_ok(), "{}", daemon.story());
}

#[test]
fn killed_and_started_again_nothing_of_what_the_kernel_carries_is_lost() {
    need_lab!();
    let Some((mut lab, files)) = lab() else { return };
    let traffic = lab.traffic();
    for side in [Side::Mobile, Side::Agent, Side::Mobile] {
        carries(lab.mobile());
        carries(lab.agent());
        let kept = files.names();
        assert!(kept.iter().any(|name| name.contains("-mtun0-")), "{kept:?}");
        let mark = traffic.mark();
        let daemon = if side == Side::Mobile { &mut lab.mobile } else { &mut lab.agent };
        daemon.take().unwrap().process.kill().unwrap();
        traffic.let_run(2000).unwrap();
        start(&mut lab, side, &files);
        lab.registered(&["wlan0", "wwan0"]);
        carries(lab.mobile());
        carries(lab.agent());
        lab.settled(&traffic, figure_11);
        assert_lossless(&traffic, &mark, &format!("{side:?} killed and started again"));
        let story = lab.mobile().story() + &lab.agent().story();
        assert!(story.contains("flows go on as the killed daemon left them"), "{story}");
        // What the first one left has ended; the next one's own is there instead.
        let alone = || {
            let names = files.names();
            let place = |name: &String| name.rsplit_once('-').unwrap().0.to_owned();
            let places: BTreeSet<_> = names.iter().map(place).collect();
            (places.len() == names.len()).then_some(())
        };
        let ended = wait_for("what was left to end", PATIENCE, alone);
        assert!(ended.is_ok(), "{:?}", files.names());
    }
    assert_alive(&traffic);
    drop(traffic);
    lab.assert_clean();
    // A daemon that stops leaves nothing.
    (lab.mobile, lab.agent) = (None, None);
    assert_eq!(files.names(), [""; 0]);
}

#[test]
fn without_a_next_one_they_end_and_nothing_leaves_in_the_plain() {
    need_lab!();
    let Some((mut lab, files)) = lab() else { return };
    let traffic = lab.traffic();
    carries(lab.mobile());
    lab.mobile.take().unwrap().process.kill().unwrap();
    let probe = traffic.probe(Origin::Node);
    let mark = probe.mark();
    traffic.let_run(5000).unwrap();
    let early = probe.tally_since(mark);
    assert_eq!((early.outbound.lost, early.inbound.lost), (0, 0), "{early:?}");
    // Half a minute after the daemon last vouched for them.
    let ended = wait_for("the end of the lease", Duration::from_secs(60), || {
        let mark = probe.mark();
        traffic.let_run(500).unwrap();
        (probe.tally_since(mark).outbound.received == 0).then_some(())
    });
    ended.unwrap();
    drop(traffic);
    lab.assert_clean();
    // Whoever comes then finds a way of his own.
    start(&mut lab, Side::Mobile, &files);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    carries(lab.mobile());
    assert_alive(&traffic);
}
