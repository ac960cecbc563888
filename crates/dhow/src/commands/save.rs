use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use dhow_engine::Engine;

use crate::error::{CliError, output_error};
use crate::ui::Ui;

const BUFFER_BYTES: usize = 1 << 20;

/// Save one or more images to a tar archive
#[derive(clap::Args, Debug)]
pub(crate) struct SaveArgs {
    /// Image to save, by name or ID (can be repeated)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: SaveArgs, engine: &Engine, _ui: &mut Ui) -> Result<u8, CliError> {
    match &args.output {
        Some(path) if path != Path::new("-") => to_file(&args, engine, path)?,
        _ if io::stdout().is_terminal() => {
            return Err(CliError::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        _ => engine.save_images(&args.images, BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()))?,
    }
    Ok(0)
}

/// The file appears when it is complete.
fn to_file(args: &SaveArgs, engine: &Engine, path: &Path) -> Result<(), CliError> {
    if path.exists() && !path.is_file() {
        // A pipe or a device cannot be renamed over.
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        return Ok(engine.save_images(&args.images, BufWriter::with_capacity(BUFFER_BYTES, file))?);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let saved = write(args, engine, &temporary);
    let saved = saved.and_then(|()| fs::rename(&temporary, path).map_err(|error| cannot_write(path, &error)));
    if saved.is_err() {
        // The error is told already, and the file may not even exist.
        let _ = fs::remove_file(&temporary);
    }
    saved
}

fn write(args: &SaveArgs, engine: &Engine, path: &Path) -> Result<(), CliError> {
    let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, file);
    engine.save_images(&args.images, &mut output)?;
    output.flush().map_err(|error| output_error(&error))
}

fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    CliError::new(format!("cannot write {}: {error}", path.display()))
}
