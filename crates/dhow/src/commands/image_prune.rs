use std::io::{self, BufRead as _};

use dhow_engine::{Engine, PruneImages, PrunedImages, Removed};
use dhow_template::units::human_size4;
use jiff::Timestamp;

use crate::commands::images::image_filter;
use crate::error::CliError;
use crate::filter::Filters;
use crate::ui::Ui;

const FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

/// Remove images that are not used
#[derive(clap::Args, Debug)]
pub(crate) struct ImagePruneArgs {
    /// Remove all images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove only images that fit, such as until=24h or label!=keep (can be repeated)
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: ImagePruneArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let filters = Filters::parse(&args.filters, FILTERS)?;
    let filter = image_filter(&filters, Timestamp::now())?;
    let all = args.all || filter.dangling == Some(false);
    if !args.force && !confirm(all, ui)? {
        return Ok(0);
    }
    let pruned = engine
        .prune_images(&PruneImages { all, filter: dhow_engine::ImageFilter { dangling: None, ..filter } })?;
    report(&pruned, ui)?;
    Ok(0)
}

fn confirm(all: bool, ui: &mut Ui) -> Result<bool, CliError> {
    let what = match all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    };
    ask(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "), ui)
}

/// Asks a question that ends in `[y/N]`.
pub(super) fn ask(question: &str, ui: &mut Ui) -> Result<bool, CliError> {
    ui.text(question)?;
    ui.flush()?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| CliError::new(format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}

fn report(pruned: &PrunedImages, ui: &mut Ui) -> Result<(), CliError> {
    print_removed(&pruned.removed, ui)?;
    ui.line(format_args!("Total reclaimed space: {}", human_size4(pruned.bytes)))
}

/// The list of images that went, if there are any.
pub(super) fn print_removed(removed: &[Removed], ui: &mut Ui) -> Result<(), CliError> {
    if removed.is_empty() {
        return Ok(());
    }
    ui.line("Deleted Images:")?;
    for removed in removed {
        match removed {
            Removed::Untagged(name) => ui.line(format_args!("untagged: {name}"))?,
            Removed::Deleted(digest) => ui.line(format_args!("deleted: {digest}"))?,
        }
    }
    ui.line("")
}
