//! A storm of forged and repeated Binding Updates at the home agent, and a mobile that registers
//! in the middle of it.

use std::net::Ipv6Addr;

use mtun::control::documents::StatusDocument;
use mtun::edge::clock::Clock;
use mtun::key;
use mtun::lab::daemons::cached;
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};
use mtun_dataplane::backend::Uplink;
use mtun_dataplane::wire::signalling_packet;
use mtun_policy::HomeAddress;
use mtun_signaling::Envelope;
use mtun_signaling::auth::{Secret, SecurityAssociation};
use mtun_signaling::wire::{self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options};

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

/// A mobile whose update somebody has overheard.
const OVERHEARD: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 1, 1);

/// Who sends what he cannot know the key of, and what he has overheard.
struct Storm {
    uplink: Uplink,
    overheard: Vec<u8>,
    forged: Vec<Vec<u8>>,
    sent: u64,
}

impl Storm {
    fn new(world: &World) -> Self {
        // The kernel knows no type 2 routing header and would complain to the agent.
        world.cn.nft("table inet storm { chain in { type filter hook input priority 0; ip6 nexthdr 43 drop; }; }").unwrap();
        let uplink = world.cn.run(|| Uplink::open(None).unwrap());
        let (algorithm, secret) = key::read(&world.directory().join("agent/acme.key")).unwrap();
        let right = SecurityAssociation::new(0x1001, algorithm, secret).unwrap();
        let secret = Secret::new(vec![9; algorithm.key_len()]).unwrap();
        let wrong = SecurityAssociation::new(0x1001, algorithm, secret).unwrap();
        let now = Clock::start().now().wall;
        let update = |home: Ipv6Addr, sequence, association| {
            let source = address::CORRESPONDENT;
            let envelope = Envelope {
                home_address: Some(HomeAddress(home)),
                ..Envelope::plain(source, address::AGENT)
            };
            let update = Message::BindingUpdate(BindingUpdate {
                sequence,
                flags: BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() },
                lifetime: Lifetime(600),
                options: Options::new(),
            });
            let message =
                wire::emit_authenticated(&update, &envelope, source, association, Some(now));
            signalling_packet(source, address::AGENT, Some(home), None, &message.unwrap())
        };
        Self {
            uplink,
            overheard: update(OVERHEARD, 1, &right),
            forged: (0..64).map(|sequence| update(address::HOME, sequence, &wrong)).collect(),
            sent: 0,
        }
    }

    /// A hundred of each.
    fn blow(&mut self) {
        for forged in self.forged.iter().cycle().take(100) {
            for packet in [forged, &self.overheard] {
                // A full buffer of the sender's is a storm too.
                let _ = self.uplink.send(packet);
            }
        }
        self.sent += 100;
    }
}

/// req SE-01, SE-02, T-01: what is forged ends where it is received, what is repeated in the room
/// of the mobile that it is a copy of, and nothing of another mobile's is dropped for it.
#[test]
fn a_mobile_registers_in_a_storm_of_forged_and_repeated_updates() {
    need_lab!();
    let mut text = PolicyText::default();
    // A virtual home link: nobody to ask whether an address is taken.
    text.agent = text.agent.replace(" on=home0", "");
    let marker = "    allow \"2001:db8:100::43\"";
    assert!(text.agent.contains(marker));
    let allow = format!("    allow \"{OVERHEARD}\" {{ security \"acme-sa\"; }}\n{marker}");
    text.agent = text.agent.replace(marker, &allow);
    let mut lab = Lab::with_agent(Plan::default(), text);
    let mut storm = Storm::new(&lab.world);
    storm.blow();
    lab.start_mobile(&[]);
    let registered = wait_for("both uplinks, in the storm", PATIENCE, || {
        storm.blow();
        let status = lab.agent().status().ok()?;
        let mobile = status.mobiles.iter().find(|it| it.home_address.0 == address::HOME)?;
        (mobile.bindings.len() == 2).then_some(())
    });
    assert!(registered.is_ok(), "{}", lab.mobile().story());
    lab.registered(&["wlan0", "wwan0"]);
    let dropped = |status: &StatusDocument, reason: &str| -> u64 {
        let of_reason = status.dropped.iter().filter(|it| it.reason == reason);
        of_reason.map(|it| it.messages).sum()
    };
    let status = lab.agent().status().unwrap();
    for reason in ["signaling-queue-full", "signaling-crowded", "signaling-displaced"] {
        assert_eq!(dropped(&status, reason), 0, "{:?}", status.dropped);
    }
    let forged = dropped(&status, "signaling-forged");
    assert!(forged >= 100, "{forged} of {} forged: {:?}", storm.sent, status.dropped);
    assert!(Lab::drops(lab.agent(), "signaling-forged") >= forged, "metrics say it too");
    // The overheard update worked once, for the mobile that had written it.
    assert!(cached(&status).contains(&address::CORRESPONDENT.into()), "{:?}", status.mobiles);
    assert!(Lab::drops(lab.agent(), "signaling-refused") > 0);
    lab.traffic();
    lab.assert_clean();
}
