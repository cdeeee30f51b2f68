//! The keys that the policy names, read once at start.

use std::collections::BTreeMap;

use mtun_policy::{KeySource, Policy, Security, SecurityName};
use mtun_signaling::auth::{self, SecurityAssociation};

use crate::key::{self, KeyFileError};

/// Why a security association of the policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its key file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The key is for another algorithm than the policy says.
    #[error(
        "security {name}: the policy says {policy}, the key {path} is for {file}; make them \
         agree on both ends"
    )]
    Algorithm {
        /// The association.
        name: SecurityName,
        /// The policy's algorithm.
        policy: auth::Algorithm,
        /// The key file's.
        file: auth::Algorithm,
        /// The key file, or the credential.
        path: String,
    },
    /// The SPI is one that RFC 4285 §5 reserves.
    #[error("security {0}: an SPI below 256 is reserved; choose another on both ends")]
    Spi(SecurityName),
}

/// Security associations by the name that the policy gives them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyStore(BTreeMap<SecurityName, SecurityAssociation>);

impl KeyStore {
    /// Reads the key of every security association of the policy.
    pub fn read(policy: &Policy) -> Result<Self, KeyError> {
        let associations = policy.securities.iter().map(|security| {
            association(security).map(|association| (security.name.clone(), association))
        });
        associations.collect::<Result<_, _>>().map(Self)
    }

    /// The keys of another policy: those of associations that are the same in both stay as they
    /// are, whatever their files hold by now; the others are read.
    pub fn following(&self, before: &Policy, policy: &Policy) -> Result<Self, KeyError> {
        // An agent's mobiles may have one each.
        let known: BTreeMap<&SecurityName, &Security> =
            before.securities.iter().map(|it| (&it.name, it)).collect();
        let associations = policy.securities.iter().map(|security| {
            let same = known.get(&security.name) == Some(&security);
            let known = self.0.get(&security.name).filter(|_| same).cloned();
            let association = known.map_or_else(|| association(security), Ok)?;
            Ok((security.name.clone(), association))
        });
        associations.collect::<Result<_, _>>().map(Self)
    }

    /// Those of these keys that a policy names.
    pub fn of(&self, policy: &Policy) -> Self {
        let named = policy.securities.iter().filter_map(|security| {
            Some((security.name.clone(), self.0.get(&security.name)?.clone()))
        });
        Self(named.collect())
    }

    /// The association of this name; `None` for `security none`.
    pub fn get(&self, name: Option<&SecurityName>) -> Option<SecurityAssociation> {
        self.0.get(name?).cloned()
    }
}

fn association(security: &Security) -> Result<SecurityAssociation, KeyError> {
    let (file, secret) = match &security.key {
        KeySource::File(path) => match key::read_handed_over(path) {
            Some(handed_over) => handed_over?,
            None => key::read(path)?,
        },
        KeySource::Credential(name) => key::read_credential(name)?,
    };
    let policy = match security.algorithm {
        mtun_policy::Algorithm::HmacSha256 => auth::Algorithm::HmacSha256,
        mtun_policy::Algorithm::HmacSha1 => auth::Algorithm::HmacSha1,
    };
    if policy != file {
        let path = match &security.key {
            KeySource::File(path) => path.display().to_string(),
            KeySource::Credential(name) => name.clone(),
        };
        return Err(KeyError::Algorithm { name: security.name.clone(), policy, file, path });
    }
    SecurityAssociation::new(security.spi, policy, secret)
        .map_err(|_| KeyError::Spi(security.name.clone()))
}
