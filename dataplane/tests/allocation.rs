//! A packet of a flow that is known asks for no memory, neither on its way out nor on its way in.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use mtun_dataplane::{PathId, Verdict};
use mtun_policy::Ingress;
use support::*;

/// The system's allocator, with a count of how often this thread asked it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
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

/// Packets of every flow after its first.
const MORE: u64 = 100;

/// How often memory was asked for by all packets but the first ones.
fn asked(mut each: impl FnMut(Duration)) -> u64 {
    each(NOW);
    let before = ASKED.get();
    for number in 1..=MORE {
        each(NOW + Duration::from_millis(number));
    }
    ASKED.get() - before
}

#[test]
fn known_flows_ask_for_no_memory() {
    for (what, snapshot, leaves, comes) in [
        (
            "a mobile",
            mobile(),
            [udp(HOME, PEER, (7, 80), 400), tcp(HOME, PEER, (9, 22))],
            [
                wrapped(AGENT, WLAN, &udp(PEER, HOME, (80, 7), 400)),
                wrapped(AGENT, WWAN, &tcp(PEER, HOME, (22, 9))),
            ],
        ),
        (
            "an agent",
            agent(),
            [udp(PEER, HOME, (80, 7), 400), tcp(PEER, INSIDE, (22, 9))],
            [
                wrapped(WLAN, AGENT, &udp(HOME, PEER, (7, 80), 400)),
                wrapped(WWAN, AGENT, &tcp(INSIDE, PEER, (9, 22))),
            ],
        ),
    ] {
        let Node { engine, mut out, .. } = Node::new(snapshot);
        out.reserve(4096);
        let count = asked(|now| {
            for packet in &comes {
                let verdict = engine.inbound(PathId(1), packet, now, &mut out);
                assert_eq!(verdict, Verdict::Deliver, "{what}");
            }
            for packet in &leaves {
                let verdict = engine.outbound(Ingress::OTHER, packet, now, &mut out);
                assert!(matches!(verdict, Verdict::Send { .. }), "{what}: {verdict:?}");
            }
        });
        assert_eq!(count, 0, "{what}");
    }
}
