//! Kernel settings that are changed for as long as the daemon runs: those below `/proc/sys`, and
//! whether a link merges what it receives.
//!
//! Every change is logged and its original kept in a state file, so that a daemon that starts
//! after another was killed still knows what to put back. A setting that somebody else has changed
//! in the meantime is left alone. What was changed before the machine started anew is forgotten: the
//! power took it along, and what is found then is the machine's own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ethtool::{Ethtool, Name};

/// The setting that makes this machine forward.
const FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// The number of this start of the machine.
const BOOT: &str = "kernel/random/boot_id";

/// Before the name of a link: whether it merges what it receives (generic receive offload). No
/// setting below `/proc/sys` begins so.
const GRO: &str = "gro/";

/// Why a setting could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {error}")]
pub struct SysctlError {
    /// The file or the link's setting.
    place: String,
    /// What happened.
    error: io::Error,
}

impl SysctlError {
    fn new(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { place: path.display().to_string(), error }
    }

    /// Whether the kernel has no such setting, as for an interface that is gone.
    pub fn is_missing(&self) -> bool {
        self.error.kind() == io::ErrorKind::NotFound
            || self.error.raw_os_error() == Some(libc::ENODEV)
    }
}

/// How the kernel looks for duplicates of its own addresses on a link; who looks for others there
/// does as it does (RFC 4862 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DuplicateDetection {
    /// How often it asks; 0 where it is switched off.
    pub transmits: u8,
    /// How long it waits for an answer each time.
    pub interval: Duration,
}

impl DuplicateDetection {
    /// The settings of this interface; those of RFC 4862 where they cannot be read.
    pub fn of(interface: &str) -> Self {
        let read = |path: String| -> Option<u64> {
            std::fs::read_to_string(Path::new("/proc/sys/net/ipv6").join(path))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        let accepts = |of: &str| read(format!("conf/{of}/accept_dad")).unwrap_or(1) > 0;
        let transmits = read(format!("conf/{interface}/dad_transmits")).unwrap_or(1);
        let wanted = accepts(interface) || accepts("all");
        let interval = read(format!("neigh/{interface}/retrans_time_ms")).unwrap_or(1000);
        Self {
            transmits: if wanted { u8::try_from(transmits).unwrap_or(u8::MAX) } else { 0 },
            interval: Duration::from_millis(interval),
        }
    }
}

/// One changed setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    original: String,
    ours: String,
}

/// The state file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered<C> {
    /// In which start of the machine they were changed.
    boot: String,
    changed: C,
}

/// The settings changed so far.
#[derive(Debug)]
pub struct Sysctls {
    /// `/proc/sys`, or another folder in tests.
    root: PathBuf,
    state: Option<PathBuf>,
    boot: String,
    changed: BTreeMap<String, Change>,
    /// Those of an earlier run that this one has not asked for so far.
    inherited: BTreeSet<String>,
}

impl Sysctls {
    /// Starts with what the state file remembers of an earlier run, and leaves it as it is until
    /// [`Sysctls::restore_inherited`], so that nothing is switched off that is wanted again at once.
    /// A file that cannot be understood is as good as none.
    pub fn open(state: Option<PathBuf>) -> Self {
        Self::with_root("/proc/sys".into(), state)
    }

    fn with_root(root: PathBuf, state: Option<PathBuf>) -> Self {
        let boot = std::fs::read_to_string(root.join(BOOT)).unwrap_or_default().trim().to_owned();
        let remembered = state.as_ref().and_then(|path| std::fs::read(path).ok());
        let remembered: Remembered<BTreeMap<_, _>> =
            remembered.and_then(|octets| serde_json::from_slice(&octets).ok()).unwrap_or_default();
        let changed = match remembered.boot == boot {
            true => remembered.changed,
            false => BTreeMap::new(),
        };
        if !changed.is_empty() {
            tracing::info!(settings = changed.len(), "an earlier run left changed settings");
        }
        let inherited = changed.keys().cloned().collect();
        Self { root, state, boot, changed, inherited }
    }

    fn read(&self, key: &str) -> Result<String, SysctlError> {
        if let Some(link) = key.strip_prefix(GRO) {
            let merges = Ethtool::open().and_then(|it| it.merges_received(Name::new(link)?));
            let merges = merges.map_err(|error| SysctlError { place: key.to_owned(), error })?;
            return Ok(if merges { "on" } else { "off" }.to_owned());
        }
        let path = self.root.join(key);
        let found = std::fs::read_to_string(&path).map_err(SysctlError::new(&path))?;
        Ok(found.trim().to_owned())
    }

    fn write(&self, key: &str, value: &str) -> Result<(), SysctlError> {
        if let Some(link) = key.strip_prefix(GRO) {
            let written =
                Ethtool::open().and_then(|it| it.merge_received(Name::new(link)?, value == "on"));
            return written.map_err(|error| SysctlError { place: key.to_owned(), error });
        }
        let path = self.root.join(key);
        std::fs::write(&path, value).map_err(SysctlError::new(&path))
    }

    /// Sets `net.ipv6.conf.all.forwarding` and the like; `key` is the path below `/proc/sys`, so
    /// that interface names may hold dots.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), SysctlError> {
        let found = self.read(key)?;
        self.inherited.remove(key);
        if found == value {
            return Ok(());
        }
        let change = Change { original: found.clone(), ours: value.to_owned() };
        // Set twice, the first original counts, unless somebody else has set another one since.
        let entry = self.changed.entry(key.to_owned()).or_insert_with(|| change.clone());
        if entry.ours != found {
            *entry = change;
        }
        entry.ours = value.to_owned();
        // Written down first: what a killed run has not written down cannot be taken back. A disk that
        // takes nothing is no reason not to carry packets; a stop takes all of it back still.
        if let Err(error) = self.remember() {
            tracing::warn!(%error, "what this machine's settings were is not written down");
        }
        tracing::info!(setting = key, from = found, to = value, "changed a kernel setting");
        self.write(key, value)
    }

    /// Lets a link hand on what it receives in as few pieces as can be cut again into the very same
    /// packets. Network cards come so; what is forwarded costs a fraction then.
    pub fn merge_received(&mut self, link: &str) -> Result<(), SysctlError> {
        self.set(&format!("{GRO}{link}"), "on")
    }

    /// The settings of a mobile router's uplink: Router Advertisements count although it forwards.
    /// Must come before [`Sysctls::forward`], or the kernel drops the routes it has learned.
    pub fn listen_to_routers(&mut self, uplink: &str) -> Result<(), SysctlError> {
        // req R-MR-05 (RFC 3963 §5.6): a router, too, listens to the routers of its uplinks.
        self.set(&format!("net/ipv6/conf/{uplink}/accept_ra"), "2")
    }

    /// Tells the neighbours of an uplink when it has an address there. A router that looked for it
    /// while it was away asks again only after a second, and loses what comes meanwhile.
    pub fn announce_addresses(&mut self, uplink: &str) -> Result<(), SysctlError> {
        self.set(&format!("net/ipv6/conf/{uplink}/ndisc_notify"), "1")
    }

    /// Forwards packets between interfaces.
    pub fn forward(&mut self) -> Result<(), SysctlError> {
        self.set(FORWARDING, "1")
    }

    /// Makes an uplink of a router a host's, which answers no Router Solicitations and is in no
    /// group of routers (req MR-09, MR-10, R-MR-04; RFC 3963 §5.6, §5.7); packets are forwarded all
    /// the same. Must come after [`Sysctls::forward`], which makes every interface a router's.
    pub fn be_host(&mut self, uplink: &str) -> Result<(), SysctlError> {
        let key = format!("net/ipv6/conf/{uplink}/forwarding");
        if !self.changed.contains_key(FORWARDING) {
            return self.set(&key, "0");
        }
        // What made it a router's was ours, and putting that back makes it a host's as well.
        let path = self.root.join(key);
        std::fs::write(&path, "0").map_err(SysctlError::new(&path))
    }

    /// The settings of a tunnel interface: it asks nobody for routers or duplicates and joins no
    /// groups. Must come after [`Sysctls::forward`], which makes every interface a router's, and
    /// before the interface is switched on.
    pub fn quiet_tunnel(&mut self, tunnel: &str) -> Result<(), SysctlError> {
        let settings = [
            ("accept_ra", "0"),
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("router_solicitations", "0"),
            // In version 1 a group that was never reported is left without a word.
            ("force_mld_version", "1"),
            // Behaves as a host's; packets are forwarded all the same.
            ("forwarding", "0"),
        ];
        for (setting, value) in settings {
            let path = self.root.join(format!("net/ipv6/conf/{tunnel}/{setting}"));
            // The interface takes its settings with it, so nothing has to be put back.
            std::fs::write(&path, value).map_err(SysctlError::new(&path))?;
        }
        Ok(())
    }

    /// Lets connection tracking accept segments outside the window it knows: it does not see all
    /// packets of a connection that takes the shortcut. Where that cannot be set, TCP does not.
    pub fn follow_loosely(&mut self) {
        match self.set("net/netfilter/nf_conntrack_tcp_be_liberal", "1") {
            // A kernel that tracks no connections.
            Err(error) if error.is_missing() => {}
            Err(error) => tracing::info!(%error, "no shortcut for TCP"),
            Ok(()) => {}
        }
    }

    /// Puts back what an earlier run has changed and this one has not asked for.
    pub fn restore_inherited(&mut self) {
        for key in std::mem::take(&mut self.inherited) {
            if let Some(change) = self.changed.remove(&key) {
                self.put_back(&key, &change);
            }
        }
        if let Err(error) = self.remember() {
            tracing::warn!(%error, "what this machine's settings were is not written down");
        }
    }

    fn put_back(&self, key: &str, Change { original, ours }: &Change) {
        match self.read(key) {
            Ok(found) if found == *ours => match self.write(key, original) {
                Ok(()) => tracing::info!(setting = key, to = original, "restored a kernel setting"),
                Err(error) => tracing::warn!(setting = key, %error, "could not restore a setting"),
            },
            Ok(found) => {
                tracing::info!(setting = key, found, "left a kernel setting that is not ours");
            }
            Err(error) if error.is_missing() => {
                tracing::info!(setting = key, "a setting of ours is gone");
            }
            Err(error) => tracing::warn!(setting = key, %error, "could not restore a setting"),
        }
    }

    /// Puts every original back, newest interfaces and all; what cannot be put back is logged and
    /// forgotten.
    pub fn restore(&mut self) {
        for (key, change) in std::mem::take(&mut self.changed) {
            self.put_back(&key, &change);
        }
        self.inherited.clear();
        if let Err(error) = self.remember() {
            tracing::warn!(%error, "what this machine's settings were is still written down");
        }
    }

    fn remember(&self) -> Result<(), SysctlError> {
        let Some(state) = &self.state else { return Ok(()) };
        if self.changed.is_empty() {
            // It may never have been written.
            let _ = std::fs::remove_file(state);
            return Ok(());
        }
        let remembered = Remembered { boot: self.boot.clone(), changed: &self.changed };
        let text = serde_json::to_vec(&remembered).expect("strings are always valid JSON");
        // Renamed into place, so a crash leaves the old file or the new one. Of a power cut nothing has
        // to be left, so no disk is waited for.
        let draft = state.with_extension("new");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, state))
            .map_err(SysctlError::new(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for `/proc/sys` with one interface.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("mtun-{name}-{}", std::process::id()));
            std::fs::create_dir_all(root.join("net/ipv6/conf/wlan0.5")).unwrap();
            std::fs::create_dir_all(root.join("net/ipv6/conf/all")).unwrap();
            std::fs::create_dir_all(root.join("kernel/random")).unwrap();
            let tree = Self(root);
            tree.write(BOOT, "first\n");
            tree.write("net/ipv6/conf/wlan0.5/accept_ra", "1\n");
            tree.write("net/ipv6/conf/all/forwarding", "0\n");
            tree
        }

        fn write(&self, key: &str, value: &str) {
            std::fs::write(self.0.join(key), value).unwrap();
        }

        fn read(&self, key: &str) -> String {
            std::fs::read_to_string(self.0.join(key)).unwrap().trim().to_owned()
        }

        fn open(&self) -> Sysctls {
            Sysctls::with_root(self.0.clone(), Some(self.0.join("state.json")))
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const ACCEPT_RA: &str = "net/ipv6/conf/wlan0.5/accept_ra";

    /// Of one that was a router before, and of one that we made a router.
    #[test]
    fn an_uplink_becomes_a_host_and_what_it_was() {
        let tree = Tree::new("host");
        let own = "net/ipv6/conf/wlan0.5/forwarding";
        for before in ["0", "1"] {
            tree.write(FORWARDING, before);
            let mut sysctls = tree.open();
            sysctls.forward().unwrap();
            // As the kernel does it for every interface.
            tree.write(own, "1");
            sysctls.be_host("wlan0.5").unwrap();
            assert_eq!((tree.read(FORWARDING), tree.read(own)), ("1".into(), "0".into()));
            sysctls.restore();
            // The kernel makes every interface follow when forwarding is switched off.
            let want = if before == "0" { "0" } else { "1" };
            assert_eq!((tree.read(FORWARDING), tree.read(own)), (before.into(), want.into()));
        }
        let missing = tree.open().be_host("wlan7").unwrap_err();
        assert!(missing.is_missing());
    }

    #[test]
    fn originals_come_back() {
        let tree = Tree::new("originals");
        let mut sysctls = tree.open();
        sysctls.listen_to_routers("wlan0.5").unwrap();
        sysctls.forward().unwrap();
        sysctls.forward().unwrap();
        assert_eq!((tree.read(ACCEPT_RA), tree.read(FORWARDING)), ("2".into(), "1".into()));
        sysctls.restore();
        assert_eq!((tree.read(ACCEPT_RA), tree.read(FORWARDING)), ("1".into(), "0".into()));
        assert!(!tree.0.join("state.json").exists());
    }

    #[test]
    fn a_killed_run_is_undone_by_the_next() {
        let tree = Tree::new("killed");
        tree.open().forward().unwrap();
        let mut next = tree.open();
        next.forward().unwrap();
        next.restore();
        assert_eq!(tree.read(FORWARDING), "0");
    }

    /// Forwarding is not switched off for a moment; what the next run has no use for goes back.
    #[test]
    fn what_is_wanted_again_stays_as_it_is() {
        let tree = Tree::new("again");
        let mut killed = tree.open();
        killed.forward().unwrap();
        killed.listen_to_routers("wlan0.5").unwrap();
        let mut next = tree.open();
        assert_eq!(tree.read(FORWARDING), "1", "as the killed one left it");
        next.forward().unwrap();
        next.restore_inherited();
        assert_eq!((tree.read(FORWARDING), tree.read(ACCEPT_RA)), ("1".into(), "1".into()));
        next.restore_inherited();
        // Killed as well: the third still knows.
        tree.open().restore();
        assert_eq!(tree.read(FORWARDING), "0");
        assert!(!tree.0.join("state.json").exists());
    }

    /// Whoever sets something else between two runs has it back after the second.
    #[test]
    fn an_original_of_between_counts() {
        let tree = Tree::new("between");
        tree.open().listen_to_routers("wlan0.5").unwrap();
        tree.write(ACCEPT_RA, "0");
        let mut next = tree.open();
        next.listen_to_routers("wlan0.5").unwrap();
        next.restore();
        assert_eq!(tree.read(ACCEPT_RA), "0");
    }

    /// A machine that forwards by itself since, does so after the daemon's stop as well.
    #[test]
    fn what_the_power_took_along_is_not_put_back() {
        let tree = Tree::new("power");
        tree.open().forward().unwrap();
        tree.write(BOOT, "second\n");
        tree.write(FORWARDING, "1\n");
        let mut next = tree.open();
        next.restore_inherited();
        assert!(!tree.0.join("state.json").exists());
        next.forward().unwrap();
        next.restore();
        assert_eq!(tree.read(FORWARDING), "1");
    }

    #[test]
    fn what_others_changed_stays() {
        let tree = Tree::new("others");
        let mut sysctls = tree.open();
        sysctls.listen_to_routers("wlan0.5").unwrap();
        tree.write(ACCEPT_RA, "0");
        sysctls.restore();
        assert_eq!(tree.read(ACCEPT_RA), "0");
    }

    #[test]
    fn a_missing_interface_is_told_apart() {
        let tree = Tree::new("missing");
        assert!(tree.open().listen_to_routers("wwan0").unwrap_err().is_missing());
        assert!(!tree.0.join("state.json").exists(), "nothing was changed");
    }
}
