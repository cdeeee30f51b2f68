//! Who is at the other end of the socket, and what they may ask.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use mtun_signaling::mobility_socket::Class;

/// Which groups may do what; root and the daemon's own user may everything. The socket file
/// belongs to the read group, so members of the other groups are members of that one too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Group id of those who may look.
    pub read_group: Option<u32>,
    /// Group id of those who may everything.
    pub write_group: Option<u32>,
    /// Group id of those who may steer, besides looking.
    pub steer_group: Option<u32>,
    /// Group id of those who may say that the node has moved, besides looking.
    pub move_group: Option<u32>,
}

impl Access {
    /// The groups whose members may ask requests of a class, the narrowest first.
    pub fn groups(&self, class: Class) -> impl Iterator<Item = u32> {
        let narrow = match class {
            Class::Reading => [self.read_group, self.steer_group, self.move_group],
            Class::Steering => [self.steer_group, None, None],
            Class::Movement => [self.move_group, None, None],
            Class::Administration => [None; 3],
        };
        narrow.into_iter().chain([self.write_group]).flatten()
    }
}

/// The process at the other end, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user id when it connected.
    pub uid: u32,
    /// Its effective group id when it connected.
    pub gid: u32,
    /// Its supplementary groups when it connected.
    pub groups: Vec<u32>,
    /// Its process id, for the log; it may be gone.
    pub pid: Option<i32>,
}

impl Peer {
    /// The daemon itself, for requests that come from within.
    pub fn daemon() -> Self {
        Self { uid: own_uid(), gid: own_gid(), groups: Vec::new(), pid: None }
    }

    /// Asks the kernel who connected to this socket.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: `credentials` is writable for `length` octets and the socket is open.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            uid: credentials.uid,
            gid: credentials.gid,
            groups: peer_groups(socket)?,
            pid: (credentials.pid > 0).then_some(credentials.pid),
        })
    }

    /// Whether this is root or the daemon's own user.
    pub fn is_privileged(&self) -> bool {
        self.uid == 0 || self.uid == own_uid()
    }

    /// Whether it may ask requests of this class.
    pub fn may(&self, class: Class, access: &Access) -> bool {
        let member = |group: u32| self.gid == group || self.groups.contains(&group);
        self.is_privileged() || access.groups(class).any(member)
    }
}

/// The daemon's own effective user id.
pub(super) fn own_uid() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

fn own_gid() -> u32 {
    // SAFETY: getegid has no preconditions and cannot fail.
    unsafe { libc::getegid() }
}

fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // Most processes have few groups; the kernel says how many octets it needs if these are not
    // enough, and NGROUPS_MAX bounds the answer at 65,536 groups.
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as libc::socklen_t;
        // SAFETY: `groups` is writable for `length` octets and the socket is open.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let needed = length as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ERANGE) && needed > groups.len() => {
                groups.resize(needed, 0);
            }
            error => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_kernel_names_the_peer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(ours.as_fd()).unwrap();
        assert_eq!((peer.uid, peer.gid), (own_uid(), own_gid()));
        assert_eq!(peer.pid, i32::try_from(std::process::id()).ok());
        assert!(peer.is_privileged());
    }

    #[test]
    fn classes_by_group() {
        let access = Access {
            read_group: Some(70_001),
            write_group: Some(70_002),
            steer_group: Some(70_003),
            move_group: Some(70_004),
        };
        let nobody = Access::default();
        let other = own_uid() + 7;
        // (what, primary group, further groups, access, what it may of the classes in their order)
        type Case = (&'static str, u32, &'static [u32], Access, [bool; 4]);
        let cases: &[Case] = &[
            ("in no group", 70_009, &[], access, [false; 4]),
            ("read group, primary", 70_001, &[], access, [true, false, false, false]),
            ("read group, further", 70_009, &[5, 70_001], access, [true, false, false, false]),
            ("steer group", 70_009, &[70_003], access, [true, true, false, false]),
            ("move group", 70_004, &[70_001], access, [true, false, true, false]),
            ("steer and move", 70_004, &[70_003], access, [true, true, true, false]),
            ("write group, primary", 70_002, &[], access, [true; 4]),
            ("write group, further", 70_009, &[70_002], access, [true; 4]),
            ("both groups", 70_001, &[70_002], access, [true; 4]),
            ("no groups configured", 70_001, &[70_002, 70_003, 70_004], nobody, [false; 4]),
        ];
        for (what, gid, groups, access, may) in cases {
            let peer = Peer { uid: other, gid: *gid, groups: groups.to_vec(), pid: None };
            assert_eq!(Class::ALL.map(|class| peer.may(class, access)), *may, "{what}");
        }
        let root = Peer { uid: 0, gid: 0, groups: Vec::new(), pid: None };
        assert!(root.may(Class::Administration, &nobody), "root needs no group");
    }
}
