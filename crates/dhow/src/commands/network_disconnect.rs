use dhow_engine::Engine;

use crate::error::CliError;

/// Take a container off a network
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkDisconnectArgs {
    /// Also if the container's keeper does not answer
    #[arg(short, long)]
    force: bool,
    /// Network, by name or id
    network: String,
    /// Container, by name or id
    container: String,
}

pub(crate) fn run(args: &NetworkDisconnectArgs, engine: &Engine) -> Result<u8, CliError> {
    engine.disconnect_network(&args.network, &args.container, args.force)?;
    Ok(0)
}
