//! What Docker accepts in silence and hardly anyone means. These are warnings of ours and belong to
//! none of Docker's lint rules.
use crate::diagnostic::{Diagnostic, Span};
use crate::form::{Form, Keyword, Operands};

const SHELLS: [&str; 5] = ["ash", "bash", "dash", "sh", "zsh"];
/// Commands that are given to a shell without `-c` by mistake, and are no names of scripts.
const COMMANDS: [&str; 12] =
    ["apk", "apt-get", "cat", "cd", "echo", "exec", "export", "ls", "node", "npm", "pip", "python"];

/// The traps that an instruction has stepped into.
pub(crate) fn find(form: &Form, span: Span) -> Vec<Diagnostic> {
    let (Some(keyword), operands) = innermost(form) else { return Vec::new() };
    let found = match operands {
        Operands::Words(words) => vec![almost_json(keyword, words, span)],
        Operands::Json(words) if is_command(keyword) => {
            vec![shell_without_c(words, span), unexpanded_variable(words, span)]
        }
        _ => Vec::new(),
    };
    found.into_iter().flatten().collect()
}

/// The instruction that holds the command: an ONBUILD's trigger, a HEALTHCHECK's CMD.
fn innermost(form: &Form) -> (Option<Keyword>, &Operands) {
    match &form.operands {
        Operands::Trigger(form) => innermost(form),
        Operands::Typed(_, operands) => (form.keyword, operands),
        operands => (form.keyword, operands),
    }
}

fn is_command(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::Cmd | Keyword::Entrypoint | Keyword::Healthcheck | Keyword::Run)
}

/// `['a', 'b']`, which is no JSON and therefore goes to the shell or is split at blanks.
fn almost_json(keyword: Keyword, words: &[String], span: Span) -> Option<Diagnostic> {
    let text = words.join(" ");
    let takes_json = is_command(keyword) || matches!(keyword, Keyword::Add | Keyword::Copy | Keyword::Volume);
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    // `[ -f x ]` is a command of its own.
    if !takes_json || !inner.trim_start().starts_with(['\'', '"', '“', '‘']) || inner.starts_with(' ') {
        return None;
    }
    let message = format!("`{text}` is not a JSON array, so its brackets and quotes are taken literally");
    let hint = "a JSON array has words in double quotes with commas between them: [\"a\", \"b\"]";
    Some(Diagnostic::warning(span, message).with_hint(hint))
}

fn is_shell(word: &str) -> bool {
    SHELLS.contains(&word.rsplit('/').next().unwrap_or(word))
}

/// `["bash", "echo", "hi"]`, which looks for a script of the name `echo`.
fn shell_without_c(words: &[String], span: Span) -> Option<Diagnostic> {
    let [shell, command, ..] = words else { return None };
    if !is_shell(shell) || !COMMANDS.contains(&command.as_str()) {
        return None;
    }
    let message = format!("`{shell}` takes `{command}` for the name of a script");
    let fixed = serde_json::json!([shell, "-c", words[1..].join(" ")]);
    Some(Diagnostic::warning(span, message).with_hint(format!("to run a command write {fixed}")))
}

/// `["server", "--port", "$PORT"]`: nothing replaces variables in the exec form.
fn unexpanded_variable(words: &[String], span: Span) -> Option<Diagnostic> {
    if words.first().is_some_and(|word| is_shell(word)) {
        return None;
    }
    let variable = words.iter().find(|word| is_variable(word))?;
    let message = format!("`{variable}` is passed as it is: variables are not replaced in the JSON form");
    let fixed = serde_json::json!(["/bin/sh", "-c", format!("exec {}", words.join(" "))]);
    Some(Diagnostic::warning(span, message).with_hint(format!("to have it replaced write {fixed}")))
}

/// Whether a word is just `$NAME` or `${NAME}`.
fn is_variable(word: &str) -> bool {
    let Some(name) = word.strip_prefix('$') else { return false };
    let name = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name);
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
