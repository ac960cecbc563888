use dhow_engine::Engine;

use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Wait until containers end, and print their exit codes
#[derive(clap::Args, Debug)]
pub(crate) struct WaitArgs {
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub(crate) fn run(args: &WaitArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let mut code = 0;
    for name in &args.containers {
        match engine.containers().wait(name) {
            Ok(exit_code) => ui.line(exit_code)?,
            Err(error) => {
                ui.note(CliError::from(error));
                code = EXIT_FAILURE;
            }
        }
        ui.flush()?;
    }
    Ok(code)
}
