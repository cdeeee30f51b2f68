//! Movement detectors outside: programs that say by MD_INFO where links are.
//!
//! A link that a client has moved is that client's for as long as its connection lasts. The
//! daemon's own detector goes on watching and says nothing of it; when the connection ends, of
//! its own accord or because the program died, it judges the link again at once.

use std::collections::BTreeMap;

use mtun_policy::{Bid, InterfaceName};
use mtun_signaling::mobile::MobileEvent;
use mtun_signaling::mobility_socket::{MdCommand, MdInfo, MobilityKind};
use tokio::sync::{mpsc, watch};

use super::owner::Owner;
use crate::control::documents::{Event, SentDocument, Severity};
use crate::control::{ControlError, ErrorCode, Peer};
use crate::edge::movement::Said;

/// The longest reason that a detector may give, in octets.
const REASON_MAX: usize = 256;

/// Who has a link.
#[derive(Clone, Debug)]
struct Holder {
    peer: Peer,
    /// Ends with the connection.
    left: watch::Receiver<()>,
}

/// The links that detectors outside have.
#[derive(Debug)]
pub(super) struct Claims {
    holders: BTreeMap<InterfaceName, Holder>,
    gone: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl Default for Claims {
    fn default() -> Self {
        // One word is enough to have a look at all of them.
        Self { holders: BTreeMap::new(), gone: mpsc::channel(1) }
    }
}

impl Claims {
    /// Returns when some connection that held a link has ended.
    pub(super) async fn left(&mut self) {
        // The sender is kept here, so that this never ends by itself.
        let _ = self.gone.1.recv().await;
    }

    /// The links of connections that have ended, which nobody holds from here on.
    fn ended(&mut self) -> Vec<InterfaceName> {
        let over = |holder: &Holder| holder.left.has_changed().is_err();
        let ended: Vec<_> = self
            .holders
            .iter()
            .filter(|(_, holder)| over(holder))
            .map(|(name, _)| name.clone())
            .collect();
        ended.iter().for_each(|name| drop(self.holders.remove(name)));
        ended
    }

    fn of(&self, left: &watch::Receiver<()>) -> Vec<InterfaceName> {
        let theirs = |holder: &Holder| holder.left.same_channel(left);
        let links = self.holders.iter().filter(|(_, holder)| theirs(holder));
        links.map(|(name, _)| name.clone()).collect()
    }

    fn hold(&mut self, link: InterfaceName, holder: Holder) {
        if self.of(&holder.left).is_empty() {
            let (mut left, gone) = (holder.left.clone(), self.gone.0.clone());
            tokio::spawn(async move {
                // Nothing is ever sent: it ends when the connection does.
                while left.changed().await.is_ok() {}
                // A word that waits already says the same.
                let _ = gone.try_send(());
            });
        }
        self.holders.insert(link, holder);
    }
}

impl Owner {
    /// A detector says what its link does.
    pub(super) fn detected(
        &mut self,
        said: &MdInfo,
        peer: Peer,
        left: watch::Receiver<()>,
    ) -> Result<SentDocument, ControlError> {
        if self.homes.is_empty() {
            let error = "this node is no mobile: it has no home that it could be away from";
            return Err(ControlError::new(ErrorCode::Refused, error));
        }
        if said.reason.as_ref().is_some_and(|reason| reason.len() > REASON_MAX) {
            let error = format!("a reason has {REASON_MAX} octets at most");
            return Err(ControlError::new(ErrorCode::Usage, error));
        }
        let named = said.link.is_some() || said.index.is_some() || said.bid.is_some();
        if said.command == MdCommand::Scan && !named {
            let theirs = self.claims.of(&left);
            theirs.iter().for_each(|link| self.give_back(link));
            self.tell_homes(MobileEvent::AskAgain);
            let count = theirs.len();
            return Ok(done(format!("looked again; {count} links given back"), None));
        }
        let (link, bid) = self.link_said(said)?;
        if let Some(holder) = self.claims.holders.get(&link)
            && !holder.left.same_channel(&left)
        {
            let uid = holder.peer.uid;
            let who = holder.peer.pid.map_or(String::new(), |pid| format!(", process {pid}"));
            let error = format!("link {link} is driven by another client (user id {uid}{who})");
            return Err(ControlError::new(ErrorCode::Conflict, error)
                .help("it is free when that connection ends, or sends MD_INFO SCAN"));
        }
        let (says, what) = match said.command {
            MdCommand::Scan => {
                self.give_back(&link);
                self.tell_homes(MobileEvent::AskAgain);
                return Ok(done(format!("{link} is looked at by the daemon again"), None));
            }
            MdCommand::ReReg => {
                let care_of = match said.care_of.map(|it| it.0) {
                    Some(std::net::IpAddr::V6(care_of)) => Some(care_of),
                    None => None,
                    Some(std::net::IpAddr::V4(_)) => {
                        let error = "an IPv4 care-of address cannot be registered";
                        return Err(ControlError::new(ErrorCode::Usage, error));
                    }
                };
                (Said::CareOf(care_of), "is attached")
            }
            MdCommand::DeregHome => (Said::Home(self.home_said(said)?), "is the home link"),
            MdCommand::DeregForeign => (Said::Nothing, "leads nowhere"),
        };
        let movements = self.watch.claim(&link, Some(says)).map_err(|reason| {
            let error = format!("link {link} cannot be what is said of it: {reason}");
            ControlError::new(ErrorCode::Refused, error)
                .help("what the kernel makes impossible nobody can say away")
        })?;
        if !self.claims.holders.contains_key(&link) {
            let (uid, severity) = (peer.uid, Severity::Info);
            let text = format!("link {link} is driven by a client (user id {uid})");
            self.tell(Event::Notice { severity, code: "link-claimed".to_owned(), text });
        }
        self.claims.hold(link.clone(), Holder { peer, left });
        match movements.is_empty() {
            false => movements.into_iter().for_each(|it| self.moved(it)),
            // So it is already; what the agent refused for good is asked for again.
            true if said.command == MdCommand::ReReg => self.tell_homes(MobileEvent::AskAgain),
            true => {}
        }
        Ok(done(format!("{link} (BID {bid}) {what}"), Some(link)))
    }

    /// Takes links back whose detectors have left.
    pub(super) fn detectors_left(&mut self) {
        for link in self.claims.ended() {
            self.give_back(&link);
        }
    }

    fn give_back(&mut self, link: &InterfaceName) {
        self.claims.holders.remove(link);
        let movements = self.watch.claim(link, None).unwrap_or_default();
        let (severity, code) = (Severity::Info, "link-given-back".to_owned());
        let text = format!("link {link} is watched by the daemon itself again");
        self.tell(Event::Notice { severity, code, text });
        if movements.is_empty() {
            // What is told of it, that a client drives it, is so no more.
            let state = self.links.get(link).map_or(Ok(()), |it| it.state.clone().map(drop));
            self.show_link(link, state);
        }
        movements.into_iter().for_each(|it| self.moved(it));
    }

    /// The uplink that is meant.
    fn link_said(&self, said: &MdInfo) -> Result<(InterfaceName, Bid), ControlError> {
        let uplinks = || self.policy.interfaces.iter().filter(|it| it.bid.is_some());
        let index = |name: &InterfaceName| self.access.get(name).map(|access| access.index);
        let fits = |it: &&mtun_policy::Interface| {
            said.link.as_ref().is_none_or(|link| *link == it.name)
                && said.bid.is_none_or(|bid| it.bid == Some(bid))
                && said.index.is_none_or(|wanted| index(&it.name) == Some(wanted))
        };
        if said.link.is_none() && said.bid.is_none() && said.index.is_none() {
            let error = "MD_INFO has to name a link: by `link`, `index` or `bid`";
            return Err(ControlError::new(ErrorCode::Usage, error));
        }
        match uplinks().find(fits).and_then(|it| Some((it.name.clone(), it.bid?))) {
            Some(found) => Ok(found),
            None => {
                let known: Vec<_> = uplinks().map(|it| it.name.as_str()).collect();
                let error = "there is no uplink of this name, index and BID";
                Err(ControlError::new(ErrorCode::NotFound, error)
                    .help(format!("the uplinks are {}", known.join(", "))))
            }
        }
    }

    /// The home address whose home link is meant.
    fn home_said(&self, said: &MdInfo) -> Result<std::net::Ipv6Addr, ControlError> {
        let fits = |it: &&super::home::MobileHome| {
            said.home.as_ref().is_none_or(|home| *home == it.home.name)
                && said.home_address.is_none_or(|address| address == it.home.address)
        };
        let mut homes = self.homes.iter().filter(fits);
        match (homes.next(), homes.next()) {
            (Some(home), None) => Ok(home.home.address.0),
            (None, _) => Err(ControlError::new(ErrorCode::NotFound, "there is no such home")),
            (Some(_), Some(_)) => {
                let error = "there are several homes: name one by `home` or `home_address`";
                Err(ControlError::new(ErrorCode::Usage, error))
            }
        }
    }
}

fn done(done: String, claimed: Option<InterfaceName>) -> SentDocument {
    SentDocument { message: MobilityKind::MdInfo, done, claimed }
}
