//! An archive in the tar format of POSIX (ustar): a header of 512 octets before each file.

const BLOCK: usize = 512;

/// The files as one archive, in a directory of this name; `seconds` since 1970 is their time.
///
/// A name with its directory has at most 100 octets, a file less than 8 GiB.
pub(super) fn archive<'f>(
    directory: &str,
    seconds: u64,
    files: impl Iterator<Item = (&'f str, &'f [u8])>,
) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, octets) in files {
        archive.extend(header(&format!("{directory}/{name}"), seconds, octets.len()));
        archive.extend(octets);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end it.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(name: &str, seconds: u64, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, &name[..name.len().min(100)]);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, &format!("{:011o}\0", seconds & 0o77_777_777_777));
    // The sum is made with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|octet| u32::from(*octet)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
