//! What the kernel reports ends every shortcut at once, and once more when nothing can be under way
//! any more that was forwarded before.

use std::sync::Arc;

use mtun::shortcut::ShortcutWatch;
use mtun_dataplane::backend::{Bpf, BpfError};

use crate::skip::skip;
use crate::world::{World, eventually};

#[test]
fn a_change_is_followed_by_a_second_round() {
    let Some(world) = World::new() else { return };
    world.mobile.shell("ip tuntap add dev mtun0 mode tun");
    let tunnel = world.mobile.index("mtun0");
    let bpf = match world.mobile.run(|| Bpf::load(tunnel, 16, 14)) {
        Ok(bpf) => Arc::new(bpf),
        Err(error @ BpfError::NotPermitted) => return skip(&format!("rounds: {error}")),
        Err(error) => panic!("{error}"),
    };
    let watch = world.mobile.run(|| ShortcutWatch::start(bpf.clone(), "mtun0", tunnel)).unwrap();
    eventually("the rules are read", || watch.reason().is_none());
    for change in ["route add 2001:db8:77::/64 dev wlan0", "route del 2001:db8:77::/64 dev wlan0"] {
        let before = bpf.round();
        world.mobile.shell(&format!("ip -6 {change}"));
        eventually("a round, and another", || bpf.round().wrapping_sub(before) >= 2);
    }
}
