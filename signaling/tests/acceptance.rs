//! What a home agent answers to every kind of update, one row per check.

mod scene;

use std::collections::BTreeSet;
use std::time::Duration;

use mtun_policy::HomeAddress;
use mtun_signaling::wire::{self, Message, Status};
use mtun_signaling::{AgentEvent, AgentNotice, AgentOutput, Envelope, HomeAgent, Machine, auth};
use scene::settings::{set_agent, signed_update};
use scene::text::words;
use scene::{EPOCH, address, agent_config, at, home, key, our_key};

/// One update and its answer.
struct Row {
    what: &'static str,
    /// Settings of the agent.
    agent: &'static str,
    /// Updates that were accepted before.
    before: &'static [&'static str],
    update: &'static str,
    /// `status`, `bid:status` for each option that has its own, the sequence number of a 135; or
    /// `silent reason`.
    answer: &'static str,
}

const PLAIN: &str = "seq=10 A H from=2001:db8:1::7";
const ONE: &str = "seq=10 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7]";
const TWO: &str = "seq=10 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7] [bid=2 2001:db8:2::7]";
const ROUTER: &str =
    "seq=10 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] [bid=1 2001:db8:1::7]";
const OURS: &str = "prefixes=2001:db8:4200::/56";

#[rustfmt::skip] // A table: one check, one or two lines.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |what, agent, before, update, answer| {
        rows.push(Row { what, agent, before, update, answer });
    };
    // R-HA-01, HA-01, HA-02 (RFC 6275 §10.3.1)
    row("HA-01: a good one", "", &[], "seq=1 A H from=2001:db8:1::7 [alt-coa 2001:db8:1::7]", "0");
    row("HA-02: answered without A as well", "", &[], "seq=1 H from=2001:db8:1::7", "0");
    row("HA-14: no Home Address option, the source is the home address", "", &[ONE],
        "seq=11 A H lifetime=0 from=2001:db8:100::42 without-hao", "0");
    row("HA-14: no Home Address option from abroad: an unknown home address", "", &[],
        "seq=1 A H from=2001:db8:1::7 without-hao", "silent unknown_home_address");

    // Where it comes from and goes to (RFC 6275 §9.5.4)
    row("R-ALL-09: multicast source", "", &[], "seq=1 A H from=ff02::1", "silent source");
    row("R-ALL-09: unspecified source", "", &[], "seq=1 A H from=::", "silent source");
    row("R-ALL-09: loopback source", "", &[], "seq=1 A H from=::1", "silent source");
    row("MH-17: to another address of ours", "", &[],
        "seq=1 A H from=2001:db8:1::7 to=2001:db8:100::2", "silent not_for_agent");

    // Protection (RFC 4285 §5, RFC 6275 §5.1, §10.3.1)
    row("SE-01: no option", "", &[],
        "seq=1 A H from=2001:db8:1::7 unprotected", "silent unprotected");
    row("SE-02: unknown SPI", "", &[],
        "seq=1 A H from=2001:db8:1::7 spi=300", "silent unknown_spi");
    row("SE-06: another mobile's association", "", &[],
        "seq=1 A H from=2001:db8:1::7 spi=257", "silent unknown_spi");
    row("SE-06: our association for another mobile's home address", "", &[],
        "seq=1 A H from=2001:db8:1::7 home=2001:db8:100::43", "silent unknown_spi");
    row("HA-08: a home address nobody has", "", &[],
        "seq=1 A H from=2001:db8:1::7 home=2001:db8:100::99", "silent unknown_home_address");
    row("HA-10: a multicast home address", "", &[],
        "seq=1 A H from=2001:db8:1::7 home=ff02::1", "silent unknown_home_address");
    row("SE-02: wrong authentication data", "", &[],
        "seq=1 A H from=2001:db8:1::7 wrong-key", "146");
    row("SE-02: protected, without association here", "protection=none", &[],
        "seq=1 A H from=2001:db8:1::7", "silent no_security_association");
    row("unprotected where the policy says so", "protection=none", &[],
        "seq=1 A H from=2001:db8:1::7 unprotected", "0");

    // Freshness (RFC 4285 §6)
    row("145: no timestamp", "", &[], "seq=1 A H from=2001:db8:1::7 without-timestamp", "145");
    row("SE-03: seven seconds slow", "", &[], "seq=1 A H from=2001:db8:1::7 skew=-7", "0");
    row("SE-03: eight seconds slow", "", &[], "seq=1 A H from=2001:db8:1::7 skew=-8", "144");
    row("SE-03: eight seconds fast", "", &[], "seq=1 A H from=2001:db8:1::7 skew=8", "144");
    row("SE-03: not later than the last accepted one", "", &[ONE],
        "seq=11 A H from=2001:db8:1::7 [bid=1] skew=-3", "144");

    // Sequence number (RFC 6275 §9.5.1, RFC 5648 §4.1)
    row("HA-30: the next one", "", &[ONE], "seq=11 A H from=2001:db8:1::7 [bid=1]", "0");
    row("HA-30: the farthest newer one", "", &[ONE],
        "seq=32777 A H from=2001:db8:1::7 [bid=1]", "0");
    row("HA-31: the same", "", &[ONE], "seq=10 A H from=2001:db8:1::7 [bid=1]", "135 last=10");
    row("HA-31: the nearest older one", "", &[ONE], "seq=9 A H from=2001:db8:1::7 [bid=1]", "135 last=10");
    row("HA-31: the farthest older one", "", &[ONE],
        "seq=32778 A H from=2001:db8:1::7 [bid=1]", "135 last=10");
    row("MC-15: one space for all bindings", "", &[ONE],
        "seq=10 A H from=2001:db8:2::7 [bid=2 2001:db8:2::7]", "135 last=10");
    row("HA-32: de-registration with an old one", "", &[ONE],
        "seq=9 A H lifetime=0 from=2001:db8:1::7", "135 last=10");
    row("HA-43: after de-registration", "", &[ONE, "seq=11 A H lifetime=0 from=2001:db8:1::7"],
        "seq=11 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7]", "135 last=11");
    row("CN-32: without an entry any will do", "", &[], "seq=65535 A H from=2001:db8:1::7", "0");

    // Kind of registration (RFC 6275 §9.5.1, RFC 3963 §6.2, RFC 5213)
    row("H off, nothing registered", "", &[],
        "seq=1 A from=2001:db8:1::7", "silent correspondent_registration");
    row("R-HA-11: H off, home registration exists", "", &[ONE],
        "seq=11 A from=2001:db8:1::7", "139");
    row("NH-04: R without H", "", &[], "seq=1 A R from=2001:db8:1::7", "140");
    row("P on", "", &[], "seq=1 A H P from=2001:db8:1::7", "152");
    row("HA-09: Nonce Indices", "", &[],
        "seq=1 A H from=2001:db8:1::7 [nonce-indices]", "silent nonce_indices");

    // De-registration (RFC 6275 §10.3.2, RFC 5648 §6.2)
    row("HA-40: lifetime 0", "", &[TWO], "seq=11 A H lifetime=0 from=2001:db8:1::7", "0");
    row("HA-41: care-of address equals home address", "", &[TWO],
        "seq=11 A H from=2001:db8:1::7 [alt-coa 2001:db8:100::42]", "0");
    row("HA-42: nothing registered", "", &[], "seq=1 A H lifetime=0 from=2001:db8:1::7", "133");
    row("MC-10: one of two", "", &[TWO], "seq=11 A H lifetime=0 from=2001:db8:2::7 [bid=1]", "0");
    row("MC-10: unknown", "", &[TWO], "seq=11 A H lifetime=0 from=2001:db8:2::7 [bid=3]", "133");
    row("MC-10: known and unknown", "", &[TWO],
        "seq=11 A H lifetime=0 from=2001:db8:2::7 [bid=1] [bid=3]", "4 3:133");
    row("MC-07: O ignored", "", &[TWO], "seq=11 A H O lifetime=0 from=2001:db8:2::7 [bid=1]", "0");
    row("MC-10: BID of a plain binding", "", &[PLAIN],
        "seq=11 A H lifetime=0 from=2001:db8:2::7 [bid=1]", "133");
    row("NH-11: whatever R and the prefixes say", OURS, &[ROUTER],
        "seq=11 A H lifetime=0 from=2001:db8:1::7 [prefix 2001:db8:4300::/56]", "0");

    // The home address (RFC 6275 §10.3.1)
    row("HA-07: not on our home network", "home-network=2001:db8:200::/64", &[],
        "seq=1 A H from=2001:db8:1::7", "132");
    row("NH-02: in its own prefix", "home-network=2001:db8:200::/64 prefixes=2001:db8:100::/60", &[],
        "seq=1 A H from=2001:db8:1::7", "0");

    // Care-of addresses (RFC 6275 §6.1.7, §9.5.1, RFC 5648 §6.2)
    row("HA-10: link-local, plain", "", &[],
        "seq=1 A H from=2001:db8:1::7 [alt-coa fe80::1]", "silent care_of_address");
    row("HA-10: multicast, plain", "", &[],
        "seq=1 A H from=2001:db8:1::7 [alt-coa ff02::1]", "silent care_of_address");
    row("HA-13: a home address served here, plain", "", &[],
        "seq=1 A H from=2001:db8:1::7 [alt-coa 2001:db8:100::43]", "174");
    row("HA-13: our own address, plain", "", &[],
        "seq=1 A H from=2001:db8:1::7 [alt-coa 2001:db8:100::1]", "174");
    row("HA-13: inside its own prefix", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] [alt-coa 2001:db8:4200::9]", "174");
    row("inside another mobile's prefix is a visit", "", &[],
        "seq=1 A H from=2001:db8:1::7 [alt-coa 2001:db8:4300::9]", "0");
    row("R-HA-42: the authenticated one, not the source", "", &[],
        "seq=1 A H from=2001:db8:99::7 [alt-coa 2001:db8:1::7]", "0");

    // Several care-of addresses (RFC 5648 §6.2, protocol reference §13.3)
    row("MC-01: a length that cannot be", "", &[],
        "seq=1 A H from=2001:db8:1::7 [malformed-bid]", "164");
    row("MC-01: the good one beside it falls too", "", &[],
        "seq=1 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7] [malformed-bid]", "164");
    row("MC-03: Alternate Care-of Address beside a BID", "", &[],
        "seq=1 A H from=2001:db8:1::7 [alt-coa 2001:db8:1::7] [bid=1 2001:db8:1::7]", "164");
    row("MC-14: prohibited", "multiple-coa=no", &[],
        "seq=1 A H O from=2001:db8:1::7 [bid=1 2001:db8:1::7]", "166");
    row("MC-14: bulk prohibited", "bulk=no", &[],
        "seq=1 A H O from=2001:db8:1::7 [bid=1 2001:db8:1::7] [bid=2 2001:db8:2::7]", "168");
    row("MC-14: bulk prohibited, one is no bulk", "bulk=no", &[],
        "seq=1 A H O from=2001:db8:1::7 [bid=1 2001:db8:1::7]", "0");
    row("MC-08: beside a plain binding", "", &[PLAIN],
        "seq=11 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7]", "165");
    row("MC-08: in place of a plain binding", "", &[PLAIN],
        "seq=11 A H O from=2001:db8:1::7 [bid=1 2001:db8:1::7]", "0");
    row("MC-09: plain in place of several", "", &[TWO], "seq=11 A H from=2001:db8:1::7", "0");
    row("MC-05: no address, known", "", &[ONE], "seq=11 A H from=2001:db8:1::7 [bid=1]", "0");
    row("MC-05: no address, unknown", "", &[ONE], "seq=11 A H from=2001:db8:1::7 [bid=2]", "167");
    row("MC-05: no address, known, with O", "", &[ONE],
        "seq=11 A H O from=2001:db8:1::7 [bid=1]", "0");
    row("MC-02: link-local", "", &[], "seq=1 A H from=2001:db8:1::7 [bid=1 fe80::1]", "164");
    row("MC-02: unspecified", "", &[], "seq=1 A H from=2001:db8:1::7 [bid=1 ::]", "164");
    row("MC-04: BID 0", "", &[], "seq=1 A H from=2001:db8:1::7 [bid=0 2001:db8:1::7]", "164");
    row("MC-04: BID 65535", "", &[], "seq=1 A H from=2001:db8:1::7 [bid=65535 2001:db8:1::7]", "0");
    row("the same BID twice", "", &[],
        "seq=1 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7] [bid=1 2001:db8:2::7]", "164");
    row("MC-28: the same address twice", "", &[],
        "seq=1 A H from=2001:db8:1::7 [bid=1 2001:db8:1::7] [bid=2 2001:db8:1::7]", "0");
    row("MC-14: at home and abroad", "", &[],
        "seq=1 A H from=2001:db8:1::7 [bid=1 H 2001:db8:100::42]", "169");
    row("HA-13: a home address", "", &[],
        "seq=1 A H from=2001:db8:1::7 [bid=1 2001:db8:100::43]", "174");
    row("an IPv4 address", "", &[], "seq=1 A H from=2001:db8:1::7 [bid=1 192.0.2.1]", "174");
    row("MC-26: one too many", "bindings=1", &[ONE],
        "seq=11 A H from=2001:db8:1::7 [bid=2 2001:db8:2::7]", "130");
    row("MC-26: one too many in bulk", "bindings=1", &[], TWO, "4 2:130");
    row("MC-26: room made by O", "bindings=1", &[ONE],
        "seq=11 A H O from=2001:db8:1::7 [bid=2 2001:db8:2::7]", "0");
    row("MC-26: none at all", "bindings=0", &[], "seq=1 A H from=2001:db8:1::7", "130");
    row("MC-11: some fail", "", &[ONE],
        "seq=11 A H from=2001:db8:1::7 [bid=1] [bid=2] [bid=3 2001:db8:3::7]", "4 2:167");
    row("MC-11: all fail alike", "", &[ONE],
        "seq=11 A H from=2001:db8:1::7 [bid=2] [bid=3]", "167");
    row("MC-11: all fail differently", "", &[ONE],
        "seq=11 A H O from=2001:db8:1::7 [bid=2] [bid=3 fe80::1]", "4 2:167 3:164");

    // Mobile routers (RFC 3963 §6.2)
    row("NH-01: explicit", OURS, &[], ROUTER, "0");
    row("NH-01: implicit", OURS, &[], "seq=1 A H R from=2001:db8:1::7 [bid=1 2001:db8:1::7]", "0");
    row("NH-10: implicit, none known", "", &[], "seq=1 A H R from=2001:db8:1::7", "143");
    row("NH-06: an unknown option where the prefix should be", "", &[],
        "seq=1 A H R from=2001:db8:1::7 [unknown]", "143");
    row("NH-05: R on, registered without", OURS, &[ONE],
        "seq=11 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] [bid=1]", "139");
    row("NH-05: R off, registered with", OURS, &[ROUTER],
        "seq=11 A H from=2001:db8:1::7 [bid=1]", "139");
    row("R off: prefixes mean nothing", OURS, &[],
        "seq=1 A H from=2001:db8:1::7 [prefix 2001:db8:4300::/56]", "0");
    row("NH-08: length over 128", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/129]", "141");
    row("NH-08: bits beyond the length", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::1/56]", "141");
    row("NH-08: multicast", OURS, &[], "seq=1 A H R from=2001:db8:1::7 [prefix ff00::/56]", "141");
    row("NH-08: link-local", OURS, &[], "seq=1 A H R from=2001:db8:1::7 [prefix fe80::/64]", "141");
    row("NH-08: a longer length than its own", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/64]", "141");
    row("NH-23: a shorter length than its own", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/48]", "141");
    row("NH-23: everything", OURS, &[], "seq=1 A H R from=2001:db8:1::7 [prefix ::/0]", "141");
    row("NH-23: the home prefix", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:100::/64]", "141");
    row("NH-23: our own address", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:100::1/128]", "141");
    row("NH-23: another mobile's home address", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:100::43/128]", "141");
    row("NH-09: another mobile's", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4300::/56]", "142");
    row("NH-09: nobody's", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4400::/56]", "142");
    row("NH-09: one good, one not: none", OURS, &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] [prefix 2001:db8:4300::/56]", "142");
    row("NH-22: disputed by the policy itself", "prefixes=2001:db8:4300:80::/60", &[],
        "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4300:80::/60]", "142");
    row("NH-22: disputed, implicit", "prefixes=2001:db8:4300:80::/60", &[],
        "seq=1 A H R from=2001:db8:1::7", "143");
    rows
}

struct Answered {
    text: String,
    changed: bool,
}

/// Hands one update over and checks what every answer must have.
fn hand_over(agent: &mut HomeAgent, update: &str, since: Duration) -> Answered {
    let words = words(update);
    let (envelope, message) = signed_update(&words, since);
    let before = agent.cache().clone();
    agent.handle(at(since, EPOCH), AgentEvent::Received { envelope, message: message.clone() });
    let mut text = None;
    let mut announced = false;
    while let Some(output) = agent.poll() {
        match output {
            AgentOutput::Transmit(transmit) => {
                assert_eq!(text, None, "two answers");
                text = Some(check_answer(
                    update,
                    &envelope,
                    &message,
                    &transmit.envelope,
                    &transmit.message,
                ));
            }
            AgentOutput::Changed { .. } => announced = true,
            AgentOutput::Notice(AgentNotice::Ignored { reason, .. }) => {
                assert_eq!(text, None, "answered and ignored");
                text = Some(format!("silent {}", reason.reason()));
            }
            AgentOutput::Keep { .. } | AgentOutput::Notice(_) => {}
            other => panic!("{other:?} on a virtual home link"),
        }
    }
    let changed = *agent.cache() != before;
    assert_eq!(changed, announced, "a change is announced, and nothing else");
    Answered { text: text.expect("an answer or a reason"), changed }
}

fn check_answer(
    line: &str,
    asked_in: &Envelope,
    asked: &[u8],
    envelope: &Envelope,
    octets: &[u8],
) -> String {
    let Ok(Message::BindingUpdate(update)) = wire::parse(asked) else { panic!("not an update") };
    let Ok(Message::BindingAcknowledgement(answer)) = wire::receive(envelope, octets) else {
        panic!("no acknowledgement");
    };
    let home_address = HomeAddress(asked_in.upper_source());
    // To where it came from, by a type 2 routing header unless that is home (RFC 6275 §9.5.4).
    assert_eq!(envelope.destination, asked_in.source);
    let away = asked_in.source != home_address.0;
    assert_eq!(envelope.routing_header, away.then_some(home_address));
    // MC-12: every option comes back, without an address, whatever became of it.
    let asked_bids: Vec<_> =
        update.options.bids().map(|option| (option.bid, option.priority)).collect();
    let bids: Vec<_> = answer.options.bids().map(|option| (option.bid, option.priority)).collect();
    assert_eq!(bids, asked_bids);
    assert!(answer.options.bids().all(|option| option.care_of.is_none() && !option.home));
    // NH-01, R-HA-31: R only where it was asked for.
    assert!(!answer.router || update.flags.router);
    assert!(answer.lifetime <= update.lifetime);
    assert!(answer.status.is_accepted() || answer.lifetime.is_zero());
    if !line.contains("unprotected") {
        // RFC 4285 §5.1.1, §6: protected like the update, the timestamp echoed.
        let care_of = auth::care_of_address(&update, asked_in);
        let association = if home_address == home() { our_key() } else { key(257, 2) };
        auth::verify(octets, care_of, home_address, &association).expect("authentic");
        let (asked, echoed) = (update.options.message_id(), answer.options.message_id());
        if answer.status == Status::ID_MISMATCH {
            let (asked, echoed) = (asked.expect("a timestamp"), echoed.expect("a timestamp"));
            assert_eq!(echoed.fraction(), asked.fraction(), "SE-03: our fraction");
            assert_ne!(echoed.seconds(), asked.seconds(), "SE-03: the agent's seconds");
        } else {
            assert_eq!(echoed, asked);
        }
    }
    let own = answer.options.bids().filter(|option| option.status != Status::ACCEPTED);
    let own =
        own.map(|option| format!(" {}:{}", option.bid.map_or(0, |bid| bid.get()), option.status.0));
    let mut text = answer.status.0.to_string() + &own.collect::<String>();
    if answer.status == Status::SEQUENCE_OUT_OF_WINDOW {
        text += &format!(" last={}", answer.sequence);
    } else {
        assert_eq!(answer.sequence, update.sequence);
    }
    text
}

#[test]
fn every_check_has_its_answer() {
    let mut wrong = Vec::new();
    for row in rows() {
        let mut config = agent_config();
        set_agent(&mut config, &words(row.agent));
        let mut agent = HomeAgent::new(config);
        let mut since = Duration::ZERO;
        for update in row.before {
            let before = hand_over(&mut agent, update, since);
            assert_eq!(before.text, "0", "{}: {update}", row.what);
            since += Duration::from_secs(1);
        }
        let answered = hand_over(&mut agent, row.update, since);
        if answered.text != row.answer {
            wrong.push(format!("{}: {} instead of {}", row.what, answered.text, row.answer));
        }
        let accepted = answered.text == "0"
            || answered.text.starts_with("4 ") && !answered.text.contains("3:164");
        assert_eq!(answered.changed, accepted, "{}: what the cache holds", row.what);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Statuses that agents and correspondents answer with in the transcripts, which
/// `tests/transcripts.rs` plays: of the acknowledgement itself and of its Binding Identifiers.
fn statuses_of_transcripts() -> BTreeSet<u8> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir("../tests/conformance").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "transcript") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        // A mobile that plays alone is told what somebody might have answered.
        if !["agent", "correspondent"].iter().any(|role| text.contains(&format!(" {role}\n"))) {
            continue;
        }
        let sent = text.lines().filter(|line| line.contains(" < send BindingAck "));
        for line in sent {
            // What speaks of flow bindings has numbers of its own.
            let (answer, options) = line.split_once(" [").unwrap_or((line, ""));
            let options = options.split('[').filter(|option| option.starts_with("bid="));
            let words = options.chain([answer]).flat_map(str::split_whitespace);
            let statuses = words.filter_map(|word| word.strip_prefix("status="));
            seen.extend(statuses.map(|it| it.trim_end_matches(']').parse::<u8>().unwrap()));
        }
    }
    seen
}

#[test]
fn every_status_is_reached() {
    // HA-01, E1: by a row above or by a transcript, none is a word without a use.
    let mut reached = statuses_of_transcripts();
    for row in rows() {
        // `status` or `bid:status`.
        let words = row.answer.split(' ').filter_map(|word| word.split(':').next_back());
        reached.extend(words.filter_map(|word| word.parse::<u8>().ok()));
    }
    let missing: Vec<_> =
        Status::ALL.iter().filter(|status| !reached.contains(&status.0)).collect();
    assert!(missing.is_empty(), "{missing:?} of {} statuses", Status::ALL.len());
    let named: BTreeSet<u8> = Status::ALL.iter().map(|status| status.0).collect();
    assert_eq!(named.len(), Status::ALL.len(), "each has one name");
}

#[test]
fn a_refresh_is_no_effective_change() {
    // One `Changed` per update; whoever forwards packets acts on effective ones only.
    let cases: &[(&str, &str, bool)] = &[
        ("the first", "seq=1 A H from=2001:db8:1::7 [bid=1 pri=5 2001:db8:1::7]", true),
        ("refreshed", "seq=2 A H from=2001:db8:1::7 [bid=1 pri=5]", false),
        (
            "refreshed with its address",
            "seq=3 A H from=2001:db8:1::7 [bid=1 pri=5 2001:db8:1::7]",
            false,
        ),
        ("another address", "seq=4 A H from=2001:db8:1::7 [bid=1 pri=5 2001:db8:1::8]", true),
        ("another priority", "seq=5 A H from=2001:db8:1::7 [bid=1 pri=6]", true),
        ("a second binding", "seq=6 A H from=2001:db8:1::7 [bid=2 2001:db8:2::7]", true),
        ("all replaced by the same", "seq=7 A H O from=2001:db8:1::7 [bid=1 pri=6] [bid=2]", false),
        ("one of them gone", "seq=8 A H O from=2001:db8:1::7 [bid=2]", true),
        ("a shorter lifetime", "seq=9 A H lifetime=40 from=2001:db8:1::7 [bid=2]", false),
        ("none", "seq=10 A H lifetime=0 from=2001:db8:1::7", true),
    ];
    let mut agent = HomeAgent::new(agent_config());
    for (second, (what, update, want)) in cases.iter().enumerate() {
        let since = Duration::from_secs(second as u64);
        let (envelope, message) = signed_update(&words(update), since);
        agent.handle(at(since, EPOCH), AgentEvent::Received { envelope, message });
        let changes: Vec<_> = std::iter::from_fn(|| agent.poll())
            .filter_map(|output| match output {
                AgentOutput::Changed { home_address, effective } => Some((home_address, effective)),
                _ => None,
            })
            .collect();
        assert_eq!(changes, [(home(), *want)], "{what}");
    }
}

#[test]
fn nothing_of_a_stranger_is_remembered() {
    // SE-01, T-01: ten thousand forged updates leave no binding and no timer behind, and few
    // answers.
    let mut agent = HomeAgent::new(agent_config());
    let mut answers = 0;
    for number in 0..10_000_u32 {
        let forged = match number % 4 {
            0 => format!("seq={} A H O from=2001:db8:bad::7 unprotected", number % 65_536),
            1 => format!("seq={} A H from=2001:db8:bad::7 spi={}", number % 65_536, 300 + number),
            2 => format!("seq=1 A H from=2001:db8:bad::7 home=2001:db8:bad::{number:x}"),
            _ => format!(
                "seq={} A H O from=2001:db8:bad::7 [bid=7 2001:db8:bad::7] wrong-key",
                number % 65_536
            ),
        };
        let since = Duration::from_millis(u64::from(number));
        let (envelope, message) = signed_update(&words(&forged), since);
        agent.handle(at(since, EPOCH), AgentEvent::Received { envelope, message });
        while let Some(output) = agent.poll() {
            match output {
                AgentOutput::Transmit(_) => answers += 1,
                AgentOutput::Notice(_) => {}
                _ => panic!("{forged}"),
            }
        }
    }
    assert!(agent.cache().is_empty());
    assert_eq!(agent.deadline(), None);
    // HA-12, SE-02: three at once, then one a second.
    assert!((10..=13).contains(&answers), "{answers} answers in ten seconds");
    // And the genuine one is heard.
    let good = hand_over(&mut agent, "seq=1 A H from=2001:db8:1::7", Duration::from_secs(10));
    assert_eq!(good.text, "0");
}

#[test]
fn an_unknown_message_type_earns_a_binding_error() {
    // MH-05, MH-06, R-ALL-04, R-ALL-10 (RFC 6275 §9.2, §9.3.3).
    let mut agent = HomeAgent::new(agent_config());
    let unknown = [59, 1, 200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases = [
        ("2001:db8:1::7", Some(home()), Some(home().0)),
        ("2001:db8:1::7", None, Some(address("::"))),
        ("ff02::1", None, None),
        ("::", None, None),
    ];
    for (source, home_address, want) in cases {
        let envelope =
            Envelope { home_address, ..Envelope::plain(address(source), agent.address().0) };
        let mut message = unknown.to_vec();
        let sum = wire::checksum(envelope.upper_source(), envelope.destination, &message);
        message[4..6].copy_from_slice(&sum.to_be_bytes());
        agent.handle(at(Duration::ZERO, EPOCH), AgentEvent::Received { envelope, message });
        let errors: Vec<_> = std::iter::from_fn(|| agent.poll())
            .filter_map(|output| match output {
                AgentOutput::Transmit(transmit) => {
                    assert_eq!(transmit.envelope.destination, envelope.source);
                    match wire::receive(&transmit.envelope, &transmit.message) {
                        Ok(Message::BindingError(error)) => {
                            Some((error.status, error.home_address))
                        }
                        other => panic!("{other:?}"),
                    }
                }
                _ => None,
            })
            .collect();
        assert_eq!(errors, want.map(|home| (2, home)).into_iter().collect::<Vec<_>>(), "{source}");
    }
}

#[test]
fn nobody_is_put_out_for_another() {
    // HA-15 (RFC 6275 §10.3.1): whatever others do, a home registration ends with its lifetime or
    // by its mobile's word.
    let mut agent = HomeAgent::new(agent_config());
    let bound = hand_over(&mut agent, TWO, Duration::ZERO);
    assert_eq!(bound.text, "0");
    let held = agent.cache().get(home()).expect("bound").clone();
    for number in 1..=2000_u32 {
        let since = Duration::from_millis(u64::from(number) * 50);
        let bid = 1 + number % 20;
        let update = match number % 3 {
            // The other mobile takes all it may, and more.
            0 => format!(
                "seq={number} A H from=2001:db8:2::7 home=2001:db8:100::43 spi=257 \
                 [bid={bid} 2001:db8:2::{number:x}]"
            ),
            1 => {
                format!("seq={number} A H O from=2001:db8:bad::7 [bid=1 2001:db8:bad::7] wrong-key")
            }
            _ => format!("seq=1 A H from=2001:db8:bad::7 home=2001:db8:bad::{number:x}"),
        };
        // Many of them earn no answer.
        let (envelope, message) = signed_update(&words(&update), since);
        agent.handle(at(since, EPOCH), AgentEvent::Received { envelope, message });
        while agent.poll().is_some() {}
        assert_eq!(agent.cache().get(home()), Some(&held), "{update}");
    }
    let other = agent.cache().get(HomeAddress(address("2001:db8:100::43"))).expect("bound");
    assert_eq!(other.bindings.len(), 16);
}

#[test]
fn the_reserved_octet_of_a_prefix_says_nothing() {
    // NH-07 (RFC 3963 §4.3); MH-12: with another length it is no option at all.
    let mut config = agent_config();
    set_agent(&mut config, &words("prefixes=2001:db8:4200::/56 protection=none"));
    let update = "seq=1 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] unprotected";
    let (envelope, message) = signed_update(&words(update), Duration::ZERO);
    let at_option = message.windows(2).position(|it| it == [6, 18]).expect("the option");
    for (octet, value, accepted) in [(2, 0xff, true), (1, 17, false), (1, 19, false)] {
        let mut agent = HomeAgent::new(config.clone());
        let mut message = message.clone();
        message[at_option + octet] = value;
        message[4..6].fill(0);
        let sum = wire::checksum(envelope.upper_source(), envelope.destination, &message);
        message[4..6].copy_from_slice(&sum.to_be_bytes());
        let event = AgentEvent::Received { envelope, message };
        agent.handle(at(Duration::ZERO, EPOCH), event);
        assert_eq!(!agent.cache().is_empty(), accepted, "octet {octet} is {value}");
    }
}
