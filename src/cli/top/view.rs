//! What a frame shows, from the last answer and from what the keys chose. No terminal is touched.

use super::super::duration::{bytes, seconds};
use super::super::links;
use super::super::screen::{Tone, printable};
use super::Figures;
use super::keys::{Action, Key};
use super::rates::Rate;
use crate::control::documents::{FlowDocument, HealthState, LinkDocument};

/// What the flows are sorted by, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Rate,
    Octets,
    Idle,
    Rule,
    Link,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Rate => Self::Octets,
            Self::Octets => Self::Idle,
            Self::Idle => Self::Rule,
            Self::Rule => Self::Link,
            Self::Link => Self::Rate,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Octets => "octets",
            Self::Idle => "idle",
            Self::Rule => "rule",
            Self::Link => "link",
        }
    }
}

/// What the keys chose.
pub(super) struct View {
    /// The filter in force, as it was typed; empty for none.
    filter: String,
    /// The filter that is being typed.
    typing: Option<String>,
    sort: Sort,
    reversed: bool,
    first: usize,
    paused: bool,
    help: bool,
    color: bool,
    /// Why the figures are old.
    pub(super) trouble: Option<String>,
}

const KEYS: &str = "q quit  s sort  r reverse  / filter  p pause  up/down scroll  h keys";

const HELP: [&str; 11] = [
    "q, Ctrl-C    quit",
    "s            sort the flows by rate, octets, idle time, rule or link",
    "r            the other way round",
    "/            type a filter, such as: dport 22 and via wwan0",
    "Enter        filter by what was typed; an empty one shows all",
    "Escape       leave the filter as it was",
    "p, space     stop the figures, and go on",
    "up, down     scroll the flows; so do k, j and the page keys",
    "h, ?         these keys",
    "",
    "A rate counts inner packets, both directions, since the last answer.",
];

impl View {
    pub(super) fn new(filter: String, color: bool) -> Self {
        Self {
            filter,
            typing: None,
            sort: Sort::Rate,
            reversed: false,
            first: 0,
            paused: false,
            help: false,
            color,
            trouble: None,
        }
    }

    pub(super) fn filter(&self) -> Option<&str> {
        (!self.filter.trim().is_empty()).then_some(self.filter.as_str())
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes in a key.
    pub(super) fn press(&mut self, key: Key) -> Action {
        if let Some(typing) = &mut self.typing {
            match key {
                Key::Letter(letter) => typing.push(letter),
                Key::Backspace => {
                    typing.pop();
                }
                Key::Enter => {
                    self.filter = self.typing.take().unwrap_or_default();
                    self.first = 0;
                    return Action::Ask;
                }
                Key::Escape => self.typing = None,
                Key::End => return Action::Quit,
                Key::Up | Key::Down | Key::PageUp | Key::PageDown => {}
            }
            return Action::Nothing;
        }
        match key {
            Key::Letter('q') | Key::End => return Action::Quit,
            Key::Letter('s') => self.sort = self.sort.next(),
            Key::Letter('r') => self.reversed = !self.reversed,
            Key::Letter('/') => self.typing = Some(self.filter.clone()),
            Key::Letter('h' | '?') => self.help = !self.help,
            Key::Letter('p' | ' ') => {
                self.paused = !self.paused;
                return if self.paused { Action::Nothing } else { Action::Ask };
            }
            Key::Up | Key::Letter('k') => self.first = self.first.saturating_sub(1),
            Key::Down | Key::Letter('j') => self.first += 1,
            Key::PageUp => self.first = self.first.saturating_sub(10),
            Key::PageDown => self.first += 10,
            Key::Escape => self.help = false,
            Key::Letter(_) | Key::Enter | Key::Backspace => {}
        }
        Action::Nothing
    }

    /// The lines of the screen, at most as many as it has and none wider.
    pub(super) fn frame(&mut self, figures: Option<&Figures>, size: (usize, usize)) -> Vec<String> {
        let (width, height) = size;
        let mut frame = Frame { lines: Vec::new(), width, color: self.color };
        match figures {
            None => {
                frame.line(&[("mtun top", Tone::Title), ("  asking the daemon", Tone::Plain)]);
            }
            Some(figures) => self.fill(figures, height, &mut frame),
        }
        if let Some(trouble) = &self.trouble {
            let at = frame.lines.len().min(1);
            frame.insert(at, &[("! ", Tone::Bad), (trouble, Tone::Bad)]);
        }
        frame.lines.truncate(height.saturating_sub(1));
        frame.lines.resize(height.saturating_sub(1), String::new());
        match &self.typing {
            Some(typing) => {
                frame.line(&[("filter: ", Tone::Title), (typing, Tone::Plain), ("_", Tone::Title)]);
            }
            None => frame.line(&[(KEYS, Tone::Title)]),
        }
        frame.lines
    }

    fn fill(&mut self, figures: &Figures, height: usize, frame: &mut Frame) {
        let status = &figures.status;
        let (word, tone) = match status.health.state {
            HealthState::Ok => ("ok", Tone::Good),
            HealthState::Degraded => ("degraded", Tone::Bad),
        };
        let node = format!("  {}  policy {}  ", status.role, status.policy);
        let up = format!("  up {}", seconds(status.uptime_seconds));
        let paused = if self.paused { "  PAUSED" } else { "" };
        frame.line(&[
            ("mtun top", Tone::Title),
            (&node, Tone::Plain),
            (word, tone),
            (&up, Tone::Plain),
            (paused, Tone::Warning),
        ]);
        for reason in status.health.reasons.iter().take(2) {
            frame.line(&[("  ", Tone::Plain), (&reason.to_string(), Tone::Bad)]);
        }
        if self.help {
            frame.blank();
            HELP.iter().for_each(|line| frame.line(&[(line, Tone::Plain)]));
            return;
        }
        links_table(figures, frame);
        // Half of what is left is for the flows.
        let left = height.saturating_sub(frame.lines.len() + 2);
        rules_table(figures, left / 2, frame);
        let left = height.saturating_sub(frame.lines.len() + 1);
        self.flows_table(figures, left, frame);
    }

    fn flows_table(&mut self, figures: &Figures, room: usize, frame: &mut Frame) {
        let mut flows: Vec<(Rate, &FlowDocument)> =
            figures.flows.flows.iter().map(|flow| (figures.rates.flow(flow), flow)).collect();
        let octets = |flow: &FlowDocument| flow.bytes_out + flow.bytes_in;
        let way = |flow: &FlowDocument| flow.outbound.as_ref().map(ToString::to_string);
        flows.sort_by(|(a, one), (b, other)| {
            let most = b.total_cmp(a).then_with(|| octets(other).cmp(&octets(one)));
            match self.sort {
                Sort::Rate => most,
                Sort::Octets => octets(other).cmp(&octets(one)).then(most),
                Sort::Idle => one.idle_seconds.total_cmp(&other.idle_seconds),
                Sort::Rule => one.rule.cmp(&other.rule).then(most),
                Sort::Link => way(one).cmp(&way(other)).then(most),
            }
        });
        if self.reversed {
            flows.reverse();
        }
        frame.blank();
        let count = figures.flows.matched;
        let filter = self.filter().map_or_else(String::new, |filter| format!(" of {filter}"));
        let order = if self.reversed { ", reversed" } else { "" };
        let title = format!("FLOWS  {count}{filter}, by {}{order}", self.sort.word());
        let rows = room.saturating_sub(3);
        self.first = self.first.min(flows.len().saturating_sub(rows));
        let heads = ["RATE", "OCTETS", "RULE", "OUT BY", "IN BY", "IDLE", "FLOW"];
        let mut table = vec![heads.map(|head| (head.to_owned(), Tone::Title)).to_vec()];
        for (rate, flow) in flows.iter().skip(self.first).take(rows) {
            let plain = |text: String| (text, Tone::Plain);
            let path = |path: Option<String>| plain(path.unwrap_or_else(|| "not yet".to_owned()));
            let rule = flow.rule.as_ref().map_or("no rule".to_owned(), ToString::to_string);
            table.push(vec![
                (bits(*rate), if *rate > 0.0 { Tone::Good } else { Tone::Plain }),
                plain(bytes(octets(flow))),
                plain(rule),
                path(way(flow)),
                path(flow.inbound.as_ref().map(ToString::to_string)),
                plain(format!("{:.0} s", flow.idle_seconds)),
                plain(flow.key.to_string()),
            ]);
        }
        frame.line(&[(&title, Tone::Title)]);
        frame.table(&table, &[0, 1, 5]);
        if flows.is_empty() {
            frame.line(&[("no such flows", Tone::Plain)]);
        }
    }
}

fn links_table(figures: &Figures, frame: &mut Frame) {
    frame.blank();
    if figures.status.links.is_empty() {
        frame.line(&[("no links", Tone::Plain)]);
        return;
    }
    let heads = ["LINK", "STATE", "FOR", "UP", "DOWN", "ROUND TRIP", "LOSS", "WHY"];
    let mut table = vec![heads.map(|head| (head.to_owned(), Tone::Title)).to_vec()];
    table.extend(figures.status.links.iter().map(|link| link_row(figures, link)));
    frame.table(&table, &[3, 4, 5, 6]);
}

fn link_row(figures: &Figures, link: &LinkDocument) -> Vec<(String, Tone)> {
    let plain = |text: String| (text, Tone::Plain);
    let [up, down] = figures.rates.link(link.interface.as_str());
    let known = |value: Option<String>| plain(value.unwrap_or_else(|| "not known".to_owned()));
    vec![
        plain(link.interface.to_string()),
        (link.state.to_string(), links::tone(link.state)),
        known(link.since_seconds.map(seconds)),
        plain(bits(up)),
        plain(bits(down)),
        known(link.rtt_ms.map(|ms| format!("{ms:.1} ms"))),
        known(link.loss_ratio.map(|loss| format!("{:.1} %", loss * 100.0))),
        plain(link.reason.clone().unwrap_or_else(|| "well".to_owned())),
    ]
}

/// The rule x link matrix: what each rule sends and gets by each link at this moment.
fn rules_table(figures: &Figures, room: usize, frame: &mut Frame) {
    if figures.rules.is_empty() || figures.status.links.is_empty() || room < 3 {
        return;
    }
    let links: Vec<&str> = figures.status.links.iter().map(|it| it.interface.as_str()).collect();
    let mut heads = vec![("RULE".to_owned(), Tone::Title)];
    heads.extend(
        figures
            .status
            .links
            .iter()
            .map(|link| (link.interface.to_string(), links::tone(link.state))),
    );
    heads.push(("ALL LINKS".to_owned(), Tone::Title));
    heads.push(("SAYS".to_owned(), Tone::Title));
    let mut table = vec![heads];
    for rule in figures.rules.iter().take(room - 2) {
        let rates: Vec<Rate> = links
            .iter()
            .map(|link| figures.rates.cell(rule.home.as_str(), rule.name.as_str(), link))
            .collect();
        let cell = |rate: &Rate| match *rate > 0.0 {
            true => (bits(*rate), Tone::Good),
            false => (".".to_owned(), Tone::Plain),
        };
        let mut row = vec![(rule.name.to_string(), Tone::Plain)];
        row.extend(rates.iter().map(cell));
        row.push((bits(rates.iter().sum()), Tone::Plain));
        row.push((rule.says.clone(), Tone::Plain));
        table.push(row);
    }
    frame.blank();
    let numbers: Vec<usize> = (1..=links.len() + 1).collect();
    frame.table(&table, &numbers);
}

/// Octets a second, in bits as links are sold.
fn bits(rate: Rate) -> String {
    let units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let (mut value, mut unit) = (rate * 8.0, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 { 0 } else { 1 };
    format!("{value:.digits$} {}", units[unit])
}

/// Lines that grow, each cut at the width.
struct Frame {
    lines: Vec<String>,
    width: usize,
    color: bool,
}

impl Frame {
    fn blank(&mut self) {
        self.lines.push(String::new());
    }

    fn line(&mut self, parts: &[(&str, Tone)]) {
        let at = self.lines.len();
        self.insert(at, parts);
    }

    fn insert(&mut self, at: usize, parts: &[(&str, Tone)]) {
        let mut room = self.width;
        let mut line = String::new();
        for (text, tone) in parts {
            let text: String = printable(text).chars().take(room).collect();
            room -= text.chars().count();
            match tone.code() {
                code if self.color && !code.is_empty() => {
                    line.push_str(&format!("{code}{text}\x1b[0m"));
                }
                _ => line.push_str(&text),
            }
        }
        self.lines.insert(at, line);
    }

    /// Rows, the first of them heads; the columns in `right` end in one line.
    fn table(&mut self, rows: &[Vec<(String, Tone)>], right: &[usize]) {
        let columns = rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| rows.iter().map(|row| row[column].0.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in rows {
            let mut cells: Vec<(String, Tone)> = Vec::new();
            for (column, (text, tone)) in row.iter().enumerate() {
                let gap = " ".repeat(widths[column] - text.chars().count());
                let between = if column + 1 < columns { "  " } else { "" };
                if right.contains(&column) {
                    cells.push((gap, Tone::Plain));
                    cells.push((text.clone(), *tone));
                } else {
                    cells.push((text.clone(), *tone));
                    let gap = if column + 1 < columns { gap } else { String::new() };
                    cells.push((gap, Tone::Plain));
                }
                cells.push((between.to_owned(), Tone::Plain));
            }
            let parts: Vec<(&str, Tone)> =
                cells.iter().map(|(text, tone)| (text.as_str(), *tone)).collect();
            self.line(&parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_typed_and_taken() {
        let mut view = View::new(String::new(), false);
        for key in [Key::Letter('/'), Key::Letter('q'), Key::Letter('s'), Key::Backspace] {
            assert_eq!(view.press(key), Action::Nothing, "{key:?}");
        }
        assert_eq!(view.filter(), None, "it is not in force yet");
        assert_eq!(view.press(Key::Enter), Action::Ask);
        assert_eq!(view.filter(), Some("q"));
        view.press(Key::Letter('/'));
        view.press(Key::Letter('x'));
        view.press(Key::Escape);
        assert_eq!(view.filter(), Some("q"), "what was typed is forgotten");
        assert_eq!(view.press(Key::Letter('q')), Action::Quit);
    }

    #[test]
    fn nothing_is_wider_than_the_screen() {
        let mut view = View::new(String::new(), false);
        view.trouble = Some("no daemon answers ".repeat(20));
        for size in [(80, 24), (20, 5), (1, 1), (0, 0), (200, 60)] {
            let frame = view.frame(None, size);
            assert!(frame.len() <= size.1.max(1), "{size:?}");
            assert!(frame.iter().all(|line| line.chars().count() <= size.0), "{size:?}");
        }
    }

    #[test]
    fn rates_are_read_in_bits() {
        let cases = [(0.0, "0 bit/s"), (124.9, "999 bit/s"), (125.0, "1.0 kbit/s")];
        for (rate, want) in cases {
            assert_eq!(bits(rate), want);
        }
        assert_eq!(bits(12_500_000.0), "100 Mbit/s");
    }
}
