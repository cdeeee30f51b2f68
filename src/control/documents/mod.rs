//! The documents that the daemon answers with, one type per kind of answer.
//!
//! They are the public face of the daemon: `--json` prints them as they are, the dashboard reads
//! them, and other programs may. A field is never removed or given another meaning within one
//! [`VERSION`](super::protocol::VERSION); fields may be added. Names carry their unit
//! (`_seconds`, `_bytes`, `_ms`) where a bare number would leave a doubt, and what does not exist
//! yet is `null`, never an empty text.

mod agent;
mod diff;
mod downlink;
mod event;
mod explain;
mod facts;
mod flows;
mod health;
mod history;
mod link;
mod mobility;
mod policy;
mod routes;
mod status;
mod steer;

pub use agent::{
    AgentAddition, AgentChange, AgentChangedDocument, AgentListDocument, AgentMobileDocument,
    AgentMobileState, AgentSecurity, AgentSwitchedDocument, AllowedBy,
};
pub use diff::{DiffMoveDocument, PolicyDiffDocument};
pub use downlink::{
    AtAgentDocument, DigestState, DownlinkDocument, FlowBindingDocument, FlowBindingState,
    FlowBindingsTaken, FlowDownDocument, RuleDownlinkDocument,
};
pub use event::{Event, EventDocument, Severity, TakenBack};
pub use explain::{
    CandidateDocument, ExplainDocument, ExplainVerdict, LinkFactDocument, PassedRuleDocument,
    RuleReference,
};
pub use facts::{RadioDocument, SourceDocument, SourceState, VehicleDocument};
pub use flows::{FlowDocument, FlowKeyDocument, FlowPath, FlowsDocument, MoveDocument};
pub use health::{Health, HealthReason, HealthState};
pub use history::{
    PolicyCause, PolicyConfirmedDocument, PolicyEntryState, PolicyHistoryDocument,
    PolicyHistoryEntry, PolicyRolledBackDocument,
};
pub use link::LinkAdminDocument;
pub use mobility::{SentDocument, SubscriptionBody, SubscriptionLine};
pub use policy::{
    FaultDocument, PolicyAdditionsDocument, PolicyAppliedDocument, PolicyDocument,
    PolicyHomeDocument, RuleDocument,
};
pub use routes::{BoundMobileDocument, CorrespondentDocument, RouteDocument, RouteState};
pub use status::{
    BindingDocument, BindingPhase, BindingsDocument, DroppedDocument, HomeDocument,
    HomeLinkDocument, LinkDocument, LinkState, MobileDocument, MobilesDocument, PathMtuDocument,
    QuotaDocument, QuotaLevel, StatusCode, StatusDocument, StoreDocument, TunnelDocument,
};
pub use steer::{OverrideDocument, SteerDocument, SteerListDocument, SteerUndoDocument};
