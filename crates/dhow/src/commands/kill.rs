use dhow_engine::Engine;

use super::each::each;
use crate::error::CliError;
use crate::ui::Ui;

/// Send a signal to running containers
#[derive(clap::Args, Debug)]
pub(crate) struct KillArgs {
    /// Signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &KillArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    each(&args.containers, ui, |name| Ok(engine.containers().kill(name, &args.signal)?))
}
