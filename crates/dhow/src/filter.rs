use crate::error::CliError;

/// The values of `--filter`, which can be repeated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(String, String)>);

impl Filters {
    /// Reads `name=value` pairs, of which only the names in `known` are allowed. As in docker, `label!=x` is
    /// the name `label!`.
    pub(crate) fn parse(texts: &[String], known: &[&str]) -> Result<Filters, CliError> {
        let parse = |text: &String| {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                CliError::new(format!("bad format of filter '{text}' (expected name=value)"))
            })?;
            let (name, value) = (name.trim().to_lowercase(), value.trim().to_owned());
            match known.contains(&name.as_str()) {
                true => Ok((name, value)),
                false => Err(CliError::new(format!("invalid filter '{name}'"))
                    .hint(format!("known filters are {}", known.join(", ")))),
            }
        };
        Ok(Filters(texts.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// All values of a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a name that makes sense only once; the last one wins.
    pub(crate) fn last(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// The same, as yes or no.
    pub(crate) fn truth(&self, name: &str) -> Result<Option<bool>, CliError> {
        match self.last(name) {
            None => Ok(None),
            Some("true" | "True" | "TRUE" | "1" | "t" | "T") => Ok(Some(true)),
            Some("false" | "False" | "FALSE" | "0" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(CliError::new(format!("invalid filter '{name}={other}'"))),
        }
    }
}
