//! One packet out of several copies: numbers for those that leave, order for those that arrive.
//!
//! `duplicate` sends a packet by several links. If the other end understands it, each copy carries
//! the packet's place in a sequence ([`CopySequence`](crate::wire::CopySequence)); the other end
//! delivers the first copy of each, in order.
//!
//! ```text
//!   Numbers ── sequence ──► copy by link 1 ──►┐
//!                      └──► copy by link 2 ──►┴► Window ──► deliver | hold | drop
//! ```
//!
//! Whose: a sequence belongs to one registration in one direction. Flows are spread over a few
//! streams, so that what is missing in one flow does not hold up all. Nothing waits for longer than
//! the links differ, and never for longer than [`Limits::hold`]; when that is over, what is missing
//! is given up, and delivered all the same should it come after all. Where there is no room to
//! hold a packet it is delivered out of order: order is given up before packets are.
//!
//! Copies never go straight past the home agent while they are marked, for the correspondent has
//! agreed to nothing; and the home link, which has no place for a mark, carries a packet alone or
//! not at all ([`Copies::routes`](crate::Copies::routes)).

mod numbers;
mod order;
mod skew;
mod window;

pub(crate) use numbers::Numbers;
pub use order::Limits;
pub(crate) use order::{Arrival, Came, Order};
pub(crate) use window::Tally;

use mtun_policy::HomeAddress;

use crate::decide::Side;

/// Whose sequence it is: the registration, and which end of its tunnel this is.
pub(crate) type Whose = (HomeAddress, Side);

/// Registrations are looked through for idle ones whenever they are twice as many as after the
/// last time, from here on.
const SWEEP_FROM: usize = 64;
