//! The policy files of the simulated nodes, through the same reader as real ones.

use std::net::Ipv6Addr;

use mtun_policy::{MobileNetworkPrefix, NoFiles, Policy};

/// Uplinks of a mobile; their BIDs count from one.
pub const UPLINKS: u16 = 3;

/// What a mobile's policy says.
#[derive(Clone, Debug)]
pub struct MobileText {
    pub agent: Ipv6Addr,
    pub home_address: Ipv6Addr,
    pub prefix: Option<MobileNetworkPrefix>,
    pub multiple_coa: bool,
    pub bulk: bool,
    pub explicit: bool,
    /// Lifetime to ask for, in seconds.
    pub lifetime: u32,
    /// Whether routes are optimized, for this many correspondents.
    pub optimize: Option<u16>,
    /// Whether the agent is told the rules, and asked to let the way down follow the way up.
    pub flow_bindings: bool,
    pub reflect: bool,
    /// Which of the rule sets.
    pub rules: usize,
}

/// The rule sets that a mobile may be given. Port 443 is never refused.
pub const RULES: [&str; 3] = [
    r#"
    rule "ssh" { match proto=tcp dport=22; prefer u2 u1 }
    rule "bulk" { match proto=tcp; prefer u1; otherwise any }
    default { prefer u1 u2; otherwise any }
"#,
    r#"
    rule "telnet" { match proto=tcp dport=23; block reply=icmp }
    rule "ssh" { match proto=tcp dport=22; prefer u3 u2; otherwise next-rule }
    rule "copies" { match proto=udp dport=5060; duplicate u1 u2 copies=2; otherwise any }
    default { balance u1=2 u2=1 u3=1; otherwise any }
"#,
    r#"
    rule "ssh" { match proto=tcp dport=22; prefer u1; otherwise block }
    default { prefer u3 u1; failback now; otherwise any }
"#,
];

impl MobileText {
    /// The policy, read and checked.
    pub fn policy(&self) -> Policy {
        let Self { agent, home_address, multiple_coa, bulk, lifetime, .. } = self;
        let (role, network) = match &self.prefix {
            Some(prefix) => ("mobile-router", format!("mobile-network \"{prefix}\" on=lan0")),
            None => ("mobile-node", String::new()),
        };
        // The reader refuses bulk without several care-of addresses.
        let bulk = *bulk && *multiple_coa;
        let mode = if self.explicit { "explicit" } else { "implicit" };
        let (flow_bindings, reflect) = (self.flow_bindings, self.reflect);
        let optimize = self.optimize.map_or(String::new(), |most| {
            format!("route-optimization traffic lifetime=\"60s\" correspondents={most}")
        });
        let links: String = (1..=UPLINKS)
            .map(|bid| format!("interface \"u{bid}\" {{ bid {bid}; priority {} }}\n", bid * 10))
            .collect();
        let text = format!(
            r#"/- kdl-version 2
policy "mobile" schema=1
role "{role}"
{links}
home "home" {{
    tunnel mtun0
    agent "{agent}"
    address "{home_address}/64"
    {network}
    register lifetime="{lifetime}s" multiple-coa=#{multiple_coa} bulk=#{bulk} mode={mode} \
        flow-bindings=#{flow_bindings} reflect=#{reflect}
    {optimize}
    security "sa"
}}
security "sa" {{ auth-option spi=0x1001 algorithm=hmac-sha256 key-file="key" }}
rules home=home {{ {rules} }}
"#,
            rules = RULES[self.rules],
        );
        read("mobile.kdl", &text)
    }
}

/// What an agent's policy says.
#[derive(Clone, Debug)]
pub struct AgentText {
    pub address: Ipv6Addr,
    /// Home addresses and prefixes of its mobiles.
    pub mobiles: Vec<(Ipv6Addr, Option<MobileNetworkPrefix>)>,
    pub multiple_coa: bool,
    pub bulk: bool,
    pub max_bindings: u16,
    /// Whether it takes flow bindings, how many of each mobile, and whether it reflects.
    pub flow_bindings: bool,
    pub max_flows: u16,
    pub reflect: bool,
    /// Longest lifetime granted, in seconds.
    pub lifetime: u32,
}

impl AgentText {
    /// The policy, read and checked.
    pub fn policy(&self) -> Policy {
        let Self { address, multiple_coa, bulk, max_bindings, lifetime, max_flows, .. } = self;
        let (flow_bindings, reflect) = (self.flow_bindings, self.reflect);
        let bulk = *bulk && *multiple_coa;
        let home: Ipv6Addr = (u128::from(*address) & !u128::from(u64::MAX)).into();
        let mut allowed = String::new();
        let mut securities = String::new();
        for (number, (home_address, prefix)) in self.mobiles.iter().enumerate() {
            let network =
                prefix.as_ref().map_or(String::new(), |it| format!("mobile-network \"{it}\"; "));
            allowed += &format!(
                "allow \"{home_address}\" {{ {network}security \"sa{number}\"; bindings {max_bindings}; \
                 flows {max_flows} }}\n"
            );
            securities += &format!(
                "security \"sa{number}\" {{ auth-option spi=0x1001 algorithm=hmac-sha256 \
                 key-file=\"key{number}\" }}\n"
            );
        }
        let text = format!(
            r#"/- kdl-version 2
policy "agent" schema=1
role "home-agent"
home "home" {{
    tunnel mtun0
    serve "{home}/64" agent="{address}" lifetime="{lifetime}s" multiple-coa=#{multiple_coa} bulk=#{bulk} \
        flow-bindings=#{flow_bindings} reflect=#{reflect}
    {allowed}
}}
{securities}
"#
        );
        read("agent.kdl", &text)
    }
}

fn read(name: &str, text: &str) -> Policy {
    match mtun_policy::parse(name, text, &NoFiles) {
        Ok(policy) => policy,
        Err(faults) => panic!("{text}\n{faults:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_policies() {
        let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
        for rules in 0..RULES.len() {
            for router in [false, true] {
                let net = "2001:db8:4200::/56".parse().expect("a prefix");
                let prefix = router.then(|| MobileNetworkPrefix::new(net).expect("no host bits"));
                let (agent, home_address) =
                    (address("2001:db8:100::1"), address("2001:db8:100::42"));
                let mobile = MobileText {
                    agent,
                    home_address,
                    prefix,
                    rules,
                    multiple_coa: true,
                    bulk: router,
                    explicit: router,
                    lifetime: 60,
                    optimize: router.then_some(4),
                    flow_bindings: router,
                    reflect: router,
                };
                assert_eq!(mobile.policy().homes.len(), 1);
                let agent = AgentText {
                    address: agent,
                    mobiles: vec![(home_address, prefix)],
                    multiple_coa: true,
                    bulk: true,
                    max_bindings: 4,
                    flow_bindings: router,
                    max_flows: 64,
                    reflect: router,
                    lifetime: 60,
                };
                assert_eq!(agent.policy().served[0].mobiles.len(), 1);
            }
        }
    }
}
