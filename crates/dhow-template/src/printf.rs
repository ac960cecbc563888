//! Go's `fmt.Sprintf` over JSON values.
//!
//! A wrong verb or a missing argument is not an error: Go writes the complaint into the text
//! (`%!d(string=x)`), and so do we.

use std::fmt::Write;

use serde_json::Value;

use crate::float;
use crate::funcs::TEXT_BYTES_MAX;
use crate::value::{print, sorted, type_name};

/// The widest field and longest precision; Go has the same bound but a higher one.
const WIDTH_MAX: usize = 10_000;

/// Formats `args` by `format`. Stops once the result is longer than any function may return.
pub(crate) fn sprintf(format: &str, args: &[&Value]) -> String {
    let mut printer = Printer { args, next: 0, reordered: false, out: String::new() };
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        if printer.out.len() > TEXT_BYTES_MAX {
            return printer.out;
        }
        printer.out.push_str(&rest[..at]);
        rest = printer.directive(&rest[at + 1..]);
    }
    printer.out.push_str(rest);
    printer.extra();
    printer.out
}

/// `text` between double quotes with escapes, as Go's `%q` has it and docker shows commands.
pub fn quote(text: &str) -> String {
    quote_with(text, '"', false)
}

#[derive(Default, Clone, Copy)]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer<'a> {
    args: &'a [&'a Value],
    next: usize,
    /// An explicit index was used: then unused arguments are not complained about.
    reordered: bool,
    out: String,
}

impl Printer<'_> {
    /// Handles what follows a `%` and returns what follows the verb.
    fn directive<'f>(&mut self, text: &'f str) -> &'f str {
        let mut spec = Spec::default();
        let mut rest = flags(text, &mut spec);
        let mut good_index = self.index(&mut rest);
        let (width, after) = self.measure(rest, "%!(BADWIDTH)");
        spec.minus |= width.is_some_and(|w| w < 0);
        spec.width = width.map(|w| usize::try_from(w.unsigned_abs()).unwrap_or(WIDTH_MAX).min(WIDTH_MAX));
        rest = after;
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            good_index &= self.index(&mut rest);
            let (precision, after) = self.measure(rest, "%!(BADPREC)");
            match usize::try_from(precision.unwrap_or(0)) {
                Ok(precision) => spec.precision = Some(precision.min(WIDTH_MAX)),
                Err(_) => self.out.push_str("%!(BADPREC)"),
            }
            rest = after;
        }
        good_index &= self.index(&mut rest);
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        if verb == '%' {
            self.out.push('%');
        } else if !good_index {
            let _infallible = write!(self.out, "%!{verb}(BADINDEX)");
        } else {
            self.argument(verb, spec);
        }
        &rest[verb.len_utf8()..]
    }

    fn argument(&mut self, verb: char, spec: Spec) {
        if let Some(value) = self.args.get(self.next) {
            self.next += 1;
            match verb {
                'T' => self.out.push_str(&string(type_name(value), 's', spec).unwrap_or_default()),
                'v' if spec.sharp => pad(&go_syntax(value), spec, &mut self.out),
                // A plus asks %v for the names of fields, which maps have anyway.
                'v' => format_value(value, verb, Spec { plus: false, ..spec }, &mut self.out),
                _ => format_value(value, verb, spec, &mut self.out),
            }
        } else {
            let _infallible = write!(self.out, "%!{verb}(MISSING)");
        }
    }

    /// `[n]`: the argument to use next. False when it names none.
    fn index(&mut self, rest: &mut &str) -> bool {
        let Some(inner) = rest.strip_prefix('[') else { return true };
        self.reordered = true;
        let Some((number, after)) = inner.split_once(']') else {
            *rest = inner;
            return false;
        };
        *rest = after;
        match number.parse::<usize>() {
            Ok(n) if (1..=self.args.len()).contains(&n) => {
                self.next = n - 1;
                true
            }
            _ => false,
        }
    }

    /// A width or precision: digits, or `*` for the next argument.
    fn measure<'f>(&mut self, text: &'f str, bad: &str) -> (Option<i64>, &'f str) {
        if let Some(rest) = text.strip_prefix('*') {
            let value = self.args.get(self.next).and_then(|v| v.as_i64());
            self.next += 1;
            if value.is_none() {
                self.out.push_str(bad);
            }
            return (value, rest);
        }
        let len = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = text.split_at(len);
        let too_long = i64::try_from(WIDTH_MAX).unwrap_or(i64::MAX);
        ((len > 0).then(|| digits.parse().unwrap_or(too_long)), rest)
    }

    /// Complains about arguments that no verb used.
    fn extra(&mut self) {
        if self.reordered || self.next >= self.args.len() {
            return;
        }
        let extra: Vec<_> = self.args[self.next..].iter().map(|value| typed(value)).collect();
        let _infallible = write!(self.out, "%!(EXTRA {})", extra.join(", "));
    }
}

fn flags<'f>(text: &'f str, spec: &mut Spec) -> &'f str {
    let rest = text.trim_start_matches(['-', '+', '#', ' ', '0']);
    for flag in text[..text.len() - rest.len()].chars() {
        match flag {
            '-' => spec.minus = true,
            '+' => spec.plus = true,
            '#' => spec.sharp = true,
            ' ' => spec.space = true,
            _ => spec.zero = true,
        }
    }
    rest
}

/// `string=x`, as complaints name a value.
fn typed(value: &Value) -> String {
    if value.is_null() { "<nil>".into() } else { format!("{}={}", type_name(value), print(value)) }
}

fn format_value(value: &Value, verb: char, spec: Spec, out: &mut String) {
    match (value, verb) {
        (Value::Null, 'v') => pad("<nil>", spec, out),
        (Value::Null, _) => {
            let _infallible = write!(out, "%!{verb}(<nil>)");
        }
        (Value::Bool(flag), 't' | 'v') => pad(if *flag { "true" } else { "false" }, spec, out),
        (Value::Number(number), _) => {
            let text = match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => integer(n < 0, n.unsigned_abs(), verb, spec),
                (None, Some(n)) => integer(false, n, verb, spec),
                (None, None) => floating(number.as_f64().unwrap_or_default(), verb, spec),
            };
            text_or_complaint(text, value, verb, spec, out);
        }
        (Value::String(text), _) => text_or_complaint(string(text, verb, spec), value, verb, spec, out),
        (Value::Array(items), _) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                format_value(item, verb, spec, out);
            }
            out.push(']');
        }
        (Value::Object(map), _) => {
            out.push_str("map[");
            for (i, (key, item)) in sorted(map).into_iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                format_value(&Value::String(key.clone()), verb, spec, out);
                out.push(':');
                format_value(item, verb, spec, out);
            }
            out.push(']');
        }
        (Value::Bool(_), _) => text_or_complaint(None, value, verb, spec, out),
    }
}

/// `%#v`: the value as a Go program would have it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(go_syntax).collect();
            format!("{}{{{}}}", type_name(value), items.join(", "))
        }
        Value::Object(map) => {
            let entry = |(key, item): (&String, &Value)| format!("{}:{}", quote(key), go_syntax(item));
            let entries: Vec<_> = sorted(map).into_iter().map(entry).collect();
            format!("{}{{{}}}", type_name(value), entries.join(", "))
        }
        other => print(other),
    }
}

fn text_or_complaint(text: Option<String>, value: &Value, verb: char, spec: Spec, out: &mut String) {
    match text {
        Some(text) => out.push_str(&text),
        None => {
            let _infallible = write!(out, "%!{verb}({}=", type_name(value));
            format_value(value, 'v', spec, out);
            out.push(')');
        }
    }
}

fn integer(negative: bool, size: u64, verb: char, spec: Spec) -> Option<String> {
    let (prefix, digits) = match verb {
        'd' | 'v' => ("", size.to_string()),
        'b' => ("0b", format!("{size:b}")),
        'o' => ("0", format!("{size:o}")),
        'O' => ("", format!("0o{size:o}")),
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        'c' | 'q' | 'U' => {
            let code = if negative { u64::MAX } else { size };
            return Some(padded(&character(code, verb, spec), spec));
        }
        _ => return None,
    };
    let prefix = if spec.sharp { prefix } else { "" };
    let sign = sign(negative, spec);
    let fill = match (spec.precision, spec.width) {
        (Some(precision), _) => precision,
        (None, Some(width)) if spec.zero && !spec.minus => width.saturating_sub(sign.len()),
        _ => 0,
    };
    if spec.precision == Some(0) && size == 0 {
        return Some(padded("", Spec { zero: false, ..spec }));
    }
    let digits = format!("{digits:0>fill$}");
    let prefix = if verb == 'o' && digits.starts_with('0') { "" } else { prefix };
    let text = format!("{sign}{prefix}{digits}");
    Some(padded(&text, Spec { zero: false, ..spec }))
}

fn character(code: u64, verb: char, spec: Spec) -> String {
    let c = u32::try_from(code).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let digits = spec.precision.unwrap_or(0).max(4);
    match verb {
        'c' => c.to_string(),
        'q' => quote_with(&c.to_string(), '\'', spec.plus),
        _ if spec.sharp => format!("U+{code:0>digits$X} '{c}'"),
        _ => format!("U+{code:0>digits$X}"),
    }
}

fn floating(value: f64, verb: char, spec: Spec) -> Option<String> {
    let (verb, precision) = match verb {
        'v' => ('g', spec.precision),
        'g' | 'G' => (verb, spec.precision),
        'e' | 'E' | 'f' | 'F' => (verb, Some(spec.precision.unwrap_or(6))),
        _ => return None,
    };
    let mut size = float::format(value.abs(), verb, precision);
    if spec.sharp && value.is_finite() {
        size = with_point(&size, verb, precision);
    }
    let sign = sign(value.is_sign_negative(), spec);
    let width = if spec.zero && !spec.minus { spec.width.unwrap_or(0).saturating_sub(sign.len()) } else { 0 };
    let text = format!("{sign}{size:0>width$}");
    Some(padded(&text, Spec { zero: false, ..spec }))
}

/// `#`: always a point, and for `%g` the trailing zeros too.
fn with_point(text: &str, verb: char, precision: Option<usize>) -> String {
    let (mantissa, tail) = text.split_at(text.find(['e', 'E']).unwrap_or(text.len()));
    let point = if mantissa.contains('.') { "" } else { "." };
    let wanted = if matches!(verb, 'g' | 'G') { precision.unwrap_or(6) } else { 0 };
    let digits = mantissa.trim_start_matches(['0', '.']).bytes().filter(u8::is_ascii_digit).count();
    let digits = if mantissa == "0" { 1 } else { digits };
    format!("{mantissa}{point}{}{tail}", "0".repeat(wanted.saturating_sub(digits)))
}

fn sign(negative: bool, spec: Spec) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

fn string(text: &str, verb: char, spec: Spec) -> Option<String> {
    let cut: String = match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    let text = match verb {
        's' | 'v' => cut,
        'q' if spec.sharp && !cut.contains(['`', '\n']) => format!("`{cut}`"),
        'q' => quote_with(&cut, '"', spec.plus),
        'x' | 'X' => {
            let bytes = &text.as_bytes()[..spec.precision.unwrap_or(usize::MAX).min(text.len())];
            hex(bytes, verb == 'X', spec)
        }
        _ => return None,
    };
    Some(padded(&text, spec))
}

fn hex(bytes: &[u8], upper: bool, spec: Spec) -> String {
    let mut out = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if spec.space && i > 0 {
            out.push(' ');
        }
        if spec.sharp && (i == 0 || spec.space) {
            out.push_str(if upper { "0X" } else { "0x" });
        }
        let _infallible = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
    }
    out
}

fn padded(text: &str, spec: Spec) -> String {
    let mut out = String::new();
    pad(text, spec, &mut out);
    out
}

fn pad(text: &str, spec: Spec, out: &mut String) {
    let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if spec.zero && !spec.minus { '0' } else { ' ' };
    let space = std::iter::repeat_n(fill, missing);
    if spec.minus {
        out.push_str(text);
        out.extend(space);
    } else {
        out.extend(space);
        out.push_str(text);
    }
}

fn quote_with(text: &str, mark: char, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(mark);
    for c in text.chars() {
        match c {
            c if c == mark || c == '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c => quote_rare(c, ascii, &mut out),
        }
    }
    out.push(mark);
    out
}

/// Whether Go escapes the character where it quotes.
pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control() || (c.is_whitespace() && c != ' ')
}

fn quote_rare(c: char, ascii: bool, out: &mut String) {
    let code = u32::from(c);
    let _infallible = match code {
        _ if !is_invisible(c) && !ascii => {
            out.push(c);
            Ok(())
        }
        0..=0x7f => write!(out, "\\x{code:02x}"),
        0x80..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}
