use dhow_engine::Engine;

use super::create_flags::CreateFlags;
use crate::error::CliError;
use crate::ui::Ui;

/// Create a new container
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    create: CreateFlags,
}

pub(crate) fn run(args: &CreateArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let created = super::run::create(&args.create, false, engine, ui);
    ui.line(created.map_err(super::run::engine_error)?.id)?;
    Ok(0)
}
