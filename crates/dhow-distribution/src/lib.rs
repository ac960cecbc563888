//! A registry server: the OCI distribution-spec over a folder or an S3-compatible store.
//!
//! Any number of servers may share one [`Storage`], and any of them may be killed at any moment. Nothing is kept in a
//! process: an upload goes on at whichever server the next request reaches.
//!
//! From the disk up: [`storage`] keeps small *records* by key and *content* by digest, durably, whole or not at all.
//! `registry` knows what these mean (repositories, manifests, tags, referrers, uploads) and collects garbage while
//! pushes run; its module text says why that is safe. `http` turns requests into calls of it and its errors into the
//! specification's. `auth` knows who asks and what they may do. `server` listens, speaks TLS and stops.
#![forbid(unsafe_code)]

mod auth;
mod config;
mod error;
mod glob;
mod http;
mod patience;
mod registry;
mod server;
pub mod storage;
mod tls;

pub use auth::{HtpasswdError, htpasswd_line};
pub use config::{Config, ConfigError, GcConfig, parse_duration};
pub use registry::{GcOptions, GcReport};
pub use server::{Event, ServeError, Server, collect};
