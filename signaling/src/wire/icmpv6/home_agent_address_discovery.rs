//! Home Agent Address Discovery Request and Reply.

use std::net::Ipv6Addr;

use super::IcmpError;

/// R, in the first of the two octets after the identifier (RFC 3963 §7.1, §7.2).
const ROUTER: u8 = 0x80;

/// Asks the home agents of a link for their addresses (RFC 6275 §6.5).
///
/// ```text
/// +-------------------------------+-+-----------------------------+
/// |          Identifier           |R|          Reserved           |
/// +-------------------------------+-+-----------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeAgentAddressDiscoveryRequest {
    /// Ties the reply to this request.
    pub identifier: u16,
    /// R: agents that serve mobile routers are asked for.
    pub router: bool,
}

impl HomeAgentAddressDiscoveryRequest {
    /// From the fixed part; what follows means nothing.
    // req HA-70: reserved bits are not looked at.
    pub(super) fn read(identifier: u16, flags: u8) -> Self {
        Self { identifier, router: flags & ROUTER != 0 }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identifier.to_be_bytes());
        out.extend_from_slice(&[if self.router { ROUTER } else { 0 }, 0]);
    }
}

/// Lists home agents, most preferred first (RFC 6275 §6.6).
///
/// ```text
/// +-------------------------------+-+-----------------------------+
/// |          Identifier           |R|          Reserved           |
/// +-------------------------------+-+-----------------------------+
/// :              Home Agent Addresses, 16 octets each             :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeAgentAddressDiscoveryReply {
    /// Copied from the request.
    pub identifier: u16,
    /// R: these agents serve mobile routers.
    pub router: bool,
    /// The agents.
    pub agents: Vec<Ipv6Addr>,
}

impl HomeAgentAddressDiscoveryReply {
    /// From the fixed part and what follows it.
    pub(super) fn read(identifier: u16, flags: u8, rest: &[u8]) -> Result<Self, IcmpError> {
        let (addresses, more) = rest.as_chunks::<16>();
        if !more.is_empty() {
            return Err(IcmpError::Length(super::FIXED + rest.len()));
        }
        let agents = addresses.iter().map(|octets| Ipv6Addr::from(*octets)).collect();
        Ok(Self { identifier, router: flags & ROUTER != 0, agents })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identifier.to_be_bytes());
        out.extend_from_slice(&[if self.router { ROUTER } else { 0 }, 0]);
        for agent in &self.agents {
            out.extend_from_slice(&agent.octets());
        }
    }
}
