use dhow_engine::{Engine, PruneAll, PrunedAll};
use dhow_template::units::human_size4;
use jiff::Timestamp;

use crate::commands::image_prune::{self, print_removed};
use crate::commands::images::image_filter;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

const FILTERS: &[&str] = &["label", "label!", "until"];

/// Remove what is not used: stopped containers, networks, images, the build cache
#[derive(clap::Args, Debug)]
pub(crate) struct SystemPruneArgs {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove only what fits, such as until=24h or label!=keep (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes as well
    #[arg(long)]
    volumes: bool,
}

pub(crate) fn run(args: &SystemPruneArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    if args.volumes && filters.last("until").is_some() {
        return Err(CliError::new("The \"until\" filter is not supported with \"--volumes\""));
    }
    let filter = image_filter(&filters, Timestamp::now())?;
    if !args.force && !image_prune::ask(&warning(args), ui)? {
        return Ok(0);
    }
    let pruned = engine.prune_all(&PruneAll {
        all: args.all,
        volumes: args.volumes,
        until: filter.until,
        labels: filter.labels,
        without_labels: filter.without_labels,
    })?;
    report(&pruned, ui)?;
    Ok(0)
}

fn warning(args: &SystemPruneArgs) -> String {
    let mut lines = vec!["WARNING! This will remove:", "  - all stopped containers"];
    lines.push("  - all networks not used by at least one container");
    if args.volumes {
        lines.push("  - all anonymous volumes not used by at least one container");
    }
    lines.push(match args.all {
        true => "  - all images without at least one container associated to them",
        false => "  - all dangling images",
    });
    lines.push(if args.all { "  - all build cache" } else { "  - unused build cache" });
    let mut text = lines.join("\n") + "\n";
    if !args.filters.is_empty() {
        text += "\n  Items to be pruned will be filtered with:\n";
        args.filters.iter().for_each(|filter| text += &format!("  - {filter}\n"));
    }
    text + "\nAre you sure you want to continue? [y/N] "
}

fn report(pruned: &PrunedAll, ui: &mut Ui) -> Result<(), CliError> {
    list("Deleted Containers:", &pruned.containers, ui)?;
    list("Deleted Networks:", &pruned.networks, ui)?;
    list("Deleted Volumes:", &pruned.volumes, ui)?;
    print_removed(&pruned.images, ui)?;
    list("Deleted build cache objects:", &pruned.cache, ui)?;
    ui.line(format_args!("Total reclaimed space: {}", human_size4(pruned.bytes)))
}

fn list(title: &str, names: &[String], ui: &mut Ui) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    ui.line(title)?;
    names.iter().try_for_each(|name| ui.line(name))?;
    ui.line("")
}
