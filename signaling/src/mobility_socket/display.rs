//! Messages for people: one line each.

use std::fmt;

use super::message::{BeCause, DadState, MdCommand, MobilityMessage};

/// Writes ` word value` for what there is.
struct Words<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Words<'_, '_> {
    fn say(
        &mut self,
        word: &str,
        value: Option<impl fmt::Display>,
    ) -> Result<&mut Self, fmt::Error> {
        if let Some(value) = value {
            write!(self.0, " {word} {value}")?;
        }
        Ok(self)
    }

    fn all(&mut self, values: &[impl fmt::Display]) -> Result<&mut Self, fmt::Error> {
        values.iter().try_for_each(|value| write!(self.0, " {value}"))?;
        Ok(self)
    }
}

impl fmt::Display for MobilityMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        let mut words = Words(f);
        match self {
            Self::NodetypeInfo(it) => {
                let has = if it.enabled { "is" } else { "is no" };
                words
                    .say(has, Some(it.role))?
                    .say("at", it.address)?
                    .say("home", it.home.as_ref())?
            }
            Self::BcAdd(it) => words
                .say("mobile", Some(it.home_address))?
                .say("BID", it.bid)?
                .say("is at", Some(it.care_of))?
                .say("home", it.home.as_ref())?
                .say("correspondent", it.correspondent)?
                .all(&it.prefixes)?,
            Self::BcRemove(it) => words
                .say("mobile", Some(it.home_address))?
                .say("BID", it.bid)?
                .say("home", it.home.as_ref())?
                .say("correspondent", it.correspondent)?,
            Self::BcFlush(it) => {
                words.say("home", it.home.as_ref())?.say("correspondent", it.correspondent)?
            }
            Self::BulAdd(it) => words
                .say("home", Some(&it.home))?
                .say("BID", it.bid)?
                .say("link", it.link.as_ref())?
                .say("care-of address", Some(it.care_of))?
                .say("at", Some(it.peer))?
                .say("is", Some(it.phase))?
                .say("status", it.status.filter(|status| *status != 0))?,
            Self::BulRemove(it) => {
                words.say("home", Some(&it.home))?.say("BID", it.bid)?.say("at", Some(it.peer))?
            }
            Self::BulFlush(it) => words.say("home", Some(&it.home))?.say("at", it.peer)?,
            Self::MdInfo(it) => {
                let command = match it.command {
                    MdCommand::ReReg => "REREG",
                    MdCommand::DeregHome => "DEREGHOME",
                    MdCommand::DeregForeign => "DEREGFOREIGN",
                    MdCommand::Scan => "SCAN",
                };
                words
                    .all(&[command])?
                    .say("link", it.link.as_ref())?
                    .say("BID", it.bid)?
                    .say("care-of address", it.care_of)?
                    .say("home", it.home.as_ref())?
                    .say("driven by", it.external.then_some("a client"))?
                    .say("because:", it.reason.as_ref())?
            }
            Self::HomeHint(it) => {
                let where_ = if it.at_home { "at home" } else { "left home" };
                words
                    .say(where_, Some(it.home_address))?
                    .say("home", Some(&it.home))?
                    .say("link", it.link.as_ref())?
                    .say("beside", it.beside.then_some("bindings abroad"))?
            }
            Self::RrHint(it) => words
                .say("mobile", Some(it.home_address))?
                .say("correspondent", Some(it.correspondent))?
                .say("home", it.home.as_ref())?,
            Self::BeHint(it) => {
                let cause = match it.cause {
                    BeCause::UnknownBinding => "unknown binding",
                    BeCause::HeadersEaten => "headers eaten",
                    BeCause::OptionRefused => "option refused",
                    BeCause::Unreachable => "unreachable",
                };
                words
                    .all(&[cause])?
                    .say("mobile", Some(it.home_address))?
                    .say("peer", Some(it.peer))?
                    .say("BID", it.bid)?
                    .say("home", it.home.as_ref())?
            }
            Self::Dad(it) => {
                let state = it.state.map(|state| match state {
                    DadState::UnderWay => "under way",
                    DadState::Unique => "unique",
                    DadState::Duplicate => "duplicate",
                    DadState::Undone => "undone",
                });
                words
                    .say("address", Some(it.address))?
                    .say("is", state)?
                    .say("home", it.home.as_ref())?
            }
        };
        Ok(())
    }
}
