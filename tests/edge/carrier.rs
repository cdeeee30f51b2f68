//! Glances at links against the kernel's own word.

use mtun::edge::carrier::{Carriers, Glance};

use crate::world::World;

#[test]
fn a_glance_shows_what_the_kernel_knows() {
    let Some(world) = World::new() else { return };
    let carriers = world.mobile.run(|| Carriers::open().unwrap());
    let index = world.mobile.index("wlan0");
    assert_eq!(carriers.glance(index), Glance::Carrier(true));
    world.access.shell("ip link set a0 down");
    assert_eq!(
        carriers.glance(index),
        Glance::Carrier(false),
        "at once, whatever is reported later"
    );
    world.access.shell("ip link set a0 up");
    assert_eq!(carriers.glance(index), Glance::Carrier(true));
    world.mobile.shell("ip link set wlan0 down");
    assert_eq!(carriers.glance(index), Glance::Carrier(false), "not up");
    // Its name is not what it is known by.
    world.mobile.shell("ip link set wlan0 name wlan7 up");
    assert_eq!(carriers.glance(index), Glance::Carrier(true));
    world.mobile.shell("ip link del wlan7");
    assert_eq!(carriers.glance(index), Glance::Gone);
    assert_eq!(carriers.glance(0), Glance::Gone);
}
