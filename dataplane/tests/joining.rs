//! Joining: what is joined would be cut into the very packets that came, and nothing else is.

mod support;

use etherparse::PacketBuilder;
use mtun_dataplane::{Cuts, Joined, Joining};
use support::*;

/// A segment of a connection: sequence number, flags to be added to ACK, payload.
fn segment(sequence: u32, more: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let mut tcp = PacketBuilder::ipv6(v6(PEER).octets(), v6(HOME).octets(), 60)
        .tcp(80, 9, sequence, 1024)
        .ack(77);
    if more & 0x08 != 0 {
        tcp = tcp.psh();
    }
    if more & 0x01 != 0 {
        tcp = tcp.fin();
    }
    if more & 0x80 != 0 {
        tcp = tcp.cwr();
    }
    tcp.write(&mut packet, payload).unwrap();
    packet
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect()
}

/// Hands packets over one by one as a thread does; returns what went on, each as the packets that it
/// stands for. `partial` says that their checksums are not to be looked at.
fn pass(packets: &[Vec<u8>], partial: bool) -> Vec<Vec<Vec<u8>>> {
    let mut joining = Joining::default();
    let mut gone = Vec::new();
    for packet in packets {
        if joining.join(packet, partial) {
            continue;
        }
        end(&mut joining, &mut gone);
        let mut packet = packet.clone();
        if !joining.begin(&mut packet, partial) {
            gone.push(vec![packet]);
        }
    }
    end(&mut joining, &mut gone);
    gone
}

fn end(joining: &mut Joining, gone: &mut Vec<Vec<Vec<u8>>>) {
    match joining.end() {
        None => {}
        Some(Joined::One(packet, _)) => gone.push(vec![packet.to_vec()]),
        Some(Joined::Several(whole, before, each)) => {
            let cuts = Cuts::of(whole, each).unwrap();
            let mut out = Vec::new();
            cuts.cut(whole, |_, _| {}, &mut out);
            assert_eq!(usize::from(before), 60);
            gone.push(mtun_dataplane::wire::packets(&out).map(<[u8]>::to_vec).collect());
        }
    }
    assert!(joining.is_empty());
}

fn burst(size: usize, length: usize) -> Vec<Vec<u8>> {
    // The numbers begin anew within it.
    let first = u32::MAX - 3000;
    let octets = payload(length);
    let parts = octets.chunks(size).enumerate();
    parts.map(|(at, part)| segment(first.wrapping_add((at * size) as u32), 0, part)).collect()
}

#[test]
fn what_follows_goes_on_as_one_and_would_be_cut_again() {
    for (size, length, pieces) in
        [(1440, 14_400, 1), (1440, 20_001, 1), (999, 30_000, 1), (1440, 144_000, 3), (1440, 100, 1)]
    {
        let packets = burst(size, length);
        let gone = pass(&packets, false);
        assert_eq!(gone.concat(), packets, "{size} {length}");
        assert_eq!(gone.len(), pieces, "{size} {length}");
    }
}

#[test]
fn what_does_not_follow_goes_on_by_itself_in_order() {
    let size = 1000;
    let packets = burst(size, 3 * size);
    let sequence = |packet: &[u8]| u32::from_be_bytes(packet[44..48].try_into().unwrap());
    let third = |more: u8, length: usize| segment(sequence(&packets[2]), more, &payload(length));
    let changed = |at: usize, octet: u8| {
        let mut packet = packets[2].clone();
        packet[at] = octet;
        packet
    };
    let cases = [
        ("it follows", packets[2].clone(), vec![3]),
        ("it pushes", third(0x08, size), vec![3]),
        ("a gap", segment(sequence(&packets[2]).wrapping_add(1), 0, &payload(size)), vec![2, 1]),
        ("once more", packets[1].clone(), vec![2, 1]),
        ("longer", third(0, size + 1), vec![2, 1]),
        ("empty", third(0, 0), vec![2, 1]),
        ("it closes", third(0x01, size), vec![2, 1]),
        ("it says CWR", third(0x80, size), vec![2, 1]),
        ("another class", changed(1, 0x20), vec![2, 1]),
        ("another label", changed(3, 1), vec![2, 1]),
        ("another hop limit", changed(7, 59), vec![2, 1]),
        ("another source", changed(23, 1), vec![2, 1]),
        ("another destination", changed(39, 1), vec![2, 1]),
        ("another port", changed(41, 1), vec![2, 1]),
        ("another acknowledgement", changed(51, 1), vec![2, 1]),
        ("another window", changed(55, 1), vec![2, 1]),
        ("damaged", changed(999, packets[2][999] ^ 1), vec![2, 1]),
        ("a damaged checksum", changed(57, packets[2][57] ^ 1), vec![2, 1]),
        ("UDP", udp(PEER, HOME, (80, 9), 500), vec![2, 1]),
        ("a length that lies", changed(5, packets[2][5] ^ 1), vec![2, 1]),
        ("nothing", Vec::new(), vec![2, 1]),
    ];
    for (what, last, wanted) in cases {
        let packets = [&packets[..2], &[last]].concat();
        // Not only for a checksum that is wrong since the change.
        let unseen = !what.contains("damaged");
        for partial in [false, true].into_iter().filter(|partial| unseen || !partial) {
            let gone = pass(&packets, partial);
            assert_eq!(gone.concat(), packets, "{what}");
            assert_eq!(gone.iter().map(Vec::len).collect::<Vec<_>>(), wanted, "{what}");
        }
    }
}

/// A damaged packet is never made good by being joined, neither the first nor a later one.
#[test]
fn what_is_damaged_stays_so() {
    for damaged in 0..4 {
        let mut packets = burst(1000, 4000);
        packets[damaged][500] ^= 1;
        assert_eq!(pass(&packets, false).concat(), packets, "{damaged}");
    }
}

/// A checksum that its sender left to the link is not looked at, and made by whoever cuts.
#[test]
fn a_checksum_that_is_left_to_the_link_is_made() {
    let packets = burst(1000, 3000);
    let mut left = packets.clone();
    left.iter_mut().for_each(|packet| packet[56..58].fill(0));
    let mut joining = Joining::default();
    assert!(joining.begin(&mut left[0].clone(), true));
    assert!(left[1..].iter().all(|packet| joining.join(packet, true)));
    let mut gone = Vec::new();
    end(&mut joining, &mut gone);
    assert_eq!(gone, [packets]);
    assert!(joining.begin(&mut left[0].clone(), true));
    assert_eq!(joining.end(), Some(Joined::One(&left[0], true)));
}

#[test]
fn a_segment_that_pushes_or_is_short_is_the_last() {
    let mut packets = burst(1000, 2500);
    let after = segment(u32::MAX - 3000 + 2500, 0, &payload(500));
    packets.push(after);
    let sizes = |packets: &[Vec<u8>]| pass(packets, false).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&packets), [3, 1], "short");
    let mut packets = burst(1000, 4000);
    packets[1] = segment(u32::MAX - 3000 + 1000, 0x08, &packets[1][60..]);
    assert_eq!(sizes(&packets), [2, 2], "pushed");
    assert_eq!(pass(&packets, false).concat(), packets);
}
