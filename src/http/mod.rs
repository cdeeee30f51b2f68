//! HTTP for this machine: figures for Prometheus, and the dashboard.
//!
//! The protocol is hyper's; what is decided here is who is served (`gate`) and what one client
//! may cost: a place among `CONNECTIONS`, a head of bounded length in bounded time, and no
//! patience with those who do not take their answer.

pub(crate) mod gate;
mod listener;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(crate) use listener::Listener;
pub use listener::Place;

/// Connections at a time.
const CONNECTIONS: usize = 128;

/// The longest request head in octets.
const HEAD_MAX: usize = 16 << 10;

/// How long a head may take to arrive, an idle connection may last, and a client may take nothing
/// of its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address can be reached from elsewhere.
    #[error("{0} is not a loopback address; this is for this machine only, use 127.0.0.1")]
    NotLoopback(SocketAddr),
    /// The system said no.
    #[error("cannot listen for HTTP on {place}: {error}")]
    System {
        /// The address or path.
        place: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file with the token cannot be used.
    #[error("the token file {}: {why}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

/// Serves until this future is dropped; `answer` gets every request.
pub(crate) async fn serve<F, A>(listener: Listener, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    // Without a place the connection is closed: the client tries again.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let answer = answer.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let answer = answer(request);
                            async move { Ok::<_, Infallible>(answer.await) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(PATIENCE)
                            .max_buf_size(HEAD_MAX)
                            .serve_connection(TokioIo::new(stream), service);
                        // What a client does wrong ends its connection and concerns nobody else.
                        let _ = connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "http: cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// An answer of these octets; what nobody is to keep or to guess the kind of.
pub(crate) fn reply(
    status: StatusCode,
    kind: &'static str,
    octets: impl Into<Bytes>,
) -> Response<Body> {
    let mut reply = Response::new(Full::new(octets.into()).boxed_unsync());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// An answer of one line.
pub(crate) fn line(status: StatusCode, text: &str) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", format!("{text}\n"))
}
