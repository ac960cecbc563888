use dhow_engine::{Engine, ImageTree, TreeStep};
use dhow_oci::Reference;
use dhow_template::units::{ellipsis, human_size};
use serde_json::{Value, json};

use crate::commands::layers::{Shape, instruction};
use crate::error::CliError;
use crate::ui::Ui;

/// Show the layers of an image, the instructions that made them and the images it was built from
#[derive(clap::Args, Debug)]
pub(crate) struct ImageTreeArgs {
    /// Image, by name or ID
    image: String,
    /// How to show it
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: Shape,
    /// Show whole instructions and IDs
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: &ImageTreeArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let tree = engine.image_tree(&args.image)?;
    match args.format {
        Shape::Json => ui.line(as_json(&tree))?,
        Shape::Text => as_text(&tree, args.no_trunc).iter().try_for_each(|line| ui.line(line))?,
    }
    Ok(0)
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.familiar())
}

fn as_text(tree: &ImageTree, whole: bool) -> Vec<String> {
    let record = &tree.image.record;
    let id = if whole { record.id.to_string() } else { record.id.short() };
    let names: Vec<String> = tree.image.names.iter().map(|name| familiar(&name.reference)).collect();
    let names = if names.is_empty() { "<none>".to_owned() } else { names.join(" ") };
    let mut lines = vec![format!("{names}  {id}  {}  {}", tree.platform, human_size(record.size_bytes))];
    let last = tree.steps.iter().rposition(|step| step.layer.is_some());
    for (index, step) in tree.steps.iter().enumerate() {
        lines.push(step_line(step, Some(index) == last, last.is_some_and(|last| index < last), whole));
    }
    lines
}

fn step_line(step: &TreeStep, is_last: bool, more_below: bool, whole: bool) -> String {
    let text = instruction(&step.created_by, whole);
    let id_width = if whole { "sha256:".len() + 64 } else { 12 };
    let Some(layer) = &step.layer else {
        let bar = if more_below { "│" } else { " " };
        return format!("{bar}  {:id_width$}  {:>8}  {text}", "", "").trim_end().to_owned();
    };
    let branch = if is_last { "└─" } else { "├─" };
    let id = if whole { layer.diff_id.to_string() } else { layer.diff_id.digest().short() };
    let mut line = format!("{branch} {id:id_width$}  {:>8}  {text}", human_size(layer.size_bytes));
    if !layer.images.is_empty() {
        let names: Vec<String> = layer.images.iter().map(|name| familiar(name)).collect();
        line += &format!("  = {}", if whole { names.join(", ") } else { ellipsis(&names.join(", "), 60) });
    }
    line.trim_end().to_owned()
}

fn as_json(tree: &ImageTree) -> Value {
    let step = |step: &TreeStep| {
        let layer = step.layer.as_ref().map(|layer| {
            json!({
                "DiffID": layer.diff_id.to_string(),
                "Size": layer.size_bytes,
                "Images": layer.images.iter().map(|name| familiar(name)).collect::<Vec<_>>(),
                "SharedBy": layer.shared_by,
            })
        });
        json!({ "CreatedBy": step.created_by, "Layer": layer })
    };
    json!({
        "ID": tree.image.record.id.to_string(),
        "Names": tree.image.names.iter().map(|name| familiar(&name.reference)).collect::<Vec<_>>(),
        "Platform": tree.platform.to_string(),
        "Size": tree.image.record.size_bytes,
        "Steps": tree.steps.iter().map(step).collect::<Vec<_>>(),
    })
}
