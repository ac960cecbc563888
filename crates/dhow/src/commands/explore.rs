use dhow_engine::Engine;

use crate::error::CliError;
use crate::explore;
use crate::ui::Ui;

/// Look through the layers and files of an image in the terminal
#[derive(clap::Args, Debug)]
pub(crate) struct ExploreArgs {
    /// Image, by name or ID
    image: String,
}

pub(crate) fn run(args: &ExploreArgs, engine: &Engine, _: &mut Ui) -> Result<u8, CliError> {
    if !explore::is_possible() {
        return Err(CliError::new("explore needs a terminal")
            .hint("`dhow image tree`, `dhow why` and `dhow diff` print what is inside images"));
    }
    let (image, inside) = engine.look_inside(&args.image)?;
    explore::run(format!("{}  {}", args.image, image.record.id.short()), &inside)?;
    Ok(0)
}
