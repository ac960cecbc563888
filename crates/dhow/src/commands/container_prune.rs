use dhow_engine::{Engine, Label, PruneContainers, Pruned};
use dhow_template::units::human_size4;
use jiff::Timestamp;

use super::image_prune::ask;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;
use crate::when;

const FILTERS: &[&str] = &["label", "label!", "until"];
const QUESTION: &str = "WARNING! This will remove all stopped containers.\n\
                        Are you sure you want to continue? [y/N] ";

/// Remove all containers that do not run
#[derive(clap::Args, Debug)]
pub(crate) struct ContainerPruneArgs {
    /// Remove only containers that fit, such as until=24h or label!=keep (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &ContainerPruneArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let until = filters.last("until").map(|text| when::parse(text, Timestamp::now())).transpose()?;
    if !args.force && !ask(QUESTION, ui)? {
        return Ok(0);
    }
    let pruned = engine.prune_containers(&PruneContainers {
        until,
        labels: filters.all("label").map(Label::parse).collect(),
        without_labels: filters.all("label!").map(Label::parse).collect(),
    })?;
    report("Deleted Containers:", &pruned, ui)?;
    Ok(0)
}

/// What went, and the room it took.
pub(super) fn report(title: &str, pruned: &Pruned, ui: &mut Ui) -> Result<(), CliError> {
    if !pruned.removed.is_empty() {
        ui.line(title)?;
        pruned.removed.iter().try_for_each(|name| ui.line(name))?;
        ui.line("")?;
    }
    ui.line(format_args!("Total reclaimed space: {}", human_size4(pruned.bytes)))
}
