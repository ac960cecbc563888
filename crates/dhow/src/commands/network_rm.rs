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
    super::each::each(&args.networks, ui, |name| match engine.remove_network(name) {
        Err(error) if args.force && error.is_not_found() => Ok(()),
        removed => Ok(removed?),
    })
}
