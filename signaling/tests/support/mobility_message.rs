//! What must hold when any octets are taken for a message that a client sends.
//!
//! Shared by the fuzz target `mobility_message`, the replay of its corpus and the properties.

use std::time::Duration;

use mtun_signaling::mobility_socket::{Delivery, Facts, Hub, Interest, MESSAGE_MAX, Next, read};

/// Reads `octets`; panics when something does not hold. What can be read is written and read
/// again as the same, and a subscriber that is told it knows what stands; says whether it was a
/// message.
pub fn check(octets: &[u8]) -> bool {
    let Ok(message) = read(octets) else { return false };
    assert!(octets.len() <= MESSAGE_MAX);
    let written = serde_json::to_vec(&message).expect("messages have text keys only");
    assert_eq!(read(&written).expect("what we write can be read"), message);
    // People see it too.
    assert!(message.to_string().starts_with(message.kind().name()));

    let mut hub: Hub<()> = Hub::new(2);
    let id = hub.join(Interest { messages: true, ..Interest::default() });
    hub.fill(Facts::default());
    hub.say(Duration::ZERO, message);
    let mut known = Facts::default();
    // Its facts, the end of the present state, and what was said meanwhile.
    for _ in 0..4 {
        match hub.next(id) {
            Next::Deliver(Delivery::State(it) | Delivery::Message { message: it, .. }) => {
                known.apply(&it);
            }
            Next::Deliver(_) | Next::Later => {}
            Next::Wait => break,
        }
    }
    assert_eq!(Some(&known), hub.facts());
    true
}
