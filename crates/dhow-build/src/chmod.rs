//! The value of `--chmod`: octal or symbolic.

use std::fmt;

/// A change to permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// Exactly these bits.
    Octal(u32),
    /// Clauses such as `u=rwX,go-w`, applied in order.
    Symbolic(Vec<Clause>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Bits of the classes named: 0o700, 0o070, 0o007 or-ed.
    classes: u32,
    operator: char,
    /// Letters of `rwxXst`, or one of `ugo` for what that class has.
    letters: String,
}

impl Chmod {
    /// Reads the value. The error is the text Docker's users know.
    pub(crate) fn parse(text: &str) -> Result<Chmod, String> {
        if text.bytes().all(|c| c.is_ascii_digit()) && !text.is_empty() {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Chmod::Octal(mode)),
                _ => Err(format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                )),
            };
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(parse_clauses).collect();
        let clauses = clauses.map(|clauses| clauses.into_iter().flatten().collect());
        clauses.map(Chmod::Symbolic).ok_or_else(|| format!("invalid chmod parameter: '{text}'"))
    }

    /// The bits a file with `mode` gets.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Chmod::Octal(bits) => *bits,
            Chmod::Symbolic(clauses) => clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }
}

impl fmt::Display for Chmod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chmod::Octal(bits) => write!(f, "{bits:04o}"),
            Chmod::Symbolic(clauses) => {
                let clauses: Vec<String> = clauses.iter().map(Clause::to_string).collect();
                f.write_str(&clauses.join(","))
            }
        }
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bits, class) in [(0o700, 'u'), (0o070, 'g'), (0o007, 'o')] {
            if self.classes & bits != 0 {
                write!(f, "{class}")?;
            }
        }
        write!(f, "{}{}", self.operator, self.letters)
    }
}

/// The classes, then one operator with its letters after another.
fn parse_clauses(text: &str) -> Option<Vec<Clause>> {
    const OPERATORS: [char; 3] = ['=', '+', '-'];
    let at = text.find(OPERATORS)?;
    let classes = text[..at].chars().try_fold(0, |bits, class| {
        Some(
            bits | match class {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            },
        )
    })?;
    let classes = if classes == 0 { 0o777 } else { classes };
    let mut clauses = Vec::new();
    let mut rest = &text[at..];
    while let Some(operator) = rest.chars().next() {
        let letters = &rest[1..];
        let letters = &letters[..letters.find(OPERATORS).unwrap_or(letters.len())];
        let is_copy = matches!(letters, "u" | "g" | "o");
        if !is_copy && !letters.chars().all(|c| "rwxXst".contains(c)) {
            return None;
        }
        clauses.push(Clause { classes, operator, letters: letters.to_owned() });
        rest = &rest[1 + letters.len()..];
    }
    Some(clauses)
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let bits = self.letters.chars().fold(0, |bits, letter| bits | self.bits(letter, mode, is_dir));
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !self.replaced()) | bits,
        }
    }

    /// What `=` replaces: the bits of the classes, with the special bit that goes with each.
    fn replaced(&self) -> u32 {
        let special = [(0o700, 0o4000), (0o070, 0o2000), (0o007, 0o1000)];
        special
            .iter()
            .filter(|(class, _)| self.classes & class != 0)
            .fold(self.classes, |all, (_, bit)| all | bit)
    }

    fn bits(&self, letter: char, mode: u32, is_dir: bool) -> u32 {
        let everybody = match letter {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            'X' if is_dir || mode & 0o111 != 0 => 0o111,
            'u' => (mode >> 6 & 7) * 0o111,
            'g' => (mode >> 3 & 7) * 0o111,
            'o' => (mode & 7) * 0o111,
            't' => return 0o1000,
            's' => return ((self.classes & 0o700) << 3 & 0o4000) | ((self.classes & 0o070) << 5 & 0o2000),
            _ => 0,
        };
        everybody & self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        for (text, mode, is_dir, expected) in [
            ("755", 0o644, false, 0o755),
            ("0600", 0o777, false, 0o600),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,o+t", 0o755, true, 0o3755),
            ("go=", 0o777, false, 0o700),
            ("g=u", 0o750, false, 0o770),
            ("go=u-w", 0o600, false, 0o644),
            ("u=rw+x,o-rwx", 0o067, false, 0o760),
        ] {
            assert_eq!(Chmod::parse(text).expect(text).apply(mode, is_dir), expected, "{text}");
        }
        for text in ["", "888", "10000", "u~x", "z+x", "u+q", "u=gr", "u", "u+r/"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
