//! What operators want of links: drained, held, or as the rules say.
//!
//! It holds for every home, until it is taken back: another policy does not end it, nor does a link
//! that goes and comes, nor a restart.

use mtun_policy::InterfaceName;
use mtun_policy::steering::{Admin, Fact};

use super::owner::Owner;
use crate::control::documents::{Event, LinkAdminDocument};
use crate::control::{ControlError, ErrorCode};

impl Owner {
    /// `mtun link drain|hold|release`.
    pub(super) fn administer(
        &mut self,
        link: &str,
        admin: Admin,
        uid: Option<u32>,
    ) -> Result<LinkAdminDocument, ControlError> {
        if self.homes.is_empty() {
            let error = "an agent's links carry whatever comes; there is nothing to choose";
            return Err(
                ControlError::new(ErrorCode::Refused, error).help("run `mtun link` on the mobile")
            );
        }
        let Some(bid) = self.policy.interface(link).and_then(|interface| interface.bid) else {
            let known: Vec<_> = self.policy.interfaces.iter().map(|it| it.name.as_str()).collect();
            let error = format!("there is no link {link}");
            return Err(ControlError::new(ErrorCode::NotFound, error)
                .help(format!("the links are {}", known.join(", "))));
        };
        let before = self.administered(link);
        let now = self.now().monotonic;
        self.tell_all_steerings(now, &Fact::Admin { bid, admin });
        // Packets first, people then.
        self.publish_homes();
        let link = InterfaceName::from(link);
        if before != admin {
            self.tell(Event::LinkAdministered { link: link.clone(), admin, uid });
            self.counted.changed();
            self.keep_ledgers();
        }
        Ok(LinkAdminDocument { link, admin, before, generation: self.generation() })
    }

    /// What is wanted of a link at present; the same in every home.
    fn administered(&self, link: &str) -> Admin {
        let reports = self.homes.first().map(|home| home.steering.links()).unwrap_or_default();
        let report = reports.iter().find(|report| report.interface.as_str() == link);
        report.map(|report| report.admin).unwrap_or_default()
    }
}
