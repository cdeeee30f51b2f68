//! The two tests, from the mobile's side (RFC 6275 §11.6).

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use super::peer::{Entry, Peer};
use super::{Ignored, Route, RouteOptimization, RouteOptimizationNotice, RouteOptimizationOutput};
use crate::machine::Envelope;
use crate::registration::{INITIAL_BINDACK_TIMEOUT, MAX_BINDACK_TIMEOUT};
use crate::return_routability::{KeygenToken, MAX_TOKEN_LIFETIME, NONCE_INTERVAL};
use crate::wire::{self, CareOfTest, CareOfTestInit, HomeTest, HomeTestInit, Message, Options};

/// How long to wait for an answer when `unanswered` messages went before this one.
pub(super) fn wait(unanswered: u32) -> Duration {
    // req MN-17, R-MN-02 (RFC 6275 §11.8): 1 s, doubled each time up to 32 s.
    INITIAL_BINDACK_TIMEOUT.saturating_mul(1 << unanswered.min(5)).min(MAX_BINDACK_TIMEOUT)
}

/// A test that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    cookie: [u8; 8],
    at: Duration,
    timer: Duration,
    by: Option<Bid>,
}

/// A token, and for how long it may be used.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub token: KeygenToken,
    pub index: u16,
    /// When it was asked for: the correspondent made it later.
    at: Duration,
}

/// One test of one address at one correspondent.
#[derive(Debug, Default)]
pub(super) struct RoutabilityTest {
    waiting: Option<Waiting>,
    token: Option<Token>,
    /// Requests without an answer.
    pub unanswered: u32,
}

impl RoutabilityTest {
    /// The token, while it may be used.
    pub(super) fn token(&self, now: Duration) -> Option<&Token> {
        // RFC 6275 §5.2.7, §11.6.1.
        self.token.as_ref().filter(|token| now < token.at + MAX_TOKEN_LIFETIME)
    }

    /// From when on a new token is to be asked for, while the old one still works.
    pub(super) fn old_at(&self) -> Option<Duration> {
        self.token.as_ref().map(|token| token.at + MAX_TOKEN_LIFETIME - NONCE_INTERVAL)
    }

    /// Whether a new token is to be asked for, or there is none.
    pub(super) fn is_old(&self, now: Duration) -> bool {
        self.old_at().is_none_or(|at| at <= now)
    }

    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether the address answered a moment ago.
    pub(super) fn is_recent(&self, now: Duration) -> bool {
        self.token(now).is_some_and(|token| now < token.at + NONCE_INTERVAL)
    }

    pub(super) fn timer(&self) -> Option<Duration> {
        self.waiting.map(|waiting| waiting.timer)
    }

    pub(super) fn forget_token(&mut self) {
        self.token = None;
    }

    /// As if nothing had been asked; a token stays.
    pub(super) fn start_over(&mut self) {
        self.waiting = None;
        self.unanswered = 0;
    }

    /// A request that went by this uplink will not be answered.
    pub(super) fn forget_request_by(&mut self, bid: Bid) {
        if self.waiting.is_some_and(|waiting| waiting.by == Some(bid)) {
            self.waiting = None;
        }
    }

    /// Gives up a request whose time is over; says whether there was one.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let late = self.waiting.take_if(|waiting| waiting.timer <= now).is_some();
        self.unanswered += u32::from(late);
        late
    }

    fn ask(&mut self, now: Duration, cookie: [u8; 8], by: Option<Bid>) {
        let timer = now + wait(self.unanswered);
        self.waiting = Some(Waiting { cookie, at: now, timer, by });
    }

    /// Takes the answer to the last request.
    fn take(&mut self, cookie: [u8; 8], index: u16, token: [u8; 8]) -> Result<(), Ignored> {
        // req MN-20 (RFC 6275 §11.6.2): what was asked for, and once.
        let waiting = self.waiting.ok_or(Ignored::NothingAsked)?;
        if waiting.cookie != cookie {
            return Err(Ignored::Cookie);
        }
        self.waiting = None;
        self.unanswered = 0;
        self.token = Some(Token { token: KeygenToken::new(token), index, at: waiting.at });
        Ok(())
    }
}

impl RouteOptimization {
    /// Asks for the home token through the tunnel, unless there is one or it has been asked for.
    pub(super) fn test_home(&mut self, now: Duration, correspondent: Ipv6Addr, peer: &mut Peer) {
        let test = &mut peer.home_test;
        if !test.is_old(now) || test.waits() || peer.home_pace.ready_at() > now {
            return;
        }
        // req MN-34 (RFC 6275 §11.6.1, §10.4.6): by the home link when there, else by the
        // tunnel; another uplink each time, as one may be silent.
        let mut up: Vec<(u8, Bid)> =
            self.uplinks.iter().map(|(&bid, uplink)| (uplink.priority, bid)).collect();
        up.sort();
        let by = up.get(test.unanswered as usize % up.len().max(1)).map(|&(_, bid)| bid);
        let route = match by {
            Some(bid) => Route::Tunnel(bid),
            None if self.at_home => Route::Home,
            None => return,
        };
        // req MN-17 (RFC 6275 §11.8): every request has a cookie of its own.
        let cookie = self.seed.draw();
        test.ask(now, cookie, by);
        peer.home_pace.sent(now);
        peer.last_sent = Some(now);
        let message = Message::HomeTestInit(HomeTestInit { cookie, options: Options::new() });
        let envelope = Envelope::plain(self.config.home_address.0, correspondent);
        self.transmit(route, envelope, &message);
    }

    /// Asks for the care-of token of this uplink, straight from its address.
    pub(super) fn test_care_of(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        bid: Bid,
    ) {
        let Some(&uplink) = self.uplinks.get(&bid) else { return };
        let entry = peer.entries.entry(bid).or_default();
        if entry.tested != Some(uplink.care_of) {
            // req CN-48 (RFC 6275 §5.2.7): only this test is made again.
            entry.test = RoutabilityTest::default();
            entry.tested = Some(uplink.care_of);
        }
        let Entry { test, .. } = entry;
        if test.token(now).is_some() || test.waits() || peer.care_of_pace.ready_at() > now {
            return;
        }
        let cookie = self.seed.draw();
        test.ask(now, cookie, Some(bid));
        peer.care_of_pace.sent(now);
        peer.last_sent = Some(now);
        let message = Message::CareOfTestInit(CareOfTestInit { cookie, options: Options::new() });
        let envelope = Envelope::plain(uplink.care_of, correspondent);
        self.transmit(Route::Path(bid), envelope, &message);
    }

    pub(super) fn home_test_received(
        &mut self,
        peer: &mut Peer,
        envelope: &Envelope,
        answer: &HomeTest,
        by_home: bool,
    ) {
        // req MN-20, R-MN-11 (RFC 6275 §11.6.2): to the home address, and by the home agent.
        let taken = if envelope.destination == self.config.home_address.0 && by_home {
            peer.home_test.take(answer.cookie, answer.nonce_index, answer.token)
        } else {
            Err(Ignored::WrongWay)
        };
        if let Err(ignored) = taken {
            self.ignore(ignored);
        }
    }

    pub(super) fn care_of_test_received(
        &mut self,
        peer: &mut Peer,
        envelope: &Envelope,
        answer: &CareOfTest,
    ) {
        // req MN-19, MN-20, R-MN-12 (RFC 6275 §11.6.2): to the address that is tested. Two uplinks may have
        // the same one; the cookie tells which was asked.
        let destination = envelope.destination;
        let mut verdict = Err(Ignored::WrongWay);
        for entry in peer.entries.values_mut() {
            if entry.tested == Some(destination) && verdict.is_err() {
                verdict = entry.test.take(answer.cookie, answer.nonce_index, answer.token);
            }
        }
        if let Err(ignored) = verdict {
            self.ignore(ignored);
        }
    }

    fn transmit(&mut self, route: Route, envelope: Envelope, message: &Message) {
        match wire::emit(message, &envelope) {
            Ok(message) => {
                let output = RouteOptimizationOutput::Transmit { route, envelope, message };
                self.out.push_back(output);
            }
            Err(error) => self.notice(RouteOptimizationNotice::Unwritable(error)),
        }
    }
}
