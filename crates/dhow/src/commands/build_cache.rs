use std::io::{self, BufRead as _};

use dhow_engine::{CacheEntry, CacheTotals, Engine, PruneBuildCache};
use dhow_template::format::{self, Columns};
use dhow_template::units::{human_size, human_size4, ram_in_bytes};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;
use crate::when;

const FILTERS: &[&str] =
    &["description", "id", "inuse", "parent", "private", "shared", "type", "until", "unused-for"];
const COLUMNS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedSince}}",
    headers: &[
        ("ID", "ID"),
        ("Parent", "PARENT"),
        ("CacheType", "CACHE TYPE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedSince", "CREATED"),
        ("LastUsedAt", "LAST USED AT"),
        ("LastUsedSince", "LAST ACCESSED"),
        ("UsageCount", "USAGE"),
        ("InUse", "IN USE"),
        ("Shared", "SHARED"),
        ("Mutable", "MUTABLE"),
        ("Description", "DESCRIPTION"),
    ],
};

/// Show what the build cache takes
#[derive(clap::Args, Debug)]
pub(crate) struct DuArgs {
    /// Show only what fits, such as type=exec.cachemount, inuse=true or until=24h (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Format output by a Go template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE'
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    format: Option<String>,
    /// Say all there is to say about each entry
    #[arg(long)]
    verbose: bool,
}

/// Remove what the build cache keeps
#[derive(clap::Args, Debug)]
pub(crate) struct PruneArgs {
    /// Remove entries as well whose layers images have, which frees next to nothing
    #[arg(short, long)]
    all: bool,
    /// Remove only what fits, such as until=24h or type=exec.cachemount (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Bytes to leave in any case, such as 10GB
    #[arg(long, value_name = "BYTES", alias = "keep-storage", value_parser = ram_in_bytes)]
    reserved_space: Option<u64>,
    /// Bytes that the cache may take
    #[arg(long, value_name = "BYTES", value_parser = ram_in_bytes)]
    max_used_space: Option<u64>,
    /// Bytes that are to be free on the disk
    #[arg(long, value_name = "BYTES", value_parser = ram_in_bytes)]
    min_free_space: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Say all there is to say about each entry removed
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn usage(args: &DuArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let now = Timestamp::now();
    let filter = filter(&args.filters, now)?;
    let entries: Vec<CacheEntry> =
        engine.build_cache()?.into_iter().filter(|entry| filter.fits(entry)).collect();
    if args.verbose {
        entries.iter().try_for_each(|entry| verbose(entry, now, ui))?;
    } else {
        let rows: Vec<Value> = entries.iter().map(|entry| row(entry, now)).collect();
        ui.text(&format::rows(args.format.as_deref(), COLUMNS, &rows, &|_, _, _| None)?)?;
    }
    if args.format.is_none() {
        let totals = CacheTotals::of(&entries);
        ui.line(format_args!("Shared:      {}", human_size(totals.bytes - totals.reclaimable_bytes)))?;
        ui.line(format_args!("Reclaimable: {}", human_size(totals.reclaimable_bytes)))?;
        ui.line(format_args!("Total:       {}", human_size(totals.bytes)))?;
    }
    Ok(0)
}

pub(crate) fn prune(args: &PruneArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let now = Timestamp::now();
    let filter = filter(&args.filters, now)?;
    if !args.force && !confirm(args.all, ui)? {
        return Ok(0);
    }
    let pruned = engine.prune_build_cache(&PruneBuildCache {
        all: args.all,
        fits: &|entry| filter.fits(entry),
        reserved_bytes: args.reserved_space,
        bytes_max: args.max_used_space,
        free_bytes_min: args.min_free_space,
    })?;
    if args.verbose {
        pruned.iter().try_for_each(|entry| verbose(entry, now, ui))?;
    } else if !pruned.is_empty() {
        let rows: Vec<Value> = pruned.iter().map(|entry| row(entry, now)).collect();
        ui.text(&format::rows(None, COLUMNS, &rows, &|_, _, _| None)?)?;
    }
    ui.line(format_args!("Total:\t{}", human_size4(CacheTotals::of(&pruned).bytes)))?;
    Ok(0)
}

fn confirm(all: bool, ui: &mut Ui) -> Result<bool, CliError> {
    let what = if all { "all build cache" } else { "all dangling build cache" };
    ui.text(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "))?;
    ui.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::new(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

/// What `--filter` lets through.
struct Filter {
    filters: Filters,
    in_use: Option<bool>,
    shared: Option<bool>,
    until: Option<i64>,
}

fn filter(texts: &[String], now: Timestamp) -> Result<Filter, CliError> {
    let filters = Filters::parse(texts, FILTERS)?;
    // Entries are used by one thing only or by several.
    let private = filters.truth("private")?.map(|private| !private);
    let until = filters.last("until").or(filters.last("unused-for"));
    let until = until.map(|text| when::parse(text, now)).transpose()?;
    Ok(Filter {
        in_use: filters.truth("inuse")?,
        shared: filters.truth("shared")?.or(private),
        until,
        filters,
    })
}

impl Filter {
    fn fits(&self, entry: &CacheEntry) -> bool {
        let is_called =
            |id: &str, key: &str| key.starts_with(id) || key.ends_with(id) || key.contains(&format!(":{id}"));
        self.in_use.is_none_or(|wanted| entry.is_in_use == wanted)
            && self.shared.is_none_or(|wanted| entry.is_shared == wanted)
            && self.until.is_none_or(|time| entry.last_used < time)
            && self.filters.all("id").all(|id| is_called(id, &entry.id))
            && self.filters.all("parent").all(|id| entry.parents.iter().any(|parent| is_called(id, parent)))
            && self.filters.all("type").all(|wanted| entry.kind() == wanted)
            && self.filters.all("description").all(|text| entry.description.contains(text))
    }
}

/// As much of an id as tells entries apart.
fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..25).unwrap_or(hex)
}

fn row(entry: &CacheEntry, now: Timestamp) -> Value {
    let parents: Vec<&str> = entry.parents.iter().map(|id| short(id)).collect();
    json!({
        "ID": short(&entry.id),
        "Parent": parents.join(", "),
        "CacheType": entry.kind(),
        "Reclaimable": entry.is_reclaimable().to_string(),
        "Size": human_size(entry.size_bytes),
        "CreatedAt": when::local(entry.created),
        "CreatedSince": when::ago(entry.created, now),
        "LastUsedAt": when::local(entry.last_used),
        "LastUsedSince": when::ago(entry.last_used, now),
        "UsageCount": entry.uses.to_string(),
        "InUse": entry.is_in_use.to_string(),
        "Shared": entry.is_shared.to_string(),
        "Mutable": (entry.kind() == "exec.cachemount").to_string(),
        "Description": entry.description,
    })
}

fn verbose(entry: &CacheEntry, now: Timestamp, ui: &mut Ui) -> Result<(), CliError> {
    let mut field = |name: &str, value: String| ui.line(format_args!("{name:<14} {value}"));
    field("ID:", short(&entry.id).to_owned())?;
    if !entry.parents.is_empty() {
        field("Parents:", entry.parents.iter().map(|id| short(id)).collect::<Vec<_>>().join(" "))?;
    }
    field("Created at:", when::local(entry.created))?;
    field("Mutable:", (entry.kind() == "exec.cachemount").to_string())?;
    field("Reclaimable:", entry.is_reclaimable().to_string())?;
    field("Shared:", entry.is_shared.to_string())?;
    field("Size:", human_size(entry.size_bytes))?;
    field("Description:", entry.description.replace('\n', " "))?;
    field("Usage count:", entry.uses.to_string())?;
    field("Last used:", when::ago(entry.last_used, now))?;
    field("Type:", entry.kind().to_owned())?;
    ui.line("")
}
