//! Who may leave outside the tunnel: `also` and `breakout`.
//!
//! A packet with a home source that leaves outside the tunnel is answered to the home network, by
//! another way than it left, and usually dropped before that by the first router that asks where
//! it comes from. So it leaves with the link's own address or not at all.

use ipnet::{IpNet, Ipv6Net};

use super::Compiler;
use crate::diagnostic::Code;
use crate::document::{HomeNode, OtherwiseNode, RuleNode, RuleSetNode, VerbNode};
use crate::key::Ingress;
use crate::policy::{Also, RuleSet};
use crate::selector::TrafficSelector;
use crate::source::Span;

/// What a home's packets can be known by.
struct Sources<'c> {
    /// The home address and the mobile networks.
    prefixes: Vec<Ipv6Net>,
    /// The interfaces of the mobile networks, as far as rules name them.
    doors: Vec<Ingress>,
    /// Whether a mobile network does not say on which interface it is.
    anywhere: bool,
    /// The further sources.
    also: &'c [Also],
}

impl Compiler<'_> {
    /// Asks of every rule that breaks out whether its packets may.
    pub(super) fn breakouts(
        &mut self,
        home: &HomeNode,
        also: &[Also],
        rules: Option<&RuleSetNode>,
        compiled: &RuleSet,
    ) {
        self.also_are_apart(home);
        let address = home.address.as_ref().map(|address| Ipv6Net::from(address.value.0));
        let networks = &home.mobile_networks;
        let doors = networks.iter().filter_map(|(_, on)| on.as_ref());
        let sources = Sources {
            prefixes: networks.iter().map(|(prefix, _)| prefix.value).chain(address).collect(),
            doors: doors.filter_map(|on| self.ingresses.number(&on.value)).collect(),
            anywhere: networks.iter().any(|(_, on)| on.is_none()),
            also,
        };
        let nodes: Vec<&RuleNode> =
            rules.into_iter().flat_map(|rules| rules.rules.iter().chain(&rules.default)).collect();
        let mut any = false;
        for rule in nodes.iter().copied() {
            any |= breakout(rule).is_some();
        }
        for rule in &compiled.rules {
            let node = nodes[usize::from(rule.id().0)];
            if let Some((span, translate)) = breakout(node) {
                self.breakout(node, span, translate, &rule.head.selectors, &sources);
            }
        }
        if let Some(from) = home.also.first().filter(|_| !any && rules.is_some()) {
            self.sink.warning(
                from.span,
                Code::Missing,
                format!("packets from `{}` are never tunnelled, and no rule lets them break out", from.value),
                format!("add rule \"guests\" {{ match in={}; breakout wlan0; otherwise block reply=icmp; }}", from.value),
            );
        }
    }

    /// An interface of `also` is neither a link nor the tunnel, and named once.
    fn also_are_apart(&mut self, home: &HomeNode) {
        for (place, from) in home.also.iter().enumerate() {
            let name = &from.value;
            let tunnel = home.tunnel.as_ref().is_some_and(|(tunnel, _)| tunnel.value == *name);
            if home.also[..place].iter().any(|earlier| earlier.value == *name) {
                self.sink.error(
                    from.span,
                    Code::Duplicate,
                    format!("`{name}` is named by `also` already"),
                    "remove one of the two",
                );
            } else if tunnel || self.links.contains_key(name.as_str()) || name == "local" {
                let what = match () {
                    () if tunnel => "the tunnel",
                    () if name == "local" => "this machine itself",
                    () => "an access link",
                };
                self.sink.error(
                    from.span,
                    Code::Conflict,
                    format!("`{name}` is {what} and no further source"),
                    "name the interface behind which the other hosts are",
                );
            }
        }
    }

    fn breakout(
        &mut self,
        node: &RuleNode,
        span: Span,
        translate: bool,
        selectors: &[TrafficSelector],
        sources: &Sources<'_>,
    ) {
        let name = &node.name.value;
        let everything = [TrafficSelector::default()];
        let lines = if selectors.is_empty() { &everything } else { selectors };
        let home = lines.iter().any(|line| sources.home_may_match(line));
        let also = lines.iter().any(|line| sources.also_may_match(line));
        if home && !translate {
            self.sink.error(
                span,
                Code::Conflict,
                format!("`{name}` would send packets with a home source outside the tunnel, where no answer finds back"),
                "add translate=#true, or let the rule speak of other sources only: match in=br-guest",
            );
        } else if !home && !also {
            self.sink.error(
                span,
                Code::Conflict,
                format!("no packet that `{name}` matches can break out: its sources are neither of this home nor of `also`"),
                "add also from=… to the home, with the interface by which the packets come",
            );
        }
    }
}

/// The breakout of a rule, by its verb or its `otherwise`, and whether it translates.
fn breakout(node: &RuleNode) -> Option<(Span, bool)> {
    let verb = node.verb.as_ref().map(|verb| (&verb.value, verb.span));
    let otherwise = node.otherwise.as_ref().and_then(|otherwise| match &otherwise.value {
        OtherwiseNode::Then(verb) => Some((verb, otherwise.span)),
        OtherwiseNode::NextRule | OtherwiseNode::Any => None,
    });
    let found = verb.into_iter().chain(otherwise).filter_map(|(verb, span)| match verb {
        VerbNode::Breakout { translate, .. } => Some((span, *translate)),
        _ => None,
    });
    // One that does not translate is the one to ask about.
    found.min_by_key(|(_, translate)| *translate)
}

impl Sources<'_> {
    fn home_may_match(&self, line: &TrafficSelector) -> bool {
        let overlaps = |net: &IpNet| match net {
            IpNet::V6(net) => {
                self.prefixes.iter().any(|own| own.contains(net) || net.contains(own))
            }
            IpNet::V4(_) => false,
        };
        let door = |ingress: &Ingress| {
            *ingress == Ingress::LOCAL
                || self.doors.contains(ingress)
                || self.anywhere && !self.is_also(*ingress)
        };
        (line.sources.is_empty() || line.sources.iter().any(overlaps))
            && (line.ingresses.is_empty() || line.ingresses.iter().any(door))
    }

    fn also_may_match(&self, line: &TrafficSelector) -> bool {
        !self.also.is_empty()
            && (line.ingresses.is_empty()
                || line.ingresses.iter().any(|ingress| self.is_also(*ingress)))
    }

    fn is_also(&self, ingress: Ingress) -> bool {
        self.also.iter().any(|also| also.ingress == ingress)
    }
}
