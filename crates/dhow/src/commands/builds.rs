use std::io;

use dhow_engine::{BuildRecord, BuildStatus, Engine, MissReason, StepOutcome, StepRecord};
use dhow_template::format::{self, Columns};
use dhow_template::units::human_size;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::filter::Filters;
use crate::progress::Lines;
use crate::ui::Ui;
use crate::when;

const FILTERS: &[&str] = &["name", "ref", "status"];
const COLUMNS: Columns<'_> = Columns {
    default: r"{{.Ref}}\t{{.Name}}\t{{.Status}}\t{{.CreatedAt}}\t{{.Duration}}",
    headers: &[
        ("Ref", "BUILD ID"),
        ("Name", "NAME"),
        ("Status", "STATUS"),
        ("CreatedAt", "CREATED AT"),
        ("CompletedAt", "COMPLETED AT"),
        ("Duration", "DURATION"),
        ("TotalSteps", "STEPS"),
        ("CompletedSteps", "COMPLETED"),
        ("CachedSteps", "CACHED"),
        ("Image", "IMAGE"),
        ("Context", "CONTEXT"),
        ("Dockerfile", "DOCKERFILE"),
        ("Target", "TARGET"),
        ("Error", "ERROR"),
    ],
};

/// Show and remove what is remembered of builds
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub(crate) struct BuildsArgs {
    #[command(subcommand)]
    command: BuildsCommand,
}

#[derive(clap::Subcommand, Debug)]
enum BuildsCommand {
    /// List builds, the latest first
    Ls(LsArgs),
    /// Show what a build printed, cached steps included
    Logs(LogsArgs),
    /// Show a build and its steps
    Inspect(InspectArgs),
    /// Forget builds
    Rm(RmArgs),
}

/// List builds, the latest first
#[derive(clap::Args, Debug)]
pub(crate) struct LsArgs {
    /// Show only builds that fit: name=PART, ref=ID, status=running, completed, error, canceled or killed (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten names
    #[arg(long)]
    no_trunc: bool,
}

/// Show what a build printed, cached steps included
#[derive(clap::Args, Debug)]
pub(crate) struct LogsArgs {
    /// Build: an id, `^1` for the last but one, or the name of an image [default: the latest that has ended]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// Only the output of this step, byte for byte: its number, STAGE/NUMBER or the beginning of it
    #[arg(value_name = "STEP")]
    step: Option<String>,
}

/// Show a build and its steps
#[derive(clap::Args, Debug)]
pub(crate) struct InspectArgs {
    /// Build: an id, `^1` for the last but one, or the name of an image [default: the latest that has ended]
    #[arg(value_name = "BUILD")]
    build: Option<String>,
    /// Format output by a Go template, or 'json'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Forget builds
#[derive(clap::Args, Debug)]
pub(crate) struct RmArgs {
    /// Builds to forget
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    builds: Vec<String>,
    /// Forget all builds
    #[arg(long, conflicts_with = "builds")]
    all: bool,
}

pub(crate) fn run(args: BuildsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    match args.command {
        BuildsCommand::Ls(args) => list(&args, engine, ui),
        BuildsCommand::Logs(args) => logs(&args, engine, ui),
        BuildsCommand::Inspect(args) => inspect(&args, engine, ui),
        BuildsCommand::Rm(args) => remove(&args, engine),
    }
}

fn list(args: &LsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let fits = |build: &BuildRecord| {
        filters.all("name").all(|part| build.name().contains(part))
            && filters.all("ref").all(|id| build.id.starts_with(id))
            && filters.all("status").all(|wanted| wanted.eq_ignore_ascii_case(status(build)))
    };
    let builds = engine.builds().list()?;
    let now = Timestamp::now();
    let rows: Vec<Value> =
        builds.iter().filter(|build| fits(build)).map(|build| row(build, now, args.no_trunc)).collect();
    ui.text(&format::rows(args.format.as_deref(), COLUMNS, &rows, &|_, _, _| None)?)?;
    Ok(0)
}

/// The word that buildx has for it.
pub(super) fn status(build: &BuildRecord) -> &'static str {
    match build.status {
        BuildStatus::Running => "Running",
        BuildStatus::Completed => "Completed",
        BuildStatus::Failed => "Error",
        BuildStatus::Canceled => "Canceled",
        BuildStatus::Killed => "Killed",
    }
}

fn row(build: &BuildRecord, now: Timestamp, whole: bool) -> Value {
    let steps = |fits: &dyn Fn(StepOutcome) -> bool| {
        build.steps.iter().filter(|step| fits(step.outcome)).count().to_string()
    };
    let name = build.name();
    let name = if whole { name } else { dhow_template::units::ellipsis(&name, 40) };
    json!({
        "Ref": build.id,
        "Name": name,
        "Status": status(build),
        "CreatedAt": when::ago(build.started_us / 1_000_000, now),
        "CompletedAt": build.ended_us.map(|ended| when::ago(ended / 1_000_000, now)).unwrap_or_default(),
        "Duration": duration(build, now),
        "TotalSteps": build.steps.len().to_string(),
        "CompletedSteps": steps(&|outcome| matches!(outcome, StepOutcome::Cached | StepOutcome::Done)),
        "CachedSteps": steps(&|outcome| outcome == StepOutcome::Cached),
        "Image": build.image.map(|image| image.to_string()).unwrap_or_default(),
        "Context": build.request.context,
        "Dockerfile": build.request.dockerfile,
        "Target": build.request.target.clone().unwrap_or_default(),
        "Error": build.error.clone().unwrap_or_default(),
    })
}

/// How long it took, or has taken so far. Nobody knows when one that was killed ended.
fn duration(build: &BuildRecord, now: Timestamp) -> String {
    let to = match build.status {
        BuildStatus::Running => Some(now.as_microsecond()),
        _ => build.ended_us,
    };
    to.map(|to| seconds(build.started_us, to)).unwrap_or_default()
}

fn seconds(from_us: i64, to_us: i64) -> String {
    format!("{:.1}s", to_us.saturating_sub(from_us) as f64 / 1e6)
}

fn logs(args: &LogsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let build = engine.builds().find(args.build.as_deref())?;
    if let Some(step) = &args.step {
        raw(build.step(step)?, engine, ui)?;
        return Ok(0);
    }
    for (index, step) in build.steps.iter().enumerate() {
        replay(index + 1, step, build.has_stages(), engine, ui)?;
    }
    if let Some(error) = &build.error {
        ui.line(format_args!("Error: {error}"))?;
    }
    Ok(0)
}

/// What a program printed, byte for byte.
fn raw(step: &StepRecord, engine: &Engine, ui: &mut Ui) -> Result<(), CliError> {
    let Some(log) = &step.log else { return Ok(()) };
    for piece in engine.build_log(log)? {
        ui.bytes(&piece.map_err(damaged)?.bytes)?;
    }
    Ok(())
}

fn damaged(error: io::Error) -> CliError {
    CliError::new(format!("cannot read the output of a step: {error}"))
}

/// A step as `--progress=plain` shows it, with the output of a cached one from when it ran.
fn replay(
    number: usize,
    step: &StepRecord,
    has_stages: bool,
    engine: &Engine,
    ui: &mut Ui,
) -> Result<(), CliError> {
    if step.outcome == StepOutcome::NotReached {
        return Ok(());
    }
    ui.line(format_args!("#{number} {}", step.title(has_stages)))?;
    match (&step.reason, step.outcome, step.log.is_some()) {
        (Some(reason), ..) => ui.line(format_args!("#{number} not cached: {reason}"))?,
        (None, StepOutcome::Cached, true) => {
            ui.line(format_args!("#{number} CACHED; it printed when it ran:"))?;
        }
        (None, StepOutcome::Cached, false) => ui.line(format_args!("#{number} CACHED"))?,
        _ => {}
    }
    if let Some(log) = &step.log {
        let mut lines = Lines::default();
        let mut failed = None;
        for piece in engine.build_log(log)? {
            let piece = piece.map_err(damaged)?;
            lines.push(&piece.bytes, |line| {
                let told = ui.line(format_args!("#{number} {:.3} {line}", piece.at.as_secs_f64()));
                failed = failed.take().or(told.err());
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        let mut last = String::new();
        lines.finish(|line| last = line.to_owned());
        if !last.is_empty() {
            ui.line(format_args!("#{number} {last}"))?;
        }
    }
    if let (Some(from), Some(to)) = (step.started_us, step.ended_us) {
        let took = seconds(from, to);
        match step.outcome {
            StepOutcome::Done => ui.line(format_args!("#{number} DONE {took}{}", size(step)))?,
            StepOutcome::Failed => ui.line(format_args!("#{number} ERROR {took}"))?,
            StepOutcome::Canceled => ui.line(format_args!("#{number} CANCELED {took}"))?,
            _ => {}
        }
    }
    Ok(())
}

fn size(step: &StepRecord) -> String {
    step.layer_bytes.map(|bytes| format!("  {}", human_size(bytes))).unwrap_or_default()
}

fn inspect(args: &InspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let build = engine.builds().find(args.build.as_deref())?;
    if args.format.is_some() {
        let rows = [described(&build)];
        let columns = Columns { default: "{{json .}}", headers: &[] };
        ui.text(&format::rows(args.format.as_deref(), columns, &rows, &|_, _, _| None)?)?;
        return Ok(0);
    }
    let mut field = |name: &str, value: &str| match value.is_empty() {
        true => Ok(()),
        false => ui.line(format_args!("{name:<12} {value}")),
    };
    field("Build:", &build.id)?;
    field("Name:", &build.name())?;
    field("Context:", &build.request.context)?;
    field("Dockerfile:", &build.request.dockerfile)?;
    field("Target:", build.request.target.as_deref().unwrap_or_default())?;
    field("Platform:", &build.request.platforms.join(","))?;
    field("Started:", &when::local(build.started_us / 1_000_000))?;
    field("Duration:", &duration(&build, Timestamp::now()))?;
    field("Status:", status(&build))?;
    field("Image:", &build.image.map(|image| image.to_string()).unwrap_or_default())?;
    for (name, value) in &build.request.build_args {
        field("Argument:", &format!("{name}={}", value.as_deref().unwrap_or("(hidden)")))?;
    }
    for (index, step) in build.steps.iter().enumerate() {
        ui.line(format_args!("#{:<3} {:<8} {}", index + 1, outcome(step), step.title(build.has_stages())))?;
        if let Some(reason) = &step.reason {
            ui.line(format_args!("              not cached: {reason}"))?;
        }
    }
    if let Some(error) = &build.error {
        ui.line(format_args!("Error: {error}"))?;
    }
    Ok(0)
}

pub(super) fn outcome(step: &StepRecord) -> &'static str {
    match step.outcome {
        StepOutcome::NotReached => "-",
        StepOutcome::Running => "RUNNING",
        StepOutcome::Cached => "CACHED",
        StepOutcome::Done => "DONE",
        StepOutcome::Failed => "ERROR",
        StepOutcome::Canceled => "CANCELED",
    }
}

/// A build as JSON.
fn described(build: &BuildRecord) -> Value {
    let steps = build.steps.iter().map(|step| {
        json!({
            "Stage": step.stage,
            "Number": step.number,
            "Instruction": step.text,
            "Line": step.line,
            "Status": outcome(step),
            "Reason": step.reason.as_ref().map(MissReason::to_string),
            "Key": step.key.map(|key| key.to_string()),
            "Started": step.started_us.and_then(time),
            "Completed": step.ended_us.and_then(time),
            "LayerBytes": step.layer_bytes,
            "LogBytes": step.log.map(|log| log.bytes),
            "Image": step.image.map(|image| image.to_string()),
        })
    });
    json!({
        "Ref": build.id,
        "Name": build.name(),
        "Context": build.request.context,
        "Dockerfile": build.request.dockerfile,
        "Target": build.request.target,
        "Platform": build.request.platforms.join(","),
        "BuildArgs": build.request.build_args,
        "Names": build.request.names,
        "Started": time(build.started_us),
        "Completed": build.ended_us.and_then(time),
        "Status": status(build),
        "Image": build.image.map(|image| image.to_string()),
        "Error": build.error,
        "Warnings": build.warnings,
        "Steps": steps.collect::<Vec<_>>(),
    })
}

fn time(micros: i64) -> Option<String> {
    Timestamp::from_microsecond(micros).ok().map(|time| time.to_string())
}

fn remove(args: &RmArgs, engine: &Engine) -> Result<u8, CliError> {
    let builds = engine.builds();
    let ids: Vec<String> = if args.all {
        builds.list()?.into_iter().map(|build| build.id).collect()
    } else {
        // All are looked up first, as `^1` means another build once one is gone.
        let found = args.builds.iter().map(|text| Ok(builds.find(Some(text))?.id));
        found.collect::<Result<_, CliError>>()?
    };
    for id in ids {
        builds.remove(&id)?;
    }
    Ok(0)
}
