//! Route optimization of one home: what its machine is told, and what is remembered for people.
//!
//! Traffic and policy want correspondents, the home registration says which care-of addresses
//! there are; the machine does the rest. A correspondent is wanted for as long as its packets go
//! on, and a while longer: one that holds a binding for a lifetime without packets, one that holds
//! none for a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use mtun_dataplane::{Held, HeldBinding};
use mtun_policy::{Bid, CareOfAddress, Home, Optimize, RouteOptimizationPlan};
use mtun_signaling::binding::BindingUpdateList;
use mtun_signaling::machine::Machine;
use mtun_signaling::mobile::route_optimization::{
    Ignored, RouteOptimization, RouteOptimizationConfig, RouteOptimizationEvent,
    RouteOptimizationNotice, RouteOptimizationOutput, Unoptimized,
};
use mtun_signaling::registration::Phase;
use mtun_signaling::seed::Seed;
use mtun_signaling::time::Timestamp;

/// How long a correspondent that holds nothing stays wanted after traffic last wanted it.
const UNBOUND_WANTED: Duration = Duration::from_secs(60);
/// What is one packet and its answer is not worth a registration: traffic that is has a second
/// packet after [`WORTH_AFTER`] and before [`WORTH_BEFORE`].
const WORTH_AFTER: Duration = Duration::from_millis(900);
const WORTH_BEFORE: Duration = Duration::from_secs(30);
/// Reasons kept for each correspondent there may be.
const REASONS_EACH: usize = 8;

/// Why packets to a correspondent take the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They went straight before.
    Fell(Unoptimized),
    /// What the machine said of its tries.
    Told(RouteOptimizationNotice),
}

impl Why {
    /// One word, such as `headers-eaten`.
    pub fn word(&self) -> String {
        match self {
            Self::Fell(reason) => reason.to_string().replace(' ', "-"),
            Self::Told(notice) => notice.reason().replace('_', "-"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fell(reason) => reason.fmt(f),
            Self::Told(notice) => notice.fmt(f),
        }
    }
}

/// A correspondent that traffic or policy wants.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// When traffic last spoke of it.
    last: Duration,
    /// Policy names it: it is wanted with and without traffic.
    lasting: bool,
}

/// What the machine was told of an uplink.
type Uplink = (CareOfAddress, u8, Duration);

/// Route optimization of one home.
#[derive(Debug)]
pub struct Optimization {
    machine: RouteOptimization,
    plan: RouteOptimizationPlan,
    wanted: BTreeMap<Ipv6Addr, Wanted>,
    /// Correspondents whose first packet was seen, and when.
    noticed: BTreeMap<Ipv6Addr, Duration>,
    told: BTreeMap<Bid, Uplink>,
    reasons: BTreeMap<(Ipv6Addr, Option<Bid>), (Why, Duration)>,
    /// Whether the machine has said that it stopped.
    pub stopped: bool,
}

impl Optimization {
    /// Nothing is wanted yet.
    pub fn new(home: &Home, plan: RouteOptimizationPlan, seed: Seed) -> Self {
        let config = RouteOptimizationConfig {
            home_address: home.address,
            lifetime: plan.lifetime,
            multiple_coa: home.register.multiple_coa,
            max_correspondents: plan.max_correspondents,
        };
        Self {
            machine: RouteOptimization::new(config, seed),
            plan,
            wanted: BTreeMap::new(),
            noticed: BTreeMap::new(),
            told: BTreeMap::new(),
            reasons: BTreeMap::new(),
            stopped: false,
        }
    }

    /// The machine, to read.
    pub fn machine(&self) -> &RouteOptimization {
        &self.machine
    }

    /// The correspondents that are wanted.
    pub fn wanted(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.wanted.keys().copied()
    }

    /// Why packets to this correspondent do not go straight by this uplink, if that is known.
    pub fn why(&self, correspondent: Ipv6Addr, bid: Option<Bid>) -> Option<&Why> {
        let reason = |bid| self.reasons.get(&(correspondent, bid));
        bid.and_then(|bid| reason(Some(bid))).or_else(|| reason(None)).map(|(why, _)| why)
    }

    /// What a correspondent holds, for packets.
    pub fn held(&self, correspondent: Ipv6Addr) -> Held {
        let bindings = self.machine.bindings().filter(|it| it.correspondent == correspondent);
        let held = |it: mtun_signaling::mobile::route_optimization::CorrespondentBinding| {
            HeldBinding { bid: Some(it.bid), care_of: it.care_of }
        };
        Held { bindings: bindings.map(held).collect() }
    }

    /// Hands an event to the machine and takes what it wants done.
    pub fn handle(
        &mut self,
        now: Timestamp,
        event: RouteOptimizationEvent,
    ) -> Vec<RouteOptimizationOutput> {
        self.machine.handle(now, event);
        self.outputs(now.monotonic)
    }

    /// Does what is due, and forgets whom nobody wants any more.
    pub fn handle_deadline(&mut self, now: Timestamp) -> Vec<RouteOptimizationOutput> {
        if self.machine.deadline().is_some_and(|at| at <= now.monotonic) {
            self.machine.handle_deadline(now);
        }
        for correspondent in self.idle(now.monotonic) {
            self.wanted.remove(&correspondent);
            self.machine.handle(now, RouteOptimizationEvent::Unwanted { correspondent });
            self.reasons.retain(|(of, _), _| *of != correspondent);
        }
        self.outputs(now.monotonic)
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        let idle = self.wanted.iter().filter_map(|(&it, wanted)| self.ends(it, wanted)).min();
        [self.machine.deadline(), idle].into_iter().flatten().min()
    }

    /// Traffic speaks of a correspondent: packets take the tunnel that might go straight.
    pub fn want(
        &mut self,
        now: Timestamp,
        correspondent: Ipv6Addr,
    ) -> Vec<RouteOptimizationOutput> {
        let known = self.wanted.contains_key(&correspondent);
        match known || self.is_worth_it(now.monotonic, correspondent) {
            true => self.want_at_once(now, correspondent),
            false => Vec::new(),
        }
    }

    /// Wants a correspondent, worth it or not.
    pub fn want_at_once(
        &mut self,
        now: Timestamp,
        correspondent: Ipv6Addr,
    ) -> Vec<RouteOptimizationOutput> {
        let new = Wanted { last: now.monotonic, lasting: false };
        self.wanted.entry(correspondent).or_insert(new).last = now.monotonic;
        self.handle(now, RouteOptimizationEvent::Wanted { correspondent })
    }

    /// Gives a correspondent up, until somebody wants it again.
    pub fn unwant(
        &mut self,
        now: Timestamp,
        correspondent: Ipv6Addr,
    ) -> Vec<RouteOptimizationOutput> {
        self.wanted.remove(&correspondent);
        self.reasons.retain(|(of, _), _| *of != correspondent);
        self.handle(now, RouteOptimizationEvent::Unwanted { correspondent })
    }

    /// Packets go straight.
    pub fn used(&mut self, now: Duration, correspondent: Ipv6Addr) {
        if let Some(wanted) = self.wanted.get_mut(&correspondent) {
            wanted.last = now;
        }
    }

    /// Policy wants these, and no others, whatever the traffic.
    pub fn want_always(
        &mut self,
        now: Timestamp,
        named: &BTreeSet<Ipv6Addr>,
    ) -> Vec<RouteOptimizationOutput> {
        for (correspondent, wanted) in &mut self.wanted {
            wanted.lasting = named.contains(correspondent);
        }
        for &correspondent in named {
            self.wanted.insert(correspondent, Wanted { last: now.monotonic, lasting: true });
            self.machine.handle(now, RouteOptimizationEvent::Wanted { correspondent });
        }
        self.outputs(now.monotonic)
    }

    /// Tells the machine which care-of addresses the home agent holds at present.
    pub fn follow(
        &mut self,
        now: Timestamp,
        list: &BindingUpdateList,
        attached: impl Fn(Bid) -> bool,
    ) -> Vec<RouteOptimizationOutput> {
        let held = list.entries.iter().filter(|entry| {
            let bound = matches!(entry.phase, Phase::Bound | Phase::Refreshing);
            bound && !entry.home_link && attached(entry.bid)
        });
        let held: BTreeMap<Bid, Uplink> =
            held.filter_map(|it| Some((it.bid, (it.care_of, it.priority, it.expires?)))).collect();
        // The news that takes packets off a path first.
        for bid in self.told.keys().filter(|bid| !held.contains_key(bid)) {
            self.machine.handle(now, RouteOptimizationEvent::CareOfGone { bid: *bid });
        }
        for (&bid, &(care_of, priority, expires)) in &held {
            if self.told.get(&bid) != Some(&(care_of, priority, expires)) {
                let event = RouteOptimizationEvent::CareOf { bid, priority, care_of, expires };
                self.machine.handle(now, event);
            }
        }
        self.told = held;
        self.outputs(now.monotonic)
    }

    /// No care-of address is used any more: the home link alone.
    pub fn returned_home(&mut self, now: Timestamp) -> Vec<RouteOptimizationOutput> {
        self.told.clear();
        self.handle(now, RouteOptimizationEvent::ReturnedHome)
    }

    /// Whether traffic with it lasts.
    fn is_worth_it(&mut self, now: Duration, correspondent: Ipv6Addr) -> bool {
        self.noticed.retain(|_, first| now.saturating_sub(*first) < WORTH_BEFORE);
        let room = self.noticed.len() < self.plan.max_correspondents.saturating_mul(16);
        let first = match self.noticed.get(&correspondent) {
            Some(first) => *first,
            None if room => *self.noticed.entry(correspondent).or_insert(now),
            None => now,
        };
        let worth = now.saturating_sub(first) >= WORTH_AFTER;
        if worth {
            self.noticed.remove(&correspondent);
        }
        worth
    }

    /// When a correspondent stops being wanted, if nothing speaks of it until then.
    fn ends(&self, correspondent: Ipv6Addr, wanted: &Wanted) -> Option<Duration> {
        let bound = || self.machine.bindings().any(|it| it.correspondent == correspondent);
        let stays = if bound() { self.plan.lifetime.max(UNBOUND_WANTED) } else { UNBOUND_WANTED };
        (!wanted.lasting).then(|| wanted.last + stays)
    }

    fn idle(&self, now: Duration) -> Vec<Ipv6Addr> {
        let over = |(&correspondent, wanted): (&Ipv6Addr, &Wanted)| {
            let ends = self.ends(correspondent, wanted)?;
            (ends <= now).then_some(correspondent)
        };
        self.wanted.iter().filter_map(over).collect()
    }

    fn outputs(&mut self, now: Duration) -> Vec<RouteOptimizationOutput> {
        let outputs: Vec<_> = std::iter::from_fn(|| self.machine.poll()).collect();
        for output in &outputs {
            self.remember(now, output);
        }
        outputs
    }

    /// Keeps why things are as they are.
    fn remember(&mut self, now: Duration, output: &RouteOptimizationOutput) {
        use RouteOptimizationNotice as Notice;
        let (correspondent, bid, why) = match *output {
            RouteOptimizationOutput::Bound { correspondent, bid, .. } => {
                self.reasons.remove(&(correspondent, Some(bid)));
                self.reasons.remove(&(correspondent, None));
                return;
            }
            RouteOptimizationOutput::Unbound { correspondent, bid, reason } => {
                (correspondent, Some(bid), Why::Fell(reason))
            }
            RouteOptimizationOutput::Notice(notice) => match notice {
                Notice::Ignored(
                    Ignored::NotOptimizable(it)
                    | Ignored::TooManyCorrespondents(it)
                    | Ignored::TooManyAtOnce(it),
                ) => {
                    self.wanted.remove(&it);
                    return;
                }
                Notice::Unanswered { correspondent, bid, .. } => {
                    (correspondent, bid, Why::Told(notice))
                }
                Notice::HeadersEaten { correspondent, bid, .. }
                | Notice::Refused { correspondent, bid, .. } => {
                    (correspondent, Some(bid), Why::Told(notice))
                }
                Notice::Unsupported { correspondent, .. } => {
                    (correspondent, None, Why::Told(notice))
                }
                _ => return,
            },
            _ => return,
        };
        let most = self.plan.max_correspondents.saturating_mul(REASONS_EACH);
        if self.reasons.len() >= most.max(REASONS_EACH) {
            let oldest = self.reasons.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key);
            self.reasons.retain(|key, _| Some(*key) != oldest);
        }
        self.reasons.insert((correspondent, bid), (why, now));
    }
}

/// The correspondents that the rules of a home want whatever the traffic: single addresses in
/// rules that say `optimize always`.
pub fn named(home: &Home) -> BTreeSet<Ipv6Addr> {
    let always = home.rules.rules.iter().filter(|it| it.head.optimize == Some(Optimize::Always));
    let destinations = always.flat_map(|it| &it.head.selectors).flat_map(|it| &it.destinations);
    destinations
        .filter_map(|net| match (net, net.addr()) {
            (IpNet::V6(net), IpAddr::V6(address)) if net.prefix_len() == 128 => Some(address),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtun_policy::NoFiles;
    use mtun_signaling::time::NtpTime;

    const POLICY: &str = include_str!("../../examples/figure-11-optimized.kdl");

    fn home(text: &str) -> Home {
        mtun_policy::parse("file.kdl", text, &NoFiles).unwrap().homes.remove(0)
    }

    fn optimization() -> Optimization {
        let home = home(POLICY);
        let plan = home.route_optimization.unwrap();
        Optimization::new(&home, plan, Seed::new([7; 32]))
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp { monotonic: Duration::from_millis(millis), wall: NtpTime(0) }
    }

    fn server(number: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, number)
    }

    #[test]
    fn one_packet_is_not_worth_it_and_a_second_one_later_is() {
        let mut optimization = optimization();
        optimization.want(at(0), server(1));
        optimization.want(at(500), server(1));
        assert_eq!(optimization.wanted().count(), 0, "a question and its answer");
        optimization.want(at(1000), server(1));
        assert_eq!(optimization.wanted().collect::<Vec<_>>(), [server(1)]);
        optimization.want(at(1000), server(2));
        optimization.want(at(60_000), server(2));
        assert_eq!(optimization.wanted().count(), 1, "nobody remembers the first one");
        optimization.want_at_once(at(60_000), server(3));
        assert_eq!(optimization.wanted().count(), 2, "its rule says always");
    }

    #[test]
    fn who_holds_nothing_is_forgotten_after_a_minute_without_traffic() {
        let mut optimization = optimization();
        optimization.want_at_once(at(0), server(1));
        optimization.used(Duration::from_secs(30), server(1));
        optimization.handle_deadline(at(89_000));
        assert_eq!(optimization.wanted().count(), 1);
        optimization.handle_deadline(at(90_000));
        assert_eq!(optimization.wanted().count(), 0);
        assert_eq!(optimization.held(server(1)), Held::default());
    }

    #[test]
    fn rules_that_name_a_host_and_say_always_want_it_without_traffic() {
        let with = "match proto=tcp dport=22 dst=\"2001:db8:c::9\"";
        let home = home(&POLICY.replace("match proto=tcp dport=22", with));
        let named = named(&home);
        assert_eq!(named, [server(9)].into());
        let mut optimization = optimization();
        optimization.want_always(at(0), &named);
        optimization.handle_deadline(at(3_600_000));
        assert_eq!(optimization.wanted().collect::<Vec<_>>(), [server(9)]);
        optimization.want_always(at(3_600_000), &BTreeSet::new());
        optimization.handle_deadline(at(3_700_000));
        assert_eq!(optimization.wanted().count(), 0, "another policy names nobody");
    }

    #[test]
    fn flooding_with_strangers_costs_bounded_memory() {
        let mut optimization = optimization();
        for number in 0..10_000 {
            optimization.want(at(0), server(number));
            optimization.want_at_once(at(0), server(number));
        }
        let most = optimization.plan.max_correspondents;
        assert!(optimization.wanted().count() <= most, "{}", optimization.wanted().count());
        assert!(optimization.noticed.len() <= most * 16);
        assert!(optimization.reasons.len() <= most * REASONS_EACH);
    }
}
