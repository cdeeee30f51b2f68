//! Transcripts of route optimization: a correspondent alone, a mobile alone, or both.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::return_routability::Tested;
use mtun_signaling::wire::iana::mh;
use mtun_signaling::wire::option::{BindingAuthorizationData, BindingIdentifier};
use mtun_signaling::wire::{
    self, CareOfTest, CareOfTestInit, HomeTest, HomeTestInit, Message, Options,
};
use mtun_signaling::{
    CorrespondentConfig, CorrespondentEvent, Envelope, Pair, RouteOptimizationConfig,
    RouteOptimizationEvent,
};

use super::by_hand::{Numbering, Signed};
use super::route_world::RouteWorld;
use super::script::Stage;
use super::text::{parse_acknowledgement, parse_other, value};
use super::{HOME_ADDRESS, address, arithmetic, bid, care_of, home};

/// The correspondent of every test.
pub const CORRESPONDENT: &str = "2001:db8:9::9";
/// Its other address.
pub const OTHER_CORRESPONDENT: &str = "2001:db8:9::a";
/// One way of every link.
const DELAY: Duration = Duration::from_millis(20);

pub fn correspondent_config() -> CorrespondentConfig {
    CorrespondentConfig {
        addresses: vec![address(CORRESPONDENT), address(OTHER_CORRESPONDENT)],
        max_lifetime: Duration::from_secs(420),
        multiple_coa: true,
        max_mobiles: 4,
        max_bindings: 4,
    }
}

pub fn optimizer_config() -> RouteOptimizationConfig {
    RouteOptimizationConfig {
        home_address: home(),
        lifetime: Duration::from_secs(420),
        multiple_coa: true,
        max_correspondents: 3,
    }
}

pub fn fill_checksum(envelope: &Envelope, message: &mut [u8]) {
    let (source, destination) = (envelope.upper_source(), envelope.upper_destination());
    let sum = wire::checksum(source, destination, message);
    message[4..6].copy_from_slice(&sum.to_be_bytes());
}

/// A test of a mobile by hand, from its line; the cookie says who asks.
fn test_init(words: &[&str], tested: Tested) -> (Envelope, Vec<u8>) {
    let from = address(value(words, "from").unwrap_or(HOME_ADDRESS));
    let mut envelope = Envelope::plain(from, address(value(words, "to").unwrap_or(CORRESPONDENT)));
    if let Some(home) = value(words, "hao") {
        envelope.home_address = Some(HomeAddress(address(home)));
    }
    let options: Options = value(words, "bid")
        .map(|number| BindingIdentifier::new(uplink(number)).into())
        .into_iter()
        .collect();
    let cookie = *b"whoasks?";
    let message = match tested {
        Tested::Home => Message::HomeTestInit(HomeTestInit { cookie, options }),
        Tested::CareOf => Message::CareOfTestInit(CareOfTestInit { cookie, options }),
    };
    (envelope, wire::emit(&message, &envelope).expect("it fits"))
}

fn uplink(word: &str) -> Bid {
    bid(word.parse().expect("a BID"))
}

/// What plays in these transcripts.
pub struct RouteOptimizing {
    world: RouteWorld,
    correspondent: CorrespondentConfig,
    optimizer: RouteOptimizationConfig,
    with_correspondent: bool,
    with_optimizer: bool,
    begun: bool,
    recorded: Option<(Envelope, Vec<u8>, Option<Signed>)>,
    last: Option<(Envelope, Vec<u8>)>,
}

impl RouteOptimizing {
    pub fn new() -> Self {
        Self {
            world: RouteWorld::new(Box::new(|| vec![DELAY])),
            correspondent: correspondent_config(),
            optimizer: optimizer_config(),
            with_correspondent: false,
            with_optimizer: false,
            begun: false,
            recorded: None,
            last: None,
        }
    }

    fn hand_over(&mut self, (envelope, message): (Envelope, Vec<u8>)) {
        self.last = Some((envelope, message.clone()));
        self.world.correspondent_event(CorrespondentEvent::Received { envelope, message });
    }

    fn correspondent_event(&mut self, words: &[&str]) -> bool {
        match words {
            ["recv", "HomeTestInit", rest @ ..] => self.hand_over(test_init(rest, Tested::Home)),
            ["recv", "CareOfTestInit", rest @ ..] => {
                self.hand_over(test_init(rest, Tested::CareOf));
            }
            ["recv", "BindingUpdate", rest @ ..] => {
                let update = self.world.by_hand.update(rest);
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
                self.recorded = Some((envelope, message, self.world.by_hand.signed));
            }
            ["replay"] => {
                let (envelope, message, signed) = self.recorded.clone().expect("a record");
                self.world.by_hand.signed = signed;
                self.hand_over((envelope, message));
            }
            ["unknown-binding", rest @ ..] => {
                let source = address(value(rest, "from").expect("from="));
                let Pair { correspondent: destination, home_address } = pair(rest);
                let event =
                    CorrespondentEvent::UnknownBinding { source, destination, home_address };
                self.world.correspondent_event(event);
            }
            ["used", rest @ ..] => {
                let event = CorrespondentEvent::Used {
                    pair: pair(rest),
                    bid: value(rest, "bid").map(uplink),
                };
                self.world.correspondent_event(event);
            }
            ["unreachable", address, rest @ ..] => {
                let care_of = care_of(address);
                let event = CorrespondentEvent::Unreachable { pair: pair(rest), care_of };
                self.world.correspondent_event(event);
            }
            ["restart", "correspondent", rest @ ..] => {
                set_correspondent(&mut self.correspondent, rest);
                self.world.start_correspondent(&self.correspondent);
            }
            ["reconfigure", "correspondent", rest @ ..] => {
                set_correspondent(&mut self.correspondent, rest);
                let event = CorrespondentEvent::Reconfigure(self.correspondent.clone());
                self.world.correspondent_event(event);
            }
            ["stop", "correspondent"] => self.world.correspondent_event(CorrespondentEvent::Stop),
            _ => return false,
        }
        true
    }

    fn optimizer_event(&mut self, words: &[&str]) -> bool {
        let to = |rest: &[&str]| address(value(rest, "to").unwrap_or(CORRESPONDENT));
        let world = &mut self.world;
        let event = match words {
            ["want", rest @ ..] => RouteOptimizationEvent::Wanted { correspondent: to(rest) },
            ["unwant", rest @ ..] => RouteOptimizationEvent::Unwanted { correspondent: to(rest) },
            ["care-of", number, address, rest @ ..] => {
                let seconds = |text: &str| Duration::from_secs(text.parse().expect("seconds"));
                RouteOptimizationEvent::CareOf {
                    bid: uplink(number),
                    priority: value(rest, "pri").map_or(10, |pri| pri.parse().expect("a number")),
                    care_of: care_of(address),
                    expires: value(rest, "until").map_or(Duration::from_secs(100_000), seconds),
                }
            }
            ["gone", number] => RouteOptimizationEvent::CareOfGone { bid: uplink(number) },
            ["home"] => RouteOptimizationEvent::ReturnedHome,
            ["headers-eaten", number, rest @ ..] => RouteOptimizationEvent::HeadersEaten {
                correspondent: to(rest),
                bid: uplink(number),
            },
            ["unsupported", rest @ ..] => {
                RouteOptimizationEvent::Unsupported { correspondent: to(rest) }
            }
            ["stop", "optimizer"] => RouteOptimizationEvent::Stop,
            ["silence", number] => return world.silent.insert(uplink(number)),
            ["hear", number] => return world.silent.remove(&uplink(number)),
            ["eat", number] => return world.eating.insert(uplink(number)),
            ["let-pass", number] => return world.eating.remove(&uplink(number)),
            ["restart", "optimizer"] => {
                world.start_optimizer(&self.optimizer);
                return true;
            }
            ["recv", rest @ ..] => {
                self.say(rest);
                return true;
            }
            _ => return false,
        };
        world.optimizer_event(event);
        true
    }

    /// What a correspondent that is not there says to the mobile.
    fn say(&mut self, words: &[&str]) {
        let world = &mut self.world;
        let has = |word: &str| words.contains(&word);
        let source = address(value(words, "from").unwrap_or(CORRESPONDENT));
        let to = |otherwise| address(value(words, "to").unwrap_or(otherwise));
        let nonce = value(words, "nonce").map_or(1, |nonce| nonce.parse().expect("a number"));
        let cookie = |mh_type, destination| {
            let asked = world.last_sent.get(&(mh_type, destination));
            let message = asked.map(|(_, octets)| octets[8..16].to_vec());
            let mut cookie: [u8; 8] = message.and_then(|c| c.try_into().ok()).unwrap_or_default();
            cookie[0] ^= u8::from(has("wrong-cookie"));
            cookie
        };
        let tunneled = !has("not-tunneled") && !world.at_home;
        match words[0] {
            "HomeTest" => {
                let envelope = Envelope::plain(source, to(HOME_ADDRESS));
                let message = Message::HomeTest(HomeTest {
                    nonce_index: nonce,
                    cookie: cookie(mh::HOME_TEST_INIT, home().0),
                    token: [nonce as u8; 8],
                    options: Options::new(),
                });
                let octets = wire::emit(&message, &envelope).expect("it fits");
                world.say(envelope, &message, octets, tunneled);
            }
            "CareOfTest" => {
                let envelope = Envelope::plain(source, to("2001:db8:1::7"));
                let asked = value(words, "asked").map_or(envelope.destination, address);
                let message = Message::CareOfTest(CareOfTest {
                    nonce_index: nonce,
                    cookie: cookie(mh::CARE_OF_TEST_INIT, asked),
                    token: [0x80 | nonce as u8; 8],
                    options: Options::new(),
                });
                let octets = wire::emit(&message, &envelope).expect("it fits");
                world.say(envelope, &message, octets, false);
            }
            "BindingAck" => {
                let (envelope, message, octets) = self.acknowledgement(words, source);
                self.world.say(envelope, &message, octets, false);
            }
            _ => {
                let envelope = Envelope::plain(source, to(HOME_ADDRESS));
                let message = parse_other(words);
                let octets = wire::emit(&message, &envelope).expect("it fits");
                world.say(envelope, &message, octets, tunneled);
            }
        }
    }

    /// An acknowledgement for the last update, as its correspondent would write it.
    fn acknowledgement(&self, words: &[&str], source: Ipv6Addr) -> (Envelope, Message, Vec<u8>) {
        let has = |word: &str| words.contains(&word);
        let updates =
            self.world.last_sent.iter().filter(|((mh_type, _), _)| *mh_type == mh::BINDING_UPDATE);
        let sent = updates.map(|(_, sent)| sent);
        let (to, octets) = sent
            .max_by_key(|(_, octets)| u16::from_be_bytes([octets[6], octets[7]]))
            .expect("an update to answer");
        let sequence = u16::from_be_bytes([octets[6], octets[7]]);
        let destination = value(words, "to").map_or(to.source, address);
        let away = destination != home().0 && !has("without-routing-header");
        let envelope = Envelope {
            routing_header: away.then_some(home()),
            ..Envelope::plain(source, destination)
        };
        let mut acknowledgement = parse_acknowledgement(words, sequence);
        if let Some(more) = value(words, "seq+") {
            let more: u16 = more.parse().expect("a number");
            acknowledgement.sequence = sequence.wrapping_add(more);
        }
        if !has("without-authenticator") {
            let data = BindingAuthorizationData { authenticator: vec![0; 12] };
            acknowledgement.options.push(data);
        }
        if has("not-last") {
            acknowledgement.options.push(BindingIdentifier::new(bid(9)));
        }
        let message = Message::BindingAcknowledgement(acknowledgement);
        let mut octets = wire::emit(&message, &envelope).expect("it fits");
        if !has("without-authenticator") && !has("not-last") {
            let (kbm, care_of) = self.world.by_hand.signed.expect("an update with tokens");
            let made = arithmetic::authenticator(&kbm, care_of, source, &octets);
            let start = octets.len() - 12;
            octets[start..].copy_from_slice(&made);
            octets[start] ^= u8::from(has("wrong-authenticator"));
            fill_checksum(&envelope, &mut octets);
        }
        (envelope, message, octets)
    }
}

fn pair(words: &[&str]) -> Pair {
    Pair {
        correspondent: address(value(words, "to").unwrap_or(CORRESPONDENT)),
        home_address: value(words, "home").map_or(home(), |home| HomeAddress(address(home))),
    }
}

fn number(words: &[&str], key: &str) -> Option<u64> {
    value(words, key).map(|text| text.parse().expect("a number"))
}

fn yes(words: &[&str], key: &str, otherwise: bool) -> bool {
    match value(words, key) {
        None => otherwise,
        Some("yes") => true,
        Some("no") => false,
        Some(other) => panic!("{key}={other}: neither yes nor no"),
    }
}

fn set_correspondent(config: &mut CorrespondentConfig, words: &[&str]) {
    if let Some(seconds) = number(words, "lifetime") {
        config.max_lifetime = Duration::from_secs(seconds);
    }
    if let Some(most) = number(words, "mobiles") {
        config.max_mobiles = most as usize;
    }
    if let Some(most) = number(words, "bindings") {
        config.max_bindings = most as u16;
    }
    config.multiple_coa = yes(words, "multiple-coa", config.multiple_coa);
    if let Some(addresses) = value(words, "addresses") {
        config.addresses = addresses.split(',').map(address).collect();
    }
}

fn set_optimizer(config: &mut RouteOptimizationConfig, words: &[&str]) {
    if let Some(seconds) = number(words, "lifetime") {
        config.lifetime = Duration::from_secs(seconds);
    }
    if let Some(most) = number(words, "correspondents") {
        config.max_correspondents = most as usize;
    }
    config.multiple_coa = yes(words, "multiple-coa", config.multiple_coa);
}

impl Stage for RouteOptimizing {
    fn set(&mut self, words: &[&str]) -> bool {
        match words {
            ["roles", roles @ ..] => {
                self.with_correspondent = roles.contains(&"correspondent");
                self.with_optimizer = roles.contains(&"optimizer");
            }
            ["correspondent", rest @ ..] => set_correspondent(&mut self.correspondent, rest),
            ["optimizer", rest @ ..] => set_optimizer(&mut self.optimizer, rest),
            _ => return false,
        }
        true
    }

    fn run_until(&mut self, end: Duration) {
        if !std::mem::replace(&mut self.begun, true) {
            if self.with_correspondent {
                self.world.start_correspondent(&self.correspondent);
            } else {
                self.world.by_hand.numbering = Numbering::from_one();
            }
            if self.with_optimizer {
                self.world.start_optimizer(&self.optimizer);
            }
        }
        self.world.run_until(end);
    }

    fn event(&mut self, words: &[&str]) {
        let known = matches!(words, ["wait"])
            || self.with_correspondent && self.correspondent_event(words)
            || self.with_optimizer && self.optimizer_event(words);
        assert!(known, "no event is called {words:?}");
    }

    fn sent(&self) -> &[(Envelope, Vec<u8>)] {
        &self.world.wire
    }

    fn trace(&self) -> &[(Duration, String)] {
        &self.world.trace
    }
}
