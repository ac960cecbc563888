//! The patterns inside `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*` and `?`
//! only, neither of which matches a line break.

/// How far a `*` reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Shortest,
    Longest,
}

#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug)]
enum Token {
    Char(char),
    One,
    Star,
}

impl Pattern {
    /// Reads a pattern; the error is the escape it does not know.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    Some(c) => return Err(format!("\\{c}")),
                    None => return Err("\\".to_owned()),
                },
                c => Token::Char(c),
            });
        }
        Ok(Self { tokens })
    }

    /// `value` without the part the pattern matches at its beginning.
    pub(crate) fn trim_start(&self, value: &str, reach: Reach) -> String {
        let value: Vec<char> = value.chars().collect();
        let end = self.end_of_match(&value, reach).unwrap_or(0);
        value[end..].iter().collect()
    }

    /// `value` without the part the pattern matches at its end.
    pub(crate) fn trim_end(&self, value: &str, reach: Reach) -> String {
        let backwards = Self { tokens: self.tokens.iter().rev().copied().collect() };
        let reversed: Vec<char> = value.chars().rev().collect();
        let end = backwards.end_of_match(&reversed, reach).unwrap_or(0);
        reversed[end..].iter().rev().collect()
    }

    /// `value` with the first, or every, longest match replaced.
    pub(crate) fn replace(&self, value: &str, replacement: &str, every: bool) -> String {
        let value: Vec<char> = value.chars().collect();
        let mut out = String::with_capacity(value.len());
        let (mut at, mut behind_match, mut replaced) = (0, false, false);
        while at <= value.len() {
            let end = match self.end_of_match(&value[at..], Reach::Longest) {
                Some(length) if (every || !replaced) && !(length == 0 && behind_match) => {
                    out.push_str(replacement);
                    (behind_match, replaced) = (length > 0, true);
                    at + length
                }
                _ => {
                    behind_match = false;
                    at
                }
            };
            if end == at {
                out.extend(value.get(at));
                at += 1;
            } else {
                at = end;
            }
        }
        out
    }

    /// Where a match that begins at the start of `value` ends.
    fn end_of_match(&self, value: &[char], reach: Reach) -> Option<usize> {
        let count = self.tokens.len();
        let mut live = vec![false; count + 1];
        live[0] = true;
        let mut found = None;
        for at in 0..=value.len() {
            for (index, token) in self.tokens.iter().enumerate() {
                if live[index] && matches!(token, Token::Star) {
                    live[index + 1] = true;
                }
            }
            if live[count] {
                found = Some(at);
                if reach == Reach::Shortest {
                    break;
                }
            }
            let Some(c) = value.get(at) else { break };
            live = self.step(&live, *c);
            if !live.contains(&true) {
                break;
            }
        }
        found
    }

    fn step(&self, live: &[bool], c: char) -> Vec<bool> {
        let mut next = vec![false; live.len()];
        for (index, token) in self.tokens.iter().enumerate().filter(|(index, _)| live[*index]) {
            match token {
                Token::Char(expected) => next[index + 1] |= c == *expected,
                Token::One => next[index + 1] |= c != '\n',
                Token::Star => next[index] |= c != '\n',
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_with_an_empty_pattern_goes_between_characters() {
        let empty = Pattern::parse("").unwrap();
        assert_eq!(empty.replace("ab", "-", true), "-a-b-");
        assert_eq!(empty.replace("ab", "-", false), "-ab");
        let star = Pattern::parse("a*").unwrap();
        assert_eq!(star.replace("bab", "-", true), "b-");
    }
}
