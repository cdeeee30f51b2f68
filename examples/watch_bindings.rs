//! Watches bindings: what stands, then what changes. The mobility socket's "hello world".
//!
//! usage: watch_bindings [--socket PATH] [HOME]
//!
//! At a mobile these are the entries of its binding update list, at a home agent or correspondent
//! those of its binding cache; with HOME only those of that home network. Any member of the
//! daemon's read group may run it.

use std::path::PathBuf;

use mtun::control::documents::SubscriptionBody;
use mtun::control::{Client, Heard, protocol};
use mtun_policy::HomeName;
use mtun_signaling::mobility_socket::{Filter, MobilityKind};

fn main() -> anyhow::Result<()> {
    let mut socket = PathBuf::from(protocol::SOCKET);
    // Ask for what we want to hear; the daemon sends nothing else.
    let mut filter = Filter {
        messages: vec![
            MobilityKind::BcAdd,
            MobilityKind::BcRemove,
            MobilityKind::BcFlush,
            MobilityKind::BulAdd,
            MobilityKind::BulRemove,
            MobilityKind::BulFlush,
        ],
        ..Filter::default()
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--socket" => socket = words.next().map(PathBuf::from).unwrap_or_default(),
            home => filter.homes.push(HomeName::from(home)),
        }
    }
    for heard in Client::connect(&socket)?.subscribe(filter)? {
        // A newer daemon may say what we do not know: pass over it.
        let Heard::Line(line) = heard? else { continue };
        match line.body {
            // First everything that stands, then a mark, then what happens.
            SubscriptionBody::State(binding) => println!("  {binding}"),
            SubscriptionBody::Present { facts } => println!("{facts} bindings stand; and now:"),
            SubscriptionBody::Message(change) => println!("  {change}"),
            // We were too slow: forget what we know, everything is told again.
            SubscriptionBody::Overflow { lost } => println!("{lost} lost; all again:"),
        }
    }
    Ok(())
}
