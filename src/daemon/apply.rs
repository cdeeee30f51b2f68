//! Putting a policy in force, on trial if somebody wants that, and going back.
//!
//! ```text
//!   apply ──► read, check, test (a thread of its own) ──► in force ──────────────► stays
//!                        │                                    │ on trial
//!                        ▼                                    ├─ confirmed ──────► stays
//!              refused, nothing changed                       ├─ time is over ───┐
//!                                                             ├─ its client left ┼► the one before
//!                                                             └─ rolled back ────┘
//! ```
//!
//! Reading a large policy takes a while and is not the owner loop's affair: links may die
//! meanwhile. What was read is put in force in one step of the loop, and every home sees the new
//! rules by one atomic store. The state directory knows of a trial before packets do, so that a
//! daemon that is killed in the middle of one starts with the policy that was last confirmed.

use std::sync::Arc;
use std::time::Duration;

use mtun_policy::{Home, HomeName, Interface, Policy, Role, ServedHome};
use tokio::sync::{oneshot, watch};

use super::history::Coming;
use super::key_store::KeyStore;
use super::mobiles::{Added, Wish};
use super::owner::{Attached, Owner};
use super::texts::{AddedText, PolicyTexts};
use crate::control::documents::{
    Event, PolicyAppliedDocument, PolicyCause, PolicyConfirmedDocument, PolicyHistoryDocument,
    PolicyRolledBackDocument, TakenBack,
};
use crate::control::protocol::PolicySource;
use crate::control::{ControlError, ErrorCode, Response};
use mtun_signaling::mobile::MobileEvent;

/// The longest trial.
const TRIAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A policy that was read, has no fault and passes its own tests.
#[derive(Debug)]
pub(super) struct Candidate {
    pub policy: Arc<Policy>,
    pub texts: PolicyTexts,
    pub tests: usize,
}

impl Candidate {
    /// Reads a policy. Takes a while.
    pub fn read(source: &PolicySource, added: Option<&AddedText>) -> Result<Self, ControlError> {
        let (policy, texts) = PolicyTexts::read(source, added)?;
        Self::tried(policy, texts)
    }

    /// Reads a policy of the history again.
    pub fn again(texts: PolicyTexts, added: Option<&AddedText>) -> Result<Self, ControlError> {
        let policy = texts.compile(added)?;
        Self::tried(policy, texts)
    }

    fn tried(policy: Policy, texts: PolicyTexts) -> Result<Self, ControlError> {
        let tests = super::answers::file_tests(&policy).map_err(|failures| {
            let error = format!("the policy fails its own tests: {failures}");
            ControlError::new(ErrorCode::Refused, error)
                .help("`mtun policy test FILE` shows each; nothing was changed")
        })?;
        Ok(Self { policy: Arc::new(policy), texts, tests })
    }
}

/// Who wants a policy in force, and how.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Who; `None` for the daemon itself.
    pub uid: Option<u32>,
    /// For how long it is on trial.
    pub confirm: Option<Duration>,
    /// Ends when the client that asked has left, if that ends a trial.
    pub left: Option<watch::Receiver<()>>,
}

/// What is to be done with a policy once it was read.
#[derive(Debug)]
pub(super) enum Purpose {
    /// It was asked to be in force.
    Apply(Wanted),
    /// The history is asked to be gone back in, to this entry.
    Restore { entry: u64, uid: Option<u32> },
    /// A mobile of a home agent is to be added, removed or refused.
    Mobiles {
        wish: Wish,
        /// What is to be written down.
        added: Added,
    },
}

/// A policy that was read in a thread of its own.
#[derive(Debug)]
pub(super) struct Prepared {
    pub candidate: Result<Candidate, ControlError>,
    pub purpose: Purpose,
    /// The version of what was added that it was compiled with.
    pub added: u64,
    /// Takes the answer; `None` after SIGHUP.
    pub reply: Option<oneshot::Sender<Result<Response, ControlError>>>,
}

/// A policy in force that goes unless somebody confirms it.
#[derive(Debug)]
pub(super) struct Trial {
    /// Its number in the history.
    pub entry: u64,
    /// When its time is over.
    pub until: Duration,
    /// Ends when the client that asked for it has left, if that ends the trial.
    pub left: Option<watch::Receiver<()>>,
    /// What was in force before.
    before: InForce,
}

/// A policy in force.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub policy: Arc<Policy>,
    pub texts: PolicyTexts,
    /// Its number in the history; `None` if it could not be written there.
    pub entry: Option<u64>,
}

/// Returns when the client of a trial has left.
pub(super) async fn client_left(trial: Option<&mut Trial>) {
    match trial.and_then(|trial| trial.left.as_mut()) {
        // Nothing is ever sent: it ends when the other end is gone.
        Some(left) => while left.changed().await.is_ok() {},
        None => std::future::pending().await,
    }
}

impl Owner {
    /// Has a policy read; [`Owner::prepared`] goes on with it.
    pub(super) fn prepare_policy(
        &self,
        purpose: Purpose,
        reply: Option<oneshot::Sender<Result<Response, ControlError>>>,
        read: impl FnOnce() -> Result<Candidate, ControlError> + Send + 'static,
    ) {
        let (done, added) = (self.preparing.clone(), self.added.version);
        tokio::task::spawn_blocking(move || {
            let prepared = Prepared { candidate: read(), purpose, added, reply };
            // The daemon may be stopping; then nobody waits for it.
            let _ = done.blocking_send(prepared);
        });
    }

    /// Goes on with a policy that was read.
    pub(super) async fn prepared(&mut self, prepared: Prepared) {
        let Prepared { mut candidate, purpose, added, reply } = prepared;
        if added != self.added.version {
            // Mobiles were added or removed meanwhile.
            match purpose {
                Purpose::Mobiles { wish, .. } => {
                    return reply.map_or((), |reply| self.prepare_mobiles(wish, reply));
                }
                _ => {
                    let added = self.added.text();
                    candidate = candidate.and_then(|it| Candidate::again(it.texts, added.as_ref()));
                }
            }
        }
        let answer = match purpose {
            Purpose::Mobiles { wish, added } => {
                self.mobiles_prepared(candidate, &wish, added).await.map(Response::AgentChanged)
            }
            Purpose::Apply(wanted) => {
                let applied = match candidate {
                    Ok(candidate) => self.apply(candidate, wanted).await,
                    Err(error) => Err(error),
                };
                match &applied {
                    Ok(applied) => {
                        self.refused = None;
                        self.tell(Event::PolicyApplied { name: applied.name.clone() });
                    }
                    Err(error) => self.policy_refused(error),
                }
                applied.map(Response::PolicyApplied)
            }
            Purpose::Restore { entry, uid } => match candidate {
                Ok(candidate) => {
                    self.restore(candidate, entry, uid).await.map(Response::PolicyRolledBack)
                }
                Err(error) => Err(error),
            },
        };
        match (reply, answer) {
            // The client may have left; that is no fault.
            (Some(reply), answer) => drop(reply.send(answer)),
            (None, Err(error)) => tracing::error!("{error}"),
            (None, Ok(_)) => {}
        }
    }

    pub(super) fn policy_refused(&mut self, error: &ControlError) {
        self.refused = Some(error.message.clone());
        self.tell(Event::PolicyRefused { message: error.message.clone() });
    }

    /// Refuses what cannot be while a policy is on trial.
    pub(super) fn no_trial(&self) -> Result<(), ControlError> {
        let Some(trial) = &self.trial else { return Ok(()) };
        let left = trial.until.saturating_sub(self.now().monotonic).as_secs();
        let name = &self.in_force.policy.name;
        let error = format!("policy {name} is on trial for another {left} s");
        Err(ControlError::new(ErrorCode::Refused, error)
            .help("`mtun policy confirm` keeps it, `mtun policy rollback` takes it back"))
    }

    /// Puts a policy in force, or refuses it whole.
    async fn apply(
        &mut self,
        candidate: Candidate,
        wanted: Wanted,
    ) -> Result<PolicyAppliedDocument, ControlError> {
        self.no_trial()?;
        if let Some(time) = wanted.confirm
            && (time.is_zero() || time > TRIAL_MAX)
        {
            let error = format!("a trial lasts 1 s to {} s", TRIAL_MAX.as_secs());
            return Err(ControlError::new(ErrorCode::Usage, error));
        }
        let Candidate { policy, texts, tests } = candidate;
        acceptable(&self.in_force.policy, &policy)?;
        let keys = self.keys_for(&policy)?;
        self.ready_for(&policy)
            .map_err(|error| ControlError::new(ErrorCode::Refused, format!("{error:#}")))?;
        let changed = !texts.says_the_same(&self.in_force.texts);
        let before = self.in_force.clone();
        let entry = match self.history.put(&Coming {
            name: &policy.name,
            texts: &texts,
            uid: wanted.uid,
            cause: PolicyCause::Apply,
            rules: rules(&policy),
            on_trial: wanted.confirm.is_some(),
            restores: None,
        }) {
            Ok(entry) => Some(entry),
            Err(error) if wanted.confirm.is_some() => {
                let error = format!("the trial cannot be noted in the state directory: {error}");
                return Err(ControlError::new(ErrorCode::Refused, error).help(
                    "after a crash the daemon could not go back; make room, or apply without \
                     --confirm",
                ));
            }
            Err(error) => {
                tracing::error!(%error, "the history of policies could not be written");
                None
            }
        };
        self.put_in_force(InForce { policy, texts, entry }, keys).await;
        if let (Some(time), Some(entry)) = (wanted.confirm, entry) {
            let until = self.now().monotonic + time;
            self.trial = Some(Trial { entry, until, left: wanted.left, before });
            let name = self.in_force.policy.name.clone();
            self.tell(Event::PolicyOnTrial { name, seconds: time.as_secs() });
        }
        Ok(PolicyAppliedDocument {
            name: self.in_force.policy.name.clone(),
            rules: rules(&self.in_force.policy),
            tests,
            generation: self.generation(),
            changed,
            entry,
            confirm_within_seconds: wanted.confirm.map(|time| time.as_secs()),
        })
    }

    /// Puts an entry of the history in force again.
    async fn restore(
        &mut self,
        candidate: Candidate,
        entry: u64,
        uid: Option<u32>,
    ) -> Result<PolicyRolledBackDocument, ControlError> {
        self.no_trial()?;
        acceptable(&self.in_force.policy, &candidate.policy)?;
        let taken_back = self.in_force.entry;
        let coming = InForce { policy: candidate.policy, texts: candidate.texts, entry: None };
        self.go_back(coming, entry, uid, PolicyCause::Rollback).await;
        self.rolled_back(taken_back, TakenBack::ByHand)
    }

    /// Answers `policy confirm`.
    pub(super) fn confirm(&mut self) -> Result<PolicyConfirmedDocument, ControlError> {
        let Some(trial) = &self.trial else {
            return Err(ControlError::new(
                ErrorCode::NotFound,
                "no policy waits for being confirmed",
            )
            .help("`mtun policy history` shows what became of the last ones"));
        };
        let entry = trial.entry;
        if let Err(error) = self.history.confirm(entry) {
            let error = format!("that cannot be noted in the state directory: {error}");
            return Err(ControlError::new(ErrorCode::Refused, error)
                .help("make room there and confirm again, before the time is over"));
        }
        self.trial = None;
        self.tell(Event::PolicyConfirmed { name: self.in_force.policy.name.clone() });
        let confirmed = self.history.get(entry).expect("it was just confirmed").document();
        Ok(PolicyConfirmedDocument { confirmed })
    }

    /// Answers `policy rollback` without a number while a policy is on trial.
    pub(super) async fn end_trial(
        &mut self,
        why: TakenBack,
        uid: Option<u32>,
    ) -> Result<PolicyRolledBackDocument, ControlError> {
        let Some(trial) = self.trial.take() else {
            return Err(ControlError::new(ErrorCode::NotFound, "no policy is on trial"));
        };
        let cause = match why {
            TakenBack::ByHand => PolicyCause::Rollback,
            TakenBack::TimeOver | TakenBack::ClientLeft => PolicyCause::Unconfirmed,
        };
        let restores = trial.before.entry.unwrap_or(0);
        self.go_back(trial.before, restores, uid, cause).await;
        self.rolled_back(Some(trial.entry), why)
    }

    /// Takes back a policy whose time is over.
    pub(super) async fn trial_deadline(&mut self) {
        let now = self.now().monotonic;
        if self.trial.as_ref().is_some_and(|trial| trial.until <= now) {
            self.trial_over(TakenBack::TimeOver).await;
        }
    }

    /// Takes back the policy on trial, with nobody to answer to.
    pub(super) async fn trial_over(&mut self, why: TakenBack) {
        if let Err(error) = self.end_trial(why, None).await {
            tracing::error!("the policy before could not be put in force again: {error}");
        }
    }

    /// Puts an earlier policy in force. It was good enough before, and nothing that the machine or
    /// the history refuses is worth staying with one that was not.
    async fn go_back(
        &mut self,
        mut coming: InForce,
        restores: u64,
        uid: Option<u32>,
        cause: PolicyCause,
    ) {
        coming.entry = None;
        let (policy, texts) = (coming.policy.clone(), coming.texts.clone());
        if let Err(error) = self.ready_for(&policy) {
            tracing::error!("not all that the policy needs is there: {error:#}");
        }
        let keys = self.keys_for(&policy).unwrap_or_else(|error| {
            tracing::error!("not all keys of the policy can be read: {error}");
            self.keys.of(&policy)
        });
        self.put_in_force(coming, keys).await;
        let noted = self.history.put(&Coming {
            name: &policy.name,
            texts: &texts,
            uid,
            cause,
            rules: rules(&policy),
            on_trial: false,
            restores: Some(restores),
        });
        match noted {
            Ok(entry) => self.in_force.entry = Some(entry),
            Err(error) => tracing::error!(%error, "the history of policies could not be written"),
        }
    }

    fn rolled_back(
        &self,
        taken_back: Option<u64>,
        why: TakenBack,
    ) -> Result<PolicyRolledBackDocument, ControlError> {
        let document = |entry: Option<u64>| Some(self.history.get(entry?)?.document());
        let taken_back = document(taken_back);
        self.tell(Event::PolicyTakenBack {
            name: taken_back.as_ref().map_or_else(String::new, |it| it.name.clone()),
            restored: self.in_force.policy.name.clone(),
            why,
        });
        match (document(self.in_force.entry), taken_back) {
            (Some(restored), Some(taken_back)) => {
                Ok(PolicyRolledBackDocument { restored, taken_back, generation: self.generation() })
            }
            _ => Err(ControlError::new(
                ErrorCode::Degraded,
                "the policy before is in force again, but the history could not be written",
            )),
        }
    }

    /// Makes everything ready that a policy needs and that could be refused.
    fn ready_for(&mut self, policy: &Policy) -> anyhow::Result<()> {
        for home in &mut self.homes {
            home.tunnel.widen(&policy.ingresses)?;
        }
        // What is to be translated must not leave untranslated, not even once.
        self.translate_for(policy)
    }

    /// One step from one policy to another: one atomic store for each home.
    pub(super) async fn put_in_force(&mut self, coming: InForce, keys: KeyStore) {
        let reordered = self.reordered(&coming.policy);
        let now = self.now().monotonic;
        // What was carried so far was carried under the quotas so far.
        self.count_octets();
        for (home, new) in self.homes.iter_mut().zip(&coming.policy.homes) {
            let agent = home.home.agent;
            home.home = new.clone();
            if home.search.is_some() {
                // The one that was found.
                home.home.agent = agent;
            }
            home.steering.adopt(&coming.policy, new, now);
            home.prober.adopt(&coming.policy, new);
        }
        self.adopt_mobiles(&coming.policy, keys);
        self.policy = coming.policy.clone();
        self.in_force = coming;
        self.find_ingresses().await;
        self.watch_octets();
        self.want_facts();
        self.publish_homes();
        self.want_named();
        self.attached.extend(reordered);
        self.tell_attached();
        // Who applies a policy has changed something, here or at an agent.
        self.tell_homes(MobileEvent::AskAgain);
        self.routes_dirty = true;
    }

    /// Attached links whose priority differs under this policy, to be registered anew.
    fn reordered(&self, policy: &Policy) -> Vec<Attached> {
        let changed = |interface: &&Interface| {
            let known = self.policy.interface(interface.name.as_str());
            known.is_some_and(|known| known.priority != interface.priority)
        };
        let event = |interface: &Interface| {
            let attachment = self.links.get(&interface.name)?.state.as_ref().ok()?.clone();
            Some(Attached { bid: interface.bid?, priority: interface.priority, attachment })
        };
        policy.interfaces.iter().filter(changed).filter_map(event).collect()
    }

    /// Answers `policy history`.
    pub(super) fn policy_history(
        &self,
        entry: Option<u64>,
    ) -> Result<PolicyHistoryDocument, ControlError> {
        let document = |known: &super::history::Entry| {
            let mut document = known.document();
            if let Some(trial) = self.trial.as_ref().filter(|trial| trial.entry == known.entry) {
                let left = trial.until.saturating_sub(self.now().monotonic);
                document.confirm_within_seconds = Some(left.as_millis().div_ceil(1000) as u64);
            }
            document
        };
        let Some(wanted) = entry else {
            let entries = self.history.entries().map(document).collect();
            return Ok(PolicyHistoryDocument { entries, text: None });
        };
        let known = self.history_entry(wanted)?;
        let texts = self.history.texts(wanted).map_err(|error| {
            let error = format!("the texts of policy {wanted} cannot be read: {error}");
            ControlError::new(ErrorCode::Internal, error)
        })?;
        Ok(PolicyHistoryDocument { entries: vec![document(known)], text: Some(texts.text) })
    }

    /// The texts that `policy rollback` goes back to, with the number of their entry.
    pub(super) fn texts_to_restore(
        &self,
        entry: Option<u64>,
    ) -> Result<(u64, PolicyTexts), ControlError> {
        self.no_trial()?;
        let known = match (entry, self.in_force.entry) {
            (Some(entry), _) => self.history_entry(entry)?,
            (None, present) => {
                present.and_then(|entry| self.history.before(entry)).ok_or_else(|| {
                    ControlError::new(ErrorCode::NotFound, "there is no policy to go back to")
                        .help("`mtun policy history` shows those that are kept")
                })?
            }
        };
        let texts = self.history.texts(known.entry).map_err(|error| {
            let error = format!("the texts of policy {} cannot be read: {error}", known.entry);
            ControlError::new(ErrorCode::Internal, error)
        })?;
        Ok((known.entry, texts))
    }

    fn history_entry(&self, entry: u64) -> Result<&super::history::Entry, ControlError> {
        self.history.get(entry).ok_or_else(|| {
            let error = format!("the history has no policy {entry}");
            ControlError::new(ErrorCode::NotFound, error)
                .help("`mtun policy history` shows those that are kept")
        })
    }
}

fn rules(policy: &Policy) -> usize {
    policy.homes.iter().map(|home| home.rules.rules.len()).sum()
}

/// What may not change while the daemon runs, because bindings, keys or the tunnel hang on it.
pub(super) fn acceptable(old: &Policy, new: &Policy) -> Result<(), ControlError> {
    let mut differs = Vec::new();
    let mut compare = |what: String, same: bool| {
        if !same {
            differs.push(what);
        }
    };
    compare("role".to_owned(), old.role == new.role);
    // At a home agent each mobile has its own, and comes and goes with it.
    let agent = old.role == Role::HomeAgent;
    compare("security".to_owned(), agent || old.securities == new.securities);
    let without_mobiles = |policy: &Policy| -> Vec<ServedHome> {
        let emptied = |it: &ServedHome| ServedHome { mobiles: Vec::new(), ..it.clone() };
        policy.served.iter().map(emptied).collect()
    };
    compare("served home".to_owned(), without_mobiles(old) == without_mobiles(new));
    let correspondent = |policy: &Policy| (policy.correspondent.clone(), policy.strangers);
    compare("correspondent".to_owned(), correspondent(old) == correspondent(new));
    // What a link is called and registered under; what it may cost and when it is usable is free.
    let names = |policy: &Policy| -> Vec<_> {
        policy.interfaces.iter().map(|it| (it.name.clone(), it.bid)).collect()
    };
    let (mut before, mut after) = (names(old), names(new));
    before.sort();
    after.sort();
    compare("interface names and BIDs".to_owned(), before == after);
    let homes = |policy: &Policy| -> Vec<HomeName> {
        policy.homes.iter().map(|home| home.name.clone()).collect()
    };
    compare("names of homes".to_owned(), homes(old) == homes(new));
    for (old, new) in old.homes.iter().zip(&new.homes) {
        let mut field =
            |what: &str, same: bool| compare(format!("{what} of home {}", new.name), same);
        field("tunnel", old.tunnel == new.tunnel);
        field("agent", old.agent == new.agent);
        let address = |home: &Home| (home.address, home.prefix_len);
        field("address", address(old) == address(new));
        field("mobile-network", old.mobile_networks == new.mobile_networks);
        let register = |home: &Home| (home.register.clone(), home.prefix_mode);
        field("register", register(old) == register(new));
        field("security", old.security == new.security);
        // What starts it is a matter of rules, which are free.
        let optimization = |home: &Home| {
            home.route_optimization.map(|plan| (plan.lifetime, plan.max_correspondents))
        };
        field("route-optimization", optimization(old) == optimization(new));
        field("returning-home", old.returning_home == new.returning_home);
    }
    if differs.is_empty() {
        return super::start::fields_can_be_told(new);
    }
    let error =
        format!("the new policy changes more than a running daemon can: {}", differs.join(", "));
    Err(ControlError::new(ErrorCode::Refused, error)
        .help("restart mtund with the new file; flows of registered homes come back by themselves"))
}
