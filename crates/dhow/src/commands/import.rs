use std::fs::File;
use std::io;

use dhow_engine::{Engine, ImportImage};
use dhow_oci::{Platform, Reference};

use crate::error::CliError;
use crate::ui::Ui;

/// Make an image of the files in an archive
#[derive(clap::Args, Debug)]
pub(crate) struct ImportArgs {
    /// Archive, plain or compressed: a file, a URL, or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Apply a Dockerfile instruction to the image (can be repeated)
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What to say about the image
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// What the image runs on, such as linux/amd64 [default: this machine]
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM")]
    platform: Option<Platform>,
}

pub(crate) fn run(args: &ImportArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let reference = args.name.as_deref().map(str::parse::<Reference>).transpose()?;
    if reference.as_ref().is_some_and(|reference| reference.digest().is_some()) {
        return Err(CliError::new("cannot import digest reference"));
    }
    let message = match args.message.as_str() {
        "" => format!("Imported from {}", args.source),
        message => message.to_owned(),
    };
    let import =
        ImportImage { reference, platform: args.platform.clone(), message, changes: args.change.clone() };
    let is_url = args.source.starts_with("http://") || args.source.starts_with("https://");
    let id = match args.source.as_str() {
        "-" => engine.import_image(io::stdin().lock(), &import)?,
        url if is_url => engine.import_url(url, &import)?,
        path => {
            let file = File::open(path).map_err(|error| CliError::new(format!("open {path}: {error}")))?;
            engine.import_image(file, &import)?
        }
    };
    ui.line(id)?;
    Ok(0)
}
