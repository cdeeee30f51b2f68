//! The world of the paper's figure 10, in network namespaces.
//!
//! ```text
//!              mr                      wlan (access 1)
//!  mnn      +--------+ wlan0      sta0 +--------------+ up0  ~wire~      home
//! +----+    |        |=====veth========| RA, DAD, nft |---------+      +------+
//! |    |veth| mobile |  2001:db8:1::/64+--------------+         |      | host |
//! |    |====| router |                                       +------+  +------+
//! +----+lan0|        | wwan0 ~wire~ air0+-------------+ veth | core |     | home0
//!  ::10  ::1|        |------------------| no link, nft|======|      |  +------+
//!           +--------+  2001:db8:2::/64 +-------------+      +------+==|  ha  |
//!  2001:db8:100:4200::/64               wcdma (access 2)        ‖      +------+
//!                                                            +------+  2001:db8:100::1
//!                                                            |  cn  |  2001:db8:c::9
//!                                                            +------+
//! ```
//!
//! `====` is a veth pair, `~wire~` two TUN devices joined by a [`Wire`]. WLAN is Ethernet with
//! Router Advertisements, so its care-of address appears by autoconfiguration and only after
//! duplicate address detection. The W-CDMA uplink has no link layer, as modems have none. Both
//! access routers drop what does not come from their own prefix, as real ones do, and count
//! apart what came with a home source. The router is left as a machine is after boot: it does
//! not forward and has no tunnel; the daemon under test has to see to that.

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::advertiser::{Advertisement, Advertiser};
use super::keeper;
use super::namespace::{Namespace, Shell, wait_for};
use super::record::{self, Record, Which};
use super::tun::Tun;
use super::wire::{Impairment, Wire};

/// Addresses of the world; `examples/figure-11.kdl` uses the same.
pub mod address {
    use std::net::Ipv6Addr;

    const fn db8(third: u16, fourth: u16, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, third, fourth, 0, 0, 0, last)
    }
    /// The home agent.
    pub const AGENT: Ipv6Addr = db8(0x100, 0, 1);
    /// The router's home address.
    pub const HOME: Ipv6Addr = db8(0x100, 0, 0x42);
    /// The router's own address when it is at home.
    pub const AT_HOME: Ipv6Addr = db8(0x100, 0, 0x77);
    /// The home agent on the home link.
    pub const AGENT_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    /// A host that stays on the home link.
    pub const HOME_HOST: Ipv6Addr = db8(0x100, 0, 0x99);
    /// The router on `lan0`.
    pub const LAN: Ipv6Addr = db8(0x100, 0x4200, 1);
    /// The node behind the router.
    pub const NODE: Ipv6Addr = db8(0x100, 0x4200, 0x10);
    /// The correspondent.
    pub const CORRESPONDENT: Ipv6Addr = db8(0xc, 0, 9);
    /// The router on the WLAN.
    pub const WLAN: Ipv6Addr = db8(1, 0, 7);
    /// The WLAN's access router.
    pub const WLAN_ROUTER: Ipv6Addr = db8(1, 0, 1);
    /// The router on the W-CDMA uplink.
    pub const WWAN: Ipv6Addr = db8(2, 0, 7);
    /// The router on the second W-CDMA bearer.
    pub const WWAN1: Ipv6Addr = db8(3, 0, 7);
    /// The router on its guest network.
    pub const GUEST_ROUTER: Ipv6Addr = db8(0xfe, 0, 1);
    /// A guest's device.
    pub const GUEST: Ipv6Addr = db8(0xfe, 0, 0x10);
    /// Everything at home: the home link and the mobile networks.
    pub const HOME_PREFIX: &str = "2001:db8:100::/48";

    /// Whether `address` belongs to the home network or a mobile network.
    pub fn is_home(address: Ipv6Addr) -> bool {
        address.segments()[..3] == [0x2001, 0xdb8, 0x100]
    }
}

/// How a world differs from the usual one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Print every command.
    pub verbose: bool,
    /// Both ends of the WLAN's veth pair have the same interface index: the kernel then holds
    /// its link events for most of a second.
    pub equal_index: bool,
    /// WLAN addresses by Router Advertisement; otherwise static with a static default route.
    pub advertise: bool,
    /// How long duplicate address detection takes on the WLAN.
    pub detection: Duration,
    /// MTU of the WLAN.
    pub wlan_mtu: u16,
    /// MTU of the W-CDMA uplinks.
    pub wwan_mtu: u16,
    /// The wire between the WLAN's access router and the core.
    pub wlan_path: Impairment,
    /// The wire of the W-CDMA uplink.
    pub wwan_path: Impairment,
    /// Plug the WLAN in from the beginning.
    pub wlan: bool,
    /// Plug the W-CDMA uplink in from the beginning.
    pub wwan: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            verbose: false,
            equal_index: false,
            advertise: true,
            detection: Duration::from_millis(200),
            wlan_mtu: 1500,
            wwan_mtu: 1500,
            wlan_path: Impairment::delayed(Duration::from_millis(2)),
            wwan_path: Impairment::delayed(Duration::from_millis(10)),
            wlan: true,
            wwan: true,
        }
    }
}

/// What an access router has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Plain packets with a source at home: what the tunnel exists to prevent.
    pub home_source: u64,
    /// Other sources that are not of the access network.
    pub foreign: u64,
}

/// An access network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Access network 1.
    Wlan,
    /// Access network 2.
    Wcdma,
}

/// A built world. Dropping it removes everything, unless the record is kept.
#[derive(Debug)]
pub struct World {
    // Fields drop in this order: links, then namespaces, then the record.
    wires: Wires,
    advertiser: Option<Advertiser>,
    /// The mobile router.
    pub mr: Namespace,
    /// The node behind it.
    pub mnn: Namespace,
    /// Router of access network 1.
    pub wlan: Namespace,
    /// Router of access network 2.
    pub wcdma: Namespace,
    /// What joins access networks, agent and correspondent.
    pub core: Namespace,
    /// The home agent.
    pub ha: Namespace,
    /// A host on the home link.
    pub home: Namespace,
    /// The correspondent.
    pub cn: Namespace,
    /// A guest's device on the router's guest network, if there is one.
    pub guest: Option<Namespace>,
    plan: Plan,
    shell: Shell,
    record: Arc<Record>,
}

#[derive(Debug, Default)]
struct Wires {
    wlan: Option<Wire>,
    wwan: Option<Wire>,
    wwan1: Option<Wire>,
}

impl World {
    /// Builds the world; first removes what dead runs left behind.
    pub fn build(plan: Plan) -> Result<Self> {
        let shell = Shell { verbose: plan.verbose };
        record::remove_all(Which::Stale, &shell)?;
        let record = Arc::new(Record::start()?);
        let make = |role| Namespace::create(&record, role, &shell);
        let mut world = Self {
            mr: make("mr")?,
            mnn: make("mnn")?,
            wlan: make("wlan")?,
            wcdma: make("wcdma")?,
            core: make("core")?,
            ha: make("ha")?,
            home: make("home")?,
            cn: make("cn")?,
            guest: None,
            wires: Wires::default(),
            advertiser: None,
            plan,
            shell: shell.clone(),
            record: record.clone(),
        };
        world.settle_hosts()?;
        world.lay_core()?;
        world.lay_home()?;
        if world.plan.wlan {
            world.attach_wlan()?;
        }
        if world.plan.wwan {
            world.attach_wwan()?;
        }
        Ok(world)
    }

    /// Settings of machines that are not under test.
    fn settle_hosts(&self) -> Result<()> {
        for namespace in
            [&self.mnn, &self.wlan, &self.wcdma, &self.core, &self.ha, &self.home, &self.cn]
        {
            // Detection on links that only the lab uses would only cost time.
            namespace.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
            namespace.set_sysctl("ipv6/conf/default/dad_transmits", "0")?;
            namespace.set_sysctl("ipv6/conf/default/accept_ra", "0")?;
        }
        for router in [&self.wlan, &self.wcdma, &self.core, &self.ha] {
            router.set_sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        // Taking sta0 down is how the WLAN vanishes; its address must be there afterwards.
        self.wlan.set_sysctl("ipv6/conf/default/keep_addr_on_down", "1")?;
        // Without a random wait before it, duplicate address detection takes just its own time.
        self.mr.set_sysctl("ipv6/conf/default/router_solicitation_delay", "0")
    }

    /// Joins two namespaces by a veth pair.
    pub(super) fn veth(&self, a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
        a.0.ip(&[&format!("link add {} type veth peer name {} netns {}", a.1, b.1, b.0.name())])
    }

    fn lay_core(&mut self) -> Result<()> {
        self.veth((&self.core, "ha0"), (&self.ha, "core0"))?;
        self.veth((&self.core, "cn0"), (&self.cn, "eth0"))?;
        self.veth((&self.core, "wcdma0"), (&self.wcdma, "core0"))?;
        self.core.ip(&[
            "link set ha0 up",
            "link set cn0 up",
            "link set wcdma0 up",
            "address add 2001:db8:f0::1/64 dev ha0 nodad",
            "address add 2001:db8:c::1/64 dev cn0 nodad",
            "address add 2001:db8:f2::1/64 dev wcdma0 nodad",
            "route add 2001:db8:100::/48 via 2001:db8:f0::2",
            "route add 2001:db8:2::/64 via 2001:db8:f2::2",
            "route add 2001:db8:3::/64 via 2001:db8:f2::2",
        ])?;
        self.ha.ip(&[
            "link set core0 up",
            "address add 2001:db8:f0::2/64 dev core0 nodad",
            "route add default via 2001:db8:f0::1",
            // Mobile networks that nobody has registered go nowhere, least of all back.
            "route add unreachable 2001:db8:100::/48 metric 4000",
        ])?;
        self.cn.ip(&[
            "link set eth0 up",
            &format!("address add {}/64 dev eth0 nodad", address::CORRESPONDENT),
            "route add default via 2001:db8:c::1",
        ])?;
        self.wcdma.ip(&[
            "link set core0 up",
            "address add 2001:db8:f2::2/64 dev core0 nodad",
            "route add default via 2001:db8:f2::1",
        ])?;
        // The WLAN's path into the core is a wire, so that both paths can have a delay.
        let wire = Wire::join(
            Tun::open(&self.wlan, "up0")?,
            Tun::open(&self.core, "wlan0")?,
            self.plan.wlan_path,
            11,
        )?;
        self.wlan.ip(&["link set up0 up txqueuelen 5000", "route add default dev up0"])?;
        self.core
            .ip(&["link set wlan0 up txqueuelen 5000", "route add 2001:db8:1::/64 dev wlan0"])?;
        self.wires.wlan = Some(wire);
        self.filter(&self.wlan, &[("sta0", "2001:db8:1::/64")])?;
        self.filter(&self.wcdma, &[("air0", "2001:db8:2::/64"), ("air1", "2001:db8:3::/64")])
    }

    fn lay_home(&self) -> Result<()> {
        self.veth((&self.ha, "home0"), (&self.home, "eth0"))?;
        self.ha.ip(&[
            "link set home0 up",
            &format!("address add {}/64 dev home0 nodad", address::AGENT),
        ])?;
        self.home.ip(&[
            "link set eth0 up",
            &format!("address add {}/64 dev eth0 nodad", address::HOME_HOST),
            &format!("route add default via {}", address::AGENT),
        ])?;
        self.veth((&self.mr, "lan0"), (&self.mnn, "eth0"))?;
        // As long as a link-local address is tentative the kernel asks for no neighbour on behalf of
        // others: on a busy machine, where it may be so for seconds, the node would not be found once the
        // router has to ask for it.
        self.mr.set_sysctl("ipv6/conf/lan0/accept_dad", "0")?;
        self.mnn.set_sysctl("ipv6/conf/eth0/accept_dad", "0")?;
        self.mr.ip(&[
            "link set lan0 up",
            &format!("address add {}/64 dev lan0 nodad", address::LAN),
        ])?;
        self.mnn.ip(&[
            "link set eth0 up",
            &format!("address add {}/64 dev eth0 nodad", address::NODE),
            &format!("route add default via {}", address::LAN),
        ])
    }

    /// The access router's ingress filter (BCP 38), with a counter for each reason.
    fn filter(&self, router: &Namespace, links: &[(&str, &str)]) -> Result<()> {
        let mut rules = String::from(
            "table ip6 access {\n  counter home_source { }\n  counter foreign { }\n  \
             chain ingress {\n    type filter hook prerouting priority raw; policy accept;\n",
        );
        for (interface, prefix) in links {
            rules += &format!(
                "    iifname \"{interface}\" ip6 saddr {} counter name home_source drop\n    \
                 iifname \"{interface}\" ip6 saddr != {{ ::, fe80::/10, {prefix} }} counter name foreign drop\n",
                address::HOME_PREFIX
            );
        }
        rules += "  }\n}\n";
        router.nft(&rules)
    }

    /// Plugs the WLAN in: the veth pair, the access router's address and its advertisements.
    pub fn attach_wlan(&mut self) -> Result<()> {
        let mtu = self.plan.wlan_mtu;
        let (own, peer) = if self.plan.equal_index { (77, 77) } else { (71, 72) };
        self.mr.ip(&[&format!(
            "link add wlan0 index {own} mtu {mtu} type veth peer name sta0 index {peer} mtu {mtu} \
             netns {}",
            self.wlan.name()
        )])?;
        self.wlan.ip(&[
            "link set sta0 up",
            &format!("address add {}/64 dev sta0 nodad", address::WLAN_ROUTER),
        ])?;
        let detection = self.plan.detection.as_millis();
        self.mr.set_sysctl("ipv6/neigh/wlan0/retrans_time_ms", &detection.to_string())?;
        if self.plan.advertise {
            let advertisement = Advertisement::wlan(mtu.into(), self.plan.detection);
            // A token makes the interface identifier of the autoconfigured address known. A
            // router takes it once advertisements count, which is for its daemon to see to.
            wait_for("Router Advertisements to count", Duration::from_secs(10), || {
                self.mr.ip(&["token set ::7 dev wlan0"]).ok()
            })?;
            self.advertiser = Some(Advertiser::start(&self.wlan, "sta0", advertisement)?);
            self.mr.ip(&["link set wlan0 up"])
        } else {
            self.mr.ip(&[
                "link set wlan0 up",
                &format!("address add {}/64 dev wlan0", address::WLAN),
                &format!("route add default via {} dev wlan0 metric 1024", address::WLAN_ROUTER),
            ])
        }
    }

    /// Plugs the W-CDMA uplink in: a device without link layer, its address and default route.
    pub fn attach_wwan(&mut self) -> Result<()> {
        self.wires.wwan = Some(self.modem("wwan0", "air0", 2, address::WWAN, 2048)?);
        Ok(())
    }

    /// Pulls the W-CDMA uplink out: its interface is gone.
    pub fn detach_wwan(&mut self) {
        self.wires.wwan = None;
    }

    /// Plugs a second W-CDMA bearer in, `wwan1`.
    pub fn attach_wwan1(&mut self) -> Result<()> {
        self.wires.wwan1 = Some(self.modem("wwan1", "air1", 3, address::WWAN1, 2049)?);
        Ok(())
    }

    fn modem(
        &self,
        uplink: &str,
        far: &str,
        prefix: u16,
        own: Ipv6Addr,
        metric: u32,
    ) -> Result<Wire> {
        let mtu = self.plan.wwan_mtu;
        let wire = Wire::join(
            Tun::open(&self.mr, uplink)?,
            Tun::open(&self.wcdma, far)?,
            self.plan.wwan_path,
            prefix.into(),
        )?;
        self.wcdma.ip(&[
            &format!("link set {far} up mtu {mtu} txqueuelen 5000"),
            &format!("address add 2001:db8:{prefix}::1/64 dev {far} nodad"),
        ])?;
        self.mr.ip(&[
            &format!("link set {uplink} up mtu {mtu} txqueuelen 5000"),
            &format!("address add {own}/64 dev {uplink}"),
            &format!("route add default dev {uplink} metric {metric}"),
        ])?;
        Ok(wire)
    }

    /// Plugs a guest in: a network of the router, `br-guest`, that is not of the home network.
    pub fn attach_guest(&mut self) -> Result<()> {
        let guest = Namespace::create(&self.record, "guest", &self.shell)?;
        guest.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        guest.set_sysctl("ipv6/conf/default/accept_ra", "0")?;
        self.veth((&self.mr, "br-guest"), (&guest, "eth0"))?;
        self.mr.ip(&[
            "link set br-guest up",
            &format!("address add {}/64 dev br-guest nodad", address::GUEST_ROUTER),
        ])?;
        guest.ip(&[
            "link set eth0 up",
            &format!("address add {}/64 dev eth0 nodad", address::GUEST),
            &format!("route add default via {}", address::GUEST_ROUTER),
        ])?;
        self.guest = Some(guest);
        Ok(())
    }

    /// Takes the WLAN away at its far end: the router sees its carrier go.
    pub fn wlan_down(&self) -> Result<()> {
        self.wlan.ip(&["link set sta0 down"])
    }

    /// Brings the WLAN back.
    pub fn wlan_up(&self) -> Result<()> {
        self.wlan.ip(&["link set sta0 up"])
    }

    /// The wire between the WLAN's access router and the core.
    pub fn wlan_wire(&self) -> &Wire {
        self.wires.wlan.as_ref().expect("laid with the core")
    }

    /// The wire of the W-CDMA uplink, if it is plugged in.
    pub fn wwan_wire(&self) -> Option<&Wire> {
        self.wires.wwan.as_ref()
    }

    /// Leaves the world behind, with a process that keeps its links alive: this program, started
    /// with `arguments` and a task. Returns the names of the namespaces.
    pub fn leave(self, arguments: &[&str]) -> Result<Vec<String>> {
        let links: Vec<(&Wire, Duration)> = [
            (&self.wires.wlan, self.plan.wlan_path.delay),
            (&self.wires.wwan, self.plan.wwan_path.delay),
            (&self.wires.wwan1, self.plan.wwan_path.delay),
        ]
        .into_iter()
        .filter_map(|(wire, delay)| Some((wire.as_ref()?, delay)))
        .collect();
        let mtu = if self.advertiser.is_some() { self.plan.wlan_mtu.into() } else { 0 };
        let keeper = keeper::start(arguments, &self.wlan, mtu, &links)?;
        self.record.add_process(keeper)?;
        self.record.keep()?;
        Ok(self.namespaces().iter().map(|namespace| namespace.name().to_owned()).collect())
    }

    /// Every namespace, the mobile router's first.
    pub fn namespaces(&self) -> [&Namespace; 8] {
        [&self.mr, &self.mnn, &self.wlan, &self.wcdma, &self.core, &self.ha, &self.home, &self.cn]
    }

    /// What an access router has dropped so far.
    pub fn dropped(&self, access: Access) -> Result<Dropped> {
        let router = match access {
            Access::Wlan => &self.wlan,
            Access::Wcdma => &self.wcdma,
        };
        let text = Shell::default().run(
            router.command("nft").args(["--json", "list", "counters", "table", "ip6", "access"]),
            "",
        )?;
        let document: serde_json::Value = serde_json::from_str(&text)?;
        let packets = |name: &str| -> Result<u64> {
            document["nftables"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|item| item["counter"]["name"] == name)
                .and_then(|item| item["counter"]["packets"].as_u64())
                .with_context(|| format!("no counter {name} in {text}"))
        };
        Ok(Dropped { home_source: packets("home_source")?, foreign: packets("foreign")? })
    }

    /// Plain packets with a home source that reached any access router.
    pub fn leaked(&self) -> Result<u64> {
        Ok(self.dropped(Access::Wlan)?.home_source + self.dropped(Access::Wcdma)?.home_source)
    }

    /// Waits until the router's address on the WLAN has passed duplicate address detection.
    pub fn wait_for_wlan_address(&self) -> Result<()> {
        wait_for("the care-of address on wlan0", Duration::from_secs(20), || {
            self.has_address(address::WLAN, "wlan0").then_some(())
        })
    }

    /// Whether the router has `address`, not tentative, on `interface`.
    pub fn has_address(&self, address: Ipv6Addr, interface: &str) -> bool {
        let Ok(links) = self.mr.ip_json(&format!("-6 address show dev {interface}")) else {
            return false;
        };
        links
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|link| link["addr_info"].as_array())
            .flatten()
            .any(|entry| {
                entry["local"] == address.to_string()
                    && entry["tentative"] != true
                    && entry["dadfailed"] != true
            })
    }

    /// How this world differs from the usual one.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The run's directory for sockets, logs and keys.
    pub fn directory(&self) -> &Path {
        self.record.work()
    }

    /// The run's name, which prefixes its namespaces.
    pub fn run(&self) -> &str {
        self.record.run()
    }

    /// The shell that the world was built with.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The run's record.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }
}
