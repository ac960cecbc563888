//! `--name=value` between an instruction and its operands.
use crate::suggest::did_you_mean;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// `--name` or `--name=true|false`
    Switch,
    /// `--name=text`, once
    Text,
    /// `--name=text`, any number of times
    List,
}

/// The flags an instruction knows.
pub(crate) type FlagSpec = [(&'static str, FlagKind)];

/// The flags given, checked against a [`FlagSpec`].
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(String, String)>,
}

impl Flags {
    /// Checks the flags given; the errors are all of them.
    pub(crate) fn check(words: &[String], spec: &FlagSpec) -> Result<Self, Vec<String>> {
        let mut flags = Self::default();
        let mut errors = Vec::new();
        for word in words {
            match flags.read(word, spec) {
                Ok(flag) => flags.given.push(flag),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(flags) } else { Err(errors) }
    }

    fn read(&self, word: &str, spec: &FlagSpec) -> Result<(String, String), String> {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        };
        let name = flag.strip_prefix("--").unwrap_or(flag);
        let Some((_, kind)) = spec.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = spec.iter().map(|(known, _)| *known).collect();
            return Err(format!("unknown flag: {flag}{}", did_you_mean(name, &known)));
        };
        if *kind != FlagKind::List && self.given.iter().any(|(given, _)| given == name) {
            return Err(format!("duplicate flag specified: {flag}"));
        }
        let value = match (kind, value) {
            (FlagKind::Switch, None) => "true".to_owned(),
            (FlagKind::Switch, Some("")) | (FlagKind::Text | FlagKind::List, None) => {
                return Err(format!("missing a value on flag: {flag}"));
            }
            (FlagKind::Switch, Some(value)) => match value.to_lowercase().as_str() {
                value @ ("true" | "false") => value.to_owned(),
                _ => return Err(format!("expecting boolean value for flag {flag}, not: {value}")),
            },
            (FlagKind::Text | FlagKind::List, Some(value)) => value.to_owned(),
        };
        Ok((name.to_owned(), value))
    }

    /// The value of a flag; an empty one counts as not given.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.list(name).pop().filter(|value| !value.is_empty())
    }

    /// The value of a switch, if given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.list(name).pop().map(|value| value == "true")
    }

    /// Every value of a flag, in order.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }
}
