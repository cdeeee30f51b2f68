//! Plays the transcripts of `tests/conformance`, texts that need no Rust to be read.
//!
//! A transcript sets a scene (`roles`, `mobile`, `agent`), then lists what happens to the machines
//! (`@seconds > event`) and everything they do about it (`@seconds < output`), in order and with
//! nothing left out. Lines that begin with `#` are for the reader. `tests/conformance/README.md`
//! explains the words. With `MTUN_BLESS=1` in the environment the outputs are written into the
//! files, to be read before they are accepted.

mod scene;
#[path = "../../tests/support/skip.rs"]
mod skip;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mtun_signaling::agent::{Detection, PrefixLifetime};
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{
    AgentConfig, AgentEvent, Envelope, HomeAgent, MobileConfig, MobileEvent, MobileNode, NtpTime,
    auth,
};
use scene::flow_text;
use scene::route::RouteOptimizing;
use scene::script::{self, Stage};
use scene::settings::{set_agent, set_mobile, signed_update};
use scene::text::{parse_acknowledgement, parse_other, value};
use scene::world::World;
use scene::{EPOCH, address, agent_config, at, bid, care_of, home, key, mobile_config, our_key};

/// One way of the link between mobile and agent.
const DELAY: Duration = Duration::from_millis(20);

struct Scene {
    mobile: MobileConfig,
    agent: AgentConfig,
    mobile_epoch: u64,
    with_mobile: bool,
    with_agent: bool,
}

/// An acknowledgement for the update that left last, as its agent would write it.
fn acknowledgement(world: &World, words: &[&str]) -> MobileEvent {
    let sent = world.last_update.as_ref().expect("an update to answer");
    let Ok(Message::BindingUpdate(update)) = wire::receive(&sent.envelope, &sent.message) else {
        panic!("the last message was no Binding Update");
    };
    let acknowledgement = parse_acknowledgement(words, update.sequence);
    let source = value(words, "from").map_or(sent.envelope.destination, address);
    let envelope = Envelope {
        routing_header: (!words.contains(&"without-routing-header")).then_some(home()),
        ..Envelope::plain(source, sent.envelope.source)
    };
    let mut message_id = update.options.message_id();
    if let (Some(clock), Some(sent)) = (value(words, "clock"), message_id) {
        let agent = at(world.now, clock.parse().unwrap()).wall;
        message_id = Some(agent.with_fraction_of(sent));
    }
    if words.contains(&"other-timestamp") {
        message_id = message_id.map(|sent| NtpTime(sent.0 + 1));
    }
    let care_of = auth::care_of_address(&update, &sent.envelope);
    let association = if words.contains(&"wrong-key") { key(256, 9) } else { our_key() };
    let message = Message::BindingAcknowledgement(acknowledgement);
    let message = if words.contains(&"unprotected") {
        wire::emit(&message, &envelope)
    } else {
        wire::emit_authenticated(&message, &envelope, care_of, &association, message_id)
    };
    MobileEvent::Received { envelope, message: message.expect("it fits") }
}

fn play_event(world: &mut World, scene: &mut Scene, words: &[&str]) {
    let mut fate = || vec![DELAY];
    let uplink = |word: &str| bid(word.parse().expect("a BID"));
    match words {
        ["wait"] => {}
        ["up", number, address, rest @ ..] => {
            let priority = value(rest, "pri").map_or(1, |priority| priority.parse().unwrap());
            let event =
                MobileEvent::CareOfUp { bid: uplink(number), priority, care_of: care_of(address) };
            world.mobile_event(event, &mut fate);
        }
        ["down", number] => {
            world.mobile_event(MobileEvent::CareOfDown { bid: uplink(number) }, &mut fate);
        }
        ["home-link", number, rest @ ..] => {
            let event = MobileEvent::HomeLinkUp {
                bid: uplink(number),
                priority: value(rest, "pri").map_or(1, |priority| priority.parse().unwrap()),
                link_layer_address: vec![2, 0, 0x5e, 0, 0, number.parse().unwrap()],
            };
            world.mobile_event(event, &mut fate);
        }
        ["home-link-down", number] => {
            world.mobile_event(MobileEvent::HomeLinkDown { bid: uplink(number) }, &mut fate);
        }
        ["hear", number] => {
            world.silent.remove(&uplink(number));
        }
        ["unreachable", number] => {
            world.mobile_event(MobileEvent::Unreachable { bid: uplink(number) }, &mut fate);
        }
        ["flows", rest @ ..] => {
            let bindings = rest.iter().filter_map(|it| it.strip_prefix('[')?.strip_suffix(']'));
            let flows = bindings.map(|it| flow_text::parse_binding(&scene::text::words(it)));
            let event = MobileEvent::FlowsChanged {
                flows: flows.collect(),
                reflect: rest.contains(&"reflect"),
                copies: rest.contains(&"copies"),
            };
            world.mobile_event(event, &mut fate);
        }
        ["ask", "again"] => world.mobile_event(MobileEvent::AskAgain, &mut fate),
        ["stop"] => world.mobile_event(MobileEvent::Stop, &mut fate),
        ["silence", number] => {
            world.silent.insert(uplink(number));
        }
        ["restart", "agent"] => world.agent = Some(HomeAgent::new(scene.agent.clone())),
        ["restart", "mobile", rest @ ..] => {
            set_mobile(&mut scene.mobile, &mut world.mobile_epoch, rest);
            world.uplinks.clear();
            world.mobile = Some(MobileNode::new(scene.mobile.clone(), world.mobile_now()));
        }
        ["reconfigure", "agent", rest @ ..] => {
            set_agent(&mut scene.agent, rest);
            world.agent_event(AgentEvent::Reconfigure(scene.agent.clone()), &mut fate);
        }
        [verb @ ("prohibit" | "permit"), address_of] => {
            let home_address = mtun_policy::HomeAddress(address(address_of));
            let prohibited = *verb == "prohibit";
            world.agent_event(AgentEvent::Prohibit { home_address, prohibited }, &mut fate);
        }
        ["allow", address_of, rest @ ..] => {
            let mobiles = &mut scene.agent.mobiles;
            let home_address = mtun_policy::HomeAddress(address(address_of));
            let mobile = mobiles.iter_mut().find(|it| it.address == home_address);
            let mobile = mobile.expect("one of the scene's");
            mobile.refused = rest.contains(&"refused");
            mobile.refused_bids = value(rest, "refused-bids").map_or_else(Vec::new, |bids| {
                bids.split(',').map(|it| scene::bid(it.parse().unwrap())).collect()
            });
            if let Some(prefixes) = value(rest, "prefixes") {
                mobile.prefixes = prefixes.split(',').map(scene::prefix).collect();
            }
            if let Some(most) = value(rest, "bindings") {
                mobile.max_bindings = most.parse().unwrap();
            }
            world.agent_event(AgentEvent::Allow(mobile.clone()), &mut fate);
        }
        ["switch", address_of, agents @ ..] => {
            let home_address = mtun_policy::HomeAddress(address(address_of));
            let agents = agents.iter().map(|it| address(it)).collect();
            world.agent_event(AgentEvent::Switch { home_address, agents }, &mut fate);
        }
        ["advertised", rest @ ..] => {
            let seconds = |key| value(rest, key).map_or(u32::MAX, |it| it.parse().unwrap());
            let (valid, preferred) = (seconds("valid"), seconds("preferred"));
            world.agent_event(AgentEvent::PrefixAdvertised { valid, preferred }, &mut fate);
        }
        ["disallow", address_of] => {
            let home_address = mtun_policy::HomeAddress(address(address_of));
            world.agent_event(AgentEvent::Disallow { home_address }, &mut fate);
        }
        ["prefix", rest @ ..] => {
            let until = |key| value(rest, key).map(|at| Duration::from_secs(at.parse().unwrap()));
            let (preferred_until, valid_until) = (until("preferred"), until("valid"));
            let lifetime = PrefixLifetime { preferred_until, valid_until };
            world.agent_event(AgentEvent::HomePrefix(lifetime), &mut fate);
        }
        ["checked", address_of, verdict] => {
            let home_address = mtun_policy::HomeAddress(address(address_of));
            let detection = match *verdict {
                "duplicate" => Detection::Duplicate,
                "unique" => Detection::Unique,
                "undone" => Detection::Undone,
                other => panic!("checked … {other}"),
            };
            let event = AgentEvent::DuplicateChecked { home_address, detection };
            world.agent_event(event, &mut fate);
        }
        ["recv", "BindingAck", ..] => {
            let event = acknowledgement(world, words);
            world.mobile_event(event, &mut fate);
        }
        ["recv", "BindingUpdate", ..] => {
            let (envelope, message) = signed_update(words, world.now);
            world.agent_event(AgentEvent::Received { envelope, message }, &mut fate);
        }
        ["record"] => world.recorded = world.last_update.clone(),
        ["replay"] => {
            let sent = world.recorded.clone().expect("a record");
            let event = AgentEvent::Received { envelope: sent.envelope, message: sent.message };
            world.agent_event(event, &mut fate);
        }
        ["recv", rest @ ..] => {
            let source = value(rest, "from").map_or(scene::agent_address().0, address);
            let envelope = Envelope::plain(source, home().0);
            let message = wire::emit(&parse_other(rest), &envelope).expect("it fits");
            world.mobile_event(MobileEvent::Received { envelope, message }, &mut fate);
        }
        other => panic!("no event is called {other:?}"),
    }
}

/// A mobile, a home agent, or both.
struct Registration {
    scene: Scene,
    world: Option<World>,
}

impl Registration {
    fn new() -> Self {
        let scene = Scene {
            mobile: mobile_config(),
            agent: agent_config(),
            mobile_epoch: EPOCH,
            with_mobile: false,
            with_agent: false,
        };
        Self { scene, world: None }
    }
}

impl Stage for Registration {
    fn set(&mut self, words: &[&str]) -> bool {
        let scene = &mut self.scene;
        match words {
            ["roles", roles @ ..] => {
                scene.with_mobile = roles.contains(&"mobile");
                scene.with_agent = roles.contains(&"agent");
            }
            ["mobile", rest @ ..] => set_mobile(&mut scene.mobile, &mut scene.mobile_epoch, rest),
            ["agent", rest @ ..] => set_agent(&mut scene.agent, rest),
            _ => return false,
        }
        true
    }

    fn run_until(&mut self, end: Duration) {
        let scene = &self.scene;
        let world = self.world.get_or_insert_with(|| {
            let start = at(Duration::ZERO, scene.mobile_epoch);
            let mobile = scene.with_mobile.then(|| MobileNode::new(scene.mobile.clone(), start));
            let agent = scene.with_agent.then(|| HomeAgent::new(scene.agent.clone()));
            World::new(mobile, agent, scene.mobile_epoch)
        });
        world.run_until(end, &mut || vec![DELAY]);
    }

    fn event(&mut self, words: &[&str]) {
        let world = self.world.as_mut().expect("time has begun");
        play_event(world, &mut self.scene, words);
    }

    fn sent(&self) -> &[(Envelope, Vec<u8>)] {
        self.world.as_ref().map_or(&[], |world| &world.wire)
    }

    fn trace(&self) -> &[(Duration, String)] {
        self.world.as_ref().map_or(&[], |world| &world.trace)
    }
}

/// Plays one transcript on the stage that its roles ask for; gives it as it was played, and what
/// the machines sent.
fn play(text: &str) -> (String, Vec<(Envelope, Vec<u8>)>) {
    let roles = script::roles(text);
    let mut stage: Box<dyn Stage> =
        if roles.iter().any(|role| ["correspondent", "optimizer"].contains(role)) {
            Box::new(RouteOptimizing::new())
        } else {
            Box::new(Registration::new())
        };
    let played = script::play(text, &mut *stage);
    (played, stage.sent().to_vec())
}

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance");
    let files = fs::read_dir(&folder).expect("tests/conformance");
    let mut paths: Vec<PathBuf> = files
        .map(|file| file.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "transcript"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_transcript_plays_as_written() {
    let paths = transcripts();
    assert!(paths.len() >= 15, "only {} transcripts found", paths.len());
    let bless = std::env::var_os("MTUN_BLESS").is_some();
    let mut wrong = 0;
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let written = fs::read_to_string(path).expect("readable");
        let (played, _) = play(&written);
        if played == written {
            continue;
        }
        if bless {
            fs::write(path, &played).expect("writable");
            continue;
        }
        wrong += 1;
        println!("{name} plays differently:");
        let (written, played): (Vec<_>, Vec<_>) =
            (written.lines().collect(), played.lines().collect());
        let same = written.iter().zip(&played).take_while(|(one, two)| one == two).count();
        for line in played.iter().take(same).skip(same.saturating_sub(5)) {
            println!("    {line}");
        }
        println!("  - {}", written.get(same).unwrap_or(&"(end)"));
        println!("  + {}", played.get(same).unwrap_or(&"(end)"));
    }
    assert_eq!(wrong, 0, "transcripts that play differently");
}

/// req MH-18: an independent reader understands every octet of every message that any transcript
/// makes our machines send.
#[test]
fn tshark_reads_everything_that_is_sent() {
    if !skip::runs(Command::new("tshark").arg("--version")) {
        return skip::skip("signaling transcripts: tshark is not installed");
    }
    let mut packets = Vec::new();
    let mut names = Vec::new();
    for path in transcripts() {
        let text = fs::read_to_string(&path).expect("readable");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (envelope, message) in play(&text).1 {
            packets.push(support::packet(&envelope, &message));
            names.push(format!("{name}: MH Type {}", message[2]));
        }
    }
    let capture =
        std::env::temp_dir().join(format!("mtun-transcripts-{}.pcap", std::process::id()));
    fs::write(&capture, support::write_capture(support::RAW_IPV6, &packets)).expect("writable");
    let complaints =
        ["_ws.malformed", "_ws.expert.message", "mip6.bogus_header_length", "mip6.opt.len.invalid"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&capture).args(["-n", "-T", "fields", "-E", "separator=/t"]);
    complaints.iter().chain(&["mip6.mhtype"]).for_each(|key| _ = tshark.args(["-e", key]));
    let output = tshark.output();
    fs::remove_file(&capture).expect("it was there a moment ago");
    let output = output.expect("a program that was there a moment ago");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), packets.len());
    let mut types = std::collections::BTreeSet::new();
    for ((line, packet), name) in lines.iter().zip(&packets).zip(&names) {
        let (complaint, mh_type) = line.rsplit_once('\t').expect("a column for the type");
        // Of a Vendor Specific option it says that it knows the vendor and no more.
        let complaint = complaint.replace("IE data not dissected yet", "");
        let complaint = complaint.trim_matches([',', '\t', ' ']);
        // tshark 4.0 reads a Home Agent Switch and its addresses, and looks for its options six
        // octets too early, also where there are none.
        if mh_type != "12" {
            assert_eq!(complaint, "", "{name}: {packet:02x?}");
        }
        types.insert(mh_type.parse::<u8>().expect("an MH Type"));
    }
    assert!(
        types.into_iter().eq((0..8).chain([12, 13, 16])),
        "every type, of {} packets",
        packets.len()
    );
}
