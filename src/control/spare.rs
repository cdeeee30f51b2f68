//! File descriptors kept for the moment at which there are no others.
//!
//! A daemon that is out of descriptors is one that people want to ask what is wrong. [`Spares`] are
//! descriptors without a use: one is given up so that one more client can be taken in, and taken
//! back once there are descriptors again.

use std::os::fd::{AsFd, OwnedFd};

/// How many clients may be taken in at a time for which there is no room.
const SPARES: usize = 4;

/// Descriptors without a use.
#[derive(Debug)]
pub(super) struct Spares(Vec<OwnedFd>);

impl Spares {
    /// As many copies of a descriptor as there is room for.
    pub(super) fn of(descriptor: &impl AsFd) -> Self {
        let mut spares = Self(Vec::with_capacity(SPARES));
        spares.refill(descriptor);
        spares
    }

    /// Takes back what was given up, as far as there is room.
    pub(super) fn refill(&mut self, descriptor: &impl AsFd) {
        while self.0.len() < SPARES
            && let Ok(copy) = descriptor.as_fd().try_clone_to_owned()
        {
            self.0.push(copy);
        }
    }

    /// Gives one up; whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

/// Whether an error says that there are no more descriptors, here or in the whole system.
pub(super) fn is_exhausted(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_comes_back() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut spares = Spares::of(&file);
        for _ in 0..2 {
            let given = std::iter::from_fn(|| spares.give_up().then_some(())).count();
            assert_eq!(given, SPARES);
            spares.refill(&file);
        }
        assert!(is_exhausted(&std::io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_exhausted(&std::io::Error::from_raw_os_error(libc::ECONNABORTED)));
    }
}
