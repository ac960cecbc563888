//! The form of an instruction: keyword, flags and operands, before they are given a meaning.
use std::borrow::Cow;

use crate::suggest::nearest;

/// The instructions of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

const KEYWORDS: [(&str, Keyword); 18] = [
    ("ADD", Keyword::Add),
    ("ARG", Keyword::Arg),
    ("CMD", Keyword::Cmd),
    ("COPY", Keyword::Copy),
    ("ENTRYPOINT", Keyword::Entrypoint),
    ("ENV", Keyword::Env),
    ("EXPOSE", Keyword::Expose),
    ("FROM", Keyword::From),
    ("HEALTHCHECK", Keyword::Healthcheck),
    ("LABEL", Keyword::Label),
    ("MAINTAINER", Keyword::Maintainer),
    ("ONBUILD", Keyword::Onbuild),
    ("RUN", Keyword::Run),
    ("SHELL", Keyword::Shell),
    ("STOPSIGNAL", Keyword::StopSignal),
    ("USER", Keyword::User),
    ("VOLUME", Keyword::Volume),
    ("WORKDIR", Keyword::Workdir),
];

impl Keyword {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        KEYWORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, keyword)| *keyword)
    }

    /// The keyword in capitals.
    pub(crate) fn name(self) -> &'static str {
        KEYWORDS.iter().find(|(_, keyword)| *keyword == self).map_or("", |(name, _)| name)
    }

    /// The keyword `word` may have been meant to be.
    pub(crate) fn nearest(word: &str) -> Option<&'static str> {
        nearest(word, &KEYWORDS.map(|(name, _)| name))
    }
}

/// An instruction split into its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// The keyword as typed, which may be none at all.
    pub(crate) word: String,
    pub(crate) keyword: Option<Keyword>,
    pub(crate) flags: Vec<String>,
    /// The text behind the flags.
    pub(crate) rest: String,
    pub(crate) operands: Operands,
    /// A comment at the end where no operand can be meant: behind a JSON array, FROM, EXPOSE or pairs.
    pub(crate) comment: Option<String>,
}

/// What stands behind the flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operands {
    /// Words split at blanks, or one text.
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// `k=v …`, or the older `k v`.
    Pairs { pairs: Vec<(String, String)>, legacy: bool },
    /// HEALTHCHECK: its type and what follows.
    Typed(String, Box<Operands>),
    /// ONBUILD: an instruction.
    Trigger(Box<Form>),
}

impl Operands {
    pub(crate) fn is_json(&self) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Typed(_, operands) => operands.is_json(),
            _ => false,
        }
    }

    pub(crate) fn words(self) -> Vec<String> {
        match self {
            Self::Words(words) | Self::Json(words) => words,
            Self::Pairs { .. } | Self::Typed(..) | Self::Trigger(_) => Vec::new(),
        }
    }
}

impl Form {
    /// Splits a logical line.
    pub(crate) fn parse(line: &str, escape: char) -> Result<Self, String> {
        Self::parse_nested(line, escape, true)
    }

    fn parse_nested(line: &str, escape: char, triggers: bool) -> Result<Self, String> {
        let (word, rest) = split_at_blanks(line.trim());
        let (flags, rest) = take_flags(rest, escape);
        let rest = rest.trim();
        let keyword = Keyword::parse(word);
        let mut form = Self {
            word: word.to_owned(),
            keyword,
            flags,
            rest: rest.to_owned(),
            operands: Operands::Words(Vec::new()),
            comment: None,
        };
        if rest.is_empty() {
            return Ok(form);
        }
        form.operands = match keyword {
            Some(Keyword::Onbuild) if triggers => {
                Operands::Trigger(Box::new(Self::parse_nested(rest, escape, false)?))
            }
            Some(keyword) => form.operands_of(keyword, rest, escape)?,
            None => Operands::Words(Vec::new()),
        };
        Ok(form)
    }

    fn operands_of(&mut self, keyword: Keyword, rest: &str, escape: char) -> Result<Operands, String> {
        match keyword {
            Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell => self.json_or_text(rest),
            Keyword::Add | Keyword::Copy | Keyword::Volume => {
                Ok(self.json(rest)?.unwrap_or_else(|| Operands::Words(blank_separated(rest))))
            }
            Keyword::Expose => Ok(Operands::Words(self.words_before_comment(rest, |_| true))),
            Keyword::From => Ok(Operands::Words(self.words_before_comment(rest, |words| !is_from(words)))),
            Keyword::Env | Keyword::Label => self.pairs(rest, keyword.name(), escape),
            Keyword::Arg => {
                Ok(Operands::Words(quoted_words(rest, escape).into_iter().map(|(_, word)| word).collect()))
            }
            Keyword::Healthcheck => {
                let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let command = self.json_or_text(command.trim_start())?;
                Ok(Operands::Typed(kind.to_owned(), Box::new(command)))
            }
            Keyword::Maintainer
            | Keyword::Onbuild
            | Keyword::StopSignal
            | Keyword::User
            | Keyword::Workdir => Ok(Operands::Words(vec![rest.to_owned()])),
        }
    }

    fn json_or_text(&mut self, rest: &str) -> Result<Operands, String> {
        let text = || {
            Operands::Words(
                Some(rest).filter(|rest| !rest.is_empty()).map(str::to_owned).into_iter().collect(),
            )
        };
        Ok(self.json(rest)?.unwrap_or_else(text))
    }

    /// The words of `rest`, without a comment at the end where Docker could not read it as words:
    /// `is_wrong` tells, given all of them.
    fn words_before_comment(&mut self, rest: &str, is_wrong: impl Fn(&[String]) -> bool) -> Vec<String> {
        let words = blank_separated(rest);
        match cut_comment(rest) {
            Some((kept, comment)) if is_wrong(&words) => {
                self.comment = Some(comment.to_owned());
                blank_separated(kept)
            }
            _ => words,
        }
    }

    /// `k=v` words, or `k v`. Words that could not be pairs may be a comment.
    fn pairs(&mut self, rest: &str, name: &str, escape: char) -> Result<Operands, String> {
        let mut words = quoted_words(rest, escape);
        let is_pair = |(_, word): &(usize, String)| word.contains('=');
        if !words.first().is_some_and(is_pair) {
            let (key, value) = split_at_blanks(rest);
            let pairs = vec![(key.to_owned(), value.to_owned())];
            return if value.is_empty() {
                Err(format!("{name} must have two arguments"))
            } else {
                Ok(Operands::Pairs { pairs, legacy: true })
            };
        }
        let comment = words.iter().position(|(_, word)| word.starts_with('#'));
        if let Some(at) = comment.filter(|at| *at > 0 && !words[*at..].iter().all(is_pair)) {
            self.comment = Some(rest[words[at].0..].to_owned());
            words.truncate(at);
        }
        let pair = |(_, word): (usize, String)| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
        };
        let pairs = words.into_iter().map(pair).collect::<Result<_, _>>()?;
        Ok(Operands::Pairs { pairs, legacy: false })
    }

    /// Reads `rest` as a JSON array of strings, possibly followed by a comment. What is no JSON is
    /// no error: it is something else.
    fn json(&mut self, rest: &str) -> Result<Option<Operands>, String> {
        if !rest.starts_with('[') {
            return Ok(None);
        }
        let text = without_lone_surrogates(rest);
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Vec<serde_json::Value>>();
        let Some(Ok(array)) = values.next() else { return Ok(None) };
        let behind = rest[values.byte_offset()..].trim_start();
        let is_comment = behind.starts_with('#') && !is_shell_test(rest, &array);
        if !behind.is_empty() && !is_comment {
            return Ok(None);
        }
        let strings = array.into_iter().map(|value| match value {
            serde_json::Value::String(text) => Ok(text),
            _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
        });
        let strings = strings.collect::<Result<Vec<_>, _>>()?;
        self.comment = Some(behind).filter(|comment| !comment.is_empty()).map(str::to_owned);
        Ok(Some(Operands::Json(strings)))
    }
}

/// `text` with `\ufffd` for each half of a surrogate pair that has no other half, as Go reads it and JSON's
/// grammar allows. Nothing moves: both are as long.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    };
    let mut replaced = Cow::Borrowed(text);
    let mut at = 0;
    while let Some(next) = text[at..].find('\\') {
        at += next;
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                replaced.to_mut().replace_range(at..at + 6, "\\ufffd");
                6
            }
            (Some(_), _) => 6,
            // What is escaped is one character, which must not be cut in two.
            (None, _) => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    replaced
}

/// Whether FROM can be made of these words.
pub(crate) fn is_from(words: &[String]) -> bool {
    words.len() == 1 || (words.len() == 3 && words[1].eq_ignore_ascii_case("as"))
}

/// `[ "$x" ] # comment` is JSON and a shell's test at once. Docker gives it to the shell.
fn is_shell_test(rest: &str, array: &[serde_json::Value]) -> bool {
    array.len() == 1 && rest[1..].starts_with([' ', '\t'])
}

const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// The text before and after the first run of blanks.
fn split_at_blanks(text: &str) -> (&str, &str) {
    match text.split_once(BLANKS) {
        Some((first, rest)) => (first, rest.trim_start_matches(BLANKS)),
        None => (text, ""),
    }
}

fn blank_separated(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The text before and from the first word, not itself the first, that begins with `#`.
pub(crate) fn cut_comment(text: &str) -> Option<(&str, &str)> {
    let begins = |at: &usize| text[..*at].ends_with(BLANKS);
    let at = text.match_indices('#').map(|(at, _)| at).find(begins)?;
    let kept = text[..at].trim_end();
    (!kept.is_empty()).then_some((kept, &text[at..]))
}

/// Takes the leading words that begin with `--`, quotes and escapes resolved. `--` alone ends them.
fn take_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, behind) = flag_word(rest, escape);
        rest = behind.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// One word, and what is behind it.
fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == escape {
            word.extend(chars.next().map(|(_, c)| c));
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_some() {
            word.push(c);
        } else if c.is_whitespace() {
            return (word, &text[at..]);
        } else if matches!(c, '\'' | '"') {
            quote = Some(c);
        } else {
            word.push(c);
        }
    }
    (word, "")
}

/// Words separated by blanks outside quotes, with the place where each begins. Quotes and escapes
/// stay, expansion resolves them; a lone escape at the very end is dropped.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut quote = None;
    let mut inside = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            inside = false;
            continue;
        }
        if !inside {
            words.push((at, String::new()));
            inside = true;
        }
        let word = &mut words.last_mut().expect("a word was begun").1;
        if c == escape && quote != Some('\'') {
            let Some((_, escaped)) = chars.next() else { break };
            word.extend([c, escaped]);
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        word.push(c);
    }
    words.retain(|(_, word)| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_surrogate_pair_is_replaced_as_go_does() {
        for (text, expected) in [
            (r#"["a\\ud800b"]"#, r#"["a\\ud800b"]"#),
            (r#"["\ud83d\ude00"]"#, r#"["\ud83d\ude00"]"#),
            (r#"["\ud83d"]"#, r#"["\ufffd"]"#),
            (r#"["\ude00\ud83d"]"#, r#"["\ufffd\ufffd"]"#),
            (r#"["\ud83d\ud83d\ude00x"]"#, r#"["\ufffd\ud83d\ude00x"]"#),
            (r#"["\ud83d\u0041"]"#, r#"["\ufffd\u0041"]"#),
            (r#"["\uD83D\uDE0"]"#, r#"["\ufffd\uDE0"]"#),
            ("[\"\\", "[\"\\"),
            ("[\"\\é\\u00e9", "[\"\\é\\u00e9"),
            ("\\u+123\\u12é", "\\u+123\\u12é"),
        ] {
            assert_eq!(without_lone_surrogates(text), expected);
        }
        let form = Form::parse(r#"CMD ["echo", "\ud800", "\ud83d\ude00"]  # half"#, '\\').expect("a form");
        let words = ["echo", "\u{fffd}", "\u{1f600}"].map(str::to_owned);
        assert_eq!(form.operands, Operands::Json(words.into()));
        assert_eq!(form.comment.as_deref(), Some("# half"));
    }
}
