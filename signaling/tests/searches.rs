//! First registrations of thousands of mobiles on a home link, in virtual time.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Extensions, HomeAddress, HomeAgentAddress};
use mtun_signaling::agent::{
    AgentConfig, AgentEvent, AgentMobile, AgentNotice, AgentOutput, Detection, HomeAgent, HomeLink,
    Ignored,
};
use mtun_signaling::machine::{Envelope, Machine};
use mtun_signaling::time::{NtpTime, Timestamp};
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options, Status,
};

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const AT_A_TIME: u32 = 10_000;

fn at(milliseconds: u64) -> Timestamp {
    Timestamp { monotonic: Duration::from_millis(milliseconds), wall: NtpTime(0xE000_0000 << 32) }
}

fn home_address(mobile: u32) -> HomeAddress {
    HomeAddress(Ipv6Addr::from(u128::from(AGENT) + 0x1_0000 + u128::from(mobile)))
}

fn agent(mobiles: u32) -> HomeAgent {
    let mobile = |mobile| AgentMobile {
        address: home_address(mobile),
        prefixes: Vec::new(),
        protection: None,
        max_bindings: 1,
        max_flows: 0,
        max_copies: 0,
        reflect: false,
        copies: false,
        refused: false,
        refused_bids: Vec::new(),
    };
    HomeAgent::new(AgentConfig {
        address: HomeAgentAddress(AGENT),
        prefix: "2001:db8:100::/64".parse().unwrap(),
        home_link: HomeLink::Real { only_router: false },
        max_lifetime: Duration::from_secs(3600),
        refresh_advice: None,
        refresh_requests: false,
        multiple_coa: true,
        bulk: true,
        flow_bindings: false,
        extensions: Extensions::default(),
        restart_counter: 1,
        mobiles: (0..mobiles).map(mobile).collect(),
    })
}

/// Hands in the first update of a mobile; what the agent wants.
fn register(agent: &mut HomeAgent, now: Timestamp, mobile: u32, sequence: u16) -> Vec<AgentOutput> {
    let care_of = Ipv6Addr::from(0x2001_0db8_0001_u128 << 80 | u128::from(mobile));
    let envelope =
        Envelope { home_address: Some(home_address(mobile)), ..Envelope::plain(care_of, AGENT) };
    let update = Message::BindingUpdate(BindingUpdate {
        sequence,
        flags: BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() },
        lifetime: Lifetime(100),
        options: Options::new(),
    });
    let message = wire::emit(&update, &envelope).unwrap();
    agent.handle(now, AgentEvent::Received { envelope, message });
    std::iter::from_fn(|| agent.poll()).collect()
}

fn checks(outputs: &[AgentOutput]) -> usize {
    outputs.iter().filter(|it| matches!(it, AgentOutput::CheckDuplicate { .. })).count()
}

/// The status with which a mobile is acknowledged, if it is.
fn acknowledged(outputs: &[AgentOutput]) -> Option<Status> {
    outputs.iter().find_map(|output| match output {
        AgentOutput::Transmit(transmit) => {
            match wire::receive(&transmit.envelope, &transmit.message) {
                Ok(Message::BindingAcknowledgement(answer)) => Some(answer.status),
                other => panic!("{other:?}"),
            }
        }
        _ => None,
    })
}

#[test]
fn ten_thousand_home_addresses_are_looked_for_at_once_and_no_more() {
    // HA-25.
    const LATE: u32 = 50;
    let mut agent = agent(AT_A_TIME + LATE);
    for mobile in 0..AT_A_TIME {
        let outputs = register(&mut agent, at(0), mobile, 1);
        assert_eq!((checks(&outputs), acknowledged(&outputs)), (1, None), "{mobile}");
    }
    // Whoever waits already and sends again is not looked for twice, and takes no further room.
    let outputs = register(&mut agent, at(1), 7, 2);
    assert_eq!((checks(&outputs), acknowledged(&outputs)), (0, None));
    for mobile in AT_A_TIME..AT_A_TIME + LATE {
        let outputs = register(&mut agent, at(2), mobile, 1);
        let told = outputs.iter().any(|output| {
            let reason = Ignored::Searches;
            matches!(output, AgentOutput::Notice(AgentNotice::Ignored { reason: why, .. }) if *why == reason)
        });
        assert!(told && checks(&outputs) == 0 && acknowledged(&outputs).is_none(), "{outputs:?}");
    }
    // Each is acknowledged as soon as its own search is over, in whatever order they end.
    for mobile in (0..AT_A_TIME).rev() {
        let (home_address, detection) = (home_address(mobile), Detection::Unique);
        let event = AgentEvent::DuplicateChecked { home_address, detection };
        agent.handle(at(1_000), event);
        let outputs: Vec<_> = std::iter::from_fn(|| agent.poll()).collect();
        assert_eq!(acknowledged(&outputs), Some(Status::ACCEPTED), "{mobile}");
    }
    assert_eq!(agent.cache().len(), AT_A_TIME as usize);
    // The late ones send again, as mobiles do after a second and a half.
    for mobile in AT_A_TIME..AT_A_TIME + LATE {
        let outputs = register(&mut agent, at(1_500), mobile, 2);
        assert_eq!((checks(&outputs), acknowledged(&outputs)), (1, None), "{mobile}");
    }
}
