//! The policy files of the world's daemons: those of `examples/`, and changes to them.

/// The texts for all ends.
#[derive(Clone, Debug)]
pub struct PolicyText {
    /// The mobile router's.
    pub mobile: String,
    /// The home agent's.
    pub agent: String,
    /// The correspondent's, where it runs a daemon.
    pub correspondent: String,
}

impl Default for PolicyText {
    /// `examples/figure-11.kdl`, `examples/home-agent.kdl` and `examples/correspondent.kdl`; links
    /// that return are used at once and not after half a minute.
    fn default() -> Self {
        let text = Self {
            mobile: include_str!("../../examples/figure-11.kdl").to_owned(),
            agent: include_str!("../../examples/home-agent.kdl").to_owned(),
            correspondent: include_str!("../../examples/correspondent.kdl")
                .replace("2001:db8:ffff::1", "2001:db8:c::9"),
        };
        text.with_usable("wlan0", "hold up=\"0s\"").with_usable("wwan0", "hold up=\"0s\"")
    }
}

impl PolicyText {
    /// The mobile's file with one more rule, before the default.
    #[must_use]
    pub fn with_rule(mut self, name: &str, says: &str) -> Self {
        let rule = format!("    rule \"{name}\" {{\n        {says}\n    }}\n    default {{");
        self.mobile = changed(&self.mobile, "    default {", &rule);
        self
    }

    /// The mobile's file with routes optimized by traffic, or by what `says`.
    #[must_use]
    pub fn with_optimization(mut self, says: &str) -> Self {
        let security = "    security \"acme-sa\"\n";
        let with = format!("{security}    route-optimization {says}\n");
        self.mobile = changed(&self.mobile, security, &with);
        self
    }

    /// The mobile's file with a guest network that leaves by the WLAN, translated, or not at all.
    #[must_use]
    pub fn with_guests(self) -> Self {
        let says =
            "match in=br-guest\n breakout wlan0 translate=#true\n otherwise block reply=icmp";
        let mut text = self.with_rule("guests", says);
        let security = "    security \"acme-sa\"\n";
        let with = format!("    also from=br-guest\n{security}");
        text.mobile = changed(&text.mobile, security, &with);
        text
    }

    /// The mobile's file with `usable { … }` of a link, instead of what it said there.
    #[must_use]
    pub fn with_usable(self, interface: &str, says: &str) -> Self {
        let mut text = self.without_usable(interface);
        let head = format!("interface \"{interface}\" {{\n");
        let with = format!("{head}    usable {{ {says} }}\n");
        text.mobile = changed(&text.mobile, &head, &with);
        text
    }

    /// The mobile's file with further statements about a link, such as a quota.
    #[must_use]
    pub fn with_statement(mut self, interface: &str, says: &str) -> Self {
        let head = format!("interface \"{interface}\" {{\n");
        self.mobile = changed(&self.mobile, &head, &format!("{head}    {says}\n"));
        self
    }

    fn without_usable(mut self, interface: &str) -> Self {
        let head = format!("interface \"{interface}\" {{\n    usable {{ ");
        if let Some(at) = self.mobile.find(&head) {
            let start = at + head.len() - "    usable { ".len();
            let end = self.mobile[start..].find('\n').map_or(start, |length| start + length + 1);
            self.mobile.replace_range(start..end, "");
        }
        self
    }

    /// The mobile's file with a third uplink, `wwan1`, BID 3.
    #[must_use]
    pub fn with_third_uplink(mut self) -> Self {
        let third = "interface \"wwan1\" {\n    usable { hold up=\"0s\" }\n    bid 3\n    priority 30\n}\n\nhome \"acme\" {";
        self.mobile = changed(&self.mobile, "home \"acme\" {", third);
        // The file's own tests are right to notice that there is one more way out.
        let none = "given wwan0=down wlan0=down }";
        self.mobile = changed(&self.mobile, none, "given wwan0=down wlan0=down wwan1=down }");
        self
    }

    /// The mobile's file with an uplink for the home link, `eth0`, BID 3, and what it does there
    /// (`home`, `both`, `foreign`).
    #[must_use]
    pub fn with_home_uplink(mut self, returning: &str) -> Self {
        let third = "interface \"eth0\" {\n    usable { hold up=\"0s\" }\n    bid 3\n    \
                     priority 30\n}\n\nhome \"acme\" {";
        let third = format!("{third}\n    returning-home {returning}");
        self.mobile = changed(&self.mobile, "home \"acme\" {", &third);
        let none = "given wwan0=down wlan0=down }";
        self.mobile = changed(&self.mobile, none, "given wwan0=down wlan0=down eth0=down }");
        self
    }

    /// The agent's file without a home link: the home network is a virtual one.
    #[must_use]
    pub fn with_virtual_home_link(mut self) -> Self {
        self.agent = changed(&self.agent, " on=home0", "");
        self
    }

    /// The agent's file with a preference, so that it advertises itself on its home link.
    #[must_use]
    pub fn with_preference(mut self, preference: u16) -> Self {
        let with = format!(" on=home0 preference={preference}");
        self.agent = changed(&self.agent, " on=home0", &with);
        self
    }

    /// Both files with a second home network, `umbrella`, at an agent address of its own; its
    /// mobile prefers W-CDMA.
    #[must_use]
    pub fn with_second_home(mut self) -> Self {
        self.mobile += "
home \"umbrella\" {
    tunnel mtun1
    agent \"2001:db8:200::1\"
    address \"2001:db8:200::42/64\"
    security \"acme-sa\"
}
rules home=umbrella {
    default { prefer wwan0 wlan0; }
}
";
        self.agent += "
home \"umbrella\" {
    tunnel mtun1
    serve \"2001:db8:200::/64\" agent=\"2001:db8:200::1\" on=home0
    allow \"2001:db8:200::42\" name=\"bus-7\" { security \"acme-sa\"; }
}
";
        self
    }

    /// The mobile's file with every `from` replaced.
    #[must_use]
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.mobile.contains(from), "the example has `{from}`");
        self.mobile = self.mobile.replace(from, to);
        self
    }

    /// The mobile's file with one more word for an uplink.
    #[must_use]
    pub fn with_link_word(mut self, link: &str, says: &str) -> Self {
        let head = format!("interface \"{link}\" {{");
        self.mobile = changed(&self.mobile, &head, &format!("{head}\n    {says}"));
        self
    }

    /// The mobile's file with another binding lifetime, in seconds.
    #[must_use]
    pub fn with_lifetime(mut self, seconds: u32) -> Self {
        self.mobile =
            changed(&self.mobile, "lifetime=\"420s\"", &format!("lifetime=\"{seconds}s\""));
        self
    }
}

/// `text` with the one place `from` replaced.
fn changed(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "the example has `{from}` once");
    text.replace(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtun_policy::NoFiles;

    #[test]
    fn the_files_and_their_changes_are_without_fault() {
        let cases = [
            ("as it is", PolicyText::default()),
            (
                "a rule more",
                PolicyText::default()
                    .with_rule("probe", "match proto=udp dport=4000\n prefer wlan0"),
            ),
            ("a second home", PolicyText::default().with_second_home()),
            ("a third uplink", PolicyText::default().with_third_uplink()),
            (
                "a link that is held back, and counted",
                PolicyText::default()
                    .with_usable("wlan0", "hold up=\"5s\" down=\"1s\"")
                    .with_statement("wwan0", "quota \"2MB\" per=day at-limit=stop"),
            ),
            ("guests", PolicyText::default().with_guests()),
            ("a short lifetime", PolicyText::default().with_lifetime(8)),
            ("optimized routes", PolicyText::default().with_optimization("traffic")),
        ];
        for (what, text) in cases {
            for text in [text.mobile, text.agent, text.correspondent] {
                let parsed = mtun_policy::parse("file.kdl", &text, &NoFiles);
                let policy = parsed.unwrap_or_else(|faults| panic!("{what}: {faults}"));
                let failed = mtun_policy::run_tests(&policy);
                let failed: Vec<_> = failed.iter().filter(|test| !test.passed()).collect();
                assert!(failed.is_empty(), "{what}: {failed:?}");
            }
        }
    }
}
