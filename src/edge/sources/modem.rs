//! ModemManager, over the system's D-Bus.
//!
//! One call says all of all modems (`GetManagedObjects`). It is made again whenever ModemManager
//! signals a change, and every so often in case a signal was lost or ModemManager started anew.
//! Signal strength in dBm is measured only for who asks for it (`Modem.Signal.Setup`); where that
//! is refused the rest is told all the same, with a caution.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::StreamExt;
use mtun_policy::{FactOrigin, FactSource, Radio, RadioRegistration, Reading, Technology};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant};

use super::{AGAIN, PATIENCE, SourceError, Told, Whose};

const SERVICE: &str = "org.freedesktop.ModemManager1";
const ROOT: &str = "/org/freedesktop/ModemManager1";
const MODEM: &str = "org.freedesktop.ModemManager1.Modem";
const CELLULAR: &str = "org.freedesktop.ModemManager1.Modem.Modem3gpp";
const SIGNAL: &str = "org.freedesktop.ModemManager1.Modem.Signal";
/// The kind of a port that is a network interface.
const NET_PORT: u32 = 2;
/// Changes come in bursts, and one look after them is enough.
const BURST: Duration = Duration::from_millis(200);
/// When a modem that refused to measure its signal is asked again.
const REFUSED: Duration = Duration::from_secs(60);
/// Signals that may wait; more of them say no more.
const SIGNALS: usize = 64;

type Properties = HashMap<String, OwnedVariant>;
type Interfaces = HashMap<String, Properties>;
type Objects = HashMap<OwnedObjectPath, Interfaces>;

/// Tells of the radios of these links for as long as anybody wants to know.
pub(super) async fn watch(
    wanted: BTreeMap<Whose, FactSource>,
    bus: Option<String>,
    told: mpsc::Sender<Told>,
) {
    loop {
        let Err(error) = listen(&wanted, bus.as_deref(), &told).await else { return };
        for whose in wanted.keys() {
            let said = Err(SourceError::unreachable("ModemManager", &error));
            let said = Told { whose: whose.clone(), said, caution: None };
            if told.send(said).await.is_err() {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

/// Ends with an error, or when nobody wants to know any more.
async fn listen(
    wanted: &BTreeMap<Whose, FactSource>,
    bus: Option<&str>,
    told: &mpsc::Sender<Told>,
) -> zbus::Result<()> {
    let slow = |_| zbus::Error::Failure(format!("no answer within {} s", PATIENCE.as_secs()));
    let bus = match bus {
        Some(address) => Builder::address(address),
        None => Builder::system(),
    };
    let bus = timeout(PATIENCE, bus.build()).await.map_err(slow)??;
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(SERVICE).build()?;
    let most = std::num::NonZeroUsize::new(SIGNALS);
    let changes = MessageStream::for_match_rule(rule, &bus, most);
    let mut changes = timeout(PATIENCE, changes).await.map_err(slow)??;
    let every = wanted.values().map(|source| source.every).min().unwrap_or(PATIENCE);
    let mut asked = Asked::default();
    loop {
        let objects = timeout(PATIENCE, objects(&bus)).await.map_err(slow)??;
        for (whose, source) in wanted {
            let (said, caution) = match find(&objects, whose, source) {
                None => (Err(SourceError::NoModem(sought(whose, source))), None),
                Some((path, interfaces)) => {
                    let read = read(interfaces);
                    let refused = asked.measure(&bus, path, interfaces, source.every).await;
                    let lacks = read.as_ref().is_ok_and(|it| it.radio.signal.is_none());
                    (read, refused.filter(|_| lacks))
                }
            };
            let said = Told { whose: whose.clone(), said, caution };
            if told.send(said).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = sleep(every) => {}
            change = changes.next() => {
                if change.is_none() || bus.is_closed() {
                    return Err(zbus::Error::Failure("the bus hung up".to_owned()));
                }
                sleep(BURST).await;
                while let Ok(Some(_)) = timeout(Duration::ZERO, changes.next()).await {}
            }
        }
    }
}

async fn objects(bus: &Connection) -> zbus::Result<Objects> {
    let manager = Some("org.freedesktop.DBus.ObjectManager");
    let reply = bus.call_method(Some(SERVICE), ROOT, manager, "GetManagedObjects", &()).await?;
    reply.body().deserialize()
}

/// The modems that refused to measure their signal, with when and why.
#[derive(Default)]
struct Asked(BTreeMap<String, (Instant, String)>);

impl Asked {
    /// Has the signal measured unless it is; why it is not.
    async fn measure(
        &mut self,
        bus: &Connection,
        path: &OwnedObjectPath,
        interfaces: &Interfaces,
        every: Duration,
    ) -> Option<SourceError> {
        let Some(properties) = interfaces.get(SIGNAL) else {
            return Some(SourceError::NoSignal("this modem cannot".to_owned()));
        };
        let rate = properties.get("Rate").and_then(|it| u32::try_from(it).ok()).unwrap_or(0);
        if rate > 0 {
            self.0.remove(path.as_str());
            return None;
        }
        if let Some((at, why)) = self.0.get(path.as_str())
            && at.elapsed() < REFUSED
        {
            return Some(SourceError::NoSignal(why.clone()));
        }
        let seconds = u32::try_from(every.as_secs()).unwrap_or(u32::MAX).max(1);
        let rate = (seconds,);
        let setup = bus.call_method(Some(SERVICE), path.as_str(), Some(SIGNAL), "Setup", &rate);
        let why = match timeout(PATIENCE, setup).await {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        self.0.insert(path.as_str().to_owned(), (Instant::now(), why.clone()));
        Some(SourceError::NoSignal(why))
    }
}

/// The modem that a source means.
fn find<'o>(
    objects: &'o Objects,
    whose: &Whose,
    source: &FactSource,
) -> Option<(&'o OwnedObjectPath, &'o Interfaces)> {
    let (Whose::Radio(link), FactOrigin::Modem(equipment)) = (whose, &source.from) else {
        return None;
    };
    let meant = |interfaces: &Interfaces| {
        let Some(modem) = interfaces.get(MODEM) else { return false };
        match equipment {
            Some(equipment) => text(modem, "EquipmentIdentifier").as_ref() == Some(equipment),
            None => {
                ports(modem).iter().any(|(name, kind)| *kind == NET_PORT && *name == link.as_str())
            }
        }
    };
    objects.iter().find(|(_, interfaces)| meant(interfaces))
}

fn sought(whose: &Whose, source: &FactSource) -> String {
    match (&source.from, whose) {
        (FactOrigin::Modem(Some(equipment)), _) => {
            format!("with the equipment identifier {equipment}")
        }
        (_, Whose::Radio(link)) => format!("that has {link} among its ports"),
        (_, Whose::Vehicle) => "of a vehicle".to_owned(),
    }
}

fn text(properties: &Properties, name: &str) -> Option<String> {
    <&str>::try_from(properties.get(name)?).ok().map(str::to_owned)
}

fn ports(modem: &Properties) -> Vec<(String, u32)> {
    let ports = modem.get("Ports").and_then(|ports| ports.try_clone().ok());
    ports.and_then(|ports| ports.try_into().ok()).unwrap_or_default()
}

/// What a modem says of its radio.
fn read(interfaces: &Interfaces) -> Result<Reading, SourceError> {
    let modem = &interfaces[MODEM];
    let number = |properties: Option<&Properties>,
                  name: &str|
     -> Result<Option<u32>, SourceError> {
        let Some(value) = properties.and_then(|properties| properties.get(name)) else {
            return Ok(None);
        };
        let read = u32::try_from(value).map(Some);
        read.map_err(|_| SourceError::unreadable("ModemManager", format!("`{name}` is no number")))
    };
    let technologies = number(Some(modem), "AccessTechnologies")?.unwrap_or(0);
    let registration = number(interfaces.get(CELLULAR), "RegistrationState")?;
    let technology = technology(technologies);
    let radio = Radio {
        signal: interfaces.get(SIGNAL).and_then(|signal| strength(signal, technology)),
        registration: registration.and_then(registered),
        technology,
    };
    Ok(Reading { radio, ..Reading::default() })
}

/// `MMModemAccessTechnology`: bits, of which the youngest counts.
fn technology(bits: u32) -> Option<Technology> {
    use Technology::{Cdma, Gsm, Lte, LteM, NbIot, Nr, Umts};
    let known = [
        (1 << 15, Nr),
        (1 << 14, Lte),
        (1 << 16, LteM),
        (1 << 17, NbIot),
        (0b11_1110_0000, Umts),
        (0b11_1100_0000_0000, Cdma),
        (0b1_1110, Gsm),
    ];
    known.into_iter().find(|(mask, _)| bits & mask != 0).map(|(_, technology)| technology)
}

/// `MMModem3gppRegistrationState`.
fn registered(state: u32) -> Option<RadioRegistration> {
    match state {
        0 => Some(RadioRegistration::Idle),
        1 | 6 | 9 => Some(RadioRegistration::Home),
        2 => Some(RadioRegistration::Searching),
        3 => Some(RadioRegistration::Denied),
        5 | 7 | 10 => Some(RadioRegistration::Roaming),
        // Unknown; emergency calls only, which is no registration for packets.
        _ => None,
    }
}

/// The strength that is measured of the technology in use, in dBm: of the reference signal where
/// there is one, else of all that is received.
fn strength(signal: &Properties, technology: Option<Technology>) -> Option<i16> {
    let in_use: &[(&str, &[&str])] = match technology? {
        // The anchor of a fifth generation that does not stand alone is of the fourth.
        Technology::Nr => &[("Nr5g", &["rsrp"]), ("Lte", &["rsrp", "rssi"])],
        Technology::Lte | Technology::LteM | Technology::NbIot => &[("Lte", &["rsrp", "rssi"])],
        Technology::Umts => &[("Umts", &["rscp", "rssi"])],
        Technology::Gsm => &[("Gsm", &["rssi"])],
        Technology::Cdma => &[("Evdo", &["rssi"]), ("Cdma", &["rssi"])],
    };
    in_use.iter().find_map(|(name, figures)| {
        let of_it: Properties = signal.get(*name)?.try_clone().ok()?.try_into().ok()?;
        figures.iter().find_map(|figure| {
            let dbm = f64::try_from(of_it.get(*figure)?).ok()?;
            // -32768 stands for what was not measured.
            (-200.0..=50.0).contains(&dbm).then_some(dbm.round() as i16)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_modemmanager_are_words_here() {
        use RadioRegistration as Is;
        let states = (0..=11).map(registered).collect::<Vec<_>>();
        let (home, roaming) = (Some(Is::Home), Some(Is::Roaming));
        let expected = [
            Some(Is::Idle),
            home,
            Some(Is::Searching),
            Some(Is::Denied),
            None,
            roaming,
            home,
            roaming,
            None,
            home,
            roaming,
            None,
        ];
        assert_eq!(states, expected);
        let cases = [
            (0, None),
            (1, None),
            (1 << 1, Some(Technology::Gsm)),
            (1 << 4, Some(Technology::Gsm)),
            (1 << 5, Some(Technology::Umts)),
            (1 << 9, Some(Technology::Umts)),
            (1 << 10, Some(Technology::Cdma)),
            (1 << 14, Some(Technology::Lte)),
            (1 << 15 | 1 << 14, Some(Technology::Nr)),
            (1 << 16, Some(Technology::LteM)),
            (1 << 17, Some(Technology::NbIot)),
        ];
        for (bits, expected) in cases {
            assert_eq!(technology(bits), expected, "{bits:#x}");
        }
    }

    #[test]
    fn the_signal_of_the_technology_in_use_counts() {
        let of = |figures: &[(&str, f64)]| -> OwnedVariant {
            let all: HashMap<String, zbus::Variant<'_>> =
                figures.iter().map(|(name, dbm)| ((*name).to_owned(), (*dbm).into())).collect();
            zbus::Variant::from(all).try_to_owned().unwrap()
        };
        let signal = Properties::from([
            ("Lte".to_owned(), of(&[("rsrp", -97.6), ("rssi", -70.0)])),
            ("Nr5g".to_owned(), of(&[("rsrp", -32768.0)])),
            ("Umts".to_owned(), of(&[("rssi", -80.0)])),
            ("Gsm".to_owned(), of(&[])),
        ]);
        assert_eq!(strength(&signal, Some(Technology::Lte)), Some(-98));
        assert_eq!(strength(&signal, Some(Technology::Nr)), Some(-98), "its anchor's");
        assert_eq!(strength(&signal, Some(Technology::Umts)), Some(-80));
        assert_eq!(strength(&signal, Some(Technology::Gsm)), None);
        assert_eq!(strength(&signal, None), None);
    }
}
