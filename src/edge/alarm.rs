//! Wakes the owner when something is due, also if the machine slept meanwhile.
//!
//! The runtime's own timers stand still in the machine's sleep: what became due in it would wait
//! for as long afterwards as it had to wait before. This one is a timer of the kernel on the clock
//! that [`Clock`](super::clock::Clock) reads. It does not wake the machine.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

/// One timer. Must be made inside the runtime.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: timerfd_create makes a descriptor or fails.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, flags) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let timer = unsafe { OwnedFd::from_raw_fd(timer) };
        // SAFETY: the descriptor is the timer's own and is neither replaced nor closed before it.
        Ok(Self { timer: unsafe { AsyncFd::register(timer)? } })
    }

    /// Ends after so much time since the call. Safe to cancel; another call sets it anew.
    pub async fn after(&self, wait: Duration) {
        self.set(wait);
        loop {
            let ready = self.timer.readable().await;
            let mut ready = ready.expect("a timer has no errors, and the runtime is there");
            let read = ready.try_io(|timer| {
                let mut times = [0_u8; 8];
                // SAFETY: the buffer holds the eight octets of a timer's count.
                let read = unsafe {
                    libc::read(timer.as_raw_fd(), times.as_mut_ptr().cast(), times.len())
                };
                if read < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
            // What is left of an earlier call says nothing: there is no count to read.
            if matches!(read, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn set(&self, wait: Duration) {
        // Zero would stop it.
        let wait = wait.max(Duration::from_nanos(1));
        let value = libc::timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i32::MAX.into()),
            // Less than a thousand million.
            tv_nsec: wait.subsec_nanos() as libc::c_long,
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: once, it_value: value };
        let timer = self.timer.as_raw_fd();
        // SAFETY: the setting lives longer than the call, and nothing is asked for.
        let done =
            unsafe { libc::timerfd_settime(timer, 0, &raw const setting, std::ptr::null_mut()) };
        assert_eq!(done, 0, "a timer takes every positive time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::clock::since_boot;

    #[tokio::test]
    async fn it_ends_when_the_time_is_over_and_not_before() {
        let alarm = Alarm::new().unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(20)] {
            let began = since_boot();
            alarm.after(wait).await;
            assert!(since_boot() - began >= wait);
        }
        // Given up, and set anew: neither the first time counts nor one that is over already.
        let given_up = Duration::from_millis(1);
        tokio::select! {
            biased;
            () = std::future::ready(()) => {}
            () = alarm.after(given_up) => unreachable!("the first one is ready"),
        }
        tokio::time::timeout(Duration::from_millis(5), alarm.after(Duration::from_secs(3600)))
            .await
            .expect_err("an hour is not over");
        let (began, wait) = (since_boot(), Duration::from_millis(10));
        alarm.after(given_up).await;
        alarm.after(wait).await;
        assert!(since_boot() - began >= given_up + wait);
    }
}
