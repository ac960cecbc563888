use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// Give a container another name
#[derive(clap::Args, Debug)]
pub(crate) struct RenameArgs {
    /// Container, by name or id
    container: String,
    /// The other name
    new_name: String,
}

pub(crate) fn run(args: &RenameArgs, engine: &Engine, _ui: &mut Ui) -> Result<u8, CliError> {
    engine.containers().rename(&args.container, &args.new_name)?;
    Ok(0)
}
