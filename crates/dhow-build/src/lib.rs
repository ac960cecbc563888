//! Lowers a Dockerfile to a graph, runs its operations, exports results.
//!
//! ```text
//! context ─┐
//! request ─┼─ lower ── plan: graph + configuration ── solver ── execute ┬─ gather: select, hash, copy, unpack
//! bases  ──┘            (scope, configure)              │               ├─ remote: http, git
//!                                                     cache             └─ run
//! ```
//! The Dockerfile is lowered first, base images being resolved on the way, since their environment decides
//! what its variables mean. From then on every step is pure: the solver may skip it, run it beside others, or
//! take its result from an earlier build. The image is put together at the end out of the configuration,
//! which was known all along, and the layers.
#![forbid(unsafe_code)]

mod agents;
mod build;
mod cache;
mod call;
mod change;
mod chmod;
mod configure;
mod context;
mod copy;
mod date;
mod debug;
mod elsewhere;
mod error;
mod event;
mod execute;
mod export;
mod facts;
mod gather;
mod hash;
mod history;
mod layer_form;
mod log;
mod lower;
mod mount;
mod output;
mod owner;
mod parsed;
mod place;
mod plan;
mod ports;
mod provenance;
mod remote;
mod request;
mod resolve;
mod run;
mod run_options;
mod scope;
mod select;
mod stock;
mod stop;
#[cfg(test)]
mod stories;
mod unpack;

pub use agents::AgentError;
pub use build::{Builder, context_bytes};
pub use call::{CheckReport, Outline, OutlineArg, OutlineMount, SourceText, TargetInfo};
pub use change::{ChangeError, change};
pub use copy::CopyError;
pub use debug::{DebugError, DebugRequest, DebugStep};
pub use elsewhere::{
    CacheAttributeError, CacheElsewhere, CacheExportError, CacheForm, CacheFrom, CacheMode, CachePlace,
    CacheTo, ImportError, LocalCache,
};
pub use error::{BuildError, ExportError, StepError, StepFailure, StoreFailure};
pub use event::{BuildEvent, Built, StepId, StepInfo, StepResult, Stream};
pub use export::EpochError;
pub use history::{
    BUILDS_KEPT, BuildRecord, BuildStatus, FindBuildError, FindStepError, History, RecordedRequest,
    StepOutcome, StepRecord,
};
pub use log::{LogReader, Piece, StepLog};
pub use output::{
    ArchiveDest, Attributes, ImageOutput, LayoutDest, Output, OutputError, OutputRequest, PackRequest,
    ProvenanceMode, ProvenanceRequest, ProvenanceVersion, parse_annotation, parse_attestation, parse_output,
    parse_short_attestation, split_csv,
};
pub use remote::SourceError;
pub use request::{BuildRequest, ContextSource, DockerfileSource, SourceRequest, StepNetwork};
pub use run::{GatewayHosts, NetworkRequest, RunError};
pub use run_options::{Entitlements, Resources, Rlimit, RunOptions, SecretSource, SshSource};
pub use select::{IgnoredBy, Modes, SelectError};
pub use stock::{CacheEntry, CacheTotals, PruneCache, Stock};
