use dhow_engine::Engine;
use dhow_engine::networks::PruneNetworks;
use jiff::Timestamp;

use super::image_prune;
use super::images::image_filter;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

const FILTERS: &[&str] = &["label", "label!", "until"];
const WARNING: &str = "WARNING! This will remove all custom networks not used by at least one container.\n\
                       Are you sure you want to continue? [y/N] ";

/// Remove networks that no container uses
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkPruneArgs {
    /// Remove only networks that fit, such as until=24h or label!=keep (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &NetworkPruneArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let filter = image_filter(&filters, Timestamp::now())?;
    if !args.force && !image_prune::ask(WARNING, ui)? {
        return Ok(0);
    }
    let prune =
        PruneNetworks { until: filter.until, labels: filter.labels, without_labels: filter.without_labels };
    let removed = engine.prune_networks(&prune)?;
    if !removed.is_empty() {
        ui.line("Deleted Networks:")?;
        removed.iter().try_for_each(|name| ui.line(name))?;
        ui.line("")?;
    }
    Ok(0)
}
