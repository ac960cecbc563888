use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use dhow_dockerfile::{Diagnostic, Rule, Span, excerpt};

use crate::agents::AgentError;
use crate::copy::CopyError;
use crate::export::EpochError;
use crate::remote::SourceError;
use crate::select::{IgnoredBy, SelectError};

/// Why an image was not built. Nothing of it is visible in the store.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile cannot be read.
    #[error("cannot read the Dockerfile {}", path.display())]
    Dockerfile {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The context cannot be read.
    #[error("cannot read the build context {}", path.display())]
    Context {
        /// Its folder, or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The build context, or a folder or file named for the build, cannot be had.
    #[error("cannot get {what}")]
    Source {
        /// What.
        what: String,
        /// Why.
        source: Box<StepError>,
    },
    /// There is no agent for keys that were given.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Something about the context makes no sense.
    #[error("{0}")]
    Request(String),
    /// The ignore file is malformed.
    #[error("{} is malformed", path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: dhow_dockerfile::IgnoreError,
    },
    /// The Dockerfile has mistakes, all of which are listed.
    #[error("{name} has {} mistakes", diagnostics.len())]
    Syntax {
        /// Name of the Dockerfile.
        name: String,
        /// Its text.
        text: String,
        /// The mistakes.
        diagnostics: Vec<Diagnostic>,
        /// The frontend it asks for, if that is another language.
        foreign: Option<String>,
    },
    /// Settings of the checks that come with the request are malformed.
    #[error("failed to parse {name}: {problem}")]
    CheckOptions {
        /// The build argument they came in.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The rules found something, and the Dockerfile wants that to be an error.
    #[error("lint violation found for rules: {}", list(rules))]
    Lint {
        /// The rules, without repetition.
        rules: BTreeSet<Rule>,
    },
    /// An instruction failed.
    #[error("{}", failure.cause)]
    Step {
        /// What failed and where.
        #[source]
        failure: Box<StepFailure>,
    },
    /// The stage to build is not there.
    #[error("target stage {name:?} could not be found")]
    Target {
        /// The stage wanted.
        name: String,
        /// The stages there are.
        known: Vec<String>,
    },
    /// It was built and did not get to where it was to go.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A cache elsewhere was not written.
    #[error("cannot export the cache to {to}")]
    CacheExport {
        /// Where it should have gone.
        to: String,
        /// Why.
        source: Box<crate::CacheExportError>,
    },
    /// The value of `SOURCE_DATE_EPOCH` is no time.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// Why a result did not get to where it was to go.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// What is asked for makes no sense together.
    #[error("{0}")]
    Invalid(String),
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the result cannot be read.
    #[error("cannot read {} of the result", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The stream that takes the result does not take it.
    #[error("cannot write the output")]
    Stream {
        /// Why.
        source: io::Error,
    },
    /// The files of the result cannot be written as a tar.
    #[error("cannot write the tar")]
    Tar {
        /// Why.
        source: dhow_layer::DiffError,
    },
    /// An image archive or layout cannot be written.
    #[error(transparent)]
    Layout(#[from] dhow_image::SaveError),
    /// Layers were not squashed or dated.
    #[error(transparent)]
    Rework(#[from] dhow_image::ReworkError),
    /// A registry did not take it.
    #[error("failed to push")]
    Push(#[from] dhow_image::PushError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// An instruction that failed.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct StepFailure {
    /// Name of the Dockerfile.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Where the instruction stands.
    pub span: Span,
    /// What went wrong.
    #[source]
    pub cause: StepError,
}

/// What can go wrong in an instruction.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It is written in a way that makes no sense with the values its variables have.
    #[error("{0}")]
    Invalid(String),
    /// It asks for something dhow cannot do yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// The base image cannot be had.
    #[error(transparent)]
    Base(#[from] dhow_image::EnsureError),
    /// A source of `COPY` or `ADD` was not found.
    #[error("{instruction} failed: {source}")]
    Select {
        /// `COPY` or `ADD`.
        instruction: &'static str,
        /// Why.
        source: SelectError,
    },
    /// Files were not copied.
    #[error("{instruction} failed")]
    Copy {
        /// `COPY`, `ADD` or `WORKDIR`.
        instruction: &'static str,
        /// Why.
        source: CopyError,
    },
    /// An archive was not unpacked.
    #[error("ADD failed: cannot unpack {}", archive.display())]
    Unpack {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program was not given what it asks for.
    #[error(transparent)]
    Run(#[from] crate::run::RunError),
    /// Something from elsewhere was not got.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An image in a layout on this machine was not read.
    #[error(transparent)]
    Layout(#[from] dhow_image::LayoutError),
    /// A program did not start.
    #[error("cannot run `{command}`: {message}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        message: String,
    },
    /// A program is for another machine and nothing emulates that here.
    #[error("cannot run `{command}`: it is for {platform}, which this machine cannot run")]
    Foreign {
        /// The command line.
        command: String,
        /// What it is for.
        platform: Box<dhow_oci::Platform>,
    },
    /// A program ended with a failure.
    #[error("process {command:?} did not complete successfully: exit code: {exit_code}")]
    Exit {
        /// The command line.
        command: String,
        /// Its exit status, 128 and the signal if one ended it.
        exit_code: i32,
        /// Its last output.
        output: String,
    },
    /// Layers of a step that a cache elsewhere promised are not to be had; the build begins anew without it.
    #[error("the cache {name} does not hold what it promises")]
    CacheElsewhere {
        /// The cache.
        name: String,
        /// Why.
        source: Box<dhow_image::InstallError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// The store, its database or a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StoreFailure {
    doing: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreFailure {
    /// Says what was being done when `source` happened.
    pub(crate) fn new(
        doing: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> StoreFailure {
        StoreFailure { doing: doing.into(), source: Box::new(source) }
    }
}

/// Makes `map_err(while_doing("reading x"))` out of a description.
pub(crate) fn while_doing<E: std::error::Error + Send + Sync + 'static>(
    doing: &str,
) -> impl FnOnce(E) -> StoreFailure + '_ {
    move |source| StoreFailure::new(doing, source)
}

impl BuildError {
    /// Whether the build may succeed without the cache that this is about.
    pub(crate) fn is_of_a_cache_elsewhere(&self) -> bool {
        match self {
            BuildError::Step { failure } => matches!(failure.cause, StepError::CacheElsewhere { .. }),
            _ => false,
        }
    }

    /// The whole message for people: what, where and the lines in question.
    pub fn report(&self) -> String {
        match self {
            BuildError::Syntax { name, text, diagnostics, .. } => {
                let mistakes: Vec<String> =
                    diagnostics.iter().map(|found| found.render(name, text).trim_end().to_owned()).collect();
                let joined = mistakes.join("\n");
                joined.strip_prefix("Error: ").unwrap_or(&joined).to_owned()
            }
            BuildError::Step { failure } => failure.report(),
            other => chain(other),
        }
    }

    /// The last lines that a failed program printed, for those who did not see them when they came.
    pub fn output(&self) -> Option<&str> {
        match self {
            BuildError::Step { failure } => match &failure.cause {
                StepError::Exit { output, .. } if !output.is_empty() => Some(output),
                _ => None,
            },
            _ => None,
        }
    }

    /// Something the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            BuildError::Target { known, .. } if !known.is_empty() => {
                Some(format!("the stages are {}", known.join(", ")))
            }
            BuildError::Step { failure } => failure.hint(),
            BuildError::Agent(error) => error.hint(),
            BuildError::Source { source, .. } => match &**source {
                StepError::Source(error) => error.hint(),
                _ => None,
            },
            BuildError::Syntax { foreign: Some(syntax), .. } => {
                Some(format!("the file asks for the frontend {syntax}, and was read as docker/dockerfile:1"))
            }
            _ => None,
        }
    }
}

impl StepFailure {
    fn report(&self) -> String {
        let place = excerpt(&self.file, &self.text, self.span);
        format!("{}\n{}", chain(&self.cause), place.trim_end())
    }

    fn hint(&self) -> Option<String> {
        match &self.cause {
            StepError::Select {
                source: SelectError::NotFound { ignored_by: Some(IgnoredBy { file, line, pattern }), .. },
                ..
            } => Some(format!("line {line} of {file} (`{pattern}`) leaves it out")),
            StepError::Run(error) => error.hint(),
            StepError::Exit { .. } => Some("dhow debug opens a shell where it failed".to_owned()),
            StepError::Source(error) => error.hint(),
            StepError::Foreign { .. } => Some(
                "register an emulator with binfmt_misc (Debian: apt-get install qemu-user-static), or build on \
                 FROM --platform=$BUILDPLATFORM and compile for $TARGETPLATFORM"
                    .to_owned(),
            ),
            StepError::Copy { source: CopyError::Changed { .. }, .. } => {
                Some("run the build again when nothing writes to the build context".to_owned())
            }
            _ => None,
        }
    }
}

fn list(rules: &BTreeSet<Rule>) -> String {
    rules.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ")
}

/// An error and its causes on one line, without saying anything twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
