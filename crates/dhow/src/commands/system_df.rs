use dhow_engine::containers::short_id;
use dhow_engine::{CacheEntry, ContainerUsage, DiskUsage, Engine, ImageUsage};
use dhow_serve::container::{running_for, status};
use dhow_template::format::{self, Columns};
use dhow_template::units::{ellipsis, human_size, human_size4};
use dhow_template::{MissingKey, Template};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::commands::images;
use crate::error::CliError;
use crate::ui::Ui;
use crate::when;

const COMMAND_WIDTH: usize = 20;
const SUMMARY: Columns<'_> = Columns {
    default: r"{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};
const IMAGES: Columns<'_> = Columns {
    default: r"{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headers: images::HEADERS,
};
const CONTAINERS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
};
const VOLUMES: Columns<'_> = Columns {
    default: r"{{.Name}}\t{{.Links}}\t{{.Size}}",
    headers: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
};
const CACHE: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headers: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
        ("Shared", "SHARED"),
    ],
};

/// Show what images, containers, volumes and the build cache take
#[derive(clap::Args, Debug)]
pub(crate) struct DfArgs {
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show each image, container, volume and cache entry
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: &DfArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let usage = engine.disk_usage()?;
    if !args.verbose {
        ui.text(&format::rows(args.format.as_deref(), SUMMARY, &summary(&usage), &|_, _, _| None)?)?;
        return Ok(0);
    }
    let now = Timestamp::now();
    let all = Rows {
        images: usage.images.iter().flat_map(|image| image_rows(image, now)).collect(),
        containers: usage.containers.iter().map(|container| container_row(container, now)).collect(),
        volumes: usage.volumes.iter().map(volume_row).collect(),
        cache: usage.cache.iter().map(|entry| cache_row(entry, now)).collect(),
    };
    match args.format.as_deref() {
        None | Some("" | "table") => tables(&all, &usage, ui)?,
        Some("json") => ui.line(all.value())?,
        Some(format) => {
            ui.line(Template::parse(format)?.missing_key(MissingKey::Error).render(&all.value())?)?
        }
    }
    Ok(0)
}

struct Rows {
    images: Vec<Value>,
    containers: Vec<Value>,
    volumes: Vec<Value>,
    cache: Vec<Value>,
}

impl Rows {
    fn value(&self) -> Value {
        json!({
            "Images": self.images,
            "Containers": self.containers,
            "Volumes": self.volumes,
            "BuildCache": self.cache,
        })
    }
}

fn tables(all: &Rows, usage: &DiskUsage, ui: &mut Ui) -> Result<(), CliError> {
    let mut table = |title: &str, columns, rows: &[Value]| {
        ui.line(format_args!("{title}\n"))?;
        ui.text(&format::rows(None, columns, rows, &|_, _, _| None)?)?;
        ui.line("")
    };
    table("Images space usage:", IMAGES, &all.images)?;
    table("Containers space usage:", CONTAINERS, &all.containers)?;
    table("Local Volumes space usage:", VOLUMES, &all.volumes)?;
    let cache = cache_bytes(&usage.cache, |_| true);
    table(&format!("Build cache usage: {}", human_size4(cache)), CACHE, &all.cache)
}

fn summary(usage: &DiskUsage) -> Vec<Value> {
    let is_active = |container: &&ContainerUsage| container.container.state.is_running();
    let sum = |containers: &mut dyn Iterator<Item = &ContainerUsage>| -> u64 {
        containers.map(|container| container.bytes).sum()
    };
    let all = sum(&mut usage.containers.iter());
    let active = sum(&mut usage.containers.iter().filter(is_active));
    let volumes: u64 = usage.volumes.iter().map(|volume| volume.size_bytes).sum();
    let unused = usage.volumes.iter().filter(|volume| volume.links == 0);
    let unused: u64 = unused.map(|volume| volume.size_bytes).sum();
    let used_images = usage.images.iter().filter(|image| image.summary.containers > 0).count();
    let used_volumes = usage.volumes.iter().filter(|volume| volume.links > 0).count();
    let used_cache = usage.cache.iter().filter(|entry| entry.is_in_use).count();
    let row = |kind: &str, total: usize, active: usize, bytes: u64, reclaimable: String| {
        json!({
            "Type": kind,
            "TotalCount": total.to_string(),
            "Active": active.to_string(),
            "Size": human_size4(bytes),
            "Reclaimable": reclaimable,
        })
    };
    let images = share(usage.image_reclaimable_bytes, usage.image_bytes);
    let running = usage.containers.iter().filter(is_active).count();
    let cache = human_size4(cache_bytes(&usage.cache, CacheEntry::is_reclaimable));
    vec![
        row("Images", usage.images.len(), used_images, usage.image_bytes, images),
        row("Containers", usage.containers.len(), running, all, share(all - active, all)),
        row("Local Volumes", usage.volumes.len(), used_volumes, volumes, share(unused, volumes)),
        row("Build Cache", usage.cache.len(), used_cache, cache_bytes(&usage.cache, |_| true), cache),
    ]
}

/// What images have as well is counted with them.
fn cache_bytes(cache: &[CacheEntry], fits: impl Fn(&CacheEntry) -> bool) -> u64 {
    let own: Vec<CacheEntry> =
        cache.iter().filter(|entry| !entry.is_shared && fits(entry)).cloned().collect();
    dhow_engine::CacheTotals::of(&own).bytes
}

fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{} ({percent}%)", human_size4(part)),
        None => human_size4(part),
    }
}

fn image_rows(usage: &ImageUsage, now: Timestamp) -> Vec<Value> {
    let mut rows = images::rows(&usage.summary, false, now, false);
    for row in &mut rows {
        row["Size"] = human_size(usage.bytes).into();
        row["VirtualSize"] = row["Size"].clone();
        row["SharedSize"] = human_size(usage.shared_bytes).into();
        row["UniqueSize"] = human_size(usage.bytes - usage.shared_bytes).into();
    }
    rows
}

fn container_row(usage: &ContainerUsage, now: Timestamp) -> Value {
    let container = &usage.container;
    json!({
        "ID": short_id(&container.id),
        "Image": container.record.image_name,
        "Command": format!("\"{}\"", ellipsis(&container.record.args().join(" "), COMMAND_WIDTH)),
        "LocalVolumes": container.record.volumes().count().to_string(),
        "Size": human_size(usage.bytes),
        "RunningFor": running_for(container, now),
        "Status": status(&container.state, container.health.as_ref().map(|health| health.status), now),
        "Names": container.name,
    })
}

fn volume_row(volume: &dhow_engine::containers::VolumeUsage) -> Value {
    json!({
        "Name": volume.name,
        "Links": volume.links.to_string(),
        "Size": human_size(volume.size_bytes),
    })
}

fn cache_row(entry: &CacheEntry, now: Timestamp) -> Value {
    json!({
        "ID": entry.id.strip_prefix("sha256:").unwrap_or(&entry.id).chars().take(12).collect::<String>(),
        "CacheType": entry.kind(),
        "Size": human_size(entry.size_bytes),
        "CreatedSince": when::ago(entry.created, now),
        "LastUsedSince": when::ago(entry.last_used, now),
        "UsageCount": entry.uses.to_string(),
        "Shared": entry.is_shared.to_string(),
    })
}
