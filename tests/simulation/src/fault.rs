//! Nodes that are broken on purpose: what the invariants are for must be caught by them.
//!
//! A fault sits around a machine or an engine, at the seam where a node hands something over, so
//! that no machine needs a switch to be wrong.

/// What is broken, in every node of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The agent takes any sequence number and timestamp.
    AgentForgetsSequence,
    /// The agent takes any authenticator.
    AgentBelievesAnybody,
    /// The agent loses the bindings it acknowledged, now and then.
    AgentForgetsBindings,
    /// The agent keeps what it must and does not read it after a restart.
    AgentForgetsDisk,
    /// The agent gives every router the prefix of another.
    AgentMixesUpPrefixes,
    /// The agent takes any number of bindings.
    AgentWithoutCaps,
    /// The agent tells its packets nothing of bindings that end.
    AgentPublishesNoEnd,
    /// What enters the tunnel at the agent may come from any care-of address.
    TunnelFromAnywhere,
    /// What enters the tunnel at the mobile may come from any agent.
    TunnelFromAnyAgent,
    /// The mobile sends in the plain what it cannot send through the tunnel.
    MobileLeaks,
    /// The mobile goes on sending by bindings that ended.
    MobilePublishesNoEnd,
    /// The mobile's sequence numbers do not rise.
    MobileRepeatsSequence,
    /// The mobile believes acknowledgements without a key.
    MobileBelievesAnybody,
    /// The mobile tells the agent of nothing that ends.
    MobileLeavesSilently,
    /// The mobile goes on sending straight by bindings that ended at a correspondent.
    RoutePublishesNoEnd,
    /// The correspondent goes on sending straight to bindings that ended.
    CorrespondentPublishesNoEnd,
    /// The mobile tells its agent its first rules and none of the later ones.
    MobileTellsRulesOnce,
    /// The agent acknowledges flow bindings and sends by its own rules.
    AgentSendsByItsOwnRules,
    /// Routers remove the limit of further encapsulations.
    RouterWithoutLimit,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 19] = [
        Self::AgentForgetsSequence,
        Self::AgentBelievesAnybody,
        Self::AgentForgetsBindings,
        Self::AgentForgetsDisk,
        Self::AgentMixesUpPrefixes,
        Self::AgentWithoutCaps,
        Self::AgentPublishesNoEnd,
        Self::TunnelFromAnywhere,
        Self::TunnelFromAnyAgent,
        Self::MobileLeaks,
        Self::MobilePublishesNoEnd,
        Self::MobileRepeatsSequence,
        Self::MobileBelievesAnybody,
        Self::MobileLeavesSilently,
        Self::RoutePublishesNoEnd,
        Self::CorrespondentPublishesNoEnd,
        Self::MobileTellsRulesOnce,
        Self::AgentSendsByItsOwnRules,
        Self::RouterWithoutLimit,
    ];
}
