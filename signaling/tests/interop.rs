//! Two independent readers of what we write, and one other writer for us to read.
//!
//! `tshark` and scapy read a capture with every type of message that we emit, inside the packets
//! they travel in; scapy writes messages of every type for our codec. A missing program is a
//! skipped test, said loudly and counted (`tests/support/skip.rs`).
//!
//! scapy's side is in `interop/read.py` and `interop/write.py`, run by `MTUN_PYTHON`, else `python3`.

#[path = "interop/samples.rs"]
mod samples;
mod scene;
#[path = "../../tests/support/skip.rs"]
mod skip;
mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mtun_policy::HomeAddress;
use mtun_signaling::auth::{self, AuthFailure};
use mtun_signaling::wire;
use mtun_signaling::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryReply, HomeAgentAddressDiscoveryRequest, IcmpMessage,
    MobilePrefixAdvertisement, MobilePrefixSolicitation, PrefixInformation,
};
use mtun_signaling::{CorrespondentEvent, Envelope, RouteOptimizationEvent};
use samples::{Expected, Sample, samples, scapys};
use scene::route_world::RouteWorld;
use support::{
    CARE_OF, HOME, RAW_IPV6, address, file, octets, open, sha256_association, write_capture,
};

/// The samples in a capture file of their own, removed with the value.
struct Capture(PathBuf);

impl Capture {
    fn of(samples: &[Sample], reader: &str) -> Self {
        let packets: Vec<Vec<u8>> = samples.iter().map(|sample| sample.packet.clone()).collect();
        Self::write(&packets, reader)
    }

    fn write(packets: &[Vec<u8>], reader: &str) -> Self {
        let name = format!("mtun-interop-{reader}-{}.pcap", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, write_capture(RAW_IPV6, packets)).expect("a temporary file");
        Self(path)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("a program that was there a moment ago");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn tshark_reads_every_message() {
    if !skip::runs(Command::new("tshark").arg("--version")) {
        return skip::skip("signaling interop: tshark is not installed");
    }
    let samples = samples();
    let mut keys: Vec<&str> =
        samples.iter().flat_map(|sample| sample.tshark).map(|(key, _)| *key).collect();
    keys.sort_unstable();
    keys.dedup();
    // No complaint of any severity, and every octet of every message understood.
    let complaints =
        ["_ws.malformed", "_ws.expert.message", "mip6.bogus_header_length", "mip6.opt.len.invalid"];
    keys.extend(complaints);

    let capture = Capture::of(&samples, "tshark");
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&capture.0).args(["-n", "-T", "fields"]);
    tshark.args(["-E", "occurrence=a", "-E", "aggregator=|", "-E", "separator=/t"]);
    for key in &keys {
        tshark.args(["-e", key]);
    }
    let text = output(&mut tshark);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), samples.len(), "{text}");
    for (sample, line) in samples.iter().zip(lines) {
        let found: BTreeMap<&str, &str> = keys.iter().copied().zip(line.split('\t')).collect();
        for complaint in complaints {
            assert_eq!(found[complaint], "", "{}: {complaint}", sample.what);
        }
        for (key, values) in sample.tshark {
            assert_eq!(found[key], values.join("|"), "{}: {key}", sample.what);
        }
    }
}

/// What a mobile and a correspondent say to each other, from the first test to the last word.
fn an_optimized_route() -> Vec<(Envelope, Vec<u8>)> {
    let mut world = RouteWorld::new(Box::new(|| vec![Duration::from_millis(20)]));
    world.start_correspondent(&scene::route::correspondent_config());
    world.start_optimizer(&scene::route::optimizer_config());
    let correspondent = scene::address(scene::route::CORRESPONDENT);
    let home_address = scene::home();
    let up = |number, text: &str| RouteOptimizationEvent::CareOf {
        bid: scene::bid(number),
        priority: 10,
        care_of: scene::care_of(text),
        expires: Duration::from_secs(10_000),
    };
    world.optimizer_event(up(1, "2001:db8:1::7"));
    world.optimizer_event(up(2, "2001:db8:2::7"));
    world.optimizer_event(RouteOptimizationEvent::Wanted { correspondent });
    world.run_until(Duration::from_secs(1));
    let event = CorrespondentEvent::UnknownBinding {
        source: scene::address("2001:db8:3::7"),
        destination: correspondent,
        home_address,
    };
    world.correspondent_event(event);
    world.optimizer_event(RouteOptimizationEvent::CareOfGone { bid: scene::bid(2) });
    world.run_until(Duration::from_secs(2));
    world.optimizer_event(RouteOptimizationEvent::ReturnedHome);
    world.run_until(Duration::from_secs(3));
    world.wire
}

#[test]
fn tshark_follows_an_optimized_route() {
    if !skip::runs(Command::new("tshark").arg("--version")) {
        return skip::skip("signaling interop: tshark is not installed");
    }
    // Home and care-of tests, two registrations, an error, an uplink that goes, and home.
    let types = "1 2 2 3 4 4 5 6 5 6 7 5 6 5 6";
    let exchange = an_optimized_route();
    let packets = exchange.iter().map(|(envelope, message)| support::packet(envelope, message));
    let path = Capture::write(&packets.collect::<Vec<_>>(), "route");
    let complaints = ["_ws.malformed", "_ws.expert.message", "mip6.bogus_header_length"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path.0).args(["-n", "-T", "fields", "-E", "separator=/t"]);
    for key in complaints.iter().chain(["mip6.mhtype"].iter()) {
        tshark.args(["-e", key]);
    }
    let text = output(&mut tshark);
    let mut seen = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        assert!(columns[..complaints.len()].iter().all(|complaint| complaint.is_empty()), "{line}");
        seen.push(columns[complaints.len()]);
    }
    assert_eq!(seen.join(" "), types, "{text}");
}

#[test]
fn tshark_reads_discovery() {
    if !skip::runs(Command::new("tshark").arg("--version")) {
        return skip::skip("signaling interop: tshark is not installed");
    }
    let agents = vec![address(support::AGENT), address(support::CORRESPONDENT)];
    let identifier = 0x1234;
    let prefix = PrefixInformation {
        prefix_len: 64,
        on_link: true,
        autonomous: true,
        router_address: true,
        valid: 86_400,
        preferred: 14_400,
        address: address(support::AGENT),
    };
    let (managed, other, prefixes) = (false, true, vec![prefix]);
    let cases = [
        (
            support::plain(CARE_OF, "2001:db8:1:0:fdff:ffff:ffff:fffe"),
            IcmpMessage::HomeAgentAddressDiscoveryRequest(HomeAgentAddressDiscoveryRequest {
                identifier,
                router: true,
            }),
        ),
        (
            support::plain(support::AGENT, CARE_OF),
            IcmpMessage::HomeAgentAddressDiscoveryReply(HomeAgentAddressDiscoveryReply {
                identifier,
                router: true,
                agents,
            }),
        ),
        (
            support::away(support::AGENT),
            IcmpMessage::MobilePrefixSolicitation(MobilePrefixSolicitation { identifier }),
        ),
        (
            support::to_mobile(support::AGENT),
            IcmpMessage::MobilePrefixAdvertisement(MobilePrefixAdvertisement {
                identifier,
                managed,
                other,
                prefixes,
            }),
        ),
    ];
    let packets = cases.iter().map(|(envelope, message)| {
        let message = icmpv6::emit(message, envelope);
        support::packet_of(envelope, wire::iana::icmpv6::NEXT_HEADER, &message)
    });
    let path = Capture::write(&packets.collect::<Vec<_>>(), "discovery");
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path.0).args(["-n", "-T", "fields", "-E", "separator=/t"]);
    let keys = ["_ws.malformed", "_ws.expert.message", "icmpv6.type", "icmpv6.checksum.status"];
    for key in keys {
        tshark.args(["-e", key]);
    }
    let text = output(&mut tshark);
    let want: Vec<String> = (144..148).map(|kind| format!("\t\t{kind}\t1")).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
}

fn python() -> Option<OsString> {
    let python = std::env::var_os("MTUN_PYTHON").unwrap_or_else(|| "python3".into());
    skip::runs(Command::new(&python).args(["-c", "import scapy.layers.inet6"])).then_some(python)
}

#[test]
fn scapy_reads_every_message() {
    let Some(python) = python() else {
        return skip::skip("signaling interop: python3 with scapy is not installed");
    };
    let samples = samples();
    let capture = Capture::of(&samples, "scapy");
    let text = output(Command::new(python).arg(file("tests/interop/read.py")).arg(&capture.0));
    let mut found: BTreeMap<(usize, &str), Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let mut columns = line.splitn(3, '\t');
        let mut column = || columns.next().expect("three columns");
        let frame = column().parse::<usize>().expect("a frame number");
        found.entry((frame, column())).or_default().push(column());
    }
    for (frame, sample) in (1..).zip(&samples) {
        // Over the home address, which scapy takes from the extension headers.
        let checksum: Expected = &[("checksum", &["good"]), ("nh", &["59"]), ("res", &["0"])];
        for (key, values) in sample.scapy.iter().chain(checksum) {
            let got = found.get(&(frame, *key)).map(Vec::as_slice);
            assert_eq!(got, Some(*values), "{}: {key}", sample.what);
        }
    }
}

#[test]
fn we_read_what_scapy_writes() {
    let Some(python) = python() else {
        return skip::skip("signaling interop: python3 with scapy is not installed");
    };
    let text = output(Command::new(python).arg(file("tests/interop/write.py")));
    let written: BTreeMap<&str, Vec<u8>> = text
        .lines()
        .map(|line| line.split_once('\t').expect("name and packet"))
        .map(|(name, hex)| (name, octets(hex)))
        .collect();
    let cases = scapys();
    assert_eq!(written.len(), cases.len());
    for (what, want_envelope, want) in cases {
        let (envelope, message) = open(&written[what]).expect(what);
        assert_eq!(envelope, want_envelope, "{what}");
        assert_eq!(wire::receive(&envelope, message), Ok(want), "{what}");
    }
    // Signed with nothing: read, and not believed.
    let (_, message) = open(&written["registration of a router"]).unwrap();
    let home = HomeAddress(address(HOME));
    assert_eq!(auth::claimed_spi(message), Ok(0x1001));
    let verdict = auth::verify(message, address(CARE_OF), home, &sha256_association());
    assert_eq!(verdict, Err(AuthFailure::Mismatch));
}
