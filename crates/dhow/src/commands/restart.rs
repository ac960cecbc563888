use dhow_engine::Engine;

use super::each::each_at_once;
use super::stop::StopFlags;
use crate::error::CliError;
use crate::ui::Ui;

/// Stop and start containers
#[derive(clap::Args, Debug)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    how: StopFlags,
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &RestartArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let options = args.how.options();
    each_at_once(&args.containers, engine, ui, |engine, name| {
        Ok(engine.containers().restart(name, &options)?)
    })
}
