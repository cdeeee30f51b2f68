//! Other user ids, for the tests that must be seen by the kernel as somebody else.

use std::io;

/// Groups of the tests; nobody on a real machine has them.
pub const READ_GROUP: u32 = 70_001;
pub const WRITE_GROUP: u32 = 70_002;
pub const STEER_GROUP: u32 = 70_003;
pub const MOVE_GROUP: u32 = 70_004;

/// A user by its numbers.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
}

pub const STRANGER: User = User { uid: 70_010, gid: 70_010, groups: &[] };
pub const READER: User = User { uid: 70_011, gid: 70_011, groups: &[READ_GROUP] };
pub const WRITER: User = User { uid: 70_012, gid: 70_012, groups: &[READ_GROUP, WRITE_GROUP] };

pub const STEERER: User = User { uid: 70_013, gid: 70_013, groups: &[READ_GROUP, STEER_GROUP] };
pub const MOVER: User = User { uid: 70_014, gid: 70_014, groups: &[READ_GROUP, MOVE_GROUP] };

impl User {
    /// Makes the calling thread, and it alone, this user: raw system calls, because the C
    /// library's carry a change over to all threads. In a child before `exec` there is one thread.
    pub fn become_in_thread(self) -> io::Result<()> {
        let Self { uid, gid, groups } = self;
        let done = |result: libc::c_long| match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: `groups` is readable for its length; the others take numbers only.
        unsafe {
            done(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
            done(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            done(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
        }
    }

    /// Runs `work` as this user, in a thread of its own.
    pub fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.become_in_thread().unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }
}

/// Whether this test may become other users; says so if not.
pub fn may_change_user(what: &str) -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        super::skip::skip(&format!("{what}: needs root to be three users"));
    }
    root
}
