//! Who may say what: the matrix of the twelve messages.

use std::fmt;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::names::MobilityKind;

/// What a request needs of whoever asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Looking, and hearing what happens.
    Reading,
    /// Sending flows another way for a while.
    Steering,
    /// Saying that the node has moved.
    Movement,
    /// Everything else that changes something.
    Administration,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Reading, Self::Steering, Self::Movement, Self::Administration];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reading => "reading",
            Self::Steering => "steering",
            Self::Movement => "movement",
            Self::Administration => "administration",
        })
    }
}

/// What becomes of a message that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromClient {
    /// It is done, for clients of this class.
    Done(Class),
    /// It is refused for everybody, with the reason.
    Refused(&'static str),
}

impl MobilityKind {
    /// What becomes of it when a client sends it.
    pub fn from_client(self) -> FromClient {
        use FromClient::{Done, Refused};
        match self {
            Self::NodetypeInfo | Self::BcRemove | Self::BcFlush | Self::Dad => {
                Done(Class::Administration)
            }
            Self::BulRemove | Self::BulFlush | Self::RrHint => Done(Class::Steering),
            Self::MdInfo => Done(Class::Movement),
            Self::BcAdd => {
                Refused("a binding cache entry is made by an authentic Binding Update alone")
            }
            Self::BulAdd => Refused(
                "a binding update list entry is made by a care-of address: send MD_INFO REREG",
            ),
            Self::HomeHint => {
                Refused("the node says that it is at home: send MD_INFO DEREGHOME to say so")
            }
            Self::BeHint => {
                Refused("a Binding Error answers a packet, and only the node knows its packets")
            }
        }
    }

    /// Who tells it, what a client's own does, and whether late comers are told: the rows of the
    /// page.
    fn row(self) -> [&'static str; 3] {
        match self {
            Self::NodetypeInfo => [
                "every role",
                "what is so already is confirmed; anything else is a conflict, since the policy \
                 file says what a node is",
                "while enabled",
            ],
            Self::BcAdd => ["home agent, correspondent", "", "yes"],
            Self::BcRemove => [
                "home agent, correspondent",
                "at a home agent, all bindings of this mobile end; it may register again",
                "ends BC_ADD",
            ],
            Self::BcFlush => [
                "home agent",
                "at a home agent, all bindings of this home end; its mobiles may register again",
                "ends BC_ADD",
            ],
            Self::BulAdd => ["mobile node or router", "", "yes"],
            Self::BulRemove => [
                "mobile node or router",
                "what this correspondent holds ends, and packets to it take the tunnel",
                "ends BUL_ADD",
            ],
            Self::BulFlush => [
                "mobile node or router",
                "the same of one correspondent or all of them; the home agent is not touched",
                "ends BUL_ADD",
            ],
            Self::MdInfo => [
                "mobile node or router",
                "the link is the client's from then on, and moved as it says",
                "while attached",
            ],
            Self::HomeHint => ["mobile node or router", "", "while at home"],
            Self::RrHint => [
                "mobile node or router",
                "the straight way to this correspondent is tried at once",
                "no",
            ],
            Self::BeHint => ["mobile node or router, correspondent", "", "no"],
            Self::Dad => [
                "home agent",
                "the home address is looked for on a real home link; the verdict is told as DAD",
                "no",
            ],
        }
    }
}

/// The matrix as the page has it: a Markdown table.
pub fn matrix() -> String {
    let mut table = String::from(
        "| message | told by | a client may send it | what happens then | told to late comers |\n\
         |---|---|---|---|---|\n",
    );
    for kind in MobilityKind::ALL {
        let [told, done, late] = kind.row();
        let (may, then) = match kind.from_client() {
            FromClient::Done(class) => (format!("with the right of {class}"), done),
            FromClient::Refused(reason) => ("no".to_owned(), reason),
        };
        let row = writeln!(table, "| `{kind}` | {told} | {may} | {then} | {late} |");
        row.expect("a text takes what it is given");
    }
    table
}
