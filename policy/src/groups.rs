//! Groups and sets as names that people may use after the policy was compiled: in filters.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::document::Document;
use crate::policy::Interface;
use crate::source::Spanned;
use crate::terms::Bid;

/// The groups and sets of a policy by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups(BTreeMap<String, Group>);

/// What `@name` stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Names of interfaces.
    pub interfaces: Vec<String>,
    /// Those of them that are access links, by BID.
    pub links: Vec<Bid>,
    /// Ports.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Prefixes.
    pub prefixes: Vec<IpNet>,
}

impl Groups {
    /// The groups and sets of a document whose links are `interfaces`.
    pub(crate) fn of(document: &Document, interfaces: &[Interface]) -> Self {
        let bid = |name: &String| {
            let link = interfaces.iter().find(|link| link.name.as_str() == name.as_str());
            link.and_then(|link| link.bid)
        };
        let groups = document.groups.iter().map(|group| {
            let names = values(&group.interfaces);
            let members = Group {
                links: names.iter().filter_map(bid).collect(),
                interfaces: names,
                ports: values(&group.ports),
                prefixes: values(&group.prefixes),
            };
            (group.name.value.clone(), members)
        });
        let sets = document.sets.iter().map(|set| {
            let members = Group { prefixes: set.prefixes.clone(), ..Group::default() };
            (set.name.value.clone(), members)
        });
        Self(groups.chain(sets).collect())
    }

    /// What `@name` stands for.
    pub fn get(&self, name: &str) -> Option<&Group> {
        self.0.get(name)
    }

    /// The names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().map(String::as_str)
    }
}

fn values<T: Clone>(spanned: &[Spanned<T>]) -> Vec<T> {
    spanned.iter().map(|member| member.value.clone()).collect()
}
