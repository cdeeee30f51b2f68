//! F-14: a daemon that gets no more descriptors, no more threads and processes, no more memory.
//!
//! Packets and signalling need none of them; people are answered all the same, or told why not.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use mtun::control::documents::StatusDocument;
use mtun::control::protocol::REQUEST_MAX;
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::Plan;

use crate::fixture::{Lab, PATIENCE, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

/// A control group of a daemon, where the machine has the old hierarchy; gone when dropped.
struct Room {
    path: PathBuf,
}

impl Room {
    /// Puts a process with all its threads into a group of its own.
    fn of(controller: &str, process: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/{controller}/mtun-lab-{process}"));
        if !path.parent()?.join("cgroup.procs").exists() || std::fs::create_dir(&path).is_err() {
            return None;
        }
        let room = Self { path };
        room.write("cgroup.procs", process).then_some(room)
    }

    fn write(&self, file: &str, value: impl ToString) -> bool {
        std::fs::write(self.path.join(file), value.to_string()).is_ok()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Whoever is still in it goes back to where all are.
        let processes = std::fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let above = self.path.with_file_name("cgroup.procs");
        processes.lines().for_each(|process| {
            let _ = std::fs::write(&above, process);
        });
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// The numbers of the descriptors that a process has open.
fn open(process: u32) -> Vec<u64> {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    open.filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Lets a process have descriptors below this number only.
fn allow(process: u32, below: u64) {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is written by the kernel, and outlives the call.
    let read = unsafe {
        libc::prlimit(process as i32, libc::RLIMIT_NOFILE, std::ptr::null(), &mut before)
    };
    assert_eq!(read, 0, "{}", std::io::Error::last_os_error());
    let limit = libc::rlimit { rlim_cur: below, ..before };
    // SAFETY: the structure is read by the kernel, and outlives the call.
    let set =
        unsafe { libc::prlimit(process as i32, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn is_up(status: &StatusDocument, name: &str) -> bool {
    let link = status.links.iter().find(|it| it.interface.as_str() == name).unwrap();
    link.state == mtun::control::documents::LinkState::Up
}

/// Clients that say nothing have taken every descriptor there is. Who asks is answered, a link that
/// goes is left and taken again, and no packet is lost.
#[test]
fn without_descriptors_people_are_answered_and_packets_go_on() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let (process, socket) = (lab.mobile().process.id(), lab.mobile().socket().to_owned());
    let mark = traffic.mark();
    // What is open above the limit stays open.
    let taken = open(process);
    let most = (0..).find(|number| !taken.contains(number)).unwrap() + 2;
    allow(process, most);
    let silent: Vec<_> = (0..24).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    wait_for("every descriptor to be taken", PATIENCE, || {
        let full = lab.mobile().story().contains("cannot accept a client");
        full.then_some(())
    })
    .unwrap();
    for _ in 0..3 {
        assert!(is_up(&lab.mobile().status().unwrap(), "wlan0"), "{}", lab.mobile().story());
    }
    let wire = lab.world.wwan_wire().unwrap();
    wire.set_carrier(false).unwrap();
    lab.registered(&["wlan0"]);
    lab.settled(&traffic, |_, _| "wlan0");
    wire.set_carrier(true).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    assert_lossless(&traffic, &mark, "without descriptors");
    assert_alive(&traffic);
    drop(silent);
    allow(process, 1024);
    assert!(is_up(&lab.mobile().status().unwrap(), "wwan0"));
    lab.assert_clean();
}

/// No thread and no process can be made: a program that tells of a radio cannot be asked, which is
/// counted and told, and everything else goes on.
#[test]
fn without_processes_a_source_is_silent_and_packets_go_on() {
    need_lab!();
    let text = PolicyText::default()
        .with_statement("wlan0", "radio exec=wlan0 every=\"1s\" lost-after=\"3s\"");
    let mut room = None;
    let mut lab = Lab::with_agent(Plan::default(), text);
    let facts = lab.world.directory().join("mobile").join("facts");
    std::fs::create_dir_all(&facts).unwrap();
    std::fs::write(facts.join("wlan0"), "#!/bin/sh\necho signal -60dBm\n").unwrap();
    std::fs::set_permissions(facts.join("wlan0"), PermissionsExt::from_mode(0o755)).unwrap();
    lab.start_mobile(&["--facts", facts.to_str().unwrap()]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let signal = |status: &StatusDocument| {
        status.links.iter().find(|it| it.interface.as_str() == "wlan0").unwrap().signal_dbm
    };
    let told = |what: &str, want: Option<i16>| {
        lab.mobile().wait_until(what, PATIENCE, |status| signal(status) == want).unwrap();
    };
    told("the signal", Some(-60));
    let process = lab.mobile().process.id();
    let made = room.insert(Room::of("pids", process));
    let Some(made) = made else {
        return crate::skip::skip("no control group for processes can be made");
    };
    let mark = traffic.mark();
    assert!(made.write("pids.max", made.read("pids.current").trim()));
    told("the source to be lost", None);
    let faults = Lab::metrics(lab.mobile()).source_faults;
    let counted: u64 = faults.iter().filter(|it| it.of == "wlan0").map(|it| it.count).sum();
    assert!(counted > 0, "{faults:#?}");
    let wire = lab.world.wwan_wire().unwrap();
    wire.set_carrier(false).unwrap();
    lab.registered(&["wlan0"]);
    wire.set_carrier(true).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    assert_lossless(&traffic, &mark, "without processes");
    assert_alive(&traffic);
    assert!(made.write("pids.max", "max"));
    told("the signal again", Some(-60));
    lab.assert_clean();
}

/// A daemon may have some MiB more than it has, while clients send halves of the largest requests and a
/// thousand flows are born: it asks for no more, so nobody ends it, and no packet is lost.
#[test]
fn within_little_memory_it_lives() {
    need_lab!();
    let mut room = None;
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let process = lab.mobile().process.id();
    let made = room.insert(Room::of("memory", process));
    let Some(made) = made else {
        return crate::skip::skip("no control group for memory can be made");
    };
    // What it has already stays where it is counted: this is what it may have more.
    assert!(made.write("memory.limit_in_bytes", 32 << 20));
    let mark = traffic.mark();
    let socket = lab.mobile().socket();
    let half = vec![b'x'; REQUEST_MAX - 1];
    let mut clients: Vec<_> = (0..12).map(|_| UnixStream::connect(socket).unwrap()).collect();
    for client in &mut clients {
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        // It may hang up before it has read everything.
        let _ = client.write_all(&half);
    }
    lab.world.mnn.run(|| {
        for _ in 0..1000 {
            // A port of its own each time.
            let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
            socket.send_to(b"flow", (mtun::lab::world::address::CORRESPONDENT, 9)).unwrap();
        }
    });
    for _ in 0..3 {
        let status = lab.mobile().status().unwrap();
        assert!(is_up(&status, "wlan0"));
    }
    drop(clients);
    assert_lossless(&traffic, &mark, "within little memory");
    assert_alive(&traffic);
    let story = made.read("memory.oom_control");
    let killed = story.lines().find_map(|line| line.strip_prefix("oom_kill "));
    assert!(matches!(killed, None | Some("0")), "{story}");
    assert_eq!(lab.mobile().process.id(), process);
    lab.settled(&traffic, figure_11);
    lab.assert_clean();
}
