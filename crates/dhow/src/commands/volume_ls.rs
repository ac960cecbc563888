use dhow_engine::Engine;
use dhow_engine::containers::Volume;
use dhow_template::format::{self, Columns};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

const FILTERS: &[&str] = &["dangling", "driver", "label", "label!", "name"];
/// What is not known without measuring, as in docker.
const NOT_KNOWN: &str = "N/A";
const COLUMNS: Columns<'_> = Columns {
    default: r"{{.Driver}}\t{{.Name}}",
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Availability", "AVAILABILITY"),
        ("Status", "STATUS"),
    ],
};

/// List volumes
#[derive(clap::Args, Debug)]
pub(crate) struct VolumeLsArgs {
    /// Show only volumes that fit, such as dangling=true or label=a=b (can be repeated)
    #[arg(short, long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show only names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &VolumeLsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let dangling = filters.truth("dangling")?;
    let values = |name: &str| filters.all(name).map(str::to_owned).collect();
    let mut volumes = engine.list_volumes()?;
    volumes.retain(|volume| {
        dangling.is_none_or(|dangling| dangling == volume.users.is_empty())
            && dhow_serve::volume::fits(volume, &values)
    });
    if args.quiet && args.format.is_none() {
        volumes.iter().try_for_each(|volume| ui.line(&volume.name))?;
        return Ok(0);
    }
    let rows: Vec<Value> = volumes.iter().map(row).collect();
    let methods = |row: &Value, method: &str, args: &[Value]| label(row, method, args);
    ui.text(&format::rows(args.format.as_deref(), COLUMNS, &rows, &methods)?)?;
    Ok(0)
}

fn row(volume: &Volume) -> Value {
    let labels: Vec<String> = volume.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "Name": volume.name,
        "Driver": volume.driver(),
        "Scope": "local",
        "Mountpoint": volume.mountpoint.display().to_string(),
        "Labels": labels.join(","),
        "Links": NOT_KNOWN,
        "Size": NOT_KNOWN,
        "Group": NOT_KNOWN,
        "Availability": NOT_KNOWN,
        "Status": NOT_KNOWN,
    })
}

/// `.Label "name"` in a format.
fn label(row: &Value, method: &str, args: &[Value]) -> Option<Result<Value, String>> {
    match (method, args) {
        ("Label", [Value::String(name)]) => {
            let labels = row["Labels"].as_str().unwrap_or_default();
            let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            Some(Ok(pairs.find(|(known, _)| known == name).map_or("", |(_, value)| value).into()))
        }
        ("Label", _) => Some(Err(format!("wrong number of args for Label: want 1 got {}", args.len()))),
        _ => None,
    }
}
