//! The flags of `dhow build` about where files come from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use dhow_engine::{ContextSource, DockerfileSource, Modes, SourceRequest};

use crate::error::CliError;

/// The largest Dockerfile read from standard input.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;
/// Stands for standard input.
const STDIN: &str = "-";

#[derive(clap::Args, Debug)]
pub(crate) struct SourceArgs {
    /// More files to build from, by a name for FROM and COPY --from: a folder, docker-image://IMAGE,
    /// oci-layout://FOLDER[:TAG|@DIGEST], target:STAGE, or the URL of a git repository, archive or file (can be
    /// repeated)
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    build_contexts: Vec<String>,
    /// Modes of files in the build context: as on disk, or as git keeps them, so that the umask of a checkout
    /// makes no difference
    #[arg(long, value_enum, default_value = "exact")]
    context_mode: ContextModeArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ContextModeArg {
    /// As on disk
    Exact,
    /// 0755 for folders and what its owner may execute, 0644 for other files
    Git,
}

impl SourceArgs {
    pub(crate) fn request(self) -> Result<SourceRequest, CliError> {
        let modes = match self.context_mode {
            ContextModeArg::Exact => Modes::Exact,
            ContextModeArg::Git => Modes::Git,
        };
        let mut named = BTreeMap::new();
        for text in self.build_contexts {
            match text.split_once('=') {
                Some((name, source)) if !name.is_empty() && !source.is_empty() => {
                    named.insert(name.to_owned(), source.to_owned());
                }
                _ => {
                    let message = format!("invalid context value: {text}, expected key=value");
                    return Err(CliError::new(message).hint("write --build-context NAME=FOLDER"));
                }
            }
        }
        Ok(SourceRequest { modes, named })
    }
}

/// The context that a command line names.
pub(crate) fn context(path: Option<PathBuf>) -> Result<ContextSource, CliError> {
    let Some(path) = path else {
        return Err(CliError::new("`dhow build` requires 1 argument: the folder to build from")
            .hint("to build the current folder, write `dhow build .`"));
    };
    let Some(text) = path.to_str().filter(|_| !path.is_dir()) else { return Ok(path.into()) };
    if text == STDIN {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(CliError::new(
                "the build context is to come from standard input, which is a terminal",
            )
            .hint("write `dhow build - < Dockerfile` or `tar c . | dhow build -`"));
        }
        let owned = stdin.as_fd().try_clone_to_owned();
        let owned = owned.map_err(|error| CliError::new(format!("cannot read standard input: {error}")))?;
        return Ok(ContextSource::Stream(Arc::new(File::from(owned))));
    }
    Ok(if ContextSource::is_url(text) { ContextSource::Url(text.to_owned()) } else { path.into() })
}

/// The Dockerfile that a command line names.
pub(crate) fn dockerfile(
    file: Option<PathBuf>,
    context: &ContextSource,
) -> Result<DockerfileSource, CliError> {
    let Some(path) = file else { return Ok(DockerfileSource::Default) };
    match path.to_str() {
        Some(STDIN) if matches!(context, ContextSource::Stream(_)) => {
            Err(CliError::new("invalid argument: can't use stdin for both build context and dockerfile"))
        }
        Some(STDIN) => Ok(DockerfileSource::Text(read_stdin()?)),
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            Ok(DockerfileSource::Url(url.to_owned()))
        }
        _ => Ok(DockerfileSource::File(path)),
    }
}

fn read_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().take(DOCKERFILE_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(bytes) if bytes as u64 <= DOCKERFILE_BYTES_MAX => Ok(text),
        Ok(_) => Err(CliError::new(format!("the Dockerfile is larger than {DOCKERFILE_BYTES_MAX} bytes"))),
        Err(error) => Err(CliError::new(format!("cannot read the Dockerfile from standard input: {error}"))),
    }
}
