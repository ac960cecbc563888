//! Wildcards of file names, by the rules of Go's `filepath.Match`: `*` and `?` stay inside one path
//! component, `[a-z]` and `[^a-z]` are classes, `\` takes the next character literally.

/// A pattern that cannot be read: an open class, an empty one, or a `\` at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether `name` matches `pattern` as a whole.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Glob::compile(pattern, DoubleStar::TwoStars)?.is_match(name.chars()))
}

/// Whether `pattern` holds any character that makes it more than a name.
pub fn is_pattern(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// What `**` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoubleStar {
    /// The same as `*`, as in `filepath.Match`.
    TwoStars,
    /// Any number of path components, none included, as in .dockerignore.
    Components,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: nothing, or [`Token::ComponentsRest`].
    Components,
    /// Text that ends with a slash; always behind [`Token::Components`].
    ComponentsRest,
    /// `**` at the end.
    Everything,
}

impl Glob {
    pub(crate) fn compile(pattern: &str, double_star: DoubleStar) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '*' if double_star == DoubleStar::Components && rest.next_if_eq(&'*').is_some() => {
                    rest.next_if_eq(&'/');
                    match rest.peek() {
                        Some(_) => tokens.extend([Token::Components, Token::ComponentsRest]),
                        None => tokens.push(Token::Everything),
                    }
                }
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(class(&mut rest)?),
                '\\' => tokens.push(Token::Char(rest.next().ok_or(BadPattern)?)),
                c => tokens.push(Token::Char(c)),
            }
        }
        Ok(Self { tokens })
    }

    /// Runs all ways through the pattern at once, so that no pattern can take exponential time.
    pub(crate) fn is_match(&self, name: impl Iterator<Item = char>) -> bool {
        let mut live = vec![false; self.tokens.len() + 1];
        let mut next = live.clone();
        live[0] = true;
        self.skip_empty(&mut live);
        for c in name {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| live[*at]) {
                token.step(at, c, &mut next);
            }
            self.skip_empty(&mut next);
            std::mem::swap(&mut live, &mut next);
            if !live.contains(&true) {
                return false;
            }
        }
        live[self.tokens.len()]
    }

    /// Adds the places reached from live ones without reading a character.
    fn skip_empty(&self, live: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Star | Token::Everything if live[at] => live[at + 1] = true,
                Token::Components if live[at] => (live[at + 1], live[at + 2]) = (true, true),
                _ => {}
            }
        }
    }
}

impl Token {
    /// Marks in `next` where reading `c` at place `at` leads.
    fn step(&self, at: usize, c: char, next: &mut [bool]) {
        match self {
            Self::Char(expected) => next[at + 1] |= c == *expected,
            Self::One => next[at + 1] |= c != '/',
            Self::Class { negated, ranges } => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                next[at + 1] |= within != *negated;
            }
            Self::Star => next[at] |= c != '/',
            Self::Components => {}
            Self::ComponentsRest => {
                next[at] = true;
                next[at + 1] |= c == '/';
            }
            Self::Everything => next[at] = true,
        }
    }
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn class(rest: &mut Rest<'_>) -> Result<Token, BadPattern> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let low = class_char(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { class_char(rest)? } else { low };
        ranges.push((low, high));
    }
    Ok(Token::Class { negated, ranges })
}

fn class_char(rest: &mut Rest<'_>) -> Result<char, BadPattern> {
    match rest.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => rest.next().ok_or(BadPattern),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let table = "
            abc abc yes      *c abc yes       a* a yes        a* ab/c no
            a*/b abc/b yes   a*/b a/c/b no    a*b?c*x abxbbxdbxebxczzx yes
            a*b?c*x abxbbxdbxebxczzy no       ab[c] abc yes   ab[b-d] abc yes
            ab[e-g] abc no   ab[^c] abc no    ab[^e-g] abc yes
            a\\*b a*b yes    a\\*b ab no      a?b a☺b yes     a[^a]b a☺b yes
            a???b a☺b no     a[^a][^a][^a]b a☺b no            [a-ζ]* α yes
            *[a-ζ] A no      a?b a/b no       a*b a/b no      [\\]a] ] yes
            [\\-] - yes      [x\\-] x yes     [x\\-] z no     *x xxx yes
            [] a bad         [-] - bad        [x-] x bad      [-x] x bad
            [ a bad          a[ a bad         a[ ab bad       \\ a bad
            * a/b no         ** ab yes        ** a/b no       a[b-]c abc bad";
        let words: Vec<&str> = table.split_whitespace().collect();
        for row in words.chunks(3) {
            let answer = match matches(row[0], row[1]) {
                Ok(true) => "yes",
                Ok(false) => "no",
                Err(BadPattern) => "bad",
            };
            assert_eq!(answer, row[2], "{row:?}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert_eq!(matches(&"*a".repeat(200), &"a".repeat(150)), Ok(false));
        assert_eq!(matches(&"*a".repeat(200), &"a".repeat(4000)), Ok(true));
    }
}
