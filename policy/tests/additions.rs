//! What is added to a home agent's policy while it runs.

use std::path::PathBuf;

use mtun_policy::{
    AddedMobile, Additions, Algorithm, Bid, Code, KeySource, NoFiles, Policy, Protection, Refusal,
    parse, parse_with,
};

const AGENT: &str = r#"
role "home-agent"
home acme {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1"
    allow "2001:db8:100::42" name="bus-17" {
        mobile-network "2001:db8:100:4200::/64"
        security bus
    }
}
security bus { auth-option spi=0x1001 algorithm=hmac-sha256 key-file="bus.key"; }
"#;

fn added(address: &str) -> AddedMobile {
    AddedMobile {
        home: "acme".to_owned(),
        address: address.parse().unwrap(),
        name: Some("tram-3".to_owned()),
        prefixes: vec!["2001:db8:100:5000::/64".parse().unwrap()],
        bindings: Some(4),
        protection: Protection::Own {
            spi: 0x1002,
            algorithm: Algorithm::HmacSha1,
            key: KeySource::File(PathBuf::from("/etc/mtun/a \"quoted\" \\ name.key")),
        },
    }
}

fn additions(mobiles: Vec<AddedMobile>, refused: &[(&str, u16)]) -> Additions {
    let refusal = |(address, bid): &(&str, u16)| Refusal {
        home: "acme".to_owned(),
        address: address.parse().unwrap(),
        bid: Bid::new(*bid),
    };
    Additions { mobiles, refused: refused.iter().map(refusal).collect() }
}

fn joined(additions: &Additions) -> Result<Policy, mtun_policy::Faults> {
    parse_with(
        "/etc/mtun/agent.kdl",
        AGENT,
        &NoFiles,
        Some(("/var/mobiles.kdl", &additions.text())),
    )
}

#[test]
fn what_is_added_reads_back() {
    let mut plain = added("2001:db8:100::51");
    plain.protection = Protection::Named("bus".to_owned());
    (plain.name, plain.bindings) = (None, None);
    plain.prefixes.clear();
    let mut open = added("2001:db8:100::52");
    open.protection = Protection::None;
    let all = additions(
        vec![added("2001:db8:100::50"), plain, open],
        &[("2001:db8:100::42", 0), ("2001:db8:100::50", 2)],
    );
    assert_eq!(Additions::read("mobiles.kdl", &all.text()).unwrap(), all);
    let none = Additions::default();
    assert_eq!(Additions::read("mobiles.kdl", &none.text()).unwrap(), none);
    assert!(all.mobiles.iter().all(|mobile| mobile.fault().is_none()));
    let mut odd = added("2001:db8:100::50");
    odd.name = Some("a \"b".to_owned());
    assert!(odd.fault().is_some(), "what cannot be a name is not written down");
}

#[test]
fn mobiles_are_added_and_refused_beside_those_of_the_file() {
    let all = additions(
        vec![added("2001:db8:100::50")],
        &[("2001:db8:100::42", 2), ("2001:db8:100::50", 0)],
    );
    let policy = joined(&all).unwrap();
    let alone = parse("/etc/mtun/agent.kdl", AGENT, &NoFiles).unwrap();
    let [first, second] = &policy.served[0].mobiles[..] else { panic!("{:?}", policy.served) };
    assert_eq!(first.refused_bids, [Bid::new(2).unwrap()]);
    assert!(!first.refused && second.refused && second.refused_bids.is_empty());
    assert_eq!(second.max_bindings, 4);
    let security = policy.security(second.security.as_ref().unwrap()).unwrap();
    assert_eq!((security.spi, security.algorithm), (0x1002, Algorithm::HmacSha1));
    // Without what was added it is as the file says.
    let of_file = mtun_policy::AllowedMobile { refused_bids: Vec::new(), ..first.clone() };
    assert_eq!(alone.served[0].mobiles, [of_file]);
}

#[test]
fn a_mobile_of_both_is_the_files_if_both_say_the_same() {
    let mut same = added("2001:db8:100::42");
    same.prefixes = vec!["2001:db8:100:4200::/64".parse().unwrap()];
    same.bindings = Some(16);
    same.protection = Protection::Own {
        spi: 0x1001,
        algorithm: Algorithm::HmacSha256,
        key: KeySource::File(PathBuf::from("/etc/mtun/bus.key")),
    };
    let policy = joined(&additions(vec![same.clone()], &[])).unwrap();
    let [only] = &policy.served[0].mobiles[..] else { panic!("{:?}", policy.served) };
    assert_eq!(only.name.as_deref(), Some("bus-17"));
    same.protection = Protection::Named("bus".to_owned());
    assert!(joined(&additions(vec![same.clone()], &[])).is_ok());
    for change in [
        |it: &mut AddedMobile| it.bindings = Some(3),
        |it: &mut AddedMobile| it.prefixes.clear(),
        |it: &mut AddedMobile| it.protection = Protection::None,
    ] {
        let mut other = same.clone();
        change(&mut other);
        let faults = joined(&additions(vec![other], &[])).unwrap_err().0;
        let [fault] = &faults[..] else { panic!("{faults:?}") };
        assert_eq!((fault.code, fault.file.as_str()), (Code::Conflict, "/var/mobiles.kdl"));
        assert!(fault.message.contains("stands at /etc/mtun/agent.kdl:6"), "{fault}");
        let help = fault.help.as_deref().unwrap();
        assert!(help.contains("mtun agent remove 2001:db8:100::42"), "{help}");
    }
}

#[test]
fn what_does_not_fit_the_file_is_told_with_its_place() {
    let mut elsewhere = added("2001:db8:100::50");
    elsewhere.home = "gone".to_owned();
    let mut overlapping = added("2001:db8:100::50");
    overlapping.prefixes = vec!["2001:db8:100:4200::/63".parse().unwrap()];
    let mut unknown = added("2001:db8:100::50");
    unknown.protection = Protection::Named("nobody".to_owned());
    let cases = [
        ("another home", additions(vec![elsewhere], &[]), Code::UnknownRef),
        ("a prefix of another's", additions(vec![overlapping], &[]), Code::Duplicate),
        ("an association nobody has", additions(vec![unknown], &[]), Code::UnknownRef),
        (
            "outside the home network",
            additions(vec![added("2001:db8:200::1")], &[]),
            Code::Conflict,
        ),
        (
            "refused and never allowed",
            additions(vec![], &[("2001:db8:100::9", 0)]),
            Code::UnknownRef,
        ),
    ];
    for (what, additions, code) in cases {
        let faults = joined(&additions).unwrap_err().0;
        let [fault] = &faults[..] else { panic!("{what}: {faults:?}") };
        assert_eq!(
            (fault.code, fault.file.as_str()),
            (code, "/var/mobiles.kdl"),
            "{what}: {fault}"
        );
        assert!(fault.help.is_some(), "{what}");
    }
    let text =
        "role \"home-agent\"\nhome acme { allow \"2001:db8:100::50\" { security none; }; }\n";
    let faults =
        parse_with("agent.kdl", AGENT, &NoFiles, Some(("mobiles.kdl", text))).unwrap_err().0;
    assert!(faults[0].message.contains("`role` is no mobile"), "{faults:?}");
}
