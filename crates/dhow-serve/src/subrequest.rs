//! What BuildKit's frontend answers when it is asked instead of told to build, as `docker build --call` prints
//! it with `format=json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_engine::{BuildError, CheckReport, Outline, OutlineMount, SourceText, Span, TargetInfo};
use serde_json::{Map, Value, json};

/// Questions that can be asked: name and what it does, as `subrequests.describe` lists them.
pub const SUBREQUESTS: [(&str, &str); 3] = [
    ("outline", "List all parameters current build target supports"),
    ("targets", "List all targets current build supports"),
    ("subrequests.describe", "List available subrequest types"),
];
/// The version of all of them.
pub const SUBREQUEST_VERSION: &str = "1.0.0";

/// The findings of `--check`.
pub fn check(report: &CheckReport) -> Value {
    let warnings = report.warnings.iter().filter_map(|warning| {
        let rule = warning.rule?;
        Some(object([
            ("ruleName", Some(json!(rule.name()))),
            ("description", Some(json!(rule.description()))),
            ("url", rule.url().map(Value::from)),
            ("detail", Some(json!(warning.message))),
            ("location", Some(location(warning.span))),
        ]))
    });
    let source = &report.source;
    let mut results = json!({
        "warnings": warnings.collect::<Vec<_>>(),
        "sources": [{
            "filename": source.name,
            "data": data(source),
            "language": "Dockerfile",
        }],
    });
    if let Some(error) = &report.error {
        let (message, span) = first_mistake(error);
        results["buildError"] =
            json!({ "message": message, "location": span.map_or_else(|| json!({}), location) });
    }
    results
}

/// What a target can be told.
pub fn outline(source: &SourceText, outline: &Outline) -> Value {
    let args = outline.args.iter().map(|arg| {
        object([
            ("name", Some(json!(arg.name))),
            ("description", arg.description.as_deref().map(Value::from)),
            ("value", Some(arg.value.as_str()).filter(|value| !value.is_empty()).map(Value::from)),
            ("location", Some(location(arg.span))),
        ])
    });
    let mounts = |mounts: &[OutlineMount]| {
        let mount = |mount: &OutlineMount| {
            object([
                ("name", Some(json!(mount.name))),
                ("required", mount.required.then_some(json!(true))),
                ("location", Some(location(mount.span))),
            ])
        };
        some(mounts.iter().map(mount).collect())
    };
    object([
        ("name", outline.name.as_deref().map(Value::from)),
        ("description", outline.description.as_deref().map(Value::from)),
        ("args", some(args.collect())),
        ("secrets", mounts(&outline.secrets)),
        ("ssh", mounts(&outline.ssh)),
        ("sources", Some(json!([data(source)]))),
    ])
}

/// The stages there are.
pub fn targets(source: &SourceText, targets: &[TargetInfo]) -> Value {
    let last = targets.len().saturating_sub(1);
    let target = |(index, target): (usize, &TargetInfo)| {
        object([
            ("name", target.name.as_deref().map(Value::from)),
            ("default", (index == last).then_some(json!(true))),
            ("description", target.description.as_deref().map(Value::from)),
            ("base", Some(json!(target.base))),
            ("platform", target.platform.as_deref().map(Value::from)),
            ("location", Some(location(target.span))),
        ])
    };
    json!({
        "targets": targets.iter().enumerate().map(target).collect::<Vec<_>>(),
        "sources": [data(source)],
    })
}

/// The questions that can be asked.
pub fn describe() -> Value {
    let named = |name: &str| json!({ "name": name, "description": "" });
    let request = |(name, description): (&str, &str)| {
        let opts = match name {
            "outline" => json!([{ "name": "target", "description": "Target build stage" }]),
            "targets" => json!([]),
            _ => Value::Null,
        };
        json!({
            "name": format!("frontend.{name}"),
            "version": SUBREQUEST_VERSION,
            "type": "rpc",
            "description": description,
            "opts": opts,
            "inputs": null,
            "metadata": [named("result.json"), named("result.txt")],
            "refs": null,
        })
    };
    SUBREQUESTS.into_iter().map(request).collect()
}

/// The first thing that is wrong with a build, in BuildKit's words, and where it is.
fn first_mistake(error: &BuildError) -> (String, Option<Span>) {
    match error {
        BuildError::Syntax { diagnostics, .. } => match diagnostics.first() {
            Some(first) => {
                let line = first.span.start_line;
                (format!("dockerfile parse error on line {line}: {}", first.message), Some(first.span))
            }
            None => (error.to_string(), None),
        },
        BuildError::Step { failure } => (failure.cause.to_string(), Some(failure.span)),
        other => (other.to_string(), None),
    }
}

/// The text of a file, as JSON carries bytes.
fn data(source: &SourceText) -> String {
    STANDARD.encode(&source.text)
}

/// One range for each line.
fn location(span: Span) -> Value {
    let range = |line: usize| json!({ "start": { "line": line }, "end": { "line": line } });
    json!({ "ranges": (span.start_line..=span.end_line).map(range).collect::<Vec<_>>() })
}

/// An object of the members that are there.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn some(values: Vec<Value>) -> Option<Value> {
    (!values.is_empty()).then_some(Value::Array(values))
}
