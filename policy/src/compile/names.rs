//! Names of links, groups and sets, and what they stand for.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::Compiler;
use crate::diagnostic::Code;
use crate::document::{GroupNode, SetNode, Term, Terms};
use crate::key::Ingress;
use crate::policy::Ingresses;
use crate::source::{Span, Spanned};
use crate::terms::Bid;
use crate::words::advice;

/// Most values that all selectors of a policy may hold together, groups expanded.
const MOST_VALUES: usize = 1 << 20;

/// What stands behind `@`.
#[derive(Clone, Copy)]
pub(super) enum Members<'c> {
    /// Written in the file.
    Group(&'c GroupNode),
    /// Read from a list.
    Set(&'c SetNode),
}

impl<'c> Members<'c> {
    fn interfaces(self) -> &'c [Spanned<String>] {
        match self {
            Self::Group(group) => &group.interfaces,
            Self::Set(_) => &[],
        }
    }

    /// Names of interfaces.
    pub(super) fn names(self) -> Vec<String> {
        values(self.interfaces())
    }

    /// Ports.
    pub(super) fn ports(self) -> Vec<RangeInclusive<u16>> {
        match self {
            Self::Group(group) => values(&group.ports),
            Self::Set(_) => Vec::new(),
        }
    }

    /// Prefixes.
    pub(super) fn prefixes(self) -> Vec<IpNet> {
        match self {
            Self::Group(group) => values(&group.prefixes),
            Self::Set(set) => set.prefixes.clone(),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Group(group) => group.interfaces.len() + group.ports.len() + group.prefixes.len(),
            Self::Set(set) => set.prefixes.len(),
        }
    }

    fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<'c> Compiler<'c> {
    pub(super) fn unknown<'n>(
        &mut self,
        span: Span,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
    ) {
        let plural = format!("{what}s");
        // Comparing a name with thousands of others takes its time.
        let help = if self.sink.is_full() { plural } else { advice(name, known, &plural) };
        self.sink.error(span, Code::UnknownRef, format!("there is no {what} `{name}`"), help);
    }

    /// What `@name` stands for.
    fn members(&mut self, name: &str, span: Span) -> Option<Members<'c>> {
        let group = self.groups.get(name).map(|group| Members::Group(group));
        let members = group.or_else(|| self.sets.get(name).map(|set| Members::Set(set)));
        if members.is_none() {
            let document = self.document;
            let groups = document.groups.iter().map(|group| group.name.value.as_str());
            let sets = document.sets.iter().map(|set| set.name.value.as_str());
            self.unknown(span, "group", name, groups.chain(sets));
        }
        members
    }

    /// Whether a term stands for a set.
    pub(super) fn is_set<T>(&self, term: &Term<T>) -> bool {
        match term {
            Term::Group(name) => {
                !self.groups.contains_key(name.as_str()) && self.sets.contains_key(name.as_str())
            }
            Term::Literal(_) => false,
        }
    }

    pub(super) fn link(&mut self, name: &str, span: Span) -> Option<Bid> {
        let bid = self.links.get(name).map(|(bid, _)| *bid);
        if bid.is_none() {
            let document = self.document;
            self.unknown(
                span,
                "interface",
                name,
                document.interfaces.iter().map(|link| link.name.value.as_str()),
            );
        }
        bid
    }

    /// The links of one term; `None` if one of them has a fault, which was named.
    pub(super) fn links_of(&mut self, term: &Spanned<Term<String>>) -> Option<Vec<Bid>> {
        match &term.value {
            Term::Literal(name) => Some(vec![self.link(name, term.span)?]),
            Term::Group(name) => {
                let members = self.members(name, term.span)?;
                let interfaces = members.interfaces();
                if interfaces.is_empty() {
                    self.wrong_kind(term.span, name, members, "interfaces");
                    return None;
                }
                let bids: Vec<Option<Bid>> =
                    interfaces.iter().map(|member| self.link(&member.value, member.span)).collect();
                bids.into_iter().collect()
            }
        }
    }

    /// The links of a list, each once; `None` if one of them has a fault, which was named.
    pub(super) fn links(&mut self, terms: &Terms<String>) -> Option<Vec<Bid>> {
        let mut bids = Vec::new();
        let mut complete = true;
        let mut written = HashSet::new();
        for term in terms {
            if let Term::Literal(name) = &term.value
                && !written.insert(name.as_str())
            {
                self.sink.error(
                    term.span,
                    Code::Duplicate,
                    format!("`{name}` is named twice"),
                    "the first place counts; remove the second",
                );
            }
            match self.links_of(term) {
                Some(links) => bids.extend(links),
                None => complete = false,
            }
        }
        let mut seen = HashSet::new();
        bids.retain(|bid| seen.insert(*bid));
        (complete && !bids.is_empty()).then_some(bids)
    }

    pub(super) fn ingress(&mut self, name: &str, span: Span) -> Option<Ingress> {
        let ingress = self.ingresses.add(name);
        if ingress.is_none() {
            self.sink.error(
                span,
                Code::Limit,
                format!("more than {} interfaces are named with `in` and `also`", Ingresses::MOST),
                "name fewer",
            );
        }
        ingress
    }

    fn wrong_kind(&mut self, span: Span, name: &str, members: Members<'_>, wanted: &str) {
        // What is empty has a fault of its own, which was named where it stands.
        if members.is_empty() {
            return;
        }
        let what = match members {
            Members::Group(_) => "group",
            Members::Set(_) => "set",
        };
        self.sink.error(
            span,
            Code::UnknownRef,
            format!("{what} `{name}` holds no {wanted}"),
            format!("use a group of {wanted} here"),
        );
    }

    /// Values with groups replaced by what is in them.
    pub(super) fn expanded<T: Clone>(
        &mut self,
        terms: &Terms<T>,
        wanted: &str,
        members_of: impl Fn(Members<'c>) -> Vec<T>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for term in terms {
            match &term.value {
                Term::Literal(value) => values.push(value.clone()),
                Term::Group(name) => {
                    let Some(group) = self.members(name, term.span) else { continue };
                    if self.values + values.len() + group.len() > MOST_VALUES {
                        // Once is enough, or it would leave no room for other faults.
                        if std::mem::replace(&mut self.is_full, true) {
                            return Vec::new();
                        }
                        self.sink.error(
                            term.span,
                            Code::Limit,
                            format!(
                                "the rules hold more than {MOST_VALUES} values, groups expanded"
                            ),
                            "use large groups in fewer rules",
                        );
                        return Vec::new();
                    }
                    let members = members_of(group);
                    if members.is_empty() {
                        self.wrong_kind(term.span, name, group, wanted);
                    }
                    values.extend(members);
                }
            }
        }
        self.values += values.len();
        values
    }
}

fn values<T: Clone>(spanned: &[Spanned<T>]) -> Vec<T> {
    spanned.iter().map(|member| member.value.clone()).collect()
}
