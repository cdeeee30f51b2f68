//! The page, as it is in the program.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::http::{Body, reply};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, kind and octets.
const ALL: [(&str, &str, &[u8]); 9] = [
    ("/", HTML, include_bytes!("page/index.html")),
    ("/app.css", CSS, include_bytes!("page/app.css")),
    ("/app.js", SCRIPT, include_bytes!("page/app.js")),
    ("/words.js", SCRIPT, include_bytes!("page/words.js")),
    ("/links.js", SCRIPT, include_bytes!("page/links.js")),
    ("/matrix.js", SCRIPT, include_bytes!("page/matrix.js")),
    ("/chart.js", SCRIPT, include_bytes!("page/chart.js")),
    ("/flows.js", SCRIPT, include_bytes!("page/flows.js")),
    ("/icon.svg", SVG, include_bytes!("page/icon.svg")),
];

/// What a browser may do with the page: nothing that did not come from here, no line of script
/// or style in the page itself, and in no frame.
const POLICY: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// The file at a path.
pub(super) fn asset(path: &str) -> Option<Response<Body>> {
    let (_, kind, octets) = ALL.iter().find(|(known, ..)| *known == path)?;
    Some(reply(StatusCode::OK, kind, *octets))
}

/// Says what a browser may do with an answer.
pub(super) fn guard(mut answer: Response<Body>) -> Response<Body> {
    for (name, value) in POLICY {
        let headers = answer.headers_mut();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_page_needs_another_host_or_a_line_of_script_in_it() {
        let mut octets = 0;
        for (path, kind, content) in ALL {
            octets += content.len();
            let text = std::str::from_utf8(content).unwrap();
            for foreign in ["https://", "//cdn", "@import", "eval(", "innerHTML", "new Function"] {
                assert!(!text.contains(foreign), "{path} has {foreign}");
            }
            // The one address that is a name and nothing that is fetched.
            let urls = text.matches("http://").count();
            let names = text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(urls, names, "{path}");
            if kind == HTML {
                for inline in ["<style", "style=", "onclick", "onload", "<script>"] {
                    assert!(!text.contains(inline), "{path} has {inline}");
                }
            }
        }
        assert!(octets < 200_000, "{octets} octets, before anything is compressed");
    }
}
