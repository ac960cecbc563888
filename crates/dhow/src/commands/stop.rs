use dhow_engine::Engine;
use dhow_engine::containers::StopOptions;

use super::each::each_at_once;
use crate::error::CliError;
use crate::ui::Ui;

/// Stop running containers
#[derive(clap::Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    how: StopFlags,
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// How `stop` and `restart` stop.
#[derive(clap::Args, Debug)]
pub(crate) struct StopFlags {
    /// Signal that asks the container to stop
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds until the container is killed; -1 waits for ever
    #[arg(short, long = "timeout", alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
}

impl StopFlags {
    pub(crate) fn options(&self) -> StopOptions {
        StopOptions { signal: self.signal.clone(), timeout_s: self.timeout }
    }
}

pub(crate) fn run(args: &StopArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let options = args.how.options();
    each_at_once(&args.containers, engine, ui, |engine, name| Ok(engine.containers().stop(name, &options)?))
}
