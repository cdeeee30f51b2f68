//! Nodes that mobiles talk to: with a correspondent's machine or, as most of the Internet, without.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_dataplane::Engine;
use mtun_signaling::{Correspondent, CorrespondentConfig, Seed};

use crate::mobile::settings;
use crate::network::Quality;
use crate::publish::{self, Published};
use crate::random::Random;

/// A correspondent's machine and what is watched of it.
#[derive(Debug)]
pub struct Responder {
    pub machine: Correspondent,
    pub config: CorrespondentConfig,
    /// The messages that this life has read.
    pub seen: HashSet<u64>,
    /// When this life began.
    pub born: Duration,
    /// When bindings last ended for another reason than a mobile's word or time.
    pub shaken: Duration,
}

impl Responder {
    /// One without bindings, at this address.
    pub fn new(address: Ipv6Addr, random: &mut Random) -> Self {
        let config = CorrespondentConfig {
            addresses: vec![address],
            max_lifetime: Duration::from_secs(random.pick(&[60, 420])),
            multiple_coa: random.chance(800),
            max_mobiles: random.pick(&[1, 4]),
            max_bindings: random.pick(&[1, 2, 4]),
        };
        Self {
            machine: Correspondent::new(config.clone(), seed(random)),
            config,
            seen: HashSet::new(),
            born: Duration::ZERO,
            shaken: Duration::ZERO,
        }
    }

    /// Starts again with nothing but its configuration.
    pub fn restart(&mut self, now: Duration, random: &mut Random) {
        self.machine = Correspondent::new(self.config.clone(), seed(random));
        self.seen.clear();
        (self.born, self.shaken) = (now, now);
    }
}

/// The seed of one life of one machine.
pub fn seed(random: &mut Random) -> Seed {
    let mut octets = [0; 32];
    octets.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next().to_be_bytes()));
    Seed::new(octets)
}

/// A node that stays where it is.
#[derive(Debug)]
pub struct Host {
    pub address: Ipv6Addr,
    pub link: Quality,
    pub base: Duration,
    /// None for a node that knows nothing of mobility.
    pub responder: Option<Responder>,
    pub published: Published,
    pub engine: Engine,
}

impl Host {
    /// A node that answers what it is asked.
    pub fn new(address: Ipv6Addr, base: Duration, responds: bool, random: &mut Random) -> Self {
        let (published, engine) = packets(address);
        Self {
            address,
            link: Quality::any(random),
            base,
            responder: responds.then(|| Responder::new(address, random)),
            published,
            engine,
        }
    }

    /// Starts again.
    pub fn restart(&mut self, now: Duration, base: Duration, random: &mut Random) {
        (self.published, self.engine) = packets(self.address);
        self.base = base;
        if let Some(responder) = &mut self.responder {
            responder.restart(now, random);
        }
    }
}

fn packets(address: Ipv6Addr) -> (Published, Engine) {
    let published = publish::initial([], true, vec![address]);
    let engine = Engine::new(published.clone(), settings());
    (published, engine)
}
