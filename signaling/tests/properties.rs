//! What holds for all messages and for all octets.

#[path = "support/flow_bindings.rs"]
mod flow_bindings;
#[path = "support/flow_identification.rs"]
mod flow_identification;
#[path = "support/mobility_header.rs"]
mod mobility_header;
mod support;

use std::net::{Ipv4Addr, Ipv6Addr};

use mtun_policy::{Bid, CareOfAddress, HomeAddress};
use mtun_signaling::auth;
use mtun_signaling::wire::option::{
    AlternateCareOfAddress, Authentication, BindingAuthorizationData, BindingIdentifier,
    BindingRefreshAdvice, FlowSummary, LinkLayerAddress, MessageId, MobileNetworkPrefixOption,
    MobileNodeIdentifier, NonceIndices, RestartCounter, VendorSpecific,
};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingError, BindingRefreshRequest, BindingUpdate,
    BindingUpdateFlags, CareOfTest, CareOfTestInit, HomeTest, HomeTestInit, Lifetime, Message,
    MobilityOption, Options, Status,
};
use mtun_signaling::{Envelope, NtpTime};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use support::{sha1_association, sha256_association};

fn ipv6() -> impl Strategy<Value = Ipv6Addr> {
    any::<u128>().prop_map(Ipv6Addr::from)
}

fn care_of() -> impl Strategy<Value = CareOfAddress> {
    prop_oneof![
        ipv6().prop_map(CareOfAddress::from),
        any::<u32>().prop_map(|bits| CareOfAddress(Ipv4Addr::from(bits).into())),
    ]
}

fn binding_identifier() -> impl Strategy<Value = BindingIdentifier> {
    (any::<u16>(), any::<u8>(), any::<bool>(), 0..128u8, of(care_of())).prop_map(
        |(bid, status, home, priority, care_of)| BindingIdentifier {
            bid: Bid::new(bid),
            status: Status(status),
            home,
            priority,
            care_of,
        },
    )
}

fn option() -> impl Strategy<Value = MobilityOption> {
    let known = |kind: u8| matches!(kind, 0..=10 | 19 | 28 | 35 | 44 | 45);
    prop_oneof![
        any::<u16>().prop_map(|refresh_interval| BindingRefreshAdvice { refresh_interval }.into()),
        ipv6().prop_map(|address| AlternateCareOfAddress { address }.into()),
        any::<(u16, u16)>().prop_map(|(home, care_of)| NonceIndices { home, care_of }.into()),
        vec(any::<u8>(), 1..30)
            .prop_map(|authenticator| BindingAuthorizationData { authenticator }.into()),
        (any::<u8>(), ipv6()).prop_map(|(prefix_len, address)| {
            MobileNetworkPrefixOption { prefix_len, address }.into()
        }),
        (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(code, address)| LinkLayerAddress {
            code,
            address
        }
        .into()),
        (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(subtype, identifier)| {
            MobileNodeIdentifier { subtype, identifier }.into()
        }),
        (any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..40))
            .prop_map(|(subtype, spi, data)| Authentication { subtype, spi, data }.into()),
        any::<u32>().prop_map(|counter| RestartCounter { counter }.into()),
        any::<u64>().prop_map(|time| MessageId { timestamp: NtpTime(time) }.into()),
        binding_identifier().prop_map(MobilityOption::from),
        binding_identifier().prop_map(MobilityOption::from),
        vec(any::<u8>(), 0..40)
            .prop_filter("a possible length", |data| ![4, 8, 20].contains(&data.len()))
            .prop_map(|data| MobilityOption::MalformedBindingIdentifier { data }),
        flow_identification::flow_identification().prop_map(MobilityOption::from),
        vec(any::<u16>(), 1..40).prop_map(|flows| FlowSummary { flows }.into()),
        (any::<u32>(), any::<u8>(), vec(any::<u8>(), 0..40))
            .prop_map(|(vendor, sub_type, data)| VendorSpecific { vendor, sub_type, data }.into()),
        (any::<u8>().prop_filter("known", move |kind| !known(*kind)), vec(any::<u8>(), 0..60))
            .prop_map(|(kind, data)| MobilityOption::Unknown { kind, data }),
    ]
}

/// Options as a message may hold them: what may occur once occurs once.
fn options() -> impl Strategy<Value = Options> {
    vec(option(), 0..12).prop_map(|all| {
        let mut kept: Vec<MobilityOption> = Vec::new();
        let mut data = Vec::new();
        for option in all {
            option.emit_data(&mut data);
            if data.len() > 1800 {
                break;
            }
            let once = |one: &MobilityOption| match (one, &option) {
                (MobilityOption::Authentication(one), MobilityOption::Authentication(two)) => {
                    one.subtype == two.subtype
                }
                _ => one.kind() == option.kind() && matches!(option.kind(), 2..=5 | 10),
            };
            if !kept.iter().any(once) {
                kept.push(option);
            }
        }
        Options::from(kept)
    })
}

fn update() -> impl Strategy<Value = BindingUpdate> {
    (any::<[bool; 7]>(), any::<u16>(), any::<u16>(), options()).prop_map(
        |(bits, sequence, lifetime, options)| {
            let [acknowledge, home, link_local, key_mobility, router, proxy, overwrite] = bits;
            // O means nothing with P or without a Binding Identifier, and is then not carried.
            let any_bid = options.iter().any(|option| option.kind() == 35);
            let overwrite = overwrite && !proxy && any_bid;
            let flags = BindingUpdateFlags {
                acknowledge,
                home,
                link_local,
                key_mobility,
                router,
                proxy,
                overwrite,
            };
            BindingUpdate { sequence, flags, lifetime: Lifetime(lifetime), options }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let cookie = any::<[u8; 8]>;
    prop_oneof![
        options().prop_map(|options| {
            Message::BindingRefreshRequest(BindingRefreshRequest { options })
        }),
        (cookie(), options())
            .prop_map(|(cookie, options)| Message::HomeTestInit(HomeTestInit { cookie, options })),
        (cookie(), options()).prop_map(|(cookie, options)| {
            Message::CareOfTestInit(CareOfTestInit { cookie, options })
        }),
        (any::<u16>(), cookie(), cookie(), options()).prop_map(
            |(nonce_index, cookie, token, options)| {
                Message::HomeTest(HomeTest { nonce_index, cookie, token, options })
            }
        ),
        (any::<u16>(), cookie(), cookie(), options()).prop_map(
            |(nonce_index, cookie, token, options)| {
                Message::CareOfTest(CareOfTest { nonce_index, cookie, token, options })
            }
        ),
        update().prop_map(Message::BindingUpdate),
        (any::<u8>(), any::<[bool; 2]>(), any::<u16>(), any::<u16>(), options()).prop_map(
            |(status, [key_mobility, router], sequence, lifetime, options)| {
                Message::BindingAcknowledgement(BindingAcknowledgement {
                    status: Status(status),
                    key_mobility,
                    router,
                    sequence,
                    lifetime: Lifetime(lifetime),
                    options,
                })
            }
        ),
        (any::<u8>(), ipv6(), options()).prop_map(|(status, home_address, options)| {
            Message::BindingError(BindingError { status, home_address, options })
        }),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (ipv6(), ipv6(), of(ipv6()), of(ipv6())).prop_map(|(source, destination, home, routing)| {
        Envelope {
            source,
            destination,
            home_address: home.map(HomeAddress),
            routing_header: routing.map(HomeAddress),
        }
    })
}

/// Octets that look enough like a message to get past the first checks.
fn almost_a_message() -> impl Strategy<Value = Vec<u8>> {
    let option = (0..48u8, any::<u8>(), vec(any::<u8>(), 0..24), 0..4u8).prop_map(
        |(kind, length, data, wrong)| {
            // Three in four have a true length.
            let length = if wrong == 0 { length } else { u8::try_from(data.len()).unwrap() };
            [vec![kind, length], data].concat()
        },
    );
    (0..9u8, any::<[u8; 24]>(), vec(option, 0..10)).prop_map(|(kind, fixed, options)| {
        let mut message = vec![59, 0, kind, 0, 0, 0];
        let until = [8, 16, 16, 24, 24, 12, 12, 24, 8][usize::from(kind)];
        message.extend_from_slice(&fixed[..until - 6]);
        message.extend(options.into_iter().flatten());
        message.resize(message.len().next_multiple_of(8), 0);
        message[1] = u8::try_from(message.len() / 8 - 1).unwrap();
        message
    })
}

// What the fuzz target has found worth keeping, and messages to start from.
#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let directory = support::file("../fuzz/corpus/mobility_header");
    let mut files = 0;
    let mut messages = 0;
    for entry in std::fs::read_dir(directory).expect("the corpus is in the tree") {
        let path = entry.expect("a directory entry").path();
        let octets = std::fs::read(&path).expect("a file of the corpus");
        println!("{}", path.display());
        messages += usize::from(mobility_header::check(&octets));
        files += 1;
    }
    assert!(messages >= 20 && files - messages >= 20, "{messages} messages in {files} files");
}

proptest! {
    // req MH-18: what is written is read back, whole, aligned and with its checksum.
    #[test]
    fn emit_then_parse_is_identity(message in message(), envelope in envelope()) {
        let written = wire::emit(&message, &envelope).unwrap();
        prop_assert!(written.len().is_multiple_of(8) && written.len() <= 2048);
        prop_assert_eq!(written[3], 0);
        prop_assert_eq!(wire::receive(&envelope, &written), Ok(message));
    }

    #[test]
    fn parse_takes_any_octets(octets in vec(any::<u8>(), 0..200)) {
        mobility_header::check(&octets);
    }

    // req MH-10.
    #[test]
    fn parse_takes_almost_any_message(octets in almost_a_message()) {
        mobility_header::check(&octets);
        for end in 0..octets.len() {
            prop_assert!(wire::parse(&octets[..end]).is_err());
        }
    }

    #[test]
    fn the_care_of_address_is_the_same_before_and_after_reading(
        update in update(),
        envelope in envelope(),
    ) {
        let message = Message::BindingUpdate(update);
        if let Ok(octets) = wire::emit(&message, &envelope)
            && let Ok(Message::BindingUpdate(read)) = wire::parse(&octets)
        {
            let want = auth::care_of_address(&read, &envelope);
            prop_assert_eq!(auth::care_of_address_in(&octets, &envelope), want);
        }
    }

    #[test]
    fn a_care_of_address_is_looked_for_in_any_octets(octets in almost_a_message()) {
        let envelope = Envelope::plain(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        auth::care_of_address_in(&octets, &envelope);
    }

    #[test]
    fn a_signed_message_is_believed_and_a_damaged_one_is_not(
        update in update(),
        envelope in envelope(),
        timestamp in of(any::<u64>()),
        damage in any::<(prop::sample::Index, u8)>(),
        ours in any::<bool>(),
    ) {
        let envelope = Envelope { routing_header: None, ..envelope };
        let association = if ours { sha256_association() } else { sha1_association() };
        let care_of = auth::care_of_address(&update, &envelope);
        let home = HomeAddress(envelope.upper_source());
        let message = Message::BindingUpdate(update);
        let sent = wire::emit_authenticated(
            &message,
            &envelope,
            care_of,
            &association,
            timestamp.map(NtpTime),
        )
        .unwrap();
        let read = wire::receive(&envelope, &sent).unwrap();
        let Message::BindingUpdate(update) = &read else { panic!("another type") };
        // The receiver finds the same care-of address in what it reads.
        prop_assert_eq!(auth::care_of_address(update, &envelope), care_of);
        prop_assert!(auth::verify(&sent, care_of, home, &association).is_ok());
        if let Some(timestamp) = timestamp {
            prop_assert_eq!(read.options().message_id(), Some(NtpTime(timestamp)));
        }

        let (place, bits) = damage;
        let at = place.index(sent.len());
        prop_assume!(bits != 0 && !(4..6).contains(&at));
        let mut damaged = sent;
        damaged[at] ^= bits;
        prop_assert!(auth::verify(&damaged, care_of, home, &association).is_err());
    }
}
