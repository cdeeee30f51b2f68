//! The GPS daemon: JSON objects, one a line, on a TCP or Unix socket.
//!
//! ```text
//!   gpsd ── {"class":"VERSION","proto_major":3,…} ──►
//!        ◄── ?WATCH={"enable":true,"json":true}; ──
//!        ── {"class":"TPV","mode":3,"lat":48.1,"lon":11.5,"speed":13.9,…} ──►   as often as it likes
//! ```
//!
//! A `TPV` of `mode` 2 or 3 is a fix, any other says that there is none; objects of other classes
//! are of no interest here.

use std::time::Duration;

use mtun_policy::{GpsdPlace, Position, Reading};
use serde::Deserialize;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::{AGAIN, PATIENCE, SourceError, Told, Whose};

/// What gpsd writes in a line at most; its own limit is 10,240.
const LINE: u64 = 16 << 10;
/// A receiver may tell ten times a second; steering looks at it four times.
const SPARE: Duration = Duration::from_millis(250);
/// The version of the protocol.
const PROTOCOL: i64 = 3;
const WATCH: &[u8] = b"?WATCH={\"enable\":true,\"json\":true};\n";
/// Faster is no vehicle, in hundredths of a metre a second.
const FASTEST: f64 = 50_000.0;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What of an object tells what it is.
#[derive(Deserialize)]
struct Object {
    class: String,
}

#[derive(Deserialize)]
struct Version {
    proto_major: i64,
    #[serde(default)]
    release: String,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

/// Time, position and velocity.
#[derive(Deserialize)]
struct Fix {
    mode: i64,
    lat: Option<f64>,
    lon: Option<f64>,
    /// In metres a second.
    speed: Option<f64>,
}

impl Fix {
    fn reading(&self) -> Reading {
        if self.mode < 2 {
            return Reading::default();
        }
        let speed = self.speed.filter(|speed| speed.is_finite() && *speed >= 0.0);
        let position = self.lat.zip(self.lon);
        Reading {
            speed: speed.map(|speed| (speed * 100.0).round().min(FASTEST) as u32),
            position: position.and_then(|(lat, lon)| Position::from_degrees(lat, lon)),
            ..Reading::default()
        }
    }
}

/// Listens to gpsd for as long as anybody wants to know; one that says nothing for `silence` is
/// called anew.
pub(super) async fn watch(place: GpsdPlace, silence: Duration, told: mpsc::Sender<Told>) {
    loop {
        let error = match connect(&place).await {
            Ok(stream) => match listen(stream, &place, silence, &told).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        let said = Told { whose: Whose::Vehicle, said: Err(error), caution: None };
        if told.send(said).await.is_err() {
            return;
        }
        sleep(AGAIN).await;
    }
}

async fn connect(place: &GpsdPlace) -> Result<Box<dyn Stream>, SourceError> {
    let opened = async {
        Ok::<Box<dyn Stream>, std::io::Error>(match place {
            GpsdPlace::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            GpsdPlace::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    let slow = |_| SourceError::Slow { place: name(place), after: PATIENCE };
    let opened = timeout(PATIENCE, opened).await.map_err(slow)?;
    opened.map_err(|error| SourceError::unreachable(name(place), error))
}

fn name(place: &GpsdPlace) -> String {
    format!("gpsd at {place}")
}

/// Ends with an error, or when nobody wants to know any more.
async fn listen(
    stream: Box<dyn Stream>,
    place: &GpsdPlace,
    silence: Duration,
    told: &mpsc::Sender<Told>,
) -> Result<(), SourceError> {
    let lost = |error: std::io::Error| SourceError::unreachable(name(place), error);
    let (reading, mut writing) = tokio::io::split(stream);
    let mut reading = BufReader::new(reading);
    let mut last: Option<(Instant, Reading)> = None;
    writing.write_all(WATCH).await.map_err(lost)?;
    loop {
        let line = timeout(silence, line(&mut reading)).await;
        let line = line.map_err(|_| SourceError::Slow { place: name(place), after: silence })?;
        let line = line.map_err(lost)?;
        let said = match understand(&line) {
            Ok(None) => continue,
            Ok(Some(reading)) => {
                let knows = |it: &Reading| (it.speed.is_some(), it.position.is_some());
                let spared = |(at, before): &(Instant, Reading)| {
                    at.elapsed() < SPARE && knows(before) == knows(&reading)
                };
                if last.as_ref().is_some_and(spared) {
                    continue;
                }
                last = Some((Instant::now(), reading));
                Ok(reading)
            }
            Err(fault) => Err(SourceError::unreadable(name(place), fault)),
        };
        if told.send(Told { whose: Whose::Vehicle, said, caution: None }).await.is_err() {
            return Ok(());
        }
    }
}

async fn line(reading: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reading.take(LINE).read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok(line),
        Some(_) if line.len() as u64 == LINE => {
            let fault = format!("a line of more than {LINE} octets; is this gpsd?");
            Err(std::io::Error::new(std::io::ErrorKind::InvalidData, fault))
        }
        _ => {
            let fault = "it hung up";
            Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, fault))
        }
    }
}

/// What an object says of the vehicle; `None` for nothing.
fn understand(line: &[u8]) -> Result<Option<Reading>, String> {
    fn read<'l, T: Deserialize<'l>>(line: &'l [u8], what: &str) -> Result<T, String> {
        serde_json::from_slice(line).map_err(|error| {
            let begins: String = String::from_utf8_lossy(line).trim().chars().take(40).collect();
            format!("{what} cannot be read ({error}): {begins}")
        })
    }
    let object: Object = read(line, "an object")?;
    match object.class.as_str() {
        "TPV" => Ok(Some(read::<Fix>(line, "a fix")?.reading())),
        "VERSION" => match read::<Version>(line, "its version")? {
            Version { proto_major: PROTOCOL, .. } => Ok(None),
            Version { proto_major, release } => Err(format!(
                "release {release} speaks version {proto_major} of its protocol, and this program version {PROTOCOL}"
            )),
        },
        "ERROR" => Err(format!("it says: {}", read::<Complaint>(line, "its error")?.message)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixes_are_read_and_everything_else_is_passed_over_or_named() {
        let fix = br#"{"class":"TPV","device":"/dev/ttyS0","mode":3,"time":"2026-11-22T18:00:00.000Z","lat":48.137154,"lon":11.576124,"speed":13.894,"track":10.3}"#;
        let reading = understand(fix).unwrap().unwrap();
        assert_eq!(reading.speed, Some(1389));
        assert_eq!(reading.position, Position::from_degrees(48.137_154, 11.576_124));
        let none = br#"{"class":"TPV","mode":1,"lat":48.1,"lon":11.5,"speed":3.0}"#;
        assert_eq!(understand(none), Ok(Some(Reading::default())), "no fix, whatever stands there");
        let odd = br#"{"class":"TPV","mode":2,"lat":148.1,"lon":11.5,"speed":-3.0}"#;
        assert_eq!(understand(odd), Ok(Some(Reading::default())), "no such place and speed");
        for other in [
            &br#"{"class":"SKY","mode":"x","satellites":[]}"#[..],
            br#"{"class":"VERSION","release":"3.22","rev":"3.22","proto_major":3,"proto_minor":14}"#,
            br#"{"class":"DEVICES","devices":[]}"#,
        ] {
            assert_eq!(understand(other), Ok(None));
        }
        let cases: [(&[u8], &str); 5] = [
            (
                b"SSH-2.0-OpenSSH_9.2\n",
                "an object cannot be read (expected value at line 1 column 1): SSH-2.0-OpenSSH_9.2",
            ),
            (
                br#"{"mode":3}"#,
                r#"an object cannot be read (missing field `class` at line 1 column 10): {"mode":3}"#,
            ),
            (
                br#"{"class":"TPV","mode":"fast"}"#,
                r#"a fix cannot be read (invalid type: string "fast", expected i64 at line 1 column 28): {"class":"TPV","mode":"fast"}"#,
            ),
            (
                br#"{"class":"ERROR","message":"Unrecognized request"}"#,
                "it says: Unrecognized request",
            ),
            (
                br#"{"class":"VERSION","release":"9","proto_major":9}"#,
                "release 9 speaks version 9 of its protocol, and this program version 3",
            ),
        ];
        for (line, fault) in cases {
            assert_eq!(understand(line), Err(fault.to_owned()));
        }
    }
}
