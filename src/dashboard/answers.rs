//! Which request gets which answer.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request as HttpRequest, Response as HttpResponse, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::assets::{asset, guard};
use super::recorder::Recorder;
use super::stream::stream;
use crate::control::protocol::{ReplyLine, VERSION};
use crate::control::{ControlError, ErrorCode, Request};
use crate::http::gate::{Gate, Refusal, Wish};
use crate::http::{Body, line, reply};

const JSON: &str = "application/json";

/// The largest change in octets.
const BODY_MAX: usize = 4096;

/// How long its octets may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Flows and mobiles that one answer lists at most.
const LISTED: usize = 500;

/// Everything an answer needs.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) gate: Gate,
    pub(super) recorder: Recorder,
    pub(super) watchers: Arc<Semaphore>,
}

/// What a path stands for.
enum Page {
    /// A file of the program.
    Asset(HttpResponse<Body>),
    /// A document of the daemon.
    Document(Request),
    /// What is kept of the last day.
    History,
    /// What this dashboard may do.
    About,
    /// Events as they happen.
    Stream,
}

/// What this dashboard may do, for the page.
#[derive(Debug, Serialize)]
struct About {
    version: u32,
    /// Whether somebody with the token may change something.
    may_change: bool,
}

/// Changes that can be asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Steer {
    filter: String,
    via: String,
    seconds: u64,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Undo {
    id: u16,
}

impl Site {
    /// The answer to a request.
    pub(super) async fn answer(&self, request: HttpRequest<Incoming>) -> HttpResponse<Body> {
        let (head, body) = request.into_parts();
        let answer = match self.gate.judge(&head.method, &head.uri, &head.headers) {
            Err(refusal) => refused(refusal),
            Ok(Wish::Look) => self.look(&head).await,
            Ok(Wish::Change) => self.change(&head, body).await,
        };
        guard(answer)
    }

    async fn look(&self, head: &Parts) -> HttpResponse<Body> {
        let page = match page(head.uri.path(), head.uri.query().unwrap_or_default()) {
            Some(Ok(page)) => page,
            Some(Err(error)) => return document(Err(error)),
            None => return line(StatusCode::NOT_FOUND, "there is no such page"),
        };
        match page {
            Page::Asset(answer) => answer,
            // A head of what never ends is an end.
            Page::Stream if head.method == Method::HEAD => {
                reply(StatusCode::OK, "text/event-stream", "")
            }
            Page::Stream => match Arc::clone(&self.watchers).try_acquire_owned() {
                Ok(place) => stream(self.recorder.watch(), place),
                Err(_) => line(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "all places for those who watch are taken",
                ),
            },
            Page::History => json(&self.recorder.history()),
            Page::About => json(&About { version: VERSION, may_change: self.gate.token.is_some() }),
            Page::Document(request) => document(self.recorder.ask(request).await),
        }
    }

    async fn change(&self, head: &Parts, body: Incoming) -> HttpResponse<Body> {
        let collected = timeout(PATIENCE, Limited::new(body, BODY_MAX).collect()).await;
        let octets = match collected {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(_)) => {
                return line(StatusCode::PAYLOAD_TOO_LARGE, "a change is at most 4096 octets");
            }
            Err(_) => {
                return line(StatusCode::REQUEST_TIMEOUT, "the change did not arrive in time");
            }
        };
        let request = match head.uri.path() {
            "/api/steer" => read::<Steer>(&octets).map(|Steer { filter, via, seconds, reason }| {
                Request::Steer { filter, via, seconds, reason }
            }),
            "/api/steer/undo" => read::<Undo>(&octets).map(|Undo { id }| Request::SteerUndo { id }),
            _ => return line(StatusCode::NOT_FOUND, "there is no such change"),
        };
        match request {
            Ok(request) => {
                tracing::info!(command = request.command(), "dashboard: request with the token");
                document(self.recorder.ask(request).await)
            }
            Err(error) => document(Err(error)),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(octets: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(octets)
        .map_err(|error| usage(format!("the change cannot be understood: {error}")))
}

fn usage(message: impl Into<String>) -> ControlError {
    ControlError::new(ErrorCode::Usage, message)
}

fn refused(refusal: Refusal) -> HttpResponse<Body> {
    line(refusal.status(), refusal.words())
}

fn json(document: &impl Serialize) -> HttpResponse<Body> {
    let text = serde_json::to_string(document).expect("documents have text keys only");
    reply(StatusCode::OK, JSON, text)
}

/// The document of the control socket, with a status that says the same.
fn document(answer: Result<crate::control::Response, ControlError>) -> HttpResponse<Body> {
    let status = match &answer {
        Ok(_) => StatusCode::OK,
        Err(error) => match error.code {
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Internal | ErrorCode::NoDaemon | ErrorCode::Busy | ErrorCode::TooSlow => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorCode::Conflict | ErrorCode::Refused => StatusCode::CONFLICT,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        },
    };
    let text =
        serde_json::to_string(&ReplyLine::new(0, answer)).expect("documents have text keys only");
    reply(status, JSON, text)
}

/// What a path stands for; `None` for nothing.
fn page(path: &str, query: &str) -> Option<Result<Page, ControlError>> {
    if let Some(answer) = asset(path) {
        return Some(Ok(Page::Asset(answer)));
    }
    let known: &[&str] = match path {
        "/api/flows" => &["filter", "limit"],
        "/api/explain" => &["flow", "given"],
        "/api/mobiles" => &["search", "limit"],
        _ => &[],
    };
    let fields = match fields(query, known) {
        Ok(fields) => fields,
        Err(error) => return Some(Err(error)),
    };
    let field = |name: &str| {
        let value = fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        value.filter(|value| !value.is_empty())
    };
    let limit = || match field("limit").map(|limit| limit.parse::<usize>()) {
        None => Ok(LISTED),
        Some(Ok(limit)) if limit <= LISTED => Ok(limit),
        Some(_) => Err(usage(format!("limit is a number up to {LISTED}"))),
    };
    let request = match path {
        "/api/status" => Request::Overview {},
        "/api/policy" => Request::PolicyRules {},
        "/api/flows" => match limit() {
            Ok(limit) => Request::Flows { filter: field("filter"), limit: Some(limit) },
            Err(error) => return Some(Err(error)),
        },
        "/api/mobiles" => match limit() {
            Ok(limit) => Request::Mobiles { search: field("search"), limit: Some(limit) },
            Err(error) => return Some(Err(error)),
        },
        "/api/explain" => match field("flow") {
            Some(flow) => {
                let given = field("given").unwrap_or_default();
                let given = given.split_whitespace().map(str::to_owned).collect();
                Request::Explain { flow, given }
            }
            None => return Some(Err(usage("flow says which packets are meant"))),
        },
        "/api/history" => return Some(Ok(Page::History)),
        "/api/about" => return Some(Ok(Page::About)),
        "/api/events" => return Some(Ok(Page::Stream)),
        _ => return None,
    };
    Some(Ok(Page::Document(request)))
}

/// Names and values of a query; one that is not known, or twice there, is a fault.
fn fields(query: &str, known: &[&str]) -> Result<Vec<(String, String)>, ControlError> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        if !known.contains(&name) || fields.iter().any(|(before, _)| before == name) {
            return Err(usage("a field of the query is not known, or is there twice"));
        }
        let value = unquoted(value).ok_or_else(|| usage("the query is not well-formed"))?;
        fields.push((name.to_owned(), value));
    }
    Ok(fields)
}

/// The text that stands in a query, `+` for a space.
fn unquoted(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (char::from(rest.next()?), char::from(rest.next()?));
                u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?
            }
            other => other,
        });
    }
    let text = String::from_utf8(octets).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_query() {
        let cases: &[(&str, Option<&str>)] = &[
            ("dport+22", Some("dport 22")),
            ("dport%2022", Some("dport 22")),
            ("%e2%86%92", Some("→")),
            ("100%25", Some("100%")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%ff", None),
            ("%00", None),
            ("a%0Ab", None),
        ];
        for (text, want) in cases {
            assert_eq!(unquoted(text).as_deref(), *want, "{text}");
        }
    }

    #[test]
    fn paths_and_what_they_ask() {
        let asked = |path: &str, query: &str| match page(path, query) {
            Some(Ok(Page::Document(request))) => Some(request),
            _ => None,
        };
        let flows = Request::Flows { filter: Some("dport 22".to_owned()), limit: Some(5) };
        assert_eq!(asked("/api/flows", "filter=dport+22&limit=5"), Some(flows));
        let all = Request::Flows { filter: None, limit: Some(LISTED) };
        assert_eq!(asked("/api/flows", "filter="), Some(all));
        for (path, query) in [
            ("/api/flows", "limit=501"),
            ("/api/flows", "limit=-1"),
            ("/api/flows", "filter=a&filter=b"),
            ("/api/flows", "filters=a"),
            ("/api/status", "all=1"),
            ("/api/explain", ""),
            ("/api/explain", "flow=%"),
        ] {
            assert!(matches!(page(path, query), Some(Err(_))), "{path}?{query}");
        }
        for path in ["/api", "/api/", "/index.html", "/../etc/passwd", "//", "/api/steer"] {
            assert!(page(path, "").is_none(), "{path}");
        }
    }
}
