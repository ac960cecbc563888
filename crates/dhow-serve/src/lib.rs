//! Docker's JSON over the engine.
//!
//! The shapes here are those of the Docker Engine API. `dhow inspect` prints them too, so they are kept
//! apart from the engine's own types: a rename inside is never a break outside.
#![forbid(unsafe_code)]

pub mod api;
pub mod classic;
pub mod container;
pub mod container_filter;
pub mod event;
pub mod image;
pub mod log_config;
pub mod network;
pub mod subrequest;
pub mod system;
pub mod volume;
pub mod when;
