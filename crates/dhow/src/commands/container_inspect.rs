use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// Show everything about containers
#[derive(clap::Args, Debug)]
pub(crate) struct ContainerInspectArgs {
    /// Container, by name or id (can be repeated)
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &ContainerInspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    super::inspect::show(&args.containers, args.format.as_deref(), ui, &|name| {
        Ok(dhow_serve::container::inspect(&engine.inspect_container(name)?))
    })
}
