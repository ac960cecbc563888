use dhow_engine::{
    BuildRecord, Cause, Change, Engine, FactKind, MissReason, StepChange, StepOutcome, StepRecord,
};
use serde_json::{Value, json};

use crate::commands::builds::{outcome, status};
use crate::error::CliError;
use crate::ui::Ui;

/// Say why the steps of a build ran or did not
#[derive(clap::Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Build: an id, `^1` for the last but one, or the name of an image [default: the latest]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// Only this step: its number, STAGE/NUMBER or the beginning of it
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// How to say it
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: ExplainFormat,
}

/// How an explanation is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(crate) fn run(args: &ExplainArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let build = engine.builds().find(args.build.as_deref())?;
    let only = args.step.as_deref().map(|text| build.step(text)).transpose()?.cloned();
    print(&build, only.as_ref(), args.format, ui)?;
    Ok(0)
}

/// Explains a build, or one step of it.
pub(crate) fn print(
    build: &BuildRecord,
    only: Option<&StepRecord>,
    format: ExplainFormat,
    ui: &mut Ui,
) -> Result<(), CliError> {
    let steps = || build.steps.iter().enumerate().filter(|(_, step)| only.is_none_or(|only| *only == **step));
    if format == ExplainFormat::Json {
        let steps: Vec<Value> = steps().map(|(index, step)| step_json(index, step)).collect();
        let explained = json!({
            "Ref": build.id,
            "Name": build.name(),
            "Status": status(build),
            "Image": build.image.map(|image| image.to_string()),
            "Error": build.error,
            "Steps": steps,
        });
        return ui.line(explained);
    }
    if only.is_none() {
        let cached = build.steps.iter().filter(|step| step.outcome == StepOutcome::Cached).count();
        ui.line(format_args!("{} {}: {cached} of {} cached", build.id, build.name(), build.steps.len()))?;
    }
    for (index, step) in steps() {
        let title = step.title(build.has_stages());
        let title = title.lines().next().unwrap_or_default();
        ui.line(format_args!("#{:<3} {:<8} {title}", index + 1, outcome(step)))?;
        if let Some(reason) = &step.reason {
            lines(reason).iter().try_for_each(|line| ui.line(format_args!("              {line}")))?;
        }
    }
    match &build.error {
        Some(error) if only.is_none() => ui.line(format_args!("Error: {error}")),
        _ => Ok(()),
    }
}

/// All of a reason, one change a line.
fn lines(reason: &MissReason) -> Vec<String> {
    match reason {
        MissReason::Changed(changes) => changes.iter().map(Change::to_string).collect(),
        MissReason::Parent(Some(cause)) => {
            let below = match &cause.change {
                StepChange::Reason(MissReason::Base { .. }) | StepChange::New | StepChange::Gone => {
                    Vec::new()
                }
                StepChange::Reason(reason) => lines(reason),
            };
            let indented = below.into_iter().map(|line| format!("  {line}"));
            std::iter::once(reason.to_string()).chain(indented).collect()
        }
        reason => vec![reason.to_string()],
    }
}

fn step_json(index: usize, step: &StepRecord) -> Value {
    json!({
        "Step": index + 1,
        "Stage": step.stage,
        "Number": step.number,
        "Instruction": step.text,
        "Line": step.line,
        "Status": outcome(step),
        "Key": step.key.map(|key| key.to_string()),
        "Reason": step.reason.as_ref().map(reason_json),
    })
}

fn reason_json(reason: &MissReason) -> Value {
    let text = reason.to_string();
    match reason {
        MissReason::Refresh => json!({ "Kind": "no-cache", "Text": text }),
        MissReason::FirstBuild => json!({ "Kind": "first-build", "Text": text }),
        MissReason::Removed => json!({ "Kind": "removed", "Text": text }),
        MissReason::Elsewhere { cache } => {
            json!({ "Kind": "elsewhere", "Text": text, "Cache": cache })
        }
        MissReason::Failed => json!({ "Kind": "failed", "Text": text }),
        MissReason::Instruction { old, new } => {
            json!({ "Kind": "instruction", "Text": text, "Old": old, "New": new })
        }
        MissReason::Base { name, old, new } => {
            json!({ "Kind": "base", "Text": text, "Name": name, "Old": old, "New": new })
        }
        MissReason::Changed(changes) => {
            let changes: Vec<Value> = changes.iter().map(change_json).collect();
            json!({ "Kind": "changed", "Text": text, "Changes": changes })
        }
        MissReason::Parent(cause) => {
            json!({ "Kind": "parent", "Text": text, "Cause": cause.as_deref().map(cause_json) })
        }
    }
}

fn cause_json(cause: &Cause) -> Value {
    let (change, reason) = match &cause.change {
        StepChange::New => ("new", None),
        StepChange::Gone => ("gone", None),
        StepChange::Reason(reason) => ("changed", Some(reason_json(reason))),
    };
    json!({ "Instruction": cause.step, "Change": change, "Reason": reason })
}

fn change_json(change: &Change) -> Value {
    let text = change.to_string();
    match change {
        Change::Value { kind, name, old, new } => {
            let kind = match kind {
                FactKind::BuildArg => "arg",
                FactKind::Env => "env",
                _ => "option",
            };
            json!({ "Kind": kind, "Text": text, "Name": name, "Old": old, "New": new })
        }
        Change::FileAdded(path) => json!({ "Kind": "file-added", "Text": text, "Path": path }),
        Change::FileRemoved(path) => json!({ "Kind": "file-removed", "Text": text, "Path": path }),
        Change::FileContent(path) => json!({ "Kind": "file-content", "Text": text, "Path": path }),
        Change::FileMode { path, old, new } => {
            let octal = |mode: &u32| format!("{:04o}", mode & 0o7777);
            json!({ "Kind": "file-mode", "Text": text, "Path": path, "Old": octal(old), "New": octal(new) })
        }
        Change::FileOwner { path, old, new } => {
            let ids = |owner: &(u32, u32)| format!("{}:{}", owner.0, owner.1);
            json!({ "Kind": "file-owner", "Text": text, "Path": path, "Old": ids(old), "New": ids(new) })
        }
        Change::Renamed { old, new } => {
            json!({ "Kind": "option-renamed", "Text": text, "Old": old, "New": new })
        }
        Change::Files => json!({ "Kind": "files", "Text": text }),
        Change::Order => json!({ "Kind": "order", "Text": text }),
    }
}
