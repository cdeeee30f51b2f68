//! The router's fourth uplink, `eth0`, which is plugged in at home.
//!
//! ```text
//!   ha home0 ==== eth0 \                    / eth0 ==== port0
//!                       br0, in the host's namespace
//!                       (the host's address is on br0)      mr eth0 ==== port1
//! ```

use anyhow::Result;

use super::world::{World, address};

impl World {
    /// Plugs the router in on the home link, with an address of its own and the home agent as its
    /// router, known by its link-local address as from a Router Advertisement.
    pub fn attach_home(&self) -> Result<()> {
        let host = address::HOME_HOST;
        self.home.ip(&[
            "link add br0 type bridge mcast_snooping 0 forward_delay 0",
            "link set br0 up",
            &format!("address del {host}/64 dev eth0"),
            "link set eth0 master br0",
            &format!("address add {host}/64 dev br0 nodad"),
            &format!("route replace default via {} dev br0", address::AGENT),
        ])?;
        self.ha.ip(&[&format!("address add {}/64 dev home0 nodad", address::AGENT_LINK_LOCAL)])?;
        self.veth((&self.mr, "eth0"), (&self.home, "port1"))?;
        self.home.ip(&["link set port1 master br0", "link set port1 up"])?;
        self.mr.set_sysctl("ipv6/conf/eth0/keep_addr_on_down", "1")?;
        self.plug_home()
    }

    fn plug_home(&self) -> Result<()> {
        self.mr.ip(&[
            "link set eth0 up",
            &format!("address replace {}/64 dev eth0 nodad", address::AT_HOME),
            &format!("route replace default via {} dev eth0 metric 512", address::AGENT_LINK_LOCAL),
        ])
    }

    /// Pulls the plug of the home link at its far end.
    pub fn home_down(&self) -> Result<()> {
        self.home.ip(&["link set port1 down"])
    }

    /// Puts it back.
    pub fn home_up(&self) -> Result<()> {
        self.home.ip(&["link set port1 up"])?;
        self.plug_home()
    }
}
