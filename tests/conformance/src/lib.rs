//! The checklist of requirements and what the tree says about them.
//!
//! `tests/conformance/checklist/*.txt` has one row per requirement: its id, what it asks for, and
//! either the proofs that it is met or the reason why it is not. [`Checklist`] reads the rows,
//! [`Tree`] finds where sources and transcripts name an id, and [`faults`] lists every place where
//! the two disagree: a table that names a proof that is not there is a lie, and fails a test.

mod checklist;
mod id;
mod page;
mod report;
mod tree;

pub use checklist::{Checklist, Level, Row, Section, State};
pub use page::requirements_page;
pub use report::{faults, rfc_report, section_report};
pub use tree::{Place, Tree};
