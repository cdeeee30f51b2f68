//! What strangers send is dropped before anything is allocated for it (req T-01, SE-01).

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{HomeAddress, HomeAgentAddress};
use mtun_signaling::agent::{
    AgentConfig, AgentEvent, AgentMobile, AgentNotice, AgentOutput, HomeAgent, HomeLink, Ignored,
    Standing,
};
use mtun_signaling::auth::{Algorithm, AuthFailure, Secret, SecurityAssociation};
use mtun_signaling::machine::{Envelope, Machine};
use mtun_signaling::time::{NtpTime, Timestamp};
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options, Status,
};

struct Counting;

thread_local! {
    /// Allocations of this thread: tests run side by side.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x42);
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x66);
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7);

fn association(spi: u32) -> SecurityAssociation {
    let key = Secret::new(vec![7; 32]).unwrap();
    SecurityAssociation::new(spi, Algorithm::HmacSha256, key).unwrap()
}

fn agent() -> HomeAgent {
    HomeAgent::new(AgentConfig {
        address: HomeAgentAddress(AGENT),
        prefix: "2001:db8:100::/64".parse().unwrap(),
        home_link: HomeLink::Virtual,
        max_lifetime: Duration::from_secs(3600),
        refresh_advice: None,
        refresh_requests: false,
        multiple_coa: true,
        bulk: true,
        flow_bindings: true,
        extensions: mtun_policy::Extensions::default(),
        restart_counter: 1,
        mobiles: vec![AgentMobile {
            address: HomeAddress(HOME),
            prefixes: Vec::new(),
            protection: Some(association(0x1001)),
            max_bindings: 16,
            max_flows: 64,
            max_copies: 4,
            reflect: true,
            copies: true,
            refused: false,
            refused_bids: Vec::new(),
        }],
    })
}

#[test]
fn strangers_cost_no_memory() {
    let now = Timestamp { monotonic: Duration::from_secs(1), wall: NtpTime(0xE000_0000 << 32) };
    let envelope = |home| Envelope {
        source: CARE_OF,
        destination: AGENT,
        home_address: Some(HomeAddress(home)),
        routing_header: None,
    };
    let update = Message::BindingUpdate(BindingUpdate {
        sequence: 1,
        flags: Default::default(),
        lifetime: Lifetime(100),
        options: Options::new(),
    });
    let plain = |home| wire::emit(&update, &envelope(home)).unwrap();
    let other_spi = wire::emit_authenticated(
        &update,
        &envelope(HOME),
        CARE_OF,
        &association(0x2002),
        Some(now.wall),
    );
    let cases = [
        ("no such home address", STRANGER, plain(STRANGER), "unknown_home_address"),
        ("no authentication option", HOME, plain(HOME), "unprotected"),
        ("an SPI that nobody has", HOME, other_spi.unwrap(), "unknown_spi"),
    ];
    let mut agent = agent();
    for (what, home, message, reason) in cases {
        // The first one may make room in the queue of outputs.
        for round in 0..3 {
            let event = AgentEvent::Received { envelope: envelope(home), message: message.clone() };
            let before = allocations();
            agent.handle(now, event);
            let output = agent.poll();
            let allocated = allocations() - before;
            let Some(AgentOutput::Notice(notice @ AgentNotice::Ignored { .. })) = output else {
                panic!("{what}: {output:?}");
            };
            assert_eq!(notice.reason(), reason, "{what}");
            assert!(agent.poll().is_none(), "{what}: nothing is answered");
            assert!(round == 0 || allocated == 0, "{what}: {allocated} allocations");
        }
    }
    assert!(agent.cache().is_empty());
}

#[test]
fn forged_updates_cost_no_memory_once_their_answers_are_used_up() {
    // T-01, SE-01, SE-02: signed with another key, in the name of a mobile that is served.
    let now = Timestamp { monotonic: Duration::from_secs(1), wall: NtpTime(0xE000_0000 << 32) };
    let envelope = Envelope {
        source: CARE_OF,
        destination: AGENT,
        home_address: Some(HomeAddress(HOME)),
        routing_header: None,
    };
    let update = Message::BindingUpdate(BindingUpdate {
        sequence: 1,
        flags: BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() },
        lifetime: Lifetime(100),
        options: Options::new(),
    });
    let key = Secret::new(vec![8; 32]).unwrap();
    let wrong = SecurityAssociation::new(0x1001, Algorithm::HmacSha256, key).unwrap();
    let forged =
        wire::emit_authenticated(&update, &envelope, CARE_OF, &wrong, Some(now.wall)).unwrap();
    let mut agent = agent();
    let gate = agent.gate();
    let mut answered = 0;
    for round in 0..100 {
        let message = forged.clone();
        let before = allocations();
        let standing = gate.judge(&envelope, &message);
        assert_eq!(allocations(), before, "the gate makes nothing of it");
        assert_eq!(standing, Standing::Forged(HomeAddress(HOME)));
        agent.handle(now, AgentEvent::Received { envelope, message });
        let notice = agent.poll();
        let allocated = allocations() - before;
        let Some(AgentOutput::Notice(AgentNotice::Refused { answered: told, status, .. })) = notice
        else {
            panic!("{notice:?}");
        };
        assert_eq!(status, Status::AUTHENTICATION_FAILED);
        answered += usize::from(told);
        assert_eq!(agent.poll().is_some(), told, "an answer if it says so, and nothing else");
        assert!(told || allocated == 0, "round {round}: {allocated} allocations");
    }
    assert_eq!(answered, 3);
    assert!(agent.cache().is_empty());
}

#[test]
fn the_gate_tells_who_proved_what() {
    let wall = NtpTime(0xE000_0000 << 32);
    let envelope = |home| Envelope {
        source: CARE_OF,
        destination: AGENT,
        home_address: Some(HomeAddress(home)),
        routing_header: None,
    };
    let update = |home| {
        Message::BindingUpdate(BindingUpdate {
            sequence: 1,
            flags: BindingUpdateFlags { acknowledge: true, home, ..Default::default() },
            lifetime: Lifetime(100),
            options: Options::new(),
        })
    };
    let signed = |to: &Envelope, spi| {
        wire::emit_authenticated(&update(true), to, CARE_OF, &association(spi), Some(wall)).unwrap()
    };
    let plain = |to: &Envelope, home| wire::emit(&update(home), to).unwrap();
    let (ours, strange) = (envelope(HOME), envelope(STRANGER));
    let elsewhere = Envelope { destination: STRANGER, ..ours };
    let authentic = Standing::Authentic { home_address: HomeAddress(HOME), stamp: Some(wall) };
    let unknown = Standing::Worthless(Ignored::UnknownHomeAddress(HomeAddress(STRANGER)));
    let failed = |failure| Standing::Worthless(Ignored::Unauthenticated(failure));
    let (gate, responding) = (agent().gate(), agent().gate().responding(true));
    let rows = [
        ("signed", ours, signed(&ours, 0x1001), authentic, authentic),
        (
            "to another agent",
            elsewhere,
            signed(&elsewhere, 0x1001),
            Standing::Other,
            Standing::Other,
        ),
        (
            "another SPI",
            ours,
            signed(&ours, 0x2002),
            failed(AuthFailure::UnknownSpi(0x2002)),
            failed(AuthFailure::UnknownSpi(0x2002)),
        ),
        (
            "unsigned",
            ours,
            plain(&ours, true),
            failed(AuthFailure::Missing),
            failed(AuthFailure::Missing),
        ),
        ("of a stranger, H", strange, plain(&strange, true), unknown, unknown),
        (
            "of a stranger, to a correspondent",
            strange,
            plain(&strange, false),
            unknown,
            Standing::Other,
        ),
        ("no message", ours, vec![59, 0, 5], Standing::Other, Standing::Other),
    ];
    for (what, envelope, message, alone, as_correspondent_too) in rows {
        assert_eq!(gate.judge(&envelope, &message), alone, "{what}");
        assert_eq!(responding.judge(&envelope, &message), as_correspondent_too, "{what}");
    }
}
