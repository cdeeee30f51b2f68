//! Sources of facts: the real protocols over a real bus, a real socket, real programs and files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mtun::edge::sources::{Sources, Told, Whose};
use mtun_policy::{
    FactOrigin, FactSource, GpsdPlace, Position, Radio, RadioRegistration, Reading, Technology,
};
use tokio::time::timeout;

use crate::skip::{runs, skip};
use crate::stand_ins::{Bus, Gpsd, Modem, ModemManager};
use crate::world::PATIENCE;

/// A directory of a test's own; removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mtun-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn program(&self, name: &str, mode: u32, text: &str) {
        let file = self.0.join(name);
        std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wwan0() -> Whose {
    Whose::Radio("wwan0".into())
}

fn source(from: FactOrigin) -> FactSource {
    let every = Duration::from_secs(1);
    FactSource { from, every, lost_after: Duration::from_secs(10) }
}

fn sources(directory: &Path, bus: Option<String>, wanted: &[(Whose, FactOrigin)]) -> Sources {
    let mut sources = Sources::new(directory.to_owned(), bus);
    let wanted = wanted.iter().map(|(whose, from)| (whose.clone(), source(from.clone())));
    sources.want(&wanted.collect::<BTreeMap<_, _>>());
    sources
}

async fn next(sources: &mut Sources) -> Told {
    timeout(PATIENCE, sources.told()).await.expect("a word in time")
}

/// Waits until somebody tells this of somebody.
async fn hears(sources: &mut Sources, what: &str, is: impl Fn(&Told) -> bool) -> Told {
    let mut last = None;
    let heard = timeout(PATIENCE, async {
        loop {
            let told = sources.told().await;
            if is(&told) {
                return told;
            }
            last = Some(told);
        }
    });
    heard.await.unwrap_or_else(|_| panic!("{what}; last {last:?}"))
}

fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test());
}

fn reading(told: &Told) -> Reading {
    *told.said.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

fn fault(told: &Told) -> String {
    told.said.as_ref().err().unwrap_or_else(|| panic!("{told:?}")).to_string()
}

#[test]
fn a_modem_tells_and_changes_and_goes() {
    if !runs(std::process::Command::new("dbus-daemon").arg("--version")) {
        return skip("dbus-daemon is not installed");
    }
    let scratch = Scratch::new("modem");
    let bus = Bus::start(&scratch.0);
    run(async || {
        let wanted = [(wwan0(), FactOrigin::Modem(None))];
        let mut sources = sources(&scratch.0, Some(bus.address.clone()), &wanted);
        // Nobody has the name on the bus.
        assert!(fault(&next(&mut sources).await).starts_with("ModemManager cannot be reached: "));
        let manager = ModemManager::start(&bus.address, None);
        let none = hears(
            &mut sources,
            "no modem",
            |it| matches!(&it.said, Err(error) if error.code() == "no-modem"),
        );
        let words = "ModemManager knows no modem that has wwan0 among its ports; `mmcli -L`";
        assert!(fault(&none.await).starts_with(words));
        // It comes, is asked to measure, and tells what it measures.
        manager.change(|modem| *modem = Some(Modem::at_home("wwan0")));
        let radio = Radio {
            signal: Some(-91),
            registration: Some(RadioRegistration::Home),
            technology: Some(Technology::Lte),
        };
        let is = |wanted: Radio| move |it: &Told| matches!(it.said, Ok(Reading { radio, .. }) if radio == wanted);
        assert!(hears(&mut sources, "all of it", is(radio)).await.caution.is_none());
        assert_eq!(manager.measured_every(), 1, "as often as it is looked at");
        // A change is told.
        manager.change(|modem| {
            let modem = modem.as_mut().unwrap();
            (modem.registration, modem.technologies) = (5, 1 << 14 | 1 << 15);
            modem.rsrp = -104.4;
        });
        let abroad = Radio {
            signal: Some(-104),
            registration: Some(RadioRegistration::Roaming),
            technology: Some(Technology::Nr),
        };
        hears(&mut sources, "roaming", is(abroad)).await;
        // ModemManager ends, and another one refuses to measure.
        drop(manager);
        hears(
            &mut sources,
            "nobody",
            |it| matches!(&it.said, Err(error) if error.code() == "unreachable"),
        )
        .await;
        let refusing = Modem { refuses: true, ..Modem::at_home("wwan0") };
        let _manager = ModemManager::start(&bus.address, Some(refusing));
        let told = hears(&mut sources, "no signal", is(Radio { signal: None, ..radio })).await;
        let caution = told.caution.expect("what is missing").to_string();
        assert!(
            caution.contains("Unauthorized") && caution.contains("--signal-setup"),
            "{caution}"
        );
    });
}

#[test]
fn a_modem_is_found_by_its_equipment_identifier() {
    if !runs(std::process::Command::new("dbus-daemon").arg("--version")) {
        return skip("dbus-daemon is not installed");
    }
    let scratch = Scratch::new("equipment");
    let bus = Bus::start(&scratch.0);
    run(async || {
        let _manager = ModemManager::start(&bus.address, Some(Modem::at_home("cdc-wdm9")));
        let by = |number: &str| FactOrigin::Modem(Some(number.to_owned()));
        let wanted = [(wwan0(), by("867962041234567")), (Whose::Radio("wwan1".into()), by("1234"))];
        let mut sources = sources(&scratch.0, Some(bus.address.clone()), &wanted);
        let (first, second) = (next(&mut sources).await, next(&mut sources).await);
        assert_eq!(
            (&first.whose, reading(&first).radio.technology),
            (&wwan0(), Some(Technology::Lte))
        );
        let words = "ModemManager knows no modem with the equipment identifier 1234;";
        assert!(fault(&second).starts_with(words), "{}", fault(&second));
    });
}

#[test]
fn a_receiver_tells_where_and_how_fast() {
    let scratch = Scratch::new("gpsd");
    run(async || {
        let place = scratch.0.join("gpsd.sock");
        let wanted = [(Whose::Vehicle, FactOrigin::Gpsd(GpsdPlace::Unix(place)))];
        let mut sources = sources(&scratch.0, None, &wanted);
        assert!(fault(&next(&mut sources).await).starts_with("gpsd at "), "nobody listens");
        let gpsd = Gpsd::start(&scratch.0);
        let accept = |gpsd: Gpsd| {
            tokio::task::spawn_blocking(move || {
                let caller = gpsd.accept();
                (gpsd, caller)
            })
        };
        let (gpsd, mut caller) = accept(gpsd).await.unwrap();
        caller.fix(13.894);
        let told = hears(&mut sources, "a fix", |it| it.said.is_ok()).await;
        let place = Position::from_degrees(48.137_154, 11.576_124);
        assert_eq!((reading(&told).speed, reading(&told).position), (Some(1389), place));
        // The fix is lost: nothing is known, at once.
        caller.say(r#"{"class":"TPV","device":"/dev/ttyACM0","mode":1}"#);
        let lost = next(&mut sources).await;
        assert_eq!(reading(&lost), Reading::default());
        // Nonsense is told, and the connection goes on.
        caller.say(r#"{"class":"TPV","mode":"three"}"#);
        assert!(fault(&next(&mut sources).await).contains("a fix cannot be read"));
        caller.fix(2.0);
        assert_eq!(reading(&next(&mut sources).await).speed, Some(200));
        // A line without end, and the caller is gone and comes back.
        caller.say(&"x".repeat(20_000));
        let endless = next(&mut sources).await;
        assert!(fault(&endless).contains("a line of more than 16384 octets"), "{endless:?}");
        let (gpsd, mut caller) = accept(gpsd).await.unwrap();
        caller.fix(3.0);
        assert_eq!(reading(&next(&mut sources).await).speed, Some(300));
        drop((gpsd, caller));
        let gone = next(&mut sources).await;
        assert!(fault(&gone).contains("it hung up"), "{gone:?}");
    });
}

#[test]
fn a_program_is_asked_again_and_again() {
    let scratch = Scratch::new("exec");
    scratch.program(
        "good",
        0o755,
        "echo \"# $MTUN_LINK\"; echo signal -71dBm; echo registration=home; [ -z \"$HOME\" ]",
    );
    scratch.program("wrong", 0o755, "echo signal -71dBm; echo bars 4");
    scratch.program("failing", 0o755, "echo no modem here >&2; exit 3");
    scratch.program("endless", 0o755, "yes -- signal -71dBm");
    // What it leaves running holds its output open, and goes with it.
    let sleeper = format!("6000{}", std::process::id());
    scratch.program("slow", 0o755, &format!("sleep {sleeper} & sleep {sleeper}"));
    scratch.program("open", 0o777, "echo signal -71dBm");
    scratch.program("plain", 0o644, "echo signal -71dBm");
    std::fs::create_dir(scratch.0.join("directory")).unwrap();
    let path = |name: &str| scratch.0.join(name).display().to_string();
    let cases = [
        (
            "wrong",
            "line 2: `bars` is no fact of a radio; the facts here are signal, registration, technology",
        ),
        ("failing", "ended with exit status: 3: no modem here"),
        ("endless", "there are more than 4096 octets"),
        ("slow", "did not answer within 1 s"),
        ("open", "is not used: others may change it: run chmod go-w on it"),
        ("plain", "is not used: it is not executable: run chmod +x on it"),
        ("directory", "is not used: it is no program"),
        ("nobody", "cannot be reached: No such file or directory"),
    ];
    run(async || {
        let wanted = [(wwan0(), FactOrigin::Exec("good".to_owned()))];
        let mut good = sources(&scratch.0, None, &wanted);
        for _ in 0..2 {
            let radio = reading(&next(&mut good).await).radio;
            assert_eq!(
                (radio.signal, radio.registration),
                (Some(-71), Some(RadioRegistration::Home))
            );
        }
        for (name, said) in cases {
            let wanted = [(wwan0(), FactOrigin::Exec(name.to_owned()))];
            let fault = fault(&next(&mut sources(&scratch.0, None, &wanted)).await);
            let place = format!("program {}", path(name));
            assert!(fault.starts_with(&place) && fault.contains(said), "{name}: {fault}");
        }
    });
    // Nothing of it is left.
    crate::world::eventually("the sleepers are gone", || {
        let named = |pid: &std::path::Path| {
            let line = std::fs::read(pid.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&sleeper)
        };
        let mut all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        !all.any(|entry| named(&entry.path()))
    });
}

#[test]
fn a_file_counts_when_it_is_written() {
    let scratch = Scratch::new("file");
    let file = scratch.0.join("vehicle");
    run(async || {
        let wanted = [(Whose::Vehicle, FactOrigin::File("vehicle".to_owned()))];
        let mut sources = sources(&scratch.0, None, &wanted);
        assert!(fault(&next(&mut sources).await).contains("cannot be reached: No such file"));
        let write = |text: &str| {
            let fresh = scratch.0.join("vehicle.new");
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(fresh, &file).unwrap();
        };
        write("speed 50km/h\n");
        let told = hears(&mut sources, "the speed", |it| it.said.is_ok()).await;
        assert_eq!(reading(&told).speed, Some(1389));
        // Nobody writes it: nobody tells.
        assert!(timeout(Duration::from_millis(1500), sources.told()).await.is_err());
        write("speed fast\n");
        let fault = fault(&next(&mut sources).await);
        assert!(fault.contains("line 1: `fast`"), "{fault}");
        write("speed unknown\nposition 48.1,11.5\n");
        let told = hears(&mut sources, "the place", |it| it.said.is_ok()).await;
        assert_eq!(reading(&told).position, Position::from_degrees(48.1, 11.5));
    });
}
