//! KDL text to nodes that know where they stand.

use kdl::{KdlDocument, KdlNode, KdlValue};

use crate::diagnostic::Code;
use crate::guard;
use crate::source::{Sink, Span, Spanned};

/// A value as KDL tells it apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Text, quoted or not.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// `#true` or `#false`.
    Bool(bool),
    /// `#null`.
    Null,
}

/// A node, its entries and what is in its block.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Its name.
    pub name: Spanned<String>,
    /// The values behind the name.
    pub arguments: Vec<Spanned<Value>>,
    /// The name=value pairs.
    pub properties: Vec<(Spanned<String>, Spanned<Value>)>,
    /// The nodes of its block.
    pub children: Vec<Node>,
    /// Whether it has a block, perhaps an empty one.
    pub has_block: bool,
}

impl Node {
    /// The nodes of this name in its block.
    pub(crate) fn each(&self, name: &str) -> impl Iterator<Item = &Node> {
        self.children.iter().filter(move |child| child.name.value == name)
    }

    /// The first node of this name in its block.
    pub(crate) fn child(&self, name: &str) -> Option<&Node> {
        self.each(name).next()
    }

    /// The first argument.
    pub(crate) fn argument(&self) -> Option<&Spanned<Value>> {
        self.arguments.first()
    }

    /// The value of a property.
    pub(crate) fn property(&self, name: &str) -> Option<&Spanned<Value>> {
        self.properties.iter().find(|(known, _)| known.value == name).map(|(_, value)| value)
    }

    /// From the name to the last entry.
    pub(crate) fn span(&self) -> Span {
        let arguments = self.arguments.iter().map(|argument| argument.span);
        let properties = self.properties.iter().map(|(_, value)| value.span);
        let last = arguments.chain(properties).max().unwrap_or(self.name.span);
        self.name.span.to(last)
    }
}

/// The nodes of one text; `None` if its form is not even KDL.
pub(crate) fn read(source: u32, text: &str, sink: &mut Sink) -> Option<Vec<Node>> {
    let clean = guard::admit(source, text, sink)?;
    match KdlDocument::parse_v2(&clean) {
        Ok(document) => {
            Some(document.nodes().iter().map(|node| convert(source, &clean, node)).collect())
        }
        Err(error) => {
            let first = error.diagnostics.first();
            let span = first.map_or(Span::new(source, 0, 1), |d| {
                Span::new(source, d.span.offset(), d.span.len())
            });
            let message =
                first.and_then(|d| d.message.clone()).unwrap_or_else(|| "not KDL".to_owned());
            let help = first.and_then(|d| d.help.clone());
            sink.error(
                span,
                Code::Syntax,
                message,
                help.unwrap_or_else(|| "see https://kdl.dev for the form".to_owned()),
            );
            None
        }
    }
}

fn convert(source: u32, text: &str, node: &KdlNode) -> Node {
    let span = |offset: usize, length: usize| trimmed(source, text, offset, length);
    let mut arguments = Vec::new();
    let mut properties = Vec::new();
    for entry in node.entries() {
        let whole = span(entry.span().offset(), entry.span().len());
        let value = match entry.value() {
            KdlValue::String(text) => Value::Text(text.clone()),
            KdlValue::Integer(number) => Value::Integer(*number),
            KdlValue::Float(number) => Value::Float(*number),
            KdlValue::Bool(truth) => Value::Bool(*truth),
            KdlValue::Null => Value::Null,
        };
        match entry.name() {
            None => arguments.push(Spanned::new(value, whole)),
            Some(name) => {
                let key = span(name.span().offset(), name.span().len());
                let behind = (key.start + key.length) as usize;
                let end = (whole.start + whole.length) as usize;
                let equals = text[behind..end].find('=').map_or(behind, |at| behind + at + 1);
                let value = Spanned::new(value, span(equals, end - equals));
                properties.push((Spanned::new(name.value().to_owned(), key), value));
            }
        }
    }
    let name = node.name();
    let children = node.children();
    Node {
        name: Spanned::new(name.value().to_owned(), span(name.span().offset(), name.span().len())),
        arguments,
        properties,
        children: children.map_or_else(Vec::new, |block| {
            block.nodes().iter().map(|node| convert(source, text, node)).collect()
        }),
        has_block: children.is_some(),
    }
}

/// A span without the spaces at its ends.
fn trimmed(source: u32, text: &str, offset: usize, length: usize) -> Span {
    let piece = text.get(offset..offset + length).unwrap_or_default();
    let leading = piece.len() - piece.trim_start().len();
    Span::new(source, offset + leading, piece.trim().len())
}
