//! Building images.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use dhow_build::GatewayHosts;
use dhow_container::{HostsFile, NetworkRequest};
use dhow_dockerfile::Diagnostic;
pub use dhow_dockerfile::{Rule, Span};
use dhow_runtime::{ExecStreams, ExitStatus};

pub use dhow_build::{
    ArchiveDest, BuildError, BuildEvent, BuildRecord, BuildRequest, BuildStatus, Built, CacheElsewhere,
    CacheFrom, CachePlace, CacheTo, CheckReport, ContextSource, DockerfileSource, FindBuildError,
    FindStepError, History, ImageOutput, LayoutDest, LogReader, Modes, Outline, OutlineArg, OutlineMount,
    Output, OutputError, OutputRequest, ProvenanceRequest, SourceRequest, SourceText, StepId, StepInfo,
    StepLog, StepNetwork, StepOutcome, StepRecord, StepResult, StoreFailure, Stream, TargetInfo,
    parse_annotation, parse_attestation, parse_output, parse_short_attestation, split_csv,
};
pub use dhow_build::{
    DebugError, DebugRequest, DebugStep, Entitlements, Resources, Rlimit, RunOptions, SecretSource, SshSource,
};
pub use dhow_dockerfile::csv_fields;
pub use dhow_solver::{Cause, Change, FactKind, MissReason, StepChange};

use crate::Engine;

impl Engine {
    /// Builds an image and tells `observer` what happens, from several threads, until `cancel` is readable.
    pub fn build(
        &self,
        request: &BuildRequest,
        cancel: Option<BorrowedFd<'_>>,
        observer: &(dyn Fn(BuildEvent<'_>) + Sync),
    ) -> Result<Built, BuildError> {
        let has_run = AtomicBool::new(false);
        let observe = |event: BuildEvent<'_>| {
            if matches!(event, BuildEvent::Running(..)) {
                has_run.store(true, Ordering::Relaxed);
            }
            observer(event);
        };
        let built = self.with_builder(cancel, |builder| builder.build(request, &observe));
        // A build that only found what was there has added nothing.
        if has_run.load(Ordering::Relaxed)
            && let Err(error) = self.trim_build_cache()
        {
            observer(BuildEvent::Note(&format!("the build cache was not trimmed: {error}")));
        }
        built
    }

    /// Opens a shell where a step of a build stood; `entering` is told before it begins.
    pub fn debug(
        &self,
        request: &DebugRequest,
        streams: ExecStreams<'_>,
        entering: &mut dyn FnMut(&DebugStep),
    ) -> Result<ExitStatus, DebugError> {
        self.with_builder(None, |builder| builder.debug(request, streams, entering))
    }

    /// Looks a Dockerfile through without building it.
    pub fn check_dockerfile(&self, request: &BuildRequest) -> Result<CheckReport, BuildError> {
        self.with_builder(None, |builder| builder.check(request))
    }

    /// What the target of a build can be told.
    pub fn outline(&self, request: &BuildRequest) -> Result<(SourceText, Outline), BuildError> {
        self.with_builder(None, |builder| builder.outline(request))
    }

    /// The targets that a Dockerfile has.
    pub fn targets(&self, request: &BuildRequest) -> Result<(SourceText, Vec<TargetInfo>), BuildError> {
        self.with_builder(None, |builder| builder.targets(request))
    }

    fn with_builder<T>(
        &self,
        cancel: Option<BorrowedFd<'_>>,
        work: impl FnOnce(&dhow_build::Builder<'_>) -> T,
    ) -> T {
        let run = &self.settings.run;
        let network = |id: &str, network, dns, hosts: Option<GatewayHosts>| match network {
            StepNetwork::Default => {
                let hosts = hosts.map(|hosts| HostsFile {
                    path: hosts.path,
                    hostname: hosts.hostname,
                    extra: hosts.names,
                });
                Some(NetworkRequest::plain(run, id, dns, hosts).to_value())
            }
            StepNetwork::None => Some(NetworkRequest::Loopback.to_value()),
            StepNetwork::Host => None,
        };
        work(&dhow_build::Builder {
            images: &self.images,
            registry: &|| self.registry(),
            run_dir: run,
            network: &network,
            cancel,
            clock: self.settings.clock,
        })
    }

    /// What was built here.
    pub fn builds(&self) -> History<'_> {
        History::new(self.store())
    }

    /// The output of a step's program.
    pub fn build_log(&self, log: &StepLog) -> Result<LogReader, StoreFailure> {
        LogReader::open(self.store(), &log.blob)
    }

    /// Bytes of the files in the build context that are not left out.
    pub fn context_bytes(&self, request: &BuildRequest) -> Result<u64, BuildError> {
        dhow_build::context_bytes(request)
    }
}

/// The syntax tree of a Dockerfile as BuildKit's parser prints it, or what is wrong with the file.
pub fn dockerfile_ast(text: &str) -> Result<String, String> {
    dhow_dockerfile::sexpr(text)
}

/// A diagnostic as text: message, place, lines and hint.
pub fn render(diagnostic: &Diagnostic, file: &str, source: &str) -> String {
    diagnostic.render(file, source)
}
