//! Four machines in a row, and the ways by which packets cross the middle.
//!
//! ```text
//!  a eth0 ==== lan0 mr wlan0 ==== up0 ha cn0 ==== eth0 b
//! ```

use std::net::{Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mtun::control::documents::RouteState;
use mtun::control::{Request, Response};
use mtun::lab::daemons::{Arguments, Daemon, Place, Programs};
use mtun::lab::namespace::{Namespace, Process, Shell, wait_for};
use mtun::lab::record::Record;

const PATIENCE: Duration = Duration::from_secs(30);

/// How packets get from `a` to `b` and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Routed, no tunnel.
    Plain,
    /// The kernel's own IPv6 in IPv6: segment routing, `encap.red` and `End.DT6`.
    Seg6,
    /// The kernel's VXLAN, without checksums.
    Vxlan,
    /// WireGuard by its program in user space, which also encrypts.
    WireguardGo,
    /// Ours, every packet by the daemon.
    Engine,
    /// Ours, flows by the kernel at the tunnel interface once they were decided; ten rules.
    Fast,
    /// The same with ten thousand rules.
    Rules,
    /// Ours, and past the tunnel interface once the kernel has forwarded a packet.
    Short,
    /// No tunnel: `a` is a mobile and `b` its correspondent, and the routers are plain ones. Each packet
    /// has a Home Address option, and a type 2 routing header on its way back.
    Straight,
    /// Routed, behind a stateful firewall at both routers.
    Walled,
    /// The shortcut behind the same firewall.
    ShortWalled,
    /// No way at all: what arrives at the first router ends there.
    Sender,
}

impl Way {
    pub const ALL: [Self; 12] = [
        Self::Plain,
        Self::Seg6,
        Self::Vxlan,
        Self::WireguardGo,
        Self::Engine,
        Self::Fast,
        Self::Rules,
        Self::Short,
        Self::Straight,
        Self::Walled,
        Self::ShortWalled,
        Self::Sender,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Seg6 => "seg6",
            Self::Vxlan => "vxlan",
            Self::WireguardGo => "wireguard-go",
            Self::Engine => "engine",
            Self::Fast => "bpf",
            Self::Rules => "bpf-10000-rules",
            Self::Short => "shortcut",
            Self::Straight => "straight",
            Self::Walled => "plain-firewall",
            Self::ShortWalled => "shortcut-firewall",
            Self::Sender => "sender",
        }
    }

    /// Whether ours leaves flows to the kernel there.
    pub fn is_by_the_kernel(self) -> bool {
        matches!(self, Self::Fast | Self::Rules | Self::Short | Self::ShortWalled | Self::Straight)
    }

    /// Short: it is part of the names of namespaces.
    fn short(self) -> &'static str {
        match self {
            Self::WireguardGo => "wggo",
            Self::Rules => "many",
            Self::Short => "short",
            Self::Straight => "strai",
            Self::Walled => "walled",
            Self::ShortWalled => "swall",
            other => other.name(),
        }
    }
}

/// The machines of one way.
pub struct Rig {
    pub way: Way,
    // Daemons end before their namespaces.
    /// That of the agent, then that of the mobile, then that of the correspondent.
    pub daemons: Vec<Daemon>,
    /// Programs of others.
    _others: Vec<Process>,
    pub a: Namespace,
    pub mr: Namespace,
    pub ha: Namespace,
    pub b: Namespace,
}

impl Rig {
    pub fn build(way: Way, record: &Arc<Record>, shell: &Shell) -> Result<Self> {
        let make =
            |role: &str| Namespace::create(record, &format!("{}-{role}", way.short()), shell);
        let mut rig = Self {
            way,
            daemons: Vec::new(),
            _others: Vec::new(),
            a: make("a")?,
            mr: make("mr")?,
            ha: make("ha")?,
            b: make("b")?,
        };
        for namespace in [&rig.a, &rig.mr, &rig.ha, &rig.b] {
            for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("seg6_enabled", "1")] {
                // A kernel without segment routing has no such word.
                let set = namespace.set_sysctl(&format!("ipv6/conf/default/{key}"), value);
                if key != "seg6_enabled" {
                    set?;
                }
            }
        }
        join((&rig.a, "eth0"), (&rig.mr, "lan0"))?;
        join((&rig.mr, "wlan0"), (&rig.ha, "up0"))?;
        join((&rig.ha, "cn0"), (&rig.b, "eth0"))?;
        // Room for every tunnel's headers, so that all carry packets of the same size.
        rig.mr.ip(&["link set wlan0 mtu 1600"])?;
        rig.ha.ip(&["link set up0 mtu 1600"])?;
        rig.address()?;
        match way {
            Way::Plain | Way::Walled | Way::Sender => {
                rig.mr.set_sysctl("ipv6/conf/all/forwarding", "1")?;
                rig.ha.ip(&["route add 2001:db8:100:4200::/64 via 2001:db8:1::7"])?;
            }
            Way::Seg6 => rig.by_segments()?,
            Way::Vxlan => rig.by_vxlan()?,
            Way::WireguardGo => rig.by_wireguard_go(record)?,
            Way::Engine => rig.by_daemons(record, "off", 10)?,
            Way::Fast => rig.by_daemons(record, "no-shortcut", 10)?,
            Way::Rules => rig.by_daemons(record, "no-shortcut", 10_000)?,
            Way::Short | Way::ShortWalled => rig.by_daemons(record, "auto", 10)?,
            Way::Straight => rig.straight(record)?,
        }
        if matches!(way, Way::Walled | Way::ShortWalled) {
            // Both routers let out what comes from within, and back what belongs to it.
            for (namespace, within) in [(&rig.mr, "lan0"), (&rig.ha, "up0")] {
                let within = match (way, within) {
                    (Way::ShortWalled, "up0") => "mtun0",
                    (_, within) => within,
                };
                namespace
                    .nft(&format!("{WALL_HEAD}    iifname \"{within}\" accept\n  }}\n}}\n"))?;
            }
        }
        // What a sender hands over in one piece for many packets leaves as many packets.
        rig.a.exec("ethtool -K eth0 tx-udp-segmentation off")?;
        // Small packets are counted where they arrive, and go no further.
        let (end, link) = rig.end();
        end.nft(&format!(
            "table netdev bench {{\n  chain in {{\n    \
             type filter hook ingress device {link} priority 0;\n    \
             udp dport 9 drop\n  }}\n}}\n",
        ))?;
        Ok(rig)
    }

    fn address(&self) -> Result<()> {
        self.a.ip(&[
            "address add 2001:db8:100:4200::10/64 dev eth0 nodad",
            "route add default via 2001:db8:100:4200::1",
        ])?;
        self.mr.ip(&[
            "address add 2001:db8:100:4200::1/64 dev lan0 nodad",
            "address add 2001:db8:1::7/64 dev wlan0 nodad",
            "route add default via 2001:db8:1::1 dev wlan0",
        ])?;
        self.ha.set_sysctl("ipv6/conf/all/forwarding", "1")?;
        self.ha.ip(&[
            "address add 2001:db8:1::1/64 dev up0 nodad",
            "address add 2001:db8:c::1/64 dev cn0 nodad",
            "address add 2001:db8:100::1/128 dev lo",
        ])?;
        self.b.ip(&[
            "address add 2001:db8:c::9/64 dev eth0 nodad",
            "route add default via 2001:db8:c::1",
        ])
    }

    /// One segment, which leaves no segment routing header: the same packets as ours.
    fn by_segments(&self) -> Result<()> {
        for namespace in [&self.mr, &self.ha] {
            namespace.set_sysctl("ipv6/conf/all/forwarding", "1")?;
            namespace.set_sysctl("ipv6/conf/all/seg6_enabled", "1")?;
        }
        self.mr.ip(&[
            "route add 2001:db8:5::1/128 via 2001:db8:1::1 dev wlan0",
            "route add 2001:db8:c::/64 encap seg6 mode encap.red segs 2001:db8:5::1 dev wlan0",
            "route add 2001:db8:5::2/128 encap seg6local action End.DT6 table 254 dev wlan0",
        ])?;
        self.ha.ip(&[
            "route add 2001:db8:5::2/128 via 2001:db8:1::7 dev up0",
            "route add 2001:db8:100:4200::/64 encap seg6 mode encap.red segs 2001:db8:5::2 \
             dev up0",
            "route add 2001:db8:5::1/128 encap seg6local action End.DT6 table 254 dev up0",
        ])
    }

    fn by_vxlan(&self) -> Result<()> {
        let ends = [
            (&self.mr, "2001:db8:1::7", "2001:db8:1::1", "2001:db8:e::7", "2001:db8:e::1"),
            (&self.ha, "2001:db8:1::1", "2001:db8:1::7", "2001:db8:e::1", "2001:db8:e::7"),
        ];
        let behind = ["2001:db8:c::/64", "2001:db8:100:4200::/64"];
        for ((namespace, local, remote, address, next), behind) in ends.into_iter().zip(behind) {
            namespace.set_sysctl("ipv6/conf/all/forwarding", "1")?;
            namespace.ip(&[
                &format!(
                    "link add vx0 mtu 1500 type vxlan id 7 local {local} remote {remote} \
                     dstport 4789 udp6zerocsumtx udp6zerocsumrx"
                ),
                &format!("address add {address}/64 dev vx0 nodad"),
                "link set vx0 up",
                &format!("route add {behind} via {next} dev vx0"),
            ])?;
        }
        Ok(())
    }

    /// A device on either side, whose names tell their control sockets apart.
    fn by_wireguard_go(&mut self, record: &Record) -> Result<()> {
        let make_key = || Shell::default().run(Command::new("wg").arg("genkey"), "");
        let keys = [make_key()?, make_key()?];
        let own = std::process::id();
        let mut others = Vec::new();
        let ends = [
            (&self.mr, format!("mr{own}"), "2001:db8:1::1", "2001:db8:c::/64"),
            (&self.ha, format!("ha{own}"), "2001:db8:1::7", "2001:db8:100:4200::/64"),
        ];
        for (at, (namespace, device, _, _)) in ends.iter().enumerate() {
            namespace.set_sysctl("ipv6/conf/all/forwarding", "1")?;
            let mut command = namespace.command("wireguard-go");
            command.args(["--foreground", device]).env("LOG_LEVEL", "error");
            let log = record.work().join(format!("wireguard-go-{at}.log"));
            others.push(namespace.start(command, &log)?);
            wait_for(&format!("the device {device}"), PATIENCE, || {
                namespace.interface_index(device).map(drop)
            })?;
        }
        let public = |key: &str| Shell::default().run(Command::new("wg").arg("pubkey"), key);
        for (at, (namespace, device, remote, behind)) in ends.iter().enumerate() {
            let file = record.work().join(format!("wireguard-go-{at}.key"));
            std::fs::write(&file, &keys[at])?;
            let peer = public(&keys[1 - at])?;
            namespace.exec(&format!(
                "wg set {device} listen-port 51820 private-key {} peer {} endpoint                  [{remote}]:51820 allowed-ips {behind}",
                file.display(),
                peer.trim()
            ))?;
            namespace.ip(&[
                &format!("link set {device} mtu 1500 up"),
                &format!("route add {behind} dev {device}"),
            ])?;
        }
        self._others = others;
        Ok(())
    }

    fn by_daemons(&mut self, record: &Record, fast_path: &str, rules: usize) -> Result<()> {
        let mobile = mobile(rules);
        for (namespace, role, text) in [(&self.ha, "ha", AGENT), (&self.mr, "mr", &*mobile)] {
            self.daemons.push(self.daemon(record, (namespace, role), fast_path, text)?);
        }
        self.daemons[1].wait_for_links(&["wlan0"], PATIENCE)?;
        Ok(())
    }

    fn daemon(
        &self,
        record: &Record,
        (namespace, role): (&Namespace, &str),
        fast_path: &str,
        text: &str,
    ) -> Result<Daemon> {
        let programs = Programs {
            mtund: PathBuf::from(env!("CARGO_BIN_EXE_mtund")),
            mtun: PathBuf::from(env!("CARGO_BIN_EXE_mtun")),
        };
        let arguments = ["--fast-path", fast_path, "--metrics", "none"];
        let arguments = Arguments(arguments.map(str::to_owned).to_vec());
        let directory = record.work().join(format!("{}-{role}", self.way.short()));
        std::fs::create_dir(&directory)?;
        let place = Place { namespace, directory: &directory, file: "policy.kdl" };
        Daemon::start_at(place, &programs, text, &arguments)
    }

    /// A mobile at `a`, whose agent is at `ha` and out of the way once `b` knows where it is.
    fn straight(&mut self, record: &Record) -> Result<()> {
        // Packets of the same size as elsewhere, with room for what they carry besides.
        for (namespace, link) in
            [(&self.a, "eth0"), (&self.mr, "lan0"), (&self.ha, "cn0"), (&self.b, "eth0")]
        {
            namespace.ip(&[&format!("link set {link} mtu 1540")])?;
        }
        self.mr.set_sysctl("ipv6/conf/all/forwarding", "1")?;
        self.ha.ip(&["route add 2001:db8:100:4200::/64 via 2001:db8:1::7"])?;
        let agent = AGENT.replace("        mobile-network \"2001:db8:100:4200::/64\"\n", "");
        for (namespace, role, text) in
            [(&self.ha, "ha", &*agent), (&self.a, "a", STRAIGHT), (&self.b, "b", CORRESPONDENT)]
        {
            self.daemons.push(self.daemon(record, (namespace, role), "auto", text)?);
        }
        self.daemons[1].wait_for_links(&["eth0"], PATIENCE)?;
        // Somebody has to want it.
        let socket = self.a.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        wait_for("the straight way", PATIENCE, || {
            let _ = socket.send_to(b"hello", "[2001:db8:c::9]:9");
            let status = self.daemons[1].status().ok()?;
            status.routes.iter().any(|it| it.state == RouteState::Straight).then_some(())
        })
        .with_context(|| self.daemons[1].story())
    }

    /// Where small packets end, and by which interface they come there.
    fn end(&self) -> (&Namespace, &'static str) {
        match self.way {
            Way::Sender => (&self.mr, "lan0"),
            _ => (&self.b, "eth0"),
        }
    }

    /// What a network card without offloads brings: packets of the size of the link.
    pub fn without_superpackets(&self) -> Result<()> {
        [&self.a, &self.b]
            .iter()
            .try_for_each(|end| end.exec("ethtool -K eth0 tso off gso off").map(drop))
    }

    /// Joins them again where they arrive.
    pub fn join_packets(&self) -> Result<()> {
        for (namespace, link) in
            [(&self.mr, "lan0"), (&self.mr, "wlan0"), (&self.ha, "up0"), (&self.ha, "cn0")]
        {
            namespace.exec(&format!("ethtool -K {link} gro on"))?;
        }
        Ok(())
    }

    /// How many packets the fast paths of both ends have carried; a superpacket is one.
    pub fn carried(&self) -> Result<u64> {
        let mut carried = 0;
        for daemon in &self.daemons {
            let Response::Metrics(figures) = daemon.ask(Request::Metrics {})? else { continue };
            let by_it = figures.fast_path.iter();
            let by_it = by_it.filter(|it| match self.way {
                Way::Short | Way::ShortWalled => it.outcome.starts_with("shortcut-"),
                _ => matches!(&*it.outcome, "sent" | "received"),
            });
            carried += by_it.map(|it| it.packets).sum::<u64>();
        }
        Ok(carried)
    }

    /// Packets that reached the end.
    pub fn arrived(&self) -> Result<u64> {
        let (end, link) = self.end();
        let text = end.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(link)?.strip_prefix(':'));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.context("eth0 has counters")
    }
}

fn join(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    a.0.ip(&[
        &format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.name()),
        &format!("link set {} up", a.1),
    ])?;
    b.0.ip(&[&format!("link set {} up", b.1)])
}

/// A router's policy with so many rules, of which none speaks of what is sent here.
fn mobile(rules: usize) -> String {
    let rules: String = (0..rules)
        .map(|n| {
            format!(
                "    rule \"r{n}\" {{\n        match proto=tcp dport={}\n        \
                 prefer wlan0\n        otherwise any\n    }}\n",
                10_000 + n
            )
        })
        .collect();
    format!(
        "{MOBILE}rules home=acme {{\n{rules}    default {{\n        prefer wlan0\n        otherwise any\n    }}\n}}\n"
    )
}

const MOBILE: &str = r#"/- kdl-version 2
policy "bench" schema=1
role "mobile-router"
interface "wlan0" {
    class wlan
    bid 1
    usable { hold up="0s" }
}
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    mobile-network "2001:db8:100:4200::/64" on=lan0
    register lifetime="420s" multiple-coa=#true bulk=#true mode=explicit
    security none
}
"#;

/// The beginning of a firewall that lets nothing in that nobody asked for.
const WALL_HEAD: &str = "table inet wall {\n  chain forward {\n    \
    type filter hook forward priority 0; policy drop;\n    \
    ct state established,related accept\n    ct state invalid drop\n    \
    ip6 nexthdr icmpv6 accept\n";

const AGENT: &str = r#"/- kdl-version 2
policy "bench-agent" schema=1
role "home-agent"
home "acme" {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1" lifetime="1h" multiple-coa=#true bulk=#true
    allow "2001:db8:100::42" name="bench" {
        mobile-network "2001:db8:100:4200::/64"
        security none
        bindings 4
    }
}
"#;

/// The mobile at `a`.
const STRAIGHT: &str = r#"/- kdl-version 2
policy "bench-straight" schema=1
role "mobile-node"
interface "eth0" {
    class ethernet
    bid 1
    usable { hold up="0s" }
}
home "acme" {
    tunnel mtun0
    agent "2001:db8:100::1"
    address "2001:db8:100::42/64"
    register lifetime="420s" multiple-coa=#true bulk=#true
    route-optimization traffic
    security none
}
rules home=acme {
    default {
        prefer eth0
        otherwise any
        optimize always
    }
}
"#;

const CORRESPONDENT: &str = r#"/- kdl-version 2
policy "bench-correspondent" schema=1
role "correspondent"
correspondent {
    tunnel mtun0
    address "2001:db8:c::9"
    multiple-coa #true
}
"#;
