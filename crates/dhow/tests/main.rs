//! Acceptance tests: the built binary, real containers, a real registry.
//!
//! A test called `a07_…` or `b05_…` shows a row of the check-list that was made from the five tutorials: `a` rows are commands
//! the tutorials have a learner type, `b` rows are what they promise in prose. Everything is in one program, because linking
//! is the slow part of a test; see `rig` for what tests stand on. They want root and the test images:
//!
//! ```console
//! $ cargo xtask registry -- cargo nextest run -p dhow
//! ```
#![forbid(unsafe_code)]

mod bad_build;
mod bad_disk;
mod bad_registry;
mod bad_run;
mod build_attest;
mod build_cache_buildkit;
mod build_cache_elsewhere;
mod build_cache_forms;
mod build_credentials;
mod build_debug;
mod build_files;
mod build_lint;
mod build_outputs;
mod build_run;
mod build_sources;
mod build_ssh;
mod build_why;
mod cache;
mod container_commands;
mod container_peers;
mod containers;
mod cp;
mod differential;
mod engine_api;
mod escape;
mod explore;
mod faults;
mod flask_app;
mod hello_docker;
mod image_commands;
mod image_formats;
mod images;
mod life_cycles;
mod limits;
mod login;
mod mischief;
mod mounts;
mod my_python_app;
mod networks;
mod peers;
mod power_cut;
mod python_hello_world;
mod registry_serve;
mod registry_storm;
mod restarts;
mod rig;
mod rootless;
mod round_trips;
mod shown;
mod storm;
mod system;
mod transcripts;
mod traps;
mod volumes;
