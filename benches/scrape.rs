//! What a scrape of a home agent that holds 100,000 bindings takes, and how much it brings.
//!
//! 12,500 mobiles with eight bindings each lie in the store; the real daemon starts with them in a
//! network namespace, and a scraper asks for `/metrics` one connection after the other: from the
//! first octet of the request to the last of the answer, by the clock on the wall. Prints
//!
//! ```text
//! goal <name> <measured> <op> <limit> met|missed
//! ```
//!
//! and exits 0 whether met or missed. `MTUN_BENCH_RUNS` is the number of scrapes, 200 by default. The
//! 95th of 100 is judged; the slowest stands beside it, since it is the machine's more than ours.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mtun::lab::daemons::write_keys;
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::world::{Plan, World, address};
use mtun::store::{Change, Database, Key, Moment, Sealed, Store};
use mtun_policy::{Bid, HomeAddress, HomeAgentAddress};
use mtun_signaling::agent::{KeptBinding, MobileRecord};

const MOBILES: u16 = 12_500;
const BINDINGS: u16 = 8;
const HELD: usize = MOBILES as usize * BINDINGS as usize;
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the daemon is scraped, unless it is told otherwise.
const SCRAPES: &str = "[::1]:9469";

fn main() {
    // `cargo test --benches` passes arguments too; none of them matters here.
    if let Err(reason) = mtun::lab::able() {
        println!("SKIPPED: {reason}");
        return;
    }
    let runs = std::env::var("MTUN_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok());
    if let Err(error) = measure(runs.unwrap_or(200)) {
        println!("scrape bench broke off: {error:#}");
    }
}

fn goal(name: &str, measured: f64, limit: f64) {
    let met = if measured <= limit { "met" } else { "missed" };
    println!("goal {name} {measured:.2} <= {limit} {met}");
}

fn measure(runs: usize) -> Result<()> {
    let world = World::build(Plan::default())?;
    write_keys(&world)?;
    let directory = world.directory().join("agent");
    let policy = directory.join("home-agent.kdl");
    std::fs::write(&policy, policy_text())?;
    let state = directory.join("state");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state)?;
    fill(&state.join("bindings.redb"))?;

    let mut command = world.ha.command(env!("CARGO_BIN_EXE_mtund"));
    command.arg("--policy").arg(&policy).arg("--state").arg(&state);
    command.arg("--socket").arg(directory.join("control.sock"));
    let mut daemon = world.ha.start(command, &directory.join("log"))?;
    let held = format!("mtun_ha_bindings{{home=\"acme\"}} {HELD}\n");
    wait_for("every binding in the figures", PATIENCE, || {
        let there = scrape(&world.ha).is_ok_and(|(body, _)| body.contains(&held));
        (there || !daemon.is_running()).then_some(())
    })
    .with_context(|| daemon.log())?;
    if !daemon.is_running() {
        bail!("mtund ended:\n{}", daemon.log());
    }

    let mut took = Vec::with_capacity(runs);
    let mut largest = String::new();
    for _ in 0..runs {
        let (body, time) = scrape(&world.ha)?;
        took.push(time.as_secs_f64() * 1e3);
        if body.len() > largest.len() {
            largest = body;
        }
    }
    took.sort_by(f64::total_cmp);
    let of_hundred = |place: usize| took[(took.len() - 1) * place / 100];
    println!(
        "# {HELD} bindings, {runs} scrapes: {:.2} ms in the middle, {:.2} ms the slowest",
        of_hundred(50),
        of_hundred(100)
    );
    goal("scrape-100000-bindings-p95-ms", of_hundred(95), 50.0);
    goal("scrape-100000-bindings-mib", largest.len() as f64 / f64::from(1 << 20), 1.0);
    let series = largest.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    goal("scrape-100000-bindings-series", series.count() as f64, 2000.0);
    daemon.stop()?;
    Ok(())
}

fn home(mobile: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 1, mobile)
}

/// The agent's policy: one association for all of them, as keys are none of what is measured.
fn policy_text() -> String {
    let mut text = format!(
        "/- kdl-version 2\n\
         policy \"fleet\" schema=1\n\
         role \"home-agent\"\n\
         home \"acme\" {{\n\
         tunnel mtun0\n\
         serve \"2001:db8:100::/64\" agent=\"{}\"\n",
        address::AGENT
    );
    for mobile in 0..MOBILES {
        let _ = writeln!(text, "allow \"{}\" {{ security \"acme-sa\"; }}", home(mobile));
    }
    text.push_str(
        "}\n\
         security \"acme-sa\" {\n\
         auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"acme.key\"\n\
         }\n",
    );
    text
}

/// What an earlier run of the daemon would have kept.
fn fill(path: &Path) -> Result<()> {
    let mut store = Database::open(path)?;
    let moment = Moment::now(0);
    let change = |mobile: u16| {
        let home_address = HomeAddress(home(mobile));
        let key = Key { agent: HomeAgentAddress(address::AGENT), home_address };
        let record = MobileRecord {
            home_address,
            router: false,
            link_local: false,
            link_layer: None,
            prefixes: Vec::new(),
            bindings: (1..=BINDINGS).map(|number| binding(mobile, number)).collect(),
            sequence: Some((1, None)),
            timestamp: None,
            flows: Vec::new(),
            reflect: false,
            copies: false,
        };
        Change { key, record: Some(Sealed::seal(key, moment, |out| record.emit(out))) }
    };
    store.commit(&(0..MOBILES).map(change).collect::<Vec<_>>())?;
    Ok(())
}

fn binding(mobile: u16, number: u16) -> KeptBinding {
    let care_of = Ipv6Addr::new(0x2001, 0xdb8, 0xc000 + number, 0, 0, 0, 0, mobile + 1);
    KeptBinding {
        bid: Bid::new(number),
        care_of: care_of.into(),
        priority: number as u8,
        left: Duration::from_secs(3600),
    }
}

/// The figures, and how long it took to get them.
fn scrape(namespace: &Namespace) -> Result<(String, Duration)> {
    let address: SocketAddr = SCRAPES.parse().expect("an address");
    // Of version 1.0, so that the body comes as it is and not in chunks.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let (reply, took) = namespace.run(|| {
        let start = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        std::io::Result::Ok((reply, start.elapsed()))
    })?;
    let reply = String::from_utf8(reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{head}");
    }
    Ok((body.to_owned(), took))
}
