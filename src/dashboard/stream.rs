//! Server-sent events for one who watches.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::recorder::Watching;
use crate::http::{Body, reply};

/// A line that says nothing goes out after this time: a proxy sees that the connection lives, and
/// the daemon that its reader does.
const QUIET: Duration = Duration::from_secs(5);

/// An answer that does not end.
pub(super) fn stream(watching: Watching, place: OwnedSemaphorePermit) -> Response<Body> {
    let frames = futures_util::stream::unfold((watching, place), |(mut watching, place)| async {
        let octets = match timeout(QUIET, watching.frames.recv()).await {
            Ok(Ok(frame)) => frame,
            // Everything is told anew with the next frames; events are in the history.
            Ok(Err(RecvError::Lagged(_))) => Bytes::from_static(b"event: missed\ndata: {}\n\n"),
            Ok(Err(RecvError::Closed)) => return None,
            Err(_) => Bytes::from_static(b": \n\n"),
        };
        Some((Ok::<_, Infallible>(Frame::data(octets)), (watching, place)))
    });
    let mut answer = reply(StatusCode::OK, "text/event-stream", Bytes::new());
    *answer.body_mut() = StreamBody::new(frames).boxed_unsync();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}
