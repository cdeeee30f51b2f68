//! Mobiles without anything but their signaling, all on the correspondent's machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use mtun::edge::clock::Clock;
use mtun::key;
use mtun::lab::daemons::Daemon;
use mtun::lab::world::{World, address};
use mtun_dataplane::backend::{PacketSocket, Uplink};
use mtun_dataplane::wire::{parse_signalling, signalling_packet};
use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::Envelope;
use mtun_signaling::auth::{self, SecurityAssociation};
use mtun_signaling::wire::option::BindingIdentifier;
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, MobilityOption, Options, Status,
};

/// Mobiles that register, all from the correspondent's machine.
pub const MOBILES: u16 = 64;
/// Binding Updates a second.
pub const RATE: u32 = 500;

/// The home address of a mobile.
pub fn home(mobile: u16) -> HomeAddress {
    HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 1, mobile))
}

/// The care-of address that an update names: another one each time, so that what the agent holds
/// tells which update it was.
pub fn care_of(mobile: u16, sequence: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0xf, mobile, sequence)
}

/// What a mobile sent and what was promised to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mobile {
    pub sent: u16,
    pub acknowledged: Option<u16>,
}

/// Mobiles without anything but their signaling.
pub struct Fleet {
    pub uplink: Uplink,
    socket: PacketSocket,
    association: SecurityAssociation,
    clock: Clock,
    pub mobiles: Vec<Mobile>,
    next: u16,
    pub acknowledged: u64,
    pub refused: u64,
    /// The status of every answer that refused, in their order.
    pub refusals: Vec<u8>,
    /// Whether an answer advised when to refresh.
    pub advised: bool,
    /// The first accepted update of each mobile, to be sent once more.
    pub recorded: BTreeMap<u16, Vec<u8>>,
}

impl Fleet {
    pub fn new(world: &World) -> Self {
        // The kernel knows no type 2 routing header and would complain to the agent.
        world.cn.nft("table inet fleet { chain in { type filter hook input priority 0; ip6 nexthdr 43 drop; }; }").unwrap();
        let index = world.cn.interface_index("eth0").unwrap();
        let (uplink, socket) =
            world.cn.run(|| (Uplink::open(None).unwrap(), PacketSocket::open(index).unwrap()));
        let (algorithm, secret) = key::read(&world.directory().join("agent/acme.key")).unwrap();
        let association = SecurityAssociation::new(0x1001, algorithm, secret).unwrap();
        Self {
            uplink,
            socket,
            association,
            clock: Clock::start(),
            mobiles: vec![Mobile::default(); usize::from(MOBILES)],
            next: 0,
            acknowledged: 0,
            refused: 0,
            refusals: Vec::new(),
            advised: false,
            recorded: BTreeMap::new(),
        }
    }

    /// The next mobile sends its next update.
    pub fn update(&mut self) {
        let mobile = self.next;
        self.next = (self.next + 1) % MOBILES;
        self.update_of(mobile);
    }

    /// This mobile sends its next update.
    pub fn update_of(&mut self, mobile: u16) {
        let it = &mut self.mobiles[usize::from(mobile)];
        it.sent += 1;
        let mut options = Options::new();
        options.push(BindingIdentifier {
            bid: Bid::new(1),
            status: Status::ACCEPTED,
            home: false,
            priority: 1,
            care_of: Some(care_of(mobile, it.sent).into()),
        });
        let update = BindingUpdate {
            sequence: it.sent,
            flags: BindingUpdateFlags {
                acknowledge: true,
                home: true,
                overwrite: it.sent == 1,
                ..BindingUpdateFlags::default()
            },
            lifetime: Lifetime::from_duration(Duration::from_secs(3600)),
            options,
        };
        let source = address::CORRESPONDENT;
        let envelope = Envelope {
            home_address: Some(home(mobile)),
            ..Envelope::plain(source, address::AGENT)
        };
        let (now, hashed) = (self.clock.now().wall, auth::care_of_address(&update, &envelope));
        let message = Message::BindingUpdate(update);
        let message =
            wire::emit_authenticated(&message, &envelope, hashed, &self.association, Some(now))
                .unwrap();
        let packet =
            signalling_packet(source, address::AGENT, Some(home(mobile).0), None, &message);
        self.recorded.entry(mobile).or_insert_with(|| packet.clone());
        // Nobody may be there to take it.
        let _ = self.uplink.send(&packet);
    }

    /// Takes in the acknowledgements that have arrived.
    pub fn listen(&mut self) {
        let mut buffer = vec![0; mtun_dataplane::backend::RECEIVE_BUFFER];
        while let Ok(Some(received)) = self.socket.recv(&mut buffer) {
            let Some(packet) = parse_signalling(&buffer[received.packet]) else { continue };
            let Some(to) = packet.routing_header.filter(|_| packet.source == address::AGENT) else {
                continue;
            };
            let envelope = Envelope {
                routing_header: Some(HomeAddress(to)),
                ..Envelope::plain(packet.source, packet.destination)
            };
            let Ok(Message::BindingAcknowledgement(answer)) =
                wire::receive(&envelope, packet.message)
            else {
                continue;
            };
            let advice = |it: &MobilityOption| matches!(it, MobilityOption::RefreshAdvice(_));
            self.advised |= answer.options.iter().any(advice);
            let mobile = &mut self.mobiles[usize::from(to.segments()[7])];
            if answer.status == Status::ACCEPTED {
                self.acknowledged += 1;
                mobile.acknowledged = mobile.acknowledged.max(Some(answer.sequence));
            } else {
                self.refused += 1;
                self.refusals.push(answer.status.0);
            }
        }
    }

    /// Sends at the agreed rate until `until` says so.
    pub fn run(&mut self, mut until: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        let mut sent = 0;
        while !until(self) {
            let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
            while sent < due {
                self.update();
                sent += 1;
            }
            self.listen();
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// What the agent holds of each mobile is what it promised last, or something newer that it
    /// did not come to promise.
    pub fn check(&self, agent: &Daemon, round: u32) {
        let status = agent.status().unwrap();
        let held: BTreeMap<HomeAddress, IpAddr> = status
            .mobiles
            .iter()
            .filter_map(|it| Some((it.home_address, it.bindings.first()?.care_of?.0)))
            .collect();
        for (mobile, it) in (0u16..).zip(&self.mobiles) {
            let Some(promised) = it.acknowledged else { continue };
            let Some(IpAddr::V6(address)) = held.get(&home(mobile)) else {
                panic!("round {round}: mobile {mobile} lost what was acknowledged: {it:?}");
            };
            let number = address.segments()[7];
            assert_eq!(*address, care_of(mobile, number), "round {round}, mobile {mobile}");
            assert!(
                (promised..=it.sent).contains(&number),
                "round {round}: mobile {mobile} has update {number} of {it:?}"
            );
        }
    }
}
