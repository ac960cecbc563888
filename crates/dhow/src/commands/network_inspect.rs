use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// Show everything about networks
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkInspectArgs {
    /// Network, by name or id (can be repeated)
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Also the services of a swarm, which dhow has not: of no effect
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: &NetworkInspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    super::inspect::show(&args.networks, args.format.as_deref(), ui, &|name| {
        Ok(dhow_serve::network::inspect(&engine.inspect_network(name)?))
    })
}
