//! As a service: a user of its own with two capabilities, what the service manager is told, and
//! what the process has given up. The manager itself is the test, which reads its socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, cached};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, assert_alive, programs};
use crate::need_lab;

/// Nobody's user and group number, which own nothing.
const NOBODY: u32 = 65_534;
/// CAP_NET_ADMIN and CAP_NET_RAW.
const TWO: u64 = 1 << 12 | 1 << 13;

/// What the unit file says, in a script: user, capabilities, where the manager listens.
fn as_a_service(directory: &Path, notify: &Path) -> Programs {
    let program = directory.join("mtund");
    std::fs::copy(programs().mtund, &program).unwrap();
    // A device that everybody may open, as udev makes it; not every machine has udev.
    let tun = directory.join("tun");
    let mut make = Command::new("mknod");
    make.args(["-m", "0666"]).arg(&tun).args(["c", "10", "200"]);
    assert!(make.status().unwrap().success());
    let script = directory.join("start");
    let text = format!(
        "#!/bin/sh\nexport NOTIFY_SOCKET={} WATCHDOG_USEC=600000\n\
         exec unshare --mount sh -c 'mount --bind {} /dev/net/tun && exec \"$@\"' sh \
         setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
         --inh-caps=-all,+net_admin,+net_raw --ambient-caps=-all,+net_admin,+net_raw \
         --bounding-set=-all,+net_admin,+net_raw --no-new-privs {} \"$@\"\n",
        notify.display(),
        tun.display(),
        program.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    Programs { mtund: script, ..programs() }
}

/// The fields of one thread's status that matter, all numbers hexadecimal but the last two.
fn rights(status: &str) -> [u64; 5] {
    let field = |name: &str, radix: u32| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let word = line.trim_start_matches(':').split_whitespace().next().expect(name);
        u64::from_str_radix(word, radix).expect(name)
    };
    [
        field("CapEff", 16),
        field("CapPrm", 16),
        field("CapBnd", 16),
        field("NoNewPrivs", 10),
        field("Uid", 10),
    ]
}

/// Reads what the manager is told until `what` comes, which is returned whole.
fn told(manager: &UnixDatagram, what: &str) -> String {
    let mut buffer = [0; 512];
    loop {
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line == what) {
            return text;
        }
    }
}

/// req T-29, T-31.
#[test]
fn with_two_capabilities_it_registers_feeds_the_watchdog_and_carries_packets() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let home = lab.world.directory().to_owned();
    std::fs::set_permissions(&home, PermissionsExt::from_mode(0o755)).unwrap();
    let directory = home.join("mobile");
    for owned in [&directory, &directory.join("acme.key")] {
        chown(owned, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let notify = home.join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    std::fs::set_permissions(&notify, PermissionsExt::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();

    let programs = as_a_service(&home, &notify);
    let none = Arguments::default();
    let mobile = Daemon::start(&lab.world, &programs, Side::Mobile, &lab.text, &none).unwrap();
    lab.mobile = Some(mobile);

    let ready = told(&manager, "READY=1");
    assert!(ready.contains("STATUS=registered at home"), "not before its first binding: {ready}");
    for _ in 0..3 {
        told(&manager, "WATCHDOG=1");
    }

    let id = lab.mobile().process.id();
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        let status = task.unwrap().path().join("status");
        let status = std::fs::read_to_string(status).unwrap();
        assert_eq!(rights(&status), [TWO, TWO, TWO, 1, NOBODY.into()], "{status}");
        threads += 1;
    }
    assert!(threads >= 4, "packet threads have them too: {threads}");
    let owner = std::fs::metadata(format!("/proc/{id}/environ")).unwrap().uid();
    assert_eq!(owner, 0, "its memory is closed to others of its user, and never in a core dump");

    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    assert_alive(&traffic);
    drop(traffic);

    let mut mobile = lab.mobile.take().unwrap();
    let ended = mobile.process.stop().unwrap();
    assert!(ended.success(), "{ended}: {}", mobile.story());
    told(&manager, "STOPPING=1");
    let status = lab.agent().status().unwrap();
    assert!(cached(&status).is_empty(), "it has de-registered: {status:#?}");
}

/// Started as root by hand it still gives up what has nothing to do with networks.
#[test]
fn started_by_hand_it_keeps_what_files_and_networks_take() {
    need_lab!();
    let lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let id = lab.agent().process.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let [effective, permitted, bounding, no_new, uid] = rights(&status);
    assert_eq!((effective, permitted, no_new, uid), (bounding, bounding, 1, 0), "{status}");
    assert_eq!(effective & TWO, TWO);
    for (number, name) in
        [(7, "SETUID"), (8, "SETPCAP"), (16, "SYS_MODULE"), (19, "SYS_PTRACE"), (21, "SYS_ADMIN")]
    {
        assert_eq!(effective & 1 << number, 0, "CAP_{name}: {status}");
    }
}
