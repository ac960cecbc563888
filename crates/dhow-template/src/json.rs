//! JSON as Go's encoder writes it with HTML escaping off, which is how docker prints.

use std::fmt::Write;

use serde_json::Value;

use crate::float;

/// The value on one line, keys in the order they have.
///
/// ```
/// let value = serde_json::json!({"Size": 1.0, "Cmd": ["a<b"]});
/// assert_eq!(dhow_template::json::compact(&value), r#"{"Size":1,"Cmd":["a<b"]}"#);
/// ```
pub fn compact(value: &Value) -> String {
    let mut writer = Writer { out: String::new(), indent: None, depth: 0 };
    writer.value(value);
    writer.out
}

/// The value over many lines, as `docker inspect` prints with an `indent` of four spaces.
pub fn indented(value: &Value, indent: &str) -> String {
    let mut writer = Writer { out: String::new(), indent: Some(indent), depth: 0 };
    writer.value(value);
    writer.out
}

struct Writer<'i> {
    out: String,
    indent: Option<&'i str>,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {
                let _infallible = write!(self.out, "{value}");
            }
            Value::Number(number) if number.is_f64() => {
                self.out.push_str(&number_text(number.as_f64().unwrap_or_default()));
            }
            Value::Number(number) => {
                let _infallible = write!(self.out, "{number}");
            }
            Value::String(text) => self.string(text),
            Value::Array(items) => self.sequence('[', ']', items, |writer, item| writer.value(item)),
            Value::Object(map) => self.sequence('{', '}', map, |writer, (key, item)| {
                writer.string(key);
                writer.out.push_str(if writer.indent.is_some() { ": " } else { ":" });
                writer.value(item);
            }),
        }
    }

    fn sequence<T>(
        &mut self,
        open: char,
        close: char,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.out.push(open);
        self.depth += 1;
        let mut empty = true;
        for item in items {
            self.out.push_str(if empty { "" } else { "," });
            self.line();
            empty = false;
            write(self, item);
        }
        self.depth -= 1;
        if !empty {
            self.line();
        }
        self.out.push(close);
    }

    fn line(&mut self) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent, self.depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                // JavaScript takes the last two for line ends, so Go always escapes them.
                '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                    let _infallible = write!(self.out, "\\u{:04x}", u32::from(c));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Plain up to 10^21 and down to 10^-6, else exponential with the exponent's leading zero dropped.
fn number_text(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        return float::format(value, 'e', None).replace("e-0", "e-").replace("e+0", "e+");
    }
    float::format(value, 'f', None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn compact_json_is_what_gos_encoder_writes_without_html_escaping() {
        let check = |value: Value, expected: &str| assert_eq!(compact(&value), expected);
        check(json!({"b": 1, "a": [null, true, {}], "c": []}), r#"{"b":1,"a":[null,true,{}],"c":[]}"#);
        check(json!("<a href=\"x\">&'\u{2028}\u{1}\n"), r#""<a href=\"x\">&'\u2028\u0001\n""#);
        check(json!([1.0, 0.5, 1e21, 1e-7, 1e20, -0.25]), "[1,0.5,1e+21,1e-7,100000000000000000000,-0.25]");
    }

    #[test]
    fn indented_json_keeps_empty_collections_on_one_line() {
        let value = json!([{"Id": "x", "Env": [], "State": {"Pid": 1}}]);
        let expected = "[\n    {\n        \"Id\": \"x\",\n        \"Env\": [],\n        \"State\": {\n            \"Pid\": 1\n        }\n    }\n]";
        assert_eq!(indented(&value, "    "), expected);
    }
}
