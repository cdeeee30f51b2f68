//! What leaves outside the tunnel: guests, and flows of the home network that a rule sends past it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use mtun::control::documents::FlowDocument;
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, all_wwan, assert_alive, assert_lossless, figure_11};
use crate::need_lab;

const SERVICE: u16 = 7;

/// The correspondent's service.
fn service(lab: &Lab) -> UdpSocket {
    let bound = lab.world.cn.run(|| UdpSocket::bind((address::CORRESPONDENT, SERVICE)));
    let socket = bound.unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// A socket of `user` in a namespace that talks to the service.
fn client(namespace: &Namespace, source: Ipv6Addr, user: u32) -> UdpSocket {
    let socket = namespace.run(|| {
        // SAFETY: numbers only. The bare call changes this thread alone, and it ends here.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        UdpSocket::bind((source, 0))
    });
    let socket = socket.unwrap();
    socket.connect((address::CORRESPONDENT, SERVICE)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// Talks until an answer came back; the address under which the service saw the client.
fn exchange(lab: &Lab, client: &UdpSocket, service: &UdpSocket, what: &str) -> IpAddr {
    let mut octets = [0; 16];
    let seen = wait_for(what, PATIENCE, || {
        let _ = client.send(b"question");
        let (_, from) = service.recv_from(&mut octets).ok()?;
        service.send_to(b"answer", from).ok()?;
        client.recv(&mut octets).ok()?;
        Some(from)
    });
    seen.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.mobile().story())).ip()
}

/// The flow of a client as the mobile remembers it.
fn flow(lab: &Lab, client: &UdpSocket) -> FlowDocument {
    let port = client.local_addr().unwrap().port();
    let flows = lab.mobile().flows().unwrap();
    let found = flows.iter().find(|flow| flow.key.source_port == Some(port));
    found.unwrap_or_else(|| panic!("no flow of port {port}: {flows:#?}")).clone()
}

fn way(flow: &FlowDocument) -> (Option<&str>, Option<&str>, bool) {
    let out = flow.outbound.as_ref();
    let link = out.and_then(|path| path.link.as_ref()).map(|link| link.as_str());
    let rule = flow.rule.as_ref().map(|rule| rule.as_str());
    (rule, link, out.is_some_and(|path| path.breakout))
}

#[test]
fn guests_leave_by_the_wlan_translated_or_not_at_all() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default().with_guests());
    lab.world.attach_guest().unwrap();
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    let traffic = lab.traffic();
    let service = service(&lab);
    let host = lab.world.guest.as_ref().expect("just attached");
    let guest = client(host, address::GUEST, 0);

    let mark = traffic.mark();
    let seen = exchange(&lab, &guest, &service, "an answer for the guest");
    assert_eq!(seen, IpAddr::V6(address::WLAN), "with the uplink's own address");
    assert_eq!(way(&flow(&lab, &guest)), (Some("guests"), Some("wlan0"), true));
    let at_agent = lab.agent().flows().unwrap();
    let ours = |flow: &&FlowDocument| {
        [flow.key.source, flow.key.destination].contains(&IpAddr::V6(address::GUEST))
    };
    assert_eq!(at_agent.iter().find(ours), None, "nothing of it enters the tunnel");
    traffic.let_run(100).unwrap();
    assert_lossless(&traffic, &mark, "beside a guest");

    // Without the WLAN the guest is told so, and the home network goes on over W-CDMA.
    lab.world.wlan_down().unwrap();
    lab.settled(&traffic, all_wwan);
    let mut octets = [0; 16];
    wait_for("a refusal for the guest", PATIENCE, || {
        let _ = guest.send(b"question");
        let refused = guest.recv(&mut octets).err()?.kind();
        (refused == ErrorKind::PermissionDenied).then_some(())
    })
    .unwrap();
    while service.recv_from(&mut octets).is_ok() {}
    let _ = guest.send(b"question");
    assert!(service.recv_from(&mut octets).is_err(), "and its packets go nowhere");

    lab.world.wlan_up().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    lab.settled(&traffic, figure_11);
    let seen = exchange(&lab, &guest, &service, "an answer for the guest again");
    assert_eq!(seen, IpAddr::V6(address::WLAN));
    assert_alive(&traffic);
    lab.assert_clean();
}

#[test]
fn a_flow_of_the_home_network_may_leave_past_the_tunnel_translated() {
    need_lab!();
    let says =
        "match proto=udp dport=7\n breakout wlan0 translate=#true\n otherwise block reply=icmp";
    let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("direct", says));
    lab.registered(&["wlan0", "wwan0"]);
    let service = service(&lab);
    for (what, namespace, source) in
        [("the node", &lab.world.mnn, address::NODE), ("the router", &lab.world.mr, address::HOME)]
    {
        let client = client(namespace, source, 0);
        // Twice: the second packet meets a connection that is known.
        for _ in 0..2 {
            let seen = exchange(&lab, &client, &service, what);
            assert_eq!(seen, IpAddr::V6(address::WLAN), "{what}");
        }
        assert_eq!(way(&flow(&lab, &client)), (Some("direct"), Some("wlan0"), true), "{what}");
    }
    lab.assert_clean();
}

#[test]
fn two_users_of_the_router_take_two_links() {
    need_lab!();
    let says = "match uid=1001\n prefer wwan0";
    let lab = Lab::start(Plan::default(), PolicyText::default().with_rule("driver-app", says));
    lab.registered(&["wlan0", "wwan0"]);
    let service = service(&lab);
    for (user, rule, link) in [(1001, "driver-app", "wwan0"), (1002, "default", "wlan0")] {
        let client = client(&lab.world.mr, address::HOME, user);
        let seen = exchange(&lab, &client, &service, "an answer");
        assert_eq!(seen, IpAddr::V6(address::HOME), "user {user}: through the tunnel");
        let flow = flow(&lab, &client);
        assert_eq!(way(&flow), (Some(rule), Some(link), false), "user {user}: {flow:#?}");
    }
    lab.assert_clean();
}
