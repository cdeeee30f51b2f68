//! The pages for users, followed command by command with the programs of this build on machines of
//! the lab. `tests/road.sh` does the same with the package under a real service manager; here that
//! is a script which starts what the unit's ExecStart says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mtun::lab::namespace::Namespace;
use mtun::lab::world::{Plan, World};

use crate::fixture::programs;
use crate::need_lab;

/// A machine: its network, and a root of its own as far as the pages look: `/etc`, `/run`, `/var/lib`.
struct Machine {
    directory: PathBuf,
}

impl Machine {
    /// Makes it. `other` is the machine that its `scp` goes to.
    fn new(world: &World, namespace: &Namespace, name: &str, other: Option<&Self>) -> Self {
        let directory = world.directory().join(format!("machine-{name}"));
        for part in ["bin", "run/mtun", "lib/mtun", "etc", "home"] {
            std::fs::create_dir_all(directory.join(part)).unwrap();
        }
        let made = Self { directory };
        for file in ["group", "passwd", "hosts", "nsswitch.conf"] {
            let from = Path::new("/etc").join(file);
            if from.exists() {
                std::fs::copy(from, made.path("etc").join(file)).unwrap();
            }
        }
        // Here the daemon is root; the name is what the package's own user is called.
        let users = std::fs::read_to_string(made.path("etc/passwd")).unwrap();
        let users = users.lines().filter(|line| !line.starts_with("mtun:"));
        let users: String = users.map(|line| format!("{line}\n")).collect();
        std::fs::write(made.path("etc/passwd"), users + "mtun:x:0:0::/:/bin/false\n").unwrap();

        let root = made.directory.display();
        let programs = programs();
        let (mtun, mtund) = (programs.mtun.display(), programs.mtund.display());
        let enter = format!(
            "#!/bin/sh\n\
             exec ip netns exec {} unshare --mount sh -ec '\n\
             mount --bind {root}/etc /etc; mount --bind {root}/lib /var/lib; mount --bind {root}/run /run\n\
             cd {root}/home; export PATH={root}/bin:$PATH NO_COLOR=1; unset MTUN_SOCKET COLUMNS\n\
             exec bash -ec \"$1\"' sh \"$1\"\n",
            namespace.name()
        );
        made.script("enter", &enter);
        made.script("bin/mtun", &format!("#!/bin/sh\nexec {mtun} \"$@\"\n"));
        // Nothing to install: the programs are those of this build.
        made.script("bin/apt-get", "#!/bin/sh\nmkdir -p -m 0700 /etc/mtun/keys\n");
        let scp = match other {
            None => "#!/bin/sh\nexit 1\n".to_owned(),
            // Whoever is logged in there may write there.
            Some(other) => format!(
                "#!/bin/sh\nset -e\n[ \"$1\" = -pr ]; shift\n\
                 while [ $# -gt 1 ]; do cp -a \"$1\" {}/etc/mtun/; shift; done\n",
                other.directory.display()
            ),
        };
        made.script("bin/scp", &scp);
        made.script("bin/systemctl", &format!(
            "#!/bin/sh\n\
             case \"$1\" in\n\
             restart) systemctl stop mtund; systemctl start mtund ;;\n\
             start) [ -e /etc/mtun/mtun.kdl ] || exit 1\n\
             \tsetsid {mtund} --policy /etc/mtun/mtun.kdl >>{root}/log 2>&1 </dev/null & echo $! >{root}/pid ;;\n\
             stop) read -r id <{root}/pid; kill \"$id\"\n\
             \twhile kill -0 \"$id\" 2>/dev/null; do sleep 0.05; done; rm {root}/pid ;;\n\
             *) exit 2 ;;\n\
             esac\n"
        ));
        made
    }

    fn path(&self, part: &str) -> PathBuf {
        self.directory.join(part)
    }

    fn script(&self, part: &str, text: &str) {
        let file = self.path(part);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// `name=program`, as `tests/follow.sh` takes it.
    fn called(&self, name: &str) -> String {
        format!("{name}={}", self.path("enter").display())
    }

    fn story(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let Ok(id) = std::fs::read_to_string(self.path("pid")) else { return };
        let Ok(id) = id.trim().parse::<i32>() else { return };
        // SAFETY: the daemon that this machine has started; it takes its file along when it ends.
        unsafe { libc::kill(id, libc::SIGTERM) };
        let gone = || !Path::new("/proc").join(id.to_string()).exists();
        let _ = mtun::lab::namespace::wait_for("its end", crate::fixture::PATIENCE, || {
            gone().then_some(())
        });
    }
}

/// Follows a page; the machines' logs are told if it leads astray.
fn follow(page: &str, machines: &[(&str, &Machine)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("bash");
    command.arg(root.join("tests/follow.sh")).arg(root.join("docs").join(page));
    command.args(machines.iter().map(|(name, machine)| machine.called(name)));
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let stories: String =
        machines.iter().map(|(name, it)| format!("{name}:\n{}", it.story())).collect();
    assert!(output.status.success(), "{}\n{stories}", String::from_utf8_lossy(&said));
}

#[test]
fn the_beginning_and_the_roles_of_two_machines() {
    need_lab!();
    let world = World::build(Plan::default()).unwrap();
    world.wait_for_wlan_address().unwrap();
    let agent = Machine::new(&world, &world.ha, "agent", None);
    let router = Machine::new(&world, &world.mr, "router", Some(&agent));
    let both = [("agent", &agent), ("router", &router)];
    follow("getting-started.md", &both);
    follow("router.md", &both[1..]);
    follow("agent.md", &both[..1]);
    follow("troubleshooting.md", &both[1..]);
    drop(router);
}

#[test]
fn a_node_and_the_server_it_goes_straight_to() {
    need_lab!();
    let world = World::build(Plan::default()).unwrap();
    world.wait_for_wlan_address().unwrap();
    let agent = Machine::new(&world, &world.ha, "agent", None);
    follow_install(&agent);
    let node = Machine::new(&world, &world.mr, "node", Some(&agent));
    let correspondent = Machine::new(&world, &world.cn, "correspondent", None);
    follow("node.md", &[("agent", &agent), ("node", &node)]);
    follow("correspondent.md", &[("node", &node), ("correspondent", &correspondent)]);
    drop(node);
}

/// As getting-started.md has it done before.
fn follow_install(machine: &Machine) {
    let installed =
        Command::new(machine.path("enter")).arg("apt-get install -y ./mtun_*.deb").status();
    assert!(installed.unwrap().success());
}
