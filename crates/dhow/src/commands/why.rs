use std::path::PathBuf;

use dhow_engine::{BelowLayer, Engine, PathEvent, PathStory};
use dhow_template::units::human_size;
use serde_json::{Value, json};

use crate::commands::layers::{Shape, describe, file_json, instruction, printable, shown};
use crate::error::CliError;
use crate::ui::Ui;

/// Say which layer and instruction brought a file into an image, and which later ones changed it
#[derive(clap::Args, Debug)]
pub(crate) struct WhyArgs {
    /// File or directory in the image
    path: PathBuf,
    /// Image, by name or ID
    image: String,
    /// How to say it
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    format: Shape,
    /// Show whole instructions and IDs
    #[arg(long)]
    no_trunc: bool,
}

pub(crate) fn run(args: &WhyArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let story = engine.why(&args.image, &args.path)?;
    match args.format {
        Shape::Json => ui.line(as_json(&story))?,
        Shape::Text => as_text(&story, args.no_trunc).iter().try_for_each(|line| ui.line(line))?,
    }
    Ok(0)
}

fn as_text(story: &PathStory, whole: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for followed in &story.followed {
        lines.push(format!("{} is a link to {}", shown(&followed.link), shown(&followed.target)));
    }
    let current = story.events.last().and_then(|event| event.after.as_ref());
    let now = match (story.events.is_empty(), current) {
        (true, _) => "the root of the image".to_owned(),
        (false, Some(file)) => describe(file),
        (false, None) => "removed".to_owned(),
    };
    lines.push(format!("{}: {now}", shown(&story.path)));
    for event in &story.events {
        lines.push(layer_line(story, event.layer, &event_words(event), whole));
    }
    if !story.below.is_empty() {
        lines.push("below it:".to_owned());
        lines.extend(
            story.below.iter().map(|below| layer_line(story, below.layer, &below_words(below), whole)),
        );
    }
    lines
}

fn layer_line(story: &PathStory, position: usize, words: &str, whole: bool) -> String {
    let layer = &story.layers[position];
    let id = if whole { layer.diff_id.to_string() } else { layer.diff_id.digest().short() };
    let made_by = layer.created_by.as_deref().unwrap_or_default();
    let number = format!("{}/{}", position + 1, story.layers.len());
    format!("{number:>7}  {id}  {words:30}  {}", instruction(made_by, whole)).trim_end().to_owned()
}

fn event_words(event: &PathEvent) -> String {
    let words = printable(&event.words());
    match (&event.before, &event.after) {
        (None, Some(file)) => format!("{words}: {}", describe(file)),
        (Some(before), Some(after)) if before.size_bytes != after.size_bytes => {
            format!("{words}, {} -> {}", human_size(before.size_bytes), human_size(after.size_bytes))
        }
        _ => words,
    }
}

fn below_words(below: &BelowLayer) -> String {
    let mut words = Vec::new();
    if below.written > 0 {
        words.push(format!("{} written, {}", below.written, human_size(below.bytes)));
    }
    if below.removed > 0 {
        words.push(format!("{} removed", below.removed));
    }
    words.join(", ")
}

fn as_json(story: &PathStory) -> Value {
    let layer = |position: usize| {
        let layer = &story.layers[position];
        json!({ "Number": position + 1, "DiffID": layer.diff_id.to_string(), "CreatedBy": layer.created_by })
    };
    let event = |event: &PathEvent| {
        json!({
            "Layer": layer(event.layer),
            "Change": event.words(),
            "Before": event.before.as_ref().map(file_json),
            "After": event.after.as_ref().map(file_json),
        })
    };
    let below = |below: &BelowLayer| {
        json!({
            "Layer": layer(below.layer),
            "Written": below.written,
            "Removed": below.removed,
            "Size": below.bytes,
        })
    };
    let followed = story.followed.iter().map(|followed| {
        json!({ "Link": followed.link.display().to_string(), "Target": followed.target.display().to_string() })
    });
    json!({
        "Path": story.path.display().to_string(),
        "Followed": followed.collect::<Vec<_>>(),
        "Events": story.events.iter().map(event).collect::<Vec<_>>(),
        "Below": story.below.iter().map(below).collect::<Vec<_>>(),
    })
}
