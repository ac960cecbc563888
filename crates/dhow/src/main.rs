//! The `dhow` command: docker's commands and flags over [`dhow_engine::Engine`].
//!
//! One command is one file in `commands`; it says what it accepts and what it prints, and leaves the work to
//! the engine. This is the only room that prints, and one of the two that read the environment.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod error;
mod explore;
mod filter;
mod progress;
mod settings;
mod ui;
mod when;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Containers are started by this binary executed again. That must come first: the helper process may
    // clone only while it has a single thread.
    dhow_engine::reexec::main_if_requested();
    cli::run(std::env::args_os())
}
