//! Tokens to tree.
//!
//! A recursive descent with the decisions and messages of Go's parser. [`NESTING_MAX`] bounds the
//! recursion, so no text can exhaust the stack.

mod pipeline;

use std::collections::BTreeMap;

use crate::ast::{Branch, Call, Node};
use crate::error::TemplateError;
use crate::lex::{self, Keyword, Kind, Token};
use crate::literal;
use crate::printf::quote;

/// How deep blocks and parentheses may nest, `else if` included.
const NESTING_MAX: usize = 100;

/// A template's trees by name; the main one is named "".
pub(crate) type Trees = BTreeMap<String, Vec<Node>>;

/// Parses `text` into its main tree and those it defines.
pub(crate) fn parse(text: &str) -> Result<Trees, TemplateError> {
    let mut parser = Parser {
        tokens: lex::tokens(text),
        at: 0,
        seen: 0,
        vars: vec!["$".into()],
        range_depth: 0,
        depth: 0,
        action_pos: None,
        trees: Trees::new(),
    };
    parser.run().map_err(|message| {
        let pos = parser.tokens[parser.seen].pos;
        TemplateError::Parse { line: line_at(text, pos), message: parser.place(text, message) }
    })?;
    Ok(parser.trees)
}

/// The line, from 1, on which byte `pos` of `text` stands.
pub(crate) fn line_at(text: &str, pos: usize) -> usize {
    1 + text.as_bytes()[..pos].iter().filter(|&&b| b == b'\n').count()
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    End,
    Else,
}

impl Stop {
    fn text(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

enum Item {
    Node(Node),
    Stop(Stop),
}

type Parsed<T> = Result<T, String>;

struct Parser<'i> {
    tokens: Vec<Token<'i>>,
    /// The next token.
    at: usize,
    /// The furthest token looked at: errors are reported on its line.
    seen: usize,
    vars: Vec<String>,
    range_depth: usize,
    depth: usize,
    action_pos: Option<usize>,
    trees: Trees,
}

impl<'i> Parser<'i> {
    fn run(&mut self) -> Parsed<()> {
        let mut root = Vec::new();
        while self.peek().kind != Kind::Eof {
            let start = self.at;
            if self.next().kind == Kind::LeftDelim
                && self.next_non_space().kind == Kind::Keyword(Keyword::Define)
            {
                self.definition()?;
                continue;
            }
            self.at = start;
            match self.text_or_action()? {
                Item::Node(node) => root.push(node),
                Item::Stop(stop) => return Err(format!("unexpected {}", stop.text())),
            }
        }
        self.add(String::new(), root)
    }

    fn definition(&mut self) -> Parsed<()> {
        const CONTEXT: &str = "define clause";
        let name = self.template_name(CONTEXT)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        let list = self.own_list(CONTEXT)?;
        self.add(name, list)
    }

    /// The body of a `define` or `block`: it sees no variables of its surroundings.
    fn own_list(&mut self, context: &str) -> Parsed<Vec<Node>> {
        let vars = std::mem::replace(&mut self.vars, vec!["$".into()]);
        let range_depth = std::mem::take(&mut self.range_depth);
        let (list, stop) = self.item_list()?;
        if stop != Stop::End {
            return Err(format!("unexpected {} in {context}", stop.text()));
        }
        self.vars = vars;
        self.range_depth = range_depth;
        Ok(list)
    }

    fn add(&mut self, name: String, list: Vec<Node>) -> Parsed<()> {
        let is_empty = |list: &[Node]| list.iter().all(|n| matches!(n, Node::Text(t) if t.trim().is_empty()));
        match self.trees.get(&name) {
            Some(old) if !is_empty(old) && !is_empty(&list) => {
                return Err(format!("template: multiple definition of template {}", quote(&name)));
            }
            Some(old) if !is_empty(old) => {}
            _ => {
                self.trees.insert(name, list);
            }
        }
        Ok(())
    }

    fn item_list(&mut self) -> Parsed<(Vec<Node>, Stop)> {
        let mut list = Vec::new();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Item::Node(node) => list.push(node),
                Item::Stop(stop) => return Ok((list, stop)),
            }
        }
        Err("unexpected EOF".into())
    }

    fn text_or_action(&mut self) -> Parsed<Item> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(token.val.into()))),
            Kind::LeftDelim => {
                self.action_pos = Some(token.pos);
                let item = self.action()?;
                self.action_pos = None;
                Ok(item)
            }
            _ => Err(unexpected(&token, "input")),
        }
    }

    fn action(&mut self) -> Parsed<Item> {
        let start = self.at;
        let Kind::Keyword(keyword) = self.next_non_space().kind else {
            self.at = start;
            return self.pipeline("command", Kind::RightDelim).map(|pipe| Item::Node(Node::Action(pipe)));
        };
        let node = match keyword {
            Keyword::Block => self.block()?,
            Keyword::Break => self.leave_range("{{break}}", Node::Break)?,
            Keyword::Continue => self.leave_range("{{continue}}", Node::Continue)?,
            Keyword::Else => return self.else_control(),
            Keyword::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Item::Stop(Stop::End));
            }
            Keyword::If => Node::If(self.control("if")?),
            Keyword::Range => Node::Range(self.control("range")?),
            Keyword::With => Node::With(self.control("with")?),
            Keyword::Template => self.template()?,
            Keyword::Define | Keyword::Nil => {
                self.at = start;
                Node::Action(self.pipeline("command", Kind::RightDelim)?)
            }
        };
        Ok(Item::Node(node))
    }

    fn leave_range(&mut self, context: &str, node: Node) -> Parsed<Node> {
        self.expect(Kind::RightDelim, context)?;
        if self.range_depth == 0 {
            return Err(format!("{context} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn else_control(&mut self) -> Parsed<Item> {
        let follower = self.peek_non_space().kind;
        if !matches!(follower, Kind::Keyword(Keyword::If | Keyword::With)) {
            self.expect(Kind::RightDelim, "else")?;
        }
        Ok(Item::Stop(Stop::Else))
    }

    fn block(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "block clause";
        let pos = self.peek_non_space().pos;
        let name = self.template_name(CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        self.enter()?;
        let list = self.own_list(CONTEXT)?;
        self.depth -= 1;
        self.add(name.clone(), list)?;
        Ok(Node::Template(Call { pos, name, pipe: Some(pipe) }))
    }

    fn template(&mut self) -> Parsed<Node> {
        const CONTEXT: &str = "template clause";
        let pos = self.peek_non_space().pos;
        let name = self.template_name(CONTEXT)?;
        let pipe = if self.peek_non_space().kind == Kind::RightDelim {
            self.next();
            None
        } else {
            Some(self.pipeline(CONTEXT, Kind::RightDelim)?)
        };
        Ok(Node::Template(Call { pos, name, pipe }))
    }

    fn template_name(&mut self, context: &str) -> Parsed<String> {
        let token = self.next_non_space();
        match token.kind {
            Kind::Str | Kind::RawStr => literal::string(&token.val),
            _ => Err(unexpected(&token, context)),
        }
    }

    fn control(&mut self, context: &str) -> Parsed<Branch> {
        self.enter()?;
        let visible = self.vars.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        self.range_depth += usize::from(context == "range");
        let (list, stop) = self.item_list()?;
        self.range_depth -= usize::from(context == "range");
        let otherwise = if stop == Stop::Else { self.else_list(context)? } else { Vec::new() };
        self.vars.truncate(visible);
        self.depth -= 1;
        Ok(Branch { pipe, list, otherwise })
    }

    /// What follows `{{else`. `else if` is an `if` in the else list that shares its `{{end}}`.
    fn else_list(&mut self, context: &str) -> Parsed<Vec<Node>> {
        let chained = self.peek().kind;
        let node: fn(Branch) -> Node = match (context, chained) {
            ("if", Kind::Keyword(Keyword::If)) => Node::If,
            ("with", Kind::Keyword(Keyword::With)) => Node::With,
            _ => {
                let (list, stop) = self.item_list()?;
                return match stop {
                    Stop::End => Ok(list),
                    Stop::Else => Err("expected end; found {{else}}".into()),
                };
            }
        };
        self.next();
        Ok(vec![node(self.control(context)?)])
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(format!("nested more than {NESTING_MAX} deep"));
        }
        Ok(())
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<()> {
        let token = self.next_non_space();
        if token.kind == kind { Ok(()) } else { Err(unexpected(&token, context)) }
    }

    /// The next token; the last one (`Eof` or `Error`) repeats for ever.
    fn peek(&mut self) -> Token<'i> {
        let at = self.at.min(self.tokens.len() - 1);
        self.seen = at;
        self.tokens[at].clone()
    }

    fn next(&mut self) -> Token<'i> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn peek_non_space(&mut self) -> Token<'i> {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
        self.peek()
    }

    fn next_non_space(&mut self) -> Token<'i> {
        self.peek_non_space();
        self.next()
    }

    /// Adds where the action began, if the lexer gave up on a later line of it.
    fn place(&self, text: &str, message: String) -> String {
        let token = &self.tokens[self.seen];
        let (Kind::Error, Some(start)) = (token.kind, self.action_pos) else { return message };
        let line = line_at(text, start);
        if line == line_at(text, token.pos) || message != token.val {
            return message;
        }
        let action = if message.ends_with(" action") { "" } else { " in action" };
        format!("{message}{action} started at :{line}")
    }
}

fn unexpected(token: &Token<'_>, context: &str) -> String {
    if token.kind == Kind::Error { token.val.to_string() } else { format!("unexpected {token} in {context}") }
}
