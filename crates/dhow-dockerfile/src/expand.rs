//! Variables and quotes in the words of an instruction.
use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use crate::pattern::{Pattern, Reach};

/// Deepest nesting of `${a:-${b:-…}}`.
const NESTING_MAX: usize = 64;

/// A word with its variables replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The result, quotes removed.
    pub text: String,
    /// Variables asked for that have a value.
    pub used: BTreeSet<String>,
    /// Variables asked for that have none.
    pub unset: BTreeSet<String>,
}

/// Why a word could not be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {reason}")]
pub struct ExpandError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub reason: ExpandReason,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandReason {
    /// `${name` without its end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${name/pattern` without a replacement.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:x}` or `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${name^}` and other forms this language does not have.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// A quote without its end.
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    UnterminatedQuote(&'static str),
    /// `${name?message}` of a variable without value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the author wants said.
        message: String,
    },
    /// A `\` in a pattern before a character that needs none.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '{escape}'")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// The escape.
        escape: String,
    },
    /// Defaults within defaults, too many of them.
    #[error("substitutions are nested more than {NESTING_MAX} deep")]
    TooDeep,
}

/// Replaces the variables of `word` and removes its quotes and escapes. `escape` is the file's
/// escape character and `lookup` the environment; a variable without value becomes nothing.
pub fn expand(
    word: &str,
    escape: char,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Expanded, ExpandError> {
    let lexer = Lexer::new(word, escape, &lookup, Mode::default());
    lexer.run(word).map(|(text, _, names)| Expanded { text, used: names.used, unset: names.unset })
}

/// Like [`expand`], then splits at unquoted blanks: a variable may become several words or none.
pub fn expand_words(
    text: &str,
    escape: char,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, ExpandError> {
    Lexer::new(text, escape, &lookup, Mode::default()).run(text).map(|(_, words, _)| words)
}

/// Replaces the variables in the body of a COPY or ADD heredoc: quotes are ordinary characters
/// there, and the escape is always `\`.
pub fn expand_heredoc(body: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    let mode = Mode { quotes_are_text: true, ..Mode::default() };
    let lexer = Lexer::new(body, '\\', &lookup, mode);
    lexer.run(body).map(|(text, _, names)| Expanded { text, used: names.used, unset: names.unset })
}

/// What the lexer leaves alone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    pub(crate) keep_quotes: bool,
    pub(crate) keep_escapes: bool,
    pub(crate) keep_variables: bool,
    pub(crate) quotes_are_text: bool,
}

/// The words of a line as the shell would see them, with variables left in place.
pub(crate) fn shell_words(line: &str, mode: Mode) -> Result<Vec<String>, ExpandError> {
    let mode = Mode { keep_variables: true, ..mode };
    Lexer::new(line, '\\', &|_: &str| None, mode).run(line).map(|(_, words, _)| words)
}

#[derive(Default)]
struct Names {
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    mode: Mode,
    depth: usize,
    names: Names,
}

/// Words collected next to the unsplit text.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push_text(&mut self, text: &str) {
        text.chars().for_each(|c| self.push_char(c));
    }

    fn push_char(&mut self, c: char) {
        if c.is_whitespace() { self.finish() } else { self.current.push(c) }
    }

    fn push_quoted(&mut self, text: &str) {
        self.current.push_str(text);
    }

    fn finish(&mut self) {
        if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, lookup: &'a dyn Fn(&str) -> Option<String>, mode: Mode) -> Self {
        Self { rest: text.chars().peekable(), escape, lookup, mode, depth: 0, names: Names::default() }
    }

    fn run(mut self, word: &str) -> Result<(String, Vec<String>, Names), ExpandError> {
        match self.text_until(None, self.mode.keep_escapes) {
            Ok((text, words)) => Ok((text, words, self.names)),
            Err(reason) => Err(ExpandError { word: word.to_owned(), reason }),
        }
    }

    /// Reads up to `stop`, which is consumed, or to the end of the text when there is none.
    fn text_until(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
    ) -> Result<(String, Vec<String>), ExpandReason> {
        let outer = std::mem::replace(&mut self.mode.keep_escapes, keep_escapes);
        let result = self.collect_until(stop);
        self.mode.keep_escapes = outer;
        result
    }

    fn collect_until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), ExpandReason> {
        let mut text = String::new();
        let mut words = Words::default();
        loop {
            let Some(&c) = self.rest.peek() else {
                match stop {
                    None => break,
                    Some('/') => return Err(ExpandReason::MissingSlash),
                    Some(_) => return Err(ExpandReason::MissingBrace),
                }
            };
            if stop == Some(c) {
                self.rest.next();
                break;
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    words.push_text(&value);
                }
                '\'' | '"' if !self.mode.quotes_are_text => {
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    text.push_str(&quoted);
                    words.push_quoted(&quoted);
                }
                '<' => {
                    let arrows = self.arrows();
                    text.push_str(&arrows);
                    words.push_quoted(&arrows);
                }
                c if c == self.escape => {
                    let escaped = self.escaped();
                    text.push_str(&escaped);
                    words.push_quoted(&escaped);
                }
                c => {
                    self.rest.next();
                    text.push(c);
                    words.push_char(c);
                }
            }
        }
        words.finish();
        Ok((text, words.done))
    }

    /// An escape and what it protects; a lone one at the end is dropped.
    fn escaped(&mut self) -> String {
        let escape = self.rest.next().filter(|_| self.mode.keep_escapes);
        escape.into_iter().chain(self.rest.next()).collect()
    }

    /// `<`, or `<<` with the blanks that may stand before a heredoc's name.
    fn arrows(&mut self) -> String {
        let mut text = String::new();
        text.extend(self.rest.next());
        if let Some(second) = self.rest.next_if_eq(&'<') {
            text.push(second);
            while let Some(blank) = self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                text.push(blank);
            }
        }
        text
    }

    fn single_quoted(&mut self) -> Result<String, ExpandReason> {
        let mut text: String = self.rest.next().filter(|_| self.mode.keep_quotes).into_iter().collect();
        loop {
            match self.rest.next() {
                None => return Err(ExpandReason::UnterminatedQuote("single")),
                Some('\'') => break,
                Some(c) => text.push(c),
            }
        }
        text.extend(self.mode.keep_quotes.then_some('\''));
        Ok(text)
    }

    fn double_quoted(&mut self) -> Result<String, ExpandReason> {
        let mut text: String = self.rest.next().filter(|_| self.mode.keep_quotes).into_iter().collect();
        loop {
            let Some(&c) = self.rest.peek() else {
                return Err(ExpandReason::UnterminatedQuote("double"));
            };
            if c == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            self.rest.next();
            if c == '"' {
                break;
            } else if c == self.escape {
                self.escaped_in_quotes(&mut text);
            } else {
                text.push(c);
            }
        }
        text.extend(self.mode.keep_quotes.then_some('"'));
        Ok(text)
    }

    /// In double quotes an escape protects `"`, `$` and itself and is text before anything else.
    fn escaped_in_quotes(&mut self, text: &mut String) {
        text.extend(self.mode.keep_escapes.then_some(self.escape));
        let escape = self.escape;
        match self.rest.peek() {
            None => {}
            Some(&c) if matches!(c, '"' | '$') || c == escape => text.extend(self.rest.next()),
            Some(_) => text.push(escape),
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandReason> {
        self.rest.next();
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(match self.value(&name) {
                _ if name.is_empty() => "$".to_owned(),
                None if self.mode.keep_variables => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        match self.rest.peek() {
            None => return Err(ExpandReason::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandReason::BadSubstitution),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(ExpandReason::TooDeep);
        }
        let name = self.name();
        let value = self.braced(&name);
        self.depth -= 1;
        value
    }

    /// What follows `${name`.
    fn braced(&mut self, name: &str) -> Result<String, ExpandReason> {
        match self.rest.next() {
            None => Err(ExpandReason::MissingBrace),
            Some('}') => Ok(match self.value(name) {
                None if self.mode.keep_variables => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.rest.next() {
                None => Err(ExpandReason::MissingBrace),
                Some(sign @ ('-' | '+' | '?')) => self.conditional(name, ":", sign),
                Some(sign) => Err(ExpandReason::UnsupportedModifier(format!(":{sign}"))),
            },
            Some(sign @ ('-' | '+' | '?')) => self.conditional(name, "", sign),
            Some(sign @ ('#' | '%')) => self.trimmed(name, sign),
            Some('/') => self.replaced(name),
            Some(sign) => Err(ExpandReason::UnsupportedModifier(sign.to_string())),
        }
    }

    /// `${name-word}` and its kin. With a colon an empty value counts as none.
    fn conditional(&mut self, name: &str, colon: &str, sign: char) -> Result<String, ExpandReason> {
        let (word, _) = self.text_until(Some('}'), false)?;
        let value = self.value(name);
        if self.mode.keep_variables && value.is_none() {
            return Ok(format!("${{{name}{colon}{sign}{word}}}"));
        }
        let unset = value.is_none();
        let value = value.filter(|value| colon.is_empty() || !value.is_empty());
        match (sign, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let default = if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandReason::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${name#pattern}` and `${name%pattern}`; a doubled sign takes the longest match.
    fn trimmed(&mut self, name: &str, sign: char) -> Result<String, ExpandReason> {
        let (word, _) = self.text_until(Some('}'), true)?;
        let Some(value) = self.value(name) else {
            let kept = self.mode.keep_variables.then(|| format!("${{{name}{sign}{word}}}"));
            return Ok(kept.unwrap_or_default());
        };
        let (pattern, reach) = match word.strip_prefix(sign) {
            Some(pattern) => (pattern, Reach::Longest),
            None => (word.as_str(), Reach::Shortest),
        };
        let pattern = parse_pattern(pattern)?;
        Ok(if sign == '#' { pattern.trim_start(&value, reach) } else { pattern.trim_end(&value, reach) })
    }

    /// `${name/pattern/text}`, or `${name//pattern/text}` for every match.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandReason> {
        let every = self.rest.next_if_eq(&'/').is_some();
        let (pattern, _) = self.text_until(Some('/'), true)?;
        let (replacement, _) = self.text_until(Some('}'), true)?;
        let Some(value) = self.value(name) else {
            let kept = self.mode.keep_variables.then(|| format!("${{{name}/{pattern}/{replacement}}}"));
            return Ok(kept.unwrap_or_default());
        };
        Ok(parse_pattern(&pattern)?.replace(&value, &replacement, every))
    }

    /// A name: letters, digits and `_`; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.rest.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        let value = (self.lookup)(name);
        let names = if value.is_some() { &mut self.names.used } else { &mut self.names.unset };
        names.insert(name.to_owned());
        value
    }
}

fn parse_pattern(pattern: &str) -> Result<Pattern, ExpandReason> {
    Pattern::parse(pattern).map_err(|escape| ExpandReason::BadPattern { pattern: pattern.to_owned(), escape })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            "HOME" => "/home",
            "EMPTY" => "",
            "PATH" => "/usr/lib/x.tar.gz",
            "TWO" => "a  b",
            "한" => "글",
            "1" => "one",
            _ => return None,
        };
        Some(value.to_owned())
    }

    /// Prints each line of `words` with what it becomes.
    #[track_caller]
    fn check(words: &str, expected: Expect) {
        let mut out = String::new();
        for word in words.lines() {
            let result = match expand(word, '\\', environment) {
                Ok(expanded) => format!("[{}]", expanded.text),
                Err(error) => error.reason.to_string(),
            };
            out.push_str(&format!("{word} -> {result}\n"));
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn quotes_and_escapes_are_those_of_a_shell() {
        check(
            "he'll'o \"w o\"rld\n'$HOME'\n\"$HOME\"\n\\$HOME\n\"\\$HOME \\n \\\" \\\\\"\na\\\n\"open\n'open\n$\n$1x$HOME_\n$한\n\\'x",
            expect![[r#"
                he'll'o "w o"rld -> [hello w orld]
                '$HOME' -> [$HOME]
                "$HOME" -> [/home]
                \$HOME -> [$HOME]
                "\$HOME \n \" \\" -> [$HOME \n " \]
                a\ -> [a]
                "open -> unexpected end of statement while looking for matching double-quote
                'open -> unexpected end of statement while looking for matching single-quote
                $ -> [$]
                $1x$HOME_ -> [onex]
                $한 -> [글]
                \'x -> ['x]
            "#]],
        );
    }

    #[test]
    fn conditions_tell_unset_from_empty() {
        check(
            "${NO:-d} ${NO-d} ${EMPTY:-d} ${EMPTY-d}\n${NO:+d}|${NO+d}|${EMPTY:+d}|${EMPTY+d}|${HOME:+d}\n${HOME:?m}\n${NO:?}\n${NO?say it}\n${EMPTY:?}\n${EMPTY?}\n${NO:-${NO2:-'q}'}}\n${NO:-\\}}",
            expect![[r#"
                ${NO:-d} ${NO-d} ${EMPTY:-d} ${EMPTY-d} -> [d d d ]
                ${NO:+d}|${NO+d}|${EMPTY:+d}|${EMPTY+d}|${HOME:+d} -> [|||d|d]
                ${HOME:?m} -> [/home]
                ${NO:?} -> NO: is not allowed to be unset
                ${NO?say it} -> NO: say it
                ${EMPTY:?} -> EMPTY: is not allowed to be empty
                ${EMPTY?} -> []
                ${NO:-${NO2:-'q}'}} -> [q}]
                ${NO:-\}} -> [}]
            "#]],
        );
    }

    #[test]
    fn patterns_trim_and_replace() {
        check(
            "${PATH#*/} ${PATH##*/} ${PATH%.*} ${PATH%%.*}\n${PATH/lib/bin} ${PATH//\\//:}\n${PATH/.*/} ${PATH/?sr/X}\n${PATH%\\*}\n${PATH#\\a}\n${NO#x}\n${PATH:#x}\n${PATH/x}\n${PATH/x/",
            expect![[r#"
                ${PATH#*/} ${PATH##*/} ${PATH%.*} ${PATH%%.*} -> [usr/lib/x.tar.gz x.tar.gz /usr/lib/x.tar /usr/lib/x]
                ${PATH/lib/bin} ${PATH//\//:} -> [/usr/bin/x.tar.gz :usr:lib:x.tar.gz]
                ${PATH/.*/} ${PATH/?sr/X} -> [/usr/lib/x /X/lib/x.tar.gz]
                ${PATH%\*} -> [/usr/lib/x.tar.gz]
                ${PATH#\a} -> invalid pattern (\a) in substitution: invalid escape '\a'
                ${NO#x} -> []
                ${PATH:#x} -> unsupported modifier (:#) in substitution
                ${PATH/x} -> syntax error: missing '/' in ${}
                ${PATH/x/ -> syntax error: missing '}'
            "#]],
        );
    }

    #[test]
    fn malformed_substitutions_are_named() {
        check(
            "${\n${}\n${:x}\n${{\n${HOME\n${HOME:-x\n${HOME^}\n${HOME:\n${HOME:}",
            expect![[r#"
                ${ -> syntax error: missing '}'
                ${} -> syntax error: bad substitution
                ${:x} -> syntax error: bad substitution
                ${{ -> syntax error: bad substitution
                ${HOME -> syntax error: missing '}'
                ${HOME:-x -> syntax error: missing '}'
                ${HOME^} -> unsupported modifier (^) in substitution
                ${HOME: -> syntax error: missing '}'
                ${HOME:} -> unsupported modifier (:}) in substitution
            "#]],
        );
        let error = expand("${x^}", '\\', environment).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"failed to process "${x^}": unsupported modifier (^) in substitution"#
        );
    }

    #[test]
    fn names_asked_for_are_reported() {
        let expanded = expand("$HOME ${NO:-$EMPTY} '$QUOTED'", '\\', environment).unwrap();
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!((names(&expanded.used).as_str(), names(&expanded.unset).as_str()), ("EMPTY HOME", "NO"));
    }

    #[test]
    fn words_are_split_after_expansion() {
        let words = |text| expand_words(text, '\\', environment).unwrap();
        assert_eq!(words("x$TWO \"$TWO\" $NO c\\ d 'e f'g"), ["xa", "b", "a  b", "c d", "e fg"]);
        assert_eq!(words("80${NO:-81} $EMPTY"), ["8081"]);
    }

    #[test]
    fn the_escape_character_can_be_a_backtick() {
        let text = |word| expand(word, '`', environment).unwrap().text;
        assert_eq!(text(r"c:\dir\`$HOME"), r"c:\dir\$HOME");
        assert_eq!(text("\"`\" \\x\""), "\" \\x");
    }

    #[test]
    fn heredoc_bodies_keep_their_quotes() {
        let body = expand_heredoc("a='$HOME' \"${NO:-x}\" \\$HOME\n", environment).unwrap();
        assert_eq!(body.text, "a='/home' \"x\" $HOME\n");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "${a:-".repeat(100_000);
        assert_eq!(expand(&deep, '\\', environment).unwrap_err().reason, ExpandReason::TooDeep);
    }
}
