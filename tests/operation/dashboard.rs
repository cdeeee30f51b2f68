//! The dashboard's server: whom it refuses (T-27 of the threat model), and what it answers.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use mtun::control::documents::{Event, EventDocument};
use mtun::control::{ControlRequest, Listeners, Request};
use mtun::dashboard::{Dashboard, Settings};
use mtun::http::{HttpError, Place};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use super::documents::status;
use super::owner::{self, Scratch};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A dashboard whose owner answers from fixed documents; ends when dropped.
struct Served {
    address: Option<SocketAddr>,
    listeners: Listeners,
    tasks: [tokio::task::JoinHandle<()>; 2],
    _scratch: Scratch,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

async fn serve(token: bool, unix: bool) -> (Served, Place) {
    let scratch = Scratch::new();
    let token = token.then(|| {
        let file = scratch.join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        file
    });
    let place = match unix {
        true => Place::Unix(scratch.join("page.sock")),
        false => Place::Loopback("127.0.0.1:0".parse().unwrap()),
    };
    let settings = Settings { place: place.clone(), hosts: vec!["bus.example".to_owned()], token };
    let dashboard = Dashboard::bind(&settings).await.unwrap();
    let (requests, mut inbox) = mpsc::channel(8);
    let owner = tokio::spawn(async move {
        while let Some(ControlRequest { request, reply, .. }) = inbox.recv().await {
            let _ = reply.send(owner::answer(&request, &status()));
        }
    });
    let listeners = Listeners::new(64, Instant::now());
    let address = dashboard.address();
    let server = tokio::spawn(dashboard.serve(requests, listeners.clone()));
    (Served { address, listeners, tasks: [owner, server], _scratch: scratch }, place)
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    String::from_utf8_lossy(&reply).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn status_of(reply: &str) -> u16 {
    reply.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// The document of an answer.
fn body(reply: &str) -> Value {
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {reply}"))
}

#[tokio::test]
async fn who_is_refused() {
    let (served, _) = serve(true, false).await;
    let address = served.address.unwrap();
    let head = |line: &str, headers: &str| format!("{line}\r\n{headers}Connection: close\r\n\r\n");
    let ours = "Host: localhost\r\n";
    let json = "Content-Type: application/json\r\n";
    let key = format!("Authorization: Bearer {TOKEN}\r\n");
    let steer = r#"{"filter":"dport 22","via":"wwan0","seconds":60}"#;
    let long = "x".repeat(4000);
    let cases: &[(&str, String, u16)] = &[
        ("the page", head("GET / HTTP/1.1", ours), 200),
        ("its head", head("HEAD / HTTP/1.1", ours), 200),
        ("by address", head("GET / HTTP/1.1", &format!("Host: {address}\r\n")), 200),
        ("by the other loopback", head("GET / HTTP/1.1", "Host: [::1]:9470\r\n"), 200),
        ("by a name that a proxy has", head("GET / HTTP/1.1", "Host: bus.example\r\n"), 200),
        ("old HTTP with a host", head("GET / HTTP/1.0", ours), 200),
        ("a foreign name", head("GET / HTTP/1.1", "Host: evil.example\r\n"), 403),
        (
            "a name that begins well",
            head("GET / HTTP/1.1", "Host: localhost.evil.example\r\n"),
            403,
        ),
        ("a name with a user", head("GET / HTTP/1.1", "Host: localhost@evil.example\r\n"), 403),
        ("an address elsewhere", head("GET / HTTP/1.1", "Host: 192.0.2.1\r\n"), 403),
        ("a literal elsewhere", head("GET / HTTP/1.1", "Host: [2001:db8::1]:80\r\n"), 403),
        ("no host", head("GET / HTTP/1.1", ""), 400),
        ("an empty host", head("GET / HTTP/1.1", "Host: \r\n"), 403),
        ("two hosts", head("GET / HTTP/1.1", "Host: localhost\r\nHost: evil.example\r\n"), 400),
        (
            "the same host twice",
            head("GET / HTTP/1.1", "Host: localhost\r\nHost: localhost\r\n"),
            400,
        ),
        ("an absolute target", head("GET http://localhost/ HTTP/1.1", ours), 400),
        ("a foreign absolute target", head("GET http://evil.example/ HTTP/1.1", ours), 400),
        ("a tunnel", head("CONNECT localhost:22 HTTP/1.1", ours), 400),
        ("everything", head("OPTIONS * HTTP/1.1", ours), 400),
        (
            "our origin",
            head("GET /api/status HTTP/1.1", &format!("{ours}Origin: http://localhost\r\n")),
            200,
        ),
        (
            "a foreign origin",
            head("GET /api/status HTTP/1.1", &format!("{ours}Origin: http://evil.example\r\n")),
            403,
        ),
        (
            "no origin at all",
            head("GET /api/status HTTP/1.1", &format!("{ours}Origin: null\r\n")),
            403,
        ),
        (
            "across sites",
            head("GET / HTTP/1.1", &format!("{ours}Sec-Fetch-Site: cross-site\r\n")),
            403,
        ),
        ("no such page", head("GET /index.html HTTP/1.1", ours), 404),
        ("out of the root", head("GET /../etc/passwd HTTP/1.1", ours), 404),
        ("a field that is none", head("GET /api/flows?all=1 HTTP/1.1", ours), 400),
        ("a filter that is none", head("GET /api/flows?filter=dprt+22 HTTP/1.1", ours), 400),
        ("a long target", head(&format!("GET /api/flows?filter={long} HTTP/1.1"), ours), 414),
        (
            "a head without end",
            head("GET / HTTP/1.1", &format!("{ours}X: {}\r\n", "x".repeat(20_000))),
            431,
        ),
        ("a folded header", head("GET / HTTP/1.1", "Host: localhost\r\n folded\r\n"), 400),
        (
            "a question with a body",
            format!(
                "{}{}",
                head("GET / HTTP/1.1", &format!("{ours}Content-Length: 4\r\n")),
                "body"
            ),
            400,
        ),
        ("another method", head("DELETE /api/steer HTTP/1.1", ours), 405),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
        ("another HTTP", head("GET / HTTP/3.7", ours), 400),
        ("a change", post("/api/steer", &format!("{json}{key}"), steer), 200),
        ("a change without the token", post("/api/steer", json, steer), 401),
        (
            "a change with another token",
            post(
                "/api/steer",
                &format!("{json}Authorization: Bearer {}\r\n", TOKEN.replace('0', "1")),
                steer,
            ),
            401,
        ),
        ("a change that a form can send", post("/api/steer", &key, steer), 415),
        (
            "a change from elsewhere",
            post("/api/steer", &format!("{json}{key}Origin: http://evil.example\r\n"), steer),
            403,
        ),
        ("a change that is none", post("/api/steer", &format!("{json}{key}"), "{\"via\":1}"), 400),
        ("a change of what is not there", post("/api/policy", &format!("{json}{key}"), "{}"), 404),
        (
            "a change by a link that is not there",
            post("/api/steer", &format!("{json}{key}"), &steer.replace("wwan0", "eth9")),
            404,
        ),
        (
            "a large change",
            post("/api/steer", &format!("{json}{key}"), &format!("\"{}\"", "x".repeat(5000))),
            413,
        ),
    ];
    for (what, request, want) in cases {
        let reply = exchange(address, request).await;
        // Who is refused in the middle of a long head may not live to read why.
        let cut_off = *want == 431 && reply.is_empty();
        assert!(cut_off || status_of(&reply) == *want, "{what}, {want}: {reply}");
        if *want == 403 {
            assert!(!reply.contains("wlan0"), "nothing leaks with it: {reply}");
        }
    }
    drop(served);

    let (served, _) = serve(false, false).await;
    let reply =
        exchange(served.address.unwrap(), &post("/api/steer", &format!("{json}{key}"), steer))
            .await;
    assert_eq!(status_of(&reply), 403, "without a token nobody changes anything: {reply}");
    let about = exchange(served.address.unwrap(), &get("/api/about")).await;
    assert_eq!(body(&about)["may_change"], false);
}

#[tokio::test]
async fn what_a_browser_may_do_with_it() {
    let (served, _) = serve(false, false).await;
    for path in ["/", "/app.js", "/api/status", "/nothing"] {
        let reply = exchange(served.address.unwrap(), &get(path)).await.to_lowercase();
        let policy =
            reply.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for header in [
            "x-frame-options: deny",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
        ] {
            assert!(reply.contains(header), "{path}: {header}");
        }
        assert!(!reply.contains("access-control-allow"), "{path}");
    }
}

#[tokio::test]
async fn the_documents_are_those_of_the_command_line() {
    let (served, _) = serve(false, false).await;
    let address = served.address.unwrap();
    let shown = body(&exchange(address, &get("/api/status")).await);
    let mut known = serde_json::to_value(status()).unwrap();
    known["kind"] = "status".into();
    assert_eq!(shown["result"], known);
    for (path, kind) in [
        ("/api/policy", "policy"),
        ("/api/flows?filter=dport+22&limit=1", "flows"),
        ("/api/mobiles?search=bus", "mobiles"),
        ("/api/explain?flow=tcp+2001:db8::1+-%3E+2001:db8::2&given=wlan0%3Ddown", "explain"),
    ] {
        let answer = body(&exchange(address, &get(path)).await);
        assert_eq!(
            (&answer["ok"], &answer["result"]["kind"]),
            (&true.into(), &kind.into()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn who_watches_is_told() {
    let (served, _) = serve(false, false).await;
    let mut stream = TcpStream::connect(served.address.unwrap()).await.unwrap();
    stream
        .write_all(get("/api/events").replace("Connection: close\r\n", "").as_bytes())
        .await
        .unwrap();
    let mut heard = String::new();
    let mut chunk = [0; 4096];
    let mut told = false;
    while !["event: status", "event: live", "event: event"].iter().all(|kind| heard.contains(kind))
    {
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&chunk[..count]));
        if heard.contains("event: live") && !told {
            told = true;
            let down = Event::LinkDown { link: "wlan0".into(), reason: "carrier-lost".to_owned() };
            served.listeners.tell(EventDocument::now(down));
        }
    }
    assert!(heard.contains("\"reason\":\"carrier-lost\""), "{heard}");
    // And who comes later finds it in the history.
    let history = body(&exchange(served.address.unwrap(), &get("/api/history")).await);
    assert_eq!(history["events"][0]["event"], "link-down");
    assert!(!history["fine"].as_array().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn half_a_head_is_not_waited_for() {
    let (served, _) = serve(false, false).await;
    let address = served.address.unwrap();
    // Half a head, and then nothing: sent away after its time.
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let mut reply = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), slow.read_to_end(&mut reply)).await;
    assert!(ended.is_ok(), "a slow head holds its place for ever");
    drop(served);
}

#[tokio::test]
async fn places_are_few_and_are_given_back() {
    let (served, _) = serve(false, false).await;
    let address = served.address.unwrap();
    let mut held = Vec::new();
    for _ in 0..128 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    // Without a place a connection is closed unheard.
    assert_eq!(exchange(address, &get("/")).await, "");
    drop(held);
    let asked = async { while status_of(&exchange(address, &get("/")).await) != 200 {} };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("served again");
}

#[tokio::test]
async fn over_a_unix_socket_too() {
    let (served, place) = serve(false, true).await;
    let Place::Unix(path) = &place else { panic!("{place:?}") };
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(get("/api/status").as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert_eq!(status_of(&reply), 200, "{reply}");
    drop(served);
}

#[tokio::test]
async fn where_it_may_not_listen_and_what_is_no_token() {
    for (text, why) in [
        ("0.0.0.0:80", "reached from elsewhere"),
        ("[::]:80", "reached from elsewhere"),
        ("192.0.2.1:80", "reached from elsewhere"),
        ("unix:page.sock", "absolute"),
        ("localhost", "address with a port"),
    ] {
        let error = text.parse::<Place>().unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    let place = Place::Loopback("192.0.2.1:0".parse().unwrap());
    let settings = Settings { place, hosts: Vec::new(), token: None };
    assert!(matches!(Dashboard::bind(&settings).await, Err(HttpError::NotLoopback(_))));

    let scratch = Scratch::new();
    let file = scratch.join("token");
    for (text, mode, why) in [
        (TOKEN, 0o644, "lets others read"),
        ("short", 0o600, "at least 16"),
        ("two words of sixteen", 0o600, "at least 16"),
    ] {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let place = Place::Loopback("127.0.0.1:0".parse().unwrap());
        let settings = Settings { place, hosts: Vec::new(), token: Some(file.clone()) };
        let error = Dashboard::bind(&settings).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }
    assert_eq!(Request::Overview {}.command(), "overview");
}
