//! The door in front of the KDL parser.
//!
//! The parser backtracks and recurses, and recovers from errors by guessing; text that was made
//! to hurt can cost it the stack or hours. So every text passes here first: one pass, no
//! recursion, no backtracking. It accepts the part of KDL v2 that a policy needs, names every
//! departure from it in our own words, and hands on a text of the same length in which comments
//! and whatever `/-` takes out are blank. What it hands on is well-formed, so that the parser
//! never has to guess, and places in it are places in the file.
//!
//! Left out of KDL v2 on purpose: type annotations, multi-line strings, unusual spaces and line
//! breaks, and (as in KDL itself) characters that are not seen. Blocks nest to [`DEEPEST`].

mod word;

use crate::diagnostic::Code;
use crate::source::{Sink, Span};

use word::unseen;

/// Largest text that is read, in octets.
pub(crate) const LARGEST: usize = 1 << 20;

/// Deepest nesting of blocks and of block comments; the language itself needs four.
pub(crate) const DEEPEST: usize = 8;

/// Longest line, in octets; a diagnostic has to show where on it something stands.
const LONGEST_LINE: usize = 16 << 10;

/// Most nodes of one text; a policy of ten thousand rules has about forty thousand.
const MOST_NODES: usize = 1 << 16;

/// Checks the form of a text; the copy without comments if the parser may see it.
///
/// One fault is named per line, because what follows a fault on a line is a guess.
pub(crate) fn admit(source: u32, text: &str, sink: &mut Sink) -> Option<String> {
    if text.len() > LARGEST {
        sink.error(
            Span::new(source, 0, 1),
            Code::Limit,
            format!("the file has {} octets; at most {LARGEST} are read", text.len()),
            "split it with include, or keep long prefix lists out of it",
        );
        return None;
    }
    let long = text.split('\n').scan(0, |at, line| {
        let begin = *at;
        *at += line.len() + 1;
        Some((begin, line.len()))
    });
    if let Some((begin, length)) = long.into_iter().find(|(_, length)| *length > LONGEST_LINE) {
        sink.error(
            Span::new(source, begin, 1),
            Code::Limit,
            format!("the line has {length} octets; at most {LONGEST_LINE} are read"),
            "break it; lists may go on in a further node of the same name",
        );
        return None;
    }
    let mut guard = Guard {
        source,
        text,
        at: 0,
        blank: text.as_bytes().to_vec(),
        state: State::Begin,
        nodes: 0,
        open: Vec::new(),
        commented: None,
        faults: Vec::new(),
        old: None,
    };
    guard.run();
    if let Some((span, what)) = guard.old {
        sink.error(
            span,
            Code::Syntax,
            format!("this looks like version 1 of KDL: {what}"),
            "a policy is KDL version 2: #true, #false, #null, #\"raw strings\"#; begin the file with `/- kdl-version 2`",
        );
        return None;
    }
    let clean = guard.faults.is_empty();
    for fault in guard.faults {
        sink.error(fault.span, fault.code, fault.message, fault.help);
    }
    clean.then(|| String::from_utf8(guard.blank).expect("whole characters were replaced by spaces"))
}

/// Where in a node the pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A node may begin.
    Begin,
    /// Behind the name, a value or a property; no space yet.
    Word,
    /// As [`State::Word`], and the word may be the name of a property.
    Key,
    /// Behind a space; an entry or a block may begin.
    Gap,
    /// As [`State::Gap`], and an equals sign may still follow.
    KeyGap,
    /// Behind an equals sign.
    Equals,
    /// Behind the closing brace of a node's block.
    Closed,
}

/// What `/-` takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commented {
    /// A whole node that begins at this octet, in a block this deep.
    Node(usize, usize),
    /// One entry that begins at this octet, and where it ends as far as seen.
    Entry(usize, Option<usize>),
}

struct Fault {
    span: Span,
    code: Code,
    message: String,
    help: String,
}

struct Guard<'t> {
    source: u32,
    text: &'t str,
    at: usize,
    blank: Vec<u8>,
    state: State,
    /// How many nodes have begun.
    nodes: usize,
    /// Where the open blocks began.
    open: Vec<usize>,
    commented: Option<Commented>,
    faults: Vec<Fault>,
    old: Option<(Span, &'static str)>,
}

impl Guard<'_> {
    fn run(&mut self) {
        if self.text.starts_with('\u{feff}') {
            self.skip(3);
        }
        while let Some(c) = self.peek() {
            let faults = self.faults.len();
            self.step(c);
            if self.old.is_some() {
                return;
            }
            if self.faults.len() > faults {
                if self.faults.len() >= 64
                    || self.faults.last().is_some_and(|f| f.code == Code::Limit)
                {
                    return;
                }
                self.next_line();
            }
        }
        self.end_of_text();
        if let Some(at) = self.open.pop() {
            self.fault(at, 1, "this block is not closed", "add the missing `}`");
        }
    }

    fn end_of_text(&mut self) {
        if self.state == State::Equals {
            self.fault(self.at, 1, "a value is missing behind `=`", "write the value");
        }
        self.end_of_node(self.at);
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn fault(
        &mut self,
        at: usize,
        length: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.fault_of(Code::Syntax, at, length, message, help);
    }

    fn fault_of(
        &mut self,
        code: Code,
        at: usize,
        length: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let span = Span::new(self.source, at, length);
        self.faults.push(Fault { span, code, message: message.into(), help: help.into() });
    }

    /// Replaces the octets up to `to` by spaces, line breaks too.
    fn blank(&mut self, from: usize, to: usize) {
        self.blank[from..to].fill(b' ');
    }

    /// Goes on by `octets`, which are replaced by spaces.
    fn skip(&mut self, octets: usize) {
        self.blank(self.at, self.at + octets);
        self.at += octets;
    }

    /// After a fault: leaves the line, and takes what it opened and closed at its word.
    fn next_line(&mut self) {
        let length = self.rest().find('\n').unwrap_or(self.rest().len());
        for (at, octet) in self.text[self.at..self.at + length].bytes().enumerate() {
            match octet {
                b'{' if self.open.len() < DEEPEST => self.open.push(self.at + at),
                b'}' => drop(self.open.pop()),
                _ => {}
            }
        }
        self.at += length;
        self.commented = None;
        self.state = State::Begin;
    }

    fn step(&mut self, c: char) {
        match c {
            '\n' => {
                if self.state == State::Equals {
                    return self.fault(
                        self.at,
                        1,
                        "a value is missing behind `=`",
                        "write the value on the same line",
                    );
                }
                self.end_of_node(self.at);
                self.at += 1;
            }
            '\r' if self.rest().starts_with("\r\n") => self.at += 1,
            ' ' | '\t' => {
                self.at += 1;
                self.space();
            }
            ';' => {
                if self.state == State::Begin {
                    return self.fault(self.at, 1, "nothing stands before this `;`", "remove it");
                }
                if self.state == State::Equals {
                    return self.fault(
                        self.at,
                        1,
                        "a value is missing behind `=`",
                        "write the value",
                    );
                }
                self.at += 1;
                self.end_of_node(self.at);
            }
            '\\' => self.line_continuation(),
            '/' => self.slash(),
            '{' => self.open_block(),
            '}' => self.close_block(),
            '=' => match self.state {
                State::Key | State::KeyGap => {
                    self.at += 1;
                    self.state = State::Equals;
                    if let Some(Commented::Entry(_, end)) = &mut self.commented {
                        *end = None;
                    }
                }
                _ => self.fault(
                    self.at,
                    1,
                    "`=` without a property name before it",
                    "write name=value",
                ),
            },
            '(' => self.fault(
                self.at,
                1,
                "type annotations are not used in a policy",
                "remove the parentheses and what is in them",
            ),
            ')' | '[' | ']' => {
                self.fault(
                    self.at,
                    1,
                    format!("`{c}` has no meaning here"),
                    "quote it if it belongs to a value",
                );
            }
            '"' => self.quoted(),
            '#' => self.hash(),
            _ if unseen(c) => self.unusual(c),
            _ => self.bare(),
        }
    }

    fn space(&mut self) {
        self.state = match self.state {
            State::Word => State::Gap,
            State::Key => State::KeyGap,
            same => same,
        };
    }

    /// Line break, `;`, a closing brace or the end of the text: the node is complete.
    fn end_of_node(&mut self, end: usize) {
        if self.state != State::Begin
            && let Some(Commented::Node(from, depth)) = self.commented
            && depth == self.open.len()
        {
            self.blank(from, end);
            self.commented = None;
        }
        self.end_of_entry();
        self.state = State::Begin;
    }

    fn line_continuation(&mut self) {
        let after = &self.rest()[1..];
        let spaces = after.len() - after.trim_start_matches([' ', '\t']).len();
        let behind = &after[spaces..];
        let comment =
            if behind.starts_with("//") { behind.find('\n').unwrap_or(behind.len()) } else { 0 };
        let line_break = &behind[comment..];
        let length = match line_break.as_bytes() {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => {
                return self.fault(
                    self.at,
                    1,
                    "`\\` continues a line only at its end",
                    "remove it, or quote the value it belongs to",
                );
            }
        };
        self.skip(1 + spaces + comment + length);
        self.space();
    }

    fn slash(&mut self) {
        let rest = self.rest();
        if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            let comment = rest[..length].strip_suffix('\r').unwrap_or(&rest[..length]);
            if let Some((at, c)) = comment.char_indices().find(|(_, c)| unseen(*c) && *c != '\t') {
                self.at += at;
                return self.unusual(c);
            }
            self.skip(comment.len());
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if rest.starts_with("/-") {
            self.slash_dash();
        } else {
            self.fault(
                self.at,
                1,
                "a lone `/`",
                "quote it if it belongs to a value; comments are `//`, `/* */` and `/-`",
            );
        }
    }

    fn block_comment(&mut self) {
        let octets = self.text.as_bytes();
        let begin = self.at;
        let mut at = begin;
        let mut depth = 0;
        loop {
            match octets.get(at..at + 2) {
                Some(b"/*") => {
                    depth += 1;
                    at += 2;
                    if depth > DEEPEST {
                        return self.fault_of(
                            Code::Limit,
                            begin,
                            2,
                            format!("comments nest deeper than {DEEPEST}"),
                            "use `//` in front of each line",
                        );
                    }
                }
                Some(b"*/") => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                Some(_) => at += 1,
                None => {
                    self.fault_of(
                        Code::Limit,
                        begin,
                        2,
                        "this comment is not closed",
                        "add the missing `*/`",
                    );
                    let fault = self.faults.last_mut().expect("one was just added");
                    fault.code = Code::Syntax;
                    self.at = self.text.len();
                    return;
                }
            }
        }
        // Line breaks inside the comment do not end the node.
        self.skip(at - begin);
        self.space();
    }

    fn slash_dash(&mut self) {
        let begin = self.at;
        if let Some(version) = self.rest().strip_prefix("/- kdl-version") {
            let version = version.lines().next().unwrap_or_default().trim();
            if begin == 0 && version == "1" {
                self.old = Some((Span::new(self.source, begin, 16), "it says so"));
                return;
            }
        }
        self.complete_entry();
        if self.commented.is_some() {
            // Already taken out as a whole; `/-` inside changes nothing.
            self.skip(2);
            return;
        }
        match self.state {
            State::Begin => {
                self.commented = Some(Commented::Node(begin, self.open.len()));
                self.skip(2);
            }
            State::Gap | State::KeyGap => {
                self.commented = Some(Commented::Entry(begin, None));
                self.skip(2);
                self.state = State::Gap;
            }
            _ => self.fault(begin, 2, "`/-` needs a space before it", "put a space in front of it"),
        }
    }

    fn open_block(&mut self) {
        match self.state {
            State::Begin => {
                return self.fault(
                    self.at,
                    1,
                    "a block without a node name before it",
                    "write the node's name in front of `{`, on the same line",
                );
            }
            State::Equals => {
                return self.fault(self.at, 1, "a value is missing behind `=`", "write the value");
            }
            State::Closed => {
                return self.fault(
                    self.at,
                    1,
                    "a second block of the same node",
                    "put everything into one block",
                );
            }
            State::Word | State::Key | State::Gap | State::KeyGap => {}
        }
        if self.open.len() == DEEPEST {
            return self.fault_of(
                Code::Limit,
                self.at,
                1,
                format!("blocks nest deeper than {DEEPEST}"),
                "nothing in a policy needs more than four",
            );
        }
        if let Some(Commented::Entry(from, None)) = self.commented {
            return self.fault(
                from,
                2,
                "`/-` in front of a block alone",
                "put `/-` in front of the whole node, or `//` in front of each line",
            );
        }
        self.complete_entry();
        self.open.push(self.at);
        self.at += 1;
        self.state = State::Begin;
    }

    fn close_block(&mut self) {
        if self.state == State::Equals {
            return self.fault(self.at, 1, "a value is missing behind `=`", "write the value");
        }
        self.end_of_node(self.at);
        if self.open.pop().is_none() {
            return self.fault(
                self.at,
                1,
                "this `}` closes nothing",
                "remove it, or look for a missing `{` above",
            );
        }
        self.at += 1;
        self.state = State::Closed;
        if let Some(Commented::Node(_, depth)) = self.commented
            && depth > self.open.len()
        {
            self.commented = None;
        }
    }

    /// A word, string, number or keyword that begins at `begin` ends here.
    fn word(&mut self, begin: usize, may_be_name: bool) {
        let length = self.at - begin;
        if self.state != State::Equals {
            self.complete_entry();
        }
        self.state = match self.state {
            State::Begin if may_be_name => {
                self.nodes += 1;
                if self.nodes > MOST_NODES {
                    return self.fault_of(
                        Code::Limit,
                        begin,
                        length,
                        format!("more than {MOST_NODES} nodes"),
                        "split the file with include",
                    );
                }
                State::Word
            }
            State::Begin => {
                return self.fault(
                    begin,
                    length,
                    "a node begins with its name",
                    "put the name of the node in front of the value",
                );
            }
            State::Gap | State::KeyGap if may_be_name => State::Key,
            State::Gap | State::KeyGap | State::Equals => State::Word,
            State::Word | State::Key => {
                return self.fault(
                    begin,
                    length,
                    "a space is missing",
                    "put a space between the two values",
                );
            }
            State::Closed => {
                return self.fault(
                    begin,
                    length,
                    "a node behind a closed block",
                    "begin a new line, or put `;` in between",
                );
            }
        };
        if let Some(Commented::Entry(_, end)) = &mut self.commented {
            *end = Some(self.at);
        }
    }

    /// Blanks an entry behind `/-` of which nothing more can follow.
    fn complete_entry(&mut self) {
        if let Some(Commented::Entry(from, Some(end))) = self.commented {
            self.blank(from, end);
            self.commented = None;
        }
    }

    fn end_of_entry(&mut self) {
        self.complete_entry();
        if let Some(Commented::Entry(from, None)) = self.commented {
            self.commented = None;
            self.fault(
                from,
                2,
                "nothing stands behind this `/-`",
                "remove it, or write what it takes out on the same line",
            );
        }
    }
}
