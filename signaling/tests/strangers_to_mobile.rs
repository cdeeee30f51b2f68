//! What strangers send to a mobile that optimizes routes: not even read from whoever is no
//! correspondent of ours, and without effect from whoever pretends to be one (req MN-20, MN-24,
//! MN-26, MN-29, R-MN-19).

mod scene;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mtun_signaling::wire::iana::mh;
use mtun_signaling::{
    CorrespondentBinding, Envelope, Machine, RouteOptimizationEvent, RouteOptimizationOutput,
};
use scene::route::{CORRESPONDENT, correspondent_config, fill_checksum, optimizer_config};
use scene::route_world::RouteWorld;
use scene::{EPOCH, address, at, bid, care_of, home};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

const STRANGER: &str = "2001:db8:66::66";
const CARE_OF: &str = "2001:db8:1::7";

/// A mobile with one optimized route.
fn optimized() -> RouteWorld {
    let mut world = RouteWorld::new(Box::new(|| vec![Duration::from_millis(20)]));
    world.start_correspondent(&correspondent_config());
    world.start_optimizer(&optimizer_config());
    world.optimizer_event(RouteOptimizationEvent::CareOf {
        bid: bid(1),
        priority: 10,
        care_of: care_of(CARE_OF),
        expires: Duration::from_secs(1_000_000),
    });
    let correspondent = address(CORRESPONDENT);
    world.optimizer_event(RouteOptimizationEvent::Wanted { correspondent });
    world.run_until(Duration::from_secs(1));
    world
}

/// Every message of the fuzz target's corpus, whole and with single octets altered.
fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for entry in std::fs::read_dir(support::file("../fuzz/corpus/mobility_header")).unwrap() {
        let message = std::fs::read(entry.unwrap().path()).unwrap();
        for at in (0..=message.len()).step_by(3) {
            let mut altered = message.clone();
            if let Some(octet) = altered.get_mut(at) {
                *octet ^= 0x11;
            }
            messages.push(altered);
        }
        messages.push(message);
    }
    messages
}

/// One test for all, so that nothing else counts meanwhile.
#[test]
fn strangers_change_nothing() {
    let mut world = optimized();
    let optimizer = world.optimizer.as_mut().expect("an optimizer");
    let before: Vec<CorrespondentBinding> = optimizer.bindings().collect();
    assert_eq!(before.len(), 1);
    let messages = messages();
    assert!(messages.len() > 100);
    let destinations = [home().0, address(CARE_OF)];

    // From nobody we know: a notice, and no memory asked for.
    for (round, message) in messages.iter().enumerate() {
        let destination = destinations[round % 2];
        let envelope = Envelope::plain(address(STRANGER), destination);
        let (message, tunneled) = (message.clone(), round % 4 < 2);
        let event = RouteOptimizationEvent::Received { envelope, message, tunneled };
        let allocated = ALLOCATIONS.load(Ordering::Relaxed);
        optimizer.handle(at(Duration::from_secs(2), EPOCH), event);
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - allocated;
        let Some(RouteOptimizationOutput::Notice(notice)) = optimizer.poll() else {
            panic!("a notice");
        };
        assert_eq!(notice.reason(), "not_from_correspondent");
        assert!(optimizer.poll().is_none());
        assert!(round == 0 || allocated == 0, "{allocated} allocations");
    }

    // In the correspondent's name: ignored, for one reason or another. What an error or a request
    // to refresh may cost is proved elsewhere.
    for message in &messages {
        for destination in destinations {
            for routing_header in [None, Some(home())] {
                let correspondent = address(CORRESPONDENT);
                let envelope =
                    Envelope { routing_header, ..Envelope::plain(correspondent, destination) };
                let mut message = message.clone();
                if matches!(
                    message.get(2),
                    Some(&(mh::BINDING_ERROR | mh::BINDING_REFRESH_REQUEST))
                ) {
                    continue;
                }
                if message.len() >= 6 {
                    fill_checksum(&envelope, &mut message);
                }
                let tunneled = destination == home().0;
                let event = RouteOptimizationEvent::Received { envelope, message, tunneled };
                optimizer.handle(at(Duration::from_secs(2), EPOCH), event);
                while let Some(output) = optimizer.poll() {
                    assert!(matches!(output, RouteOptimizationOutput::Notice(_)), "{output:?}");
                }
            }
        }
    }
    assert_eq!(optimizer.bindings().collect::<Vec<_>>(), before);
    no_secret_is_printed(&world);
}

/// SE-12: whoever prints the machines sees that there are tokens, keys and seeds, and no more.
fn no_secret_is_printed(world: &RouteWorld) {
    let printed = format!("{:?} {:?}", world.optimizer, world.correspondent);
    assert!(printed.contains("KeygenToken(..)") && printed.contains("seed: Seed,"), "{printed}");
    for field in ["token: [", "kbm: [", "key: [", "nonce: [", "seed: ["] {
        assert!(!printed.contains(field), "{field}: {printed}");
    }
}
