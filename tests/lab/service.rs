//! As a service: a user of its own with two capabilities, what the service manager is told, and
//! what the process has given up. The manager itself is the test, which reads its socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use mtun::control::documents::{HealthReason, StatusDocument};
use mtun::lab::daemons::{Arguments, Daemon, Programs, Side, cached};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, assert_alive, programs};
use crate::need_lab;

/// Nobody's user and group number, which own nothing.
const NOBODY: u32 = 65_534;
/// CAP_NET_ADMIN and CAP_NET_RAW.
const TWO: u64 = 1 << 12 | 1 << 13;
/// `SECCOMP_MODE_FILTER`: a filter stands before its system calls.
const FILTERED: u64 = 2;

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

/// The daemon behind a few lines of shell.
fn behind(directory: &Path, lines: &str) -> Programs {
    let script = directory.join("behind");
    let program = programs().mtund;
    std::fs::write(&script, format!("#!/bin/sh\n{lines}\nexec {} \"$@\"\n", program.display()))
        .unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    Programs { mtund: script, ..programs() }
}

/// A thread that stands still for as long as this is there.
struct Stopped(libc::pid_t);

impl Stopped {
    fn stop(thread: libc::pid_t) -> Self {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of ours; the thread is our daemon's.
        unsafe {
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, thread, none, none), 0, "seize {thread}");
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none), 0);
            assert_eq!(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL), thread);
        }
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; by the thread that seized it.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

/// The fields of one thread's status that matter, all numbers hexadecimal but the last three.
fn rights(status: &str) -> [u64; 6] {
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
        field("Seccomp", 10),
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
        assert_eq!(rights(&status), [TWO, TWO, TWO, 1, FILTERED, NOBODY.into()], "{status}");
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

/// On the road there may be no agent for hours: what waits for the daemon does not wait for that, and
/// the daemon goes on trying.
#[test]
fn without_a_binding_it_is_ready_after_a_while_and_says_so() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    drop(lab.agent.take());
    let home = lab.world.directory().to_owned();
    let notify = home.join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let programs = behind(&home, &format!("export NOTIFY_SOCKET={}", notify.display()));
    let none = Arguments::default();
    let mobile = Daemon::start(&lab.world, &programs, Side::Mobile, &lab.text, &none).unwrap();
    lab.mobile = Some(mobile);
    let ready = told(&manager, "READY=1");
    assert!(ready.contains("STATUS=ready, and not registered yet"), "{ready}");
    let agent = Daemon::start(&lab.world, &programs, Side::Agent, &lab.text, &none).unwrap();
    lab.agent = Some(agent);
    lab.registered(&["wlan0", "wwan0"]);
}

/// Nothing reads a policy but who asks for it: not an edited file, not links that come and go. What
/// is asked for by SIGHUP is refused whole if it has a fault.
#[test]
fn an_edited_policy_waits_until_it_is_asked_for() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let mobile = lab.mobile();
    let policy = || mobile.status().unwrap().policy;
    let edited = lab.text.mobile.replace("policy \"figure-11\"", "policy \"edited\"");
    assert_ne!(edited, lab.text.mobile);
    std::fs::write(mobile.policy(), &edited).unwrap();
    lab.world.wlan_down().unwrap();
    lab.registered(&["wwan0"]);
    lab.world.wlan_up().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(policy(), "figure-11", "nobody asked");

    mobile.process.signal(libc::SIGHUP);
    mobile.wait_until("the edited policy", PATIENCE, |it| it.policy == "edited").unwrap();

    std::fs::write(mobile.policy(), edited.replace("prefer", "perfer")).unwrap();
    mobile.process.signal(libc::SIGHUP);
    let refused = |it: &HealthReason| matches!(it, HealthReason::PolicyRefused { .. });
    let told = |it: &StatusDocument| it.health.reasons.iter().any(refused);
    mobile.wait_until("its refusal", PATIENCE, told).unwrap();
    assert_eq!(policy(), "edited", "the one before stays");
    lab.registered(&["wlan0", "wwan0"]);
}

/// Started as root by hand it still gives up what has nothing to do with networks.
#[test]
fn started_by_hand_it_keeps_what_files_and_networks_take() {
    need_lab!();
    let lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let id = lab.agent().process.id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let [effective, permitted, bounding, no_new, filtered, uid] = rights(&status);
    assert_eq!((effective, permitted, no_new, uid), (bounding, bounding, 1, 0), "{status}");
    assert_eq!(filtered, FILTERED, "system calls that nobody needs are refused: {status}");
    assert_eq!(effective & TWO, TWO);
    for (number, name) in
        [(7, "SETUID"), (8, "SETPCAP"), (16, "SYS_MODULE"), (19, "SYS_PTRACE"), (21, "SYS_ADMIN")]
    {
        assert_eq!(effective & 1 << number, 0, "CAP_{name}: {status}");
    }
}

/// Whichever thread that packets need stands still, the watchdog is not fed and the log says so; when
/// it turns again it is. The one that looks after the fast path is one of them.
#[test]
fn the_watchdog_starves_while_a_packet_thread_stands_still() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let home = lab.world.directory().to_owned();
    let notify = home.join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines = format!("export NOTIFY_SOCKET={} WATCHDOG_USEC=600000", notify.display());
    let (programs, none) = (behind(&home, &lines), Arguments::default());
    let mobile = Daemon::start(&lab.world, &programs, Side::Mobile, &lab.text, &none).unwrap();
    lab.mobile = Some(mobile);
    told(&manager, "READY=1");

    let id = lab.mobile().process.id();
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let threads = tasks.map(|task| {
        let task = task.unwrap();
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap();
        let number: libc::pid_t = task.file_name().to_string_lossy().parse().unwrap();
        (name.trim().to_owned(), number)
    });
    let of_packets = |name: &str| ["out-", "in-", "fast-"].iter().any(|it| name.starts_with(it));
    let threads: Vec<_> = threads.filter(|(name, _)| of_packets(name)).collect();
    let carried = lab.mobile().status().unwrap().homes[0].tunnel.no_fast_path.is_none();
    assert_eq!(threads.iter().any(|(name, _)| name == "fast-mtun0"), carried, "{threads:?}");
    assert!(threads.len() >= 4, "{threads:?}");

    let complaints = || lab.mobile().process.log().matches("the watchdog is not fed").count();
    for (name, thread) in threads {
        let before = complaints();
        let stopped = Stopped::stop(thread);
        let what = format!("a word about {name}");
        wait_for(&what, PATIENCE, || (complaints() > before).then_some(())).unwrap();
        // What was told before it was noticed does not count.
        manager.set_nonblocking(true).unwrap();
        while manager.recv(&mut [0; 512]).is_ok() {}
        manager.set_nonblocking(false).unwrap();
        drop(stopped);
        told(&manager, "WATCHDOG=1");
    }
}

/// req T-29, SE-12: with everything logged that there is to log, no key is in the log, in any answer,
/// in the state directory or in a core dump.
#[test]
fn keys_are_nowhere_but_in_their_files() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let home = lab.world.directory().to_owned();
    let programs = behind(&home, "export MTUN_LOG=trace\nulimit -c unlimited");
    let none = Arguments::default();
    // The agent's key is the mobile's, and one more by hand.
    drop(lab.agent.take());
    let agent = Daemon::start(&lab.world, &programs, Side::Agent, &lab.text, &none).unwrap();
    lab.agent = Some(agent);
    let mobile = Daemon::start(&lab.world, &programs, Side::Mobile, &lab.text, &none).unwrap();
    lab.mobile = Some(mobile);
    lab.registered(&["wlan0", "wwan0"]);

    let text = std::fs::read_to_string(home.join("mobile/acme.key")).unwrap();
    let hexadecimal = text.split_whitespace().last().unwrap().to_lowercase();
    assert_eq!(hexadecimal.len(), 64, "256 bits");
    let octets: Vec<u8> = (0..hexadecimal.len() / 2)
        .map(|at| u8::from_str_radix(&hexadecimal[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    // As text, as octets, and as the list of numbers that a careless Debug prints.
    let list: Vec<String> = octets[..8].iter().map(ToString::to_string).collect();
    let shapes = [hexadecimal.as_bytes()[..32].to_vec(), octets, list.join(", ").into_bytes()];
    let clean = |what: &str, said: &[u8]| {
        let lower = said.to_ascii_lowercase();
        for shape in &shapes {
            let mut all = said.windows(shape.len()).chain(lower.windows(shape.len()));
            assert!(all.all(|it| it != shape.as_slice()), "{what} has a key");
        }
    };
    for (side, daemon) in [("mobile", lab.mobile()), ("agent", lab.agent())] {
        for words in [
            &["status"][..],
            &["bindings"],
            &["links"],
            &["flows"],
            &["policy", "show"],
            &["policy", "history"],
            &["doctor"],
        ] {
            let document = daemon.mtun(words).unwrap();
            clean(&format!("{side}: {words:?}"), document.to_string().as_bytes());
        }
        clean(&format!("{side}: its metrics"), format!("{:?}", Lab::metrics(daemon)).as_bytes());
    }
    clean("agent list", lab.agent().mtun(&["agent", "list"]).unwrap().to_string().as_bytes());

    let mut mobile = lab.mobile.take().unwrap();
    mobile.process.signal(libc::SIGABRT);
    wait_for("its death", PATIENCE, || (!mobile.process.is_running()).then_some(())).unwrap();
    let ended = mobile.process.stop().unwrap();
    assert_eq!(ended.signal(), Some(libc::SIGABRT), "{ended}");
    assert!(!ended.core_dumped(), "{ended}");
    drop(lab.agent.take());
    let mut files = 0;
    for side in ["mobile", "agent"] {
        let log = std::fs::read(home.join(side).join("log")).unwrap();
        assert!(log.len() > 10_000, "{side}: it was to log everything");
        clean(&format!("{side}: its log"), &log);
        for file in std::fs::read_dir(home.join(side).join("state")).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                clean(&file.display().to_string(), &std::fs::read(&file).unwrap());
                files += 1;
            }
        }
    }
    assert!(files >= 2, "{files}");
}
