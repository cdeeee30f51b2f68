//! One form for every policy file.
//!
//! [`format_text`] changes spaces, line breaks and semicolons and nothing else: no value is rewritten, no
//! statement moves, every comment stays beside what it speaks of. Four spaces a level, one node a
//! line, at most one empty line in a row, lines of at most [`WIDEST`] characters where the words
//! allow it. A block that was written on one line stays on it if it fits. What comes out is read
//! again and compared with what went in before anybody sees it, so a file never changes its
//! meaning by being formatted.

mod lexeme;
#[cfg(test)]
mod tests;
mod tree;

use crate::diagnostic::{Code, Faults};
use crate::reader::{self, Node as Read};
use crate::source::{Sink, Sources, Span};
use crate::words;

use tree::{Block, Item, Node};

/// Longest line in characters, as far as words and strings allow it.
const WIDEST: usize = 100;

/// Spaces a level.
const INDENT: usize = 4;

/// A policy file, or a part of one that others include, in its canonical form.
///
/// `name` is the file's name in diagnostics. Included files are neither read nor changed. A text
/// whose form, nodes or properties are wrong is refused with all its faults.
pub fn format_text(name: &str, text: &str) -> Result<String, Faults> {
    let (mut sources, mut sink) = (Sources::default(), Sink::default());
    let source = sources.add(name, text.to_owned());
    let before = reader::read(source, text, &mut sink);
    if let Some(nodes) = &before {
        words::conform_file(nodes, &mut sink);
    }
    sink.finish(&sources)?;
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut printer = Printer { out: String::with_capacity(plain.len()) };
    printer.items(&tree::items(&lexeme::lexemes(&plain)), 0);
    let formatted = printer.out;

    let (mut again, mut sink) = (Sources::default(), Sink::default());
    let source = again.add(name, formatted.clone());
    let after = reader::read(source, &formatted, &mut sink);
    sink.finish(&again)?;
    if !same(&before.unwrap_or_default(), &after.unwrap_or_default()) {
        let mut sink = Sink::default();
        sink.error(
            Span::new(source, 0, 1),
            Code::Syntax,
            "this file cannot be formatted without changing its meaning",
            "nothing was changed; please report the file as a bug",
        );
        sink.finish(&sources)?;
    }
    Ok(formatted)
}

/// Whether two texts say the same, wherever it stands.
fn same(before: &[Read], after: &[Read]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            let values = |read: &Read| -> Vec<(String, reader::Value)> {
                let values = read.properties.iter();
                values.map(|(name, value)| (name.value.clone(), value.value.clone())).collect()
            };
            before.name.value == after.name.value
                && before.has_block == after.has_block
                && before.arguments.len() == after.arguments.len()
                && before.arguments.iter().zip(&after.arguments).all(|(a, b)| a.value == b.value)
                && values(before) == values(after)
                && same(&before.children, &after.children)
        })
}

struct Printer {
    out: String,
}

impl Printer {
    fn items(&mut self, items: &[Item<'_>], depth: usize) {
        for item in items {
            match item {
                Item::Blank => self.out.push('\n'),
                Item::Comment(comment) => {
                    self.indent(depth);
                    self.out.push_str(comment);
                    self.out.push('\n');
                }
                Item::Node(node) => self.node(node, depth),
            }
        }
    }

    fn indent(&mut self, depth: usize) {
        self.out.extend(std::iter::repeat_n(' ', depth * INDENT));
    }

    fn node(&mut self, node: &Node<'_>, depth: usize) {
        self.indent(depth);
        match on_one_line(node) {
            Some(line) if fits(&line, depth * INDENT) => self.out.push_str(&line),
            _ => {
                self.head(node, depth);
                if let Some(block) = &node.block {
                    self.block(block, depth);
                }
            }
        }
        for comment in &node.trailing {
            self.out.push(' ');
            self.out.push_str(comment);
        }
        self.out.push('\n');
    }

    /// What stands in front of the block, continued on further lines where it is too long.
    fn head(&mut self, node: &Node<'_>, depth: usize) {
        let mut used = depth * INDENT;
        let opening = if node.block.is_some() { 2 } else { 0 };
        let pieces = head_pieces(node);
        for (number, piece) in pieces.iter().enumerate() {
            let length = piece.chars().count();
            // What has to stand behind it on the same line: ` \` or ` {`.
            let behind = if number + 1 < pieces.len() { 2 } else { opening };
            if number == 0 {
                used += length;
            } else if number > 1 && used + 1 + length + behind > WIDEST {
                self.out.push_str(" \\\n");
                self.indent(depth + 1);
                used = (depth + 1) * INDENT + length;
            } else {
                self.out.push(' ');
                used += 1 + length;
            }
            self.out.push_str(piece);
        }
    }

    fn block(&mut self, block: &Block<'_>, depth: usize) {
        if block.items.is_empty() && block.opening.is_none() {
            self.out.push_str(" {}");
            return;
        }
        self.out.push_str(" {");
        if let Some(comment) = block.opening {
            self.out.push(' ');
            self.out.push_str(comment);
        }
        self.out.push('\n');
        self.items(&block.items, depth + 1);
        self.indent(depth);
        self.out.push('}');
    }
}

fn head_pieces(node: &Node<'_>) -> Vec<String> {
    let mut pieces = node.pieces.clone();
    if let Some(name) = pieces.first_mut()
        && node.off
    {
        name.insert_str(0, "/- ");
    }
    pieces
}

/// The node without the comments behind it, if it can stand on one line.
fn on_one_line(node: &Node<'_>) -> Option<String> {
    let mut line = head_pieces(node).join(" ");
    if let Some(block) = &node.block {
        if !block.one_line {
            return None;
        }
        let nodes: Option<Vec<String>> = block
            .items
            .iter()
            .map(|item| match item {
                Item::Node(node) if node.trailing.is_empty() => on_one_line(node),
                Item::Node(_) | Item::Blank | Item::Comment(_) => None,
            })
            .collect();
        let nodes = nodes?;
        line.push_str(&if nodes.is_empty() {
            " {}".to_owned()
        } else {
            format!(" {{ {} }}", nodes.join("; "))
        });
    }
    (!line.contains('\n')).then_some(line)
}

fn fits(line: &str, indent: usize) -> bool {
    indent + line.chars().count() <= WIDEST
}
