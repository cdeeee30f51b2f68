//! `mtun bindings`.

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::downlink;
use super::duration::seconds;
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::{
    BindingDocument, BindingPhase, BoundMobileDocument, CorrespondentDocument, MobileDocument,
    RouteDocument, RouteState,
};
use crate::control::{ControlError, Request, Response};

pub(super) fn run(daemon: &Daemon, screen: Screen) -> Result<Answer, ControlError> {
    let response = daemon.ask(Request::Bindings {})?;
    let Response::Bindings(document) = &response else { return Err(unexpected()) };
    let mut page = Page::new(screen);
    let corresponds = document.correspondent.is_some() && document.bindings.is_empty();
    if document.mobiles.is_empty() && corresponds {
        // Nothing but a correspondent.
    } else if document.mobiles.is_empty() {
        own(&document.bindings, &mut page);
        downlink::told(&document.flow_bindings, &mut page);
    } else {
        mobiles(&document.mobiles, &mut page);
        downlink::of_mobiles(&document.mobiles, &mut page);
    }
    routes(&document.routes, &mut page);
    correspondent(document.correspondent.as_ref(), &mut page);
    Ok(Answer::new(&response, page))
}

/// A mobile's own bindings.
pub(super) fn own(bindings: &[BindingDocument], page: &mut Page) {
    let heads =
        ["HOME", "BID", "LINK", "CARE-OF ADDRESS", "PRIORITY", "PHASE", "EXPIRES", "STATUS"];
    let rows: Vec<_> = bindings
        .iter()
        .map(|binding| {
            vec![
                Cell::new(&binding.home),
                Cell::or(binding.bid, "without"),
                Cell::or(binding.link.as_ref(), "any"),
                Cell::or(binding.care_of, "none"),
                Cell::new(binding.priority),
                phase(binding),
                Cell::or(binding.expires_seconds.map(seconds), "not yet"),
                Cell::or(binding.status.as_ref(), "no answer yet"),
            ]
        })
        .collect();
    page.table(&heads, &rows, "no bindings");
}

/// The bindings that a home agent holds.
pub(super) fn mobiles(mobiles: &[MobileDocument], page: &mut Page) {
    let heads = ["HOME", "MOBILE", "PREFIXES", "BID", "CARE-OF ADDRESS", "PRIORITY", "EXPIRES"];
    let mut rows = Vec::new();
    for mobile in mobiles {
        let name = match &mobile.name {
            Some(name) => format!("{name} {}", mobile.home_address),
            None => mobile.home_address.to_string(),
        };
        let prefixes: Vec<_> = mobile.prefixes.iter().map(ToString::to_string).collect();
        let prefixes = if prefixes.is_empty() { "none".to_owned() } else { prefixes.join(" ") };
        let start = |cells: [Cell; 4]| {
            let mut row = vec![Cell::new(&mobile.home), Cell::new(&name), Cell::new(&prefixes)];
            row.extend(cells);
            row
        };
        if mobile.bindings.is_empty() {
            let silent = Cell::toned("not registered", Tone::Warning);
            rows.push(start([silent, Cell::new("none"), Cell::new("none"), Cell::new("none")]));
        }
        rows.extend(mobile.bindings.iter().map(|binding| {
            start([
                Cell::or(binding.bid, "without"),
                Cell::or(binding.care_of, "none"),
                Cell::new(binding.priority),
                Cell::or(binding.expires_seconds.map(seconds), "not known"),
            ])
        }));
    }
    page.table(&heads, &rows, "no mobiles are allowed here");
}

/// A mobile's care-of addresses at correspondents; nothing where there are none.
pub(super) fn routes(routes: &[RouteDocument], page: &mut Page) {
    if routes.is_empty() {
        return;
    }
    let heads =
        ["CORRESPONDENT", "HOME", "BID", "LINK", "ROUTE", "CARE-OF ADDRESS", "EXPIRES", "WHY"];
    let row = |route: &RouteDocument| {
        let tone = match route.state {
            RouteState::Straight => Tone::Good,
            RouteState::Trying | RouteState::Ending => Tone::Plain,
            RouteState::Resting => Tone::Warning,
        };
        let status = route.status.as_ref().filter(|status| status.code >= 128);
        let why = match (&route.reason, status) {
            (Some(reason), Some(status)) => format!("{reason}, status {status}"),
            (Some(reason), None) => reason.clone(),
            (None, Some(status)) => format!("status {status}"),
            (None, None) => "none".to_owned(),
        };
        vec![
            Cell::new(route.correspondent),
            Cell::new(&route.home),
            Cell::or(route.bid, "any"),
            Cell::or(route.link.as_ref(), "any"),
            Cell::toned(route.state, tone),
            Cell::or(route.care_of, "none"),
            Cell::or(route.expires_seconds.map(seconds), "not bound"),
            Cell::new(why),
        ]
    };
    page.table(&heads, &routes.iter().map(row).collect::<Vec<_>>(), "no routes");
}

/// What mobiles bound at this node as their correspondent; nothing where it is none.
pub(super) fn correspondent(document: Option<&CorrespondentDocument>, page: &mut Page) {
    let Some(document) = document else { return };
    let heads = ["CORRESPONDENT", "MOBILE", "BID", "CARE-OF ADDRESS", "EXPIRES"];
    let row = |mobile: &BoundMobileDocument| {
        vec![
            Cell::new(mobile.correspondent),
            Cell::new(mobile.home_address),
            Cell::or(mobile.bid, "without"),
            Cell::new(mobile.care_of),
            Cell::new(seconds(mobile.expires_seconds)),
        ]
    };
    let rows: Vec<_> = document.mobiles.iter().map(row).collect();
    page.table(&heads, &rows, "no mobile is bound at this correspondent");
}

fn phase(binding: &BindingDocument) -> Cell {
    let tone = match binding.phase {
        BindingPhase::Registered | BindingPhase::Refreshing | BindingPhase::AtHome => Tone::Good,
        BindingPhase::Registering | BindingPhase::Deregistering => Tone::Warning,
        BindingPhase::Refused => Tone::Bad,
        BindingPhase::Idle => Tone::Plain,
    };
    match binding.retries {
        0 | 1 => Cell::toned(binding.phase, tone),
        sent => Cell::toned(format!("{}, {sent} sent", binding.phase), tone),
    }
}
