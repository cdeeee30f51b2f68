//! What this node is to the mobiles that talk to it: a correspondent, or nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use mtun_policy::{CorrespondentPlan, Effective, FlowKey, HomeAddress, HomeName, StrangerAnswer};
use mtun_signaling::binding::BindingCacheEntry;
use mtun_signaling::correspondent::{
    Correspondent, CorrespondentConfig, CorrespondentEvent, CorrespondentOutput, Pair,
};
use mtun_signaling::machine::{Envelope, Machine, Transmit};
use mtun_signaling::seed::Seed;
use mtun_signaling::time::Timestamp;
use mtun_signaling::wire::iana::binding_error;
use mtun_signaling::wire::{self, BindingError, Message, Options};
use mtun_signaling::{Answer, DecodeError};

use super::tunnel::Tunnel;
use crate::publish::CORRESPONDENT;

/// Answers of a node that is no correspondent: at once, and per second in the long run.
const STRANGERS_AT_ONCE: u32 = 10;
const STRANGERS_PER_SECOND: u32 = 10;

/// This node as a correspondent.
#[derive(Debug)]
pub struct Responder {
    /// What stands where a home's name is wanted.
    pub name: HomeName,
    /// What the policy says of it.
    pub plan: CorrespondentPlan,
    /// The interface that packets to bound mobiles enter, if no home has one.
    pub tunnel: Option<Tunnel>,
    /// The rules for each mobile: packets go back the way they came.
    pub reflecting: Arc<Effective>,
    machine: Correspondent,
    /// Answers about what routes have to follow first.
    pub held: Vec<Transmit>,
    /// Pairs whose last binding ended: packets know them until no route leads to them.
    pub leaving: BTreeSet<Pair>,
}

impl Responder {
    /// A correspondent without bindings.
    pub fn new(plan: CorrespondentPlan, tunnel: Option<Tunnel>, seed: Seed) -> Self {
        Self {
            name: HomeName::new(CORRESPONDENT),
            machine: Correspondent::new(config(&plan), seed),
            plan,
            tunnel,
            reflecting: Effective::reflecting(),
            held: Vec::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// Hands an event to the machine and takes what it wants done.
    pub fn handle(
        &mut self,
        now: Timestamp,
        event: CorrespondentEvent,
    ) -> Vec<CorrespondentOutput> {
        self.machine.handle(now, event);
        self.outputs()
    }

    /// Lets the machine do what is due and takes what it wants done.
    pub fn handle_deadline(&mut self, now: Timestamp) -> Vec<CorrespondentOutput> {
        match self.machine.deadline() {
            Some(deadline) if deadline <= now.monotonic => {
                self.machine.handle_deadline(now);
                self.outputs()
            }
            _ => Vec::new(),
        }
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.machine.deadline()
    }

    /// Packets of a pair go straight, by which binding nobody says: each counts.
    pub fn used(&mut self, now: Timestamp, pair: Pair) -> Vec<CorrespondentOutput> {
        let bids: Vec<_> = self
            .machine
            .get(pair)
            .map_or_else(Vec::new, |entry| entry.bindings.iter().map(|it| it.bid).collect());
        for bid in bids {
            self.machine.handle(now, CorrespondentEvent::Used { pair, bid });
        }
        self.outputs()
    }

    /// What is bound.
    pub fn bindings(&self) -> impl Iterator<Item = (Pair, &BindingCacheEntry)> {
        self.machine.bindings()
    }

    /// What is bound for one pair.
    pub fn get(&self, pair: Pair) -> Option<&BindingCacheEntry> {
        self.machine.get(pair)
    }

    /// Whether packets with these addresses go to a mobile that is bound here.
    pub fn knows(&self, key: &FlowKey) -> bool {
        let (IpAddr::V6(correspondent), IpAddr::V6(home)) = (key.source, key.destination) else {
            return false;
        };
        let home_address = HomeAddress(home);
        self.machine.get(Pair { correspondent, home_address }).is_some()
    }

    /// The home addresses that routes lead to, by our address; without those of `served` homes and
    /// without our own home addresses, whose packets have their routes already.
    pub fn routed(
        &self,
        served: impl Fn(HomeAddress) -> bool,
        homes: impl Fn(Ipv6Addr) -> bool,
    ) -> BTreeMap<Ipv6Addr, BTreeSet<Ipv6Addr>> {
        let mut bound: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (Pair { correspondent, home_address }, _) in self.machine.bindings() {
            if !served(home_address) && !homes(correspondent) {
                bound.entry(correspondent).or_default().insert(home_address.0);
            }
        }
        bound
    }

    fn outputs(&mut self) -> Vec<CorrespondentOutput> {
        std::iter::from_fn(|| self.machine.poll()).collect()
    }
}

fn config(plan: &CorrespondentPlan) -> CorrespondentConfig {
    CorrespondentConfig {
        addresses: plan.addresses.clone(),
        max_lifetime: plan.max_lifetime,
        multiple_coa: plan.multiple_coa,
        max_mobiles: plan.max_mobiles,
        max_bindings: plan.max_bindings,
    }
}

/// How mobiles are answered that take this node for the correspondent that it is not.
#[derive(Debug)]
pub struct Strangers {
    answer: StrangerAnswer,
    /// Answers that may be sent at once, and when they were counted.
    left: u32,
    at: Duration,
}

impl Strangers {
    /// Nobody was answered yet.
    pub fn new(answer: StrangerAnswer) -> Self {
        Self { answer, left: STRANGERS_AT_ONCE, at: Duration::ZERO }
    }

    /// The answer to a Mobility Header, if there is to be one: to a type that nobody knows a Binding
    /// Error, whatever the policy says (req MH-05; RFC 6275 §9.2); to any other the ICMPv6 error of a
    /// node that knows no such header (RFC 4443 §3.4), with the packet as far as it is known.
    pub fn answer(
        &mut self,
        now: Duration,
        envelope: &Envelope,
        message: &[u8],
    ) -> Option<Vec<u8>> {
        if is_unknown_type(envelope, message) {
            return self.may_answer(now).then(|| unrecognized(envelope)).flatten();
        }
        if self.answer == StrangerAnswer::Silent || !self.may_answer(now) {
            return None;
        }
        let packet = mtun_dataplane::wire::signalling_packet(
            envelope.source,
            envelope.destination,
            envelope.home_address.map(|home| home.0),
            envelope.routing_header.map(|home| home.0),
            message,
        );
        mtun_dataplane::wire::unknown_header(&packet)
    }

    fn may_answer(&mut self, now: Duration) -> bool {
        let back = now.saturating_sub(self.at).as_secs();
        if back > 0 {
            let back = u32::try_from(back).unwrap_or(u32::MAX);
            let more = back.saturating_mul(STRANGERS_PER_SECOND);
            self.left = self.left.saturating_add(more).min(STRANGERS_AT_ONCE);
            self.at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Whether it is a sound message of a type without a meaning here, from somebody who can be
/// answered.
fn is_unknown_type(envelope: &Envelope, message: &[u8]) -> bool {
    let source = envelope.source;
    let answerable = !(source.is_multicast() || source.is_unspecified() || source.is_loopback());
    let asks = |error: DecodeError| error.answer() == Answer::BindingError;
    answerable && wire::receive(envelope, message).is_err_and(asks)
}

/// The Binding Error about a message of an unknown type (RFC 6275 §9.3.3).
fn unrecognized(to: &Envelope) -> Option<Vec<u8>> {
    let error = Message::BindingError(BindingError {
        status: binding_error::UNRECOGNIZED_TYPE,
        home_address: to.home_address.map_or(Ipv6Addr::UNSPECIFIED, |home| home.0),
        options: Options::new(),
    });
    let back = Envelope::plain(to.destination, to.source);
    let message = wire::emit(&error, &back).ok()?;
    Some(mtun_dataplane::wire::signalling_packet(
        back.source,
        back.destination,
        None,
        None,
        &message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME_TEST_INIT: [u8; 16] = [59, 1, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn envelope() -> Envelope {
        Envelope::plain("2001:db8:1::7".parse().unwrap(), "2001:db8:c::9".parse().unwrap())
    }

    #[test]
    fn silence_is_an_answer() {
        let now = Duration::from_secs(5);
        let mut silent = Strangers::new(StrangerAnswer::Silent);
        assert_eq!(silent.answer(now, &envelope(), &HOME_TEST_INIT), None);
    }

    #[test]
    fn an_answer_points_at_the_header_that_nobody_knows() {
        let mut strangers = Strangers::new(StrangerAnswer::ParameterProblem);
        let now = Duration::from_secs(5);
        let answer = strangers.answer(now, &envelope(), &HOME_TEST_INIT).unwrap();
        let address =
            |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&answer[at..at + 16]).unwrap());
        assert_eq!((address(8), address(24)), (envelope().destination, envelope().source));
        assert_eq!(answer[6], 58);
        assert_eq!((answer[40], answer[41]), (4, 1), "Parameter Problem, unrecognized Next Header");
        assert_eq!(answer[44..48], [0, 0, 0, 6], "the Next Header field of the IPv6 header");
        assert_eq!(answer[48 + 40..], HOME_TEST_INIT);
    }

    #[test]
    fn a_type_that_nobody_knows_is_a_binding_error_even_in_silence() {
        // req MH-05 (RFC 6275 §9.2): with the home address, if the message named one.
        let now = Duration::from_secs(5);
        let home_address = Some(HomeAddress("2001:db8:100::42".parse().unwrap()));
        let mut silent = Strangers::new(StrangerAnswer::Silent);
        for home_address in [None, home_address] {
            let envelope = Envelope { home_address, ..envelope() };
            let mut unknown = [59, 0, 99, 0, 0, 0, 0, 0];
            let sum = wire::checksum(envelope.upper_source(), envelope.destination, &unknown);
            unknown[4..6].copy_from_slice(&sum.to_be_bytes());
            let answer = silent.answer(now, &envelope, &unknown).unwrap();
            let read = mtun_dataplane::wire::parse_signalling(&answer).unwrap();
            assert_eq!((read.source, read.destination), (envelope.destination, envelope.source));
            let back = Envelope::plain(read.source, read.destination);
            let Ok(Message::BindingError(error)) = wire::receive(&back, read.message) else {
                panic!("{answer:?}");
            };
            let named = home_address.map_or(Ipv6Addr::UNSPECIFIED, |home| home.0);
            assert_eq!((error.status, error.home_address), (2, named));
            unknown[4] ^= 1;
            assert_eq!(silent.answer(now, &envelope, &unknown), None, "a broken one is nobody's");
        }
    }

    #[test]
    fn answers_have_a_rate() {
        let mut strangers = Strangers::new(StrangerAnswer::ParameterProblem);
        let mut answered = |at: u64| {
            let now = Duration::from_secs(at);
            (0..100)
                .filter(|_| strangers.answer(now, &envelope(), &HOME_TEST_INIT).is_some())
                .count()
        };
        assert_eq!(answered(5), 10);
        assert_eq!(answered(5), 0);
        assert_eq!(answered(6), 10);
    }
}
