//! What clients ask by messages of the mobility socket, other than movement.
//!
//! Each has the meaning that an operator would expect, or is refused with the reason; the matrix of
//! [`mtun_signaling::mobility_socket::matrix`] says which. Rights were judged before.

use mtun_policy::{HomeAddress, HomeName, Role};
use mtun_signaling::agent::AgentEvent;
use mtun_signaling::mobility_socket::{
    BcFlush, BcRemove, BulFlush, BulRemove, DadState, DuplicateDetection, MobilityMessage,
    NodetypeInfo, RrHint,
};
use tokio::sync::watch;

use super::owner::Owner;
use crate::control::documents::{Event, SentDocument, Severity};
use crate::control::{ControlError, ErrorCode, Peer};
use crate::edge::home_link::HomeLinkEdge;

fn refused(message: impl Into<String>) -> ControlError {
    ControlError::new(ErrorCode::Refused, message)
}

fn not_found(message: impl Into<String>) -> ControlError {
    ControlError::new(ErrorCode::NotFound, message)
}

impl Owner {
    /// Does what a client asks by a message.
    pub(super) fn sent(
        &mut self,
        message: MobilityMessage,
        peer: Peer,
        left: watch::Receiver<()>,
    ) -> Result<SentDocument, ControlError> {
        let kind = message.kind();
        let done = match message {
            MobilityMessage::MdInfo(said) => return self.detected(&said, peer, left),
            MobilityMessage::NodetypeInfo(wanted) => self.nodetype_asked(&wanted),
            MobilityMessage::BcRemove(which) => self.end_mobile(&which, &peer),
            MobilityMessage::BcFlush(which) => self.end_mobiles(&which, &peer),
            MobilityMessage::BulRemove(which) => self.end_straight(&which),
            MobilityMessage::BulFlush(which) => self.end_all_straight(&which),
            MobilityMessage::RrHint(hint) => self.try_straight(&hint),
            MobilityMessage::Dad(asked) => self.look_for_duplicate(&asked),
            MobilityMessage::BcAdd(_)
            | MobilityMessage::BulAdd(_)
            | MobilityMessage::HomeHint(_)
            | MobilityMessage::BeHint(_) => Err(refused(format!("{kind} is the node's to tell"))),
        };
        Ok(SentDocument { message: kind, done: done?, claimed: None })
    }

    /// J7: what a node is, its policy says; what is so already may be said again.
    fn nodetype_asked(&self, wanted: &NodetypeInfo) -> Result<String, ControlError> {
        let is_so = self.nodetypes().into_iter().any(|it| match it {
            MobilityMessage::NodetypeInfo(it) => {
                it.role == wanted.role
                    && (wanted.home.is_none() || it.home == wanted.home)
                    && (wanted.address.is_none() || it.address == wanted.address)
            }
            _ => false,
        });
        let (role, present) = (wanted.role, self.policy.role);
        if is_so == wanted.enabled {
            return Ok(match is_so {
                true => format!("this node is {role} already"),
                false => format!("this node is no {role} as it is"),
            });
        }
        let moves = |role| matches!(role, Role::MobileNode | Role::MobileRouter);
        let exclude = wanted.enabled
            && ((moves(role) && present == Role::HomeAgent)
                || (role == Role::HomeAgent && moves(present)));
        Err(match exclude {
            true => ControlError::new(
                ErrorCode::Conflict,
                format!("{role} and {present} on one node exclude each other"),
            )
            .help("run one of them in a network namespace or on a machine of its own"),
            false => ControlError::new(
                ErrorCode::Conflict,
                format!("this node is {present} because its policy says so"),
            )
            .help("put a policy in force that says otherwise: `mtun policy apply FILE`"),
        })
    }

    // ---- the home agent's binding cache --------------------------------------------------------

    fn end_mobile(&mut self, which: &BcRemove, peer: &Peer) -> Result<String, ControlError> {
        if which.bid.is_some() {
            let error = "an agent ends all bindings of a mobile, not one of them";
            return Err(ControlError::new(ErrorCode::Usage, error).help("leave `bid` out"));
        }
        self.not_as_correspondent(which.correspondent.is_some())?;
        let fits = |it: &super::served::AgentHome| {
            which.home.as_ref().is_none_or(|home| *home == it.served.name)
                && it.allowed(which.home_address).is_some()
        };
        let address = which.home_address;
        let served = self.served.iter().position(fits);
        let served = served.ok_or_else(|| not_found(format!("no home serves {address}")))?;
        let held = self.served[served].agent.cache().get(address);
        let count = held.map_or(0, |entry| entry.bindings.len());
        if count == 0 {
            return Err(not_found(format!("mobile {address} is not bound")));
        }
        self.end_bindings(served, address);
        self.ended_by_hand(peer, format!("{count} bindings of mobile {address}"));
        Ok(format!("{count} bindings of {address} ended"))
    }

    fn end_mobiles(&mut self, which: &BcFlush, peer: &Peer) -> Result<String, ControlError> {
        self.not_as_correspondent(which.correspondent.is_some())?;
        let Some(home) = &which.home else {
            let error = "BC_FLUSH has to name the home network: `home`";
            return Err(ControlError::new(ErrorCode::Usage, error));
        };
        let served = self.served.iter().position(|it| it.served.name == *home);
        let served = served.ok_or_else(|| not_found(format!("home {home} is not served here")))?;
        let cache = self.served[served].agent.cache().iter();
        let bound: Vec<HomeAddress> = cache.map(|entry| entry.home_address).collect();
        for address in &bound {
            self.end_bindings(served, *address);
        }
        // Told as one, and each has nothing left to tell.
        let flush = BcFlush { home: Some(home.clone()), correspondent: None };
        self.hint(|| MobilityMessage::BcFlush(flush));
        let count = bound.len();
        self.ended_by_hand(peer, format!("all bindings of home {home}, {count} mobiles"));
        Ok(format!("the bindings of {count} mobiles ended"))
    }

    fn not_as_correspondent(&self, named: bool) -> Result<(), ControlError> {
        if named {
            return Err(refused(
                "what mobiles bound at a correspondent ends with its lifetime or by themselves",
            ));
        }
        if self.served.is_empty() {
            return Err(refused("this node is no home agent: it has no binding cache to end"));
        }
        Ok(())
    }

    fn end_bindings(&mut self, served: usize, home_address: HomeAddress) {
        let now = self.now();
        let outputs = self.served[served].handle(now, AgentEvent::End { home_address });
        self.agent_outputs(served, outputs);
    }

    fn ended_by_hand(&self, peer: &Peer, what: String) {
        let text = format!("user id {} ended {what}", peer.uid);
        let code = "bindings-ended".to_owned();
        self.tell(Event::Notice { severity: Severity::Warning, code, text });
    }

    // ---- a mobile's bindings at correspondents -------------------------------------------------

    fn home_named(
        &self,
        name: Option<&HomeName>,
        address: HomeAddress,
    ) -> Result<usize, ControlError> {
        let home = self.home_of(address);
        let home = home.filter(|home| name.is_none_or(|it| *it == self.homes[*home].home.name));
        home.ok_or_else(|| not_found(format!("no home of ours has the home address {address}")))
    }

    fn end_straight(&mut self, which: &BulRemove) -> Result<String, ControlError> {
        if which.bid.is_some() {
            let error = "what a correspondent holds ends as a whole";
            return Err(ControlError::new(ErrorCode::Usage, error).help("leave `bid` out"));
        }
        let home = self.home_named(Some(&which.home), which.home_address)?;
        self.not_the_agent(home, which.peer)?;
        match self.unwant(home, Some(which.peer)) {
            0 => Err(not_found(format!("correspondent {} is not asked for anything", which.peer))),
            _ => Ok(format!("packets to {} take the tunnel", which.peer)),
        }
    }

    fn end_all_straight(&mut self, which: &BulFlush) -> Result<String, ControlError> {
        let home = self.homes.iter().position(|it| it.home.name == which.home);
        let home = home.ok_or_else(|| not_found(format!("there is no home {}", which.home)))?;
        which.peer.map_or(Ok(()), |peer| self.not_the_agent(home, peer))?;
        let count = self.unwant(home, which.peer);
        Ok(format!("packets to {count} correspondents take the tunnel"))
    }

    fn not_the_agent(&self, home: usize, peer: std::net::Ipv6Addr) -> Result<(), ControlError> {
        match self.homes[home].node.update_list().peer.0 == peer {
            true => Err(refused("what the home agent holds follows the links")
                .help("send MD_INFO DEREGFOREIGN for the link whose binding is to end")),
            false => Ok(()),
        }
    }

    fn unwant(&mut self, home: usize, peer: Option<std::net::Ipv6Addr>) -> usize {
        let now = self.now();
        let Some(optimization) = &mut self.homes[home].optimization else { return 0 };
        let wanted = optimization.wanted().filter(|it| peer.is_none_or(|peer| peer == *it));
        let wanted: Vec<_> = wanted.collect();
        let outputs: Vec<_> = wanted.iter().flat_map(|it| optimization.unwant(now, *it)).collect();
        self.optimization_outputs(home, outputs);
        wanted.len()
    }

    fn try_straight(&mut self, hint: &RrHint) -> Result<String, ControlError> {
        let home = self.home_named(hint.home.as_ref(), hint.home_address)?;
        let now = self.now();
        let Some(optimization) = &mut self.homes[home].optimization else {
            return Err(refused("the policy of this home has no route optimization"));
        };
        let outputs = optimization.want_at_once(now, hint.correspondent);
        self.optimization_outputs(home, outputs);
        Ok(format!("the straight way to {} is tried", hint.correspondent))
    }

    // ---- the home link -------------------------------------------------------------------------

    fn look_for_duplicate(&mut self, asked: &DuplicateDetection) -> Result<String, ControlError> {
        let address = HomeAddress(asked.address);
        if asked.state.is_some() {
            let error = "whether an address is unique is the node's to say";
            return Err(ControlError::new(ErrorCode::Usage, error).help("leave `state` out"));
        }
        let fits = |it: &super::served::AgentHome| {
            asked.home.as_ref().is_none_or(|home| *home == it.served.name)
                && it.allowed(address).is_some()
        };
        let served = self.served.iter().position(fits);
        let served = served.ok_or_else(|| not_found(format!("no home serves {address}")))?;
        let it = &self.served[served];
        if it.home_link.as_ref().and_then(HomeLinkEdge::index).is_none() {
            return Err(refused("this home is on no link: nobody could have the address there"));
        }
        if it.agent.cache().get(address).is_some() {
            return Err(refused(format!("mobile {address} is bound: this node answers for it")));
        }
        self.check_duplicate(served, address, false);
        Ok(format!("{address} is looked for"))
    }

    /// Tells how far duplicate address detection has come.
    pub(super) fn show_duplicate(&mut self, served: usize, address: HomeAddress, state: DadState) {
        let home = Some(self.served[served].served.name.clone());
        let (address, state) = (address.0, Some(state));
        self.hint(|| MobilityMessage::Dad(DuplicateDetection { address, home, state }));
    }
}
