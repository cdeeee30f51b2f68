//! Programs that outlive the process that attached them: their links are files in the kernel's own
//! file system for them (`bpf(2)`, `BPF_OBJ_PIN`), as long as these exist.
//!
//! A killed process leaves them behind. What they do then is bounded by the lease in their map. The
//! next process puts its own programs in front of them, so that a packet which is not yet decided
//! anew still goes as before, and ends them as soon as it can decide.
//!
//! ```text
//! <directory>/4026532178-mtun0-7-in-3-0
//!             |          |     | |  | `- which of several, while a former one is still there
//!             |          |     | |  `--- index of the interface it is attached to
//!             |          |     | `------ which program: out, in, front, behind
//!             |          |     `-------- index of the tunnel interface
//!             |          `-------------- its name; the kernel has no dots here, so `+` for them
//!             `------------------------- the network namespace
//! ```

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::SchedClassifierLink;

use super::bpf::Hook;

/// The network namespace of the calling thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";
/// `BPF_FS_MAGIC`.
const FILE_SYSTEM: i128 = 0xcafe_4a11;

/// Why nothing outlives this process.
#[derive(Debug, thiserror::Error)]
pub enum NoPins {
    /// No directory was named.
    #[error("switched off")]
    Off,
    /// The file system is not there.
    #[error("{0} is not in a BPF file system; mount one there: mount -t bpf bpf /sys/fs/bpf")]
    OtherFileSystem(PathBuf),
    /// It could not be read or written.
    #[error("{path}: {error}")]
    Os {
        /// Which directory or file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// The links of one tunnel interface.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// What all their names begin with.
    whose: String,
    former: Vec<Former>,
}

/// A link that an earlier process left.
#[derive(Debug)]
struct Former {
    file: PathBuf,
    hook: String,
    interface: u32,
    /// Holds it, so that others can be put in front of it.
    link: SchedClassifierLink,
}

/// A link of this process; ends when dropped, unless the process is killed.
#[derive(Debug)]
pub(super) struct Pinned(Option<PinnedLink>);

impl Drop for Pinned {
    fn drop(&mut self) {
        // One that is not there any more has been ended by somebody else.
        let _ = self.0.take().map(PinnedLink::unpin);
    }
}

impl Pins {
    /// Takes hold of what an earlier process left of the tunnel interface of this name and index. What
    /// it left of one of this name that is gone ends at once.
    pub fn open(directory: &Path, tunnel: &str, index: u32) -> Result<Self, NoPins> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| NoPins::Os { path, error }
        };
        let above = directory.parent().unwrap_or(directory);
        let there = if directory.exists() { directory } else { above };
        if !is_for_bpf(there).map_err(failed(there))? {
            return Err(NoPins::OtherFileSystem(there.to_path_buf()));
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed(directory))?;
        let namespace = fs::metadata(NAMESPACE).map_err(failed(Path::new(NAMESPACE)))?.ino();
        let home = format!("{namespace}-{}", tunnel.replace('.', "+"));
        let mut pins = Self {
            directory: directory.to_path_buf(),
            whose: format!("{home}-{index}"),
            former: Vec::new(),
        };
        for entry in fs::read_dir(directory).map_err(failed(directory))? {
            let file = entry.map_err(failed(directory))?.path();
            let Some([whose, at, hook, interface]) = parts(&file) else { continue };
            if whose != home {
                continue;
            }
            let link = (at == index.to_string()).then(|| link_at(&file)).flatten();
            match (link, interface.parse()) {
                (Some(link), Ok(interface)) => {
                    pins.former.push(Former { hook: hook.to_owned(), interface, link, file });
                }
                // Nobody knows it any more.
                _ => fs::remove_file(&file).map_err(failed(&file))?,
            }
        }
        Ok(pins)
    }

    /// Where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether an earlier process left anything.
    pub fn has_former(&self) -> bool {
        !self.former.is_empty()
    }

    /// Ends what it left.
    pub fn end_former(&mut self) {
        for Former { file, .. } in self.former.drain(..) {
            // One that is not there any more has been ended by somebody else.
            let _ = fs::remove_file(file);
        }
    }

    /// What it left at this place.
    pub(super) fn former(&self, hook: Hook, interface: u32) -> Option<&SchedClassifierLink> {
        let here = |it: &&Former| (it.hook.as_str(), it.interface) == (hook.as_str(), interface);
        self.former.iter().find(here).map(|it| &it.link)
    }

    /// Lets a link outlive this process.
    pub(super) fn pin(
        &self,
        link: SchedClassifierLink,
        hook: Hook,
        interface: u32,
    ) -> io::Result<Pinned> {
        let file = |number: u32| {
            let name = format!("{}-{}-{interface}-{number}", self.whose, hook.as_str());
            self.directory.join(name)
        };
        let free = (0..).map(file).find(|file| !file.exists()).expect("some number is free");
        let link = FdLink::try_from(link).map_err(io::Error::other)?;
        link.pin(free).map(|pinned| Pinned(Some(pinned))).map_err(io::Error::other)
    }
}

/// The parts of a file's name: whose it is, the tunnel's index, the program, the interface.
fn parts(file: &Path) -> Option<[&str; 4]> {
    let mut parts = file.file_name()?.to_str()?.rsplitn(5, '-');
    let (_, interface, hook, tunnel) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some([parts.next()?, tunnel, hook, interface])
}

fn link_at(file: &Path) -> Option<SchedClassifierLink> {
    FdLink::from(PinnedLink::from_pin(file).ok()?).try_into().ok()
}

/// Whether a directory is in the file system for programs and maps.
fn is_for_bpf(directory: &Path) -> io::Result<bool> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: plain numbers, for which all bits may be zero.
    let mut told: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with a zero, and the answer is written to a live structure.
    super::sys::check(unsafe { libc::statfs(path.as_ptr(), &raw mut told) })?;
    // A number of another kind with each C library.
    Ok(i128::from(told.f_type) == FILE_SYSTEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let cases = [
            ("4026531840-mtun0-7-in-3-0", Some(["4026531840-mtun0", "7", "in", "3"])),
            ("1-a-b-7-behind-12-3", Some(["1-a-b", "7", "behind", "12"])),
            ("short", None),
        ];
        for (name, want) in cases {
            assert_eq!(parts(Path::new("/sys/fs/bpf/mtun").join(name).as_path()), want, "{name}");
        }
    }
}
