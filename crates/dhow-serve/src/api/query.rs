//! What stands behind the question mark.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ApiError;

/// The pairs of a query.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads them. What is not text is left out: no parameter is anything else.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = |text: &str| decode(&text.replace('+', " "));
            Some((plus(name)?, plus(value)?))
        });
        Self(pairs.collect())
    }

    /// A parameter; one that is empty is not there.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be repeated.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A switch, in Docker's reading: everything is yes but these.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        let value = self.get(name).map(str::to_ascii_lowercase);
        !matches!(value.as_deref(), None | Some("" | "0" | "no" | "false" | "none"))
    }

    /// A switch that is on unless it is turned off.
    pub(crate) fn is_not_refused(&self, name: &str) -> bool {
        self.get(name).is_none() || self.is_set(name)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::bad(format!("invalid value {text:?} for the parameter {name}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// `filters`, of either encoding: lists of values, or maps of values to true.
    pub(crate) fn filters(&self) -> Result<Filters, ApiError> {
        let Some(text) = self.get("filters") else { return Ok(Filters::default()) };
        let invalid = || ApiError::bad("invalid filter");
        let written: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| invalid())?;
        let mut filters = BTreeMap::new();
        for (name, values) in written {
            let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(invalid);
            let values: Vec<String> = match values {
                Value::Array(values) => values.iter().map(text).collect::<Result<_, _>>()?,
                Value::Object(values) => values
                    .into_iter()
                    .filter(|(_, on)| *on != Value::Bool(false))
                    .map(|(value, _)| value)
                    .collect(),
                _ => return Err(invalid()),
            };
            filters.insert(name, values);
        }
        Ok(Filters(filters))
    }
}

/// What a list is narrowed down to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters(pub(crate) BTreeMap<String, Vec<String>>);

impl Filters {
    /// The values of one filter.
    pub(crate) fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Refuses filters nobody knows, in Docker's words.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(ApiError::bad(format!("invalid filter '{name}'"))),
        }
    }

    /// Each as the command line has them: `name=value`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let each = |(name, values): (&String, &Vec<String>)| {
            values.iter().map(|value| format!("{name}={value}")).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(each).collect()
    }
}

/// Undoes percent-encoding. `None` if that gives no text; a percent sign that begins no escape stands for itself.
pub(crate) fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).filter(|hex| first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let escaped = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = &rest[if escaped.is_some() { 3 } else { 1 }..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_in_two_encodings() {
        let read =
            |text: &str| Query::parse(&format!("filters={text}")).filters().map(|filters| filters.lines());
        let expected = Some(vec!["label=a=b".to_owned(), "label=c".to_owned()]);
        assert_eq!(read(r#"{"label":["a%3Db","c"]}"#).ok(), expected);
        assert_eq!(read(r#"{"label":{"a%3Db":true,"c":true,"d":false}}"#).ok(), expected);
        assert_eq!(read("").ok(), Some(vec![]));
        for wrong in ["[]", "{", r#"{"label":1}"#, r#"{"label":[1]}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_switch_is_on_unless_it_says_no() {
        let query = Query::parse("a=1&b=true&c=0&d=False&e=&f=yes");
        let on = ["a", "b", "c", "d", "e", "f", "g"].map(|name| query.is_set(name));
        assert_eq!(on, [true, true, false, false, false, true, false]);
        assert!(query.is_not_refused("g") && !query.is_not_refused("c"));
    }
}
