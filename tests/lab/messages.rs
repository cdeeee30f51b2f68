//! Messages of the mobility socket about the straight way, driven and heard at real daemons.

use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use mtun::control::documents::{SentDocument, StatusDocument, SubscriptionBody};
use mtun::control::{Client, ClientError, ErrorCode};
use mtun::lab::namespace::wait_for;
use mtun::lab::observe::Form;
use mtun::lab::policy::PolicyText;
use mtun::lab::traffic::Origin;
use mtun::lab::world::{Plan, address};
use mtun_dataplane::backend::{PacketSocket, RECEIVE_BUFFER};
use mtun_dataplane::wire::parse_signalling;
use mtun_policy::{HomeAddress, HomeName};
use mtun_signaling::Envelope;
use mtun_signaling::mobility_socket::{
    BcRemove, BeCause, BeHint, BulFlush, BulRemove, CachedBinding, Filter, HomeHint, MobilityKind,
    MobilityMessage, RrHint,
};
use mtun_signaling::wire::{self, Message};

use crate::fixture::{Lab, PATIENCE, assert_alive, figure_11};
use crate::ground::inject;
use crate::need_lab;
use crate::optimization::{at_agent, firewall, straight_by, take};

/// What a node tells.
struct Ear {
    told: Receiver<MobilityMessage>,
}

impl Ear {
    /// Listens for these messages.
    fn open(socket: &Path, messages: &[MobilityKind]) -> Self {
        let filter = Filter { messages: messages.to_vec(), ..Filter::default() };
        let listening = Client::connect(socket).unwrap().subscribe(filter).unwrap();
        let (tell, told) = channel();
        // Ends with the daemon.
        std::thread::spawn(move || {
            for heard in listening.map_while(Result::ok) {
                let told = match heard.body() {
                    Some(SubscriptionBody::State(message) | SubscriptionBody::Message(message)) => {
                        tell.send((**message).clone())
                    }
                    _ => Ok(()),
                };
                if told.is_err() {
                    return;
                }
            }
        });
        Self { told }
    }

    /// The first from here on of which this holds.
    fn hear(&self, what: &str, holds: impl Fn(&MobilityMessage) -> bool) -> MobilityMessage {
        let mut before = Vec::new();
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(message) if holds(&message) => return message,
                Ok(message) => before.push(message),
                Err(_) => panic!("nothing is told of {what}; there were {before:#?}"),
            }
        }
    }
}

fn send(socket: &Path, message: MobilityMessage) -> Result<SentDocument, ClientError> {
    Client::connect(socket).unwrap().send(message)
}

fn refused(sent: Result<SentDocument, ClientError>) -> ErrorCode {
    match sent {
        Err(ClientError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

const CN: Ipv6Addr = address::CORRESPONDENT;
const HOME: HomeAddress = HomeAddress(address::HOME);

fn hint(correspondent: Ipv6Addr) -> MobilityMessage {
    MobilityMessage::RrHint(RrHint { home: None, home_address: HOME, correspondent })
}

fn acme() -> HomeName {
    HomeName::new("acme")
}

fn no_route(status: &StatusDocument) -> bool {
    status.correspondent.as_ref().is_some_and(|it| it.mobiles.is_empty())
}

/// The correspondent's word that it holds this care-of address of the mobile.
fn is_bound(message: &MobilityMessage, care_of: Ipv6Addr) -> bool {
    matches!(message, MobilityMessage::BcAdd(it)
        if it.correspondent == Some(CN) && it.home.is_none() && it.home_address == HOME
            && it.care_of.0 == std::net::IpAddr::V6(care_of))
}

/// J1, J4: RR_HINT has the straight way tried before there is a packet, BUL_REMOVE and BUL_FLUSH
/// end it, and the correspondent tells by BC_ADD and BC_REMOVE what it holds.
#[test]
fn a_client_has_the_straight_way_tried_and_left() {
    need_lab!();
    let mut lab =
        Lab::optimized(Plan::default(), PolicyText::default().with_optimization("traffic"));
    lab.observatory.tap_agent(&lab.world).unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    let (mobile, there) = (lab.mobile().socket(), lab.correspondent().socket());
    let cache = Ear::open(there, &[MobilityKind::BcAdd, MobilityKind::BcRemove]);
    let list = Ear::open(mobile, &[MobilityKind::BulAdd, MobilityKind::BulRemove]);
    let listed = |message: &MobilityMessage| matches!(message, MobilityMessage::BulAdd(it) if it.correspondent && it.peer == CN);
    let unlisted = |message: &MobilityMessage| matches!(message, MobilityMessage::BulRemove(it) if it.peer == CN && it.home_address == HOME);
    let unbound = |message: &MobilityMessage| {
        matches!(message, MobilityMessage::BcRemove(it)
            if it.correspondent == Some(CN) && it.home_address == HOME && it.bid.is_some())
    };

    // Nobody has sent a packet.
    let sent = send(mobile, hint(CN)).unwrap();
    assert_eq!(sent.done, format!("the straight way to {CN} is tried"));
    straight_by(&lab, &["wlan0", "wwan0"]);
    let mut due = vec![address::WLAN, address::WWAN];
    while !due.is_empty() {
        let told = cache.hear("BC_ADD", |message| due.iter().any(|it| is_bound(message, *it)));
        due.retain(|it| !is_bound(&told, *it));
    }
    list.hear("BUL_ADD", listed);

    // Ended before there is one: nothing is left at either end, and nobody begins again.
    let remove = |peer| BulRemove { home: acme(), home_address: HOME, peer, bid: None };
    let sent = send(mobile, MobilityMessage::BulRemove(remove(CN))).unwrap();
    assert_eq!(sent.done, format!("packets to {CN} take the tunnel"));
    lab.correspondent().wait_until("no binding", PATIENCE, no_route).unwrap();
    cache.hear("BC_REMOVE", unbound);
    list.hear("BUL_REMOVE", unlisted);
    let again = send(mobile, MobilityMessage::BulRemove(remove(CN)));
    assert_eq!(refused(again), ErrorCode::NotFound);

    // With packets: straight from the first on, at once through the tunnel, and straight again when
    // traffic asks for it.
    send(mobile, hint(CN)).unwrap();
    straight_by(&lab, &["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    take(&lab, &traffic, Form::Straight, figure_11);
    let wanted = Ear::open(mobile, &[MobilityKind::RrHint]);
    let flush = BulFlush { home: acme(), peer: None };
    for ends in [MobilityMessage::BulRemove(remove(CN)), MobilityMessage::BulFlush(flush)] {
        let by_agent = at_agent(&lab, &traffic, Origin::Router);
        send(mobile, ends).unwrap();
        wait_for("packets by way of the agent", PATIENCE, || {
            (at_agent(&lab, &traffic, Origin::Router) > by_agent).then_some(())
        })
        .unwrap();
        wanted.hear("RR_HINT", |message| {
            matches!(message, MobilityMessage::RrHint(it)
                if it.correspondent == CN && it.home_address == HOME)
        });
        straight_by(&lab, &["wlan0", "wwan0"]);
        take(&lab, &traffic, Form::Straight, figure_11);
    }
    assert_alive(&traffic);

    // What is not theirs to end or to try.
    let agent = address::AGENT;
    let at_agent = send(mobile, MobilityMessage::BulRemove(remove(agent)));
    assert_eq!(refused(at_agent), ErrorCode::Refused);
    let flush = BulFlush { home: acme(), peer: Some(agent) };
    assert_eq!(refused(send(mobile, MobilityMessage::BulFlush(flush))), ErrorCode::Refused);
    let flush = BulFlush { home: HomeName::new("umbrella"), peer: None };
    assert_eq!(refused(send(mobile, MobilityMessage::BulFlush(flush))), ErrorCode::NotFound);
    assert_eq!(refused(send(there, hint(CN))), ErrorCode::NotFound);
    let held = BcRemove { home: None, correspondent: Some(CN), home_address: HOME, bid: None };
    assert_eq!(refused(send(there, MobilityMessage::BcRemove(held))), ErrorCode::Refused);
    lab.assert_clean();
}

/// RR_HINT without route optimization, and what only a node can say.
#[test]
fn what_a_client_may_not_say_is_refused_everywhere() {
    need_lab!();
    let lab = Lab::optimized(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(refused(send(lab.mobile().socket(), hint(CN))), ErrorCode::Refused);
    let binding = MobilityMessage::BcAdd(CachedBinding {
        home: Some(acme()),
        correspondent: None,
        home_address: HOME,
        bid: None,
        care_of: address::WLAN_ROUTER.into(),
        priority: 0,
        router: false,
        prefixes: Vec::new(),
        expires_ms: 1000,
    });
    let unknown = MobilityMessage::BeHint(BeHint {
        cause: BeCause::UnknownBinding,
        home_address: HOME,
        peer: CN,
        home: None,
        bid: None,
    });
    let at_home = MobilityMessage::HomeHint(HomeHint {
        home: acme(),
        home_address: HOME,
        at_home: true,
        link: None,
        bid: None,
        beside: false,
    });
    let before = lab.agent().status().unwrap().mobiles;
    for daemon in [lab.mobile(), lab.agent(), lab.correspondent()] {
        for message in [&binding, &unknown, &at_home] {
            let sent = send(daemon.socket(), message.clone());
            assert_eq!(refused(sent), ErrorCode::Refused, "{message:?}");
        }
    }
    let addresses = |mobiles: &[mtun::control::documents::MobileDocument]| {
        let all = mobiles.iter().flat_map(|it| it.bindings.iter().map(|it| it.care_of));
        all.collect::<Vec<_>>()
    };
    assert_eq!(addresses(&lab.agent().status().unwrap().mobiles), addresses(&before));
    lab.registered(&["wlan0", "wwan0"]);
}

/// A packet with a Home Address option (RFC 6275 §6.3) from somebody who is not bound.
fn unbound_packet(source: Ipv6Addr, home_address: Ipv6Addr) -> Vec<u8> {
    // UDP to the discard port, whose checksum nobody looks at: Next Header 17, three times eight
    // octets, padding to 8n+6, the option.
    let mut payload = vec![17, 2, 1, 2, 0, 0, 201, 16];
    payload.extend(home_address.octets());
    payload.extend([0x1b, 0x58, 0, 9, 0, 8, 0, 0]);
    crate::fixture::ipv6(60, source, CN, &payload)
}

/// BE_HINT at the correspondent: what comes from nobody's binding is told, answered by a Binding
/// Error, and told no more often than people can read.
#[test]
fn a_correspondent_tells_of_packets_that_fit_no_binding() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    lab.start_correspondent();
    let hints = Ear::open(lab.correspondent().socket(), &[MobilityKind::BeHint]);
    // The router of the second access network, under its address towards the core.
    let (stranger, host) = (Ipv6Addr::new(0x2001, 0xdb8, 0xf2, 0, 0, 0, 0, 2), address::HOME_HOST);
    let at = &lab.world.wcdma;
    let index = at.interface_index("core0").unwrap();
    let socket = at.run(|| PacketSocket::open(index)).unwrap();
    for _ in 0..200 {
        inject(at, &unbound_packet(stranger, host));
    }
    let told = hints.hear("BE_HINT", |_| true);
    let expected = BeHint {
        cause: BeCause::UnknownBinding,
        home_address: HomeAddress(host),
        peer: stranger,
        home: None,
        bid: None,
    };
    assert_eq!(told, MobilityMessage::BeHint(expected));
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let error = wait_for("a Binding Error", PATIENCE, || {
        let received = socket.recv(&mut buffer).unwrap()?;
        let packet = parse_signalling(&buffer[received.packet])?;
        let envelope = Envelope::plain(packet.source, packet.destination);
        match wire::receive(&envelope, packet.message) {
            Ok(Message::BindingError(error)) => Some((packet.source, error)),
            _ => None,
        }
    });
    let (from, error) = error.unwrap();
    assert_eq!((from, error.status, error.home_address), (CN, 1, host));
    // Two hundred came within moments: they were counted, and not told one by one.
    let more = std::iter::from_fn(|| hints.told.try_recv().ok()).count();
    assert!(more < 150, "{more} more hints");
}

/// BE_HINT at the mobile: its packets do not arrive as they are.
#[test]
fn a_mobile_tells_that_something_eats_its_packets() {
    need_lab!();
    let lab = Lab::optimized(Plan::default(), PolicyText::default().with_optimization("traffic"));
    firewall(&lab, "ip6 nexthdr 60 meta l4proto tcp");
    let hints = Ear::open(lab.mobile().socket(), &[MobilityKind::BeHint]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let told = hints.hear("BE_HINT", |_| true);
    assert!(
        matches!(&told, MobilityMessage::BeHint(it)
            if it.cause == BeCause::HeadersEaten && it.home_address == HOME && it.peer == CN
                && it.home == Some(acme()) && it.bid.is_some()),
        "{told:?}"
    );
    take(&lab, &traffic, Form::Tunnelled, figure_11);
    assert_alive(&traffic);
    lab.assert_clean();
}
