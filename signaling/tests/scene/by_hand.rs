//! A mobile's half of return routability done by hand, and a check on whoever does it otherwise.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use mtun_signaling::Envelope;
use mtun_signaling::return_routability::Tested;
use mtun_signaling::wire::option::{BindingAuthorizationData, BindingIdentifier, NonceIndices};
use mtun_signaling::wire::{self, BindingUpdate, Message, MobilityOption};

use super::route::{CORRESPONDENT, OTHER_CORRESPONDENT, fill_checksum};
use super::text::{self, parse_update, value};
use super::{address, arithmetic};

/// Nonce indices as a reader counts them: the first one seen is 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbering {
    first: u16,
    begun: bool,
}

impl Numbering {
    /// Shown as they are.
    pub fn from_one() -> Self {
        Self { first: 1, begun: true }
    }

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

    /// What is to be said of the authenticator of an update that was not written by hand, by the
    /// tokens that its sender was given. Its answer is checked by the same key.
    fn judge_update(
        &mut self,
        envelope: &Envelope,
        octets: &[u8],
        update: &BindingUpdate,
    ) -> String {
        let Some(indices) = update.options.nonce_indices() else { return " no-nonces".to_owned() };
        let correspondent = envelope.destination;
        let home_address = envelope.upper_source();
        let care_of = registered(update, envelope);
        let at = |tested, address, index| {
            self.tokens.get(&(tested, correspondent, address, index)).copied()
        };
        let home = at(Tested::Home, home_address, indices.home);
        let signed = if update.lifetime.is_zero() {
            home.map(|home| (arithmetic::deregistering(&home), home_address))
        } else {
            let token = at(Tested::CareOf, care_of, indices.care_of);
            home.zip(token).map(|(home, token)| (arithmetic::registering(&home, &token), care_of))
        };
        let Some((kbm, address)) = signed else { return " unknown-token".to_owned() };
        self.signed = Some((kbm, address));
        let want = arithmetic::authenticator(&kbm, address, correspondent, octets);
        let home = self.numbering.show(indices.home);
        let mut line = format!(" nonces={home}");
        if !update.lifetime.is_zero() {
            line += &format!("/{}", self.numbering.show(indices.care_of));
        }
        if octets[octets.len() - 12..] != want {
            line += " wrong-authenticator";
        }
        line
    }

    /// A message of a mobile as a line.
    pub fn describe_sent(&mut self, envelope: &Envelope, octets: &[u8]) -> String {
        let message = wire::receive(envelope, octets).expect("a message of our own");
        let mut line = match &message {
            Message::HomeTestInit(_) => "HomeTestInit".to_owned(),
            Message::CareOfTestInit(_) => format!("CareOfTestInit from={}", envelope.source),
            _ => text::message(envelope, octets),
        };
        if let Message::BindingUpdate(update) = &message {
            line += &self.judge_update(envelope, octets, update);
            if envelope.home_address.is_none() {
                line += " without-hao";
            }
        }
        if envelope.destination != address(CORRESPONDENT) {
            line += &format!(" to={}", envelope.destination);
        }
        line
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

/// The address that an update registers.
fn registered(update: &BindingUpdate, envelope: &Envelope) -> Ipv6Addr {
    let named = update.options.bids().next().and_then(|bid| bid.care_of);
    match named.map(|care_of| care_of.0) {
        Some(IpAddr::V6(address)) => address,
        _ => update.options.alternate_care_of().unwrap_or(envelope.source),
    }
}
