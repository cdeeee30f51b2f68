//! `GET /metrics`, and nothing else, on a loopback address.
//!
//! Just as much HTTP/1.1 as a scraper needs: one request a connection, a head of bounded length
//! in bounded time, no body. The Host header must name this machine's loopback, so that a web
//! page somewhere cannot have a browser read the figures under a name of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Metrics;
use crate::control::{ControlRequest, Peer, Request, Response};

/// Connections at a time.
const CONNECTIONS: usize = 16;

/// The longest request head in octets.
const HEAD_MAX: usize = 8192;

/// How long a request may take to arrive, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ScrapesError {
    /// The address can be reached from elsewhere.
    #[error("{0} is not a loopback address; the metrics are for this machine only, use 127.0.0.1")]
    NotLoopback(SocketAddr),
    /// The system said no.
    #[error("cannot listen for scrapes on {address}: {error}")]
    System {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// The listener for scrapes.
#[derive(Debug)]
pub struct Scrapes {
    listener: TcpListener,
}

impl Scrapes {
    /// Listens on a loopback address.
    pub async fn bind(address: SocketAddr) -> Result<Self, ScrapesError> {
        if !address.ip().is_loopback() {
            return Err(ScrapesError::NotLoopback(address));
        }
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| ScrapesError::System { address, error })?;
        Ok(Self { listener })
    }

    /// Where it listens; tells the port if the system chose it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers scrapes until this future is dropped. Each asks the owner loop for the figures of
    /// the moment with [`Request::Metrics`].
    pub async fn serve(self, metrics: Arc<Metrics>, requests: mpsc::Sender<ControlRequest>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut scrapes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Without a place the connection is closed: the scraper tries again.
                        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                            let (metrics, requests) = (Arc::clone(&metrics), requests.clone());
                            scrapes.spawn(async move {
                                answer(stream, &metrics, &requests).await;
                                drop(place);
                            });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "metrics: cannot accept a scrape");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = scrapes.join_next() => {}
            }
        }
    }
}

/// An answer's status line and body.
struct Reply {
    status: &'static str,
    body: String,
}

impl Reply {
    fn refuse(status: &'static str) -> Self {
        Self { status, body: format!("{status}\n") }
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics, requests: &mpsc::Sender<ControlRequest>) {
    let mut head = Vec::new();
    let reply = match timeout(PATIENCE, read_head(&mut stream, &mut head)).await {
        Err(_) => Reply::refuse("408 Request Timeout"),
        Ok(Err(HeadError::TooLarge)) => Reply::refuse("431 Request Header Fields Too Large"),
        Ok(Err(HeadError::Closed)) => return,
        Ok(Ok(())) => match check(&head) {
            Err(status) => Reply::refuse(status),
            Ok(()) => scrape(metrics, requests).await,
        },
    };
    let Reply { status, body } = reply;
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n{body}"
    );
    // A scraper that does not take its answer has only itself to blame.
    let _ = timeout(PATIENCE, async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

async fn scrape(metrics: &Metrics, requests: &mpsc::Sender<ControlRequest>) -> Reply {
    let (reply, figures) = oneshot::channel();
    let left = watch::Sender::new(()).subscribe();
    let (request, peer) = (Request::Metrics {}, Peer::daemon());
    let request = ControlRequest { request, peer, reply, left };
    let asked = async {
        requests.send(request).await.ok()?;
        figures.await.ok()?.ok()
    };
    match timeout(PATIENCE, asked).await {
        Ok(Some(Response::Metrics(input))) => {
            metrics.update(&input);
            Reply { status: "200 OK", body: metrics.render() }
        }
        Ok(_) | Err(_) => Reply::refuse("503 Service Unavailable"),
    }
}

enum HeadError {
    Closed,
    TooLarge,
}

/// Reads up to the empty line that ends a request's head.
async fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> Result<(), HeadError> {
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return Err(HeadError::Closed),
            Ok(count) => head.extend_from_slice(&chunk[..count]),
        }
        if let Some(end) = head.windows(4).position(|octets| octets == b"\r\n\r\n") {
            head.truncate(end);
            return Ok(());
        }
        if head.len() > HEAD_MAX {
            return Err(HeadError::TooLarge);
        }
    }
}

/// Whether a request head is a scrape of ours; the status that refuses it if not.
fn check(head: &[u8]) -> Result<(), &'static str> {
    const BAD: &str = "400 Bad Request";
    let head = std::str::from_utf8(head).map_err(|_| BAD)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(BAD);
    }
    let mut hosts = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(BAD)?;
        if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace()) {
            return Err(BAD);
        }
        if name.eq_ignore_ascii_case("host") {
            hosts.push(value.trim());
        }
    }
    match hosts.as_slice() {
        [host] if is_loopback(host) => {}
        [_] => return Err("403 Forbidden"),
        _ => return Err(BAD),
    }
    // An absolute URI has a host of its own, which need not be the one just checked.
    if !target.starts_with('/') {
        return Err(BAD);
    }
    match (method, target.split('?').next()) {
        ("GET", Some("/metrics")) => Ok(()),
        (_, Some("/metrics")) => Err("405 Method Not Allowed"),
        _ => Err("404 Not Found"),
    }
}

/// Whether a Host header names this machine's loopback, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address: Option<IpAddr> = match literal {
        Some(literal) => literal.parse().ok().filter(IpAddr::is_ipv6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_scrape_from_this_machine() {
        let ok = Ok(());
        let cases: &[(&str, Result<(), &str>)] = &[
            ("GET /metrics HTTP/1.1\r\nHost: localhost:9547", ok),
            ("GET /metrics HTTP/1.1\r\nhost: LOCALHOST", ok),
            ("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9547\r\nAccept: */*", ok),
            ("GET /metrics HTTP/1.0\r\nHost: [::1]:9547", ok),
            ("GET /metrics HTTP/1.1\r\nHost: [::1]", ok),
            ("GET /metrics?x=1 HTTP/1.1\r\nHost: 127.9.9.9", ok),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost: localhost.evil.example", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost: 192.0.2.1", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost: ::1", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost: [127.0.0.1]", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost: localhost:", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost: localhost:80x", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1\r\nHost:", Err("403 Forbidden")),
            ("GET /metrics HTTP/1.1", Err("400 Bad Request")),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil", Err("400 Bad Request")),
            ("GET /metrics HTTP/1.1\r\nHost : localhost", Err("400 Bad Request")),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n folded", Err("400 Bad Request")),
            ("GET http://localhost/metrics HTTP/1.1\r\nHost: localhost", Err("400 Bad Request")),
            ("GET * HTTP/1.1\r\nHost: localhost", Err("400 Bad Request")),
            ("GET  /metrics HTTP/1.1\r\nHost: localhost", Err("400 Bad Request")),
            ("GET /metrics HTTP/2\r\nHost: localhost", Err("400 Bad Request")),
            ("GET /metrics\r\nHost: localhost", Err("400 Bad Request")),
            ("", Err("400 Bad Request")),
            ("GET / HTTP/1.1\r\nHost: localhost", Err("404 Not Found")),
            ("GET /metrics/ HTTP/1.1\r\nHost: localhost", Err("404 Not Found")),
            ("GET /../metrics HTTP/1.1\r\nHost: localhost", Err("404 Not Found")),
            ("POST /metrics HTTP/1.1\r\nHost: localhost", Err("405 Method Not Allowed")),
            ("get /metrics HTTP/1.1\r\nHost: localhost", Err("405 Method Not Allowed")),
        ];
        for (head, want) in cases {
            assert_eq!(check(head.as_bytes()), *want, "{head:?}");
        }
        assert_eq!(check(b"GET /metrics HTTP/1.1\r\nHost: \xff"), Err("400 Bad Request"));
    }
}
