//! What the daemon says of itself: documents from the state the owner holds.

use std::net::IpAddr;

use mtun_dataplane::{
    DropReason, Encapsulation, Explained, Fate, PathId, Registration, Snapshot, explain,
};
use mtun_policy::{
    Bid, CareOfAddress, Diagnostic, EffectiveRule, Faults, Field, FlowKey, Outcome, Policy, RuleId,
    RuleName, Verb,
};
use mtun_signaling::binding::BindingCacheEntry;
use mtun_signaling::registration::Phase;

use super::home::MobileHome;
use super::owner::Owner;
use crate::control::documents::{
    BindingDocument, BindingPhase, CandidateDocument, ExplainDocument, ExplainVerdict,
    FaultDocument, FlowKeyDocument, Health, HealthReason, HomeDocument, LinkDocument, LinkState,
    MobileDocument, PassedRuleDocument, PolicyDocument, RuleDocument, RuleReference, StatusCode,
    StatusDocument, TunnelDocument,
};
use crate::control::{ControlError, ErrorCode};

impl Owner {
    /// The whole state.
    pub(super) fn status(&self) -> StatusDocument {
        let (homes, links) = (self.home_documents(), self.link_documents());
        let bindings = self.binding_documents();
        let further = self
            .refused
            .iter()
            .map(|message| HealthReason::PolicyRefused { message: message.clone() });
        let now = self.now().monotonic;
        StatusDocument {
            health: Health::judge(&homes, &links, &bindings, further.collect()),
            role: self.policy.role,
            policy: self.policy.name.clone(),
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_sub(self.started).as_secs(),
            homes,
            links,
            bindings,
            overrides: self.override_documents(),
            mobiles: self.mobile_documents(),
        }
    }

    fn home_documents(&self) -> Vec<HomeDocument> {
        let tunnel = |tunnel: &super::tunnel::Tunnel| TunnelDocument {
            name: tunnel.name.clone(),
            ifindex: tunnel.index(),
            mtu: tunnel.mtu,
        };
        let homes = self.homes.iter().map(|it| HomeDocument {
            name: it.home.name.clone(),
            agent: it.home.agent,
            home_address: Some(it.home.address),
            mobile_networks: it.home.mobile_networks.iter().map(|it| it.prefix).collect(),
            served: None,
            tunnel: tunnel(&it.tunnel),
            generation: it.generation,
            security: it.home.security.clone(),
        });
        let served = self.served.iter().map(|it| HomeDocument {
            name: it.served.name.clone(),
            agent: it.served.agent,
            home_address: None,
            mobile_networks: Vec::new(),
            served: Some(it.served.prefix),
            tunnel: tunnel(&it.tunnel),
            generation: it.generation,
            security: None,
        });
        homes.chain(served).collect()
    }

    fn link_documents(&self) -> Vec<LinkDocument> {
        let now = self.now().monotonic;
        let document = |interface: &mtun_policy::Interface| {
            let record = self.links.get(&interface.name);
            let attached = record.and_then(|record| record.state.as_ref().ok());
            let (state, reason) = match interface.bid {
                // An agent's links carry whatever comes; there is no care-of address on them.
                None if self.access.contains_key(&interface.name) => (LinkState::Up, None),
                None => (LinkState::Down, Some("no such interface".to_owned())),
                Some(_) => match self.watch.movements().state(&interface.name) {
                    Ok(_) => (LinkState::Up, None),
                    Err(reason) => (LinkState::Down, Some(reason.to_string())),
                },
            };
            LinkDocument {
                interface: interface.name.clone(),
                ifindex: self.access.get(&interface.name).map(|access| access.index),
                bid: interface.bid,
                priority: interface.priority,
                state,
                care_of: attached.map(|it| CareOfAddress::from(it.care_of)),
                router: attached.and_then(|it| it.router).map(IpAddr::V6),
                reason,
                since_seconds: record.map(|it| now.saturating_sub(it.since).as_secs()),
            }
        };
        self.policy.interfaces.iter().map(document).collect()
    }

    pub(super) fn binding_documents(&self) -> Vec<BindingDocument> {
        let now = self.now().monotonic;
        let mut bindings = Vec::new();
        for home in &self.homes {
            let snapshot = home.tunnel.published.load();
            let registration = snapshot.updates.get(home.home.address);
            for entry in &home.node.update_list().entries {
                let granted = home.granted.get(&Some(entry.bid)).or(home.granted.get(&None));
                let granted = granted.filter(|granted| granted.care_of == entry.care_of);
                let held = registration.and_then(|it| it.binding(Some(entry.bid)));
                let phase = match entry.phase {
                    Phase::Wanted | Phase::Gone => BindingPhase::Idle,
                    Phase::Awaiting => BindingPhase::Registering,
                    Phase::Bound => BindingPhase::Registered,
                    Phase::Refreshing => BindingPhase::Refreshing,
                    Phase::Refused => BindingPhase::Refused,
                    Phase::Leaving | Phase::Deregistering => BindingPhase::Deregistering,
                };
                bindings.push(BindingDocument {
                    home: home.home.name.clone(),
                    bid: Some(entry.bid),
                    care_of: Some(entry.care_of),
                    priority: entry.priority,
                    link: self.link_of(Some(entry.bid)),
                    phase,
                    usable: held.is_some_and(|binding| binding.carries()),
                    granted_seconds: granted.map(|granted| granted.lifetime.as_secs()),
                    expires_seconds: entry.expires.map(|it| it.saturating_sub(now).as_secs()),
                    status: entry
                        .last_status
                        .map(|status| StatusCode { code: status.0, name: status.to_string() }),
                    retries: entry.retries,
                });
            }
        }
        bindings
    }

    pub(super) fn mobile_documents(&self) -> Vec<MobileDocument> {
        let now = self.now().monotonic;
        let mut mobiles = Vec::new();
        for it in &self.served {
            for allowed in &it.served.mobiles {
                let entry = it.agent.cache().get(allowed.address);
                let bindings = entry.map_or_else(Vec::new, |entry| {
                    let document = |binding: &mtun_signaling::binding::Binding| BindingDocument {
                        home: it.served.name.clone(),
                        bid: binding.bid,
                        care_of: Some(binding.care_of),
                        priority: binding.priority,
                        link: None,
                        phase: BindingPhase::Registered,
                        usable: true,
                        granted_seconds: None,
                        expires_seconds: Some(binding.expires.saturating_sub(now).as_secs()),
                        status: None,
                        retries: 0,
                    };
                    entry.bindings.iter().map(document).collect()
                });
                mobiles.push(MobileDocument {
                    home: it.served.name.clone(),
                    home_address: allowed.address,
                    name: allowed.name.clone(),
                    prefixes: entry.map_or_else(Vec::new, |entry| entry.prefixes.clone()),
                    router: entry.is_some_and(|entry: &BindingCacheEntry| entry.router),
                    bindings,
                });
            }
        }
        mobiles
    }
}

/// A text that could not be read, as an error for the client.
pub(super) fn usage(diagnostic: Diagnostic) -> ControlError {
    let error = ControlError::new(ErrorCode::Usage, diagnostic.message.clone());
    match diagnostic.help {
        Some(help) => error.help(help),
        None => error,
    }
}

/// A policy with faults, as an error for the client.
pub(super) fn faults(faults: Faults) -> ControlError {
    ControlError::faults(faults.0.into_iter().map(FaultDocument::from).collect())
}

/// What may not change while the daemon runs, because bindings, keys or the tunnel hang on it.
pub(super) fn same_structure(old: &Policy, new: &Policy) -> Result<(), ControlError> {
    let mut differs = Vec::new();
    let mut compare = |what: &str, same: bool| {
        if !same {
            differs.push(what.to_owned());
        }
    };
    compare("role", old.role == new.role);
    compare("interface", old.interfaces == new.interfaces);
    compare("security", old.securities == new.securities);
    compare("served home", old.served == new.served);
    let fixed = |policy: &Policy| -> Vec<_> {
        let of = |home: &mtun_policy::Home| {
            (
                (home.name.clone(), home.tunnel.clone(), home.agent, home.address),
                (home.mobile_networks.clone(), home.prefix_mode),
                (home.register.clone(), home.security.clone()),
            )
        };
        policy.homes.iter().map(of).collect()
    };
    compare("home", fixed(old) == fixed(new));
    if differs.is_empty() {
        return Ok(());
    }
    let error = format!("the new policy changes more than rules: {}", differs.join(", "));
    Err(ControlError::new(ErrorCode::Refused, error)
        .help("restart mtund with the new file; flows of registered homes come back by themselves"))
}

fn reference(
    policy: &Policy,
    home: Option<&MobileHome>,
    id: RuleId,
    name: &RuleName,
) -> RuleReference {
    let rule = home
        .filter(|_| !id.is_override())
        .and_then(|home| policy.home(home.home.name.as_str()).and_then(|home| home.rules.get(id)));
    RuleReference {
        name: name.clone(),
        file: rule.map(|rule| rule.file.clone()),
        line: rule.map(|rule| rule.line),
    }
}

/// Explains a flow of one of this mobile's homes, with suppositions if there are any.
pub(super) fn explain_home(
    owner: &Owner,
    home: &MobileHome,
    key: &FlowKey,
    given: &[String],
) -> Result<ExplainDocument, ControlError> {
    let snapshot = home.tunnel.published.load_full();
    if given.is_empty() {
        return Ok(explained(owner, key, home.tunnel.lane.engine.explain(key)));
    }
    // The same decision over a supposed world: bindings switched as the suppositions say.
    let mut supposed = Snapshot::clone(&snapshot);
    let Some(registration) = snapshot.updates.get(home.home.address) else {
        return Ok(not_ours(owner, key));
    };
    let mut registration = Registration::clone(registration);
    for text in given {
        let (link, up) = supposition(text)?;
        let Some(bid) = owner.policy.interface(link).and_then(|interface| interface.bid) else {
            return Err(ControlError::new(ErrorCode::NotFound, format!("there is no link {link}")));
        };
        if let Some(binding) = registration.bindings.iter_mut().find(|it| it.bid == Some(bid)) {
            binding.usable = up;
        }
    }
    supposed.updates = supposed.updates.with(registration);
    let mut document = explained(owner, key, explain(&supposed, key, None));
    document.given = given.to_vec();
    Ok(document)
}

fn supposition(text: &str) -> Result<(&str, bool), ControlError> {
    match text.split_once('=') {
        Some((link, "up")) => Ok((link, true)),
        Some((link, "down")) => Ok((link, false)),
        _ => Err(ControlError::new(
            ErrorCode::Usage,
            format!("'{text}' is no supposition that a running daemon can make"),
        )
        .help("write wlan0=down or wlan0=up")),
    }
}

/// A flow that is nobody's home here.
pub(super) fn not_ours(owner: &Owner, key: &FlowKey) -> ExplainDocument {
    ExplainDocument {
        flow: FlowKeyDocument::new(key, owner.policy.ingresses.name(key.ingress)),
        home: None,
        generation: None,
        given: Vec::new(),
        passed: Vec::new(),
        rule: None,
        candidates: Vec::new(),
        verdict: ExplainVerdict::NotOurs,
    }
}

/// The decision as a document; what the packet path said, with the rules it passed on the way.
pub(super) fn explained(owner: &Owner, key: &FlowKey, explained: Explained) -> ExplainDocument {
    let mut document = not_ours(owner, key);
    let Some(found) = &explained.registration else { return document };
    document.home = Some(found.home.clone());
    document.generation = Some(found.generation);
    let home = owner.homes.iter().find(|home| home.home.name == found.home);
    let rules = home.map_or(&[][..], |home| &home.effective.rules);
    let decided = explained.rule.as_ref().map(|(id, _)| *id);
    for rule in rules.iter().take_while(|rule| Some(rule.id) != decided) {
        document.passed.push(passed(&owner.policy, home, rule, key));
    }
    if let Some((id, name)) = &explained.rule {
        document.rule = Some(reference(&owner.policy, home, *id, name));
    }
    let chosen = rules.iter().find(|rule| Some(rule.id) == decided);
    if let (Some(home), Some(Outcome::Candidates(bids))) = (home, chosen.map(|it| &it.outcome)) {
        document.candidates = bids.iter().map(|bid| candidate(owner, home, *bid)).collect();
    }
    document.verdict = match explained.fate {
        Fate::NotOurs => ExplainVerdict::NotOurs,
        Fate::Refused(reply) => ExplainVerdict::Block { reply },
        Fate::Dropped(DropReason::Hairpin) => ExplainVerdict::NotOurs,
        Fate::Dropped(_) => ExplainVerdict::NoUsableBinding,
        Fate::Forwarded { bid, care_of, encapsulation, path, .. } => {
            let Encapsulation::Tunnel { .. } = encapsulation;
            let link = (path != PathId::ROUTED).then(|| owner.link_of(bid)).flatten();
            let attached = link.as_ref().and_then(|link| owner.links.get(link));
            ExplainVerdict::Forward {
                bid,
                link: link.clone(),
                care_of: Some(care_of),
                peer: Some(IpAddr::V6(found.peer)),
                encapsulation: "IPv6 in IPv6".to_owned(),
                next_hop: attached
                    .and_then(|record| record.state.as_ref().ok())
                    .and_then(|attachment| attachment.router)
                    .map(IpAddr::V6),
                otherwise: explained.otherwise,
            }
        }
    };
    document
}

/// Why the walk went on after this rule.
fn passed(
    policy: &Policy,
    home: Option<&MobileHome>,
    rule: &EffectiveRule,
    key: &FlowKey,
) -> PassedRuleDocument {
    let field: Option<Field> = rule.selectors.iter().filter_map(|it| it.first_failure(key)).next();
    let why = match (rule.matches(key), field) {
        (true, _) => "matched, but none of its links was usable".to_owned(),
        (false, Some(field)) => format!("{} does not match", field_name(field)),
        (false, None) => "taken out by an exclude".to_owned(),
    };
    PassedRuleDocument { rule: reference(policy, home, rule.id, &rule.name), field, why }
}

fn field_name(field: Field) -> &'static str {
    match field {
        Field::Source => "the source address",
        Field::Destination => "the destination address",
        Field::Protocol => "the protocol",
        Field::SourcePort => "the source port",
        Field::DestinationPort => "the destination port",
        Field::Dscp => "the DSCP",
        Field::Ingress => "the ingress interface",
    }
}

fn candidate(owner: &Owner, home: &MobileHome, bid: Bid) -> CandidateDocument {
    let snapshot = home.tunnel.published.load();
    let registration = snapshot.updates.get(home.home.address);
    let binding = registration.and_then(|it| it.binding(Some(bid)));
    let link = owner.link_of(Some(bid));
    let usable = binding.is_some_and(|binding| binding.carries());
    let why = match (&link, usable, binding) {
        (_, true, _) => "registered and up".to_owned(),
        (Some(name), false, None) => match owner.watch.movements().state(name) {
            Ok(_) => "not registered".to_owned(),
            Err(reason) => reason.to_string(),
        },
        (Some(name), false, Some(_)) => match owner.watch.movements().state(name) {
            Ok(_) => "waits for its registration".to_owned(),
            Err(reason) => reason.to_string(),
        },
        (None, false, _) => "no link has this BID".to_owned(),
    };
    CandidateDocument { bid, link, usable, why }
}

/// The policy in force.
pub(super) fn policy_document(owner: &Owner) -> PolicyDocument {
    let mut rules = Vec::new();
    for home in &owner.policy.homes {
        for rule in &home.rules.rules {
            let says = match &rule.verb {
                Verb::Prefer(bids) => {
                    let name = |bid: &Bid| {
                        let link = owner.link_of(Some(*bid));
                        link.map_or_else(|| format!("BID {bid}"), |link| link.to_string())
                    };
                    let names: Vec<_> = bids.iter().map(name).collect();
                    format!("prefer {}", names.join(" "))
                }
                Verb::Block(_) => "block".to_owned(),
            };
            rules.push(RuleDocument {
                home: home.name.clone(),
                name: rule.name.clone(),
                file: rule.file.clone(),
                line: rule.line,
                says,
            });
        }
    }
    PolicyDocument {
        name: owner.policy.name.clone(),
        role: owner.policy.role,
        file: Some(owner.options.policy.clone()),
        text: std::fs::read_to_string(&owner.options.policy).ok(),
        rules,
    }
}
