use dhow_engine::Engine;
use dhow_oci::Reference;

use crate::error::CliError;
use crate::ui::Ui;

/// Give an image one more name
#[derive(clap::Args, Debug)]
pub(crate) struct TagArgs {
    /// Image, by name or ID
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// Its new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: Reference,
}

pub(crate) fn run(args: TagArgs, engine: &Engine, _ui: &mut Ui) -> Result<u8, CliError> {
    engine.tag_image(&args.source, &args.target)?;
    Ok(0)
}
