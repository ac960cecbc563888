use dhow_engine::Engine;
use dhow_engine::containers::short_id;
use dhow_engine::networks::NetworkDetails;
use dhow_template::format::{Columns, rows};
use serde_json::{Value, json};

use super::ps;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

const COLUMNS: Columns<'_> = Columns {
    default: r"{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

/// List networks
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkLsArgs {
    /// Show only networks that fit, such as driver=bridge or type=custom (can be repeated)
    #[arg(short, long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Print with a Go template, as a table with `table TEMPLATE`, or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &NetworkLsArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    if let Some(kind) = filters.all("type").find(|kind| !["custom", "builtin"].contains(kind)) {
        return Err(CliError::new(format!("invalid filter 'type={kind}'")));
    }
    filters.truth("dangling")?;
    let values = |name: &str| filters.all(name).map(str::to_owned).collect();
    let shown: Vec<NetworkDetails> = engine
        .list_networks()?
        .into_iter()
        .filter(|details| dhow_serve::network::fits(details, &values))
        .collect();
    if args.quiet {
        for details in &shown {
            ui.line(id(details, args.no_trunc))?;
        }
        return Ok(0);
    }
    let lines: Vec<Value> = shown.iter().map(|details| row(details, args.no_trunc)).collect();
    let labels = |value: &Value, name: &str, args: &[Value]| ps::label(value, name, args);
    ui.text(&rows(args.format.as_deref(), COLUMNS, &lines, &labels)?)?;
    Ok(0)
}

fn id(details: &NetworkDetails, no_trunc: bool) -> &str {
    if no_trunc { &details.network.id } else { short_id(&details.network.id) }
}

fn row(details: &NetworkDetails, no_trunc: bool) -> Value {
    let (network, record) = (&details.network, &details.network.record);
    let labels = record.labels.iter().map(|(name, value)| format!("{name}={value}"));
    json!({
        "ID": id(details, no_trunc),
        "Name": network.name,
        "Driver": record.driver,
        "Scope": "local",
        "IPv4": record.ipv4.to_string(),
        "IPv6": record.ipv6.to_string(),
        "Internal": record.internal.to_string(),
        "Labels": labels.collect::<Vec<_>>().join(","),
        "CreatedAt": ps::created_at(&record.created),
    })
}
