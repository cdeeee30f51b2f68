//! Somebody on the way, who records, replays, alters and forges, and has no key.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::wire::option::BindingIdentifier;
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingError, BindingRefreshRequest, BindingUpdate,
    BindingUpdateFlags, Lifetime, Message, Options, Status,
};
use mtun_signaling::{Envelope, NtpTime};

use crate::forward::Passed;
use crate::network::{Origin, Quality, flip, said};
use crate::packet::{self, Flow, Label};
use crate::random::Random;
use crate::signalling::packet_of;
use crate::world::{EPOCH, World, key};

/// The attacker's own address.
pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);
/// Most packets kept.
const MEMORY: usize = 48;

/// What the attacker remembers.
#[derive(Debug, Default)]
pub struct Attacker {
    recorded: Vec<(Duration, Vec<u8>)>,
}

impl Attacker {
    /// A packet passes.
    pub fn overhear(&mut self, now: Duration, packet: &[u8], origin: Origin, random: &mut Random) {
        let signalling = packet::layers(packet).first().is_some_and(|it| it.is_signalling());
        if origin != Origin::Honest || !(signalling || random.chance(30)) {
            return;
        }
        if self.recorded.len() < MEMORY {
            self.recorded.push((now, packet.to_vec()));
        } else {
            let at = random.below(MEMORY);
            self.recorded[at] = (now, packet.to_vec());
        }
    }
}

impl World {
    /// The attacker does something.
    pub fn attack(&mut self) {
        match self.random.below(10) {
            0..3 => self.replay(false),
            3..5 => self.replay(true),
            5 | 6 => self.forge_update(),
            7 => self.forge_for_mobile(),
            8 => self.forge_tunnel(),
            _ => self.forge_error(),
        }
    }

    fn inject(&mut self, packet: Vec<u8>, origin: Origin) {
        self.route(Quality::GOOD, false, packet, Passed { hops: 0, origin });
    }

    fn replay(&mut self, alter: bool) {
        if self.attacker.recorded.is_empty() {
            return;
        }
        let at = self.random.below(self.attacker.recorded.len());
        let (recorded, mut packet) = self.attacker.recorded[at].clone();
        let mut origin = Origin::Replayed(recorded);
        packet[7] = 64;
        if alter {
            let before = said(&packet);
            flip(&mut self.random, &mut packet);
            fill_checksum(&mut packet);
            if before.is_none() || said(&packet) != before {
                origin = Origin::Altered;
            }
            self.coverage.count("attack: alter");
        } else {
            self.coverage.count("attack: replay");
        }
        self.tell(|| format!("attacker: {} what passed at {recorded:?}", origin.word()));
        self.inject(packet, origin);
    }

    /// An update in a mobile's name, without its key.
    fn forge_update(&mut self) {
        self.coverage.count("attack: update");
        let mobile = self.random.below(self.mobiles.len());
        let it = &self.mobiles[mobile];
        let (home, agent) = (it.home_address(), it.home.agent.0);
        let router = it.prefix().is_some();
        let sequence = it.sequence.unwrap_or(0).wrapping_add(1 + self.random.below(100) as u16);
        let gone = self.random.chance(400);
        let mut options = Options::new();
        if self.random.chance(700) {
            let bid = Bid::new(1 + self.random.below(4) as u16).expect("not zero");
            let care_of = (!gone).then(|| ADDRESS.into());
            options.push(BindingIdentifier { priority: 1, care_of, ..BindingIdentifier::new(bid) });
        }
        let update = Message::BindingUpdate(BindingUpdate {
            sequence,
            flags: BindingUpdateFlags {
                acknowledge: true,
                home: true,
                router,
                overwrite: self.random.chance(500),
                ..BindingUpdateFlags::default()
            },
            lifetime: if gone {
                Lifetime::ZERO
            } else {
                Lifetime::from_duration(Duration::from_secs(60))
            },
            options,
        });
        let envelope =
            Envelope { home_address: Some(HomeAddress(home)), ..Envelope::plain(ADDRESS, agent) };
        let now = self.time_of_day();
        let message = match self.random.below(3) {
            0 => wire::emit(&update, &envelope),
            // Another mobile's key, which that mobile's agent knows, and one that nobody has.
            1 => {
                let other = key(1 + (mobile as u8 + 1) % 3);
                wire::emit_authenticated(&update, &envelope, ADDRESS, &other, Some(now))
            }
            _ => wire::emit_authenticated(&update, &envelope, ADDRESS, &key(99), Some(now)),
        };
        let message = message.expect("it fits");
        self.inject(packet_of(&envelope, &message), Origin::Forged);
    }

    /// A message to a mobile in its agent's name.
    fn forge_for_mobile(&mut self) {
        let mobile = self.random.below(self.mobiles.len());
        let it = &self.mobiles[mobile];
        let (home, agent) = (it.home_address(), it.home.agent.0);
        let Some(&care_of) = it.own().first() else { return };
        let sequence = it.sequence.unwrap_or(0);
        let with_routing_header =
            Envelope { routing_header: Some(HomeAddress(home)), ..Envelope::plain(agent, care_of) };
        let status = self
            .random
            .pick(&[0, 0, 1, 4, 128, 133, 134, 135, 139, 140, 144, 146, 164, 165, 166, 168]);
        let mut options = Options::new();
        for bid in (1..=3).filter_map(Bid::new) {
            options.push(BindingIdentifier::new(bid));
        }
        let acknowledgement = |options| {
            Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status(status),
                key_mobility: false,
                router: true,
                sequence,
                lifetime: Lifetime::from_duration(Duration::from_secs(3600)),
                options,
            })
        };
        let now = self.time_of_day();
        let (kind, envelope, message) = match self.random.below(4) {
            0 => {
                let message = acknowledgement(options);
                let signed = wire::emit_authenticated(
                    &message,
                    &with_routing_header,
                    care_of,
                    &key(99),
                    Some(now),
                );
                ("attack: acknowledgement", with_routing_header, signed)
            }
            1 => {
                let bare = wire::emit(&acknowledgement(options), &with_routing_header);
                ("attack: acknowledgement", with_routing_header, bare)
            }
            2 => {
                let request = Message::BindingRefreshRequest(BindingRefreshRequest {
                    options: Options::new(),
                });
                let message = wire::emit(&request, &with_routing_header);
                ("attack: refresh request", with_routing_header, message)
            }
            _ => {
                let envelope = Envelope::plain(agent, care_of);
                let status = 1 + self.random.below(2) as u8;
                let error = BindingError { status, home_address: home, options: Options::new() };
                (
                    "attack: binding error",
                    envelope,
                    wire::emit(&Message::BindingError(error), &envelope),
                )
            }
        };
        self.coverage.count(kind);
        self.inject(packet_of(&envelope, &message.expect("it fits")), Origin::Forged);
    }

    /// A tunnel packet, or one with headers that lead elsewhere, from where no binding is.
    fn forge_tunnel(&mut self) {
        let mobile = self.random.below(self.mobiles.len());
        let it = &self.mobiles[mobile];
        let (home, agent) = (it.home_address(), it.home.agent.0);
        let own = it.own();
        let victim = self.correspondents[0].address;
        let inside = it.prefix().map_or(home, |prefix| host_in(prefix.net().addr(), 7));
        let label = Label { serial: u64::MAX, echo: false };
        let flow = |source, destination| Flow { source, destination, tcp: false, ports: (9, 9) };
        let (kind, packet) = match self.random.below(4) {
            0 => {
                let source = self.random.pick(&[home, inside]);
                let inner = packet::data(flow(source, victim), label, 0);
                ("attack: tunnel to the agent", packet::wrapped(ADDRESS, agent, &inner))
            }
            1 => {
                let Some(&care_of) = own.first() else { return };
                let destination = self.random.pick(&[home, inside]);
                let other = self.mobiles[(mobile + 1) % self.mobiles.len()].home_address();
                let inner = packet::data(flow(other, destination), label, 0);
                ("attack: tunnel to the mobile", packet::wrapped(ADDRESS, care_of, &inner))
            }
            2 => {
                // A type 2 routing header, or one that leads to somebody else.
                let Some(&care_of) = own.first() else { return };
                let named = self.random.pick(&[home, victim]);
                let kind = self.random.pick(&[0, 2]);
                let mut header = vec![17, 2, kind, 1, 0, 0, 0, 0];
                header.extend_from_slice(&named.octets());
                header.extend_from_slice(&packet::data(flow(ADDRESS, home), label, 0)[40..]);
                ("attack: routing header", packet::ipv6(ADDRESS, care_of, 43, &header))
            }
            _ => {
                let mut header = vec![17, 2, 1, 2, 0, 0, 0xc9, 16];
                header.extend_from_slice(&home.octets());
                header.extend_from_slice(&packet::data(flow(home, victim), label, 0)[40..]);
                let destination = self.random.pick(&[agent, own.first().copied().unwrap_or(agent)]);
                ("attack: home address option", packet::ipv6(ADDRESS, destination, 60, &header))
            }
        };
        self.coverage.count(kind);
        self.tell(|| kind.to_owned());
        self.inject(packet, Origin::Forged);
    }

    /// An ICMPv6 error about something that was sent, or was not.
    fn forge_error(&mut self) {
        self.coverage.count("attack: error");
        if self.attacker.recorded.is_empty() {
            return;
        }
        let at = self.random.below(self.attacker.recorded.len());
        let quoted = self.attacker.recorded[at].1.clone();
        let (kind, value) =
            self.random.pick(&[(1, 0), (1, 0), (2, 1300), (2, 100), (3, 0), (4, 40)]);
        let error = packet::icmp_error(ADDRESS, kind, self.random.below(5) as u8, value, &quoted);
        self.inject(error, Origin::Forged);
    }

    fn time_of_day(&self) -> NtpTime {
        NtpTime::from_unix(Duration::from_secs(EPOCH).saturating_add(self.now))
    }
}

/// The checksum of a Mobility Header is nobody's secret.
fn fill_checksum(packet: &mut [u8]) {
    let Some(layer) = packet::layers(packet).first().copied() else { return };
    let at = layer.payload_at;
    if !layer.is_signalling() || packet.len() < at + 6 {
        return;
    }
    packet[at + 4..at + 6].fill(0);
    let source = layer.home_address.unwrap_or(layer.source);
    let destination = layer.routing_header.unwrap_or(layer.destination);
    let sum = packet::checksum(source, destination, 135, &packet[at..]);
    packet[at + 4..at + 6].copy_from_slice(&sum.to_be_bytes());
}

/// A host of a network.
pub fn host_in(network: Ipv6Addr, number: u16) -> Ipv6Addr {
    (u128::from(network) | u128::from(number)).into()
}
