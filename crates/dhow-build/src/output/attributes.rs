use std::collections::BTreeMap;

use dhow_oci::Reference;

/// Why an output cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OutputError {
    message: String,
    /// Something the user can do about it.
    pub hint: Option<String>,
}

impl OutputError {
    pub(crate) fn new(message: impl Into<String>) -> OutputError {
        OutputError { message: message.into(), hint: None }
    }

    /// Why standard output is not to be had.
    pub fn refused(message: impl Into<String>) -> OutputError {
        OutputError::new(message)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> OutputError {
        self.hint = Some(hint.into());
        self
    }
}

/// The attributes of an output, each of which is asked for once.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Whose they are, for errors.
    of: String,
    values: BTreeMap<String, String>,
}

impl Attributes {
    /// The attributes of an output of this `type`.
    pub fn new(kind: &str, values: BTreeMap<String, String>) -> Attributes {
        Attributes { of: format!("output {kind}"), values }
    }

    /// The attributes of an attestation of this `type`.
    pub(super) fn of_attestation(kind: &str, values: BTreeMap<String, String>) -> Attributes {
        Attributes { of: format!("attestation {kind}"), values }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    pub(super) fn truth(&mut self, key: &str) -> Result<Option<bool>, OutputError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_str() {
            // An attribute without a value is meant.
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(self.invalid(key, &value, "write true or false")),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, OutputError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| self.invalid(key, &value, "write a number"))
    }

    /// Names, separated by commas.
    pub(super) fn names(&mut self, key: &str) -> Result<Vec<Reference>, OutputError> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let parse =
            |name: &str| name.trim().parse().map_err(|error| OutputError::new(format!("{name}: {error}")));
        value.split(',').filter(|name| !name.trim().is_empty()).map(parse).collect()
    }

    pub(super) fn invalid(&self, key: &str, value: &str, hint: &str) -> OutputError {
        OutputError::new(format!("invalid value {value:?} for {key} of {}", self.of)).hint(hint)
    }

    /// Refuses an attribute that turns on what dhow does not do. Turning it off asks for nothing.
    pub(super) fn refuse(&mut self, key: &str, hint: Option<&str>) -> Result<(), OutputError> {
        if !self.values.contains_key(key) || self.truth(key) == Ok(Some(false)) {
            return Ok(());
        }
        let error = OutputError::new(format!("{key} of {} is not supported yet", self.of));
        Err(hint.map_or(error.clone(), |hint| error.hint(hint)))
    }

    /// The attributes whose names begin so.
    pub(super) fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, kept) =
            std::mem::take(&mut self.values).into_iter().partition(|(key, _)| key.starts_with(prefix));
        self.values = kept;
        let taken: BTreeMap<String, String> = taken;
        taken.into_iter().collect()
    }

    /// Complains about what nobody asked for.
    pub(super) fn end(self) -> Result<(), OutputError> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(key) => Err(OutputError::new(format!("unknown attribute {key:?} of {}", self.of))),
        }
    }
}
