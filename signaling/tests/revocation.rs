//! What a mobile answers to each kind of Binding Revocation Indication (RFC 5846 §5.2), and that
//! only one which is meant for its own bindings ends any.

mod support;

use std::time::Duration;

use mtun_policy::{
    Bid, Extensions, HomeAddress, HomeAgentAddress, HomeName, PrefixMode, ReturningHome,
};
use mtun_signaling::machine::Machine;
use mtun_signaling::mobile::{MobileConfig, MobileEvent, MobileNode, MobileOutput};
use mtun_signaling::time::{NtpTime, Timestamp};
use mtun_signaling::wire::extension::{self, Extension};
use mtun_signaling::wire::option::BindingIdentifier;
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingRevocation, Message, RevocationKind, Status,
};
use support::{AGENT, CARE_OF, HOME, address, bid, options, sha256_association, to_mobile};

fn at(milliseconds: u64) -> Timestamp {
    let wall = NtpTime::from_unix(Duration::from_millis(1_700_000_000_000 + milliseconds));
    Timestamp { monotonic: Duration::from_millis(milliseconds), wall }
}

fn outputs(node: &mut MobileNode) -> Vec<MobileOutput> {
    std::iter::from_fn(|| node.poll()).collect()
}

/// A mobile with one binding.
fn bound() -> MobileNode {
    let config = MobileConfig {
        home: HomeName::new("acme"),
        home_address: HomeAddress(address(HOME)),
        agent: HomeAgentAddress(address(AGENT)),
        mobile_networks: Vec::new(),
        prefix_mode: PrefixMode::Explicit,
        lifetime: Duration::from_secs(420),
        multiple_coa: true,
        bulk: true,
        returning_home: ReturningHome::Home,
        extensions: Extensions { revocation: true, ..Extensions::default() },
        protection: Some(sha256_association()),
        initial_sequence: 1,
    };
    let mut node = MobileNode::new(config, at(0));
    let up = MobileEvent::CareOfUp { bid: one(), priority: 10, care_of: address(CARE_OF).into() };
    node.handle(at(0), up);
    node.handle_deadline(at(100));
    let sent = outputs(&mut node).into_iter().find_map(|output| match output {
        MobileOutput::Transmit(transmit) => Some(transmit),
        _ => None,
    });
    let sent = sent.expect("an update");
    let Ok(Message::BindingUpdate(update)) = wire::receive(&sent.envelope, &sent.message) else {
        panic!("no update: {sent:?}");
    };
    let answer = Message::BindingAcknowledgement(BindingAcknowledgement {
        status: Status::ACCEPTED,
        key_mobility: false,
        router: false,
        sequence: update.sequence,
        lifetime: update.lifetime,
        options: options([bid(1, 10, None).into()]),
    });
    let envelope = to_mobile(AGENT);
    let stamp = update.options.message_id();
    let key = sha256_association();
    let message = wire::emit_authenticated(&answer, &envelope, address(CARE_OF), &key, stamp);
    node.handle(at(120), MobileEvent::Received { envelope, message: message.expect("it fits") });
    let bound = |output: &MobileOutput| matches!(output, MobileOutput::Bound { .. });
    assert!(outputs(&mut node).iter().any(bound));
    node
}

fn one() -> Bid {
    Bid::new(1).expect("not zero")
}

/// Hands in an indication; the status of the answer, and whether the binding has ended.
fn answer(said: BindingRevocation) -> (u8, bool) {
    let mut node = bound();
    let (envelope, key) = (to_mobile(AGENT), sha256_association());
    let message = Extension::BindingRevocation(said);
    let message = extension::emit_authenticated(&message, &envelope, &key, at(200).wall);
    node.handle(at(200), MobileEvent::Received { envelope, message: message.expect("it fits") });
    let outputs = outputs(&mut node);
    let ended = outputs.iter().any(|output| matches!(output, MobileOutput::Unbound { .. }));
    let status = outputs.iter().find_map(|output| match output {
        MobileOutput::Transmit(transmit) => {
            let read = extension::receive(&transmit.envelope, &transmit.message);
            let Ok(Extension::BindingRevocation(said)) = read else { return None };
            assert_eq!(said.sequence, 7);
            match said.kind {
                RevocationKind::Acknowledgement(status) => Some(status),
                RevocationKind::Indication(_) => None,
            }
        }
        _ => None,
    });
    (status.expect("an acknowledgement"), ended)
}

/// req BR-01.
#[test]
fn each_indication_has_its_status() {
    let plain = |trigger| BindingRevocation::new(RevocationKind::Indication(trigger), 7);
    let of = |bids: &[u16]| {
        let bids = bids.iter().filter_map(|bid| Bid::new(*bid));
        let options = bids.map(|bid| BindingIdentifier::new(bid).into()).collect();
        BindingRevocation { options, ..plain(1) }
    };
    let cases = [
        ("all of them", plain(1), (0, true)),
        ("for no reason that is told", plain(0), (0, true)),
        ("this one", of(&[1]), (0, true)),
        ("this one and one that is not there", of(&[1, 9]), (1, true)),
        ("one that is not there", of(&[9]), (128, false)),
        ("of an IPv4 home address", BindingRevocation { ipv4: true, ..plain(1) }, (128, false)),
        ("of all mobiles", BindingRevocation { global: true, ..plain(128) }, (130, false)),
        ("of one, for a reason that concerns all", plain(128), (133, false)),
        ("of a proxy", BindingRevocation { proxy: true, ..plain(1) }, (135, false)),
    ];
    for (what, said, want) in cases {
        assert_eq!(answer(said), want, "{what}");
    }
}
