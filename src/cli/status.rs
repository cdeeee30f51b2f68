//! `mtun status`: health and the preferred link first.

use super::daemon::{Daemon, unexpected};
use super::duration::seconds;
use super::screen::{Cell, Page, Screen, Tone};
use super::{Answer, Exit, bindings, downlink, steer};
use crate::control::documents::{
    DroppedDocument, HealthState, HomeLinkDocument, StatusDocument, StoreDocument, TunnelDocument,
};
use crate::control::{ControlError, Request, Response};
use crate::tunnel_interface::Backend;

pub(super) fn run(daemon: &Daemon, screen: Screen) -> Result<Answer, ControlError> {
    let response = daemon.ask(Request::Status {})?;
    let Response::Status(document) = &response else { return Err(unexpected()) };
    let mut page = Page::new(screen);
    health(document, &mut page);
    if !document.homes.is_empty() || document.correspondent.is_none() {
        homes(document, &mut page);
        downlink::homes(&document.homes, &mut page);
    }
    if !document.links.is_empty() {
        links(document, &mut page);
    }
    if !document.mobiles.is_empty() {
        bindings::mobiles(&document.mobiles, &mut page);
    } else if !document.homes.is_empty() || document.correspondent.is_none() {
        bindings::own(&document.bindings, &mut page);
    }
    if let Some(store) = &document.store {
        page.sentence(Tone::Plain, "store", &store_line(store));
    }
    bindings::routes(&document.routes, &mut page);
    bindings::correspondent(document.correspondent.as_ref(), &mut page);
    for dropped in &document.dropped {
        let DroppedDocument { home, reason, messages } = dropped;
        let home = home.as_ref().map_or_else(String::new, |home| format!(" of {home}"));
        page.hanging("", &format!("dropped on arrival{home}: {messages} messages, {reason}"));
    }
    if !document.overrides.is_empty() {
        steer::overrides(&document.overrides, &mut page);
    }
    let exit = match document.health.state {
        HealthState::Ok => Exit::Ok,
        HealthState::Degraded => Exit::Degraded,
    };
    Ok(Answer::new(&response, page).exit(exit))
}

fn health(document: &StatusDocument, page: &mut Page) {
    let (tone, words) = match document.health.state {
        HealthState::Ok => (Tone::Good, "ok"),
        HealthState::Degraded => (Tone::Bad, "degraded"),
    };
    let mut facts = vec![("health", Cell::toned(words, tone))];
    facts.extend(document.health.reasons.iter().map(|reason| ("", Cell::new(reason))));
    let preferred = document
        .bindings
        .iter()
        .filter(|binding| binding.usable)
        .min_by_key(|binding| (binding.priority, binding.bid))
        .and_then(|binding| binding.link.as_ref());
    if !document.links.is_empty() {
        let none = Cell::toned("none usable", Tone::Bad);
        facts.push(("preferred link", preferred.map_or(none, Cell::new)));
    }
    facts.push(("role", Cell::new(document.role)));
    facts.push(("policy", Cell::new(&document.policy)));
    let (version, uptime) = (&document.daemon_version, seconds(document.uptime_seconds));
    facts.push(("daemon", Cell::new(format!("{version}, running for {uptime}"))));
    page.facts(&facts);
}

fn homes(document: &StatusDocument, page: &mut Page) {
    let heads = ["HOME", "ADDRESS", "AGENT", "TUNNEL", "MTU", "GENERATION", "SECURITY"];
    let rows: Vec<_> = document
        .homes
        .iter()
        .map(|home| {
            let address = home.home_address.map(|address| address.to_string());
            let address = address.or_else(|| home.served.map(|prefix| prefix.to_string()));
            let tunnel = format!("{} (index {})", home.tunnel.name, home.tunnel.ifindex);
            let security = home
                .security
                .as_ref()
                .map_or_else(|| Cell::toned("none: unprotected", Tone::Bad), Cell::new);
            vec![
                Cell::new(&home.name),
                Cell::or(address, "not known"),
                Cell::new(home.agent),
                Cell::new(tunnel),
                Cell::new(home.tunnel.mtu),
                Cell::new(home.generation),
                security,
            ]
        })
        .collect();
    page.table(&heads, &rows, "no home networks");
    for tunnel in document.homes.iter().map(|it| &it.tunnel) {
        let TunnelDocument { name, backend, no_fast_path, no_shortcut, .. } = tunnel;
        if *backend == Backend::Kmod {
            page.hanging("", &format!("kmod-mtun carries decided flows of {name}"));
        }
        if let Some(reason) = no_fast_path {
            let text = format!("the daemon carries every packet of {name} itself: {reason}");
            page.hanging("", &text);
        }
        if let Some(reason) = no_shortcut {
            let text = format!("no forwarded packet takes the shortcut past {name}: {reason}");
            page.hanging("", &text);
        }
    }
    for (home, link) in
        document.homes.iter().filter_map(|it| Some((&it.name, it.home_link.as_ref()?)))
    {
        let HomeLinkDocument { interface, defended, searching, present } = link;
        let state = match present {
            true => format!("answers for {defended} addresses and looks for {searching}"),
            false => "no such interface".to_owned(),
        };
        page.hanging("", &format!("home link of {home}: {interface}, {state}"));
    }
}

/// What a home agent wrote down, in a line.
fn store_line(store: &StoreDocument) -> String {
    let StoreDocument { file, commits, records, largest_batch, failures, waiting, .. } = store;
    let mut line = format!(
        "{}: {records} records in {commits} commits, {largest_batch} at most at a time",
        file.display()
    );
    if *waiting > 0 {
        line.push_str(&format!(", {waiting} wait"));
    }
    if *failures > 0 {
        let last = store.last_failure.as_deref().unwrap_or("nobody knows why");
        let (now, unanswered) =
            (if store.failing.is_some() { "fails" } else { "well" }, store.unanswered);
        line.push_str(&format!(
            "; {failures} commits failed, {unanswered} answers dropped, the last because {last}; {now} now"
        ));
    }
    line
}

fn links(document: &StatusDocument, page: &mut Page) {
    let heads = ["LINK", "STATE", "BID", "PRIORITY", "CARE-OF ADDRESS", "ROUTER", "REASON"];
    let rows: Vec<_> = document
        .links
        .iter()
        .map(|link| {
            let tone = super::links::tone(link.state);
            let state = match link.since_seconds {
                Some(since) => format!("{} for {}", link.state, seconds(since)),
                None => link.state.to_string(),
            };
            vec![
                Cell::new(&link.interface),
                Cell::toned(state, tone),
                Cell::or(link.bid, "none"),
                Cell::new(link.priority),
                match link.home_link {
                    true => Cell::new("home link"),
                    false => Cell::or(link.care_of, "none"),
                },
                Cell::or(link.router, "none"),
                Cell::or(link.reason.as_ref(), "none"),
            ]
        })
        .collect();
    page.table(&heads, &rows, "no links");
}
