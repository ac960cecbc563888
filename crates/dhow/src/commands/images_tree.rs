//! `dhow images --tree`: each name with the platforms it is here for.

use dhow_engine::{Engine, ImageSummary, Variant};
use dhow_oci::Reference;
use dhow_template::format::{self, Columns};
use dhow_template::units::human_size;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::ui::Ui;

const COLUMNS: Columns<'_> = Columns {
    default: r"{{.Image}}\t{{.ID}}\t{{.DiskUsage}}\t{{.ContentSize}}\t{{.Used}}",
    headers: &[
        ("Image", "IMAGE"),
        ("ID", "ID"),
        ("DiskUsage", "DISK USAGE"),
        ("ContentSize", "CONTENT SIZE"),
        ("Used", "USED"),
    ],
};

pub(super) fn print(images: &[ImageSummary], engine: &Engine, ui: &mut Ui) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for summary in images {
        let variants = engine.image_variants(&summary.image)?;
        let here: Vec<&Variant> = variants.iter().filter(|variant| variant.is_whole).collect();
        rows.extend(top(summary, &here));
        for (position, variant) in here.iter().enumerate() {
            rows.push(branch(variant, position + 1 == here.len()));
        }
    }
    ui.text(&format::rows(None, COLUMNS, &rows, &|_, _, _| None)?)
}

/// The lines of an image: one per name.
fn top(summary: &ImageSummary, variants: &[&Variant]) -> Vec<Value> {
    let record = &summary.image.record;
    let familiar =
        |text: &String| text.parse::<Reference>().map_or_else(|_| text.clone(), |name| name.familiar());
    let mut names: Vec<String> = summary.image.names.iter().map(|name| familiar(&name.reference)).collect();
    if names.is_empty() {
        names.push("<untagged>".to_owned());
    }
    let unpacked: u64 = match variants {
        [] => record.size_bytes,
        variants => variants.iter().filter_map(|variant| variant.unpacked_bytes).sum(),
    };
    let content: u64 = variants.iter().map(|variant| variant.travelling_bytes).sum();
    let id = record.target.as_ref().map_or(record.id, |target| target.digest);
    let row = |name: String| {
        json!({
            "Image": name,
            "ID": id.short(),
            "DiskUsage": human_size(unpacked + content),
            "ContentSize": human_size(content),
            "Used": if summary.containers > 0 { "U" } else { "" },
        })
    };
    names.into_iter().map(row).collect()
}

fn branch(variant: &Variant, is_last: bool) -> Value {
    json!({
        "Image": format!("{} {}", if is_last { "└─" } else { "├─" }, variant.platform),
        "ID": variant.manifest.digest.short(),
        "DiskUsage": human_size(variant.travelling_bytes + variant.unpacked_bytes.unwrap_or(0)),
        "ContentSize": human_size(variant.travelling_bytes),
        "Used": "",
    })
}
