//! Making and removing links of kind `mtun`, by rtnetlink.

use std::ffi::CString;
use std::io;

use super::message::{ACK, ATTRIBUTE, Attributes, CREATE, EXCLUSIVE, REQUEST, Request};
use super::socket::Socket;
use super::{Family, KmodError, step};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const KIND: &[u8] = b"mtun";
/// Octets of `struct ifinfomsg`.
const HEADER: usize = 16;

/// Makes the link, or finds the one of this name and kind that is there; its index.
pub fn make(name: &str) -> Result<u32, KmodError> {
    let mut socket =
        Socket::open(libc::NETLINK_ROUTE).map_err(step("cannot open a netlink socket"))?;
    let terminated = [name.as_bytes(), &[0]].concat();
    let mut kind = (ATTRIBUTE as u16 + KIND.len() as u16).to_ne_bytes().to_vec();
    kind.extend(INFO_KIND.to_ne_bytes());
    kind.extend_from_slice(KIND);
    let mut request = Request::plain(NEW_LINK, REQUEST | ACK | CREATE | EXCLUSIVE);
    request.bare(&[0; HEADER]);
    request.attribute(NAME, &terminated);
    request.attribute(LINK_INFO, &kind);
    let made = socket.each(request, &mut |_, _| {});
    match made.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::EOPNOTSUPP) => return Err(KmodError::NoKind),
        Some(libc::EEXIST) if !is_ours(&mut socket, &terminated)? => {
            // The name is looked at before the kind, which may be unknown all the same.
            Family::open()?;
            return Err(KmodError::Exists(name.to_owned()));
        }
        Some(libc::EEXIST) => {}
        _ => made.map_err(step("cannot make a link of kind mtun"))?,
    }
    index_of(name).ok_or_else(|| KmodError::Exists(name.to_owned()))
}

fn is_ours(socket: &mut Socket, terminated: &[u8]) -> Result<bool, KmodError> {
    let mut request = Request::plain(GET_LINK, REQUEST | ACK);
    request.bare(&[0; HEADER]);
    request.attribute(NAME, terminated);
    let mut ours = false;
    let asked = socket.each(request, &mut |kind, body| {
        let attributes = Attributes(body.get(HEADER..).unwrap_or_default());
        let kind_of = Attributes(attributes.find(LINK_INFO)).find(INFO_KIND);
        let kind_of = kind_of.strip_suffix(&[0]).unwrap_or(kind_of);
        ours |= kind == NEW_LINK && kind_of == KIND;
    });
    asked.map_err(step("cannot look a link up"))?;
    Ok(ours)
}

/// Removes a link; one that is gone already is fine.
pub fn remove(index: u32) {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::plain(DELETE_LINK, REQUEST | ACK);
    request.bare(&header);
    // What stays behind drops what enters it, and the next run takes it over.
    let _ = Socket::open(libc::NETLINK_ROUTE).and_then(|mut it| it.each(request, &mut |_, _| {}));
}

fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_module_or_the_right_says_so() {
        // Whichever of the two this machine has; a name that is no name is nobody's either way.
        let refused = make("a-name-that-is-far-too-long").unwrap_err();
        assert!(!matches!(refused, KmodError::Served(_)), "{refused}");
    }
}
