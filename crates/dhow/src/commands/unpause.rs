use dhow_engine::Engine;

use super::each::each;
use crate::error::CliError;
use crate::ui::Ui;

/// Let the processes of paused containers go on
#[derive(clap::Args, Debug)]
pub(crate) struct UnpauseArgs {
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &UnpauseArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    each(&args.containers, ui, |name| Ok(engine.containers().unpause(name)?))
}
