use dhow_engine::Engine;
use dhow_engine::containers::{Container, StopOptions};

use super::each::each_at_once;
use super::run::start_error;
use crate::error::CliError;
use crate::ui::Ui;

/// Start the containers that are to run when the host is up: for a unit of systemd
#[derive(clap::Args, Debug)]
pub(crate) struct SystemStartArgs {}

/// Stop all containers so that `system start` starts them again: for when the host goes down
#[derive(clap::Args, Debug)]
pub(crate) struct SystemStopArgs {
    /// Seconds until those that do not stop are killed, instead of their own
    #[arg(short, long, value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
}

pub(crate) fn start(_args: &SystemStartArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let containers = engine.containers();
    // What the host's going down has left, the networks' state above all, is put in order first.
    containers.sweep()?;
    let names = names(&containers.to_start_after_boot()?);
    super::each::each(&names, ui, |name| {
        containers.start(name).map_err(|error| start_error(error).exit_code(1))
    })
}

pub(crate) fn stop(args: &SystemStopArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let mut running = engine.containers().list()?;
    running.retain(|container| container.state.is_up());
    let options = StopOptions { signal: None, timeout_s: args.timeout };
    each_at_once(&names(&running), engine, ui, |engine, name| {
        let containers = engine.containers();
        Ok(containers.stop_for_now(containers.find(name)?, &options)?)
    })
}

fn names(containers: &[Container]) -> Vec<String> {
    containers.iter().map(|container| container.name.clone()).collect()
}
