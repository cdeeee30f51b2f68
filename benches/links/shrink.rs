//! A path that takes less from one moment to the next, under a connection each way.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mtun::lab::namespace::{pause, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, address};

use crate::rig::{PATIENCE, Rig, goal, progress, side_by_side};

/// Worlds whose path shrinks. Everybody on the way remembers that for ten minutes, so each does so
/// once.
const PATHS: u32 = 8;
/// Octets that are written at once, and how often: a full segment each.
const PIECE: usize = 1_300;
const EVERY: Duration = Duration::from_millis(2);
/// How long a connection is watched after the path has shrunk.
const WATCHED: Duration = Duration::from_secs(4);

/// What became of one connection.
#[derive(Clone, Copy, Debug)]
struct Stall {
    /// The longest time without an octet.
    longest: Duration,
    /// The round trip before.
    round_trip: Duration,
}

/// K10, F-22: the cable behind the access router takes 1280 octets and no more.
pub fn paths() -> Result<()> {
    let all: Vec<Stall> = side_by_side(PATHS, |world, share| {
        let mut stalls = Vec::new();
        for path in 0..share {
            progress("paths that shrink", world, path, share);
            stalls.extend(shrinks()?);
        }
        Ok(stalls)
    })?
    .concat();
    let beyond = |it: &Stall| it.longest.saturating_sub(it.round_trip).as_secs_f64() * 1e3;
    let worst = all.iter().map(beyond).fold(0.0, f64::max);
    println!("# {} connections over a path that shrinks to 1280: {all:?}", all.len());
    goal("shrink-stall-beyond-a-round-trip-ms", worst, 1000.0);
    Ok(())
}

/// One connection up and one down, and the path that shrinks under both.
fn shrinks() -> Result<Vec<Stall>> {
    let rig = Rig::start(Plan::default(), &PolicyText::default(), &["wlan0", "wwan0"])?;
    let listener = rig.world.cn.run(|| TcpListener::bind((address::CORRESPONDENT, 80)))?;
    let connect = || -> Result<(TcpStream, TcpStream)> {
        let near = rig.world.mnn.run(|| TcpStream::connect((address::CORRESPONDENT, 80)))?;
        Ok((near, listener.accept()?.0))
    };
    let ((up, far_up), (far_down, down)) = (connect()?, connect()?);
    let round_trip = wait_for("the path's figures", PATIENCE, || {
        let status = rig.mobile.status().ok()?;
        let link = status.links.into_iter().find(|it| it.interface.as_str() == "wlan0")?;
        link.rtt_p95_ms
    })?;
    let round_trip = Duration::from_secs_f64(round_trip / 1e3);
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let gaps = std::thread::scope(|scope| -> Result<[Duration; 2]> {
        let carried = [(up, far_up), (down, far_down)].map(|(from, to)| {
            scope.spawn(move || write(from, stop));
            scope.spawn(move || read(to, stop))
        });
        // Whatever happens, everybody is told to end.
        let watched = (|| {
            pause(Duration::from_secs(1))?;
            let shrunk = Instant::now();
            rig.world.wlan.ip(&["link set up0 mtu 1280"])?;
            rig.world.core.ip(&["link set wlan0 mtu 1280"])?;
            pause(WATCHED).map(|()| shrunk)
        })();
        stop.store(true, Ordering::Relaxed);
        let carried = carried.map(|it| it.join().expect("a reader does not panic"));
        let shrunk = watched?;
        let longest = |arrivals: &[Instant]| {
            let after = || arrivals.iter().copied().filter(|at| *at >= shrunk);
            let ends = after().chain([shrunk + WATCHED]);
            let begins = [shrunk].into_iter().chain(after());
            begins.zip(ends).map(|(from, to)| to.saturating_duration_since(from)).max()
        };
        let [up, down] = carried;
        Ok([longest(&up).unwrap_or(WATCHED), longest(&down).unwrap_or(WATCHED)])
    })?;
    let learned = rig.mobile.status()?.links.into_iter().find_map(|it| it.path_mtu);
    learned.filter(|path| path.octets == 1280).context("nobody learned what the path takes")?;
    Ok(gaps.map(|longest| Stall { longest, round_trip }).to_vec())
}

/// Writes until told to stop.
fn write(mut stream: TcpStream, stop: &AtomicBool) {
    let ready = stream.set_nodelay(true).and(stream.set_write_timeout(Some(EVERY * 50)));
    if ready.is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&[7; PIECE]) {
            Ok(_) => std::thread::sleep(EVERY),
            // The stall itself.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Reads until told to stop; when something came.
fn read(mut stream: TcpStream, stop: &AtomicBool) -> Vec<Instant> {
    let mut arrivals = Vec::new();
    let mut octets = vec![0; 1 << 16];
    if stream.set_read_timeout(Some(EVERY * 50)).is_err() {
        return arrivals;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut octets) {
            Ok(0) => break,
            Ok(_) => arrivals.push(Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    arrivals
}
