//! The roles that this program was built with; each is a cargo feature.

use mtun_policy::{Policy, Role};

/// A role that was left out when this program was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this mtund was built without the role {role} that the policy has: build it with the cargo \
     feature `{feature}`, or take another policy"
)]
pub struct NotBuilt {
    /// What the policy says.
    pub role: Role,
    /// What is missing.
    pub feature: &'static str,
}

/// The features of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    mobile: bool,
    agent: bool,
    correspondent: bool,
}

impl Built {
    /// Those of this program.
    pub const HERE: Self = Self {
        mobile: cfg!(feature = "mobile"),
        agent: cfg!(feature = "agent"),
        correspondent: cfg!(feature = "correspondent"),
    };

    /// Refuses a policy that needs more.
    pub fn carries(self, policy: &Policy) -> Result<(), NotBuilt> {
        let (built, feature) = match policy.role {
            Role::MobileNode | Role::MobileRouter => (self.mobile, "mobile"),
            Role::HomeAgent => (self.agent, "agent"),
            Role::Correspondent => (self.correspondent, "correspondent"),
        };
        if !built {
            return Err(NotBuilt { role: policy.role, feature });
        }
        if policy.correspondent.is_some() && !self.correspondent {
            return Err(NotBuilt { role: Role::Correspondent, feature: "correspondent" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example, with a further line.
    fn policy(name: &str, further: &str) -> Policy {
        let path = format!("{}/examples/{name}.kdl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap() + further;
        mtun_policy::parse(name, &text, &mtun_policy::NoFiles).unwrap()
    }

    #[test]
    fn every_role_needs_its_feature_and_no_other() {
        let whole = Built { mobile: true, agent: true, correspondent: true };
        let none = Built { mobile: false, agent: false, correspondent: false };
        let cases = [
            ("mobile-node", Built { mobile: true, ..none }, "mobile", Role::MobileNode),
            ("figure-11", Built { mobile: true, ..none }, "mobile", Role::MobileRouter),
            ("home-agent", Built { agent: true, ..none }, "agent", Role::HomeAgent),
            (
                "correspondent",
                Built { correspondent: true, ..none },
                "correspondent",
                Role::Correspondent,
            ),
        ];
        for (name, enough, feature, role) in cases {
            let policy = policy(name, "");
            assert_eq!(whole.carries(&policy), Ok(()), "{name}");
            assert_eq!(enough.carries(&policy), Ok(()), "{name}");
            assert_eq!(none.carries(&policy), Err(NotBuilt { role, feature }), "{name}");
        }
        let both = policy("mobile-node", "\ncorrespondent\n");
        let missing = NotBuilt { role: Role::Correspondent, feature: "correspondent" };
        assert_eq!(Built { mobile: true, ..none }.carries(&both), Err(missing));
        assert_eq!(
            missing.to_string(),
            "this mtund was built without the role correspondent that the policy has: build it \
             with the cargo feature `correspondent`, or take another policy"
        );
    }
}
