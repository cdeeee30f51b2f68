//! Subscriptions against a plain list of what stands, under random events, readers and overflows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress, HomeName, InterfaceName, Role};
use proptest::prelude::*;

use super::*;
use crate::registration::Phase;

const AT: Duration = Duration::from_secs(7);

type Listeners = Hub<&'static str>;

fn listening(filter: &Filter) -> Interest {
    Interest { filter: filter.clone(), messages: true, events: true }
}

fn bid(number: u16) -> Option<Bid> {
    Bid::new(number)
}

fn home(number: u8) -> HomeName {
    HomeName::new(["acme", "beta"][usize::from(number % 2)])
}

fn link(number: u16) -> InterfaceName {
    InterfaceName::from(["wlan0", "wwan0", "eth0"][usize::from(number % 3)])
}

fn mobile_address(number: u16) -> HomeAddress {
    HomeAddress(format!("2001:db8:100::{number:x}").parse().unwrap())
}

fn cached(network: u8, mobile: u16, number: u16, at: u16) -> MobilityMessage {
    MobilityMessage::BcAdd(CachedBinding {
        home: Some(home(network)),
        correspondent: None,
        home_address: mobile_address(mobile),
        bid: bid(number),
        care_of: format!("2001:db8:{at:x}::7").parse::<std::net::Ipv6Addr>().unwrap().into(),
        priority: 7,
        router: false,
        prefixes: Vec::new(),
        expires_ms: u64::from(at),
    })
}

fn listed(network: u8, peer: u16, number: u16, at: u16) -> MobilityMessage {
    MobilityMessage::BulAdd(ListedBinding {
        home: home(network),
        home_address: mobile_address(0x42),
        peer: format!("2001:db8:c::{peer:x}").parse().unwrap(),
        correspondent: peer > 0,
        bid: bid(number),
        // A link that changes, so that filters by link gain and lose entries.
        link: Some(link(number + at)),
        care_of: format!("2001:db8:{at:x}::7").parse::<std::net::Ipv6Addr>().unwrap().into(),
        priority: 7,
        phase: Phase::Bound,
        expires_ms: None,
        status: Some(0),
    })
}

fn moved(number: u16, command: MdCommand) -> MobilityMessage {
    let link = Some(link(number));
    MobilityMessage::MdInfo(MdInfo { link, bid: bid(number + 1), ..MdInfo::new(command) })
}

fn hint(mobile: u16) -> MobilityMessage {
    MobilityMessage::RrHint(RrHint {
        home: None,
        home_address: mobile_address(mobile),
        correspondent: "2001:db8:c::9".parse().unwrap(),
    })
}

/// What a client makes of what it is told, and what it must not be told.
#[derive(Debug, Default)]
struct Reader {
    knows: Facts,
    shown: BTreeSet<FactKey>,
    showing: bool,
    lost: u64,
}

impl Reader {
    fn new() -> Self {
        Self { showing: true, ..Self::default() }
    }

    /// Takes what there is; false once there is nothing.
    fn read(&mut self, hub: &mut Listeners, id: SubscriberId) -> bool {
        match hub.next(id) {
            Next::Wait => return false,
            Next::Later => {}
            Next::Deliver(Delivery::State(fact)) => {
                assert!(self.showing, "a fact of the present state after its end");
                let key = fact.fact().expect("the present state has facts only");
                assert!(self.shown.insert(key), "told twice: {fact:?}");
                self.knows.apply(&fact);
            }
            Next::Deliver(Delivery::Present { facts }) => {
                assert!(std::mem::take(&mut self.showing));
                assert_eq!(facts, self.shown.len() as u64);
            }
            Next::Deliver(Delivery::Message { message, .. }) => {
                assert!(!self.showing, "news before the present state is whole");
                self.knows.apply(&message);
            }
            Next::Deliver(Delivery::Event(_)) => {}
            Next::Deliver(Delivery::Overflow { lost }) => {
                assert!(lost > 0);
                *self = Self { lost: self.lost + lost, ..Self::new() };
            }
        }
        true
    }
}

/// What a client with this filter ought to know.
fn due(hub: &Listeners, filter: &Filter) -> Facts {
    let facts = hub.facts().expect("somebody listens");
    let passes = |fact: &MobilityMessage| filter.passes(&Scope { kind: None, ..fact.scope() });
    Facts::new(facts.iter().filter(|(_, it)| passes(it)).map(|(_, it)| (**it).clone()))
}

#[derive(Clone, Debug)]
enum Step {
    Say(MobilityMessage),
    Show(Subject, Vec<MobilityMessage>),
    Event,
    Read(u8, u8),
    Join(Filter),
    Leave(u8),
}

fn messages() -> impl Strategy<Value = MobilityMessage> {
    let flush = |home| MobilityMessage::BcFlush(BcFlush { home: Some(home), correspondent: None });
    prop_oneof![
        6 => (0u8..2, 0u16..6, 0u16..4, 1u16..4).prop_map(|(h, m, b, a)| cached(h, m, b, a)),
        2 => (0u8..2, 0u16..6, 0u16..4).prop_map(|(h, m, b)| cached(h, m, b, 1).ending()),
        4 => (0u8..2, 0u16..3, 0u16..4, 1u16..4).prop_map(|(h, p, b, a)| listed(h, p, b, a)),
        2 => (0u8..2, 0u16..3, 0u16..4).prop_map(|(h, p, b)| listed(h, p, b, 1).ending()),
        1 => (0u8..2).prop_map(move |h| flush(home(h))),
        1 => (0u8..2, proptest::option::of(0u16..3)).prop_map(|(h, peer)| {
            let peer = peer.map(|it| format!("2001:db8:c::{it:x}").parse().unwrap());
            MobilityMessage::BulFlush(BulFlush { home: home(h), peer })
        }),
        2 => (0u16..3, any::<bool>()).prop_map(|(l, up)| {
            moved(l, if up { MdCommand::ReReg } else { MdCommand::DeregForeign })
        }),
        1 => (0u16..6).prop_map(hint),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    let address = |mobile: u16| format!("2001:db8:100::{mobile:x}/128").parse().unwrap();
    prop_oneof![
        2 => Just(Filter::default()),
        1 => (0u8..2).prop_map(|h| Filter { homes: vec![home(h)], ..Filter::default() }),
        1 => (0u16..3).prop_map(|l| Filter { links: vec![link(l)], ..Filter::default() }),
        1 => (1u16..4).prop_map(|b| Filter { bids: bid(b).into_iter().collect(), ..Filter::default() }),
        1 => (0u16..6).prop_map(move |m| Filter { addresses: vec![address(m)], ..Filter::default() }),
        1 => Just(Filter { roles: vec![Role::HomeAgent], ..Filter::default() }),
        1 => Just(Filter { roles: vec![Role::MobileRouter], ..Filter::default() }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let bindings = proptest::collection::vec((0u16..4, 1u16..4), 0..4);
    prop_oneof![
        8 => messages().prop_map(Step::Say),
        2 => (0u8..2, 0u16..6, bindings.clone()).prop_map(|(h, m, bindings)| {
            let address = mobile_address(m);
            let present = bindings.into_iter().map(|(b, a)| cached(h, m, b, a)).collect();
            Step::Show(Subject::Mobile(Some(home(h)), None, address), present)
        }),
        2 => (0u8..2, bindings).prop_map(|(h, bindings)| {
            let present = bindings.into_iter().map(|(b, a)| listed(h, a, b, a)).collect();
            Step::Show(Subject::List(home(h)), present)
        }),
        1 => Just(Step::Event),
        6 => (any::<u8>(), 1u8..12).prop_map(|(who, count)| Step::Read(who, count)),
        1 => filters().prop_map(Step::Join),
        1 => any::<u8>().prop_map(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever happens and however slowly clients read: once one has read everything, it knows
    /// what stands of its business, and no queue was ever longer than allowed.
    #[test]
    fn a_client_knows_what_stands(
        before in proptest::collection::vec(messages(), 0..12),
        capacity in 1usize..12,
        steps in proptest::collection::vec(steps(), 1..80),
    ) {
        let mut hub = Listeners::new(capacity);
        let mut clients: Vec<(SubscriberId, Filter, Reader)> = Vec::new();
        let mut said = Facts::new(before.clone());
        for step in steps {
            match step {
                Step::Say(message) => {
                    said.apply(&Arc::new(message.clone()));
                    hub.say(AT, message);
                }
                Step::Show(subject, present) => {
                    let news = said.news(&subject, present.clone());
                    news.into_iter().for_each(|it| said.apply(&Arc::new(it)));
                    hub.show(AT, &subject, present);
                }
                Step::Event => {
                    hub.tell(&Scope::default(), "something");
                }
                Step::Read(who, count) if !clients.is_empty() => {
                    let who = usize::from(who) % clients.len();
                    let (id, _, reader) = &mut clients[who];
                    for _ in 0..count {
                        reader.read(&mut hub, *id);
                    }
                }
                Step::Join(filter) => {
                    let id = hub.join(listening(&filter));
                    if hub.is_unfilled() {
                        hub.fill(said.clone());
                    }
                    clients.push((id, filter, Reader::new()));
                }
                Step::Leave(who) if !clients.is_empty() => {
                    let (id, ..) = clients.remove(usize::from(who) % clients.len());
                    hub.leave(id);
                }
                Step::Read(..) | Step::Leave(_) => {}
            }
            for (id, ..) in &clients {
                prop_assert!(hub.waiting(*id) <= capacity);
            }
            prop_assert!(clients.is_empty() == hub.facts().is_none());
        }
        for (id, filter, reader) in &mut clients {
            while reader.read(&mut hub, *id) {}
            prop_assert_eq!(hub.facts(), Some(&said));
            prop_assert_eq!(&reader.knows, &due(&hub, filter));
        }
    }
}

#[test]
fn a_late_comer_is_shown_everything_and_misses_nothing_meanwhile() {
    let mut hub = Listeners::new(64);
    let id = hub.join(listening(&Filter::default()));
    assert_eq!(hub.next(id), Next::Wait, "nobody has said what is so");
    assert_eq!(hub.fill(Facts::new((0..600).map(|it| cached(0, it, 1, 1)))), [id]);
    let mut reader = Reader::new();
    for _ in 0..300 {
        assert!(reader.read(&mut hub, id));
    }
    // One that was shown, one that will be, one that ends before it is, and one that begins.
    hub.say(AT, cached(0, 5, 1, 2));
    hub.say(AT, cached(0, 500, 1, 2));
    hub.say(AT, cached(0, 501, 1, 1).ending());
    hub.say(AT, cached(0, 601, 1, 1));
    assert_eq!(hub.waiting(id), 1, "the rest is seen when its turn comes");
    while reader.read(&mut hub, id) {}
    assert_eq!(Some(&reader.knows), hub.facts());
    assert_eq!((reader.shown.len(), reader.lost), (600, 0));
}

#[test]
fn a_present_state_that_comes_in_pieces_is_the_one_of_its_end() {
    let everything = Filter::default();
    let mut hub = Listeners::new(4);
    assert!(!hub.is_filling());
    let id = hub.join(listening(&everything));
    let mut reader = Reader::new();
    let mut stands = Facts::default();
    hub.begin_fill();
    for mobile in 0..40_u16 {
        assert!(!reader.read(&mut hub, id), "nothing before all of it is there");
        let piece = [cached(0, mobile, 1, 1), cached(0, mobile, 2, 1)];
        piece.iter().for_each(|it| stands.apply(&Arc::new(it.clone())));
        hub.fill_piece(piece);
        // One that was filled in changes, and so does one that was not: it is filled in later as
        // it is then.
        for (changed, present) in [(mobile / 2, vec![cached(0, mobile / 2, 2, 9)]), (77, vec![])] {
            let subject = Subject::Mobile(Some(home(0)), None, mobile_address(changed));
            stands.news(&subject, present.clone()).into_iter().for_each(|it| {
                stands.apply(&Arc::new(it));
            });
            assert_eq!(hub.show(AT, &subject, present), []);
        }
    }
    assert_eq!(hub.end_fill(), [id]);
    while reader.read(&mut hub, id) {}
    assert_eq!(reader.knows, stands);
    assert_eq!((stands.len(), hub.is_unfilled(), hub.is_filling()), (60, false, false));
    // Who leaves before the end leaves nothing behind.
    hub.leave(id);
    let id = hub.join(listening(&everything));
    hub.begin_fill();
    hub.fill_piece([cached(0, 1, 1, 1)]);
    hub.leave(id);
    assert!(!hub.is_filling());
    hub.join(listening(&everything));
    assert_eq!((hub.end_fill(), hub.is_unfilled()), (vec![], true), "that was for another");
}

#[test]
fn who_wants_few_of_many_keeps_nobody_waiting() {
    let mut hub = Listeners::new(4);
    let wanted = Filter { links: vec![link(0)], ..Filter::default() };
    let id = hub.join(listening(&wanted));
    hub.fill(Facts::new((0..1000).map(|it| cached(0, it, 1, 1))));
    let mut turns = 0;
    while hub.next(id) == Next::Later {
        turns += 1;
    }
    assert_eq!(turns, 3, "a few hundred at a time");
    assert_eq!(hub.next(id), Next::Wait);
}

#[test]
fn an_overflow_is_told_with_its_count_and_the_present_state_follows() {
    let mut hub = Listeners::new(3);
    let id = hub.join(listening(&Filter::default()));
    hub.fill(Facts::default());
    assert_eq!(hub.next(id), Next::Deliver(Delivery::Present { facts: 0 }));
    for number in 0..5 {
        hub.say(AT, cached(0, number, 1, 1));
    }
    hub.tell(&Scope::default(), "an event counts too");
    assert_eq!(hub.waiting(id), 0, "nothing is kept for who is told everything anew");
    assert_eq!(hub.next(id), Next::Deliver(Delivery::Overflow { lost: 6 }));
    let mut reader = Reader::new();
    while reader.read(&mut hub, id) {}
    assert_eq!(reader.knows.len(), 5);
}

#[test]
fn the_business_of_roles_stays_apart() {
    // J3: an agent's client hears nothing of what mobiles do.
    let mut hub = Listeners::new(16);
    let filter = Filter { roles: vec![Role::HomeAgent], ..Filter::default() };
    let id = hub.join(listening(&filter));
    hub.fill(Facts::default());
    assert!(matches!(hub.next(id), Next::Deliver(Delivery::Present { .. })));
    for mobile in [listed(0, 0, 1, 1), moved(0, MdCommand::ReReg), hint(3)] {
        assert_eq!(hub.say(AT, mobile), []);
    }
    assert_eq!(hub.next(id), Next::Wait);
    assert_eq!(hub.say(AT, cached(0, 1, 1, 1)), [id]);
}

#[test]
fn a_binding_that_moves_to_another_link_ends_for_who_asked_for_the_first() {
    let mut hub = Listeners::new(16);
    let id = hub.join(listening(&Filter { links: vec![link(1)], ..Filter::default() }));
    hub.fill(Facts::new([listed(0, 0, 0, 1)]));
    let mut reader = Reader::new();
    while reader.read(&mut hub, id) {}
    assert_eq!(reader.knows.len(), 1);
    hub.say(AT, listed(0, 0, 0, 2));
    while reader.read(&mut hub, id) {}
    assert!(reader.knows.is_empty());
}

#[test]
fn names_are_those_of_the_paper_on_the_wire_too() {
    for kind in MobilityKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        assert_eq!(kind.name().to_lowercase().replace('_', "-").parse(), Ok(kind));
    }
    let message = serde_json::to_value(moved(0, MdCommand::DeregForeign)).unwrap();
    assert_eq!(
        (&message["type"], &message["command"]),
        (&"MD_INFO".into(), &"DEREGFOREIGN".into())
    );
    assert!("BC_MODIFY".parse::<MobilityKind>().is_err());
}

#[test]
fn a_filter_has_an_end() {
    let bids = (1..=FILTER_MAX as u16 + 1).filter_map(Bid::new).collect();
    let filter = Filter { bids, ..Filter::default() };
    assert_eq!(filter.check(), Err(FilterError { list: "bids", length: FILTER_MAX + 1 }));
    assert_eq!(Filter::default().check(), Ok(()));
}

#[test]
fn who_wants_events_alone_waits_for_nobody_and_loses_the_oldest() {
    let mut hub = Listeners::new(2);
    let id = hub.join(Interest { events: true, ..Interest::default() });
    assert!(!hub.is_listened() && !hub.is_unfilled() && hub.is_watched());
    hub.say(AT, cached(0, 1, 1, 1));
    for event in ["a", "b", "c"] {
        assert_eq!(hub.tell(&Scope::default(), event).len(), usize::from(event == "a"));
    }
    let told: Vec<_> = std::iter::from_fn(|| match hub.next(id) {
        Next::Deliver(delivery) => Some(delivery),
        Next::Later | Next::Wait => None,
    })
    .collect();
    let event = |it| Delivery::Event(Arc::new(it));
    assert_eq!(told, [Delivery::Overflow { lost: 1 }, event("b"), event("c")]);
}
