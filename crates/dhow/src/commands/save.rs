use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use dhow_engine::{Engine, LayoutTarget};
use dhow_oci::Platform;

use crate::error::{CliError, output_error};
use crate::ui::Ui;

const BUFFER_BYTES: usize = 1 << 20;

/// Save one or more images to a tar archive
#[derive(clap::Args, Debug)]
pub(crate) struct SaveArgs {
    /// Image to save, by name or ID (can be repeated)
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// File to write instead of standard output, or folder for the format oci-dir
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only these platforms, such as linux/amd64 (can be repeated)
    #[arg(long, value_delimiter = ',')]
    platform: Vec<Platform>,
    /// docker-archive, which is an OCI image layout as well; oci-archive, which is only that; or oci-dir, a folder
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive", hide_default_value = true)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

pub(crate) fn run(args: SaveArgs, engine: &Engine, _ui: &mut Ui) -> Result<u8, CliError> {
    if args.format == Format::OciDir {
        let folder = args.output.as_deref();
        let folder =
            folder.ok_or_else(|| CliError::new("the format oci-dir needs a folder: --output FOLDER"))?;
        save(&args, engine, LayoutTarget::Folder(folder))?;
        return Ok(0);
    }
    match &args.output {
        Some(path) if path != Path::new("-") => to_file(&args, engine, path)?,
        _ if io::stdout().is_terminal() => {
            return Err(CliError::new(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        _ => stream(&args, engine, io::stdout().lock())?,
    }
    Ok(0)
}

/// The file appears when it is complete.
fn to_file(args: &SaveArgs, engine: &Engine, path: &Path) -> Result<(), CliError> {
    if path.exists() && !path.is_file() {
        // A pipe or a device cannot be renamed over.
        let file = File::create(path).map_err(|error| cannot_write(path, &error))?;
        return stream(args, engine, file);
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
    stream(args, engine, file)
}

fn stream(args: &SaveArgs, engine: &Engine, output: impl Write) -> Result<(), CliError> {
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, output);
    save(args, engine, LayoutTarget::Archive(&mut output))?;
    output.flush().map_err(|error| output_error(&error))
}

fn save(args: &SaveArgs, engine: &Engine, target: LayoutTarget<'_>) -> Result<(), CliError> {
    let docker = args.format == Format::DockerArchive;
    Ok(engine.save_images(&args.images, &args.platform, docker, target)?)
}

fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    CliError::new(format!("cannot write {}: {error}", path.display()))
}
