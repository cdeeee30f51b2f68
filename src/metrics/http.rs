//! `GET /metrics`, and nothing else, on a loopback address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request as HttpRequest, Response as HttpResponse, StatusCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::Metrics;
use crate::control::{ControlRequest, Peer, Request, Response};
use crate::http::gate::Gate;
use crate::http::{self, Body, HttpError, Listener, Place, line, reply};

/// How long the owner loop may take to say its figures.
const PATIENCE: Duration = Duration::from_secs(5);

/// The listener for scrapes.
#[derive(Debug)]
pub struct Scrapes {
    listener: Listener,
}

impl Scrapes {
    /// Listens on a loopback address.
    pub async fn bind(address: SocketAddr) -> Result<Self, HttpError> {
        Ok(Self { listener: Listener::bind(&Place::Loopback(address)).await? })
    }

    /// Where it listens; tells the port if the system chose it.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Answers scrapes until this future is dropped. Each asks the owner loop for the figures of
    /// the moment with [`Request::Metrics`].
    pub async fn serve(self, metrics: Arc<Metrics>, requests: mpsc::Sender<ControlRequest>) {
        let gate = Gate::default();
        http::serve(self.listener, move |request| {
            let (gate, metrics, requests) = (gate.clone(), metrics.clone(), requests.clone());
            async move { answer(&request, &gate, &metrics, &requests).await }
        })
        .await;
    }
}

async fn answer(
    request: &HttpRequest<Incoming>,
    gate: &Gate,
    metrics: &Metrics,
    requests: &mpsc::Sender<ControlRequest>,
) -> HttpResponse<Body> {
    if let Err(refusal) = gate.judge(request.method(), request.uri(), request.headers()) {
        return line(refusal.status(), refusal.words());
    }
    if request.uri().path() != "/metrics" {
        return line(StatusCode::NOT_FOUND, "the figures are at /metrics");
    }
    let (figures, answer) = oneshot::channel();
    let left = watch::Sender::new(()).subscribe();
    let request =
        ControlRequest { request: Request::Metrics {}, peer: Peer::daemon(), reply: figures, left };
    let asked = async {
        requests.send(request).await.ok()?;
        answer.await.ok()?.ok()
    };
    match timeout(PATIENCE, asked).await {
        Ok(Some(Response::Metrics(input))) => {
            metrics.update(&input);
            reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
        }
        Ok(_) | Err(_) => line(StatusCode::SERVICE_UNAVAILABLE, "the daemon does not answer"),
    }
}
