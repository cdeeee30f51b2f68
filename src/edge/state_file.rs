//! Files of the state directory: a reader finds the old content or the new one, never half of it,
//! whatever happens to the daemon or to the power.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Puts `octets` in place of what the file holds. When this returns, they are on the disk.
pub fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let fresh = beside(path, "new");
    let mut file = File::create(&fresh)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The rename itself; a file system that cannot do this has done it or never will.
    if let Some(directory) = path.parent().and_then(|it| File::open(it).ok()) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// The same, and what the file held before stays as the older generation.
pub fn replace_keeping(path: &Path, octets: &[u8]) -> io::Result<()> {
    match fs::rename(path, older(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    replace(path, octets)
}

/// Where the generation before is kept.
pub fn older(path: &Path) -> PathBuf {
    beside(path, "old")
}

/// The content of a file; `None` if there is none.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(octets) => Ok(Some(octets)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_before_stays() {
        let name = format!("mtun-state-file-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let path = directory.join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        for content in ["one", "two", "three"] {
            replace_keeping(&path, content.as_bytes()).unwrap();
        }
        assert_eq!(read(&path).unwrap().unwrap(), b"three");
        assert_eq!(read(&older(&path)).unwrap().unwrap(), b"two");
        replace(&path, b"four").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"four");
        assert_eq!(read(&older(&path)).unwrap().unwrap(), b"two");
        let mut left: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["state.json", "state.json.old"], "nothing half-written");
        fs::remove_dir_all(&directory).unwrap();
    }
}
