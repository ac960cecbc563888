//! Values while a template runs: truth, Go type names and Go's way to print them.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::float;

/// What Go prints for a value that is not there.
pub(crate) const NO_VALUE: &str = "<no value>";

/// A value, borrowed from the data where possible.
#[derive(Debug, Clone)]
pub(crate) enum Val<'v> {
    /// Nothing at all, as a map's missing key. JSON's `null` is a value.
    Missing,
    /// A piece of the data, or the result of a function.
    Json(Cow<'v, Value>),
}

impl<'v> Val<'v> {
    pub(crate) fn borrowed(value: &'v Value) -> Self {
        Self::Json(Cow::Borrowed(value))
    }

    /// The value as JSON; a missing one is `null`.
    pub(crate) fn json(&self) -> &Value {
        match self {
            Self::Missing => &Value::Null,
            Self::Json(value) => value,
        }
    }

    pub(crate) fn into_json(self) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::Json(value) => value.into_owned(),
        }
    }

    /// A part of this value, borrowed from the data if this value is.
    pub(crate) fn part(&self, pick: impl for<'a> Fn(&'a Value) -> Option<&'a Value>) -> Option<Self> {
        match self {
            Self::Missing => None,
            Self::Json(Cow::Borrowed(value)) => pick(value).map(Self::borrowed),
            Self::Json(Cow::Owned(value)) => pick(value).cloned().map(Self::from),
        }
    }

    /// Whether `if` takes the first branch: false, 0, null and what is empty are not true.
    pub(crate) fn is_true(&self) -> bool {
        match self.json() {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
        }
    }

    /// The text an action writes.
    pub(crate) fn print(&self) -> Cow<'_, str> {
        match self.json() {
            Value::Null => NO_VALUE.into(),
            Value::String(text) => text.into(),
            value => print(value).into(),
        }
    }
}

impl<T: Into<Value>> From<T> for Val<'_> {
    fn from(value: T) -> Self {
        Self::Json(Cow::Owned(value.into()))
    }
}

/// Go's `%v`.
pub(crate) fn print(value: &Value) -> String {
    let mut out = String::new();
    print_to(value, &mut out);
    out
}

fn print_to(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) if number.is_f64() => {
            out.push_str(&float::format(number.as_f64().unwrap_or_default(), 'g', None));
        }
        Value::Number(number) => {
            let _infallible = write!(out, "{number}");
        }
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                print_to(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (i, (key, item)) in sorted(map).into_iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                print_to(item, out);
            }
            out.push(']');
        }
    }
}

/// The entries in the order in which Go prints and ranges over maps.
pub(crate) fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// The type Go's decoder would have given the value.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
