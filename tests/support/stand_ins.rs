//! The only stand-ins there are: a modem behind a real bus, a GPS receiver behind a real socket.
//!
//! [`ModemManager`] starts a `dbus-daemon` of its own and answers on it as ModemManager does: all
//! its objects in one call, a signal for each change, a request to measure the signal that may be
//! refused. [`Gpsd`] is a socket that says what a test has it say, and tells what it was asked.

#![allow(dead_code, reason = "not every test that includes this file uses all of it")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::runtime::Runtime;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{Connection, MessageStream, OwnedObjectPath, OwnedVariant, Variant};

const SERVICE: &str = "org.freedesktop.ModemManager1";
const ROOT: &str = "/org/freedesktop/ModemManager1";
const PATH: &str = "/org/freedesktop/ModemManager1/Modem/0";
const MODEM: &str = "org.freedesktop.ModemManager1.Modem";
const CELLULAR: &str = "org.freedesktop.ModemManager1.Modem.Modem3gpp";
const SIGNAL: &str = "org.freedesktop.ModemManager1.Modem.Signal";

/// A bus of a test's own; ends when dropped.
pub struct Bus {
    process: Child,
    /// Where it listens.
    pub address: String,
}

impl Bus {
    /// Starts one with its files in a directory.
    pub fn start(directory: &Path) -> Self {
        let (config, socket) = (directory.join("bus.conf"), directory.join("bus.sock"));
        let _ = std::fs::remove_file(&socket);
        let text = format!(
            "<busconfig><listen>unix:path={}</listen>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg(format!("--config-file={}", config.display()));
        command.args(["--nofork", "--nopidfile", "--print-address"]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("dbus-daemon is installed");
        let mut address = String::new();
        let said = process.stdout.take().expect("it was asked for");
        BufReader::new(said).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the modem is like at a moment.
#[derive(Clone, Debug)]
pub struct Modem {
    pub interface: String,
    pub equipment: String,
    /// Bits of `MMModemAccessTechnology`.
    pub technologies: u32,
    /// `MMModem3gppRegistrationState`.
    pub registration: u32,
    /// What is measured of LTE once somebody has asked for it, in dBm.
    pub rsrp: f64,
    /// Whether it is measured.
    pub measured_every: u32,
    /// Whether who asks for it is refused.
    pub refuses: bool,
}

impl Modem {
    /// With its own network by LTE.
    pub fn at_home(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            equipment: "867962041234567".to_owned(),
            technologies: 1 << 14,
            registration: 1,
            rsrp: -91.0,
            measured_every: 0,
            refuses: false,
        }
    }

    fn objects(&self) -> HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>> {
        fn own<'v>(value: impl Into<Variant<'v>>) -> OwnedVariant {
            value.into().try_to_owned().unwrap()
        }
        let ports = vec![("ttyUSB2".to_owned(), 3u32), (self.interface.clone(), 2u32)];
        let modem = HashMap::from([
            ("EquipmentIdentifier".to_owned(), own(self.equipment.as_str())),
            ("AccessTechnologies".to_owned(), own(self.technologies)),
            ("Ports".to_owned(), own(ports)),
            ("SignalQuality".to_owned(), own((61u32, true))),
        ]);
        let cellular = HashMap::from([("RegistrationState".to_owned(), own(self.registration))]);
        let measured = |figures: &[(&str, f64)]| {
            let figures = figures.iter().filter(|_| self.measured_every > 0);
            let all: HashMap<String, Variant<'_>> =
                figures.map(|(name, dbm)| ((*name).to_owned(), (*dbm).into())).collect();
            own(all)
        };
        let signal = HashMap::from([
            ("Rate".to_owned(), own(self.measured_every)),
            ("Lte".to_owned(), measured(&[("rsrp", self.rsrp), ("rssi", self.rsrp + 25.0)])),
            ("Nr5g".to_owned(), measured(&[])),
        ]);
        let interfaces = [(MODEM, modem), (CELLULAR, cellular), (SIGNAL, signal)];
        let interfaces = interfaces.map(|(name, properties)| (name.to_owned(), properties));
        HashMap::from([(PATH.try_into().unwrap(), HashMap::from(interfaces))])
    }
}

/// A ModemManager with one modem, or with none; ends when dropped.
pub struct ModemManager {
    modem: Arc<Mutex<Option<Modem>>>,
    connection: Connection,
    runtime: Option<Runtime>,
}

impl Drop for ModemManager {
    fn drop(&mut self) {
        // Also where another runtime runs, in which nobody may wait.
        self.runtime.take().expect("until now").shutdown_background();
    }
}

/// Runs something to its end on a thread of its own, wherever it is called.
fn finish<T: Send>(runtime: &Runtime, work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join().unwrap())
}

impl ModemManager {
    /// Answers on a bus.
    pub fn start(bus: &str, modem: Option<Modem>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let modem = Arc::new(Mutex::new(modem));
        let answered = modem.clone();
        let connection = finish(&runtime, async move {
            let connection = Builder::address(bus).build().await.unwrap();
            let calls = MessageStream::from(&connection);
            tokio::spawn(answer(calls, connection.clone(), answered));
            connection.request_name(SERVICE).await.unwrap();
            connection
        });
        Self { modem, connection, runtime: Some(runtime) }
    }

    /// Changes the modem and signals that.
    pub fn change(&self, change: impl FnOnce(&mut Option<Modem>)) {
        change(&mut self.modem.lock().unwrap());
        let changed: HashMap<String, Variant<'_>> =
            HashMap::from([("RegistrationState".to_owned(), 0u32.into())]);
        let body = (CELLULAR, changed, Vec::<String>::new());
        let properties = "org.freedesktop.DBus.Properties";
        let signal =
            self.connection.emit_signal(None::<&str>, PATH, properties, "PropertiesChanged", &body);
        finish(self.runtime.as_ref().expect("until the end"), signal).unwrap();
    }

    /// How often it was asked to measure the signal, in seconds; 0 for never.
    pub fn measured_every(&self) -> u32 {
        self.modem.lock().unwrap().as_ref().map_or(0, |modem| modem.measured_every)
    }
}

async fn answer(mut calls: MessageStream, to: Connection, modem: Arc<Mutex<Option<Modem>>>) {
    while let Some(Ok(call)) = calls.next().await {
        let header = call.header();
        if header.message_type() != Type::MethodCall {
            continue;
        }
        let member = header.member().map(|it| it.as_str().to_owned()).unwrap_or_default();
        let path = header.path().map(|it| it.as_str().to_owned()).unwrap_or_default();
        let refuses = modem.lock().unwrap().as_ref().is_some_and(|modem| modem.refuses);
        let done = match (path.as_str(), member.as_str()) {
            (ROOT, "GetManagedObjects") => {
                let objects = modem.lock().unwrap().as_ref().map(Modem::objects);
                to.reply(&header, &objects.unwrap_or_default()).await
            }
            (PATH, "Setup") if !refuses => {
                let (rate,): (u32,) = call.body().deserialize().unwrap();
                if let Some(modem) = &mut *modem.lock().unwrap() {
                    modem.measured_every = rate;
                }
                to.reply(&header, &()).await
            }
            _ => {
                let name = "org.freedesktop.ModemManager1.Error.Core.Unauthorized";
                to.reply_error(&header, name, &("not authorized",)).await
            }
        };
        done.unwrap();
    }
}

/// A GPS daemon that says what a test has it say.
pub struct Gpsd {
    listener: UnixListener,
    /// Its socket.
    pub place: PathBuf,
}

impl Gpsd {
    /// Listens at a socket in a directory.
    pub fn start(directory: &Path) -> Self {
        let place = directory.join("gpsd.sock");
        let _ = std::fs::remove_file(&place);
        Self { listener: UnixListener::bind(&place).unwrap(), place }
    }

    /// Takes the next caller, greets it and hears what it wants.
    pub fn accept(&self) -> Caller {
        let (stream, _) = self.listener.accept().unwrap();
        let mut caller = Caller(stream);
        caller.say(
            r#"{"class":"VERSION","release":"3.22","rev":"3.22","proto_major":3,"proto_minor":14}"#,
        );
        let mut wanted = String::new();
        BufReader::new(caller.0.try_clone().unwrap()).read_line(&mut wanted).unwrap();
        assert_eq!(wanted, "?WATCH={\"enable\":true,\"json\":true};\n");
        caller.say(r#"{"class":"DEVICES","devices":[{"class":"DEVICE","path":"/dev/ttyACM0"}]}"#);
        caller.say(r#"{"class":"WATCH","enable":true,"json":true}"#);
        caller
    }
}

/// Somebody who listens to a [`Gpsd`].
pub struct Caller(UnixStream);

impl Caller {
    /// Says one object.
    pub fn say(&mut self, object: &str) {
        // Who has gone hears nothing more.
        let _ = self.0.write_all(format!("{object}\r\n").as_bytes());
    }

    /// Says a fix in three dimensions, at a speed in metres a second.
    pub fn fix(&mut self, speed: f64) {
        self.fix_at(48.137154, speed);
    }

    /// The same so many degrees north.
    pub fn fix_at(&mut self, north: f64, speed: f64) {
        self.say(&format!(
            r#"{{"class":"TPV","device":"/dev/ttyACM0","mode":3,"time":"2026-11-22T18:00:00.000Z","ept":0.005,"lat":{north},"lon":11.576124,"altHAE":519.1,"track":77.1,"speed":{speed}}}"#
        ));
    }
}
