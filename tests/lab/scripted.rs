//! Peers written in Python with scapy, from the texts of the RFCs: what our daemon says to them
//! and makes of what they say owes nothing to our own codec.
//!
//! `MTUN_PYTHON` runs them, else `python3`; without scapy the tests are skipped, loudly.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mtun::lab::namespace::{Process, wait_for};
use serde_json::{Value, json};

use crate::fixture::PATIENCE;
use crate::ground::Ground;

/// A scripted peer; ended when dropped.
pub struct Peer {
    process: Process,
}

fn python() -> PathBuf {
    std::env::var_os("MTUN_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Whether scapy and tshark are there.
pub fn able() -> Result<(), String> {
    let mut command = Command::new(python());
    match crate::skip::runs(command.args(["-c", "import scapy"])) {
        false => Err("scripted peers: no scapy in MTUN_PYTHON or python3".into()),
        true if !crate::skip::runs(Command::new("tshark").arg("--version")) => {
            Err("scripted peers: tshark is not installed".into())
        }
        true => Ok(()),
    }
}

impl Peer {
    /// Starts `tests/lab/scapy/<script>.py` on a machine and waits until it listens.
    ///
    /// The kernel of the machine hears nothing of Mobile IPv6: it would complain, as kernels
    /// without it do.
    pub fn start(ground: &Ground, machine: &str, script: &str, settings: &Value) -> Self {
        let at = ground.at(machine);
        at.nft(
            "table ip6 scripted {\n  chain arriving {\n    \
             type filter hook prerouting priority raw; policy accept;\n    \
             meta l4proto { 41, 135 } drop\n    ip6 nexthdr 60 drop\n    rt type 2 drop\n  }\n}\n",
        )
        .unwrap();
        Self::run(ground, machine, script, settings)
    }

    /// The same on a machine whose kernel may hear it all.
    pub fn run(ground: &Ground, machine: &str, script: &str, settings: &Value) -> Self {
        let at = ground.at(machine);
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/scapy");
        let mut command = at.command(python());
        command.arg("-u").arg(scripts.join(format!("{script}.py"))).arg(settings.to_string());
        // scapy keeps a cache of its own; Python would leave one beside the scripts.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        // One log for each, so that nobody hears what an earlier one said.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = ground.directory(machine).join(format!("{script}-{number}.log"));
        let peer = Self { process: at.start(command, &log).unwrap() };
        peer.wait_until("it listens", |line| line["ready"] == true);
        peer
    }

    /// What it has said.
    pub fn said(&self) -> Vec<Value> {
        let log = self.process.log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until it says something like this.
    pub fn wait_until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let said = wait_for(what, PATIENCE, || self.said().into_iter().find(&is));
        said.unwrap_or_else(|error| panic!("{error}:\n{}", self.process.log()))
    }

    /// The messages it has said it received: what has a sequence number.
    pub fn updates(&self) -> Vec<Value> {
        self.said().into_iter().filter(|line| line.get("seq").is_some()).collect()
    }
}

/// What passes an interface, kept for tshark.
pub struct Tap {
    peer: Peer,
    file: PathBuf,
}

impl Tap {
    /// Listens on an interface of a bystander.
    pub fn start(ground: &Ground, machine: &str, interface: &str) -> Self {
        let file = ground.directory(machine).join(format!("{interface}.pcap"));
        let settings = json!({ "interface": interface, "file": file });
        Self { peer: Peer::run(ground, machine, "tap", &settings), file }
    }

    /// tshark finds nothing malformed in what passed, and as many Mobility Headers and as many
    /// packets in packets as there must have been at least.
    pub fn assert_well_formed(mut self, mobility: usize, nested: usize) {
        self.peer.process.stop().unwrap();
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&self.file).args(["-n", "-T", "fields", "-E", "separator=/t"]);
        let keys = [
            "frame.number",
            "_ws.malformed",
            "mip6.bogus_header_length",
            "mip6.opt.len.invalid",
            "mip6.mhtype",
            "ipv6.src",
        ];
        for key in keys {
            tshark.args(["-e", key]);
        }
        let output = tshark.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        let (mut headers, mut tunnels) = (0, 0);
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields[1..4], ["", "", ""], "frame {}: {line}", fields[0]);
            headers += usize::from(!fields[4].is_empty());
            tunnels += usize::from(fields[5].split(',').count() > 2);
        }
        assert!(headers >= mobility, "{headers} Mobility Headers, at least {mobility} were due");
        assert!(tunnels >= nested, "{tunnels} tunnels in tunnels, at least {nested} were due");
    }
}

/// The settings of a scripted agent that gives these answers.
pub fn agent(address: Ipv6Addr, key: &[u8], answers: &Value) -> Value {
    let key: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
    json!({
        "interface": "core0",
        "address": address,
        "key": key,
        "spi": 0x1001,
        "algorithm": "sha256",
        "answers": answers,
    })
}

/// Ends the calling test with a message when scripted peers cannot run here.
macro_rules! need_scapy {
    () => {
        if let Err(reason) = crate::scripted::able() {
            crate::skip::skip(&reason);
            return;
        }
    };
}
pub(crate) use need_scapy;
