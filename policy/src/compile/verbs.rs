//! Verbs with their links resolved, and whether the links have what a verb needs.

use std::collections::HashSet;

use super::Compiler;
use crate::diagnostic::Code;
use crate::document::{Term, VerbNode};
use crate::policy::Interface;
use crate::source::{Span, Spanned};
use crate::terms::Bid;
use crate::verb::Verb;

/// How many buckets a balance has.
const BUCKETS: u64 = 256;

impl<'c> Compiler<'c> {
    /// A verb; `None` if it has a fault, which was named.
    pub(super) fn verb(&mut self, node: &VerbNode, span: Span) -> Option<Verb> {
        Some(match node {
            VerbNode::Prefer(links) => Verb::Prefer(self.links(links)?),
            VerbNode::Balance(weights) => Verb::Balance(self.weights(weights, span)?),
            VerbNode::Overflow { links, full } => {
                let bids = self.links(links)?;
                self.overflow_has_rates(&bids, span);
                Verb::Overflow { links: bids, full: *full }
            }
            VerbNode::Fastest { links, margin } => {
                Verb::Fastest { links: self.links(links)?, margin: *margin }
            }
            VerbNode::Cheapest { links, sla } => {
                let sla = sla.as_ref().map(|sla| self.sla(sla));
                let bids = self.links(links)?;
                self.costs_are_known(&bids, span);
                Verb::Cheapest { links: bids, sla }
            }
            VerbNode::Duplicate { links, copies, cap } => {
                let bids = self.links(links)?;
                self.copies_fit(&bids, *copies, cap.as_ref(), span);
                let cap = cap.as_ref().map(|cap| cap.value);
                Verb::Duplicate { links: bids, copies: *copies, cap }
            }
            VerbNode::Breakout { links, translate } => {
                Verb::Breakout { links: self.links(links)?, translate: *translate }
            }
            VerbNode::Block(reply) => Verb::Block(*reply),
        })
    }

    fn interface(&self, bid: Bid) -> &'c Interface {
        let found = self.links.values().find(|(known, _)| *known == bid);
        found.expect("the BID was found under a name").1
    }

    fn sla(&mut self, name: &Spanned<String>) -> String {
        let document = self.document;
        let known = document.slas.iter().map(|node| node.name.value.as_str());
        if !known.clone().any(|known| known == name.value) {
            self.unknown(name.span, "sla", &name.value, known);
        }
        name.value.clone()
    }

    fn weights(
        &mut self,
        weights: &[(Spanned<Term<String>>, Spanned<u16>)],
        span: Span,
    ) -> Option<Vec<(Bid, u16)>> {
        let mut all = Vec::new();
        let mut complete = true;
        let mut seen = HashSet::new();
        for (term, weight) in weights {
            let Some(links) = self.links_of(term) else {
                complete = false;
                continue;
            };
            for bid in links {
                if seen.insert(bid) {
                    all.push((bid, weight.value, term.span));
                } else {
                    complete = false;
                    let name = self.interface(bid).name.clone();
                    self.sink.error(
                        term.span,
                        Code::Duplicate,
                        format!("`{name}` has a weight already"),
                        "give each link one weight",
                    );
                }
            }
        }
        if !complete {
            return None;
        }
        if all.len() as u64 > BUCKETS {
            self.sink.error(
                span,
                Code::Limit,
                format!("{} links share {BUCKETS} buckets", all.len()),
                "balance over fewer links",
            );
            return None;
        }
        let sum: u64 = all.iter().map(|(_, weight, _)| u64::from(*weight)).sum();
        for (bid, weight, place) in &all {
            if u64::from(*weight) * BUCKETS < sum {
                let name = self.interface(*bid).name.clone();
                self.sink.error(
                    *place,
                    Code::Range,
                    format!("{weight} of {sum} is less than one of {BUCKETS} buckets, so `{name}` would carry nothing"),
                    "give it more weight, or remove it",
                );
            }
        }
        Some(all.into_iter().map(|(bid, weight, _)| (bid, weight)).collect())
    }

    /// Flows that leave a full link need to know when it is full; the last one is never left.
    fn overflow_has_rates(&mut self, links: &[Bid], span: Span) {
        let [left @ .., _] = links else { return };
        if left.is_empty() {
            self.sink.error(
                span,
                Code::Missing,
                "one link has nothing to overflow to",
                "name a second link, or write `prefer`",
            );
        }
        for bid in left {
            let link = self.interface(*bid);
            if link.rate.is_none() {
                self.sink.error(
                    span,
                    Code::Missing,
                    format!("nobody can say when `{}` is full: its rate is not known", link.name),
                    format!("add rate \"50Mbit/s\" to interface \"{}\"", link.name),
                );
            }
        }
    }

    /// A link that is not metered costs nothing; a metered one that does not say is the dearest.
    fn costs_are_known(&mut self, links: &[Bid], span: Span) {
        let mut priced: Option<&Interface> = None;
        let mut unpriced = Vec::new();
        for bid in links {
            let link = self.interface(*bid);
            match (&link.cost, priced.and_then(|first| first.cost.as_ref())) {
                (Some(cost), Some(first))
                    if cost.currency != first.currency && !cost.currency.is_empty() =>
                {
                    self.sink.error(
                        span,
                        Code::Conflict,
                        format!(
                            "the cost of `{}` is in {}, that of another link in {}",
                            link.name, cost.currency, first.currency
                        ),
                        "write all costs in one currency",
                    );
                }
                (Some(cost), _) if cost.currency.is_empty() => {}
                (Some(_), _) => priced = Some(link),
                (None, _) if link.metered => unpriced.push(link.name.clone()),
                (None, _) => {}
            }
        }
        // A single one is the dearest by itself; of several nobody knows which is dearer.
        if unpriced.len() > 1 {
            for name in unpriced {
                self.sink.error(
                    span,
                    Code::Missing,
                    format!("nobody can say whether `{name}` is the cheapest: it is metered and has no cost"),
                    format!("add cost 4.50 currency=EUR per=\"1GB\" to interface \"{name}\""),
                );
            }
        }
    }

    fn copies_fit(&mut self, links: &[Bid], copies: u8, cap: Option<&Spanned<u64>>, span: Span) {
        if links.len() < usize::from(copies) {
            self.sink.error(
                span,
                Code::Conflict,
                format!("{copies} copies do not fit on {} of the links", links.len()),
                "name as many links as copies, or more",
            );
        }
        let metered = links.iter().map(|bid| self.interface(*bid)).find(|link| link.metered);
        match (metered, cap) {
            (Some(link), None) => self.sink.error(
                span,
                Code::Missing,
                format!("copies on `{}` cost money without a limit", link.name),
                "add cap=\"200MB\": what copies may take of metered links in a quota period",
            ),
            (None, Some(cap)) => self.sink.error(
                cap.span,
                Code::Conflict,
                "`cap` counts octets on metered links, and none of these is metered",
                "remove `cap`, or write metered #true on a link",
            ),
            _ => {}
        }
    }
}
