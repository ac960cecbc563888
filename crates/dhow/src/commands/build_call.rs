//! `dhow build --check` and `--call`: what docker's frontend answers instead of building.

use std::fmt::Write as _;
use std::path::Path;

use dhow_engine::{
    BuildRequest, CheckReport, ContextSource, DockerfileSource, Engine, Outline, Rule, Span, TargetInfo,
};
use dhow_serve::subrequest::{self, SUBREQUEST_VERSION, SUBREQUESTS};

use crate::commands::build::build_error;
use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Flags of `dhow build` that ask for an answer instead of an image.
#[derive(clap::Args, Debug)]
pub(crate) struct CallArgs {
    /// What to do: build, check, outline, targets or subrequests.describe, then perhaps `,format=json`
    #[arg(long, value_name = "METHOD", default_value = "build", hide_default_value = true)]
    call: Call,
    /// Look for mistakes without building; the same as --call=check
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    check: bool,
}

/// The value of `--call`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    method: Method,
    is_json: bool,
    /// Findings do not make the command fail.
    ignores_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Describe,
}

impl std::str::FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> Result<Call, String> {
        let mut call = Call { method: Method::Build, is_json: false, ignores_status: false };
        let mut fields = text.split(',').peekable();
        if let Some(name) = fields.next_if(|field| !field.contains('=')) {
            call.method = method(name)?;
        }
        for field in fields {
            match field.split_once('=') {
                Some(("format", "json")) => call.is_json = true,
                Some(("format", "text" | "")) => call.is_json = false,
                Some(("format", other)) => return Err(format!("there is no format {other:?}, only json")),
                Some(("ignorestatus", value)) => {
                    call.ignores_status =
                        value.parse().map_err(|_| format!("ignorestatus is true or false, not {value:?}"))?;
                }
                _ => return Err(format!("invalid field {field:?}: write METHOD,format=json")),
            }
        }
        Ok(call)
    }
}

fn method(name: &str) -> Result<Method, String> {
    Ok(match name {
        "build" | "" => Method::Build,
        "check" | "lint" => Method::Check,
        "outline" => Method::Outline,
        "targets" => Method::Targets,
        "subrequests.describe" => Method::Describe,
        other => {
            let known = "build, check, outline, targets and subrequests.describe";
            return Err(format!("there is no method {other:?}; the methods are {known}"));
        }
    })
}

impl CallArgs {
    /// Answers what was asked. `None` if a build was asked for.
    pub(crate) fn answer(
        &self,
        request: &BuildRequest,
        engine: &Engine,
        ui: &mut Ui,
    ) -> Result<Option<u8>, CliError> {
        let method = if self.check { Method::Check } else { self.call.method };
        let is_json = self.call.is_json;
        match method {
            Method::Build => return Ok(None),
            Method::Check => return self.check(request, engine, ui).map(Some),
            Method::Outline => {
                let (source, outline) =
                    engine.outline(request).map_err(|error| build_error(&error, false))?;
                match is_json {
                    true => print_json(&subrequest::outline(&source, &outline), ui)?,
                    false => ui.text(&outline_text(&outline))?,
                }
            }
            Method::Targets => {
                let (source, targets) =
                    engine.targets(request).map_err(|error| build_error(&error, false))?;
                match is_json {
                    true => print_json(&subrequest::targets(&source, &targets), ui)?,
                    false => ui.text(&targets_text(&targets))?,
                }
            }
            Method::Describe if is_json => print_json(&subrequest::describe(), ui)?,
            Method::Describe => ui.text(&describe_text())?,
        }
        Ok(Some(0))
    }

    fn check(&self, request: &BuildRequest, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
        let report = engine.check_dockerfile(request).map_err(|error| build_error(&error, false))?;
        match self.call.is_json {
            true => print_json(&subrequest::check(&report), ui)?,
            false => ui.text(&check_text(&report, &dockerfile_name(request)))?,
        }
        if let Some(error) = &report.error {
            return Err(build_error(error, false));
        }
        let has_failed = !report.warnings.is_empty() && !self.call.ignores_status;
        Ok(if has_failed { EXIT_FAILURE } else { 0 })
    }
}

fn print_json(value: &serde_json::Value, ui: &mut Ui) -> Result<(), CliError> {
    ui.line(format_args!("{value:#}"))
}

/// The file as the user would name it.
fn dockerfile_name(request: &BuildRequest) -> String {
    match &request.dockerfile {
        DockerfileSource::Text(_) => "stdin".to_owned(),
        DockerfileSource::File(path) => path.display().to_string(),
        DockerfileSource::Url(url) => url.clone(),
        DockerfileSource::Default => match &request.context {
            ContextSource::Folder(folder) => {
                let path = folder.join("Dockerfile");
                path.strip_prefix(Path::new(".")).unwrap_or(&path).display().to_string()
            }
            _ => "Dockerfile".to_owned(),
        },
    }
}

fn check_text(report: &CheckReport, name: &str) -> String {
    let mut out = match report.warnings.len() {
        0 if report.error.is_some() => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in &report.warnings {
        out.push_str("\nWARNING: ");
        out.push_str(warning.rule.map_or("", Rule::name));
        if let Some(url) = warning.rule.and_then(Rule::url) {
            out.push_str(" - ");
            out.push_str(&url);
        }
        out.push('\n');
        out.push_str(&printable(&warning.message));
        out.push('\n');
        out.push_str(&excerpt(name, &report.source.text, warning.span));
    }
    if report.error.is_some() && !report.warnings.is_empty() {
        out.push('\n');
    }
    out
}

const RULER: &str = "--------------------\n";
/// Lines shown before and after a marked one, and around several.
const CONTEXT_LINES: usize = 2;
const CONTEXT_LINES_OF_SEVERAL: usize = 1;

/// The lines in question the way docker shows them.
fn excerpt(name: &str, text: &str, span: Span) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let last = span.end_line.min(lines.len());
    let around = if span.start_line == last { CONTEXT_LINES } else { CONTEXT_LINES_OF_SEVERAL };
    // A file that is shorter on one side shows more of the other.
    let room = around * 2;
    let (above, below) = (span.start_line - 1, lines.len() - last);
    let (before, after) =
        if above < around || below < around { uneven(above, below, room) } else { (around, around) };
    let mut out = format!("{name}:{}\n{RULER}", span.start_line);
    for number in span.start_line - before..=last + after {
        let is_marked = (span.start_line..=last).contains(&number);
        let mark = if is_marked { ">>>" } else { "   " };
        let line = printable(lines[number - 1].trim_end_matches('\r'));
        writeln!(out, " {number:3} | {mark} {line}").expect("writing to a String cannot fail");
    }
    out.push_str(RULER);
    out
}

/// Lines to show before and after where one side has few: each round takes one of each side and counts as one
/// more than it took.
fn uneven(above: usize, below: usize, room: usize) -> (usize, usize) {
    let (mut before, mut after, mut taken) = (0, 0, 0);
    while taken < room {
        if before < above {
            (before, taken) = (before + 1, taken + 1);
        }
        if after < below {
            (after, taken) = (after + 1, taken + 1);
        }
        taken += 1;
    }
    (before, after)
}

/// A line that cannot steer a terminal.
fn printable(line: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    line.chars().map(shown).collect()
}

fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || outline.description.is_some() {
        let name = outline.name.as_deref().unwrap_or("(default)").to_owned();
        let mut rows = vec![["TARGET:".to_owned(), name]];
        rows.extend(outline.description.clone().map(|text| ["DESCRIPTION:".to_owned(), text]));
        out.push_str(&table(&rows, 1));
        out.push('\n');
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned)];
        rows.extend(
            outline.args.iter().map(|arg| {
                [arg.name.clone(), arg.value.clone(), arg.description.clone().unwrap_or_default()]
            }),
        );
        out.push_str(&table(&rows, 3));
        out.push('\n');
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if mounts.is_empty() {
            continue;
        }
        let mut rows = vec![[title, "REQUIRED"].map(str::to_owned)];
        let required = |required: bool| if required { "true".to_owned() } else { String::new() };
        rows.extend(mounts.iter().map(|mount| [mount.name.clone(), required(mount.required)]));
        out.push_str(&table(&rows, 3));
        out.push('\n');
    }
    out
}

fn targets_text(targets: &[TargetInfo]) -> String {
    let mut rows = vec![["TARGET", "DESCRIPTION"].map(str::to_owned)];
    let last = targets.len().saturating_sub(1);
    rows.extend(targets.iter().enumerate().map(|(index, target)| {
        let name = match (target.name.as_deref(), index == last) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.unwrap_or_default().to_owned(),
        };
        [name, target.description.clone().unwrap_or_default()]
    }));
    table(&rows, 1)
}

fn describe_text() -> String {
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned)];
    rows.extend(
        SUBREQUESTS.map(|(name, description)| [name, SUBREQUEST_VERSION, description].map(str::to_owned)),
    );
    table(&rows, 1)
}

/// Columns with `padding` blanks between them; the last is as wide as it comes.
fn table<const N: usize>(rows: &[[String; N]], padding: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = if column + 1 == N { 0 } else { width(column) + padding };
            write!(out, "{:width$}", printable(cell)).expect("writing to a String cannot fail");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn excerpts_are_those_of_docker() {
        let text = "1\n2\n3\n4\n5\n6\n7\n";
        let span = |start_line, end_line| Span { start_line, end_line, ..Span::default() };
        expect![[r#"
            f:1
            --------------------
               1 | >>> 1
               2 |     2
               3 |     3
            --------------------
        "#]]
        .assert_eq(&excerpt("f", text, span(1, 1)));
        expect![[r#"
            f:4
            --------------------
               2 |     2
               3 |     3
               4 | >>> 4
               5 |     5
               6 |     6
            --------------------
        "#]]
        .assert_eq(&excerpt("f", text, span(4, 4)));
        expect![[r#"
            f:3
            --------------------
               2 |     2
               3 | >>> 3
               4 | >>> 4
               5 |     5
            --------------------
        "#]]
        .assert_eq(&excerpt("f", text, span(3, 4)));
    }

    #[test]
    fn a_call_is_a_method_and_options() {
        let call = |text: &str| text.parse::<Call>();
        assert_eq!(call("check").map(|call| call.method), Ok(Method::Check));
        assert_eq!(call("lint").map(|call| call.method), Ok(Method::Check));
        assert_eq!(call("format=json").map(|call| (call.method, call.is_json)), Ok((Method::Build, true)));
        let full = call("outline,format=json,ignorestatus=true").unwrap();
        assert!(full.is_json && full.ignores_status && full.method == Method::Outline);
        for wrong in ["chek", "check,format=xml", "check,outline", "check,x=1", "check,ignorestatus=2"] {
            assert!(call(wrong).is_err(), "{wrong}");
        }
    }
}
