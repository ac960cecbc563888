//! The tree as the S-expressions BuildKit's parser prints, to compare the two.
use std::fmt::Write as _;

use crate::directive;
use crate::form::{Form, Operands};
use crate::heredoc::Heredoc;
use crate::lines::Reader;
use crate::parse::takes_heredocs;

/// One line per instruction, or the first error.
pub fn sexpr(text: &str) -> Result<String, String> {
    let head = directive::read(text, None);
    let mut diagnostics = head.diagnostics.clone();
    let mut reader = Reader::new(text, &head, &mut diagnostics);
    if let Some(diagnostic) = diagnostics.into_iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(diagnostic.message);
    }
    let mut lines = Vec::new();
    while let Some(mut logical) = reader.next_logical() {
        let form = Form::parse(&logical.text, head.directives.escape)?;
        if takes_heredocs(&form) {
            for mut heredoc in Heredoc::find(&logical.text) {
                if !reader.take_body(&mut heredoc, &mut logical.span) {
                    return Err("unterminated heredoc".to_owned());
                }
            }
        }
        lines.push(format!("({})", form_text(&form)));
    }
    if lines.is_empty() { Err("file with no instructions".to_owned()) } else { Ok(lines.join("\n")) }
}

fn form_text(form: &Form) -> String {
    let mut out = form.word.to_lowercase();
    if !form.flags.is_empty() {
        let flags: Vec<String> = form.flags.iter().map(|flag| quoted(flag)).collect();
        out.push_str(&format!(" [{}]", flags.join(" ")));
    }
    if form.keyword.is_none() {
        return format!("{out} \"\"");
    }
    if form.comment.is_some() && form.operands.is_json() {
        return format!("{out} {}", quoted(&form.rest));
    }
    operands_text(&form.operands, &mut out);
    out
}

fn operands_text(operands: &Operands, out: &mut String) {
    let mut push = |text: &str| {
        out.push(' ');
        out.push_str(&quoted(text));
    };
    match operands {
        Operands::Words(words) | Operands::Json(words) => words.iter().for_each(|word| push(word)),
        Operands::Pairs { pairs, legacy } => {
            for (key, value) in pairs {
                push(key);
                push(value);
                push(if *legacy { "" } else { "=" });
            }
        }
        Operands::Typed(kind, operands) => {
            push(kind);
            operands_text(operands, out);
        }
        Operands::Trigger(form) => out.push_str(&format!(" ({})", form_text(form))),
    }
}

/// A string as Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                write!(out, "\\x{:02x}", c as u32).expect("writing to a String cannot fail");
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}' => {
                write!(out, "\\u{:04x}", c as u32).expect("writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
