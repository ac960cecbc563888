//! What docker and dhow make of the same Dockerfile, compared.
//!
//! ```text
//! case ── context on disk ── tool: build, save ── archive: layers, config ── tree ── outcome ── equal?
//!   └───────────────── the outcome as docker had it, or as it has to be ─────────────────────┘
//! ```
//! A [`Case`] is a text file: a sentence, a Dockerfile, the files around it, and the [`Outcome`] that another builder, docker,
//! once had. An outcome is text as well: what the build changed in the file system and the configuration of its base, so that
//! it reads like the expectation of any other test, and does not depend on what is in the base.
#![forbid(unsafe_code)]

mod archive;
mod case;
mod context;
mod outcome;
mod tool;
mod tree;

pub use archive::Image;
pub use case::{Case, Judge, cases};
pub use outcome::{Bases, Outcome};
pub use tool::Tool;

/// The time of every file of a context: 2020-01-02T03:04:05Z. An outcome says of each file whether it kept it.
pub(crate) const CONTEXT_TIME: i64 = 1_577_934_245;
