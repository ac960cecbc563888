use dhow_engine::{Engine, HistoryEntry};
use dhow_oci::Platform;
use dhow_template::format::{self, Columns};
use dhow_template::units::{ellipsis, human_size};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::ui::Ui;
use crate::when;

const MISSING: &str = "<missing>";
/// As much of an instruction as a table shows.
const CREATED_BY_WIDTH: usize = 45;
const COLUMNS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};
const WITHOUT_HUMANS: &str = r"{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/// Show how an image was made
#[derive(clap::Args, Debug)]
pub(crate) struct HistoryArgs {
    /// Image, by name or ID
    image: String,
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print sizes and dates for people
    #[arg(
        short = 'H', long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL"
    )]
    human: bool,
    /// Show whole instructions and IDs
    #[arg(long)]
    no_trunc: bool,
    /// Show the image of this platform, such as linux/amd64
    #[arg(long)]
    platform: Option<Platform>,
    /// Show only IDs
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: HistoryArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let (now, entries) = (Timestamp::now(), engine.image_history(&args.image, args.platform.as_ref())?);
    if args.quiet {
        entries.iter().try_for_each(|entry| ui.line(id(entry, &args)))?;
        return Ok(0);
    }
    let rows: Vec<Value> = entries.iter().map(|entry| row(entry, now, &args)).collect();
    let default = if args.human { COLUMNS.default } else { WITHOUT_HUMANS };
    let columns = Columns { default, ..COLUMNS };
    ui.text(&format::rows(args.format.as_deref(), columns, &rows, &|_, _, _| None)?)?;
    Ok(0)
}

fn id(entry: &HistoryEntry, args: &HistoryArgs) -> String {
    match entry.image {
        None => MISSING.to_owned(),
        Some(id) if args.no_trunc => id.to_string(),
        Some(id) => id.short(),
    }
}

fn row(entry: &HistoryEntry, now: Timestamp, args: &HistoryArgs) -> Value {
    let created = entry.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    let since = created.map_or_else(|| "N/A".to_owned(), |time| when::ago(time.as_second(), now));
    let at = created.map_or_else(|| "N/A".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let created_by = entry.created_by.replace('\t', " ");
    json!({
        "ID": id(entry, args),
        "CreatedSince": if args.human { since } else { at.clone() },
        "CreatedAt": at,
        "CreatedBy": if args.no_trunc { created_by } else { ellipsis(&created_by, CREATED_BY_WIDTH) },
        "Size": if args.human { human_size(entry.size_bytes) } else { entry.size_bytes.to_string() },
        "Comment": entry.comment,
    })
}
