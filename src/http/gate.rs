//! Who may ask what over HTTP, judged from the head of a request alone.
//!
//! A browser on this machine is everybody's: any page somewhere can have it send requests here.
//! So a request must name this machine as the host it asks (a page that had its own name lead here
//! cannot), must not come from another origin, and changes something only with the token in a
//! header that no form can set (threat T-27 of the threat model: DNS rebinding, CSRF).

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, StatusCode, Uri};

/// The longest target of a request in octets: a filter or a flow fits many times.
const TARGET_MAX: usize = 2048;

/// What a request is allowed after its head was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To look.
    Look,
    /// To change something; it has the token.
    Change,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No Host header, or several, or one that is no text.
    Host,
    /// The host is somebody else's name.
    ForeignHost,
    /// A page of another origin asks.
    ForeignOrigin,
    /// The target names a host of its own, or nothing.
    Target,
    /// The target is too long.
    LongTarget,
    /// The method is neither GET, HEAD nor, where there is a token, POST.
    Method,
    /// Nothing can be changed here: no token was set.
    ReadOnly,
    /// A change without the token.
    Token,
    /// A change that is no JSON: what forms can send without asking.
    MediaType,
    /// A question with a body.
    Body,
}

impl Refusal {
    /// The status that says so.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Target | Self::Body => StatusCode::BAD_REQUEST,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
            Self::ForeignHost | Self::ForeignOrigin | Self::ReadOnly => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// The same for people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Host => "the request names no host, or several",
            Self::ForeignHost => "that is not the name of this machine's loopback",
            Self::ForeignOrigin => "a page of another origin may not ask here",
            Self::Target => "the target is no path",
            Self::LongTarget => "the target is too long",
            Self::Method => "only GET and HEAD, and POST to change something",
            Self::ReadOnly => "nothing can be changed here: the daemon was started without a token",
            Self::Token => "a change needs the token",
            Self::MediaType => "a change is application/json",
            Self::Body => "a question has no body",
        }
    }
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    /// Further names under which a proxy passes requests on.
    pub hosts: Vec<String>,
    /// What a change needs; `None` for changes that nobody may make.
    pub token: Option<Token>,
    /// Whether anything is there that takes POST.
    pub posts: bool,
}

impl Gate {
    /// Judges the head of a request.
    pub(crate) fn judge(
        &self,
        method: &Method,
        target: &Uri,
        headers: &HeaderMap,
    ) -> Result<Wish, Refusal> {
        let host = self.host(headers)?;
        if let Some(origin) = one(headers, ORIGIN.as_str()).map_err(|_| Refusal::ForeignOrigin)? {
            let ours = ["http://", "https://"].iter().any(|scheme| {
                origin.strip_prefix(scheme).is_some_and(|name| name.eq_ignore_ascii_case(host))
            });
            if !ours {
                return Err(Refusal::ForeignOrigin);
            }
        }
        // What a browser says of its own accord; other clients say nothing.
        if let Ok(Some(site)) = one(headers, "sec-fetch-site")
            && !matches!(site, "same-origin" | "none")
        {
            return Err(Refusal::ForeignOrigin);
        }
        // An absolute target has a host of its own, which need not be the one just judged.
        if target.scheme().is_some()
            || target.authority().is_some()
            || !target.path().starts_with('/')
        {
            return Err(Refusal::Target);
        }
        if target.path_and_query().is_some_and(|it| it.as_str().len() > TARGET_MAX) {
            return Err(Refusal::LongTarget);
        }
        let body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        match *method {
            Method::GET | Method::HEAD if body => Err(Refusal::Body),
            Method::GET | Method::HEAD => Ok(Wish::Look),
            Method::POST if self.posts => self.change(headers),
            _ => Err(Refusal::Method),
        }
    }

    fn change(&self, headers: &HeaderMap) -> Result<Wish, Refusal> {
        let token = self.token.as_ref().ok_or(Refusal::ReadOnly)?;
        let given = one(headers, AUTHORIZATION.as_str()).map_err(|_| Refusal::Token)?;
        let given = given.and_then(|given| given.strip_prefix("Bearer "));
        if !given.is_some_and(|given| token.is(given)) {
            return Err(Refusal::Token);
        }
        let kind = one(headers, CONTENT_TYPE.as_str()).map_err(|_| Refusal::MediaType)?;
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        match kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
            true => Ok(Wish::Change),
            false => Err(Refusal::MediaType),
        }
    }

    fn host<'h>(&self, headers: &'h HeaderMap) -> Result<&'h str, Refusal> {
        let host = one(headers, HOST.as_str()).map_err(|_| Refusal::Host)?.ok_or(Refusal::Host)?;
        let name = without_port(host);
        let known = self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name));
        if known || is_loopback(name) { Ok(host) } else { Err(Refusal::ForeignHost) }
    }
}

/// The only value of a header; an error if there are several or it is no text.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(drop),
        (Some(_), Some(_)) => Err(()),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a host, without its port, is this machine's loopback.
fn is_loopback(name: &str) -> bool {
    let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address: Option<IpAddr> = match literal {
        Some(literal) => literal.parse().ok().filter(IpAddr::is_ipv6),
        None => name.parse().ok().filter(IpAddr::is_ipv4),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|a| a.is_loopback())
}

/// What a change needs.
#[derive(Clone)]
pub(crate) struct Token(zeroize::Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The shortest token: 16 characters from `openssl rand -hex` are 64 bits.
    pub(crate) const SHORTEST: usize = 16;

    /// A token; `None` if it is too short or no word that a header can carry.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let word = text.bytes().all(|octet| octet.is_ascii_graphic());
        (word && text.len() >= Self::SHORTEST)
            .then(|| Self(zeroize::Zeroizing::new(text.to_owned())))
    }

    /// Compared in the same time wherever it differs.
    fn is(&self, given: &str) -> bool {
        let (ours, given) = (self.0.as_bytes(), given.as_bytes());
        let differing = ours.iter().zip(given).fold(0, |all, (one, other)| all | (one ^ other));
        ours.len() == given.len() && differing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(
        gate: &Gate,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Wish, Refusal> {
        let mut request = hyper::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        gate.judge(request.method(), request.uri(), request.headers())
    }

    #[test]
    fn who_is_let_in() {
        const HOST: (&str, &str) = ("host", "[::1]:9470");
        const JSON: (&str, &str) = ("content-type", "application/json");
        const TOKEN: (&str, &str) = ("authorization", "Bearer 0123456789abcdef");
        let closed = Gate { posts: true, ..Gate::default() };
        let open = Gate {
            hosts: vec!["bus.example".to_owned()],
            token: Token::new("0123456789abcdef"),
            posts: true,
        };
        type Case<'c> =
            (&'c Gate, &'c str, &'c str, &'c [(&'c str, &'c str)], Result<Wish, Refusal>);
        let look = Ok(Wish::Look);
        let long = format!("/api/flows?filter={}", "x".repeat(TARGET_MAX));
        let cases: &[Case<'_>] = &[
            (&closed, "GET", "/", &[HOST], look),
            (&closed, "HEAD", "/", &[HOST], look),
            (&closed, "GET", "/", &[("host", "localhost")], look),
            (&closed, "GET", "/", &[("host", "LOCALHOST:9470")], look),
            (&closed, "GET", "/", &[("host", "127.0.0.53")], look),
            (&closed, "GET", "/", &[], Err(Refusal::Host)),
            (&closed, "GET", "/", &[HOST, ("host", "evil.example")], Err(Refusal::Host)),
            (&closed, "GET", "/", &[HOST, HOST], Err(Refusal::Host)),
            (&closed, "GET", "/", &[("host", "evil.example")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "localhost.evil.example")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "localhost@evil.example")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "127.0.0.1.evil.example")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "192.0.2.1:9470")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "[2001:db8::1]")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "::1")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[("host", "bus.example")], Err(Refusal::ForeignHost)),
            (&open, "GET", "/", &[("host", "bus.example:443")], look),
            (&open, "GET", "/", &[("host", "other.example")], Err(Refusal::ForeignHost)),
            (&closed, "GET", "/", &[HOST, ("origin", "http://[::1]:9470")], look),
            (
                &closed,
                "GET",
                "/",
                &[HOST, ("origin", "http://evil.example")],
                Err(Refusal::ForeignOrigin),
            ),
            (
                &closed,
                "GET",
                "/",
                &[HOST, ("origin", "http://[::1]:80")],
                Err(Refusal::ForeignOrigin),
            ),
            (&closed, "GET", "/", &[HOST, ("origin", "null")], Err(Refusal::ForeignOrigin)),
            (
                &closed,
                "GET",
                "/",
                &[HOST, ("sec-fetch-site", "cross-site")],
                Err(Refusal::ForeignOrigin),
            ),
            (&closed, "GET", "/", &[HOST, ("sec-fetch-site", "none")], look),
            (&closed, "GET", "http://localhost/", &[HOST], Err(Refusal::Target)),
            (&closed, "OPTIONS", "*", &[HOST], Err(Refusal::Target)),
            (&closed, "GET", &long, &[HOST], Err(Refusal::LongTarget)),
            (&closed, "GET", "/", &[HOST, ("content-length", "5")], Err(Refusal::Body)),
            (&closed, "GET", "/", &[HOST, ("transfer-encoding", "chunked")], Err(Refusal::Body)),
            (&closed, "PUT", "/", &[HOST], Err(Refusal::Method)),
            (&closed, "DELETE", "/", &[HOST], Err(Refusal::Method)),
            (&Gate::default(), "POST", "/api/steer", &[HOST, JSON, TOKEN], Err(Refusal::Method)),
            (&closed, "POST", "/api/steer", &[HOST, JSON, TOKEN], Err(Refusal::ReadOnly)),
            (&open, "POST", "/api/steer", &[HOST, JSON], Err(Refusal::Token)),
            (
                &open,
                "POST",
                "/api/steer",
                &[HOST, JSON, ("authorization", "Bearer 0123456789abcdeF")],
                Err(Refusal::Token),
            ),
            (
                &open,
                "POST",
                "/api/steer",
                &[HOST, JSON, ("authorization", "Bearer 0123456789abcdef0")],
                Err(Refusal::Token),
            ),
            (
                &open,
                "POST",
                "/api/steer",
                &[HOST, JSON, ("authorization", "Basic 0123456789abcdef")],
                Err(Refusal::Token),
            ),
            (&open, "POST", "/api/steer", &[HOST, TOKEN], Err(Refusal::MediaType)),
            (
                &open,
                "POST",
                "/api/steer",
                &[HOST, TOKEN, ("content-type", "text/plain")],
                Err(Refusal::MediaType),
            ),
            (
                &open,
                "POST",
                "/api/steer",
                &[HOST, TOKEN, JSON, ("origin", "http://evil.example")],
                Err(Refusal::ForeignOrigin),
            ),
            (&open, "POST", "/api/steer", &[HOST, TOKEN, JSON], Ok(Wish::Change)),
        ];
        for (gate, method, target, headers, want) in cases {
            assert_eq!(
                judge(gate, method, target, headers),
                *want,
                "{method} {target} {headers:?}"
            );
        }
    }

    #[test]
    fn a_token_is_long_and_a_word() {
        for bad in ["", "short", "0123456789abcde", "0123456789 abcdef", "0123456789abcdef\n"] {
            assert!(Token::new(bad).is_none(), "{bad:?}");
        }
        assert_eq!(format!("{:?}", Token::new("0123456789abcdef").unwrap()), "Token");
    }
}
