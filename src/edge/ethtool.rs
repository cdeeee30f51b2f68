//! Questions about a link that its driver answers, and one setting of it: `SIOCETHTOOL`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

const GET_LINK: u32 = 0x0a;
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;

/// Asks about the links of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Ethtool(OwnedFd);

/// A link by its name at this moment, as the kernel wants to be asked.
#[expect(missing_debug_implementations, reason = "an ifreq is a union")]
pub struct Name(libc::ifreq);

impl Name {
    /// `ENODEV` for what can be no link's name.
    pub fn new(name: &str) -> io::Result<Self> {
        // SAFETY: plain numbers and pointers, for which all bits may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, octet) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([octet]);
        }
        Ok(Self(request))
    }

    /// As people write it.
    pub fn text(&self) -> String {
        let octets: Vec<u8> = self.0.ifr_name.iter().map(|it| it.to_ne_bytes()[0]).collect();
        let length = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
        String::from_utf8_lossy(&octets[..length]).into_owned()
    }
}

impl Ethtool {
    /// Opens a socket, which is what such questions are asked of.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: a plain system call.
        let socket = unsafe { libc::socket(libc::AF_INET6, kind, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
    }

    /// The name of the link of this index.
    pub fn name(&self, index: u32) -> io::Result<Name> {
        // SAFETY: plain numbers and pointers, for which all bits may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = index.cast_signed();
        // SAFETY: the index is set, and a name fits into the request.
        unsafe { self.ask(libc::SIOCGIFNAME, &mut request) }?;
        Ok(Name(request))
    }

    /// Whether it is up and has its carrier.
    pub fn has_carrier(&self, link: Name) -> io::Result<bool> {
        self.value(link, GET_LINK, 0).map(|it| it != 0)
    }

    /// Whether packets that it receives one behind the other go on as one.
    pub fn merges_received(&self, link: Name) -> io::Result<bool> {
        self.value(link, GET_GRO, 0).map(|it| it != 0)
    }

    /// Says whether they do. Needs `CAP_NET_ADMIN`.
    pub fn merge_received(&self, link: Name, merge: bool) -> io::Result<()> {
        self.value(link, SET_GRO, merge.into()).map(drop)
    }

    fn value(&self, Name(mut request): Name, command: u32, data: u32) -> io::Result<u32> {
        let mut value = Value { command, data };
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the name is set, and the kernel reads and writes the two numbers of the value.
        unsafe { self.ask(libc::SIOCETHTOOL, &mut request) }?;
        Ok(value.data)
    }

    /// # Safety
    ///
    /// The request is what this question wants, its pointer included.
    unsafe fn ask(&self, question: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: as the caller says; the socket is open.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), question as _, &raw mut *request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_takes_for_one() {
        for name in ["lo", "wlan0.5", "fifteen-octets-"] {
            assert_eq!(Name::new(name).unwrap().text(), name);
        }
        for name in ["", "sixteen-octets--"] {
            let refused = Name::new(name).err().and_then(|error| error.raw_os_error());
            assert_eq!(refused, Some(libc::ENODEV), "'{name}'");
        }
    }
}
