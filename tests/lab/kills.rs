//! The home agent killed again and again, at random moments, under a steady load of Binding
//! Updates: nothing that it acknowledged is lost, and nothing works twice.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use mtun::edge::clock::Clock;
use mtun::key;
use mtun::lab::daemons::{Arguments, Daemon, Side, write_keys};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};
use mtun_dataplane::backend::{PacketSocket, Uplink};
use mtun_dataplane::wire::{parse_signalling, signalling_packet};
use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::Envelope;
use mtun_signaling::auth::{self, SecurityAssociation};
use mtun_signaling::wire::option::BindingIdentifier;
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options, Status,
};

use crate::fixture::programs;
use crate::need_lab;

/// Mobiles that register, all from the correspondent's machine.
const MOBILES: u16 = 64;
/// Binding Updates a second.
const RATE: u32 = 500;

/// The home address of a mobile.
fn home(mobile: u16) -> HomeAddress {
    HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 1, mobile))
}

/// The care-of address that an update names: another one each time, so that what the agent holds
/// tells which update it was.
fn care_of(mobile: u16, sequence: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0xf, mobile, sequence)
}

/// What a mobile sent and what was promised to it.
#[derive(Clone, Copy, Debug, Default)]
struct Mobile {
    sent: u16,
    acknowledged: Option<u16>,
}

/// Mobiles without anything but their signaling.
struct Fleet {
    uplink: Uplink,
    socket: PacketSocket,
    association: SecurityAssociation,
    clock: Clock,
    mobiles: Vec<Mobile>,
    next: u16,
    acknowledged: u64,
    refused: u64,
    /// The first accepted update of each mobile, to be sent once more.
    recorded: BTreeMap<u16, Vec<u8>>,
}

impl Fleet {
    fn new(world: &World) -> Self {
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
            recorded: BTreeMap::new(),
        }
    }

    /// The next mobile sends its next update.
    fn update(&mut self) {
        let mobile = self.next;
        self.next = (self.next + 1) % MOBILES;
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
    fn listen(&mut self) {
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
            let mobile = &mut self.mobiles[usize::from(to.segments()[7])];
            if answer.status == Status::ACCEPTED {
                self.acknowledged += 1;
                mobile.acknowledged = mobile.acknowledged.max(Some(answer.sequence));
            } else {
                self.refused += 1;
            }
        }
    }

    /// Sends at the agreed rate until `until` says so.
    fn run(&mut self, mut until: impl FnMut(&Self) -> bool) {
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
    fn check(&self, agent: &Daemon, round: u32) {
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

/// req PS-01, PS-02, PS-06, F-05. `MTUN_KILLS=1000` is the long run.
#[test]
fn killed_at_any_moment_the_agent_loses_nothing_that_it_acknowledged() {
    need_lab!();
    let kills = std::env::var("MTUN_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(12);
    let mut text = PolicyText::default();
    // A virtual home link: nobody to ask whether an address is taken.
    let allow: String = (0..MOBILES)
        .map(|mobile| format!("    allow \"{}\" {{ security \"acme-sa\"; }}\n", home(mobile).0))
        .collect();
    text.agent = text.agent.replace(" on=home0", "");
    let marker = "    allow \"2001:db8:100::43\"";
    assert!(text.agent.contains(marker));
    text.agent = text.agent.replace(marker, &format!("{allow}{marker}"));
    let world = World::build(Plan::default()).unwrap();
    write_keys(&world).unwrap();
    let start =
        || Daemon::start(&world, &programs(), Side::Agent, &text, &Arguments::default()).unwrap();
    let mut fleet = Fleet::new(&world);
    let mut agent = start();
    let mut moments = 1u64;
    for round in 0..kills {
        // Killed between 0 and 300 ms after the first acknowledgement of this run.
        moments = moments.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wait = Duration::from_micros((moments >> 33) % 300_000);
        let (before, patience) = (fleet.acknowledged, Instant::now());
        let mut first = None;
        fleet.run(|fleet| {
            assert!(patience.elapsed() < Duration::from_secs(30), "round {round}: no answer");
            if fleet.acknowledged > before {
                first.get_or_insert_with(Instant::now);
            }
            first.is_some_and(|at| at.elapsed() >= wait)
        });
        agent.process.kill().unwrap();
        fleet.listen();
        agent = start();
        fleet.check(&agent, round);
    }
    assert!(fleet.acknowledged > u64::from(kills), "{} acknowledged", fleet.acknowledged);
    assert_eq!(fleet.refused, 0, "nobody was refused for what the agent forgot");
    // What was recorded long ago does not work now, and changes nothing.
    let held = agent.status().unwrap().mobiles;
    for packet in fleet.recorded.values() {
        fleet.uplink.send(packet).unwrap();
    }
    let refused = mtun::lab::namespace::wait_for("refusals", Duration::from_secs(20), || {
        fleet.listen();
        (fleet.refused > 0).then_some(())
    });
    refused.unwrap();
    let after = agent.status().unwrap().mobiles;
    let addresses = |mobiles: &[mtun::control::documents::MobileDocument]| {
        let all = mobiles.iter().flat_map(|it| it.bindings.iter().map(|it| it.care_of));
        all.collect::<Vec<_>>()
    };
    assert_eq!(addresses(&after), addresses(&held));
}
