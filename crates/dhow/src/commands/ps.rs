use dhow_engine::Engine;
use dhow_engine::containers::{Container, MountKind, short_id};
use dhow_serve::container::{ports, ports_text, running_for, status};
use dhow_serve::container_filter::{ContainerFilter, health};
use dhow_template::format::{Columns, rows};
use dhow_template::units::{ellipsis, human_size};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::ui::Ui;

/// How much of a command the table shows.
const COMMAND_WIDTH: usize = 20;
/// How much of the mounts' names the table shows.
const MOUNT_WIDTH: usize = 15;

const COLUMNS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
        ("HealthStatus", "HEALTH"),
        ("Size", "SIZE"),
    ],
};

const COLUMNS_WITH_SIZE: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    headers: COLUMNS.headers,
};

/// List containers
#[derive(clap::Args, Debug)]
pub(crate) struct PsArgs {
    /// Show all containers, not only running ones
    #[arg(short, long)]
    all: bool,
    /// Show only containers that fit, such as status=exited or name=web (can be repeated)
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// Print with a Go template, as a table with `table TEMPLATE`, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show the last containers made, whether they run or not
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        allow_hyphen_values = true,
        default_value = "-1",
        hide_default_value = true
    )]
    last: i64,
    /// Show the last container made, whether it runs or not
    #[arg(short, long)]
    latest: bool,
    /// Do not cut ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show what each takes on the disk
    #[arg(short, long)]
    size: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &PsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filter = ContainerFilter::parse(&args.filter, engine).map_err(CliError::new)?;
    let last = if args.latest { Some(1) } else { usize::try_from(args.last).ok().filter(|last| *last > 0) };
    let all = args.all || last.is_some() || filter.asks_for_state();
    let mut shown = engine.containers().list()?;
    shown.retain(|container| (all || container.state.is_up()) && filter.fits(container));
    shown.truncate(last.unwrap_or(usize::MAX));
    if args.quiet {
        for container in &shown {
            ui.line(if args.no_trunc { &container.id } else { short_id(&container.id) })?;
        }
        return Ok(0);
    }
    let now = Timestamp::now();
    let mut lines: Vec<Value> = shown.iter().map(|container| row(container, args.no_trunc, now)).collect();
    let asks_for_size = args.format.as_deref().is_some_and(|format| format.contains(".Size"));
    if args.size || asks_for_size {
        for (line, container) in lines.iter_mut().zip(&shown) {
            line["Size"] = size(container, engine)?.into();
        }
    }
    let labels = |value: &Value, name: &str, args: &[Value]| label(value, name, args);
    let columns = if args.size { COLUMNS_WITH_SIZE } else { COLUMNS };
    ui.text(&rows(args.format.as_deref(), columns, &lines, &labels)?)?;
    Ok(0)
}

fn row(container: &Container, no_trunc: bool, now: Timestamp) -> Value {
    let record = &container.record;
    let cut = |text: String, width: usize| if no_trunc { text } else { ellipsis(&text, width) };
    let labels = record.config.labels.iter().map(|(name, value)| format!("{name}={value}"));
    let mounts = record.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { source, .. } => Some(source.display().to_string()),
        MountKind::Volume { name, .. } => Some(name.clone()),
        MountKind::Image { name, .. } => Some(name.clone()),
        MountKind::Tmpfs { .. } => None,
    });
    json!({
        "ID": if no_trunc { &container.id } else { short_id(&container.id) },
        "Image": shown_image(container, no_trunc),
        "Command": format!("\"{}\"", cut(record.args().join(" "), COMMAND_WIDTH)),
        "CreatedAt": created_at(&record.created),
        "RunningFor": running_for(container, now),
        "Status": status(&container.state, container.health.as_ref().map(|health| health.status), now),
        "State": container.state.word(),
        "Ports": ports_text(&ports(container)),
        "Names": container.name,
        "Labels": labels.collect::<Vec<_>>().join(","),
        "Mounts": mounts.map(|name| cut(name, MOUNT_WIDTH)).collect::<Vec<_>>().join(","),
        "LocalVolumes": record.volumes().count().to_string(),
        "Networks": record.networks.keys().map(String::as_str).collect::<Vec<_>>().join(","),
        "Platform": "",
        "HealthStatus": health(container),
        "Size": "",
    })
}

/// What a container has written, and the same with its image.
fn size(container: &Container, engine: &Engine) -> Result<String, CliError> {
    let written = engine.containers().written_bytes(&container.id)?;
    // An image that is gone has nothing to show.
    let image = engine.find_image(&container.record.image.to_string());
    let image = image.map_or(0, |image| image.record.size_bytes);
    Ok(format!("{} (virtual {})", human_size(written), human_size(written + image)))
}

/// An image that was given by its id is shown by its short one.
fn shown_image(container: &Container, no_trunc: bool) -> String {
    let name = &container.record.image_name;
    let id = name.strip_prefix("sha256:").filter(|_| !no_trunc);
    id.map_or_else(|| name.clone(), |id| short_id(id).to_owned())
}

/// As Go prints a time: `2026-01-31 10:00:00 +0000 UTC`.
pub(super) fn created_at(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| time.to_owned(), |time| crate::when::local(time.as_second()))
}

/// `.Label "name"` in a format.
pub(super) fn label(row: &Value, method: &str, args: &[Value]) -> Option<Result<Value, String>> {
    match (method, args) {
        ("Label", [Value::String(name)]) => {
            let labels = row["Labels"].as_str().unwrap_or_default();
            let value =
                labels.split(',').filter_map(|pair| pair.split_once('=')).find(|(known, _)| known == name);
            Some(Ok(value.map_or("", |(_, value)| value).into()))
        }
        ("Label", _) => Some(Err(format!("wrong number of args for Label: want 1 got {}", args.len()))),
        _ => None,
    }
}
