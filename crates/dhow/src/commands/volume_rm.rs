use dhow_engine::Engine;

use super::each::each;
use crate::error::CliError;
use crate::ui::Ui;

/// Remove volumes. One that a container has is not removed
#[derive(clap::Args, Debug)]
pub(crate) struct VolumeRmArgs {
    /// Volume, by name (can be repeated)
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
    /// It is no mistake if a volume is not there
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: &VolumeRmArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    each(&args.volumes, ui, |name| Ok(engine.remove_volume(name, args.force)?))
}
