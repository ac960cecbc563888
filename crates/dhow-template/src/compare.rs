//! `eq ne lt le gt ge`, with Go's rules about which types compare.

use std::cmp::Ordering;

use serde_json::Value;

use crate::value::{Val, type_name};

const INCOMPATIBLE: &str = "incompatible types for comparison";
const INVALID: &str = "invalid type for comparison";

/// Whether the first argument equals any of the others.
pub(crate) fn equals_any(args: &[Val<'_>]) -> Result<bool, String> {
    if args.len() < 2 {
        return Err("missing argument for comparison".into());
    }
    let first = args[0].json();
    for other in &args[1..] {
        if equal(first, other.json())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Array(_) | Value::Object(_), _) => Err(non_comparable(a)),
        (_, Value::Array(_) | Value::Object(_)) => Err(non_comparable(b)),
        _ if type_name(a) != type_name(b) => Err(INCOMPATIBLE.into()),
        _ => Ok(order(a, b) == Some(Ordering::Equal)),
    }
}

fn non_comparable(value: &Value) -> String {
    format!("non-comparable type {}: {}", crate::value::print(value), type_name(value))
}

/// How the first argument stands to the second, for `lt` and its kin.
///
/// `None` is an answer: NaN stands in no relation to anything.
pub(crate) fn ordering(args: &[Val<'_>]) -> Result<Option<Ordering>, String> {
    let (a, b) = (args[0].json(), args[1].json());
    let ordered = |value: &Value| matches!(value, Value::Number(_) | Value::String(_));
    if !ordered(a) || !ordered(b) {
        return Err(INVALID.into());
    }
    if type_name(a) != type_name(b) {
        return Err(INCOMPATIBLE.into());
    }
    Ok(order(a, b))
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (wide(a), wide(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64().partial_cmp(&b.as_f64()),
        },
        _ => None,
    }
}

/// Signed and unsigned integers on one scale.
fn wide(number: &serde_json::Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}
