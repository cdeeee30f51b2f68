//! What strangers send to a correspondent is answered or dropped, and leaves no trace: no panic,
//! no binding, no memory (req CN-05, CN-07, CN-55, R-CN-02).

mod scene;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::time::Duration;

use mtun_policy::HomeAddress;
use mtun_signaling::wire::option::{BindingAuthorizationData, NonceIndices};
use mtun_signaling::wire::{
    self, BindingUpdate, CareOfTestInit, HomeTest, HomeTestInit, Lifetime, Message, Options,
};
use mtun_signaling::{
    Correspondent, CorrespondentConfig, CorrespondentEvent, CorrespondentNotice,
    CorrespondentOutput, Envelope, Machine, Seed,
};
use scene::route::{CORRESPONDENT, correspondent_config, fill_checksum};
use scene::{EPOCH, address, at};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicIsize = AtomicIsize::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CARE_OF: &str = "2001:db8:1::7";
const HOME: &str = "2001:db8:100::42";

fn correspondent() -> Correspondent {
    let config = CorrespondentConfig { max_mobiles: 100, ..correspondent_config() };
    Correspondent::new(config, Seed::new([7; 32]))
}

/// Hands a message over; gives what came out and how often memory was asked for meanwhile.
fn tell(
    correspondent: &mut Correspondent,
    now: Duration,
    envelope: Envelope,
    message: Vec<u8>,
) -> (Option<CorrespondentOutput>, usize) {
    let event = CorrespondentEvent::Received { envelope, message };
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    correspondent.handle(at(now, EPOCH), event);
    let output = correspondent.poll();
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    (output, allocated)
}

fn away(home: &str) -> Envelope {
    Envelope {
        home_address: Some(HomeAddress(address(home))),
        ..Envelope::plain(address(CARE_OF), address(CORRESPONDENT))
    }
}

fn update(options: Options) -> Message {
    Message::BindingUpdate(BindingUpdate {
        sequence: 1,
        flags: Default::default(),
        lifetime: Lifetime(100),
        options,
    })
}

/// One test for all, so that nothing else counts meanwhile.
#[test]
fn strangers_leave_no_trace() {
    let mut correspondent = correspondent();
    let nonce = a_token(&mut correspondent);
    updates_without_right(&mut correspondent, nonce);
    tests_from_everywhere(&mut correspondent);
    corpora(&mut correspondent, nonce);
    assert_eq!(correspondent.load(), (0, 0));
    assert_eq!(correspondent.bindings().count(), 0);
}

/// The index of a nonce that is good.
fn a_token(correspondent: &mut Correspondent) -> u16 {
    let envelope = Envelope::plain(address(HOME), address(CORRESPONDENT));
    let init = Message::HomeTestInit(HomeTestInit { cookie: [1; 8], options: Options::new() });
    let message = wire::emit(&init, &envelope).unwrap();
    let (output, _) = tell(correspondent, Duration::ZERO, envelope, message);
    let Some(CorrespondentOutput::Transmit(answer)) = output else { panic!("{output:?}") };
    match wire::receive(&answer.envelope, &answer.message) {
        Ok(Message::HomeTest(HomeTest { nonce_index, .. })) => nonce_index,
        other => panic!("{other:?}"),
    }
}

fn updates_without_right(correspondent: &mut Correspondent, nonce: u16) {
    let indices = || NonceIndices { home: nonce, care_of: nonce }.into();
    let data = || BindingAuthorizationData { authenticator: vec![0x5a; 12] }.into();
    let named = || support::bid(1, 0, Some(CARE_OF)).into();
    let cases = [
        ("nothing", update(support::options([])), "no_nonce_indices"),
        ("no authenticator", update(support::options([indices()])), "unauthorized"),
        ("a wrong one", update(support::options([indices(), data()])), "unauthorized"),
        ("and a BID", update(support::options([indices(), named(), data()])), "unauthorized"),
    ];
    for (what, message, reason) in cases {
        let message = wire::emit(&message, &away(HOME)).unwrap();
        // The first one may make room in the queue of outputs.
        for round in 0..3 {
            let (output, allocated) =
                tell(correspondent, Duration::from_secs(1), away(HOME), message.clone());
            let Some(CorrespondentOutput::Notice(notice @ CorrespondentNotice::Ignored { .. })) =
                output
            else {
                panic!("{what}: {output:?}");
            };
            assert_eq!(notice.reason(), reason, "{what}");
            assert!(correspondent.poll().is_none(), "{what}: nothing is answered");
            assert!(round == 0 || allocated == 0, "{what}: {allocated} allocations");
        }
    }
}

/// CN-05, CN-07: as many sources as a minute has milliseconds.
fn tests_from_everywhere(correspondent: &mut Correspondent) {
    let before = BYTES.load(Ordering::Relaxed);
    let (mut asked, mut answered) = (0_usize, 0_usize);
    for millisecond in 0..60_000_u32 {
        let now = Duration::from_secs(2) + Duration::from_millis(millisecond.into());
        for network in [1, 2 + millisecond as u16 % 500, 1_000] {
            let source = Ipv6Addr::from(
                (0x2001_0db8 << 96) | u128::from(network) << 64 | u128::from(millisecond),
            );
            let envelope = Envelope::plain(source, address(CORRESPONDENT));
            let cookie = u64::from(millisecond).to_be_bytes();
            let init = if millisecond % 2 == 0 {
                Message::HomeTestInit(HomeTestInit { cookie, options: Options::new() })
            } else {
                Message::CareOfTestInit(CareOfTestInit { cookie, options: Options::new() })
            };
            let message = wire::emit(&init, &envelope).unwrap();
            let asked_octets = message.len();
            let (output, allocated) = tell(correspondent, now, envelope, message);
            asked += 1;
            match output {
                Some(CorrespondentOutput::Transmit(answer)) => {
                    answered += 1;
                    assert_eq!(answer.envelope.destination, source);
                    // The token is eight octets more than the request has, by the format.
                    assert_eq!(answer.message.len(), asked_octets + 8);
                }
                Some(CorrespondentOutput::Notice(notice)) => {
                    assert_eq!(notice.reason(), "rate_limit");
                    assert_eq!(allocated, 0);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // At most a thousand a second in all and a burst, whoever asks.
    assert!(answered <= 61 * 1_000, "{answered} of {asked} answered");
    assert!(answered >= 60 * 100, "{answered} of {asked} answered");
    // Nonces are the only thing that changes: at most nine of them.
    let grown = BYTES.load(Ordering::Relaxed) - before;
    assert!(grown < 4_096, "{grown} octets kept for {asked} tests");
}

/// What the fuzz target found, as it is, and each octet altered, as different packets.
fn corpora(correspondent: &mut Correspondent, nonce: u16) {
    let mut messages = Vec::new();
    for entry in std::fs::read_dir(support::file("../fuzz/corpus/mobility_header")).unwrap() {
        messages.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(messages.len() > 10);
    let indices = NonceIndices { home: nonce, care_of: nonce };
    let data = BindingAuthorizationData { authenticator: vec![0x5a; 12] };
    let identifier = support::bid(1, 0, Some(CARE_OF));
    let options = support::options([indices.into(), identifier.into(), data.into()]);
    messages.push(wire::emit(&update(options), &away(HOME)).unwrap());
    let envelopes = [
        away(HOME),
        away("ff02::1"),
        Envelope::plain(address(HOME), address(CORRESPONDENT)),
        Envelope::plain(Ipv6Addr::UNSPECIFIED, address(CORRESPONDENT)),
    ];
    let mut now = Duration::from_secs(100);
    for message in &messages {
        for at in 0..=message.len() * 2 {
            let mut altered = message.clone();
            if let Some(octet) = altered.get_mut(at / 2) {
                *octet ^= if at % 2 == 0 { 0x01 } else { 0xff };
            }
            for envelope in envelopes {
                let mut altered = altered.clone();
                if altered.len() >= 6 {
                    fill_checksum(&envelope, &mut altered);
                }
                now += Duration::from_millis(10);
                let (output, _) = tell(correspondent, now, envelope, altered);
                assert!(!matches!(output, Some(CorrespondentOutput::Changed { .. })));
                while let Some(output) = correspondent.poll() {
                    assert!(!matches!(output, CorrespondentOutput::Changed { .. }));
                }
            }
        }
    }
}
