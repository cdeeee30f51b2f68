//! A prober and a steering over links that delay, lose and die, under a virtual clock.

#![allow(dead_code)] // Whoever includes this uses a part of it.

use std::time::Duration;

use mtun_policy::probing::{Order, Prober};
use mtun_policy::steering::{Fact, LinkReason, LinkState, Notice, Steering};
use mtun_policy::{Bid, CareOfAddress, NoFiles, parse};

pub fn bid(number: u16) -> Bid {
    Bid::new(number).expect("not zero")
}

/// A link as the world makes it.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub trip: Duration,
    pub up: bool,
    pub down: bool,
    /// Losses of either direction, of 10,000.
    pub loss: u64,
    /// The link by which answers come; itself at an agent of our kind.
    pub by: u16,
    pub flows: bool,
}

impl Line {
    pub const GOOD: Self = Self {
        trip: Duration::from_millis(20),
        up: true,
        down: true,
        loss: 0,
        by: 0,
        flows: false,
    };
}

/// What the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    There,
    /// Nothing that arrives is answered, ever.
    Away,
    /// What arrives waits.
    Stopped,
}

/// When it arrives, what is asked about, its number, and the link by which it is answered.
type Flight = (Duration, Bid, u64, Bid);

pub struct World {
    pub now: Duration,
    pub lines: Vec<Line>,
    pub agent: Agent,
    pub prober: Prober,
    pub steering: Steering,
    /// On the way to the agent, or there.
    asking: Vec<Flight>,
    /// On the way back.
    flying: Vec<Flight>,
    pub notices: Vec<(Duration, Bid, LinkState, LinkReason)>,
    /// What left, if anybody wants to know.
    pub sent: Vec<(Duration, Bid)>,
    pub keeps_sent: bool,
    pub random: u64,
}

pub const TEXT: &str = r#"
    role "mobile-node"
    interface wlan0 { bid 1; }
    interface wwan0 { bid 2; metered #true; }
    interface wwan1 { bid 3; }
    home acme {
        tunnel mtun0
        agent "2001:db8:100::1"
        address "2001:db8:100::42/64"
        security none
    }
    rules { default { prefer wlan0 wwan0 wwan1; otherwise any; } }
"#;

impl World {
    /// This many links, all up and bound for a while.
    pub fn new(lines: usize) -> Self {
        let policy = parse("laptop.kdl", TEXT, &NoFiles).expect("the file is right");
        let home = &policy.homes[0];
        let mut world = Self {
            now: Duration::from_secs(100),
            lines: vec![Line::GOOD; lines],
            agent: Agent::There,
            asking: Vec::new(),
            prober: Prober::new(&policy, home),
            steering: Steering::new(&policy, home, Duration::from_secs(100)),
            flying: Vec::new(),
            notices: Vec::new(),
            sent: Vec::new(),
            keeps_sent: true,
            random: 7,
        };
        for at in 0..lines {
            world.bind(at);
        }
        world.pass(Duration::from_secs(30));
        world.notices.clear();
        world.sent.clear();
        world
    }

    pub fn bind(&mut self, at: usize) {
        let bid = bid(at as u16 + 1);
        let care_of = format!("2001:db8:{}::7", at + 1).parse().map(CareOfAddress);
        self.steering.handle(self.now, Fact::Attached { bid, attached: true });
        self.steering.handle(self.now, Fact::Registered { bid, registered: true });
        self.prober.bound(self.now, bid, care_of.ok());
    }

    fn lost(&mut self, share: u64) -> bool {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % 10_000 < share
    }

    /// Lets time pass, from event to event.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.follow();
            let there = |it: &&Flight| self.agent != Agent::Stopped || it.0 > self.now;
            let asked = self.asking.iter().filter(there).map(|it| it.0);
            let arrival = asked.chain(self.flying.iter().map(|it| it.0)).min();
            let due = [self.prober.deadline(), self.steering.deadline(), arrival];
            let next = due.into_iter().flatten().min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            self.serve();
            let arrived: Vec<_> = self.flying.extract_if(.., |it| it.0 <= next).collect();
            for (_, bid, sequence, by) in arrived {
                self.prober.answered(self.now, bid, sequence, Some(by));
            }
            for at in 0..self.lines.len() {
                if self.lines[at].flows {
                    self.prober.flowed(self.now, bid(at as u16 + 1));
                }
            }
            self.prober.handle_deadline(self.now);
            self.steering.handle_deadline(self.now);
        }
    }

    /// Does what the machines want.
    fn follow(&mut self) {
        while let Some(order) = self.prober.poll() {
            match order {
                Order::Tell(fact) => self.steering.handle(self.now, fact),
                Order::Send { bid, sequence } => self.send(bid, sequence),
            }
            while let Some(notice) = self.steering.poll() {
                match notice {
                    Notice::BurstWanted { bid } => self.prober.burst(self.now, bid),
                    Notice::LinkState { bid, to, reason, .. } => {
                        self.notices.push((self.now, bid, to, reason));
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, asked: Bid, sequence: u64) {
        if self.keeps_sent {
            self.sent.push((self.now, asked));
        }
        let line = self.lines[usize::from(asked.get()) - 1];
        let by = if line.by == 0 { asked } else { bid(line.by) };
        let back = self.lines[usize::from(by.get()) - 1];
        let lost = self.lost(line.loss) || self.lost(back.loss);
        if line.up && back.down && !lost {
            self.asking.push((self.now + line.trip / 2, asked, sequence, by));
        }
    }

    /// What the agent does with what has arrived there.
    fn serve(&mut self) {
        if self.agent == Agent::Stopped {
            return;
        }
        for (_, asked, sequence, by) in self.asking.extract_if(.., |it| it.0 <= self.now) {
            if self.agent == Agent::There {
                let back = self.lines[usize::from(by.get()) - 1];
                self.flying.push((self.now + back.trip / 2, asked, sequence, by));
            }
        }
    }

    pub fn state(&self, number: u16) -> (LinkState, LinkReason) {
        let report = self.steering.links().into_iter().find(|it| it.bid == bid(number));
        let report = report.expect("it is in the file");
        (report.state, report.reason)
    }

    pub fn words(&self) -> Vec<(u16, &'static str)> {
        self.notices.iter().map(|(_, bid, state, _)| (bid.get(), state.word())).collect()
    }

    pub fn pauses(&self, of: u16) -> Vec<u64> {
        let times: Vec<_> = self.sent.iter().filter(|it| it.1 == bid(of)).map(|it| it.0).collect();
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis() as u64).collect()
    }
}
