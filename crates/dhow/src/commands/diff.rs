use std::cmp::Reverse;

use dhow_engine::containers::Change;
use dhow_engine::{Comparison, Difference, Engine, PathDifference};
use dhow_template::units::{ellipsis, human_size};
use serde_json::{Value, json};

use crate::commands::layers::{Shape, file_json, printable, shown};
use crate::error::CliError;
use crate::ui::Ui;

/// As much of a value of the configuration as is shown unless all is wanted.
const VALUE_WIDTH: usize = 50;

/// Show what a container wrote over its image, or what differs between two images: configuration, and files by size
#[derive(clap::Args, Debug)]
pub(crate) struct DiffArgs {
    /// Container, or image to compare with another, by name or ID
    #[arg(value_name = "CONTAINER|IMAGE")]
    first: String,
    /// Image to compare it with
    #[arg(value_name = "IMAGE")]
    second: Option<String>,
    /// Each entry of a directory that only one image has, not the directory alone
    #[arg(short, long)]
    all: bool,
    /// How to show it
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: Shape,
    /// Show whole values
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: &DiffArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let Some(second) = &args.second else { return container(args, engine, ui) };
    let mut comparison = engine.compare_images(&args.first, second, args.all)?;
    comparison.files.sort_by_key(|file| Reverse(file.growth().unsigned_abs()));
    match args.format {
        Shape::Json => ui.line(as_json(&comparison))?,
        Shape::Text => as_text(&comparison, args.no_trunc).iter().try_for_each(|line| ui.line(line))?,
    }
    Ok(0)
}

/// As `docker diff`: a letter and a path a line.
fn container(args: &DiffArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    if args.all || args.no_trunc {
        return Err(CliError::new("--all and --no-trunc are for two images"));
    }
    let changes = engine.container_changes(&args.first)?;
    match args.format {
        Shape::Json => {
            let change = |change: &Change| json!({ "Path": change.path, "Kind": change.kind.number() });
            ui.line(Value::Array(changes.iter().map(change).collect()))?;
        }
        Shape::Text => changes.iter().try_for_each(|change| {
            ui.line(format_args!("{} {}", change.kind.letter(), printable(&change.path.to_string_lossy())))
        })?,
    }
    Ok(0)
}

fn as_text(comparison: &Comparison, whole: bool) -> Vec<String> {
    if comparison.config.is_empty() && comparison.files.is_empty() {
        return vec!["no difference".to_owned()];
    }
    let mut lines = Vec::new();
    if !comparison.config.is_empty() {
        lines.push("CONFIGURATION".to_owned());
        lines.extend(comparison.config.iter().map(|one| config_line(one, whole)));
    }
    if !comparison.files.is_empty() {
        let growth: i64 = comparison.files.iter().map(PathDifference::growth).sum();
        lines.push(format!("FILES  {}", signed(growth)));
        lines.extend(comparison.files.iter().map(file_line));
    }
    lines
}

fn config_line(one: &Difference, whole: bool) -> String {
    let value = |value: &Option<String>| match value {
        None => "none".to_owned(),
        Some(value) if value.is_empty() => "\"\"".to_owned(),
        Some(value) if whole => printable(value),
        Some(value) => ellipsis(&printable(value), VALUE_WIDTH),
    };
    format!(
        "{}  {}: {} -> {}",
        letter(&one.before, &one.after),
        one.name,
        value(&one.before),
        value(&one.after)
    )
}

fn file_line(file: &PathDifference) -> String {
    let below = match file.entries_below {
        0 => String::new(),
        1 => ", with 1 entry".to_owned(),
        count => format!(", with {count} entries"),
    };
    let letter = letter(&file.before, &file.after);
    let is_change = file.before.is_some() && file.after.is_some();
    let words = if is_change || !below.is_empty() {
        format!("  ({}{below})", printable(&file.words()))
    } else {
        String::new()
    };
    format!("{letter} {:>9}  {}{words}", signed(file.growth()), shown(&file.path))
}

/// As `docker diff` marks them: added, changed, deleted.
fn letter<T>(before: &Option<T>, after: &Option<T>) -> char {
    match (before, after) {
        (None, _) => 'A',
        (_, None) => 'D',
        _ => 'C',
    }
}

fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { '-' } else { '+' };
    format!("{sign}{}", human_size(bytes.unsigned_abs()))
}

fn as_json(comparison: &Comparison) -> Value {
    let config = |one: &Difference| json!({ "Name": one.name, "Before": one.before, "After": one.after });
    let file = |file: &PathDifference| {
        json!({
            "Path": file.path.display().to_string(),
            "Change": file.words(),
            "Before": file.before.as_ref().map(file_json),
            "After": file.after.as_ref().map(file_json),
            "EntriesBelow": file.entries_below,
            "Growth": file.growth(),
        })
    };
    json!({
        "Config": comparison.config.iter().map(config).collect::<Vec<_>>(),
        "Files": comparison.files.iter().map(file).collect::<Vec<_>>(),
    })
}
