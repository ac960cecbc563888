use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use dhow_engine::{Engine, LoadSource};
use dhow_oci::Platform;

use crate::commands::pull::LayerDisplay;
use crate::error::CliError;
use crate::ui::Ui;

/// Load images from a tar archive or a folder
#[derive(clap::Args, Debug)]
pub(crate) struct LoadArgs {
    /// File to read instead of standard input, plain or compressed, or folder with an image layout
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only these platforms, such as linux/amd64 (can be repeated)
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Do not show layers
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: LoadArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    let source = match &args.input {
        Some(path) if path.is_dir() => LoadSource::Folder(path),
        Some(path) => LoadSource::Archive(Box::new(
            File::open(path).map_err(|error| CliError::new(format!("open {}: {error}", path.display())))?,
        )),
        None if io::stdin().is_terminal() => {
            return Err(CliError::new("requested load from stdin, but stdin is empty"));
        }
        None => LoadSource::Archive(Box::new(io::stdin().lock())),
    };
    // Where output is not watched, layers are of no interest: they were not waited for.
    let quiet = args.quiet || !ui.is_terminal();
    let display = LayerDisplay::new(ui, quiet);
    let loaded = engine.load_images(source, &args.platform, &|event| display.show(event));
    display.finish()?;
    for image in loaded? {
        for name in &image.names {
            ui.line(format_args!("Loaded image: {}", name.familiar()))?;
        }
        if image.names.is_empty() {
            ui.line(format_args!("Loaded image ID: {}", image.id))?;
        }
    }
    Ok(0)
}
