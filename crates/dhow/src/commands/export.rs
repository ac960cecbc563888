use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use dhow_engine::Engine;

use crate::error::{CliError, output_error};
use crate::ui::Ui;

const BUFFER_BYTES: usize = 1 << 20;

/// Write the files of a container as a tar archive
#[derive(clap::Args, Debug)]
pub(crate) struct ExportArgs {
    /// Container, by name or id
    container: String,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &ExportArgs, engine: &Engine, _ui: &mut Ui) -> Result<u8, CliError> {
    match args.output.as_deref() {
        Some(path) if path != Path::new("-") => to_file(args, engine, path)?,
        _ if io::stdout().is_terminal() => {
            return Err(CliError::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        _ => write(args, engine, io::stdout().lock())?,
    }
    Ok(0)
}

/// The file appears when it is complete.
fn to_file(args: &ExportArgs, engine: &Engine, path: &Path) -> Result<(), CliError> {
    let cannot_write = |error: &io::Error| CliError::new(format!("cannot write {}: {error}", path.display()));
    if path.exists() && !path.is_file() {
        // A pipe or a device cannot be renamed over.
        return write(args, engine, File::create(path).map_err(|error| cannot_write(&error))?);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(name);
    let file = File::create(&temporary).map_err(|error| cannot_write(&error))?;
    let written = write(args, engine, file)
        .and_then(|()| fs::rename(&temporary, path).map_err(|error| cannot_write(&error)));
    if written.is_err() {
        // The error is told already.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(args: &ExportArgs, engine: &Engine, output: impl Write) -> Result<(), CliError> {
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, output);
    engine.containers().export(&args.container, &mut output)?;
    output.flush().map_err(|error| output_error(&error))
}
