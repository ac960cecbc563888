use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use dhow_oci::{Platform, Reference};

use crate::elsewhere::CacheElsewhere;
use crate::output::OutputRequest;
use crate::remote::{GitSource, HttpSource, WrittenBy, is_http};
use crate::run_options::RunOptions;
use crate::select::Modes;

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// What `COPY` and `ADD` read from.
    pub context: ContextSource,
    /// Where the instructions are.
    pub dockerfile: DockerfileSource,
    /// Names the image gets.
    pub names: Vec<Reference>,
    /// Values for `ARG`.
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; `None` is the last.
    pub target: Option<String>,
    /// Labels to add to the image.
    pub labels: BTreeMap<String, String>,
    /// What the image shall run on; several make an index. None is this machine.
    pub platforms: Vec<Platform>,
    /// Run every step even if its result is known.
    pub no_cache: bool,
    /// Stages, by name or number, of which every step runs even if its result is known.
    pub no_cache_filter: Vec<String>,
    /// Ask the registry for newer base images even if they are here.
    pub pull: bool,
    /// Network of `RUN` steps.
    pub network: StepNetwork,
    /// What the programs of `RUN` steps may have, see and use.
    pub run: RunOptions,
    /// Steps that may run at the same time.
    pub jobs: NonZeroUsize,
    /// What is to be known about where files come from.
    pub sources: SourceRequest,
    /// What becomes of the result.
    pub output: OutputRequest,
    /// Caches elsewhere to read and to write.
    pub cache: CacheElsewhere,
}

/// What is to be known about where files come from, besides the build context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRequest {
    /// What the modes of files in folders to build from are taken to be.
    pub modes: Modes,
    /// More contexts by name: a folder, `docker-image://`, `oci-layout://`, `target:`, or the URL of a repository
    /// or of a file or archive.
    pub named: BTreeMap<String, String>,
}

/// Where a build context is.
#[derive(Clone, Debug)]
pub enum ContextSource {
    /// A folder, read where it lies.
    Folder(PathBuf),
    /// A tar archive, compressed or not, or a Dockerfile without a context, to be read from here.
    Stream(Arc<File>),
    /// The URL of a repository, of an archive, or of a Dockerfile without a context.
    Url(String),
}

impl From<PathBuf> for ContextSource {
    fn from(folder: PathBuf) -> ContextSource {
        ContextSource::Folder(folder)
    }
}

impl fmt::Display for ContextSource {
    /// For people: of a URL nothing that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContextSource::Folder(folder) => folder.display().fmt(f),
            ContextSource::Stream(_) => f.write_str("-"),
            ContextSource::Url(url) => match GitSource::parse(url, WrittenBy::User) {
                Some(Ok(source)) => source.fmt(f),
                _ => f.write_str(&HttpSource { url: url.clone(), checksum: None }.shown()),
            },
        }
    }
}

impl ContextSource {
    /// Whether the text is the URL of a context and not a folder.
    pub fn is_url(text: &str) -> bool {
        is_http(text) || GitSource::parse(text, WrittenBy::User).is_some()
    }
}

impl BuildRequest {
    /// The whole of the default Dockerfile of a folder, one step at a time.
    pub fn new(context: impl Into<ContextSource>) -> BuildRequest {
        BuildRequest {
            context: context.into(),
            dockerfile: DockerfileSource::Default,
            names: Vec::new(),
            build_args: BTreeMap::new(),
            target: None,
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            pull: false,
            network: StepNetwork::Default,
            run: RunOptions::default(),
            jobs: NonZeroUsize::MIN,
            sources: SourceRequest::default(),
            output: OutputRequest::default(),
            cache: CacheElsewhere::default(),
        }
    }
}

impl BuildRequest {
    /// Whether the steps of a stage run even if their results are known.
    pub(crate) fn runs_again(&self, stage: Option<&str>, index: usize) -> bool {
        let is_meant = |filter: &String| {
            stage.is_some_and(|stage| stage.eq_ignore_ascii_case(filter)) || *filter == index.to_string()
        };
        self.no_cache || self.no_cache_filter.iter().any(is_meant)
    }
}

/// Where the instructions of a build are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context, or `dockerfile` if that is not there.
    Default,
    /// This file; in a context that is no folder of this machine, the file of this name there.
    File(PathBuf),
    /// What is at this URL.
    Url(String),
    /// These instructions (`-f -`).
    Text(String),
}

/// Network of a `RUN` step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    /// The bridge that containers use.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Loopback only.
    None,
}

impl StepNetwork {
    /// The word for it in a Dockerfile and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            StepNetwork::Default => "default",
            StepNetwork::Host => "host",
            StepNetwork::None => "none",
        }
    }
}
