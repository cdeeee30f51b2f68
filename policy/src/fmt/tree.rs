//! Lexemes to nodes that still have their comments.

use super::lexeme::Lexeme;

/// What stands in a file or in a block, one below the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item<'t> {
    /// One or more empty lines.
    Blank,
    /// A comment on lines of its own.
    Comment(&'t str),
    /// A node.
    Node(Node<'t>),
}

/// A node, perhaps behind `/-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node<'t> {
    /// Whether `/-` takes it out.
    pub off: bool,
    /// Its name, values, properties and comments, as they are printed.
    pub pieces: Vec<String>,
    /// Its block.
    pub block: Option<Block<'t>>,
    /// The comments behind it on its last line.
    pub trailing: Vec<&'t str>,
}

/// A node's block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block<'t> {
    /// The comment behind the opening brace.
    pub opening: Option<&'t str>,
    /// What is in it.
    pub items: Vec<Item<'t>>,
    /// Whether it was written on one line.
    pub one_line: bool,
}

/// The items of a file.
pub(super) fn items<'t>(lexemes: &[Lexeme<'t>]) -> Vec<Item<'t>> {
    Parser { lexemes, next: 0 }.block().items
}

struct Parser<'l, 't> {
    lexemes: &'l [Lexeme<'t>],
    next: usize,
}

impl<'t> Parser<'_, 't> {
    fn peek(&self) -> Option<Lexeme<'t>> {
        self.lexemes.get(self.next).copied()
    }

    /// Up to the closing brace, which is taken, or to the end.
    fn block(&mut self) -> Block<'t> {
        let mut block = Block { one_line: true, ..Block::default() };
        let items = &mut block.items;
        // The opening brace or the last item stands on the line that is being read.
        let mut begun = self.next > 0;
        let mut off = false;
        while let Some(lexeme) = self.peek() {
            match lexeme {
                Lexeme::Word(_) => {
                    let (above, mut node) = self.node();
                    node.off = std::mem::take(&mut off);
                    items.extend(above.into_iter().map(Item::Comment));
                    block.one_line &= node.block.as_ref().is_none_or(|inner| inner.one_line);
                    items.push(Item::Node(node));
                    begun = true;
                    continue;
                }
                Lexeme::Break => {
                    let empty = !begun && !matches!(items.last(), None | Some(Item::Blank));
                    if empty {
                        items.push(Item::Blank);
                    }
                    begun = false;
                    block.one_line = false;
                }
                Lexeme::Line(comment) => match items.last_mut() {
                    None if begun => block.opening = Some(comment),
                    Some(Item::Node(node)) if begun => node.trailing.push(comment),
                    _ => {
                        items.push(Item::Comment(comment));
                        begun = true;
                    }
                },
                Lexeme::Block(comment) | Lexeme::Continued(Some(comment)) => {
                    items.push(Item::Comment(comment));
                    begun = true;
                }
                Lexeme::SlashDash => off = true,
                Lexeme::Close => {
                    self.next += 1;
                    break;
                }
                // The guard lets neither `=` nor a block stand without a node before it.
                Lexeme::Semicolon | Lexeme::Continued(None) | Lexeme::Equals | Lexeme::Open => {}
            }
            self.next += 1;
        }
        if block.items.last() == Some(&Item::Blank) {
            block.items.pop();
        }
        block
    }

    /// A node from its name on, and the comments that stood where it was continued.
    fn node(&mut self) -> (Vec<&'t str>, Node<'t>) {
        let mut node = Node::default();
        let mut above = Vec::new();
        let mut last_word = 0;
        let (mut value_due, mut off) = (false, false);
        while let Some(lexeme) = self.peek() {
            match lexeme {
                Lexeme::Word(word) if value_due => {
                    node.pieces[last_word].push_str(word);
                    value_due = false;
                }
                Lexeme::Word(word) => {
                    last_word = node.pieces.len();
                    let dash = if std::mem::take(&mut off) { "/- " } else { "" };
                    node.pieces.push(format!("{dash}{word}"));
                }
                Lexeme::Equals => {
                    if let Some(name) = node.pieces.get_mut(last_word) {
                        name.push('=');
                        value_due = true;
                    }
                }
                Lexeme::Block(comment) if node.block.is_some() => node.trailing.push(comment),
                Lexeme::Block(comment) => node.pieces.push(comment.to_owned()),
                Lexeme::Continued(comment) => above.extend(comment),
                Lexeme::SlashDash => off = true,
                Lexeme::Open => {
                    self.next += 1;
                    node.block = Some(self.block());
                    continue;
                }
                Lexeme::Semicolon => {
                    self.next += 1;
                    break;
                }
                Lexeme::Line(_) | Lexeme::Break | Lexeme::Close => break,
            }
            self.next += 1;
        }
        (above, node)
    }
}
