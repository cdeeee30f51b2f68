//! Sleeping until a packet arrives or somebody wants the thread to stop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::sys;

/// Ends a [`wait`] from another thread. Clones wake the same sleeper.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A waker that nobody has used yet.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes numbers only.
        let fd = sys::check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        Ok(Self(Arc::new(sys::own(fd))))
    }

    /// Ends the [`wait`] under way, or the next one. Calls before it add up to one.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable octets. The call fails only when the counter is full, and then
        // the sleeper is awake already.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets the calls of [`Waker::wake`] so far.
    fn settle(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable octets. With no call pending it fails at once, which is fine.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// Sleeps until a source has something to read (or an error to report), the waker is used, or
/// `timeout` has passed. `ready` then holds the indices of those sources, in order.
///
/// Returns whether the waker was used. An interrupting signal counts as nothing happening.
pub fn wait(
    sources: &[BorrowedFd<'_>],
    waker: &Waker,
    timeout: Option<Duration>,
    ready: &mut Vec<usize>,
) -> io::Result<bool> {
    ready.clear();
    let watch =
        |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut watched: Vec<libc::pollfd> = sources.iter().map(|fd| watch(*fd)).collect();
    watched.push(watch(waker.0.as_fd()));
    let limit = timeout.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i32::MAX.into()),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `watched` is a live array of that length; `limit` is null or a live timespec.
    let result = unsafe {
        libc::ppoll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, limit, std::ptr::null())
    };
    match sys::check(result) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
        other => other?,
    };
    let woken = watched.pop().is_some_and(|waker| waker.revents != 0);
    if woken {
        waker.settle();
    }
    ready.extend(watched.iter().enumerate().filter(|(_, it)| it.revents != 0).map(|(i, _)| i));
    Ok(woken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn waiting_tells_who_is_ready() {
        let waker = Waker::new().unwrap();
        let (quiet, _quiet_peer) = UnixDatagram::pair().unwrap();
        let (busy, busy_peer) = UnixDatagram::pair().unwrap();
        let sources = [quiet.as_fd(), busy.as_fd()];
        let mut ready = vec![7];

        assert!(!wait(&sources, &waker, Some(Duration::ZERO), &mut ready).unwrap());
        assert!(ready.is_empty(), "nothing has happened");

        busy_peer.send(b"x").unwrap();
        assert!(!wait(&sources, &waker, None, &mut ready).unwrap());
        assert_eq!(ready, [1]);

        waker.wake();
        waker.clone().wake();
        assert!(wait(&sources, &waker, None, &mut ready).unwrap());
        assert_eq!(ready, [1], "the datagram is still there");
        assert!(!wait(&sources, &waker, None, &mut ready).unwrap(), "two calls end one wait");
    }

    #[test]
    fn a_sleeping_thread_is_woken() {
        let waker = Waker::new().unwrap();
        let sleeper = {
            let waker = waker.clone();
            std::thread::spawn(move || wait(&[], &waker, None, &mut Vec::new()))
        };
        waker.wake();
        assert!(sleeper.join().unwrap().unwrap());
    }
}
