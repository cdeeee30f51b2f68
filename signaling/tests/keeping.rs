//! What an agent has kept comes back after a restart, and nothing else does (checklist section 11).

mod scene;

use std::time::Duration;

use mtun_signaling::agent::MobileRecord;
use mtun_signaling::wire::{self, Message, Status};
use mtun_signaling::{AgentEvent, AgentOutput, HomeAgent, Machine};
use scene::settings::{set_agent, signed_update};
use scene::text::words;
use scene::{EPOCH, agent_config, at, home, prefix};

const ROUTER: &str = "seq=10 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] \
                      [bid=1 2001:db8:1::7] [bid=2 2001:db8:2::7] lifetime=400";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An agent that serves us with our prefix.
fn agent() -> HomeAgent {
    let mut config = agent_config();
    set_agent(&mut config, &words("prefixes=2001:db8:4200::/56"));
    HomeAgent::new(config)
}

/// The status of the answer, and the mobiles that are to be kept before it leaves.
fn hand_over(agent: &mut HomeAgent, update: &str, since: Duration) -> (Option<Status>, usize) {
    let (envelope, message) = signed_update(&words(update), since);
    replay(agent, &(envelope, message), since)
}

fn replay(
    agent: &mut HomeAgent,
    (envelope, message): &(mtun_signaling::Envelope, Vec<u8>),
    since: Duration,
) -> (Option<Status>, usize) {
    let event = AgentEvent::Received { envelope: *envelope, message: message.clone() };
    agent.handle(at(since, EPOCH), event);
    let (mut status, mut kept) = (None, 0);
    while let Some(output) = agent.poll() {
        match output {
            AgentOutput::Keep { home_address } => {
                assert_eq!(home_address, home());
                assert_eq!(status, None, "kept before it is answered");
                kept += 1;
            }
            AgentOutput::Transmit(transmit) => {
                match wire::receive(&transmit.envelope, &transmit.message) {
                    Ok(Message::BindingAcknowledgement(answer)) => status = Some(answer.status),
                    other => panic!("{other:?}"),
                }
            }
            _ => {}
        }
    }
    (status, kept)
}

/// What the agent keeps of us, over its octets.
fn kept(agent: &HomeAgent, since: Duration) -> MobileRecord {
    let record = agent.record(at(since, EPOCH), home()).expect("served");
    let mut octets = Vec::new();
    record.emit(&mut octets);
    assert_eq!(MobileRecord::parse(home(), &octets), Ok(record.clone()));
    record
}

/// The agent of the next run, which starts `passed` after the last.
fn restarted(record: &MobileRecord, passed: Duration) -> HomeAgent {
    let mut agent = agent();
    agent.restore(at(Duration::ZERO, EPOCH), record, passed);
    agent
}

#[test]
fn every_authentic_update_is_kept_before_its_answer_leaves() {
    // PS-01; a stranger's is neither kept nor answered, one that is refused has used its timestamp.
    let rows = [
        ("accepted", ROUTER, Some(Status::ACCEPTED), 1),
        ("replayed", ROUTER, Some(Status::ID_MISMATCH), 0),
        (
            "wrong key",
            "seq=12 A H from=2001:db8:1::7 wrong-key",
            Some(Status::AUTHENTICATION_FAILED),
            0,
        ),
        ("unknown SPI", "seq=12 A H from=2001:db8:1::7 spi=300", None, 0),
        (
            "old number, new timestamp",
            "seq=9 A H from=2001:db8:1::7 [bid=1] skew=1",
            Some(Status::SEQUENCE_OUT_OF_WINDOW),
            1,
        ),
        ("ended", "seq=13 A H R lifetime=0 from=2001:db8:1::7 skew=2", Some(Status::ACCEPTED), 1),
    ];
    let mut agent = agent();
    for (what, update, status, keeps) in rows {
        assert_eq!(hand_over(&mut agent, update, seconds(1)), (status, keeps), "{what}");
    }
}

#[test]
fn what_was_kept_comes_back_with_the_time_that_is_left() {
    // PS-05, PS-06.
    let mut first = agent();
    assert_eq!(hand_over(&mut first, ROUTER, seconds(1)).0, Some(Status::ACCEPTED));
    let record = kept(&first, seconds(101));
    let next = restarted(&record, seconds(60));
    let entry = next.cache().get(home()).expect("restored");
    assert!(entry.router);
    assert_eq!(entry.prefixes, [prefix("2001:db8:4200::/56")]);
    let bindings: Vec<_> = entry.bindings.iter().map(|it| (it.bid, it.care_of)).collect();
    let before = first.cache().get(home()).expect("bound");
    let want: Vec<_> = before.bindings.iter().map(|it| (it.bid, it.care_of)).collect();
    assert_eq!(bindings, want);
    // Granted 400 s at 1 s; 100 s ran before the restart and 60 s during it.
    assert!(entry.bindings.iter().all(|it| it.expires == seconds(240)), "{entry:?}");
    assert_eq!(next.deadline(), Some(seconds(240)));
}

#[test]
fn what_ran_out_meanwhile_does_not_come_back() {
    // PS-07: at its last millisecond and one later.
    let mut first = agent();
    hand_over(&mut first, ROUTER, seconds(1));
    let record = kept(&first, seconds(1));
    assert!(restarted(&record, seconds(400)).cache().is_empty());
    let mut last = restarted(&record, seconds(400) - Duration::from_millis(1));
    assert_eq!(last.cache().len(), 1);
    last.handle_deadline(at(Duration::from_millis(1), EPOCH));
    assert!(last.cache().is_empty());
}

#[test]
fn no_update_works_twice_over_a_restart() {
    // HA-33, PS-06: bound, and after the end of the binding; a moment later and much later.
    let update = signed_update(&words(ROUTER), seconds(1));
    let end = signed_update(&words("seq=11 A H R lifetime=0 from=2001:db8:1::7"), seconds(2));
    let mut first = agent();
    assert_eq!(replay(&mut first, &update, seconds(1)).0, Some(Status::ACCEPTED));
    let bound = kept(&first, seconds(1));
    assert_eq!(replay(&mut first, &end, seconds(2)).0, Some(Status::ACCEPTED));
    let ended = kept(&first, seconds(2));
    assert!(ended.bindings.is_empty() && !ended.is_empty());
    for (record, message) in [(&bound, &update), (&ended, &update), (&ended, &end)] {
        for passed in [Duration::ZERO, seconds(3), seconds(30)] {
            let mut next = restarted(record, passed);
            let before = next.cache().clone();
            let (status, _) = replay(&mut next, message, seconds(3));
            assert_eq!(status, Some(Status::ID_MISMATCH), "{passed:?}");
            assert_eq!(*next.cache(), before);
        }
    }
}

#[test]
fn an_agent_whose_clock_was_set_back_still_takes_new_updates() {
    // F-09: the mobiles' last timestamps are an hour ahead of the agent's clock after the restart.
    // It goes on from the latest of them, tells its time in a refusal, and the mobile follows.
    let mut first = agent();
    hand_over(&mut first, ROUTER, seconds(3600));
    let mut next = restarted(&kept(&first, seconds(3600)), Duration::ZERO);
    let late = "seq=11 A H R from=2001:db8:1::7 [prefix 2001:db8:4200::/56] [bid=1]";
    let (status, _) = hand_over(&mut next, late, seconds(2));
    assert_eq!(status, Some(Status::ID_MISMATCH), "an hour before what was accepted");
    let ahead = format!("{late} skew=3600");
    let (status, _) = hand_over(&mut next, &ahead, seconds(2));
    assert_eq!(status, Some(Status::ACCEPTED));
}

#[test]
fn what_the_policy_no_longer_allows_does_not_come_back() {
    let mut first = agent();
    hand_over(&mut first, ROUTER, seconds(1));
    let record = kept(&first, seconds(1));
    // Another prefix is granted now.
    let mut next = HomeAgent::new(agent_config());
    next.restore(at(Duration::ZERO, EPOCH), &record, Duration::ZERO);
    let entry = next.cache().get(home()).expect("its bindings may stay");
    assert_eq!(entry.prefixes, []);
    // One binding is allowed now.
    let mut config = agent_config();
    config.mobiles[0].max_bindings = 1;
    let mut next = HomeAgent::new(config);
    next.restore(at(Duration::ZERO, EPOCH), &record, Duration::ZERO);
    assert_eq!(next.cache().get(home()).map(|entry| entry.bindings.len()), Some(1));
    // It is served no more.
    let mut config = agent_config();
    config.mobiles.remove(0);
    let mut next = HomeAgent::new(config);
    next.restore(at(Duration::ZERO, EPOCH), &record, Duration::ZERO);
    assert!(next.cache().is_empty());
    let left = next.record(at(Duration::ZERO, EPOCH), home()).expect("its guard");
    assert_eq!((left.bindings, left.prefixes, left.router), (vec![], vec![], false));
    let number = record.sequence.map(|(number, _)| (number, Some(seconds(10))));
    assert_eq!((left.sequence, left.timestamp), (number, record.timestamp));
}

/// An agent that does not serve us yet, and the event by which it does.
fn without_us() -> (HomeAgent, AgentEvent) {
    let mut config = agent_config();
    set_agent(&mut config, &words("prefixes=2001:db8:4200::/56"));
    let mobile = config.mobiles.remove(0);
    assert_eq!(mobile.address, home());
    (HomeAgent::new(config), AgentEvent::Allow(mobile))
}

#[test]
fn who_is_taken_out_and_back_is_guarded_over_a_restart() {
    // HA-33, PS-06: bound, or with nothing but a guard when it was taken out.
    let update = signed_update(&words(ROUTER), seconds(1));
    let end = signed_update(&words("seq=11 A H R lifetime=0 from=2001:db8:1::7"), seconds(2));
    for (what, messages) in [("bound", &[&update][..]), ("unbound", &[&update, &end])] {
        let mut first = agent();
        for message in messages {
            assert_eq!(replay(&mut first, message, seconds(1)).0, Some(Status::ACCEPTED), "{what}");
        }
        first.handle(at(seconds(2), EPOCH), AgentEvent::Disallow { home_address: home() });
        while first.poll().is_some() {}
        let record = kept(&first, seconds(2));
        assert!(record.bindings.is_empty() && !record.is_empty(), "{what}");
        let (mut next, allow) = without_us();
        next.restore(at(seconds(3), EPOCH), &record, seconds(1));
        assert_eq!(kept(&next, seconds(3)).timestamp, record.timestamp, "{what}");
        next.handle(at(seconds(4), EPOCH), allow);
        for message in messages {
            let (status, _) = replay(&mut next, message, seconds(4));
            assert_eq!(status, Some(Status::ID_MISMATCH), "{what}");
            assert!(next.cache().is_empty(), "{what}");
        }
        let status = hand_over(&mut next, &ROUTER.replace("seq=10", "seq=12"), seconds(5)).0;
        assert_eq!(status, Some(Status::ACCEPTED), "{what}");
        // Later nothing of before could be believed, and nothing is kept of a stranger.
        let (mut later, _) = without_us();
        later.restore(at(Duration::ZERO, EPOCH), &record, seconds(24));
        assert_eq!(later.record(at(Duration::ZERO, EPOCH), home()), None, "{what}");
        let (mut waiting, _) = without_us();
        waiting.restore(at(Duration::ZERO, EPOCH), &record, seconds(23));
        assert_eq!(waiting.record(at(seconds(24), EPOCH), home()), None, "{what}");
    }
}

#[test]
fn who_is_taken_out_and_back_by_another_configuration_is_guarded() {
    // HA-33.
    let update = signed_update(&words(ROUTER), seconds(1));
    let mut agent = agent();
    assert_eq!(replay(&mut agent, &update, seconds(1)).0, Some(Status::ACCEPTED));
    let mut with_us = agent_config();
    set_agent(&mut with_us, &words("prefixes=2001:db8:4200::/56"));
    let mut without = with_us.clone();
    without.mobiles.remove(0);
    for (since, config) in [(2, without), (3, with_us)] {
        agent.handle(at(seconds(since), EPOCH), AgentEvent::Reconfigure(config));
        while agent.poll().is_some() {}
        assert!(agent.cache().is_empty());
    }
    assert_eq!(replay(&mut agent, &update, seconds(4)).0, Some(Status::ID_MISMATCH));
    assert!(agent.cache().is_empty());
}

#[test]
fn while_nothing_can_be_kept_nothing_is_promised() {
    // PS-08: what is bound stays, and as soon as the disk is well so is the agent.
    let mut agent = agent();
    hand_over(&mut agent, ROUTER, seconds(1));
    let before = agent.cache().clone();
    agent.handle(at(seconds(2), EPOCH), AgentEvent::Keeping(false));
    let move_away =
        "seq=11 A H R from=2001:db8:3::7 [prefix 2001:db8:4200::/56] [bid=1 2001:db8:3::7]";
    let answer = hand_over(&mut agent, move_away, seconds(2));
    assert_eq!(answer, (Some(Status::INSUFFICIENT_RESOURCES), 0));
    assert_eq!(*agent.cache(), before);
    agent.handle(at(seconds(3), EPOCH), AgentEvent::Keeping(true));
    let answer = hand_over(&mut agent, &move_away.replace("seq=11", "seq=12"), seconds(3));
    assert_eq!(answer, (Some(Status::ACCEPTED), 1));
}

#[test]
fn flow_bindings_and_what_was_agreed_on_come_back() {
    // FB-09, FB-14, PS-05: those of a BID that is gone as well, and what the policy still allows.
    let mut first = agent();
    let update = ROUTER.to_owned()
        + " [fid=1 pri=16 v6 proto=6 bids=1] [fid=2 pri=32 v6 dst=2001:db8:4200::1 bids=2]"
        + " [fid=3 pri=48 v4 dport=1-9 bids=1,2] [flow-extensions reflect copies]";
    assert_eq!(hand_over(&mut first, &update, seconds(1)).0, Some(Status::ACCEPTED));
    let gone = "seq=11 A H R lifetime=0 from=2001:db8:1::7 [bid=2] [fids 1 2 3] \
                [flow-extensions reflect copies]";
    assert_eq!(hand_over(&mut first, gone, seconds(2)).0, Some(Status::ACCEPTED));
    let before = first.cache().get(home()).expect("bound").clone();
    assert_eq!((before.flows.len(), before.reflect, before.copies), (3, true, true));
    let record = kept(&first, seconds(3));
    let next = restarted(&record, seconds(60));
    let entry = next.cache().get(home()).expect("restored");
    assert_eq!(entry.flows, before.flows);
    assert_eq!((entry.reflect, entry.copies), (true, true));
    assert!(!entry.is_active(&entry.flows[1]) && entry.is_active(&entry.flows[2]));

    for (settings, flows, agreed) in [
        ("flows=2 reflect=no", 2, (false, true)),
        ("flow-bindings=no", 0, (false, false)),
        ("prefixes=2001:db8:4300::/56", 2, (true, true)),
    ] {
        let mut config = agent_config();
        set_agent(&mut config, &words("prefixes=2001:db8:4200::/56"));
        set_agent(&mut config, &words(settings));
        let mut agent = HomeAgent::new(config);
        agent.restore(at(Duration::ZERO, EPOCH), &record, seconds(60));
        let entry = agent.cache().get(home()).expect("restored");
        assert_eq!(entry.flows.len(), flows, "{settings}");
        assert_eq!((entry.reflect, entry.copies), agreed, "{settings}");
    }
}
