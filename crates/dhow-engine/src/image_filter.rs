use std::collections::BTreeMap;

use dhow_image::FindError;
use dhow_oci::Reference;
use dhow_store::Image;

/// Which images a list shows. What is not set lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// Those without a name, or those with one.
    pub dangling: Option<bool>,
    /// Those with a name that one of these patterns matches.
    pub references: Vec<String>,
    /// Those with all of these labels, and these values where there is one.
    pub labels: Vec<Label>,
    /// Those without any of these labels.
    pub without_labels: Vec<Label>,
    /// Those older than this image.
    pub before: Option<String>,
    /// Those newer than this image.
    pub since: Option<String>,
    /// Those made before this time, in seconds since 1970.
    pub until: Option<i64>,
    /// Also those without a name that came by the same index as one with a name, for another platform.
    pub other_platforms: bool,
}

/// A label, with any value or a certain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
}

impl Label {
    /// Reads `name` or `name=value`.
    pub fn parse(text: &str) -> Label {
        match text.split_once('=') {
            Some((name, value)) => Label { name: name.to_owned(), value: Some(value.to_owned()) },
            None => Label { name: text.to_owned(), value: None },
        }
    }

    /// Whether it is among `labels`.
    pub fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.name);
        found.is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value))
    }
}

/// Why a filter makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A pattern is malformed.
    #[error("invalid filter 'reference={pattern}': syntax error in pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// The image of `before` or `since` cannot be found.
    #[error(transparent)]
    Find(#[from] FindError),
}

/// A filter that has been looked at once.
pub(crate) struct Matcher<'f> {
    filter: &'f ImageFilter,
    before: Option<i64>,
    since: Option<i64>,
}

impl<'f> Matcher<'f> {
    pub(crate) fn new(
        filter: &'f ImageFilter,
        find: impl Fn(&str) -> Result<Image, FindError>,
    ) -> Result<Matcher<'f>, FilterError> {
        for pattern in &filter.references {
            matches(pattern, "").ok_or_else(|| FilterError::Pattern { pattern: pattern.clone() })?;
        }
        let created = |text: &Option<String>| match text {
            Some(text) => find(text).map(|image| Some(image.record.created)),
            None => Ok(None),
        };
        Ok(Matcher { before: created(&filter.before)?, since: created(&filter.since)?, filter })
    }

    /// The image with those of its names that match, if it is let through.
    pub(crate) fn apply(&self, mut image: Image) -> Option<Image> {
        let ImageFilter { dangling, references, labels, without_labels, until, .. } = self.filter;
        let is_dangling = image.names.is_empty() && image.repo_digests.is_empty();
        let created = image.record.created;
        let passes = dangling.is_none_or(|wanted| wanted == is_dangling)
            && labels.iter().all(|label| label.is_in(&image.record.labels))
            && !without_labels.iter().any(|label| label.is_in(&image.record.labels))
            && self.before.is_none_or(|time| created < time)
            && self.since.is_none_or(|time| created > time)
            && until.is_none_or(|time| created <= time);
        if !passes {
            return None;
        }
        if !references.is_empty() {
            image.names.retain(|name| self.names(&name.reference));
            image.repo_digests.retain(|digest| self.names(&digest.to_string()));
        }
        let is_named = !image.names.is_empty() || !image.repo_digests.is_empty();
        (references.is_empty() || is_named).then_some(image)
    }

    fn names(&self, text: &str) -> bool {
        let Ok(reference) = text.parse::<Reference>() else { return false };
        let (whole, name) = (reference.familiar(), reference.familiar_name());
        let fits = |pattern: &String| {
            matches(pattern, &whole) == Some(true) || matches(pattern, &name) == Some(true)
        };
        self.filter.references.iter().any(fits)
    }
}

/// Go's `path.Match`: `*` and `?` do not match a slash; `None` for a malformed pattern.
fn matches(pattern: &str, text: &str) -> Option<bool> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let tokens = tokens(&pattern)?;
    // Which positions of the text the tokens so far can have reached.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for token in &tokens {
        reached = step(token, &text, &reached);
    }
    Some(reached[text.len()])
}

enum Token {
    Many,
    One,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

fn step(token: &Token, text: &[char], reached: &[bool]) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    for at in 0..reached.len() {
        if matches!(token, Token::Many) {
            let grew = at > 0 && next[at - 1] && text[at - 1] != '/';
            next[at] = reached[at] || grew;
        } else if at > 0 && reached[at - 1] {
            next[at] = fits(token, text[at - 1]);
        }
    }
    next
}

fn fits(token: &Token, c: char) -> bool {
    match token {
        Token::Many => true,
        Token::One => c != '/',
        Token::Literal(wanted) => *wanted == c,
        Token::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
        }
    }
}

fn tokens(pattern: &[char]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern.iter().copied();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => Token::Literal(rest.next()?),
            '[' => class(&mut rest)?,
            c => Token::Literal(c),
        });
    }
    Some(tokens)
}

fn class(rest: &mut impl Iterator<Item = char>) -> Option<Token> {
    let (mut negated, mut ranges) = (false, Vec::new());
    let mut c = rest.next()?;
    if c == '^' {
        negated = true;
        c = rest.next()?;
    }
    while c != ']' || ranges.is_empty() {
        let low = if c == '\\' { rest.next()? } else { c };
        let mut high = low;
        c = rest.next()?;
        if c == '-' {
            high = rest.next()?;
            c = rest.next()?;
        }
        ranges.push((low, high));
    }
    Some(Token::Class { negated, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let check =
            |pattern: &str, text: &str, expected| assert_eq!(matches(pattern, text), expected, "{pattern}");
        check("alp*", "alpine", Some(true));
        check("alp*", "alpine/x", Some(false));
        check("*/*", "me/app", Some(true));
        check("al?ine:[0-9].*", "alpine:3.5", Some(true));
        check("[^a]*", "alpine", Some(false));
        check(r"\*", "*", Some(true));
        check("*a*b*c*", "xaybzc", Some(true));
        check("", "", Some(true));
        for malformed in ["[", "[]", "[a-", r"\"] {
            check(malformed, "a", None);
        }
    }
}
