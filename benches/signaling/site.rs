//! A home agent with its mobiles, as the daemon has one, and the mobiles' pens.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun::publish::{self, Published};
use mtun_dataplane::{Engine, Registration, Settings};
use mtun_policy::{
    AllowedMobile, Bid, CareOfAddress, Effective, Extensions, HomeAddress, HomeAgentAddress,
    HomeName, InterfaceName, MobileNetworkPrefix, ServedHome, Tunnel,
};
use mtun_signaling::agent::{
    AgentConfig, AgentEvent, AgentMobile, AgentOutput, HomeAgent, HomeLink,
};
use mtun_signaling::auth::{Algorithm, Secret, SecurityAssociation};
use mtun_signaling::machine::{Envelope, Machine, Transmit};
use mtun_signaling::time::{NtpTime, Timestamp};
use mtun_signaling::wire::option::BindingIdentifier;
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options, Status,
};

/// Bindings of each mobile.
pub const BINDINGS: usize = 4;

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const LIFETIME: Lifetime = Lifetime(900);

/// One message as it arrives.
pub type Arrived = (Envelope, Vec<u8>);

/// What became of one message.
#[derive(Default)]
pub struct Taken {
    pub answers: usize,
    pub unanswered: usize,
    pub keep: Option<HomeAddress>,
    pub messages: Vec<Transmit>,
}

/// What a mobile remembers.
#[derive(Clone, Copy, Default)]
struct Pen {
    sequence: u16,
    /// Counts its movements: part of its care-of addresses.
    moves: u16,
}

/// An agent, what packets read of it, and its mobiles.
pub struct Site {
    pub agent: HomeAgent,
    pub published: Published,
    /// Whoever publishes asks the engine to, as the daemon does.
    pub engine: Engine,
    served: ServedHome,
    reflecting: Arc<Effective>,
    pens: Vec<Pen>,
    /// Units of 2^-32 s: no two updates have the same timestamp.
    stamps: u64,
    random: u64,
}

impl Site {
    /// Nobody is bound.
    pub fn empty(mobiles: usize) -> Self {
        let prefix: Ipv6Net = "2001:db8:100::/48".parse().expect("a prefix");
        let allowed = (0..mobiles).map(|mobile| AllowedMobile {
            address: home_address(mobile),
            name: None,
            prefixes: vec![prefix_of(mobile)],
            security: None,
            max_bindings: 8,
            max_flows: 64,
            max_copies: 2,
            refused: false,
            refused_bids: Vec::new(),
        });
        let served = ServedHome {
            name: HomeName::new("fleet"),
            tunnel: Tunnel { name: InterfaceName::new("mtun0"), mtu: None },
            agent: HomeAgentAddress(AGENT),
            prefix,
            on: None,
            preference: None,
            only_router: false,
            max_lifetime: Duration::from_secs(3600),
            multiple_coa: true,
            bulk: true,
            flow_bindings: true,
            reflect: true,
            unmatched: mtun_policy::downlink::Unmatched::default(),
            extensions: Extensions::default(),
            mobiles: allowed.collect(),
        };
        let mobiles_config =
            served.mobiles.iter().enumerate().map(|(mobile, allowed)| AgentMobile {
                address: allowed.address,
                prefixes: allowed.prefixes.clone(),
                protection: Some(association(mobile, 0)),
                max_bindings: allowed.max_bindings,
                max_flows: allowed.max_flows,
                max_copies: allowed.max_copies,
                reflect: false,
                copies: false,
                refused: false,
                refused_bids: Vec::new(),
            });
        let agent = HomeAgent::new(AgentConfig {
            address: served.agent,
            prefix,
            home_link: HomeLink::Virtual,
            max_lifetime: served.max_lifetime,
            refresh_advice: None,
            refresh_requests: true,
            multiple_coa: true,
            bulk: true,
            flow_bindings: true,
            extensions: Extensions::default(),
            restart_counter: 1,
            mobiles: mobiles_config.collect(),
        });
        let reflecting = Effective::reflecting();
        let known = served.mobiles.iter().map(|allowed| {
            publish::mobile(&served, allowed, None, reflecting.clone(), |_| 1500, None)
        });
        let published = publish::initial(known, false, Vec::new());
        let engine = Engine::new(published.clone(), Settings::default());
        let pens = vec![Pen::default(); mobiles];
        Self { agent, published, engine, served, reflecting, pens, stamps: 0, random: 7 }
    }

    /// Everybody is bound, four times.
    pub fn registered(mobiles: usize) -> Self {
        let mut site = Self::empty(mobiles);
        for mobile in 0..mobiles {
            let message = site.refreshed(mobile);
            assert_eq!(site.receive(message).answers, 1, "an update is acknowledged");
        }
        assert_eq!(site.agent.cache().len(), mobiles);
        site
    }

    pub fn mobiles(&self) -> usize {
        self.pens.len()
    }

    pub fn home_address(&self, mobile: usize) -> HomeAddress {
        home_address(mobile)
    }

    /// The mobile that has this home address.
    pub fn number(&self, home_address: HomeAddress) -> usize {
        (u128::from(home_address.0) as u32) as usize - 2
    }

    /// A host behind a mobile.
    pub fn host_of(&self, mobile: usize) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(prefix_of(mobile).net().addr()) | 0x77)
    }

    /// Some mobile, all equally likely.
    pub fn any(&mut self) -> usize {
        self.random = self.random.wrapping_add(1);
        self.some(self.random)
    }

    /// The mobile of a number, spread evenly.
    pub fn some(&self, number: u64) -> usize {
        let mixed = (number ^ 0x9e37_79b9).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as usize % self.mobiles()
    }

    /// The time that machines are told.
    pub fn now(&self) -> Timestamp {
        let since = Duration::from_secs(1_000);
        Timestamp {
            monotonic: since,
            wall: NtpTime::from_unix(Duration::from_secs(1_790_000_000) + since),
        }
    }

    /// An update for all four bindings, as they are.
    pub fn refreshed(&mut self, mobile: usize) -> Arrived {
        let options: Vec<_> =
            (1..=BINDINGS as u16).map(|bid| self.identifier(mobile, bid)).collect();
        self.update(mobile, options, 0)
    }

    /// An update for one binding that has another address now.
    pub fn moved(&mut self, mobile: usize) -> Arrived {
        self.pens[mobile].moves = self.pens[mobile].moves.wrapping_add(1);
        let option = self.identifier(mobile, 3);
        self.update(mobile, vec![option], 0)
    }

    /// An update that is right but for its key.
    pub fn forged(&mut self, mobile: usize) -> Arrived {
        let options: Vec<_> =
            (1..=BINDINGS as u16).map(|bid| self.identifier(mobile, bid)).collect();
        self.update(mobile, options, 0x55)
    }

    /// An update that came before.
    pub fn repeated(&mut self, mobile: usize) -> Arrived {
        let (pen, stamps) = (self.pens[mobile], std::mem::take(&mut self.stamps));
        let arrived = self.refreshed(mobile);
        (self.pens[mobile], self.stamps) = (pen, stamps);
        arrived
    }

    /// Hands a message to the agent and publishes what follows.
    pub fn receive(&mut self, arrived: Arrived) -> Taken {
        let mut taken = Taken::default();
        self.take(arrived, |taken, _| taken.answers += 1, &mut taken);
        taken
    }

    /// The same; the answers are kept.
    pub fn receive_keeping(&mut self, arrived: Arrived) -> Taken {
        let mut taken = Taken::default();
        self.take(arrived, |taken, message| taken.messages.push(message), &mut taken);
        taken
    }

    fn take(
        &mut self,
        (envelope, message): Arrived,
        answer: impl Fn(&mut Taken, Transmit),
        taken: &mut Taken,
    ) {
        let now = self.now();
        self.agent.handle(now, AgentEvent::Received { envelope, message });
        while let Some(output) = self.agent.poll() {
            taken.unanswered += usize::from(crate::is_silent(&output));
            match output {
                AgentOutput::Transmit(transmit) => answer(taken, transmit),
                AgentOutput::Keep { home_address } => taken.keep = Some(home_address),
                AgentOutput::Changed { home_address, effective: true } => {
                    let registration = self.registration(self.number(home_address));
                    publish::publish_mobile(&self.engine, registration, Vec::new(), now.monotonic);
                }
                _ => {}
            }
        }
    }

    /// What the cache holds of a mobile, as packets will read it.
    pub fn registration(&self, mobile: usize) -> Registration {
        let allowed = &self.served.mobiles[mobile];
        let entry = self.agent.cache().get(allowed.address);
        let reflecting = self.reflecting.clone();
        publish::mobile(&self.served, allowed, entry, reflecting, |_| 1500, None)
    }

    fn care_of(&self, mobile: usize, bid: u16) -> Ipv6Addr {
        let moves = if bid == 3 { self.pens[mobile].moves } else { 0 };
        let [high, low] = [(mobile >> 16) as u16, mobile as u16];
        Ipv6Addr::new(0x2001, 0xdb8, 0xc000 + bid, moves, 0, 0, high, low)
    }

    fn identifier(&self, mobile: usize, bid: u16) -> BindingIdentifier {
        BindingIdentifier {
            bid: Bid::new(bid),
            priority: bid as u8,
            status: Status::ACCEPTED,
            home: false,
            care_of: Some(CareOfAddress::from(self.care_of(mobile, bid))),
        }
    }

    fn update(&mut self, mobile: usize, bids: Vec<BindingIdentifier>, spoil: u8) -> Arrived {
        let pen = &mut self.pens[mobile];
        if spoil == 0 {
            pen.sequence = pen.sequence.wrapping_add(1);
        }
        let sequence = pen.sequence;
        self.stamps += 1;
        let only = if let [only] = &bids[..] { only.care_of } else { None };
        let source = self.care_of(mobile, 1);
        let care_of = match only {
            Some(CareOfAddress(std::net::IpAddr::V6(only))) => only,
            _ => source,
        };
        let envelope =
            Envelope { home_address: Some(home_address(mobile)), ..Envelope::plain(source, AGENT) };
        let mut options = Options::new();
        bids.into_iter().for_each(|bid| options.push(bid));
        let update = Message::BindingUpdate(BindingUpdate {
            sequence,
            flags: BindingUpdateFlags {
                acknowledge: true,
                home: true,
                router: true,
                ..BindingUpdateFlags::default()
            },
            lifetime: LIFETIME,
            options,
        });
        let stamp = Some(NtpTime(self.now().wall.0 + self.stamps));
        let association = association(mobile, spoil);
        let message = wire::emit_authenticated(&update, &envelope, care_of, &association, stamp);
        (envelope, message.expect("as long as a message may be"))
    }
}

fn home_address(mobile: usize) -> HomeAddress {
    let number = u128::try_from(mobile + 2).expect("a small number");
    HomeAddress(Ipv6Addr::from(0x2001_0db8_0100 << 80 | number))
}

fn prefix_of(mobile: usize) -> MobileNetworkPrefix {
    let [high, low] = [(mobile >> 16) as u16, mobile as u16];
    let net = Ipv6Net::new(Ipv6Addr::new(0x3fff, 1, high, low, 0, 0, 0, 0), 64);
    MobileNetworkPrefix::new(net.expect("a length that there is")).expect("no host bits")
}

fn association(mobile: usize, spoil: u8) -> SecurityAssociation {
    let mut key = vec![0x5a ^ spoil; 32];
    key[..8].copy_from_slice(&(mobile as u64).to_be_bytes());
    let key = Secret::new(key).expect("long enough");
    SecurityAssociation::new(0x1000, Algorithm::HmacSha256, key).expect("not reserved")
}
