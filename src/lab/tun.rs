//! A TUN device: an interface without a link layer whose other side is a file descriptor.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

use super::last_error;
use super::namespace::Namespace;

/// `_IOW('T', 226, int)`: tells the device whether it has a carrier.
const TUNSETCARRIER: libc::c_ulong = 0x4004_54e2;

/// One end of a user-space link.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes the device `name` in `namespace`; it goes when the `Tun` is dropped.
    pub fn open(namespace: &Namespace, name: &str) -> Result<Self> {
        namespace
            .shell()
            .show(&format!("ip -n {} tuntap add {name} mode tun   # held open", namespace.name()));
        let file = namespace
            .run(|| -> Result<File> {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                    .open("/dev/net/tun")?;
                // SAFETY: an all-zero ifreq is a valid value of the type.
                let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
                anyhow::ensure!(name.len() < request.ifr_name.len(), "name too long: {name}");
                for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                    *to = from as libc::c_char;
                }
                request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
                // SAFETY: TUNSETIFF reads one ifreq, which outlives the call.
                if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &request) } < 0 {
                    return Err(last_error("TUNSETIFF"));
                }
                Ok(file)
            })
            .with_context(|| format!("cannot make TUN {name} in {}", namespace.name()))?;
        Ok(Self { file })
    }

    /// The device of a descriptor inherited from another process.
    pub fn inherited(descriptor: OwnedFd) -> Self {
        Self { file: File::from(descriptor) }
    }

    /// Next packet into `buffer`: its length; `None` when there is none at present.
    pub fn receive(&self, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            // The device is administratively down.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands `packet` to the kernel; whether it took it (a device that is down does not).
    pub fn send(&self, packet: &[u8]) -> bool {
        (&self.file).write(packet).is_ok_and(|length| length == packet.len())
    }

    /// Takes the carrier away or gives it back: the kernel reports a link event.
    pub fn set_carrier(&self, up: bool) -> Result<()> {
        let up = libc::c_int::from(up);
        // SAFETY: TUNSETCARRIER reads one int, which outlives the call.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETCARRIER as _, &up) } < 0 {
            return Err(last_error("TUNSETCARRIER"));
        }
        Ok(())
    }

    /// The descriptor, for `poll` and for handing it to a child.
    pub fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }
}
