//! The mobiles of a home agent, one by one, while it runs: `mtun agent`.
//!
//! What is added and refused stands in a text of its own in the state directory, in the language
//! of the policy file. The policy in force is always both texts, compiled together: what does not
//! fit is refused with its place before anything is written, and what a policy file says later is
//! held against it too. The file is on the disk before the mobile hears of it.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use mtun_policy::{
    AddedMobile, Additions, Algorithm, AllowedMobile, Bid, HomeAddress, KeySource, Policy,
    Protection, Refusal, ServedHome,
};
use mtun_signaling::agent::AgentEvent;
use mtun_signaling::binding::BindingCacheEntry;
use tokio::sync::oneshot;

use super::apply::{Candidate, InForce, Purpose};
use super::key_store::KeyStore;
use super::owner::Owner;
use super::served::AgentHome;
use super::start::{StartError, agent_mobile};
use crate::control::documents::{
    AgentAddition, AgentChange, AgentChangedDocument, AgentListDocument, AgentMobileDocument,
    AgentMobileState, AgentSecurity, AgentSwitchedDocument, AllowedBy, Event, Severity,
};
use crate::control::{ControlError, ErrorCode, Response};
use crate::edge::state_file;
use crate::publish;

/// The name of the text in the state directory.
const FILE: &str = "mobiles.kdl";

/// What was added, with its place.
#[derive(Clone, Debug)]
pub(super) struct Added {
    pub file: PathBuf,
    pub additions: Additions,
    /// Rises with every change: who compiled with an earlier one has to compile again.
    pub version: u64,
}

impl Added {
    /// What earlier runs wrote down.
    pub fn open(state: &Path) -> Result<Self, StartError> {
        let file = state.join(FILE);
        let failed = |error| StartError::State { path: file.clone(), error };
        let text = match state_file::read(&file).map_err(failed)? {
            Some(octets) => String::from_utf8_lossy(&octets).into_owned(),
            None => String::new(),
        };
        let additions = match text.is_empty() {
            true => Additions::default(),
            false => {
                Additions::read(&file.display().to_string(), &text).map_err(StartError::Policy)?
            }
        };
        Ok(Self { file, additions, version: 0 })
    }

    /// Name and text for [`mtun_policy::parse_with`].
    pub fn text(&self) -> Option<(String, String)> {
        let some = self.additions != Additions::default();
        some.then(|| (self.file.display().to_string(), self.additions.text()))
    }

    fn write(&self) -> std::io::Result<()> {
        state_file::replace(&self.file, self.additions.text().as_bytes())
    }

    fn knows(&self, address: Ipv6Addr) -> Option<&AddedMobile> {
        self.additions.mobiles.iter().find(|it| it.address == address)
    }
}

/// One change of the mobiles, as it was asked for.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Add(Box<AgentAddition>),
    Remove(HomeAddress),
    Revoke(HomeAddress, Option<Bid>),
    Permit(HomeAddress, Option<Bid>),
}

impl Wish {
    fn done(&self) -> (AgentChange, HomeAddress, Option<Bid>) {
        match self {
            Self::Add(it) => (AgentChange::Added, HomeAddress(it.home_address), None),
            Self::Remove(address) => (AgentChange::Removed, *address, None),
            Self::Revoke(address, bid) => (AgentChange::Revoked, *address, *bid),
            Self::Permit(address, bid) => (AgentChange::Permitted, *address, *bid),
        }
    }
}

fn refused(message: impl Into<String>) -> ControlError {
    ControlError::new(ErrorCode::Refused, message)
}

impl Owner {
    /// Has a change of the mobiles compiled; [`Owner::mobiles_prepared`] goes on with it.
    pub(super) fn prepare_mobiles(
        &self,
        wish: Wish,
        reply: oneshot::Sender<Result<Response, ControlError>>,
    ) {
        let wished = self.no_trial().and_then(|()| self.wished(&wish));
        let added = match wished {
            Ok(added) => added,
            // The client may have left; that is no fault.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let texts = self.in_force.texts.clone();
        let text = added.text();
        let purpose = Purpose::Mobiles { wish, added };
        self.prepare_policy(purpose, Some(reply), move || Candidate::again(texts, text.as_ref()));
    }

    /// What would be written down.
    fn wished(&self, wish: &Wish) -> Result<Added, ControlError> {
        if self.served.is_empty() {
            return Err(refused("this node is no home agent")
                .help("`mtun --socket PATH agent …` asks another daemon"));
        }
        let mut added = self.added.clone();
        added.version += 1;
        let Additions { mobiles, refused: refusals } = &mut added.additions;
        let (_, address, bid) = wish.done();
        let known = self.served.iter().find(|it| it.allowed(address).is_some());
        let same = |it: &Refusal| it.address == address.0 && (bid.is_none() || it.bid == bid);
        match wish {
            Wish::Add(addition) => {
                let mobile = self.addition(addition)?;
                match mobiles.iter_mut().find(|it| it.address == mobile.address) {
                    Some(before) if addition.replace => *before = mobile,
                    Some(_) => {
                        return Err(refused(format!("{address} was added already"))
                            .help("--replace gives it another grant and keeps its bindings"));
                    }
                    None => mobiles.push(mobile),
                }
            }
            Wish::Remove(_) => {
                let before = mobiles.len();
                mobiles.retain(|it| it.address != address.0);
                if mobiles.len() == before {
                    return Err(match known {
                        Some(_) => refused(format!("{address} stands in the policy file")).help(
                            format!("take it out there and apply the file; until then, mtun agent revoke {address} refuses it"),
                        ),
                        None => self.not_served(address),
                    });
                }
                let of_file = self.policy_of_file_allows(address);
                refusals.retain(|it| it.address != address.0 || of_file);
            }
            Wish::Revoke(..) => {
                let Some(home) = known else { return Err(self.not_served(address)) };
                let home = home.served.name.to_string();
                let refusal = Refusal { home, address: address.0, bid };
                if !refusals.contains(&refusal) {
                    refusals.push(refusal);
                }
            }
            Wish::Permit(..) => {
                let before = refusals.len();
                refusals.retain(|it| !same(it));
                if refusals.len() == before {
                    let Some(home) = known else { return Err(self.not_served(address)) };
                    let allowed = home.allowed(address).expect("it was just found there");
                    let by_file = allowed.refused || !allowed.refused_bids.is_empty();
                    return Err(match by_file {
                        true => refused(format!("{address} is refused by the policy file"))
                            .help("take its `refuse` out there and apply the file"),
                        false => ControlError::new(
                            ErrorCode::NotFound,
                            format!("nothing of {address} is refused"),
                        ),
                    });
                }
            }
        }
        Ok(added)
    }

    fn not_served(&self, address: HomeAddress) -> ControlError {
        ControlError::new(ErrorCode::NotFound, format!("{address} is not served here"))
            .help("`mtun agent list` shows who is")
    }

    fn policy_of_file_allows(&self, address: HomeAddress) -> bool {
        let alone = self.in_force.texts.compile(None);
        alone.is_ok_and(|policy| {
            policy.served.iter().flat_map(|it| &it.mobiles).any(|it| it.address == address)
        })
    }

    fn addition(&self, addition: &AgentAddition) -> Result<AddedMobile, ControlError> {
        let usage = |message: String| ControlError::new(ErrorCode::Usage, message);
        let address = addition.home_address;
        let home = match &addition.home {
            Some(name) => self.served.iter().find(|it| it.served.name == *name),
            None => self.served.iter().find(|it| it.served.prefix.contains(&address)),
        };
        let Some(home) = home else {
            let homes: Vec<String> = self
                .served
                .iter()
                .map(|it| format!("{} ({})", it.served.name, it.served.prefix))
                .collect();
            return Err(refused(format!("{address} is in none of the home networks served here"))
                .help(format!("served are {}", homes.join(", "))));
        };
        let algorithm = |word: &str| match word {
            "hmac-sha256" => Ok(Algorithm::HmacSha256),
            "hmac-sha1" => Ok(Algorithm::HmacSha1),
            other => Err(usage(format!("{other} is no algorithm; hmac-sha256 and hmac-sha1 are"))),
        };
        let protection = match &addition.security {
            AgentSecurity::Unprotected => Protection::None,
            AgentSecurity::Named { name } => Protection::Named(name.clone()),
            AgentSecurity::KeyFile { spi, algorithm: word, path } => {
                if !path.is_absolute() {
                    return Err(usage(format!("{} is no absolute path", path.display())));
                }
                let (spi, key) = (*spi, KeySource::File(path.clone()));
                Protection::Own { spi, algorithm: algorithm(word)?, key }
            }
            AgentSecurity::KeyCredential { spi, algorithm: word, name } => {
                let (spi, key) = (*spi, KeySource::Credential(name.clone()));
                Protection::Own { spi, algorithm: algorithm(word)?, key }
            }
        };
        let mobile = AddedMobile {
            home: home.served.name.to_string(),
            address,
            name: addition.name.clone(),
            prefixes: addition.mobile_networks.clone(),
            bindings: addition.max_bindings,
            protection,
        };
        match mobile.fault() {
            Some(fault) => Err(usage(fault)),
            None => Ok(mobile),
        }
    }

    /// Goes on with a change that was compiled.
    pub(super) async fn mobiles_prepared(
        &mut self,
        candidate: Result<Candidate, ControlError>,
        wish: &Wish,
        added: Added,
    ) -> Result<AgentChangedDocument, ControlError> {
        self.no_trial()?;
        let policy = candidate?.policy;
        super::apply::acceptable(&self.policy, &policy)?;
        let keys = self.keys_for(&policy)?;
        added.write().map_err(|error| {
            refused(format!("{} cannot be written: {error}", added.file.display()))
                .help("nothing was changed; make room there and try again")
        })?;
        let (done, home_address, bid) = wish.done();
        let held = |owner: &Self| {
            let entries = owner.served.iter().filter_map(|it| it.agent.cache().get(home_address));
            entries.map(|entry: &BindingCacheEntry| entry.bindings.len()).sum::<usize>()
        };
        let before = held(self);
        self.added = added;
        let coming = InForce { policy, ..self.in_force.clone() };
        self.put_in_force(coming, keys).await;
        let what = match (done, bid) {
            (AgentChange::Added, _) => "may register from now on".to_owned(),
            (AgentChange::Removed, _) => "was removed".to_owned(),
            (AgentChange::Revoked, None) => "may not register for the time being".to_owned(),
            (AgentChange::Revoked, Some(bid)) => format!("may not register BID {bid} any more"),
            (AgentChange::Permitted, _) => "may register again".to_owned(),
        };
        self.tell(Event::Notice {
            severity: Severity::Info,
            code: "mobile-changed".to_owned(),
            text: format!("{home_address} {what}"),
        });
        let served = self.served.iter().find_map(|it| Some((it, it.allowed(home_address)?)));
        let by_hand = self.added.knows(home_address.0).is_some();
        Ok(AgentChangedDocument {
            done,
            mobile: served.map(|(it, allowed)| self.agent_mobile(it, allowed, by_hand)),
            home_address,
            bid,
            ended: before.saturating_sub(held(self)),
            file: self.added.file.clone(),
        })
    }

    /// Answers `agent switch`.
    pub(super) fn switch_mobile(
        &mut self,
        home_address: HomeAddress,
        agents: Vec<Ipv6Addr>,
    ) -> Result<AgentSwitchedDocument, ControlError> {
        let known = self.served.iter().position(|it| it.allowed(home_address).is_some());
        let Some(served) = known else { return Err(self.not_served(home_address)) };
        let it = &self.served[served];
        let home = &it.served.name;
        if !it.served.extensions.agent_switch {
            return Err(refused(format!("home {home} sends nobody to other agents"))
                .help("write extensions agent-switch=#true into the home and restart mtund"));
        }
        if it.allowed(home_address).is_some_and(|allowed| allowed.security.is_none()) {
            return Err(refused(format!("{home_address} has no key, so it could not believe it"))
                .help("name a security association for it"));
        }
        let held = it.agent.cache().get(home_address);
        let bindings = held.map_or(0, |entry| entry.bindings.len());
        if bindings == 0 {
            return Err(refused(format!("{home_address} is not bound, so it cannot be told")));
        }
        let now = self.now();
        let event = AgentEvent::Switch { home_address, agents: agents.clone() };
        let outputs = self.served[served].handle(now, event);
        self.agent_outputs(served, outputs);
        Ok(AgentSwitchedDocument { home_address, agents, bindings })
    }

    /// The keys that a policy needs: those that are in use as they are, new ones from their files.
    pub(super) fn keys_for(&self, policy: &Policy) -> Result<KeyStore, ControlError> {
        self.keys.following(&self.policy, policy).map_err(|error| refused(error.to_string()))
    }

    /// Answers `agent list`.
    pub(super) fn agent_list(&self) -> AgentListDocument {
        let added = self.added.additions.mobiles.iter().map(|it| it.address);
        let added: HashSet<Ipv6Addr> = added.collect();
        let all =
            self.served.iter().flat_map(|it| it.served.mobiles.iter().map(move |one| (it, one)));
        let document = |(it, allowed): (&AgentHome, &AllowedMobile)| {
            self.agent_mobile(it, allowed, added.contains(&allowed.address.0))
        };
        AgentListDocument { mobiles: all.map(document).collect() }
    }

    fn agent_mobile(
        &self,
        it: &AgentHome,
        allowed: &AllowedMobile,
        by_hand: bool,
    ) -> AgentMobileDocument {
        let now = self.now().monotonic;
        let bindings = self.mobile_document(it, allowed).bindings;
        let account = it.agent.account(allowed.address).copied().unwrap_or_default();
        let last = account.last_heard.map(|at| now.saturating_sub(at).as_secs());
        AgentMobileDocument {
            home: it.served.name.clone(),
            home_address: allowed.address,
            name: allowed.name.clone(),
            allowed_by: if by_hand { AllowedBy::Added } else { AllowedBy::Policy },
            state: match (allowed.refused, bindings.is_empty()) {
                (true, _) => AgentMobileState::Refused,
                (false, true) => AgentMobileState::Unbound,
                (false, false) => AgentMobileState::Bound,
            },
            security: allowed.security.clone(),
            mobile_networks: allowed.prefixes.clone(),
            max_bindings: allowed.max_bindings,
            refused_bids: allowed.refused_bids.clone(),
            bindings,
            last_heard_seconds: last,
            updates_accepted: account.accepted,
            updates_refused: account.refused,
            updates_forged: account.forged,
        }
    }

    /// Goes over to the mobiles of another policy, each by itself: who is in both with the same
    /// grant and key is not touched.
    pub(super) fn adopt_mobiles(&mut self, coming: &Policy, keys: KeyStore) {
        let before = std::mem::replace(&mut self.keys, keys);
        for served in 0..self.served.len() {
            let Some(new) = coming.served.get(served) else { continue };
            if self.served[served].served == *new && before == self.keys {
                continue;
            }
            let old = self.served[served].served.clone();
            self.leave_mobiles(served, &old, new);
            self.served[served].serve(new.clone());
            let known: HashMap<HomeAddress, &AllowedMobile> =
                old.mobiles.iter().map(|it| (it.address, it)).collect();
            for mobile in &new.mobiles {
                let key = |keys: &KeyStore, of: &AllowedMobile| keys.get(of.security.as_ref());
                let same = known.get(&mobile.address).is_some_and(|known| {
                    *known == mobile && key(&before, known) == key(&self.keys, mobile)
                });
                if same {
                    continue;
                }
                let event = AgentEvent::Allow(agent_mobile(new, mobile, &self.keys));
                let now = self.now();
                let outputs = self.served[served].handle(now, event);
                self.agent_outputs(served, outputs);
                // What is for its networks is its own from now on, registered or not.
                self.publish_mobile(served, mobile.address);
            }
        }
        self.routes_dirty = true;
    }

    /// Ends everything of the mobiles that `new` does not have.
    fn leave_mobiles(&mut self, served: usize, old: &ServedHome, new: &ServedHome) {
        let stays: HashSet<HomeAddress> = new.mobiles.iter().map(|it| it.address).collect();
        for home_address in old.mobiles.iter().map(|it| it.address) {
            if stays.contains(&home_address) {
                continue;
            }
            let now = self.now();
            let outputs = self.served[served].handle(now, AgentEvent::Disallow { home_address });
            self.agent_outputs(served, outputs);
            let own = self.hear_own();
            let it = &mut self.served[served];
            it.leave(home_address);
            publish::withdraw_mobile(&*it.tunnel.lane.engine, home_address, own);
            if let Some(keeping) = &self.keeping {
                keeping.leave(now, &self.served[served], home_address);
            }
        }
    }
}
