//! What a policy file lacks, and what it says of this machine that is not so.
//!
//! Addresses and routes are read from the kernel's listings in `/proc`, so that it needs no right and
//! no daemon.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipnet::Ipv6Net;
use mtun_policy::{Home, KeySource, Policy, ServedHome};

use super::{Check, Verdict};
use crate::cli::init;

/// Where a policy is looked for if nobody names one.
const USUAL: &str = "etc/mtun/mtun.kdl";
/// An address that duplicate address detection has not let through (linux/if_addr.h).
const TENTATIVE_OR_FAILED: u32 = 0x40 | 0x08;
/// Global scope.
const GLOBAL: &str = "00";

/// What the machine has, as `/proc` lists it.
struct Machine {
    interfaces: BTreeSet<String>,
    /// Addresses of global scope that may be used, with their interfaces.
    addresses: Vec<(String, Ipv6Addr)>,
    /// Interfaces with a default route.
    uplinks: Vec<String>,
}

impl Machine {
    fn read(root: &Path) -> Self {
        let text = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_default();
        Self {
            interfaces: text("proc/net/dev").lines().filter_map(interface).collect(),
            addresses: text("proc/net/if_inet6").lines().filter_map(address).collect(),
            uplinks: init::default_interfaces(&text("proc/net/ipv6_route")),
        }
    }

    fn has_interface(&self, name: &str) -> bool {
        self.interfaces.contains(name)
    }

    fn of(&self, interface: &str) -> impl Iterator<Item = Ipv6Addr> {
        let on = self.addresses.iter().filter(move |(name, _)| name == interface);
        on.map(|(_, address)| *address)
    }
}

/// One line: the name, a colon, counters. The two lines of the head have no colon.
fn interface(line: &str) -> Option<String> {
    Some(line.split_once(':')?.0.trim().to_owned())
}

/// One line: address, index, prefix length, scope and flags in hexadecimal, interface.
fn address(line: &str) -> Option<(String, Ipv6Addr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [address, _, _, GLOBAL, flags, name] = fields[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let address = Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?);
    (flags & TENTATIVE_OR_FAILED == 0).then(|| (name.to_owned(), address))
}

/// Everything about the policy `file`, or the one in its usual place. What only a running daemon knows
/// better is left out if one is (`runs`).
pub(super) fn checks(root: &Path, file: Option<&Path>, runs: bool) -> Vec<Check> {
    let file = match file {
        Some(file) => file.to_owned(),
        None => {
            let usual = root.join(USUAL);
            if !usual.exists() {
                // Whoever runs a daemon has a policy elsewhere.
                return if runs { Vec::new() } else { vec![none(&usual)] };
            }
            usual
        }
    };
    let policy = match mtun_policy::load_tested(&file) {
        Ok(policy) => policy,
        Err(faults) => {
            let first = faults.0.first().map_or_else(String::new, |fault| fault.message.clone());
            let found = format!("{} faults: {first}", faults.0.len());
            let fix = format!("mtun policy check {}", file.display());
            return vec![Check::not("policy", Verdict::Bad, found, &fix)];
        }
    };
    let mut checks = vec![Check::ok("policy", format!("{}: role {}", policy.name, policy.role))];
    checks.extend(documentation(&policy, &file));
    checks.extend(other_end(&file));
    checks.extend(keys(&policy));
    if !runs {
        let machine = Machine::read(root);
        checks.extend(policy.interfaces.iter().map(|it| uplink(&machine, it.name.as_str(), &file)));
        checks.extend(policy.homes.iter().flat_map(|home| networks(&machine, home)));
        checks.extend(policy.served.iter().flat_map(|home| served(&machine, home, &file)));
        // A mobile's are its home addresses, an agent's are its own.
        let alone = policy.homes.is_empty() && policy.served.is_empty();
        let plan = policy.correspondent.iter().filter(|_| alone);
        let addresses = plan.flat_map(|plan| &plan.addresses);
        checks.extend(addresses.map(|it| own_address(&machine, "correspondent", *it, &file)));
    }
    checks
}

fn none(usual: &Path) -> Check {
    let found = format!("{} is not there", usual.display());
    let fix = "mtun init router, node, agent or correspondent writes one";
    Check::not("policy", Verdict::Warning, found, fix)
}

/// Addresses of the documentation prefix (RFC 3849): what `mtun init` writes for what it was not told.
fn documentation(policy: &Policy, file: &Path) -> Option<Check> {
    let homes = policy.homes.iter().flat_map(|home| {
        let networks = home.mobile_networks.iter().map(|it| it.prefix.net().addr());
        networks.chain([home.agent.0, home.address.0])
    });
    let served = policy.served.iter().flat_map(|home| {
        let mobiles = home.mobiles.iter().map(|mobile| mobile.address.0);
        mobiles.chain([home.agent.0, home.prefix.addr()])
    });
    let plan = policy.correspondent.iter().flat_map(|plan| plan.addresses.iter().copied());
    let all: BTreeSet<Ipv6Addr> = homes.chain(served).chain(plan).collect();
    let mut made_up = all.into_iter().filter(|it| it.segments()[..2] == [0x2001, 0xdb8]);
    let first = made_up.next()?;
    let found = match made_up.count() {
        0 => format!("{first} is of the documentation prefix"),
        more => format!("{first} and {more} more are of the documentation prefix"),
    };
    let fix = format!("put your own addresses into {}, the same at both ends", file.display());
    Some(Check::not("addresses", Verdict::Warning, found, &fix))
}

/// The files of the other end, with its key, which do not belong here.
fn other_end(file: &Path) -> Option<Check> {
    let left = file.parent()?.join(init::OTHER_END);
    left.is_dir().then(|| {
        let shown = left.display();
        let fix = format!("scp -pr {shown}/* root@OTHER:/etc/mtun/ && rm -r {shown}");
        let found = format!("{shown} is still here, with its copy of the key");
        Check::not("other end", Verdict::Warning, found, &fix)
    })
}

fn keys(policy: &Policy) -> Vec<Check> {
    let files = policy.securities.iter().filter_map(|security| match &security.key {
        KeySource::File(file) => Some(file),
        KeySource::Credential(_) => None,
    });
    files.map(|file| key(file)).collect()
}

fn key(file: &Path) -> Check {
    let shown = file.display();
    match std::fs::metadata(file).map(|facts| facts.permissions().mode() & 0o777) {
        Ok(mode) if mode & 0o077 == 0 => Check::ok("keys", format!("{shown}: mode {mode:04o}")),
        Ok(mode) => {
            let found = format!("{shown}: mode {mode:04o}, others can read it");
            Check::not("keys", Verdict::Bad, found, &format!("chmod 600 {shown}"))
        }
        Err(error) => {
            let fix = format!("copy it from the other end, or mtun key new --out {shown}");
            Check::not("keys", Verdict::Bad, format!("{shown}: {error}"), &fix)
        }
    }
}

/// Whether an uplink could be registered now. On the road it may well be missing for hours.
fn uplink(machine: &Machine, name: &str, file: &Path) -> Check {
    let not = |found: &str, fix: &str| {
        Check::not("uplink", Verdict::Warning, format!("{name}: {found}"), fix)
    };
    if !machine.has_interface(name) {
        let fix = format!("plug it in, or name it in {} as `ip link` does", file.display());
        return not("no such interface", &fix);
    }
    let Some(address) = machine.of(name).next() else {
        return not("no global address", &format!("look at: ip -6 address show dev {name}"));
    };
    if !machine.uplinks.iter().any(|uplink| uplink == name) {
        return not("no default route", &format!("look at: ip -6 route show dev {name}"));
    }
    Check::ok("uplink", format!("{name}: {address} and a default route"))
}

/// Whether the networks behind a router are there.
fn networks(machine: &Machine, home: &Home) -> Vec<Check> {
    let named =
        home.mobile_networks.iter().filter_map(|it| Some((it.prefix.net(), it.on.as_ref()?)));
    let check = |(prefix, on): (Ipv6Net, &mtun_policy::InterfaceName)| {
        let on = on.as_str();
        if !machine.has_interface(on) {
            let found = format!("{on}: no such interface");
            return Check::not(
                "network",
                Verdict::Warning,
                found,
                "plug it in, or name another with on=",
            );
        }
        match machine.of(on).find(|address| prefix.contains(address)) {
            Some(address) => Check::ok("network", format!("{on}: {address}, of {prefix}")),
            None => {
                let first = Ipv6Addr::from_bits(prefix.network().to_bits() | 1);
                let fix =
                    format!("ip address add {first}/64 dev {on}, in a way that outlives a boot");
                Check::not(
                    "network",
                    Verdict::Warning,
                    format!("{on}: no address of {prefix}"),
                    &fix,
                )
            }
        }
    };
    named.map(check).collect()
}

/// Whether a home agent is where its mobiles look for it.
fn served(machine: &Machine, home: &ServedHome, file: &Path) -> Vec<Check> {
    let mut checks = vec![own_address(machine, "agent", home.agent.0, file)];
    if let Some(on) = &home.on {
        checks.push(match machine.has_interface(on.as_str()) {
            true => Check::ok("home link", format!("{on} is there")),
            false => Check::not(
                "home link",
                Verdict::Bad,
                format!("{on}: no such interface"),
                "name it as `ip link` does, or leave on= out if the home network is on no link",
            ),
        });
    }
    checks
}

fn own_address(machine: &Machine, name: &'static str, address: Ipv6Addr, file: &Path) -> Check {
    match machine.addresses.iter().find(|(_, own)| *own == address) {
        Some((interface, _)) => Check::ok(name, format!("{address} is on {interface}")),
        None => {
            let fix = format!(
                "put an address of this machine into {}, or: ip address add {address}/128 dev lo",
                file.display()
            );
            Check::not(name, Verdict::Bad, format!("{address} is not on this machine"), &fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_use_are_told_from_others() {
        let lines = [
            ("20010db8000100000000000000000007 02 40 00 80 wlan0", Some("2001:db8:1::7")),
            ("fe800000000000000000000000000001 02 40 20 80 wlan0", None),
            ("20010db8000100000000000000000008 02 40 00 c0 wlan0", None),
            ("20010db8000100000000000000000009 02 40 00 88 wlan0", None),
            ("00000000000000000000000000000001 01 80 10 80 lo", None),
            ("nonsense", None),
        ];
        for (line, want) in lines {
            let found = address(line).map(|(_, address)| address.to_string());
            assert_eq!(found.as_deref(), want, "{line}");
        }
    }
}
