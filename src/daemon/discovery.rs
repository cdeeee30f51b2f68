//! Discovery of home agents and home prefixes: the messages of ICMPv6 that Mobile IPv6 has of its
//! own, between the packet threads and the machines.
//!
//! Standards: RFC 6275 §6.5 to §6.8, §10.5, §10.6; RFC 3963 §7.

use std::net::Ipv6Addr;

use anyhow::Context;
use mtun_dataplane::PathId;
use mtun_policy::{HomeName, ServedHome};
use mtun_signaling::agent::{
    AgentEvent, HomeAgents, HomeAgentsConfig, HomeAgentsEvent, HomeAgentsNotice, HomeAgentsOutput,
};
use mtun_signaling::machine::{Envelope, Machine, Transmit};
use mtun_signaling::wire::iana::icmpv6;
use mtun_signaling::wire::icmpv6::PrefixInformation;
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    HomeAgentInformation, NeighbourMessage, RouterAdvertisement,
};

use super::owner::Owner;
use crate::control::documents::{Event, Severity};
use crate::edge::home_link::ADVERTISED_EVERY;
use crate::edge::neighbours::Heard;
use crate::edge::random;
use crate::packets::Shared;

/// How long the agent is a router of its home link (AdvDefaultLifetime, RFC 4861 §6.2.1).
const ROUTER_LIFETIME: u16 = 1800;

/// What this node says of itself as one of the home agents of a link.
pub fn home_agents(served: &ServedHome) -> anyhow::Result<HomeAgents> {
    let config = HomeAgentsConfig {
        address: served.agent,
        prefix: served.prefix,
        preference: served.preference.unwrap_or(0),
        mobile_routers: serves_routers(served),
    };
    let seed = random::seed().context("the kernel has no random numbers")?;
    Ok(HomeAgents::new(config, seed))
}

/// What the agent advertises on its home link (RFC 6275 §7), if the policy wants that.
pub fn advertisement(served: &ServedHome) -> Option<RouterAdvertisement> {
    let preference = served.preference?;
    let lifetime = u16::try_from(3 * ADVERTISED_EVERY.as_secs()).unwrap_or(u16::MAX);
    Some(RouterAdvertisement {
        home_agent: true,
        lifetime: ROUTER_LIFETIME,
        // req HA-72 (RFC 6275 §7.2): the agent's own address, complete.
        prefixes: vec![PrefixInformation {
            prefix_len: served.prefix.prefix_len(),
            on_link: true,
            autonomous: true,
            router_address: true,
            valid: 2_592_000,
            preferred: 604_800,
            address: served.agent.0,
        }],
        information: Some(HomeAgentInformation {
            mobile_routers: serves_routers(served),
            preference,
            lifetime,
        }),
        ..RouterAdvertisement::default()
    })
}

/// Whether mobile routers may register (RFC 3963 §7.3).
pub fn serves_routers(served: &ServedHome) -> bool {
    served.mobiles.iter().any(|mobile| !mobile.prefixes.is_empty())
}

/// Puts an ICMPv6 message into its packet and sends it.
pub fn transmit_discovery(shared: &Shared, transmit: &Transmit) {
    let Transmit { envelope, path, message } = transmit;
    let packet = mtun_dataplane::wire::discovery_packet(
        envelope.source,
        envelope.destination,
        envelope.home_address.map(|home| home.0),
        envelope.routing_header.map(|home| home.0),
        message,
    );
    let path = path.map_or(PathId::ROUTED, |bid| PathId(bid.get()));
    match shared.paths.send(path, &packet) {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, ?path, "discovery could not be sent"),
        None => tracing::debug!(?path, "discovery for a path that is closed"),
    }
}

impl Owner {
    /// An ICMPv6 message of discovery arrived; its checksum has not been looked at.
    pub(super) fn discovery_arrived(&mut self, envelope: Envelope, message: Vec<u8>) {
        let now = self.now();
        match message.first() {
            Some(&icmpv6::HOME_AGENT_ADDRESS_DISCOVERY_REQUEST) => {
                let to =
                    |served: usize| self.served[served].answers_discovery(envelope.destination);
                let Some(served) = (0..self.served.len()).find(|served| to(*served)) else {
                    return;
                };
                let event = HomeAgentsEvent::Received { envelope, message };
                self.served[served].home_agents.handle(now, event);
                self.home_agents_outputs(served);
            }
            Some(&icmpv6::MOBILE_PREFIX_SOLICITATION) => {
                let to =
                    |served: &usize| self.served[*served].served.agent.0 == envelope.destination;
                let Some(served) = (0..self.served.len()).find(to) else { return };
                let event = AgentEvent::Solicited { envelope, message };
                let outputs = self.served[served].handle(now, event);
                self.agent_outputs(served, outputs);
            }
            Some(&icmpv6::HOME_AGENT_ADDRESS_DISCOVERY_REPLY) => {
                self.found(envelope, &message, true);
            }
            Some(&icmpv6::MOBILE_PREFIX_ADVERTISEMENT) => self.found(envelope, &message, false),
            _ => {}
        }
    }

    /// A router on a home link said what it is.
    pub(super) fn router_heard(&mut self, served: usize, heard: &Heard) {
        let NeighbourMessage::RouterAdvertisement(said) = &heard.message else { return };
        let (source, advertisement): (Ipv6Addr, RouterAdvertisement) = (heard.source, said.clone());
        let now = self.now();
        let home_prefix = self.served[served].served.prefix;
        let ours = advertisement.prefixes.iter().find(|it| it.prefix() == home_prefix.trunc());
        // req HA-05, HA-17, HA-76: what the home link's routers say of it.
        if let Some(prefix) = ours {
            let (valid, preferred) = (prefix.valid, prefix.preferred);
            if let Some(home_link) = &mut self.served[served].home_link {
                home_link.counts.prefix_heard += 1;
            }
            let event = AgentEvent::PrefixAdvertised { valid, preferred };
            let outputs = self.served[served].handle(now, event);
            self.agent_outputs(served, outputs);
        }
        let event = HomeAgentsEvent::Advertised { source, advertisement };
        self.served[served].home_agents.handle(now, event);
        self.home_agents_outputs(served);
    }

    /// Does what the list of home agents wants done.
    pub(super) fn home_agents_outputs(&mut self, served: usize) {
        let home = self.served[served].served.name.clone();
        while let Some(output) = self.served[served].home_agents.poll() {
            match output {
                HomeAgentsOutput::Transmit(transmit) => {
                    transmit_discovery(&self.shared, &transmit);
                }
                HomeAgentsOutput::Notice(notice) => self.home_agents_notice(&home, notice),
            }
        }
    }

    fn home_agents_notice(&mut self, home: &HomeName, notice: HomeAgentsNotice) {
        let code = notice.reason();
        *self.counts.notices.entry((home.clone(), code)).or_default() += 1;
        let severity = match notice {
            HomeAgentsNotice::Appeared(_) | HomeAgentsNotice::Gone(_) => Severity::Info,
            // What strangers can cause must not fill the log; the counters have it.
            _ => return tracing::debug!(%home, "{notice}"),
        };
        let text = format!("home {home}: {notice}");
        self.tell(Event::Notice { severity, code: code.to_owned(), text });
    }
}
