//! Which build steps must run, in what order, and why. Knows neither Docker nor disks.
//!
//! A build is a [`Graph`] of pure steps. The solver walks it from its inputs to the target, as many vertices
//! at a time as it is allowed. For each it asks the [`Worker`] for the [`Facts`] the result depends on, adds
//! the *content* of the input results, and makes a [`CacheKey`] of both. A key the [`Cache`] knows is a hit.
//! A key it does not know is a miss: the vertex runs, and because the facts are kept beside every result, the
//! solver can compare them with those of an earlier build and say exactly what changed ([`MissReason`]).
//!
//! Because a key holds the content of the inputs and not how they came about, a step that had to run again
//! but yields what it yielded before does not disturb the steps after it.
#![forbid(unsafe_code)]

mod facts;
mod graph;
mod miss;
mod past;
mod solve;
mod tree;

pub use facts::{CacheKey, Fact, FactKind, FactValue, Facts};
pub use graph::{CachePolicy, Graph, Site, Vertex, VertexId};
pub use miss::{Change, MissReason};
pub use past::{Cause, Earlier, Input, Past, StepChange};
pub use solve::{Cache, Event, Lookup, SolveError, Solver, Worker};
pub use tree::{ParseTreeError, Tree, TreeEntry};
