use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// Remove networks
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkRmArgs {
    /// Network, by name or id (can be repeated)
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
    /// Do not complain about networks that are not there
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &NetworkRmArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let mut code = 0;
    for name in &args.networks {
        match engine.remove_network(name) {
            Ok(()) => ui.line(name)?,
            Err(error) if args.force && error.is_not_found() => {}
            Err(error) => {
                let error = CliError::from(error);
                ui.flush()?;
                ui.note(&error);
                code = error.code();
            }
        }
    }
    Ok(code)
}
