//! The functions a template can call: Go's own and those docker adds.
//!
//! `and` and `or` are not here: they decide whether their arguments are evaluated at all, so the
//! evaluator does them.

use std::cmp::Ordering;
use std::fmt::Write;

use serde_json::Value;

use crate::value::{Val, print, type_name};
use crate::{compare, json, printf};

/// The longest text a function may make: padding and doubling must not eat the machine.
pub(crate) const TEXT_BYTES_MAX: usize = 8 << 20;
const NO_ITEM: &str = "index of untyped nil";
/// The most pieces `split` may make.
const PIECES_MAX: usize = 1 << 16;

/// Why a function gave no result.
pub(crate) enum Fault {
    /// The arguments are of the right types, but make no sense.
    Call(String),
    /// An argument is of the wrong type.
    Argument { at: usize, expected: &'static str },
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::Call(message)
    }
}

impl From<&str> for Fault {
    fn from(message: &str) -> Self {
        Self::Call(message.to_owned())
    }
}

type Answer<'v> = Result<Val<'v>, Fault>;

/// A function and how many arguments it takes.
pub(crate) struct Function {
    pub(crate) least: usize,
    pub(crate) most: Option<usize>,
    pub(crate) run: for<'v> fn(&[Val<'v>]) -> Answer<'v>,
}

/// Whether a template may name this function.
pub(crate) fn exists(name: &str) -> bool {
    matches!(name, "and" | "or") || lookup(name).is_some()
}

/// The function of that name, `and` and `or` excepted.
pub(crate) fn lookup(name: &str) -> Option<Function> {
    let exactly = |n, run| Function { least: n, most: Some(n), run };
    let at_least = |n, run| Function { least: n, most: None, run };
    Some(match name {
        "eq" => at_least(1, |args| Ok(Val::from(compare::equals_any(args)?))),
        "ge" => exactly(2, |args| relation(args, Ordering::is_ge)),
        "gt" => exactly(2, |args| relation(args, Ordering::is_gt)),
        "html" => at_least(0, |args| text(escape_html(&print_all(args)))),
        "index" => at_least(1, index),
        "join" => exactly(2, join),
        "js" => at_least(0, |args| text(escape_js(&print_all(args)))),
        "json" => exactly(1, |args| text(json::compact(args[0].json()))),
        "le" => exactly(2, |args| relation(args, Ordering::is_le)),
        "len" => exactly(1, len),
        "lower" => exactly(1, |args| text(map_case(string(args, 0)?, char::to_lowercase))),
        "lt" => exactly(2, |args| relation(args, Ordering::is_lt)),
        "ne" => exactly(2, |args| Ok(Val::from(!compare::equals_any(args)?))),
        "not" => exactly(1, |args| Ok(Val::from(!args[0].is_true()))),
        "pad" => exactly(3, pad),
        "print" => at_least(0, |args| text(sprint(args))),
        "printf" => at_least(1, printf_),
        "println" => at_least(0, |args| text(sprintln(args))),
        "slice" => at_least(1, slice),
        "split" => exactly(2, split),
        "title" => exactly(1, |args| text(title(string(args, 0)?))),
        "truncate" => exactly(2, truncate),
        "upper" => exactly(1, |args| text(map_case(string(args, 0)?, char::to_uppercase))),
        "urlquery" => at_least(0, |args| text(escape_query(&print_all(args)))),
        _ => return None,
    })
}

fn text<'v>(text: String) -> Answer<'v> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(too_long());
    }
    Ok(Val::from(text))
}

pub(crate) fn too_long() -> Fault {
    format!("result is longer than {TEXT_BYTES_MAX} bytes").into()
}

fn relation<'v>(args: &[Val<'v>], holds: fn(Ordering) -> bool) -> Answer<'v> {
    Ok(Val::from(compare::ordering(args)?.is_some_and(holds)))
}

fn string<'a>(args: &'a [Val<'_>], at: usize) -> Result<&'a str, Fault> {
    args[at].json().as_str().ok_or(Fault::Argument { at, expected: "string" })
}

fn integer(args: &[Val<'_>], at: usize) -> Result<i64, Fault> {
    args[at].json().as_i64().ok_or(Fault::Argument { at, expected: "int" })
}

/// `index x 1 "k"` is x[1]["k"].
///
/// Labels, options and the like are maps of strings in docker, where a missing key reads as the
/// empty string; a `null` stands for such a map that was never made. Any other map has no value.
fn index<'v>(args: &[Val<'v>]) -> Answer<'v> {
    let mut item = args[0].clone();
    if item.json().is_null() && args.len() == 1 {
        return Err(NO_ITEM.into());
    }
    for key in &args[1..] {
        item = index_one(&item, key)?;
    }
    Ok(item)
}

fn index_one<'v>(item: &Val<'v>, key: &Val<'_>) -> Answer<'v> {
    if matches!(item, Val::Missing) {
        return Err(NO_ITEM.into());
    }
    match (item.json(), key.json()) {
        (Value::Object(map), Value::String(name)) => {
            let absent = if map.values().all(Value::is_string) { Val::from("") } else { Val::Missing };
            Ok(item.part(|value| value.get(name)).unwrap_or(absent))
        }
        (Value::Object(_), other) => {
            Err(format!("value has type {}; should be string", type_name(other)).into())
        }
        (Value::Null, Value::String(_)) => Ok(Val::from("")),
        (Value::Null, _) => Err(NO_ITEM.into()),
        (Value::Array(items), _) => {
            let at = position(key, items.len().saturating_sub(1))?;
            item.part(|value| value.get(at)).ok_or_else(|| out_of_range(key).into())
        }
        (Value::String(text), _) => {
            let at = position(key, text.len().saturating_sub(1))?;
            text.as_bytes().get(at).map(|byte| Val::from(*byte)).ok_or_else(|| out_of_range(key).into())
        }
        (other, _) => Err(format!("can't index item of type {}", type_name(other)).into()),
    }
}

fn position(key: &Val<'_>, most: usize) -> Result<usize, String> {
    let Some(at) = key.json().as_i64() else {
        return Err(match key.json() {
            Value::Null => "cannot index slice/array with nil".into(),
            other => format!("cannot index slice/array with type {}", type_name(other)),
        });
    };
    usize::try_from(at).ok().filter(|at| *at <= most).ok_or_else(|| out_of_range(key))
}

fn out_of_range(key: &Val<'_>) -> String {
    format!("index out of range: {}", print(key.json()))
}

fn len<'v>(args: &[Val<'v>]) -> Answer<'v> {
    match args[0].json() {
        _ if matches!(args[0], Val::Missing) => Err("len of nil pointer".into()),
        // Go's nil slices and maps are `null` in JSON.
        Value::Null => Ok(Val::from(0)),
        Value::String(text) => Ok(Val::from(text.len())),
        Value::Array(items) => Ok(Val::from(items.len())),
        Value::Object(map) => Ok(Val::from(map.len())),
        other => Err(format!("len of type {}", type_name(other)).into()),
    }
}

/// `slice x 1 3` is x[1:3].
fn slice<'v>(args: &[Val<'v>]) -> Answer<'v> {
    let (item, bounds) = (args[0].json(), &args[1..]);
    let len = match item {
        Value::String(_) if bounds.len() > 2 => return Err("cannot 3-index slice a string".into()),
        _ if bounds.len() > 3 => return Err(format!("too many slice indexes: {}", bounds.len()).into()),
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Null => return Err("slice of untyped nil".into()),
        other => return Err(format!("can't slice item of type {}", type_name(other)).into()),
    };
    let from = bounds.first().map_or(Ok(0), |key| position(key, len))?;
    let to = bounds.get(1).map_or(Ok(len), |key| position(key, len))?;
    let capacity = bounds.get(2).map_or(Ok(len), |key| position(key, len))?;
    if from > to || to > capacity {
        let (a, b) = if from > to { (from, to) } else { (to, capacity) };
        return Err(format!("invalid slice index: {a} > {b}").into());
    }
    match item {
        Value::String(text) => {
            Ok(Val::from(String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()))
        }
        Value::Array(items) => Ok(Val::from(items[from..to].to_vec())),
        _ => Ok(Val::Missing),
    }
}

fn split<'v>(args: &[Val<'v>]) -> Answer<'v> {
    let (text, separator) = (string(args, 0)?, string(args, 1)?);
    let pieces: Vec<Value> = if separator.is_empty() {
        text.chars().take(PIECES_MAX + 1).map(|c| Value::from(c.to_string())).collect()
    } else {
        text.split(separator).take(PIECES_MAX + 1).map(Value::from).collect()
    };
    if pieces.len() > PIECES_MAX {
        return Err(format!("more than {PIECES_MAX} pieces").into());
    }
    Ok(Val::from(pieces))
}

fn join<'v>(args: &[Val<'v>]) -> Answer<'v> {
    const NO_WORDS: Fault = Fault::Argument { at: 0, expected: "[]string" };
    let separator = string(args, 1)?;
    let items = match args[0].json() {
        Value::Array(items) => items.as_slice(),
        Value::Null if !matches!(args[0], Val::Missing) => &[],
        _ => return Err(NO_WORDS),
    };
    let words: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    let words = words.ok_or(NO_WORDS)?;
    let bytes = separator.len().saturating_mul(words.len());
    if bytes > TEXT_BYTES_MAX {
        return Err(too_long());
    }
    text(words.join(separator))
}

fn pad<'v>(args: &[Val<'v>]) -> Answer<'v> {
    let source = string(args, 0)?;
    let spaces = |at| {
        let count = usize::try_from(integer(args, at)?).map_err(|_| Fault::from("negative padding"))?;
        if count > TEXT_BYTES_MAX { Err(too_long()) } else { Ok(count) }
    };
    let (before, after) = (spaces(1)?, spaces(2)?);
    if source.is_empty() {
        return text(String::new());
    }
    text(format!("{}{source}{}", " ".repeat(before), " ".repeat(after)))
}

/// The first bytes of a text, or fewer so as not to cut a character in two.
fn truncate<'v>(args: &[Val<'v>]) -> Answer<'v> {
    let source = string(args, 0)?;
    let len = usize::try_from(integer(args, 1)?).map_err(|_| "negative length")?;
    text(source[..source.floor_char_boundary(len)].to_owned())
}

/// Go changes case character by character: one that would become two (`ß`) stays.
fn map_case<I: Iterator<Item = char>>(text: &str, case: fn(char) -> I) -> String {
    let change = |c| {
        let mut changed = case(c);
        changed.next().filter(|_| changed.next().is_none()).unwrap_or(c)
    };
    text.chars().map(change).collect()
}

/// Upper case for every letter that begins a word.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside_word = false;
    for c in text.chars() {
        if inside_word {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        inside_word = c == '_' || c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    }
    out
}

fn printf_<'v>(args: &[Val<'v>]) -> Answer<'v> {
    let format = string(args, 0)?;
    let values: Vec<&Value> = args[1..].iter().map(Val::json).collect();
    text(printf::sprintf(format, &values))
}

/// Go puts a space between two operands only if neither is a string.
fn sprint(args: &[Val<'_>]) -> String {
    let mut out = String::new();
    for (i, value) in args.iter().enumerate() {
        if i > 0 && !value.json().is_string() && !args[i - 1].json().is_string() {
            out.push(' ');
        }
        out.push_str(&print(value.json()));
    }
    out
}

fn sprintln(args: &[Val<'_>]) -> String {
    let words: Vec<_> = args.iter().map(|value| print(value.json())).collect();
    words.join(" ") + "\n"
}

/// What the escapers work on: a lone argument prints as an action would.
fn print_all(args: &[Val<'_>]) -> String {
    match args {
        [one] => one.print().into_owned(),
        _ => sprint(args),
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\0'..='\u{1f}' => {
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c if printf::is_invisible(c) => {
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b if b.is_ascii_alphanumeric() => out.push(char::from(b)),
            b => {
                let _infallible = write!(out, "%{b:02X}");
            }
        }
    }
    out
}
