//! The rules of all mobiles of a home agent: made anew only when a mobile tells others, and one for
//! all that tell the same.
//!
//! Mobiles of one fleet have one policy file, so thousands of them tell the same flow bindings. One
//! [`Effective`] for all of those is little memory, and packets to many of them find it in the
//! processor's cache. Whose bindings the rules speak of is not theirs to say: BIDs are looked up
//! among the mobile's own.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use super::agent::{AgentDefault, Unmatched};
use crate::effective::Effective;
use crate::flow_binding::FlowBinding;
use crate::terms::HomeAddress;

/// What mobiles told, and the rules that it comes to.
#[derive(Debug)]
struct Told {
    flows: Vec<FlowBinding>,
    reflect: bool,
    rules: Arc<Effective>,
}

impl Told {
    fn is(&self, flows: &[FlowBinding], reflect: bool) -> bool {
        self.reflect == reflect && self.flows == flows
    }
}

/// The rules by which a home agent sends to each of its mobiles.
#[derive(Debug)]
pub struct Rulebook {
    unmatched: Unmatched,
    /// The rules of every mobile that told none.
    own: Arc<Effective>,
    mobiles: HashMap<HomeAddress, Arc<Told>>,
    /// All that is told by any mobile, by its hash. What nobody tells any more is not held here.
    known: HashMap<u64, Vec<Weak<Told>>>,
}

impl Rulebook {
    /// Nobody has told anything.
    pub fn new(unmatched: Unmatched) -> Self {
        let default = AgentDefault { unmatched, reflect: false };
        let own = Arc::new(Effective::of_flow_bindings(&[], default));
        Self { unmatched, own, mobiles: HashMap::new(), known: HashMap::new() }
    }

    /// From here on this happens to packets that no flow binding speaks of: all rules are made
    /// anew, if it is something else than before. Gives whether it is.
    pub fn adopt(&mut self, unmatched: Unmatched) -> bool {
        let other = unmatched != self.unmatched;
        if other {
            *self = Self::new(unmatched);
        }
        other
    }

    /// The rules by which packets go to a mobile that told these flow bindings, `reflect` as
    /// [`AgentDefault::reflect`] says.
    pub fn rules(
        &mut self,
        mobile: HomeAddress,
        flows: &[FlowBinding],
        reflect: bool,
    ) -> Arc<Effective> {
        if flows.is_empty() {
            self.forget(mobile);
            return self.own.clone();
        }
        if let Some(told) = self.mobiles.get(&mobile).filter(|told| told.is(flows, reflect)) {
            return told.rules.clone();
        }
        self.forget(mobile);
        let alike = self.known.entry(hash(flows, reflect)).or_default();
        let known = alike.iter().filter_map(Weak::upgrade).find(|told| told.is(flows, reflect));
        let told = known.unwrap_or_else(|| {
            let default = AgentDefault { unmatched: self.unmatched, reflect };
            let rules = Arc::new(Effective::of_flow_bindings(flows, default));
            let told = Arc::new(Told { flows: flows.to_vec(), reflect, rules });
            alike.push(Arc::downgrade(&told));
            told
        });
        let rules = told.rules.clone();
        self.mobiles.insert(mobile, told);
        rules
    }

    /// This mobile tells nothing any more.
    pub fn forget(&mut self, mobile: HomeAddress) {
        let Some(told) = self.mobiles.remove(&mobile) else { return };
        if Arc::strong_count(&told) > 1 {
            return;
        }
        let place = hash(&told.flows, told.reflect);
        drop(told);
        if let Some(alike) = self.known.get_mut(&place) {
            alike.retain(|told| told.strong_count() > 0);
            if alike.is_empty() {
                self.known.remove(&place);
            }
        }
    }

    /// How many different sets of rules mobiles have told.
    pub fn len(&self) -> usize {
        self.known.values().map(Vec::len).sum()
    }

    /// Whether no mobile has told any.
    pub fn is_empty(&self) -> bool {
        self.mobiles.is_empty()
    }
}

fn hash(flows: &[FlowBinding], reflect: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    (flows, reflect).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::flow_binding::{BinarySelector, IpVersion};
    use crate::terms::{Bid, FlowId, FlowPriority};

    fn mobile(number: u16) -> HomeAddress {
        HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number))
    }

    fn flows(ports: &[u16]) -> Vec<FlowBinding> {
        let flow = |(place, port): (u16, &u16)| FlowBinding {
            id: FlowId::new(place).expect("counted from one"),
            priority: FlowPriority::new(16 * place).expect("counted from one"),
            selector: BinarySelector {
                source_port: Some(*port..=*port),
                ..BinarySelector::everything(IpVersion::V6)
            },
            bids: Bid::new(1).into_iter().collect(),
        };
        (1..).zip(ports).map(flow).collect()
    }

    fn made(ports: &[u16], unmatched: Unmatched, reflect: bool) -> Effective {
        Effective::of_flow_bindings(&flows(ports), AgentDefault { unmatched, reflect })
    }

    #[test]
    fn who_tells_the_same_has_the_same_rules_and_who_tells_other_flows_has_others() {
        let mut book = Rulebook::new(Unmatched::Reflect);
        let none = book.rules(mobile(1), &[], true);
        assert_eq!(*none, made(&[], Unmatched::Reflect, false));
        assert!(Arc::ptr_eq(&none, &book.rules(mobile(2), &[], false)));
        assert!(book.is_empty());
        let one = book.rules(mobile(1), &flows(&[22]), true);
        assert_eq!(*one, made(&[22], Unmatched::Reflect, true));
        assert!(Arc::ptr_eq(&one, &book.rules(mobile(1), &flows(&[22]), true)), "told again");
        assert!(Arc::ptr_eq(&one, &book.rules(mobile(2), &flows(&[22]), true)), "by another");
        assert_eq!(book.len(), 1);
        for (what, ports, reflect) in
            [("other flows", &[23][..], true), ("no reflect", &[22], false)]
        {
            let other = book.rules(mobile(3), &flows(ports), reflect);
            assert_eq!(*other, made(ports, Unmatched::Reflect, reflect), "{what}");
            assert_eq!(book.len(), 2, "{what}");
            assert!(Arc::ptr_eq(&one, &book.rules(mobile(2), &flows(&[22]), true)), "{what}");
        }
    }

    #[test]
    fn what_nobody_tells_any_more_is_not_held() {
        let mut book = Rulebook::new(Unmatched::Reflect);
        for number in 0..4 {
            book.rules(mobile(number), &flows(&[22]), true);
        }
        for number in 0..3 {
            book.forget(mobile(number));
            assert_eq!((book.len(), book.is_empty()), (1, false));
        }
        book.rules(mobile(3), &flows(&[80, 443]), true);
        assert_eq!(book.len(), 1, "it took the place of the last of the others");
        book.rules(mobile(3), &[], true);
        assert_eq!((book.len(), book.is_empty(), book.known.len()), (0, true, 0));
        book.forget(mobile(3));
    }

    #[test]
    fn another_default_makes_all_rules_anew() {
        let mut book = Rulebook::new(Unmatched::Reflect);
        let before = [book.rules(mobile(1), &[], true), book.rules(mobile(2), &flows(&[22]), true)];
        assert!(!book.adopt(Unmatched::Reflect));
        assert!(Arc::ptr_eq(&before[1], &book.rules(mobile(2), &flows(&[22]), true)));
        assert!(book.adopt(Unmatched::Preferred));
        assert_eq!(*book.rules(mobile(1), &[], true), made(&[], Unmatched::Preferred, false));
        let after = book.rules(mobile(2), &flows(&[22]), true);
        assert_eq!(*after, made(&[22], Unmatched::Preferred, true));
    }
}
