//! What the invariants are worth: nodes that are broken on purpose are caught, each by the
//! invariant that is about what they do wrong.

use mtun_simulation::Invariant::*;
use mtun_simulation::{Fault, Invariant, live};

/// Lives that a fault may survive.
const PATIENCE: u64 = 500;

/// The fault and the invariants that are about it.
const CAUGHT: [(Fault, &[Invariant]); 19] = [
    (Fault::AgentForgetsSequence, &[OnlyAuthentic, AcknowledgedSurvives]),
    (Fault::AgentBelievesAnybody, &[OnlyAuthentic, OneOwner]),
    (Fault::AgentForgetsBindings, &[AcknowledgedSurvives, TablesAgree]),
    (Fault::AgentForgetsDisk, &[AcknowledgedSurvives, OnlyAuthentic]),
    (Fault::AgentMixesUpPrefixes, &[OneOwner]),
    (Fault::AgentWithoutCaps, &[Bounded]),
    (Fault::AgentPublishesNoEnd, &[TablesAgree]),
    (Fault::TunnelFromAnywhere, &[SourceInsideBinding]),
    (Fault::TunnelFromAnyAgent, &[SourceInsideBinding]),
    (Fault::MobileLeaks, &[SourceInsideBinding]),
    (Fault::MobilePublishesNoEnd, &[TablesAgree, SourceInsideBinding]),
    (Fault::MobileRepeatsSequence, &[SequenceRises]),
    (Fault::MobileBelievesAnybody, &[OnlyAuthentic]),
    (Fault::MobileLeavesSilently, &[TablesAgree]),
    (Fault::RoutePublishesNoEnd, &[TablesAgree]),
    (Fault::CorrespondentPublishesNoEnd, &[TablesAgree]),
    (Fault::MobileTellsRulesOnce, &[TablesAgree]),
    (Fault::AgentSendsByItsOwnRules, &[TablesAgree]),
    (Fault::RouterWithoutLimit, &[NoLoop]),
];

#[test]
fn every_fault_is_caught() {
    assert_eq!(CAUGHT.map(|(fault, _)| fault), Fault::ALL);
    let mut missed = Vec::new();
    for (fault, by) in CAUGHT {
        let caught = |seed| {
            let violation = live(seed, fault, false).violation?;
            by.contains(&violation.invariant).then_some((seed, violation))
        };
        match (0..PATIENCE).find_map(caught) {
            Some((seed, violation)) => println!("{fault:?}: seed {seed}: {violation:.160}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "missed: {missed:?}");
}
