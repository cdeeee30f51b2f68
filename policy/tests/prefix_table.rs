//! `PrefixTable` against another crate's trie and against a linear scan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mtun_policy::{HostBits, PrefixTable};
use prefix_trie::PrefixMap;
use proptest::prelude::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn the_longest_prefix_answers() {
    let mut table = PrefixTable::new();
    for (prefix, value) in [
        ("::/0", "everything"),
        ("2001:db8:100::/48", "home"),
        ("2001:db8:100:4200::/56", "bus"),
        ("2001:db8:100::42/128", "the bus itself"),
        ("0.0.0.0/0", "everything of the old family"),
        ("192.0.2.0/24", "depot"),
    ] {
        assert_eq!(table.insert(net(prefix), value), Ok(None));
    }
    let cases = [
        ("2001:db8:100:42ff::1", "2001:db8:100:4200::/56", "bus"),
        ("2001:db8:100:4300::1", "2001:db8:100::/48", "home"),
        ("2001:db8:100::42", "2001:db8:100::42/128", "the bus itself"),
        ("2001:db8:100::43", "2001:db8:100::/48", "home"),
        ("2001:db9::", "::/0", "everything"),
        ("192.0.2.255", "192.0.2.0/24", "depot"),
        ("192.0.3.0", "0.0.0.0/0", "everything of the old family"),
    ];
    for (at, prefix, value) in cases {
        assert_eq!(table.longest_match(address(at)), Some((net(prefix), &value)), "{at}");
    }
    assert_eq!(table.len(), 6);
    assert_eq!(table.remove(net("2001:db8:100:4200::/56")), Some("bus"));
    assert_eq!(
        table.longest_match(address("2001:db8:100:42ff::1")),
        Some((net("2001:db8:100::/48"), &"home"))
    );
}

#[test]
fn host_bits_are_refused_and_the_table_unchanged() {
    let mut table = PrefixTable::new();
    table.insert(net("2001:db8::/64"), 1).unwrap();
    let refused = HostBits { meant: net("2001:db8::/64") };
    assert_eq!(table.insert(net("2001:db8::1/64"), 2), Err(refused));
    assert_eq!(table.exact(net("2001:db8::1/64")), None);
    assert_eq!(table.remove(net("2001:db8::1/64")), None);
    assert_eq!(table.exact(net("2001:db8::/64")), Some(&1));
    assert_eq!(
        refused.to_string(),
        "host bits are set beyond the prefix length; 2001:db8::/64 has none"
    );
}

#[test]
fn an_empty_table_answers_nothing() {
    let table: PrefixTable<u8> = PrefixTable::default();
    assert!(table.is_empty());
    assert_eq!(table.longest_match(Ipv6Addr::LOCALHOST), None);
    assert_eq!(table.longest_match(Ipv4Addr::LOCALHOST), None);
}

/// Few distinct bits at every depth, so that prefixes nest and collide often.
fn clustered_v6() -> impl Strategy<Value = Ipv6Addr> {
    let bits =
        prop_oneof![Just(0u128), Just(u128::MAX), any::<u128>(), (0u32..128).prop_map(|n| 1 << n)];
    bits.prop_map(Ipv6Addr::from_bits)
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        4 => (clustered_v6(), 0u8..=128).prop_map(|(a, l)| Ipv6Net::new(a, l).unwrap().trunc().into()),
        1 => (any::<u32>(), 0u8..=32)
            .prop_map(|(a, l)| Ipv4Net::new(Ipv4Addr::from_bits(a), l).unwrap().trunc().into()),
    ]
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => clustered_v6().prop_map(IpAddr::V6),
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Insert(IpNet, u32),
    Remove(IpNet),
    RemoveOneOfMine(prop::sample::Index),
    Look(IpAddr),
    LookInside(prop::sample::Index, u128),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any_net(), any::<u32>()).prop_map(|(net, value)| Step::Insert(net, value)),
        1 => any_net().prop_map(Step::Remove),
        2 => any::<prop::sample::Index>().prop_map(Step::RemoveOneOfMine),
        3 => any_address().prop_map(Step::Look),
        3 => (any::<prop::sample::Index>(), any::<u128>()).prop_map(|(i, bits)| Step::LookInside(i, bits)),
    ]
}

fn inside(net: IpNet, bits: u128) -> IpAddr {
    match net {
        IpNet::V6(net) => {
            let host = bits & net.hostmask().to_bits();
            Ipv6Addr::from_bits(net.addr().to_bits() | host).into()
        }
        IpNet::V4(net) => {
            let host = bits as u32 & net.hostmask().to_bits();
            Ipv4Addr::from_bits(net.addr().to_bits() | host).into()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_a_trie_and_a_linear_scan(steps in prop::collection::vec(any_step(), 1..80)) {
        let mut table = PrefixTable::new();
        let mut v6: PrefixMap<Ipv6Net, u32> = PrefixMap::new();
        let mut v4: PrefixMap<Ipv4Net, u32> = PrefixMap::new();
        let mut list: Vec<(IpNet, u32)> = Vec::new();
        let look = |table: &PrefixTable<u32>, v6: &PrefixMap<Ipv6Net, u32>, v4: &PrefixMap<Ipv4Net, u32>, list: &[(IpNet, u32)], at: IpAddr| {
            let ours = table.longest_match(at).map(|(net, value)| (net, *value));
            let scan = list.iter().filter(|(net, _)| net.contains(&at)).max_by_key(|(net, _)| net.prefix_len()).copied();
            let trie = match at {
                IpAddr::V6(at) => v6.get_lpm(&Ipv6Net::from(at)).map(|(net, value)| (IpNet::V6(net), *value)),
                IpAddr::V4(at) => v4.get_lpm(&Ipv4Net::from(at)).map(|(net, value)| (IpNet::V4(net), *value)),
            };
            (ours, scan, trie)
        };
        for step in steps {
            let at = match step {
                Step::Insert(net, value) => {
                    let old = list.iter().position(|(other, _)| *other == net).map(|i| list.swap_remove(i).1);
                    list.push((net, value));
                    match net {
                        IpNet::V6(net) => v6.insert(net, value),
                        IpNet::V4(net) => v4.insert(net, value),
                    };
                    prop_assert_eq!(table.insert(net, value), Ok(old));
                    prop_assert_eq!(table.exact(net), Some(&value));
                    continue;
                }
                Step::Remove(net) => {
                    let old = list.iter().position(|(other, _)| *other == net).map(|i| list.swap_remove(i).1);
                    match net {
                        IpNet::V6(net) => v6.remove(&net),
                        IpNet::V4(net) => v4.remove(&net),
                    };
                    prop_assert_eq!(table.remove(net), old);
                    continue;
                }
                Step::RemoveOneOfMine(index) => {
                    if list.is_empty() { continue }
                    let (net, value) = list.swap_remove(index.index(list.len()));
                    match net {
                        IpNet::V6(net) => v6.remove(&net),
                        IpNet::V4(net) => v4.remove(&net),
                    };
                    prop_assert_eq!(table.remove(net), Some(value));
                    prop_assert_eq!(table.remove(net), None);
                    continue;
                }
                Step::Look(at) => at,
                Step::LookInside(index, bits) => {
                    if list.is_empty() { continue }
                    inside(list[index.index(list.len())].0, bits)
                }
            };
            let (ours, scan, trie) = look(&table, &v6, &v4, &list, at);
            prop_assert_eq!(ours, scan);
            prop_assert_eq!(ours, trie);
        }
        prop_assert_eq!(table.len(), list.len());
        let mut all: Vec<_> = table.iter().map(|(net, value)| (net, *value)).collect();
        all.sort_unstable();
        list.sort_unstable();
        prop_assert_eq!(&all, &list);
        let copy: Vec<_> = { let copy = table.clone(); let mut all: Vec<_> = copy.iter().map(|(n, v)| (n, *v)).collect(); all.sort_unstable(); all };
        prop_assert_eq!(copy, list);
    }
}
