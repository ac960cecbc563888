//! Cuts template text into tokens.
//!
//! The rules (trim markers, where a word may end, what a space is) are those of Go's
//! `text/template/parse`, because users bring templates written for docker.

use std::borrow::Cow;
use std::fmt;

const LEFT_DELIM: &str = "{{";
const RIGHT_DELIM: &str = "}}";
/// A trim marker is a minus and the space that must stand beside it.
const TRIM_MARKER_LEN: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    Eof,
    Text,
    LeftDelim,
    RightDelim,
    LeftParen,
    RightParen,
    Space,
    Assign,
    Declare,
    Pipe,
    Char,
    CharConstant,
    Number,
    Str,
    RawStr,
    Bool,
    Dot,
    Field,
    Variable,
    Identifier,
    Keyword(Keyword),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Nil,
    Range,
    Template,
    With,
}

impl Keyword {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "block" => Self::Block,
            "break" => Self::Break,
            "continue" => Self::Continue,
            "define" => Self::Define,
            "else" => Self::Else,
            "end" => Self::End,
            "if" => Self::If,
            "nil" => Self::Nil,
            "range" => Self::Range,
            "template" => Self::Template,
            "with" => Self::With,
            _ => return None,
        })
    }
}

/// A token; `val` is its source text, or the message of an error.
#[derive(Debug, Clone)]
pub(crate) struct Token<'i> {
    pub(crate) kind: Kind,
    pub(crate) pos: usize,
    pub(crate) val: Cow<'i, str>,
}

impl fmt::Display for Token<'_> {
    /// As Go's parser names tokens in its messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Eof => f.write_str("EOF"),
            Kind::Error => f.write_str(&self.val),
            Kind::Keyword(_) | Kind::Dot => write!(f, "<{}>", self.val),
            _ if self.val.len() > 10 => {
                let head: String = self.val.chars().take(10).collect();
                write!(f, "{}...", crate::printf::quote(&head))
            }
            _ => f.write_str(&crate::printf::quote(&self.val)),
        }
    }
}

/// All tokens of `input`. The last one is `Eof` or `Error`.
pub(crate) fn tokens(input: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { input, pos: 0, start: 0, paren_depth: 0, tokens: Vec::new() };
    if let Err(message) = lexer.run() {
        lexer.tokens.push(Token { kind: Kind::Error, pos: lexer.start, val: message.into() });
    }
    lexer.tokens
}

struct Lexer<'i> {
    input: &'i str,
    pos: usize,
    start: usize,
    paren_depth: usize,
    tokens: Vec<Token<'i>>,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(offset) = self.rest().find(LEFT_DELIM) {
            self.text(offset);
            self.left_delim()?;
        }
        self.pos = self.input.len();
        if self.pos > self.start {
            self.emit(Kind::Text);
        }
        self.emit(Kind::Eof);
        Ok(())
    }

    /// Emits the text before a delimiter, without the white space its trim marker takes away.
    fn text(&mut self, len: usize) {
        let delim = self.pos + len;
        let mut text = &self.input[self.pos..delim];
        if has_left_trim_marker(&self.input[delim + LEFT_DELIM.len()..]) {
            text = text.trim_end_matches(is_space);
        }
        self.pos += text.len();
        if !text.is_empty() {
            self.emit(Kind::Text);
        }
        self.skip_to(delim);
    }

    /// One action or comment, from its left delimiter through its right one.
    fn left_delim(&mut self) -> Result<(), String> {
        let inside = self.pos + LEFT_DELIM.len();
        let marker = if has_left_trim_marker(&self.input[inside..]) { TRIM_MARKER_LEN } else { 0 };
        if self.input[inside + marker..].starts_with("/*") {
            return self.comment(inside + marker);
        }
        self.pos = inside;
        self.emit(Kind::LeftDelim);
        self.skip_to(inside + marker);
        self.paren_depth = 0;
        while !self.inside_action()? {}
        Ok(())
    }

    fn comment(&mut self, from: usize) -> Result<(), String> {
        self.skip_to(from);
        let end = self.rest().find("*/").ok_or("unclosed comment")?;
        self.pos += end + "*/".len();
        let trim = self.at_right_delim().ok_or("comment ends before closing delimiter")?;
        self.right_delim(trim, false);
        Ok(())
    }

    /// Reads one token inside an action; true when that was the right delimiter.
    fn inside_action(&mut self) -> Result<bool, String> {
        if let Some(trim) = self.at_right_delim() {
            if self.paren_depth > 0 {
                return Err("unclosed left paren".into());
            }
            self.right_delim(trim, true);
            return Ok(true);
        }
        let first = self.peek().ok_or("unclosed action")?;
        match first {
            c if is_space(c) => self.space(),
            ':' => {
                self.pos += 1;
                self.accept("=").then_some(()).ok_or("expected :=")?;
                self.emit(Kind::Declare);
            }
            '"' => self.quoted('"', Kind::Str, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant")?,
            '`' => self.raw_quoted()?,
            '$' => self.word(Kind::Variable)?,
            '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.word(Kind::Field)?,
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            c if is_alphanumeric(c) => self.word(Kind::Identifier)?,
            c => self.symbol(c)?,
        }
        Ok(false)
    }

    fn symbol(&mut self, c: char) -> Result<(), String> {
        let kind = match c {
            '=' => Kind::Assign,
            '|' => Kind::Pipe,
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => {
                self.paren_depth = self.paren_depth.checked_sub(1).ok_or("unexpected right paren")?;
                Kind::RightParen
            }
            c if c.is_ascii_graphic() => Kind::Char,
            c => return Err(format!("unrecognized character in action: {}", code_point(c))),
        };
        self.pos += c.len_utf8();
        self.emit(kind);
        Ok(())
    }

    /// A run of spaces, leaving the last one to a trim marker that needs it.
    fn space(&mut self) {
        while self.peek().is_some_and(is_space) && self.at_right_delim().is_none() {
            self.pos += 1;
        }
        if self.pos > self.start {
            self.emit(Kind::Space);
        }
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Result<(), String> {
        self.pos += 1;
        loop {
            match self.next() {
                Some(c) if c == quote => break,
                Some('\\') if self.next().is_some_and(|c| c != '\n') => {}
                None | Some('\n' | '\\') => return Err(unterminated.into()),
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn raw_quoted(&mut self) -> Result<(), String> {
        self.pos += 1;
        let end = self.rest().find('`').ok_or("unterminated raw quoted string")?;
        self.pos += end + 1;
        self.emit(Kind::RawStr);
        Ok(())
    }

    /// An identifier, keyword, `.field` or `$variable`.
    fn word(&mut self, kind: Kind) -> Result<(), String> {
        if kind != Kind::Identifier {
            self.pos += 1;
        }
        while self.peek().is_some_and(is_alphanumeric) {
            self.next();
        }
        if !self.at_terminator() {
            let bad = self.peek().map_or_else(String::new, code_point);
            return Err(format!("bad character {bad}"));
        }
        let kind = match (kind, &self.input[self.start..self.pos]) {
            (Kind::Field, ".") => Kind::Dot,
            (Kind::Identifier, "true" | "false") => Kind::Bool,
            (Kind::Identifier, word) => Keyword::of(word).map_or(Kind::Identifier, Kind::Keyword),
            (kind, _) => kind,
        };
        self.emit(kind);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        while self.accept(digits) {}
        if self.accept(".") {
            while self.accept(digits) {}
        }
        if digits.len() == 11 && self.accept("eE") {
            self.accept("+-");
            while self.accept("0123456789_") {}
        }
        if self.peek().is_some_and(is_alphanumeric) {
            self.next();
            return Err(bad_number(&self.input[self.start..self.pos]));
        }
        self.emit(Kind::Number);
        Ok(())
    }

    /// At the end of an action: whether it trims the text that follows.
    fn at_right_delim(&self) -> Option<bool> {
        let rest = self.rest();
        let mut chars = rest.chars();
        let marked = chars.next().is_some_and(is_space)
            && chars.next() == Some('-')
            && chars.as_str().starts_with(RIGHT_DELIM);
        if marked { Some(true) } else { rest.starts_with(RIGHT_DELIM).then_some(false) }
    }

    fn right_delim(&mut self, trim: bool, emit: bool) {
        let marker = if trim { TRIM_MARKER_LEN } else { 0 };
        self.skip_to(self.pos + marker);
        self.pos += RIGHT_DELIM.len();
        if emit {
            self.emit(Kind::RightDelim);
        }
        let rest = self.rest();
        let spaces = if trim { rest.len() - rest.trim_start_matches(is_space).len() } else { 0 };
        self.skip_to(self.pos + spaces);
    }

    fn at_terminator(&self) -> bool {
        match self.peek() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(c) => is_space(c) || self.rest().starts_with(RIGHT_DELIM),
        }
    }

    fn rest(&self) -> &str {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, set: &str) -> bool {
        let found = self.peek().is_some_and(|c| set.contains(c));
        if found {
            self.pos += 1;
        }
        found
    }

    fn skip_to(&mut self, pos: usize) {
        self.pos = pos;
        self.start = pos;
    }

    fn emit(&mut self, kind: Kind) {
        let val = Cow::Borrowed(&self.input[self.start..self.pos]);
        self.tokens.push(Token { kind, pos: self.start, val });
        self.start = self.pos;
    }
}

fn bad_number(text: &str) -> String {
    format!("bad number syntax: {}", crate::printf::quote(text))
}

fn has_left_trim_marker(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_space))
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Go's `%#U`: `U+0023 '#'`.
fn code_point(c: char) -> String {
    if c.is_control() { format!("U+{:04X}", c as u32) } else { format!("U+{:04X} '{c}'", c as u32) }
}
