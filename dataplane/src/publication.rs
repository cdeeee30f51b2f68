//! How the next snapshot takes the place of the one that packets read.
//!
//! ```text
//!   packets ──read──► present ◄──take turns──► spare ◄──catches up, then changes── one writer
//! ```
//!
//! A published snapshot never changes. The one that it took the place of is nobody's any more as
//! soon as the packets in hand are through; it catches up with what it missed and becomes the next
//! one. Both have tables of their own, in which a change among a million bindings is made in place,
//! so that nothing is copied. Where packets still read the spare one, the next is made from the
//! present one and shares what did not change; the spare catches up later.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mtun_policy::{HomeAddress, Ingress};

use crate::pairs::{Held, PairTable};
use crate::registration::Registration;
use crate::snapshot::{BindingTable, CacheChange, Snapshot};

/// Changes that a spare snapshot may lag behind. One that was read for longer is given up: to copy
/// is then no more work than to catch up.
const BEHIND: usize = 4_096;

/// Where snapshots are published.
pub trait Publication {
    /// What packets read at present.
    fn present(&self) -> Arc<Snapshot>;

    /// Lets packets read this from now on.
    fn publish(&self, next: Arc<Snapshot>);

    /// Where the snapshot waits that was the present one before; without such a place the next one
    /// is always made from the present one.
    fn spare(&self) -> Option<&SpareSnapshot> {
        None
    }

    /// Publishes the next one: the present one with a change. One at a time; packets do not wait.
    fn change<R>(&self, change: impl FnOnce(&mut Change<'_>) -> R) -> R
    where
        Self: Sized,
    {
        let mut spare = self.spare().map(SpareSnapshot::lock);
        let present = self.present();
        let is_unread = |it: &mut Spare| Arc::get_mut(&mut it.snapshot).is_some();
        let unread = spare.as_deref_mut().and_then(|it| it.take_if(is_unread));
        let (mut next, mut made) = match unread {
            Some(Spare { mut snapshot, mut missed }) => {
                let behind = Arc::get_mut(&mut snapshot).expect("nobody else can find it");
                behind.follow(&present, &missed);
                missed.clear();
                (snapshot, missed)
            }
            None => (Arc::new(Snapshot::clone(&present)), Vec::new()),
        };
        let snapshot = Arc::get_mut(&mut next).expect("nobody else has it yet");
        snapshot.generation = present.generation + 1;
        let Snapshot { generation: _, updates, cache, optimized, correspondents, own, also } =
            snapshot;
        let made_here = &mut made;
        let mut coming =
            Change { updates, optimized, correspondents, own, also, cache, made: made_here };
        let result = change(&mut coming);
        self.publish(next);
        if let Some(spare) = spare.as_deref_mut() {
            match &mut *spare {
                Some(still_read) => still_read.missed.append(&mut made),
                none => *none = Some(Spare { snapshot: present, missed: made }),
            }
            spare.take_if(|it| it.missed.len() > BEHIND);
        }
        result
    }
}

impl Publication for ArcSwap<Snapshot> {
    fn present(&self) -> Arc<Snapshot> {
        self.load_full()
    }

    fn publish(&self, next: Arc<Snapshot>) {
        self.store(next);
    }
}

impl<P: Publication + ?Sized> Publication for Arc<P> {
    fn present(&self) -> Arc<Snapshot> {
        (**self).present()
    }

    fn publish(&self, next: Arc<Snapshot>) {
        (**self).publish(next);
    }

    fn spare(&self) -> Option<&SpareSnapshot> {
        (**self).spare()
    }
}

/// The place of a snapshot that was the present one.
#[derive(Debug, Default)]
pub struct SpareSnapshot(Mutex<Option<Spare>>);

impl SpareSnapshot {
    fn lock(&self) -> MutexGuard<'_, Option<Spare>> {
        // Whoever panicked had taken it out.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot, and what changed in the cache since it was the present one.
#[derive(Debug)]
struct Spare {
    snapshot: Arc<Snapshot>,
    missed: Vec<CacheChange>,
}

/// What the next snapshot is to have otherwise.
#[derive(Debug)]
pub struct Change<'s> {
    /// The binding update list.
    pub updates: &'s mut BindingTable,
    /// What correspondents hold.
    pub optimized: &'s mut PairTable<Held>,
    /// What mobiles bound at this node as their correspondent.
    pub correspondents: &'s mut PairTable<Registration>,
    /// The addresses at which this node takes outer packets.
    pub own: &'s mut Vec<Ipv6Addr>,
    /// Further sources.
    pub also: &'s mut BTreeMap<Ingress, HomeAddress>,
    cache: &'s mut BindingTable,
    made: &'s mut Vec<CacheChange>,
}

impl Change<'_> {
    /// Puts a registration into the binding cache, instead of the one of the same home address.
    /// Gives its generation, and whether that is another than before: decisions may differ.
    pub fn bind(&mut self, registration: Registration) -> (u64, bool) {
        let before = self.cache.get(registration.home_address).map(|it| it.generation);
        let after = self.cache.insert(registration);
        self.made.push(CacheChange::Put(after.clone()));
        (after.generation, before != Some(after.generation))
    }

    /// Takes a home address out of the binding cache.
    pub fn withdraw(&mut self, home_address: HomeAddress) {
        self.cache.remove(home_address);
        self.made.push(CacheChange::Removed(home_address));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use mtun_policy::{HomeName, MobileNetworkPrefix};

    use super::*;

    #[derive(Default)]
    struct Published {
        present: ArcSwap<Snapshot>,
        spare: SpareSnapshot,
    }

    impl Publication for Published {
        fn present(&self) -> Arc<Snapshot> {
            self.present.load_full()
        }

        fn publish(&self, next: Arc<Snapshot>) {
            self.present.store(next);
        }

        fn spare(&self) -> Option<&SpareSnapshot> {
            Some(&self.spare)
        }
    }

    fn registration(number: u32, prefix: u32, peer: u32) -> Registration {
        let net = Ipv6Addr::from(0x3fff_u128 << 112 | u128::from(prefix) << 64);
        let prefix = ipnet::Ipv6Net::new(net, 64).unwrap();
        Registration::new(
            HomeName::new("home"),
            home_address(number),
            vec![MobileNetworkPrefix::new(prefix).unwrap()],
            u128::from(peer).into(),
            Vec::new(),
            Arc::default(),
        )
    }

    fn home_address(number: u32) -> HomeAddress {
        HomeAddress(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number)))
    }

    /// Peer by home address, as a snapshot has it, found by every way there is.
    fn held(snapshot: &Snapshot) -> HashMap<HomeAddress, Ipv6Addr> {
        let all: HashMap<_, _> =
            snapshot.cache.iter().map(|it| (it.home_address, it.peer)).collect();
        assert_eq!(all.len(), snapshot.cache.len());
        for (home_address, peer) in &all {
            assert_eq!(snapshot.cache.get(*home_address).map(|it| it.peer), Some(*peer));
        }
        all
    }

    #[test]
    fn whoever_reads_reads_what_was_published_and_nothing_else() {
        let published = Published::default();
        let (mut model, mut reference) = (HashMap::new(), BindingTable::default());
        let (mut reading, mut quiet) = (Vec::new(), 0);
        let mut at = 7_u32;
        for step in 1..6_000_u32 {
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = at >> 22;
            let before = published.present();
            let host = Ipv6Addr::from(0x3fff_u128 << 112 | u128::from(at % 700) << 64 | 7);
            // Several at a time now and then, one alone mostly.
            published.change(|change| {
                *change.own = vec![u128::from(step).into()];
                if at.is_multiple_of(5) {
                    change.withdraw(home_address(number));
                    model.remove(&home_address(number));
                    reference.remove(home_address(number));
                    return;
                }
                for one in number..number + u32::from(at.is_multiple_of(31)) * 3 + 1 {
                    // Prefixes go from one to another as well.
                    let registration = registration(one, (one + step % 2) % 700, step);
                    reference.insert(registration.clone());
                    change.bind(registration);
                    model.insert(home_address(one), Ipv6Addr::from(u128::from(step)));
                }
            });
            let snapshot = published.present();
            let shape = (before.cache.shape(), snapshot.cache.shape());
            let homes = |it: &Snapshot| it.cache.lookup(host.into()).map(|it| it.home_address);
            assert!(homes(&before) == homes(&snapshot) || shape.0 != shape.1, "{host}");
            let turnover = (before.cache.turnover(), snapshot.cache.turnover());
            let stays = homes(&before)
                .is_none_or(|it| homes(&snapshot) == Some(it) || snapshot.cache.get(it).is_none());
            assert!(stays || turnover.0 != turnover.1, "{host}");
            quiet += u32::from(shape.0 != shape.1 && turnover.0 == turnover.1);
            assert_eq!(snapshot.generation, u64::from(step));
            assert_eq!(snapshot.own, [Ipv6Addr::from(u128::from(step))]);
            let peer = snapshot.cache.get(home_address(number)).map(|it| it.peer);
            assert_eq!(peer, model.get(&home_address(number)).copied());
            let owner = |table: &BindingTable| table.lookup(host.into()).map(|it| it.home_address);
            assert_eq!(owner(&snapshot.cache), owner(&reference), "{host} in step {step}");
            if step % 97 == 0 {
                assert_eq!(held(&snapshot), model);
                reading.push((snapshot, model.clone()));
            }
            // Some read for a short time and some for longer than a spare one waits.
            if step % 389 == 0 {
                for (snapshot, model) in reading.drain(..reading.len() / 2) {
                    assert_eq!(held(&snapshot), model);
                }
            }
        }
        for (snapshot, model) in &reading {
            assert_eq!(held(snapshot), *model);
        }
        assert!(quiet > 500, "{quiet} changes took nothing from anybody");
    }

    #[test]
    fn two_snapshots_take_turns_unless_one_is_read() {
        let published = Published::default();
        let bind = |number| published.change(|change| change.bind(registration(number, number, 1)));
        let present = || Arc::as_ptr(&published.present());
        bind(1);
        let (first, _) = (present(), bind(2));
        let (second, _) = (present(), bind(3));
        assert_eq!(present(), first, "what nobody reads any more is the next one");
        let read = published.present();
        bind(4);
        assert_eq!(present(), second);
        bind(5);
        assert_ne!(present(), Arc::as_ptr(&read), "what is read stays as it is");
        assert_eq!((read.cache.len(), published.present().cache.len()), (3, 5));
        drop(read);
        bind(6);
        assert_eq!(present(), first, "it has caught up");
        let all = published.present();
        assert!((1..=6).all(|number| all.cache.lookup(home_address(number).0.into()).is_some()));
    }

    #[test]
    fn a_spare_that_is_read_for_too_long_is_given_up() {
        let published = Published::default();
        let bind = |number| published.change(|change| change.bind(registration(number, number, 1)));
        bind(0);
        let _read = published.present();
        for number in 1..BEHIND as u32 + 9 {
            bind(number);
        }
        let spare = published.spare.lock();
        assert!(spare.as_ref().is_some_and(|it| it.missed.len() < 9), "not what is read");
    }
}
