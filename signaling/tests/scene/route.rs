//! A correspondent in virtual time, and a mobile's half of return routability done by hand.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::HomeAddress;
use mtun_signaling::return_routability::Tested;
use mtun_signaling::wire::option::{BindingAuthorizationData, BindingIdentifier, NonceIndices};
use mtun_signaling::wire::{
    self, BindingUpdate, CareOfTestInit, HomeTestInit, Message, MobilityOption, Options,
};
use mtun_signaling::{
    Correspondent, CorrespondentConfig, CorrespondentEvent, CorrespondentOutput, Envelope, Machine,
    Pair, Seed,
};

use super::script::Stage;
use super::text::{self, parse_update, value};
use super::{EPOCH, HOME_ADDRESS, address, arithmetic, at, home};

/// The correspondent of every test.
pub const CORRESPONDENT: &str = "2001:db8:9::9";
/// Its other address.
pub const OTHER_CORRESPONDENT: &str = "2001:db8:9::a";

pub fn correspondent_config() -> CorrespondentConfig {
    CorrespondentConfig {
        addresses: vec![address(CORRESPONDENT), address(OTHER_CORRESPONDENT)],
        max_lifetime: Duration::from_secs(420),
        multiple_coa: true,
        max_mobiles: 4,
        max_bindings: 4,
    }
}

/// Nonce indices as a reader counts them: the first one seen is 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbering {
    first: u16,
    begun: bool,
}

impl Numbering {
    pub fn show(&mut self, index: u16) -> u16 {
        if !self.begun {
            *self = Self { first: index, begun: true };
        }
        index.wrapping_sub(self.first).wrapping_add(1)
    }

    pub fn index(&self, shown: u16) -> u16 {
        self.first.wrapping_add(shown).wrapping_sub(1)
    }

    /// The next one seen is 1 again; until then the old ones can be named.
    pub fn restart(&mut self) {
        self.begun = false;
    }
}

/// A key, and the care-of address it goes with.
pub type Signed = ([u8; 20], Ipv6Addr);

/// The tokens of a mobile that does everything by hand.
#[derive(Debug, Default)]
pub struct ByHand {
    pub numbering: Numbering,
    /// By what was tested, where, and nonce index.
    tokens: BTreeMap<(Tested, Ipv6Addr, Ipv6Addr, u16), [u8; 8]>,
    latest: BTreeMap<(Tested, Ipv6Addr, Ipv6Addr), u16>,
    /// What the last update was signed with: to check its answer.
    pub signed: Option<Signed>,
}

impl ByHand {
    /// Notes the token of a test.
    pub fn take(&mut self, envelope: &Envelope, message: &Message) {
        let (tested, index, token) = match message {
            Message::HomeTest(test) => (Tested::Home, test.nonce_index, test.token),
            Message::CareOfTest(test) => (Tested::CareOf, test.nonce_index, test.token),
            _ => return,
        };
        let at = (tested, envelope.source, envelope.destination);
        self.tokens.insert((at.0, at.1, at.2, index), token);
        self.latest.insert(at, index);
    }

    /// The token for `asked`, by the index that the words ask for or by the latest.
    fn token(
        &self,
        words: &[&str],
        key: &str,
        asked: (Tested, Ipv6Addr, Ipv6Addr),
    ) -> (u16, [u8; 8]) {
        let index = match value(words, key) {
            Some(shown) => self.numbering.index(shown.parse().expect("a number")),
            None => self.latest.get(&asked).copied().unwrap_or(0),
        };
        let token = self.tokens.get(&(asked.0, asked.1, asked.2, index));
        (index, token.copied().unwrap_or_default())
    }

    /// A Binding Update to a correspondent from its line.
    pub fn update(&mut self, words: &[&str]) -> (Envelope, Vec<u8>) {
        let mut words = words.to_vec();
        let to = format!("to={CORRESPONDENT}");
        if value(&words, "to").is_none() {
            words.push(&to);
        }
        let has = |word: &str| words.contains(&word);
        let (envelope, mut update) = parse_update(&words);
        let correspondent = envelope.destination;
        let home_address = envelope.upper_source();
        let care_of = registered(&update, &envelope);
        let deregisters = update.lifetime.is_zero() || care_of == home_address;
        let (home_index, mut home_token) =
            self.token(&words, "home-nonce", (Tested::Home, correspondent, home_address));
        let (care_of_index, mut care_of_token) =
            self.token(&words, "care-of-nonce", (Tested::CareOf, correspondent, care_of));
        home_token[0] ^= u8::from(has("wrong-home-token"));
        care_of_token[0] ^= u8::from(has("wrong-care-of-token"));
        if !has("without-nonces") {
            let indices = NonceIndices { home: home_index, care_of: care_of_index };
            let mut options: Vec<MobilityOption> = vec![indices.into()];
            options.extend(update.options.iter().cloned());
            update.options = options.into();
        }
        if !has("without-authenticator") {
            let length = if has("short-authenticator") { 4 } else { 12 };
            update.options.push(BindingAuthorizationData { authenticator: vec![0; length] });
        }
        if has("not-last") {
            update.options.push(BindingIdentifier::new(super::bid(9)));
        }
        let care_of = if deregisters { home_address } else { care_of };
        let kbm = if deregisters {
            arithmetic::deregistering(&home_token)
        } else {
            arithmetic::registering(&home_token, &care_of_token)
        };
        self.signed = Some((kbm, care_of));
        let message = Message::BindingUpdate(update);
        let mut message = wire::emit(&message, &envelope).expect("it fits");
        if has("misaligned") {
            // The nonce indices one octet later, between two octets of padding.
            assert_eq!(message[12..18][..2], [4, 4]);
            message.splice(12..12, [0; 3]);
            message.splice(21..21, [0; 5]);
            message[1] += 1;
        }
        if !has("without-authenticator") && !has("not-last") && !has("short-authenticator") {
            let start = message.len() - 12;
            let made = arithmetic::authenticator(&kbm, care_of, correspondent, &message);
            message[start..].copy_from_slice(&made);
            message[start] ^= u8::from(has("wrong-authenticator"));
        }
        fill_checksum(&envelope, &mut message);
        (envelope, message)
    }

    /// What is to be said of the authenticator of an answer to the last update.
    fn judge(&self, correspondent: Ipv6Addr, octets: &[u8], message: &Message) -> &'static str {
        let Message::BindingAcknowledgement(acknowledgement) = message else { return "" };
        let Some(data) = acknowledgement.options.authorization() else { return "" };
        let Some((kbm, care_of)) = self.signed else { return " unexpected-authenticator" };
        let want = arithmetic::authenticator(&kbm, care_of, correspondent, octets);
        if data.authenticator == want { "" } else { " wrong-authenticator" }
    }

    /// A message of a correspondent as a line.
    pub fn describe(&mut self, envelope: &Envelope, octets: &[u8]) -> String {
        let message = wire::receive(envelope, octets).expect("a message of our own");
        let bids = text::options(message.options());
        let mut line = match &message {
            Message::HomeTest(test) => {
                let nonce = self.numbering.show(test.nonce_index);
                format!("HomeTest nonce={nonce} to={}{bids}", envelope.destination)
            }
            Message::CareOfTest(test) => {
                let nonce = self.numbering.show(test.nonce_index);
                format!("CareOfTest nonce={nonce} to={}{bids}", envelope.destination)
            }
            Message::BindingRefreshRequest(_) => {
                format!("BindingRefreshRequest to={}{bids}", envelope.destination)
            }
            _ => text::message(envelope, octets),
        };
        if let Some(home) = envelope.routing_header {
            line += &format!(" rh2={home}");
        }
        if envelope.source == address(OTHER_CORRESPONDENT) {
            line += &format!(" by={OTHER_CORRESPONDENT}");
        }
        line + self.judge(envelope.source, octets, &message)
    }
}

pub fn fill_checksum(envelope: &Envelope, message: &mut [u8]) {
    let (source, destination) = (envelope.upper_source(), envelope.upper_destination());
    let sum = wire::checksum(source, destination, message);
    message[4..6].copy_from_slice(&sum.to_be_bytes());
}

/// The address that an update registers.
fn registered(update: &BindingUpdate, envelope: &Envelope) -> Ipv6Addr {
    let named = update.options.bids().next().and_then(|bid| bid.care_of);
    match named.map(|care_of| care_of.0) {
        Some(std::net::IpAddr::V6(address)) => address,
        _ => update.options.alternate_care_of().unwrap_or(envelope.source),
    }
}

/// A test of a mobile by hand, from its line; the cookie says who asks.
fn test_init(words: &[&str], tested: Tested) -> (Envelope, Vec<u8>) {
    let from = address(value(words, "from").unwrap_or(HOME_ADDRESS));
    let mut envelope = Envelope::plain(from, address(value(words, "to").unwrap_or(CORRESPONDENT)));
    if let Some(home) = value(words, "hao") {
        envelope.home_address = Some(HomeAddress(address(home)));
    }
    let options: Options = value(words, "bid")
        .map(|bid| BindingIdentifier::new(super::bid(bid.parse().expect("a BID"))).into())
        .into_iter()
        .collect();
    let cookie = *b"whoasks?";
    let message = match tested {
        Tested::Home => Message::HomeTestInit(HomeTestInit { cookie, options }),
        Tested::CareOf => Message::CareOfTestInit(CareOfTestInit { cookie, options }),
    };
    (envelope, wire::emit(&message, &envelope).expect("it fits"))
}

/// A correspondent, alone.
pub struct RouteOptimizing {
    now: Duration,
    config: CorrespondentConfig,
    correspondent: Option<Correspondent>,
    lives: u8,
    by_hand: ByHand,
    recorded: Option<(Envelope, Vec<u8>, Option<Signed>)>,
    last: Option<(Envelope, Vec<u8>)>,
    trace: Vec<(Duration, String)>,
}

impl RouteOptimizing {
    pub fn new() -> Self {
        Self {
            now: Duration::ZERO,
            config: correspondent_config(),
            correspondent: None,
            lives: 0,
            by_hand: ByHand::default(),
            recorded: None,
            last: None,
            trace: Vec::new(),
        }
    }

    fn start_correspondent(&mut self) {
        self.lives += 1;
        self.by_hand.numbering.restart();
        let seed = Seed::new([self.lives; 32]);
        self.correspondent = Some(Correspondent::new(self.config.clone(), seed));
    }

    fn correspondent_event(&mut self, event: CorrespondentEvent) {
        let now = at(self.now, EPOCH);
        self.correspondent.as_mut().expect("a correspondent").handle(now, event);
        self.drain();
    }

    fn hand_over(&mut self, (envelope, message): (Envelope, Vec<u8>)) {
        self.last = Some((envelope, message.clone()));
        self.correspondent_event(CorrespondentEvent::Received { envelope, message });
    }

    fn drain(&mut self) {
        while let Some(output) = self.correspondent.as_mut().and_then(Machine::poll) {
            let line = match &output {
                CorrespondentOutput::Transmit(transmit) => {
                    let (envelope, octets) = (&transmit.envelope, &transmit.message);
                    let message = wire::receive(envelope, octets).expect("a message of our own");
                    self.by_hand.take(envelope, &message);
                    format!("send {}", self.by_hand.describe(envelope, octets))
                }
                CorrespondentOutput::Changed { pair, effective } => self.changed(*pair, *effective),
                CorrespondentOutput::Notice(notice) => format!("notice: {notice}"),
            };
            self.trace.push((self.now, line));
        }
    }

    fn changed(&self, pair: Pair, effective: bool) -> String {
        let mut line = format!("cache {}", pair.home_address);
        if pair.correspondent == address(OTHER_CORRESPONDENT) {
            line += &format!(" by={OTHER_CORRESPONDENT}");
        }
        if !effective {
            return line + " prolonged";
        }
        let entry = self.correspondent.as_ref().and_then(|correspondent| correspondent.get(pair));
        let Some(entry) = entry else { return line + " empty" };
        for binding in &entry.bindings {
            line += &match binding.bid {
                Some(bid) => format!(" [bid={bid} {}]", binding.care_of),
                None => format!(" [plain {}]", binding.care_of),
            };
        }
        line
    }
}

fn pair(words: &[&str]) -> Pair {
    Pair {
        correspondent: address(value(words, "to").unwrap_or(CORRESPONDENT)),
        home_address: value(words, "home").map_or(home(), |home| HomeAddress(address(home))),
    }
}

pub fn set_correspondent(config: &mut CorrespondentConfig, words: &[&str]) {
    let number = |key| value(words, key).map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seconds) = number("lifetime") {
        config.max_lifetime = Duration::from_secs(seconds);
    }
    if let Some(most) = number("mobiles") {
        config.max_mobiles = most as usize;
    }
    if let Some(most) = number("bindings") {
        config.max_bindings = most as u16;
    }
    match value(words, "multiple-coa") {
        None => {}
        Some("yes") => config.multiple_coa = true,
        Some("no") => config.multiple_coa = false,
        Some(other) => panic!("multiple-coa={other}: neither yes nor no"),
    }
    if let Some(addresses) = value(words, "addresses") {
        config.addresses = addresses.split(',').map(address).collect();
    }
}

impl Stage for RouteOptimizing {
    fn set(&mut self, words: &[&str]) -> bool {
        match words {
            ["roles", ..] => {}
            ["correspondent", rest @ ..] => set_correspondent(&mut self.config, rest),
            _ => return false,
        }
        true
    }

    fn run_until(&mut self, end: Duration) {
        if self.correspondent.is_none() {
            self.start_correspondent();
        }
        loop {
            let next = self.correspondent.as_ref().and_then(Machine::deadline);
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = at(self.now, EPOCH);
            let correspondent = self.correspondent.as_mut().expect("it had a deadline");
            correspondent.handle_deadline(now);
            let later = correspondent.deadline();
            assert!(later.is_none_or(|later| later > self.now), "a deadline that does not move");
            self.drain();
        }
        self.now = end;
    }

    fn event(&mut self, words: &[&str]) {
        match words {
            ["wait"] => {}
            ["recv", "HomeTestInit", rest @ ..] => self.hand_over(test_init(rest, Tested::Home)),
            ["recv", "CareOfTestInit", rest @ ..] => {
                self.hand_over(test_init(rest, Tested::CareOf));
            }
            ["recv", "BindingUpdate", rest @ ..] => {
                let update = self.by_hand.update(rest);
                self.hand_over(update);
            }
            ["recv", "type", number, rest @ ..] => {
                let (envelope, mut message) = test_init(rest, Tested::Home);
                message[2] = number.parse().expect("an MH Type");
                fill_checksum(&envelope, &mut message);
                self.hand_over((envelope, message));
            }
            ["record"] => {
                let (envelope, message) = self.last.clone().expect("a message");
                self.recorded = Some((envelope, message, self.by_hand.signed));
            }
            ["replay"] => {
                let (envelope, message, signed) = self.recorded.clone().expect("a record");
                self.by_hand.signed = signed;
                self.hand_over((envelope, message));
            }
            ["unknown-binding", rest @ ..] => {
                let source = address(value(rest, "from").expect("from="));
                let Pair { correspondent: destination, home_address } = pair(rest);
                let event =
                    CorrespondentEvent::UnknownBinding { source, destination, home_address };
                self.correspondent_event(event);
            }
            ["used", rest @ ..] => {
                let bid = value(rest, "bid").map(|bid| super::bid(bid.parse().expect("a BID")));
                self.correspondent_event(CorrespondentEvent::Used { pair: pair(rest), bid });
            }
            ["unreachable", care_of, rest @ ..] => {
                let care_of = super::care_of(care_of);
                let event = CorrespondentEvent::Unreachable { pair: pair(rest), care_of };
                self.correspondent_event(event);
            }
            ["restart", "correspondent"] => self.start_correspondent(),
            ["reconfigure", "correspondent", rest @ ..] => {
                set_correspondent(&mut self.config, rest);
                self.correspondent_event(CorrespondentEvent::Reconfigure(self.config.clone()));
            }
            ["stop", "correspondent"] => self.correspondent_event(CorrespondentEvent::Stop),
            other => panic!("no event is called {other:?}"),
        }
    }

    fn trace(&self) -> &[(Duration, String)] {
        &self.trace
    }
}
