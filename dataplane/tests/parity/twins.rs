//! An engine with its fast path, and what both make of the same packet.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_dataplane::abi::{Course, FastFlow, FastOutcome, Shortcut};
use mtun_dataplane::backend::{Bpf, BpfError, BpfPath, Hook};
use mtun_dataplane::{Engine, Exit, PathId, Publication, Settings, Snapshot, Verdict};
use mtun_policy::Ingress;

use crate::skip::skip;
use crate::support::NOW;

/// Of Ethernet, with the type of IPv6.
pub const LINK: [u8; 14] = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];

/// The link header with which packets of the shortcut go on.
pub const ONWARDS: [u8; 14] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x86, 0xdd];

/// The interface that stands for every uplink, and for the network behind: only its number counts.
pub const INTERFACE: u32 = 1;

/// The same of the tunnel interface.
pub const TUNNEL: u32 = 3;

/// Octets that the tunnel interface takes: more than any path.
pub const TUNNEL_MTU: u16 = 1500;

/// The mark of every outer packet.
pub const MARK: u32 = 7;

/// An interface that rules name, with the number of its ingress.
pub const NAMED: (u32, u8) = (77, 2);
/// Another.
pub const ALSO_NAMED: (u32, u8) = (78, 3);

/// What the engine makes of a packet that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub verdict: Verdict,
    pub octets: Vec<u8>,
}

pub struct Twins {
    pub engine: Engine,
    pub bpf: Arc<Bpf>,
    /// The path that has no interface; none of them at first.
    pub gone: Arc<AtomicU16>,
    pub out: Vec<u8>,
}

impl Twins {
    /// `None` if the kernel or a lack of rights forbids it, which is said.
    pub fn new(snapshot: Snapshot) -> Option<Self> {
        Self::between(TUNNEL, INTERFACE, LINK.len(), snapshot)
    }

    /// The same for a tunnel interface with so many octets of link header, and the one uplink.
    pub fn between(tunnel: u32, uplink: u32, header: usize, snapshot: Snapshot) -> Option<Self> {
        let bpf = match Bpf::load(tunnel, 1024, header as u32) {
            Ok(bpf) => Arc::new(bpf),
            Err(error @ BpfError::NotPermitted) => {
                skip(&format!("parity of the fast path: {error}"));
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        bpf.set_doors(&[NAMED, ALSO_NAMED]).unwrap();
        let gone = Arc::new(AtomicU16::new(u16::MAX));
        let lost = gone.clone();
        let exit = move |path: PathId, _: (Ipv6Addr, Ipv6Addr)| {
            let there = path.0 != lost.load(Ordering::Relaxed);
            there.then_some(Exit { interface: uplink, mark: MARK })
        };
        let path = BpfPath::new(Arc::clone(&bpf), Box::new(exit));
        let published = Arc::new(ArcSwap::from_pointee(snapshot.clone()));
        let engine = Engine::new(published, Settings::default()).with_fast_path(Box::new(path));
        engine.publish(Arc::new(snapshot));
        Some(Self { engine, bpf, gone, out: Vec::new() })
    }

    pub fn outbound(&mut self, ingress: Ingress, packet: &[u8]) -> Sent {
        let verdict = self.engine.outbound(ingress, packet, NOW, &mut self.out);
        Sent { verdict, octets: self.out.clone() }
    }

    pub fn inbound(&mut self, packet: &[u8]) -> Sent {
        let verdict = self.engine.inbound(PathId(1), packet, NOW, &mut self.out);
        Sent { verdict, octets: self.out.clone() }
    }

    /// Sends until the fast path has it: the same must be decided twice.
    pub fn install_out(&mut self, ingress: Ingress, packet: &[u8]) {
        for _ in 0..2 {
            let sent = self.outbound(ingress, packet);
            assert!(matches!(sent.verdict, Verdict::Send { .. }), "{sent:?}");
        }
    }

    pub fn install_in(&mut self, packet: &[u8]) {
        for _ in 0..2 {
            let received = self.inbound(packet);
            assert_eq!(received.verdict, Verdict::Deliver, "{:?}", received.octets);
        }
    }

    /// What the program does with a packet without its link header; `None` if it leaves it alone.
    pub fn fast(&self, hook: Hook, packet: &[u8], from: u32) -> Option<Vec<u8>> {
        let frame = [&LINK[..], packet].concat();
        let tried = self.bpf.try_out(hook, &frame, from, 1).unwrap();
        match tried.taken {
            true => Some(tried.frame[LINK.len()..].to_vec()),
            false => {
                assert_eq!(tried.frame, frame, "what is left to the daemon is left as it came");
                None
            }
        }
    }

    /// The one outcome that `run` adds to.
    pub fn outcome_of(&self, run: impl FnOnce(&Self)) -> Option<FastOutcome> {
        let before = self.bpf.outcomes().unwrap();
        run(self);
        let after = self.bpf.outcomes().unwrap();
        let risen = before.iter().zip(&after).filter(|((_, b), (_, a))| a != b);
        let risen: Vec<_> = risen.map(|((outcome, _), _)| *outcome).collect();
        assert!(risen.len() <= 1, "{risen:?}");
        risen.first().copied()
    }

    /// As if a packet of every flow had passed the kernel's forwarding just before: from or to this
    /// interface, to go on with [`ONWARDS`]. So many octets fit there, and [`TUNNEL_MTU`] into the tunnel.
    pub fn pass_all(&self, shortcut: Shortcut, front: u32, fits: u16) {
        self.bpf.set_shortcut(shortcut).unwrap();
        let mut flows = Vec::new();
        self.bpf.each(&mut |key, flow| flows.push((*key, *flow))).unwrap();
        for (key, flow) in flows {
            let (round, turn) = (self.bpf.round(), self.bpf.turn());
            let passed_ns = self.bpf.clock();
            let link = ONWARDS;
            let fits = if key.direction == Course::In as u8 { fits } else { TUNNEL_MTU };
            let flow = FastFlow { passed_ns, round, turn, front, fits, link, both: 1, ..flow };
            self.bpf.put(&key, &flow).unwrap();
        }
    }

    pub fn sweep(&self, now: Duration) {
        self.engine.sweep(now).unwrap();
    }
}
