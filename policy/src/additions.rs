//! What was added to a home agent's policy while it ran: mobiles that may register, and mobiles or
//! bindings that may not for the time being.
//!
//! It is a text of the same language, with homes that hold nothing but `allow` and `refuse` and
//! with the associations of its mobiles, so that it can be read, mended and moved into the policy
//! file by hand. [`parse_with`](crate::parse_with) reads it behind the policy and holds both
//! against each other: a mobile of both is the policy file's if both say the same of it, and a
//! fault with its place otherwise.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use crate::diagnostic::{Code, Faults};
use crate::document::{AllowNode, AuthOptionNode, Document, HomeNode};
use crate::files::NoFiles;
use crate::policy::{Algorithm, KeySource};
use crate::source::{Sink, Sources};
use crate::terms::Bid;
use crate::value;

/// All that was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions {
    /// Mobiles that may register, in the order in which they came.
    pub mobiles: Vec<AddedMobile>,
    /// Mobiles and bindings that may not.
    pub refused: Vec<Refusal>,
}

/// A mobile that may register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedMobile {
    /// The name of its home network.
    pub home: String,
    /// Its home address.
    pub address: Ipv6Addr,
    /// What people call it.
    pub name: Option<String>,
    /// Prefixes that it may register.
    pub prefixes: Vec<Ipv6Net>,
    /// How many bindings it may hold; as usual if nobody said.
    pub bindings: Option<u16>,
    /// How its signaling is protected.
    pub protection: Protection,
}

/// How the signaling of an added mobile is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not at all, for a lab.
    None,
    /// By an association of the policy file.
    Named(String),
    /// By one of its own.
    Own {
        /// The mobility SPI.
        spi: u32,
        /// How it authenticates.
        algorithm: Algorithm,
        /// Where the key is.
        key: KeySource,
    },
}

/// Something that may not register for the time being.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the home network.
    pub home: String,
    /// The home address.
    pub address: Ipv6Addr,
    /// The binding; `None` for all.
    pub bid: Option<Bid>,
}

/// The name of the association that an added mobile brings along.
fn association(address: Ipv6Addr) -> String {
    format!("added.{}", address.to_string().replace(':', "-"))
}

impl Additions {
    /// Reads the text of additions, without asking whether they fit the policy.
    pub fn read(name: &str, text: &str) -> Result<Self, Faults> {
        let document = crate::load::parse_document(name, text, &NoFiles)?;
        let mut additions = Self::default();
        let own: HashMap<&str, &AuthOptionNode> = document
            .securities
            .iter()
            .filter_map(|it| Some((it.name.value.as_str(), it.auth_option.as_ref()?)))
            .collect();
        for home in &document.homes {
            let name = &home.name.value;
            for allow in &home.allowed {
                let Some(address) = &allow.address else { continue };
                let choice = allow.security.as_ref().and_then(|choice| choice.value.as_ref());
                let protection = match choice {
                    None => Protection::None,
                    Some(named) => match own.get(named.as_str()).and_then(|it| own_of(it)) {
                        Some(own) => own,
                        None => Protection::Named(named.clone()),
                    },
                };
                additions.mobiles.push(AddedMobile {
                    home: name.clone(),
                    address: address.value,
                    name: allow.name.as_ref().map(|name| name.value.clone()),
                    prefixes: allow.mobile_networks.iter().map(|net| net.value).collect(),
                    bindings: allow.bindings.as_ref().map(|bindings| bindings.value),
                    protection,
                });
            }
            for refuse in &home.refused {
                let Some(address) = &refuse.address else { continue };
                let bid = refuse.bid.as_ref().and_then(|bid| Bid::new(bid.value));
                let (home, address) = (name.clone(), address.value);
                additions.refused.push(Refusal { home, address, bid });
            }
        }
        Ok(additions)
    }

    /// The text that [`Self::read`] reads.
    pub fn text(&self) -> String {
        let mut text =
            "// Written by mtund: what `mtun agent` added to the policy file.\n".to_owned();
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        let mut homes: Vec<&str> = self.mobiles.iter().map(|it| it.home.as_str()).collect();
        homes.extend(self.refused.iter().map(|it| it.home.as_str()));
        homes.sort_unstable();
        homes.dedup();
        for home in homes {
            line(format!("home {} {{", quoted(home)));
            for mobile in self.mobiles.iter().filter(|it| it.home == home) {
                line(mobile.text());
            }
            for refusal in self.refused.iter().filter(|it| it.home == home) {
                let bid = refusal.bid.map_or_else(String::new, |bid| format!(" bid={bid}"));
                line(format!("    refuse \"{}\"{bid}", refusal.address));
            }
            line("}".to_owned());
        }
        for mobile in &self.mobiles {
            let Protection::Own { spi, algorithm, key } = &mobile.protection else { continue };
            let algorithm = match algorithm {
                Algorithm::HmacSha256 => "hmac-sha256",
                Algorithm::HmacSha1 => "hmac-sha1",
            };
            let key = match key {
                KeySource::File(path) => format!("key-file={}", quoted(&path.to_string_lossy())),
                KeySource::Credential(name) => format!("key-credential={}", quoted(name)),
            };
            line(format!("security \"{}\" {{", association(mobile.address)));
            line(format!("    auth-option spi={spi} algorithm={algorithm} {key}"));
            line("}".to_owned());
        }
        text
    }
}

impl AddedMobile {
    fn text(&self) -> String {
        let mut text = format!("    allow \"{}\"", self.address);
        let mut say = |words: std::fmt::Arguments<'_>| {
            text.write_fmt(words).expect("a text takes all that is written");
        };
        if let Some(name) = &self.name {
            say(format_args!(" name={}", quoted(name)));
        }
        say(format_args!(" {{\n"));
        if !self.prefixes.is_empty() {
            let prefixes: Vec<String> =
                self.prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect();
            say(format_args!("        mobile-network {}\n", prefixes.join(" ")));
        }
        let security = match &self.protection {
            Protection::None => "none".to_owned(),
            Protection::Named(name) => quoted(name),
            Protection::Own { .. } => quoted(&association(self.address)),
        };
        say(format_args!("        security {security}\n"));
        if let Some(bindings) = self.bindings {
            say(format_args!("        bindings {bindings}\n"));
        }
        say(format_args!("    }}"));
        text
    }

    /// What keeps its name and key from being written down; `None` for nothing.
    pub fn fault(&self) -> Option<String> {
        let name = |name: &str| value::given_name(name).err().map(|problem| problem.message);
        let of_name = self.name.as_deref().and_then(name);
        let of_key = match &self.protection {
            Protection::Own { key: KeySource::File(path), .. } => match path.to_str() {
                Some(path) if !path.chars().any(char::is_control) => None,
                _ => Some("the name of the key file cannot be written down".to_owned()),
            },
            Protection::Own { key: KeySource::Credential(it), .. } | Protection::Named(it) => {
                name(it)
            }
            Protection::None => None,
        };
        of_name.or(of_key)
    }
}

fn own_of(option: &AuthOptionNode) -> Option<Protection> {
    Some(Protection::Own {
        spi: option.spi.as_ref()?.value,
        algorithm: option.algorithm.as_ref()?.value,
        key: option.key.as_ref()?.value.clone(),
    })
}

/// A text between quotes. What is written holds no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Puts what was added behind what the policy says.
pub(crate) fn join(document: &mut Document, added: Document, sources: &Sources, sink: &mut Sink) {
    let foreign = added.role.as_ref().map(|it| (it.span, "role"));
    let foreign = foreign.or(added.interfaces.first().map(|it| (it.name.span, "interface")));
    let foreign = foreign.or(added.rule_sets.first().map(|it| (it.span, "rules")));
    if let Some((span, word)) = foreign {
        sink.error(
            span,
            Code::Conflict,
            format!("`{word}` is no mobile and cannot be added"),
            "only home { allow …; refuse … } and security stand here; write the rest into the policy file",
        );
    }
    let mut places = places(&document.homes);
    for home in added.homes {
        let known = document.homes.iter().position(|it| it.name.value == home.name.value);
        let Some(known) = known else {
            sink.error(
                home.name.span,
                Code::UnknownRef,
                format!(
                    "mobiles were added to home `{}`, which the policy does not have",
                    home.name.value
                ),
                "name the home again in the policy file, or take its mobiles out of this one",
            );
            continue;
        };
        for allow in home.allowed {
            let before = allow.address.as_ref().and_then(|at| places.get(&at.value)).copied();
            match (before, &allow.address) {
                (Some((in_home, place)), Some(at)) => {
                    let it = &document.homes[in_home].allowed[place];
                    let same = in_home == known
                        && says_the_same(it, &allow, &document.securities, &added.securities);
                    if !same {
                        let place = it.address.as_ref().map_or(it.span, |at| at.span);
                        let (file, line) = (sources.name(place.source), sources.line(place));
                        sink.error(
                            at.span,
                            Code::Conflict,
                            format!(
                                "{} was added by `mtun agent add` and stands at {file}:{line} with \
                                 another grant",
                                at.value
                            ),
                            format!(
                                "have both say the same, take it out of the policy file, or out of \
                                 this one: mtun agent remove {}",
                                at.value
                            ),
                        );
                    }
                }
                _ => {
                    let allowed = &mut document.homes[known].allowed;
                    if let Some(at) = &allow.address {
                        places.insert(at.value, (known, allowed.len()));
                    }
                    allowed.push(allow);
                }
            }
        }
        document.homes[known].refused.extend(home.refused);
    }
    document.securities.extend(added.securities);
}

/// Where the mobile of each address stands: its home, and its place there. There may be as many of
/// the policy as were added, so nobody is looked for among all.
fn places(homes: &[HomeNode]) -> HashMap<Ipv6Addr, (usize, usize)> {
    let mut places = HashMap::new();
    for (home, node) in homes.iter().enumerate() {
        for (place, allow) in node.allowed.iter().enumerate() {
            if let Some(at) = &allow.address {
                places.entry(at.value).or_insert((home, place));
            }
        }
    }
    places
}

/// Whether two texts grant a mobile the same, whatever they call its association.
fn says_the_same(
    one: &AllowNode,
    other: &AllowNode,
    of_one: &[crate::document::SecurityNode],
    of_other: &[crate::document::SecurityNode],
) -> bool {
    let prefixes = |node: &AllowNode| {
        let mut prefixes: Vec<Ipv6Net> = node.mobile_networks.iter().map(|it| it.value).collect();
        prefixes.sort();
        prefixes
    };
    let bindings = |node: &AllowNode| {
        node.bindings.as_ref().map_or(crate::compile::BINDINGS, |bindings| bindings.value)
    };
    let named = |node: &AllowNode| node.security.as_ref().and_then(|it| it.value.clone());
    let own = |name: &Option<String>, among: &[crate::document::SecurityNode]| {
        let known = among.iter().find(|it| Some(&it.name.value) == name.as_ref())?;
        own_of(known.auth_option.as_ref()?)
    };
    let (first, second) = (named(one), named(other));
    // One of the other's names may be an association of the policy file.
    let second_own = own(&second, of_other).or_else(|| own(&second, of_one));
    let protected = first == second || own(&first, of_one).is_some_and(|it| second_own == Some(it));
    prefixes(one) == prefixes(other) && bindings(one) == bindings(other) && protected
}
