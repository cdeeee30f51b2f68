use std::net::Ipv6Addr;
use std::sync::mpsc::{Receiver, Sender, channel};

use mtun_policy::{HomeAddress, HomeAgentAddress};
use mtun_signaling::machine::Envelope;

use super::*;
use crate::store::Moment;

/// A store whose every step the test lets happen.
struct Gate {
    steps: Receiver<Result<(), std::io::ErrorKind>>,
    done: Sender<Vec<u16>>,
}

impl Gate {
    /// Without the test there is nothing to wait for.
    fn step(&mut self) -> Result<(), StoreError> {
        let step = self.steps.recv().unwrap_or(Ok(()));
        step.map_err(|kind| StoreError::Io { path: "gate".into(), error: kind.into() })
    }
}

impl Store for Gate {
    fn load(&mut self) -> Result<Vec<(Key, Sealed)>, StoreError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.step()?;
        let of = |change: &Change| change.key.home_address.0.segments()[7];
        let _ = self.done.send(changes.iter().map(of).collect());
        Ok(())
    }

    fn heal(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn change(number: u16) -> Change {
    let home_address = HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number));
    let key = Key { agent: HomeAgentAddress(Ipv6Addr::LOCALHOST), home_address };
    Change { key, record: Some(Sealed::seal(key, Moment::now(0), |out| out.push(1))) }
}

fn answer(number: u8) -> Transmit {
    let envelope = Envelope::plain(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    Transmit { envelope, path: None, message: vec![number] }
}

/// The gate opens for good before the keeper ends.
struct Bench {
    let_happen: Sender<Result<(), std::io::ErrorKind>>,
    committed: Receiver<Vec<u16>>,
    sent: Receiver<u8>,
    told: Receiver<Health>,
    keeper: Keeper,
}

fn bench() -> Bench {
    let (let_happen, steps) = channel();
    let (done, committed) = channel();
    let (sending, sent) = channel();
    let (telling, told) = channel();
    let send = move |transmit: &Transmit| {
        let _ = sending.send(transmit.message[0]);
    };
    let tell = move |health| {
        let _ = telling.send(health);
    };
    let keeper = Keeper::start(Gate { steps, done }, send, tell).unwrap();
    Bench { let_happen, committed, sent, told, keeper }
}

#[test]
fn answers_leave_after_their_commit_and_all_that_wait_are_one() {
    let bench = bench();
    bench.keeper.keep(change(1), vec![answer(1)]);
    // While the first is written, or about to be, the others wait.
    for number in 2..=9 {
        bench.keeper.keep(change(number), vec![answer(number as u8)]);
    }
    assert!(bench.sent.try_recv().is_err(), "nothing leaves before the disk has it");
    bench.let_happen.send(Ok(())).unwrap();
    let mut written = bench.committed.recv().unwrap();
    while written.len() < 9 {
        bench.let_happen.send(Ok(())).unwrap();
        written.extend(bench.committed.recv().unwrap());
    }
    assert_eq!(written, (1..=9).collect::<Vec<_>>());
    let answers: Vec<_> = (1..=9).map(|_| bench.sent.recv().unwrap()).collect();
    assert_eq!(answers, (1..=9).collect::<Vec<_>>());
    assert!(bench.keeper.counts().0 <= 2, "one while it was free, one for all that waited");
}

#[test]
fn a_failure_is_told_once_drops_the_answers_and_keeps_the_records_for_later() {
    let bench = bench();
    bench.let_happen.send(Err(std::io::ErrorKind::StorageFull)).unwrap();
    bench.keeper.keep(change(1), vec![answer(1)]);
    assert!(matches!(bench.told.recv().unwrap(), Health::Failing(text) if text.contains("gate")));
    bench.let_happen.send(Ok(())).unwrap();
    assert_eq!(bench.told.recv().unwrap(), Health::Well);
    assert_eq!(bench.committed.recv().unwrap(), [1]);
    assert!(bench.sent.try_recv().is_err(), "the mobile asks again");
    assert_eq!(bench.keeper.counts(), (1, 1));
    bench.let_happen.send(Ok(())).unwrap();
    bench.keeper.keep(change(2), vec![answer(2)]);
    assert_eq!(bench.sent.recv().unwrap(), 2);
    assert!(bench.told.try_recv().is_err());
}

#[test]
fn what_waits_is_written_before_the_end() {
    let bench = bench();
    bench.keeper.keep(change(1), Vec::new());
    for _ in 0..2 {
        bench.let_happen.send(Ok(())).unwrap();
    }
    let Bench { keeper, committed, .. } = bench;
    drop(keeper);
    assert_eq!(committed.recv().unwrap(), [1]);
}
