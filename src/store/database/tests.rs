use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mtun_policy::{HomeAddress, HomeAgentAddress};

use super::*;
use crate::store::Moment;

/// A disk in memory that remembers everything that was done to it, in order.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    present: Vec<u8>,
    log: Vec<Done>,
    full: bool,
}

#[derive(Clone, Debug)]
enum Done {
    Length(usize),
    Octets(usize, Vec<u8>),
    /// What came before is safe.
    Sync,
}

fn apply(image: &mut Vec<u8>, done: &Done) {
    match done {
        Done::Length(length) => image.resize(*length, 0),
        Done::Octets(at, octets) => {
            let end = at + octets.len();
            image.resize(image.len().max(end), 0);
            image[*at..end].copy_from_slice(octets);
        }
        Done::Sync => {}
    }
}

impl Disk {
    fn holding(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { present: image, ..Platter::default() })))
    }

    fn note(&self, done: Done) -> io::Result<()> {
        let mut platter = self.0.lock().unwrap();
        if platter.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut platter.present, &done);
        platter.log.push(done);
        Ok(())
    }

    fn steps(&self) -> usize {
        self.0.lock().unwrap().log.len()
    }

    /// What may be on the disk if the power goes after so many steps: all that was safe, and of
    /// the rest any part, each write whole or torn between two sectors.
    fn crash(&self, steps: usize, random: &mut Random) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let log = &platter.log[..steps];
        let safe = log.iter().rposition(|it| matches!(it, Done::Sync)).map_or(0, |at| at + 1);
        let mut image = Vec::new();
        log[..safe].iter().for_each(|done| apply(&mut image, done));
        for done in &log[safe..] {
            match (random.below(3), done) {
                (0, _) => {}
                (1, Done::Octets(at, octets)) => {
                    let whole = 512 * random.below(octets.len() / 512 + 1);
                    let end = (*at + whole).min(*at + octets.len());
                    apply(&mut image, &Done::Octets(*at, octets[..end - at].to_vec()));
                }
                _ => apply(&mut image, done),
            }
        }
        image
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().present.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.0.lock().unwrap();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let octets = at.checked_add(out.len()).and_then(|end| platter.present.get(at..end));
        out.copy_from_slice(octets.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.note(Done::Length(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(Done::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Done::Octets(offset as usize, data.to_vec()))
    }
}

/// A small generator: what fails is found again by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn key(number: usize) -> Key {
    let number = u16::try_from(number).unwrap();
    Key {
        agent: HomeAgentAddress(std::net::Ipv6Addr::LOCALHOST),
        home_address: HomeAddress(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)),
    }
}

fn sealed(key: Key, version: u64) -> Sealed {
    Sealed::seal(key, Moment::now(0), |out| {
        out.extend_from_slice(&version.to_be_bytes());
        out.resize(out.len() + version as usize % 200, 7);
    })
}

fn put(number: usize, version: u64) -> Change {
    Change { key: key(number), record: Some(sealed(key(number), version)) }
}

type Versions = BTreeMap<Key, u64>;

/// What is there; `None` if a record is not the one that was sealed.
fn versions(store: &mut Database) -> Option<Versions> {
    let version = |(key, sealed): &(Key, Sealed)| {
        let (_, record) = sealed.open(*key)?;
        Some((*key, u64::from_be_bytes(*record.first_chunk()?)))
    };
    store.load().unwrap().iter().map(version).collect()
}

/// A history of commits: after how many steps of the disk each had returned, and what it promised.
fn history(random: &mut Random) -> (Disk, Vec<(usize, Versions)>) {
    let disk = Disk::default();
    let mut store = Database::on(disk.clone()).unwrap();
    let mut present = Versions::new();
    let mut promises = vec![(disk.steps(), present.clone())];
    for _ in 0..2 + random.below(6) {
        let mut changes = Vec::new();
        for _ in 0..=random.below(12) {
            let (number, version) = (random.below(24), random.next() % 1000);
            if random.below(8) == 0 {
                present.remove(&key(number));
                changes.push(Change { key: key(number), record: None });
            } else {
                present.insert(key(number), version);
                changes.push(put(number, version));
            }
        }
        store.commit(&changes).unwrap();
        promises.push((disk.steps(), present.clone()));
    }
    (disk, promises)
}

#[test]
fn after_a_power_cut_at_any_moment_the_last_commit_or_the_one_before_is_there() {
    // F-06, PS-01, PS-02, PS-03. `MTUN_CRASHES=10000` is the long run.
    let crashes = std::env::var("MTUN_CRASHES").ok().and_then(|it| it.parse().ok()).unwrap_or(400);
    let mut partly = 0;
    for seed in 0..crashes / 20 {
        let mut random = Random(seed);
        let (disk, promises) = history(&mut random);
        let first = promises[0].0;
        for crash in 0..20 {
            let steps = first + random.below(disk.steps() - first + 1);
            let next = promises.iter().position(|(at, _)| *at > steps);
            let promised = &promises[next.unwrap_or(promises.len()) - 1].1;
            let coming = next.map_or(promised, |next| &promises[next].1);
            let name = format!("seed {seed}, crash {crash} after step {steps}");
            let image = disk.crash(steps, &mut random);
            let mut store =
                Database::on(Disk::holding(image)).unwrap_or_else(|it| panic!("{name}: {it}"));
            let found = versions(&mut store).unwrap_or_else(|| panic!("{name}: a false record"));
            assert!(found == *promised || found == *coming, "{name}: {found:?}");
            partly += usize::from(found != *promised);
            // And it goes on from there.
            store.commit(&[put(99, 1)]).unwrap_or_else(|it| panic!("{name}: {it}"));
            assert_eq!(versions(&mut store).map(|it| it.len()), Some(found.len() + 1), "{name}");
        }
    }
    assert!(partly > 0, "some commits arrived although nobody heard of it");
}

#[test]
fn a_flipped_bit_is_told_or_changes_nothing() {
    // PS-04: never silently wrong, and no panic.
    let mut random = Random(7);
    let (disk, promises) = history(&mut random);
    let whole = disk.0.lock().unwrap().present.clone();
    let promised = &promises.last().unwrap().1;
    let (mut told, mut harmless) = (0, 0);
    for _ in 0..2000 {
        let mut image = whole.clone();
        let at = random.below(image.len());
        image[at] ^= 1 << random.below(8);
        match Database::on(Disk::holding(image)) {
            Err(StoreError::Damaged { .. }) => told += 1,
            Err(other) => panic!("octet {at}: {other}"),
            Ok(mut store) => match versions(&mut store) {
                None => told += 1,
                Some(found) => {
                    let known = promises.iter().any(|(_, it)| *it == found);
                    assert!(found == *promised || known, "octet {at}: {found:?}");
                    harmless += 1;
                }
            },
        }
    }
    assert!(told > 0 && harmless > 0, "{told} told, {harmless} harmless");
}

#[test]
fn a_full_disk_is_told_and_what_was_promised_is_there() {
    let disk = Disk::default();
    let mut store = Database::on(disk.clone()).unwrap();
    store.commit(&[put(1, 1)]).unwrap();
    disk.0.lock().unwrap().full = true;
    let error = store.commit(&[put(2, 2)]).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    let error = store.commit(&[put(3, 3)]).unwrap_err();
    assert!(error.to_string().contains("closed since the last write failed"), "{error}");
    let image = disk.0.lock().unwrap().present.clone();
    let found = versions(&mut Database::on(Disk::holding(image)).unwrap());
    assert_eq!(found, Some(Versions::from([(key(1), 1)])));
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtun-store-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("bindings.redb")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_committed_is_read_by_the_next_run_and_by_a_healed_one() {
    let scratch = Scratch::new("next");
    let mut store = Database::open(&scratch.file()).unwrap();
    store.commit(&[put(1, 1), put(2, 2)]).unwrap();
    store.commit(&[put(2, 3), Change { key: key(1), record: None }]).unwrap();
    let want = Some(Versions::from([(key(2), 3)]));
    let busy = Database::open(&scratch.file()).unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy}");
    store.heal().unwrap();
    assert_eq!(versions(&mut store), want);
    store.commit(&[put(4, 4)]).unwrap();
    drop(store);
    let mut next = Database::open(&scratch.file()).unwrap();
    assert_eq!(versions(&mut next), Some(Versions::from([(key(2), 3), (key(4), 4)])));
    let left: Vec<_> = std::fs::read_dir(&scratch.0).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Has the file say this of itself; `None` leaves a word out, as the first versions did.
fn say(file: &Path, format: u64, needs: Option<u64>) {
    let raw = redb::Database::open(file).unwrap();
    let transaction = raw.begin_write().unwrap();
    {
        let mut about = transaction.open_table(ABOUT).unwrap();
        about.insert("format", format).unwrap();
        match needs {
            Some(needs) => about.insert("needs", needs).unwrap(),
            None => about.remove("needs").unwrap(),
        };
    }
    transaction.commit().unwrap();
}

#[test]
fn what_needs_a_newer_version_is_refused_and_not_touched() {
    // PS-09.
    let scratch = Scratch::new("newer");
    let file = scratch.file();
    Database::open(&file).unwrap().commit(&[put(1, 1)]).unwrap();
    for (format, needs) in
        [(FORMAT + 1, None), (FORMAT + 1, Some(FORMAT + 1)), (FORMAT + 2, Some(FORMAT + 1))]
    {
        say(&file, format, needs);
        let before = layout_of(&redb::Database::open(&file).unwrap()).unwrap();
        for refused in [Database::open(&file).map(drop), Database::salvage(&file).map(drop)] {
            let error = refused.unwrap_err();
            let told = matches!(error, StoreError::Newer { found, .. } if found == format);
            assert!(told, "{format} {needs:?}: {error}");
        }
        assert_eq!(layout_of(&redb::Database::open(&file).unwrap()).unwrap(), before);
    }
    say(&file, FORMAT, Some(NEEDS));
    assert_eq!(versions(&mut Database::open(&file).unwrap()).map(|it| it.len()), Some(1));
}

#[test]
fn what_a_neighbour_wrote_is_used_and_becomes_ours() {
    // PS-09, F-17: the version before, one of its own format that said less, and the one after.
    let scratch = Scratch::new("neighbours");
    let file = scratch.file();
    Database::open(&file).unwrap().commit(&[put(0, 1)]).unwrap();
    let neighbours = [
        (FORMAT - 1, None),
        (FORMAT - 1, Some(FORMAT - 1)),
        (FORMAT, None),
        (FORMAT + 1, Some(FORMAT)),
    ];
    for (number, (format, needs)) in (1..).zip(neighbours) {
        say(&file, format, needs);
        let mut store = Database::open(&file).unwrap();
        store.commit(&[put(number, 1)]).unwrap();
        let ours = Layout { format: FORMAT, needs: NEEDS };
        assert_eq!(layout_of(store.opened().unwrap()).unwrap(), Some(ours), "{format} {needs:?}");
        assert_eq!(versions(&mut store).map(|it| it.len()), Some(number + 1));
    }
}

#[test]
fn what_is_whole_of_a_damaged_file_is_salvaged_and_a_copy_stays() {
    let scratch = Scratch::new("salvage");
    let mut store = Database::open(&scratch.file()).unwrap();
    let mut false_one = put(2, 2);
    false_one.record.as_mut().unwrap().0[40] ^= 1;
    store.commit(&[put(1, 1), false_one, put(3, 3)]).unwrap();
    drop(store);
    let (mut store, damaged, aside) = Database::salvage(&scratch.file()).unwrap();
    assert_eq!(damaged, 1);
    assert!(aside.exists());
    assert_eq!(versions(&mut store), Some(Versions::from([(key(1), 1), (key(3), 3)])));
    drop(store);
    // Nothing of it can be read: then nothing is there, and the copy still is.
    std::fs::write(scratch.file(), b"this is not what was written").unwrap();
    let error = Database::open(&scratch.file()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let (mut store, _, aside) = Database::salvage(&scratch.file()).unwrap();
    assert_eq!(versions(&mut store), Some(Versions::new()));
    assert!(aside.exists());
}
