use dhow_dockerfile::Diagnostic;
use dhow_oci::{Descriptor, Digest, Reference};
use dhow_solver::MissReason;

use crate::history::BuildRecord;
use crate::log::StepLog;

/// What happens during a build, for whoever shows it. Steps run at the same time interleave.
#[derive(Debug)]
pub enum BuildEvent<'a> {
    /// Something in the Dockerfile deserves a look, though it builds.
    Warning {
        /// Name of the Dockerfile.
        file: &'a str,
        /// Its text.
        source: &'a str,
        /// What is the matter.
        diagnostic: &'a Diagnostic,
    },
    /// Something beside the build went wrong that does not keep the image from being made.
    Note(&'a str),
    /// The build has ended, well or not, and this is what is remembered of it.
    Recorded(&'a BuildRecord),
    /// Base images are being looked up.
    Resolving(&'a Reference),
    /// A base image that is not here is being pulled.
    Pulling(&'a Reference, &'a dhow_image::PullEvent),
    /// All that will be done is known.
    Planned(&'a [StepInfo]),
    /// A step is being looked at.
    Started(StepId),
    /// A step need not run.
    Cached(StepId),
    /// A step need not run, as the cache elsewhere of this name has its result.
    CachedFrom(StepId, &'a str),
    /// A cache elsewhere is being read.
    Importing(&'a str),
    /// A cache elsewhere is being written.
    ExportingCache(&'a str),
    /// A cache elsewhere is of no use, for the reason given; the build goes on without it.
    CacheUnusable(&'a str, &'a str),
    /// A step runs, for this reason.
    Running(StepId, &'a MissReason),
    /// A step started a container with this name for its program.
    Container(StepId, &'a str),
    /// Output of the program a step runs.
    Output(StepId, Stream, &'a [u8]),
    /// A step is done.
    Finished(StepId, &'a StepResult),
    /// A step failed; the error follows as the result of the build.
    Failed(StepId),
    /// A step was given up because another one failed.
    GivenUp(StepId),
    /// The build was asked to stop; its record says so by now, and nothing was ended yet.
    Canceled,
    /// All steps are done and this happens with the result.
    Exporting(&'a str),
    /// The result is on its way to a registry.
    Pushing(&'a Reference, &'a dhow_image::PushEvent),
}

/// A step of a build: one instruction of one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub usize);

/// Which output of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A step before it runs.
#[derive(Clone, Debug)]
pub struct StepInfo {
    /// Its id; steps are listed in order of it.
    pub id: StepId,
    /// The stage, by its name or, if it has none, its number.
    pub stage: String,
    /// Place among the instructions of the stage, from 1; `FROM` is the first.
    pub number: usize,
    /// How many instructions the stage has.
    pub count: usize,
    /// The instruction with its variables expanded.
    pub text: String,
    /// Line in the Dockerfile, from 1.
    pub line: usize,
}

/// A step after it ran or was found in the cache.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// ID of the image that ends with this step.
    pub image: Digest,
    /// Bytes of files in the layer it made; `None` if it makes none.
    pub layer_bytes: Option<u64>,
    /// What its program printed, now or when it ran.
    pub log: Option<StepLog>,
}

/// A finished build.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image ID; of several images the digest of their index.
    pub image: Digest,
    /// Whether an image with that ID was already here.
    pub existed: bool,
    /// What the build is found by in the history.
    pub build: String,
    /// What a registry knows the image by, if it was packed for one.
    pub descriptor: Option<Descriptor>,
}
