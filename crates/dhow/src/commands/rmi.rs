use dhow_engine::{Engine, FindError, RemoveError, Removed};
use dhow_oci::Platform;

use crate::error::{CliError, EXIT_FAILURE};
use crate::ui::Ui;

/// Remove one or more images
#[derive(clap::Args, Debug)]
pub(crate) struct RmiArgs {
    /// Image to remove, by name or ID (can be repeated)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Take the name away even if containers use the image, and take no offence at images that are not there
    #[arg(short, long)]
    force: bool,
    /// Keep untagged parents, as is always done here
    #[arg(long)]
    no_prune: bool,
    /// Remove only these platforms of the images, such as linux/amd64 (can be repeated)
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
}

pub(crate) fn run(args: RmiArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let mut failed = false;
    for image in &args.images {
        match engine.remove_image(image, args.force, &args.platform) {
            Ok(removed) => print(&removed, ui)?,
            Err(error) => {
                failed |= !(args.force && matches!(error, RemoveError::Find(FindError::NotFound(_))));
                ui.flush()?;
                ui.note(CliError::from(error));
            }
        }
    }
    Ok(if failed { EXIT_FAILURE } else { 0 })
}

fn print(removed: &[Removed], ui: &mut Ui) -> Result<(), CliError> {
    removed.iter().try_for_each(|removed| match removed {
        Removed::Untagged(name) => ui.line(format_args!("Untagged: {name}")),
        Removed::Deleted(digest) => ui.line(format_args!("Deleted: {digest}")),
    })
}
