//! Which policy a start begins with: the file, unless what it says was tried and taken back.

use std::path::Path;
use std::sync::Arc;

use mtun_policy::Policy;

use super::apply::InForce;
use super::history::{Coming, History};
use super::start::StartError;
use super::texts::{AddedText, PolicyTexts};
use crate::control::documents::{PolicyCause, PolicyEntryState};
use crate::control::protocol::PolicySource;

/// The policy of a start.
#[derive(Debug)]
pub(super) struct Chosen {
    pub policy: Arc<Policy>,
    texts: PolicyTexts,
    /// The entry of the history that it is taken from, and why it is not the file.
    instead: Option<(u64, String)>,
}

impl Chosen {
    /// Reads the file, and the history if the file says what was taken back: a policy that
    /// nobody confirmed, or that somebody rolled back, does not return by a restart. After a
    /// crash in the middle of a trial it is the policy that was last confirmed.
    pub fn at_start(
        file: &Path,
        history: &History,
        added: Option<&AddedText>,
    ) -> Result<Self, StartError> {
        let read = PolicyTexts::read(&PolicySource::File(file.to_owned()), added);
        let (policy, texts) = read.map_err(StartError::Policy)?;
        let from_file =
            |policy| Self { policy: Arc::new(policy), texts: texts.clone(), instead: None };
        let crashed = history.present().filter(|it| it.state == PolicyEntryState::Unconfirmed);
        let Some(gone) = crashed.or_else(|| history.was_taken_back(&texts)) else {
            return Ok(from_file(policy));
        };
        let Some(confirmed) = history.last_confirmed() else { return Ok(from_file(policy)) };
        let again = history.texts(confirmed.entry).map_err(|error| error.to_string());
        let again = again.and_then(|texts| match texts.compile(added) {
            Ok(policy) => Ok((policy, texts)),
            Err(faults) => Err(faults.to_string()),
        });
        let (policy, texts) = match again {
            Ok(confirmed) => confirmed,
            Err(error) => {
                tracing::error!(
                    entry = confirmed.entry,
                    "policy {} was not confirmed, and the one before cannot be read: {error}",
                    gone.name
                );
                return Ok(from_file(policy));
            }
        };
        let why = format!(
            "policy {} (number {} of the history) was not confirmed or was taken back; in force is {} \
             (number {})",
            gone.name, gone.entry, confirmed.name, confirmed.entry
        );
        let instead = Some((confirmed.entry, why));
        Ok(Self { policy: Arc::new(policy), texts, instead })
    }

    /// Notes in the history what is in force from now on. Returns what is to be said of it.
    pub fn note(self, history: &mut History) -> (Option<String>, InForce) {
        let Self { policy, texts, instead } = self;
        let (restores, why) = instead.unzip();
        if let Some(why) = &why {
            tracing::warn!("{why}");
        }
        let present = history.present().filter(|it| it.state == PolicyEntryState::InForce);
        let known = present
            .filter(|it| history.texts(it.entry).is_ok_and(|known| known == texts))
            .map(|it| it.entry);
        let entry = known.or_else(|| {
            let noted = history.put(&Coming {
                name: &policy.name,
                texts: &texts,
                uid: None,
                cause: match restores {
                    Some(_) => PolicyCause::Unconfirmed,
                    None => PolicyCause::Start,
                },
                rules: policy.homes.iter().map(|home| home.rules.rules.len()).sum(),
                on_trial: false,
                restores,
            });
            let broken = |error: &std::io::Error| {
                tracing::error!(%error, "the history of policies cannot be written");
            };
            noted.inspect_err(broken).ok()
        });
        (why, InForce { policy, texts, entry })
    }
}
