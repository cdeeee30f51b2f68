//! The few system calls that several backends share, with errors as values.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The result of a system call that returns a non-negative number or -1.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same for calls that return a length.
pub fn check_length(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Takes ownership of a descriptor that a call has just returned.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just created this descriptor for the caller, and nobody else holds it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a live `timespec`; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// A non-blocking, close-on-exec socket.
pub fn socket(
    family: libc::c_int,
    kind: libc::c_int,
    protocol: libc::c_int,
) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers only.
    check(unsafe { libc::socket(family, kind, protocol) }).map(own)
}

/// Plain data that the kernel may read or write as bytes: integers and structs of them.
///
/// # Safety
/// The type has no padding that must stay hidden, no pointer it owns, and any bit pattern is valid.
pub unsafe trait Plain: Copy {}
// SAFETY: integers.
unsafe impl Plain for libc::c_int {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: two integers.
unsafe impl Plain for [u32; 2] {}

/// Sets a socket option to a plain value.
pub fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` lives across the call and `size` is its size.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    check(result).map(drop)
}

/// Reads a socket option of a plain type.
pub fn get_option<T: Plain + Default>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<T> {
    let mut value = T::default();
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has room for `size` octets, and `Plain` makes whatever is written valid.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size)
    };
    check(result).map(|_| value)
}

/// Asks for a socket buffer beyond the system's limit, or up to it without the right to exceed it.
pub fn set_buffer(
    fd: BorrowedFd<'_>,
    forced: libc::c_int,
    ordinary: libc::c_int,
    octets: libc::c_int,
) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, forced, octets)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, ordinary, octets))
}

/// An `ifreq` that names one interface; `None` when the name is empty, too long or holds a NUL.
pub fn interface_request(name: &str) -> Option<libc::ifreq> {
    let octets = name.as_bytes();
    if octets.is_empty() || octets.len() >= libc::IFNAMSIZ || octets.contains(&0) {
        return None;
    }
    // SAFETY: all zero is a valid `ifreq`: numbers, and a union of numbers and null pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(octets) {
        *to = *from as libc::c_char;
    }
    Some(request)
}
