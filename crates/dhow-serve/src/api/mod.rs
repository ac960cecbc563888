//! The Docker Engine API over the engine.
//!
//! ```text
//! server ── sockets, limits, one task a connection
//!   └── route ── the table of everything that is answered; docs/api-coverage.md is made of it
//!         └── endpoints ── one function each, synchronous, on a thread of its own
//!               exchange ── what it is given and what it gives back
//! ```
//!
//! The server holds no state: what an endpoint knows it reads from the engine each time. It may be killed at any
//! moment, and many may run over one store.

mod archive;
mod attach;
mod body;
mod build;
mod containers;
mod create;
mod create_body;
mod error;
mod exchange;
mod exec;
mod images;
mod networks;
mod pending;
mod query;
mod route;
mod server;
mod stats;
mod system;
mod volumes;

pub use route::coverage;
pub use server::{Config, Listen, ListenError, Notice, ServeError, Server};

/// The version of the API that is spoken, and the oldest that clients may ask for.
pub const API_VERSION: (u32, u32) = (1, 47);
pub(crate) const API_VERSION_MIN: (u32, u32) = (1, 24);
