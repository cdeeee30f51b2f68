//! The policy files of the world's two daemons, the paper's figure 11 as it is written today.

use std::fmt::Write as _;

use super::world::address;

/// What the files of a test or demo say beyond the usual.
#[derive(Clone, Debug)]
pub struct PolicyText {
    /// The mobile's access links: name, BID, priority.
    pub links: Vec<(&'static str, u16, u8)>,
    /// Rules after `ssh`, verbatim.
    pub more_rules: String,
    /// Binding lifetime in seconds.
    pub lifetime: u32,
    /// The mobile's key file, relative to the policy file; `None` is `security none`.
    pub mobile_key: Option<&'static str>,
    /// The agent's key file; `None` is `security none`.
    pub agent_key: Option<&'static str>,
}

impl Default for PolicyText {
    fn default() -> Self {
        Self {
            links: vec![("wlan0", 1, 10), ("wwan0", 2, 20)],
            more_rules: String::new(),
            lifetime: 420,
            mobile_key: Some("mobile.key"),
            agent_key: Some("agent.key"),
        }
    }
}

/// Security parameters index of the world's one association.
pub const SPI: u32 = 0x1001;

impl PolicyText {
    /// The mobile router's file.
    pub fn mobile(&self) -> String {
        let mut text = String::from(
            "/- kdl-version 2\n\
             // SSH over W-CDMA, everything else over the WLAN; each takes over for the other.\n\
             policy \"figure-11\" schema=1\nrole \"mobile-router\"\n\n",
        );
        for (name, bid, priority) in &self.links {
            let _ = writeln!(text, "interface \"{name}\" {{ bid {bid}; priority {priority} }}");
        }
        let _ = write!(
            text,
            "\nhome \"acme\" {{\n    tunnel mtun0\n    agent \"{}\"\n    address \"{}/64\"\n    \
             mobile-network \"2001:db8:100:4200::/64\" on=lan0\n    register lifetime=\"{}s\"\n    \
             {}\n}}\n",
            address::AGENT,
            address::HOME,
            self.lifetime,
            security(self.mobile_key),
        );
        association(&mut text, self.mobile_key);
        let names: Vec<&str> = self.links.iter().map(|(name, ..)| *name).collect();
        let _ = write!(
            text,
            "\nrules home=acme {{\n    rule \"ssh\" {{\n        match proto=tcp dport=22\n        \
             prefer wwan0\n        otherwise any\n    }}\n{}    default {{\n        prefer {}\n        \
             otherwise any\n    }}\n}}\n",
            self.more_rules,
            names.join(" "),
        );
        text
    }

    /// The home agent's file.
    pub fn agent(&self) -> String {
        let mut text = format!(
            "/- kdl-version 2\npolicy \"figure-11-agent\" schema=1\nrole \"home-agent\"\n\n\
             home \"acme\" {{\n    tunnel mtun0\n    \
             serve \"2001:db8:100::/64\" agent=\"{}\" on=home0\n    \
             allow \"{}\" name=\"bus-7\" {{\n        mobile-network \"2001:db8:100:4200::/64\"\n        \
             {}\n    }}\n}}\n",
            address::AGENT,
            address::HOME,
            security(self.agent_key),
        );
        association(&mut text, self.agent_key);
        text
    }
}

fn security(key: Option<&str>) -> &'static str {
    if key.is_some() { "security \"acme-sa\"" } else { "security none" }
}

fn association(text: &mut String, key: Option<&str>) {
    if let Some(key) = key {
        let _ = write!(
            text,
            "\nsecurity \"acme-sa\" {{\n    auth-option spi={SPI} algorithm=hmac-sha256 \
             key-file=\"{key}\"\n}}\n"
        );
    }
}
