//! Round trips of packets that go by anyway.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use mtun::control::documents::LinkDocument;
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::wire::Impairment;
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

/// There and back this often.
const WLAN: Duration = Duration::from_millis(30);
const WWAN: Duration = Duration::from_millis(80);

fn link(lab: &Lab, name: &str) -> LinkDocument {
    let status = lab.mobile().status().unwrap();
    status.links.into_iter().find(|it| it.interface.as_str() == name).unwrap()
}

/// A connection of the node, a word there and back on it, and its end.
fn converse(lab: &Lab, listener: &TcpListener, port: u16) {
    let near = lab.world.mnn.run(|| TcpStream::connect((address::CORRESPONDENT, port)));
    let (mut near, (mut far, _)) = (near.unwrap(), listener.accept().unwrap());
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    near.write_all(b"word").unwrap();
    far.read_exact(&mut [0; 4]).unwrap();
    far.write_all(b"word").unwrap();
    near.read_exact(&mut [0; 4]).unwrap();
}

/// K9: what a connection waits for is known of the link that it takes both ways, beside what
/// probes say, and of no other; shown, and in the metrics. Never less than the wire takes.
#[test]
fn conversations_tell_how_long_people_wait() {
    need_lab!();
    let plan = Plan {
        wlan_path: Impairment::delayed(WLAN / 2),
        wwan_path: Impairment::delayed(WWAN / 2),
        ..Plan::default()
    };
    let lab = Lab::start(plan, PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let listen = |port| lab.world.cn.run(|| TcpListener::bind((address::CORRESPONDENT, port)));
    let (web, ssh) = (listen(80).unwrap(), listen(22).unwrap());
    assert_eq!(link(&lab, "wlan0").conversation_rtt_ms, None, "nobody has talked");

    // Web goes by the WLAN, SSH by W-CDMA. At most one packet a second is timed.
    let told = |name: &'static str, listener: &TcpListener, port| {
        wait_for(&format!("conversations by {name}"), PATIENCE, || {
            converse(&lab, listener, port);
            link(&lab, name).conversation_rtt_ms
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", lab.mobile().story()))
    };
    let least = |time: Duration| time.as_secs_f64() * 1e3;
    let by_wlan = told("wlan0", &web, 80);
    assert!(by_wlan >= least(WLAN), "{by_wlan} ms");
    assert_eq!(link(&lab, "wwan0").conversation_rtt_ms, None, "nobody has talked by it");
    let by_wwan = told("wwan0", &ssh, 22);
    assert!(by_wwan >= least(WWAN), "{by_wwan} ms");

    let figures = Lab::metrics(lab.mobile()).links;
    let counted = |name: &str| {
        let figures = figures.iter().find(|it| it.link.as_str() == name);
        figures.and_then(|it| it.conversation_rtt_seconds)
    };
    assert!(counted("wlan0") >= Some(WLAN.as_secs_f64()), "{figures:#?}");
    assert!(counted("wwan0") >= Some(WWAN.as_secs_f64()), "{figures:#?}");
    let document = lab.mobile().mtun_ok(&["links"]).unwrap();
    assert!(document["links"][0]["conversation_rtt_ms"].is_f64(), "{document:#}");
    lab.assert_clean();
}
