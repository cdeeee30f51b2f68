//! What stands: the facts that messages tell, by what they are about.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use mtun_policy::{Bid, HomeAddress, HomeName, InterfaceName, Role};

use super::message::{
    BcRemove, BulRemove, HomeHint, MdCommand, MdInfo, MobilityMessage, NodetypeInfo,
};

/// What a fact is about. Of two facts about the same thing the later one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FactKey {
    /// A role, by its place among them.
    Nodetype(u8, Option<HomeName>, Option<Ipv6Addr>),
    /// Where a link is attached.
    Link(InterfaceName),
    /// Being at home.
    Home(HomeName),
    /// A binding update list entry: home, peer, home address, BID.
    Listed(HomeName, Ipv6Addr, HomeAddress, Option<Bid>),
    /// A binding cache entry: home, our address as a correspondent, home address, BID.
    Cached(Option<HomeName>, Option<Ipv6Addr>, HomeAddress, Option<Bid>),
}

/// Facts that belong together: what a node tells of at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// All roles.
    Nodetypes,
    /// Being at one home.
    Home(HomeName),
    /// The binding update list of one home, all peers.
    List(HomeName),
    /// The binding cache entries of one mobile: at a served home, or at us as a correspondent.
    Mobile(Option<HomeName>, Option<Ipv6Addr>, HomeAddress),
}

const LOWEST: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const HIGHEST: Ipv6Addr = Ipv6Addr::from_bits(u128::MAX);

fn last_bid() -> Option<Bid> {
    Bid::new(u16::MAX)
}

impl Subject {
    fn keys(&self) -> RangeInclusive<FactKey> {
        match self {
            Self::Nodetypes => {
                FactKey::Nodetype(0, None, None)..=FactKey::Nodetype(u8::MAX, None, None)
            }
            Self::Home(home) => FactKey::Home(home.clone())..=FactKey::Home(home.clone()),
            Self::List(home) => list(home, None),
            Self::Mobile(home, correspondent, home_address) => {
                let key = |bid| FactKey::Cached(home.clone(), *correspondent, *home_address, bid);
                key(None)..=key(last_bid())
            }
        }
    }
}

fn list(home: &HomeName, peer: Option<Ipv6Addr>) -> RangeInclusive<FactKey> {
    let key = |peer, address, bid| FactKey::Listed(home.clone(), peer, HomeAddress(address), bid);
    let (first, last) = (peer.unwrap_or(LOWEST), peer.unwrap_or(HIGHEST));
    key(first, LOWEST, None)..=key(last, HIGHEST, last_bid())
}

/// What a message does to facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is a fact itself.
    Stands(FactKey),
    /// It ends one.
    Ends(FactKey),
    /// It ends all of these.
    EndsAll(RangeInclusive<FactKey>),
    /// It passes.
    Passes,
}

fn place(role: Role) -> u8 {
    match role {
        Role::MobileNode => 1,
        Role::MobileRouter => 2,
        Role::HomeAgent => 3,
        Role::Correspondent => 4,
    }
}

impl MobilityMessage {
    /// What it is as a fact; `None` for what ends facts, and for hints.
    pub fn fact(&self) -> Option<FactKey> {
        match self.effect() {
            Effect::Stands(key) => Some(key),
            Effect::Ends(_) | Effect::EndsAll(_) | Effect::Passes => None,
        }
    }

    pub(super) fn effect(&self) -> Effect {
        let either = |stands: bool, key: FactKey| match stands {
            true => Effect::Stands(key),
            false => Effect::Ends(key),
        };
        match self {
            Self::NodetypeInfo(it) => {
                let key = FactKey::Nodetype(place(it.role), it.home.clone(), it.address);
                either(it.enabled, key)
            }
            Self::BcAdd(it) => {
                let (home, address) = (it.home.clone(), it.home_address);
                Effect::Stands(FactKey::Cached(home, it.correspondent, address, it.bid))
            }
            Self::BcRemove(it) => {
                let (home, address) = (it.home.clone(), it.home_address);
                Effect::Ends(FactKey::Cached(home, it.correspondent, address, it.bid))
            }
            Self::BcFlush(it) => {
                let key = |address, bid| {
                    FactKey::Cached(it.home.clone(), it.correspondent, HomeAddress(address), bid)
                };
                Effect::EndsAll(key(LOWEST, None)..=key(HIGHEST, last_bid()))
            }
            Self::BulAdd(it) => {
                let key = FactKey::Listed(it.home.clone(), it.peer, it.home_address, it.bid);
                Effect::Stands(key)
            }
            Self::BulRemove(it) => {
                let key = FactKey::Listed(it.home.clone(), it.peer, it.home_address, it.bid);
                Effect::Ends(key)
            }
            Self::BulFlush(it) => Effect::EndsAll(list(&it.home, it.peer)),
            Self::MdInfo(MdInfo { command, link: Some(link), .. }) => {
                let key = FactKey::Link(link.clone());
                match command {
                    MdCommand::ReReg | MdCommand::DeregHome => Effect::Stands(key),
                    MdCommand::DeregForeign => Effect::Ends(key),
                    MdCommand::Scan => Effect::Passes,
                }
            }
            Self::HomeHint(it) => either(it.at_home, FactKey::Home(it.home.clone())),
            Self::MdInfo(_) | Self::RrHint(_) | Self::BeHint(_) | Self::Dad(_) => Effect::Passes,
        }
    }

    /// The message that ends this fact; of a hint there is nothing to end, and it is given back.
    pub(super) fn ending(&self) -> Self {
        match self {
            Self::NodetypeInfo(it) => {
                Self::NodetypeInfo(NodetypeInfo { enabled: false, ..it.clone() })
            }
            Self::BcAdd(it) => Self::BcRemove(BcRemove {
                home: it.home.clone(),
                correspondent: it.correspondent,
                home_address: it.home_address,
                bid: it.bid,
            }),
            Self::BulAdd(it) => Self::BulRemove(BulRemove {
                home: it.home.clone(),
                home_address: it.home_address,
                peer: it.peer,
                bid: it.bid,
            }),
            Self::MdInfo(it) => {
                Self::MdInfo(MdInfo { command: MdCommand::DeregForeign, ..it.clone() })
            }
            Self::HomeHint(it) => {
                Self::HomeHint(HomeHint { at_home: false, beside: false, ..it.clone() })
            }
            other => other.clone(),
        }
    }
}

/// The facts that stand: what a node has told, or what a client has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    by_key: BTreeMap<FactKey, Arc<MobilityMessage>>,
}

impl Facts {
    /// The facts among these messages.
    pub fn new(messages: impl IntoIterator<Item = MobilityMessage>) -> Self {
        let mut facts = Self::default();
        messages.into_iter().for_each(|message| facts.apply(&Arc::new(message)));
        facts
    }

    /// Takes a message in.
    pub fn apply(&mut self, message: &Arc<MobilityMessage>) {
        match message.effect() {
            Effect::Stands(key) => {
                self.by_key.insert(key, message.clone());
            }
            Effect::Ends(key) => {
                self.by_key.remove(&key);
            }
            Effect::EndsAll(keys) => {
                let ended: Vec<_> = self.by_key.range(keys).map(|(key, _)| key.clone()).collect();
                ended.iter().for_each(|key| drop(self.by_key.remove(key)));
            }
            Effect::Passes => {}
        }
    }

    /// The facts, ordered by what they are about.
    pub fn iter(&self) -> impl Iterator<Item = (&FactKey, &Arc<MobilityMessage>)> {
        self.by_key.iter()
    }

    /// The fact about this.
    pub fn get(&self, key: &FactKey) -> Option<&Arc<MobilityMessage>> {
        self.by_key.get(key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Those beyond a key, in order; all for `None`.
    pub(super) fn beyond(
        &self,
        key: Option<&FactKey>,
    ) -> impl Iterator<Item = (&FactKey, &Arc<MobilityMessage>)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_key.range((from, Bound::Unbounded))
    }

    pub(super) fn within(
        &self,
        keys: RangeInclusive<FactKey>,
    ) -> impl Iterator<Item = (&FactKey, &Arc<MobilityMessage>)> {
        self.by_key.range(keys)
    }

    /// The messages that lead from what stands of `subject` to `present`, endings first.
    pub(super) fn news(
        &self,
        subject: &Subject,
        present: Vec<MobilityMessage>,
    ) -> Vec<MobilityMessage> {
        let present: BTreeMap<FactKey, MobilityMessage> =
            present.into_iter().filter_map(|it| Some((it.fact()?, it))).collect();
        let gone = self.within(subject.keys()).filter(|(key, _)| !present.contains_key(key));
        let mut news: Vec<_> = gone.map(|(_, fact)| fact.ending()).collect();
        let differs =
            |key: &FactKey, fact: &MobilityMessage| self.get(key).is_none_or(|it| **it != *fact);
        news.extend(present.into_iter().filter(|(key, it)| differs(key, it)).map(|(_, it)| it));
        news
    }
}
