use dhow_engine::{Engine, Label, PruneVolumes};

use super::container_prune::report;
use super::image_prune::ask;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

const FILTERS: &[&str] = &["all", "label", "label!"];

/// Remove volumes that no container has
#[derive(clap::Args, Debug)]
pub(crate) struct VolumePruneArgs {
    /// Remove all unused volumes, not only anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Remove only volumes that fit, such as label=a=b or label!=keep (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &VolumePruneArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    if args.all && filters.last("all").is_some() {
        return Err(CliError::new("conflicting options: cannot specify both --all and --filter all=1"));
    }
    let all = args.all || filters.truth("all")?.unwrap_or(false);
    let which = if all { "all" } else { "anonymous" };
    let question = format!(
        "WARNING! This will remove {which} local volumes not used by at least one container.\n\
         Are you sure you want to continue? [y/N] "
    );
    if !args.force && !ask(&question, ui)? {
        return Ok(0);
    }
    let pruned = engine.prune_volumes(&PruneVolumes {
        all,
        labels: filters.all("label").map(Label::parse).collect(),
        without_labels: filters.all("label!").map(Label::parse).collect(),
    })?;
    report("Deleted Volumes:", &pruned, ui)?;
    Ok(0)
}
