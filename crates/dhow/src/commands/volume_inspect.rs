use dhow_engine::Engine;

use crate::error::CliError;
use crate::ui::Ui;

/// Show everything about volumes
#[derive(clap::Args, Debug)]
pub(crate) struct VolumeInspectArgs {
    /// Volume, by name (can be repeated)
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
    /// Print with a Go template, or as `json`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(args: &VolumeInspectArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    super::inspect::show(&args.volumes, args.format.as_deref(), ui, &|name| {
        Ok(dhow_serve::volume::inspect(&engine.inspect_volume(name)?))
    })
}
